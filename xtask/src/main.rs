//! The project's commands, `cargo xtask COMMAND`; [`USAGE`] lists them.

mod bundle;
mod device_run;
mod disassembly;
mod kernels;
mod mutate;
mod newer_nvcc;
mod process;
mod steps;
mod toolchain;
mod wheel;

use std::process::ExitCode;

use process::Result;
use toolchain::Toolchain;

const USAGE: &str = "\
cargo xtask test                    every check that a change must pass
cargo xtask format                  formats Rust, CUDA, C++ and Python in place
cargo xtask kernels                 registers, shared memory and occupancy of every kernel; fails on spills
            kernels --write         the same into benches/results/resources.{json,md}
            kernels --check         fails where those are stale
cargo xtask disassembly             instructions per logit of the hot loops on sm_90; fails over a bound
cargo xtask wheel                   builds the Python wheel, installs it into target/python, tests it
cargo xtask gpu-bundle [--out DIR]  tests and benches for a GPU machine without Rust: DIR/run.sh there
cargo xtask mutate [FILE]           takes each barrier out of the kernels; fails where no test notices
cargo xtask exhaustive              every f32 through exponential, logarithm and conversions; minutes
cargo xtask candle-cuda             type-checks prefuse-candle with CUDA; minutes

The CUDA 13.0 compiler installs itself into target/cuda-13.0 with python3 and pip; NVCC may name
one that is there. PREFUSE_SKIP_NVCC=1 leaves out what needs it.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[String]) -> Result<()> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["test"] => steps::test(),
        ["format"] => steps::format(),
        ["kernels"] => kernels::report(&Toolchain::install()?, kernels::Committed::Ignored),
        ["kernels", "--write"] => {
            kernels::report(&Toolchain::install()?, kernels::Committed::Written)
        }
        ["kernels", "--check"] => {
            kernels::report(&Toolchain::install()?, kernels::Committed::Checked)
        }
        ["disassembly"] => disassembly::report(&Toolchain::install()?),
        ["wheel"] => steps::test_wheel(),
        ["gpu-bundle"] => bundle::pack("target/gpu-bundle"),
        ["gpu-bundle", "--out", folder] => bundle::pack(folder),
        ["mutate"] => mutate::run(None),
        ["mutate", filter] => mutate::run(Some(filter)),
        ["exhaustive"] => steps::exhaustive(),
        ["candle-cuda"] => steps::candle_cuda(),
        // What run.sh of the bundle calls on the GPU machine.
        ["device-run", ref options @ ..] => device_run::run(options),
        ref other => {
            let complaint = if other.is_empty() {
                String::new()
            } else {
                format!("no command `{}`\n\n", other.join(" "))
            };
            Err(format!("{complaint}{USAGE}").into())
        }
    }
}
