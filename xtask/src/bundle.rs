//! Packs the tests and benches for a GPU machine that has neither Rust nor a network: binaries with
//! the kernels in them, the files that the tests read, and `run.sh`. `device_run` is its other half.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::process::{Result, cargo, command, output, root, text};
use crate::toolchain::Toolchain;

/// What a machine takes with a command; the sum of all files.
const MOST_BYTES: u64 = 60_000_000;

/// Makes the folder anew.
pub fn pack(folder: &str) -> Result<()> {
    let folder = root().join(folder);
    empty(&folder)?;
    let toolchain = Toolchain::install()?;
    let mut tests = cargo();
    tests.envs(toolchain.fatbins()).env("PREFUSE_NVCC", "require");
    tests.args(["test", "--release", "--no-run", "-p", "prefuse", "--test", "all", "--benches"]);
    let mut runner = cargo();
    runner.args(["build", "--release", "-p", "xtask"]);
    for cargo in [&mut tests, &mut runner] {
        let built = Built::new(cargo)?;
        for (name, binary) in &built.executables {
            let copy = copied(binary, &folder.join("bin").join(name))?;
            output(command("strip").arg(&copy))?;
        }
        for fatbin in &built.fatbins {
            let name = fatbin.file_name().unwrap_or_default();
            copied(fatbin, &folder.join("fatbins").join(name))?;
        }
    }
    for file in sources()? {
        copied(&root().join(&file), &folder.join("root").join(&file))?;
    }
    let describe = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"];
    fs::write(folder.join("commit.txt"), text(command("git").args(describe))?)?;
    let script = folder.join("run.sh");
    fs::write(&script, include_str!("run.sh"))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let bytes = size(&folder)?;
    println!("{}: {:.1} MB", folder.display(), bytes as f64 / 1e6);
    if bytes > MOST_BYTES {
        return Err(format!("the bundle has {bytes} bytes, {MOST_BYTES} allowed").into());
    }
    Ok(())
}

/// Deletes an earlier bundle, and nothing else.
fn empty(folder: &Path) -> Result<()> {
    if folder.join("run.sh").exists() {
        fs::remove_dir_all(folder)?;
    } else if folder.exists() && fs::read_dir(folder)?.next().is_some() {
        return Err(format!("{} is not an earlier bundle", folder.display()).into());
    }
    Ok(())
}

/// What cargo says that it built.
#[derive(Default)]
struct Built {
    executables: Vec<(String, PathBuf)>,
    fatbins: Vec<PathBuf>,
}

impl Built {
    fn new(cargo: &mut Command) -> Result<Self> {
        let cargo = cargo.arg("--message-format=json-render-diagnostics");
        let mut built = Self::default();
        for line in text(cargo)?.lines() {
            built.add(&serde_json::from_str(line)?)?;
        }
        Ok(built)
    }

    fn add(&mut self, message: &Value) -> Result<()> {
        let word = |value: &Value| value.as_str().map(str::to_owned);
        match message["reason"].as_str() {
            Some("compiler-artifact") => {
                if let (Some(name), Some(binary)) =
                    (word(&message["target"]["name"]), word(&message["executable"]))
                {
                    self.executables.push((name, binary.into()));
                }
            }
            Some("build-script-executed") => {
                let Some(folder) = word(&message["out_dir"]) else { return Ok(()) };
                self.fatbins.extend(crate::process::files(Path::new(&folder), &["fatbin"])?);
            }
            _ => {}
        }
        Ok(())
    }
}

/// The files that tests read when they run: expected values, headers, and sources for the tests of
/// the layout.
fn sources() -> Result<Vec<PathBuf>> {
    let listed =
        text(command("git").args(["ls-files", "--cached", "--others", "--exclude-standard"]))?;
    let kept = listed.lines().map(PathBuf::from).filter(|path| {
        let source =
            path.extension().is_some_and(|e| ["rs", "cu", "cuh", "toml"].iter().any(|&s| e == s));
        (source || path.starts_with("tests/golden") || path.starts_with("docs"))
            && root().join(path).is_file()
    });
    Ok(kept.collect())
}

fn copied(from: &Path, to: &Path) -> Result<PathBuf> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::copy(from, to).map_err(|error| format!("{}: {error}", from.display()))?;
    Ok(to.to_path_buf())
}

fn size(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let data = entry.metadata()?;
        bytes += if data.is_dir() { size(&entry.path())? } else { data.len() };
    }
    Ok(bytes)
}
