//! `cargo xtask test`: every check that a change must pass, in order.

use std::ffi::OsString;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Instant;

use crate::disassembly;
use crate::kernels::{self, Committed};
use crate::newer_nvcc;
use crate::process::{self, Result, cargo, command, root, run};
use crate::toolchain::{self, Toolchain};
use crate::wheel;

/// One check.
struct Step {
    name: &'static str,
    work: Work,
}

enum Work {
    /// cargo's arguments, and its environment beyond that of all steps.
    Cargo(&'static [&'static str], &'static [(&'static str, &'static str)]),
    /// All tests, the emulator in one of its modes; or of its test programs those whose names have one of
    /// these parts.
    Tests(&'static str, &'static [&'static str]),
    /// What needs the CUDA compiler or its companions.
    Tools(fn(&Toolchain) -> Result<()>),
    /// What needs nothing but cargo.
    Own(fn() -> Result<()>),
    /// The wheel and its tests.
    Wheel,
}

use Work::{Cargo, Own, Tests, Tools, Wheel};

const fn step(name: &'static str, work: Work) -> Step {
    Step { name, work }
}

/// The kernels are compiled into all but the packaged crate, so that the crate is built both ways.
const WITH_KERNELS: (&str, &str) = ("PREFUSE_NVCC", "require");
/// What is embedded need not be machine code, half of the compiler's work: the step `kernels` has that of
/// every architecture.
const TARGETS: (&str, &str) = ("PREFUSE_CUDA_ARCHS", "ptx80");
/// No step runs the emulator of the profiles that these are for.
const WITHOUT_EMULATOR: (&str, &str) = ("PREFUSE_EMULATOR", "check");
/// Tests whose sizes depend on the emulator's mode, and those of the mode itself.
const LARGE: &[&str] = &[
    "alignment",
    "driver",
    "dtype_and_vocabulary",
    "every_vocabulary",
    "good",
    "in_any_batch",
    "large",
    "launches",
    "long",
    "many",
    "one_visit",
    "planted",
];
/// Tests in which a kernel could leave its rows: of each stage, and of where rows lie; and those of the mode
/// itself.
const ADDRESSES: &[&str] = &[
    "alignment",
    "anywhere",
    "device_errors",
    "driver",
    "every_backend",
    "good",
    "launches",
    "many",
    "masked",
    "one_visit",
    "planted",
    "sums",
    "targets",
    "visits",
];
const WITHOUT_KERNELS: (&str, &str) = ("PREFUSE_NVCC", "off");

/// The steps that this tree has.
fn steps() -> Vec<Step> {
    let mut steps = vec![
        step("format of Rust", Cargo(&["fmt", "--all", "--check"], &[])),
        step("format of objectives, CUDA and Python", Tools(check_format)),
        step("build beside a newer nvcc", Own(newer_nvcc::check)),
    ];
    if kernels::sources().is_ok_and(|sources| !sources.is_empty()) {
        steps.push(step("kernels", Tools(check_kernels)));
        steps.push(step("disassembly", Tools(disassembly::report)));
        steps.push(step("build with nvcc", Tools(build_with_nvcc)));
    }
    steps.extend([
        step(
            "lints",
            Cargo(
                &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"],
                &[WITHOUT_EMULATOR],
            ),
        ),
        step(
            "documentation",
            Cargo(
                &["doc", "--workspace", "--no-deps"],
                &[("RUSTDOCFLAGS", "-D warnings"), WITHOUT_EMULATOR],
            ),
        ),
        // What the feature adds is a backend; the others have been tested with it.
        step(
            "lints of the core without default features",
            Cargo(
                &[
                    "clippy",
                    "-p",
                    "prefuse",
                    "--no-default-features",
                    "--all-targets",
                    "--",
                    "-D",
                    "warnings",
                ],
                &[],
            ),
        ),
        // Every test of every package in one profile, so that nothing is built twice; the kernels watched for
        // races.
        step("tests", Tests("race", &[])),
        // Built with the others, whose features it would not have by itself.
        step(
            "build of the example",
            Cargo(&["build", "--workspace", "--profile", "test", "--bin", "align"], &[]),
        ),
        step("the example", Own(run_example)),
        step("the wheel", Wheel),
    ]);
    if root().join("tests/emulator/Cargo.toml").exists() {
        steps.extend([
            // Sizes that the race mode is too slow for; it has all the rest.
            step("kernels in the emulator, large sizes", Tests("fast", LARGE)),
            step("kernels in the emulator, under AddressSanitizer", Tests("asan", ADDRESSES)),
        ]);
    }
    steps.push(step(
        "the packaged crate, without nvcc",
        Cargo(&["package", "-p", "prefuse", "--allow-dirty"], &[WITHOUT_KERNELS]),
    ));
    steps
}

/// Runs every step until one fails, and says how many passed.
pub fn test() -> Result<()> {
    install_components();
    let toolchain = if toolchain::skipped() { None } else { Some(Toolchain::install()?) };
    // Torch takes minutes to arrive, in which other steps go on.
    let mut python = Some(std::thread::spawn(wheel::prepare));
    let (mut passed, mut skipped) = (0, 0);
    for Step { name, work } in steps() {
        let start = Instant::now();
        let outcome = match (&work, &toolchain) {
            (Tools(_), None) => {
                println!("\n== {name}: skipped, PREFUSE_SKIP_NVCC is set");
                skipped += 1;
                continue;
            }
            (Tools(work), Some(toolchain)) => {
                println!("\n== {name}");
                work(toolchain)
            }
            (Own(work), _) => {
                println!("\n== {name}");
                work()
            }
            (Tests(mode, names), toolchain) => {
                println!("\n== {name}");
                // Other packages would ask for other features of what all build on.
                let mut arguments = vec!["test", "--workspace"];
                if !names.is_empty() {
                    arguments.extend(["--test", "suite", "--test", "self_test", "--"]);
                    arguments.extend(*names);
                }
                run_cargo(&arguments, &[("PREFUSE_EMULATOR", *mode)], toolchain.as_ref())
            }
            (Wheel, toolchain) => {
                println!("\n== {name}");
                let prepared = python.take().map(JoinHandle::join);
                let folder = match prepared {
                    Some(Ok(folder)) => folder,
                    _ => wheel::prepare(),
                };
                folder.and_then(|of| wheel::check(&of, &build_environment(toolchain.as_ref())))
            }
            (Cargo(arguments, environment), toolchain) => {
                println!("\n== {name}: cargo {}", arguments.join(" "));
                run_cargo(arguments, environment, toolchain.as_ref())
            }
        };
        if let Err(error) = outcome {
            println!("{error}\n\nsteps: {passed} passed, 1 failed");
            return Err(format!("the step `{name}` failed").into());
        }
        println!("== {name}: {:.0} s", start.elapsed().as_secs_f64());
        passed += 1;
    }
    let skipped = if skipped == 0 { String::new() } else { format!(", {skipped} skipped") };
    println!("\nsteps: {passed} passed, 0 failed{skipped}");
    Ok(())
}

fn run_example() -> Result<()> {
    run(command(process::target().join("debug/align")).arg("--quick"))
}

fn run_cargo(
    arguments: &[&str],
    environment: &[(&str, &str)],
    toolchain: Option<&Toolchain>,
) -> Result<()> {
    let build = build_environment(toolchain);
    run(cargo().args(arguments).envs(build).envs(environment.iter().copied()))
}

/// How all steps but the packaged crate build: with the kernels, where there is a compiler.
fn build_environment(toolchain: Option<&Toolchain>) -> Vec<(&'static str, OsString)> {
    let plain = |(name, value): (&'static str, &str)| (name, OsString::from(value));
    match toolchain {
        Some(toolchain) => {
            let fatbins = toolchain.fatbins().map(|(name, path)| (name, path.into_os_string()));
            fatbins.into_iter().chain([WITH_KERNELS, TARGETS].map(plain)).collect()
        }
        None => vec![plain(WITHOUT_KERNELS)],
    }
}

/// The wheel by itself.
pub fn test_wheel() -> Result<()> {
    let toolchain = if toolchain::skipped() { None } else { Some(Toolchain::install()?) };
    wheel::check(&wheel::prepare()?, &build_environment(toolchain.as_ref()))
}

/// Formats everything in place.
pub fn format() -> Result<()> {
    install_components();
    run(cargo().args(["fmt", "--all"]))?;
    let toolchain = Toolchain::install()?;
    run(command(&toolchain.clang_format).arg("-i").args(clang_sources()?))?;
    run(command(&toolchain.ruff).args(["format", "--quiet", "."]))
}

fn check_format(toolchain: &Toolchain) -> Result<()> {
    // cargo fmt does not see the modules that the list's macro declares.
    let objectives = process::files(&root().join("src/objectives"), &["rs"])?;
    run(command("rustfmt").args(["--check", "--edition", "2024"]).args(objectives))?;
    run(command(&toolchain.clang_format).args(["--dry-run", "-Werror"]).args(clang_sources()?))?;
    run(command(&toolchain.ruff).args(["format", "--quiet", "--check", "."]))?;
    run(command(&toolchain.ruff).args(["check", "--quiet", "."]))
}

/// The CUDA and C++ sources.
fn clang_sources() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in ["kernels", "tests"] {
        found.extend(process::files(
            &root().join(folder),
            &["cu", "cuh", "c", "h", "hpp", "cpp", "inc"],
        )?);
    }
    Ok(found)
}

/// The tables that are committed, where there are any, must be those of this tree.
fn check_kernels(toolchain: &Toolchain) -> Result<()> {
    let committed = root().join("benches/results/resources.json").exists();
    let committed = if committed { Committed::Checked } else { Committed::Ignored };
    kernels::report(toolchain, committed)
}

fn build_with_nvcc(toolchain: &Toolchain) -> Result<()> {
    run_cargo(&["build", "-p", "prefuse"], &[], Some(toolchain))
}

/// Of what `test` runs with a sample of the numbers.
pub fn exhaustive() -> Result<()> {
    let tests = ["test", "--release", "-p", "prefuse", "--lib", "--", "--ignored"];
    run_cargo(&tests, &[], None)
}

/// Type-checks and lints the CUDA path of `prefuse-candle` and its tests: candle's kernels are
/// compiled, which takes minutes. Ours are not asked for.
pub fn candle_cuda() -> Result<()> {
    let toolchain = Toolchain::install()?;
    // candle looks at NVCC, cudarc at PATH.
    let mut cargo = cargo();
    cargo.env("NVCC", &toolchain.nvcc).env("PATH", toolchain.path()?);
    cargo.env("CUDA_COMPUTE_CAP", "90").envs([WITHOUT_KERNELS]);
    run(cargo
        .args(["clippy", "-p", "prefuse-candle", "--all-targets", "--features", "cuda"])
        .args(["--", "-D", "warnings"]))
}

/// Rust comes without them where rustup's minimal profile was chosen. If that fails, the step that
/// needs one says so.
fn install_components() {
    for (component, tool) in [("rustfmt", "fmt"), ("clippy", "clippy")] {
        if process::output(cargo().args([tool, "--version"])).is_err() {
            let _ = run(command("rustup").args(["component", "add", component]));
        }
    }
}
