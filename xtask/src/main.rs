//! The project's commands: `cargo xtask test`, `cargo xtask mutate` and `cargo xtask candle-cuda`.

mod mutate;

use std::process::{Command, ExitCode};
use std::time::Instant;

/// One line of a check: what it is for, and what is run.
struct Step {
    name: &'static str,
    arguments: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
}

const fn step(name: &'static str, arguments: &'static [&'static str]) -> Step {
    Step { name, arguments, environment: &[] }
}

/// Everything that must hold before a change lands. Nothing but Rust is needed, and a C++ compiler for
/// the emulator that runs the kernels.
const TEST: &[Step] = &[
    step("format", &["fmt", "--all", "--check"]),
    step("lints", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    Step {
        name: "documentation",
        arguments: &["doc", "--workspace", "--no-deps"],
        environment: &[("RUSTDOCFLAGS", "-D warnings")],
    },
    // The core with overflow checks and debug assertions; the members that build on candle in the
    // profile of the example, so that candle is compiled once.
    step("tests of the core", &["test"]),
    step("tests of the core without default features", &["test", "--no-default-features"]),
    // Every f32 through the exponential and the conversions.
    step("exhaustive tests", &["test", "--release", "-p", "prefuse", "--lib", "--", "--ignored"]),
    step("tests of the members", &["test", "--release", "--workspace", "--exclude", "prefuse"]),
    Step {
        name: "kernels on the emulator, watched for races",
        arguments: &["test", "-p", "prefuse-emulator"],
        environment: &[("PREFUSE_EMULATOR", "race")],
    },
    Step {
        name: "kernels on the emulator, watched by AddressSanitizer",
        arguments: &["test", "-p", "prefuse-emulator"],
        environment: &[("PREFUSE_EMULATOR", "asan")],
    },
    step("the example", &["run", "--release", "-p", "align", "--", "--quick"]),
    step("the packaged crate", &["package", "-p", "prefuse", "--allow-dirty"]),
];

/// Type-checks the CUDA path of `prefuse-candle`: candle's kernels are compiled, which takes
/// minutes, and nvcc must be on PATH or named by `NVCC`.
const CANDLE_CUDA: &[Step] = &[Step {
    name: "prefuse-candle with CUDA",
    arguments: &["check", "-p", "prefuse-candle", "--features", "cuda"],
    environment: &[("CUDA_COMPUTE_CAP", "90")],
}];

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("test") => {
            install_components();
            run(TEST)
        }
        Some("mutate") => mutate::run(std::env::args().nth(2).as_deref()),
        Some("candle-cuda") => run(CANDLE_CUDA),
        other => {
            if let Some(other) = other {
                eprintln!("no command `{other}`");
            }
            eprintln!(
                "cargo xtask test          every check that a change must pass\n\
                 cargo xtask mutate [FILE] takes barriers out of kernels; tests must notice; minutes\n\
                 cargo xtask candle-cuda   type-checks prefuse-candle with CUDA; needs nvcc, minutes"
            );
            ExitCode::FAILURE
        }
    }
}

/// Toolchains come without them where rustup's minimal profile was chosen. If that fails, the step
/// that needs one says so.
fn install_components() {
    for (component, tool) in [("rustfmt", "fmt"), ("clippy", "clippy")] {
        let found = Command::new(env!("CARGO")).args([tool, "--version"]).output();
        if !found.is_ok_and(|output| output.status.success()) {
            let _ = Command::new("rustup").args(["component", "add", component]).status();
        }
    }
}

fn run(steps: &[Step]) -> ExitCode {
    for (passed, Step { name, arguments, environment }) in steps.iter().enumerate() {
        println!("\n== {name}: cargo {}", arguments.join(" "));
        let start = Instant::now();
        let status =
            Command::new(env!("CARGO")).args(*arguments).envs(environment.iter().copied()).status();
        if !status.is_ok_and(|status| status.success()) {
            println!("\nsteps: {passed} passed, 1 failed");
            return ExitCode::FAILURE;
        }
        println!("== {name}: {:.0} s", start.elapsed().as_secs_f64());
    }
    println!("\nsteps: {} passed, 0 failed", steps.len());
    ExitCode::SUCCESS
}
