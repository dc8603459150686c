//! The wheel: built, installed into an environment of its own, and tested there.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::process::{self, Result, command, output, run};

/// What the tests of the wheel need; torch and TRL are those that the golden files and the bench are of.
const PINS: [&str; 6] = [
    "maturin==1.16.0",
    "numpy==2.4.6",
    "pytest==9.2.0",
    "torch==2.11.0",
    "transformers==5.24.0",
    "trl==1.16.0",
];

/// Builds it as users do, but for the profile, with the environment that the other steps have, and runs
/// `python/tests` in the [`prepare`]d folder.
pub fn check(folder: &Path, environment: &[(&str, OsString)]) -> Result<()> {
    let programs = folder.join("bin");
    let wheels = process::target().join("wheels");
    if wheels.exists() {
        fs::remove_dir_all(&wheels)?;
    }
    run(command(programs.join("maturin"))
        .args(["build", "--quiet", "--profile", "wheel", "--manifest-path", "python/Cargo.toml"])
        .arg("--out")
        .arg(&wheels)
        .envs(environment.iter().cloned()))?;
    let python = programs.join("python");
    let wheel = process::files(&wheels, &["whl"])?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    run(command(&python).args(pip).args(["--no-deps", "--force-reinstall"]).args(wheel))?;
    // TRL would look for what it can be asked to download.
    run(command(&python)
        .args(["-m", "pytest", "--quiet", "--disable-warnings", "python/tests"])
        .env("HF_HUB_OFFLINE", "1"))
}

/// The folder of Python's environment with the pins, made where it is missing or has others.
pub fn prepare() -> Result<PathBuf> {
    let folder = process::target().join("python");
    let stamp = folder.join("pins.txt");
    if fs::read_to_string(&stamp).ok().as_deref() != Some(&PINS.join("\n")) {
        println!("installing {} into target/python", PINS.join(" "));
        create(&folder)?;
        fs::write(&stamp, PINS.join("\n"))?;
    }
    Ok(folder)
}

fn create(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    output(command("python3").args(["-m", "venv"]).arg(folder))?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    output(command(folder.join("bin/python")).args(pip).args(PINS))?;
    Ok(())
}
