//! Compiles every kernel for every architecture and reports what each takes of a multiprocessor.

mod occupancy;
mod resources;

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{self, Result, command, output, root};
use crate::toolchain::Toolchain;
use resources::Table;
pub use resources::aligned;

/// Those of the fatbins. Their PTX is the first one's, for devices that come after them.
pub const ARCHITECTURES: [&str; 4] = ["sm_80", "sm_90", "sm_100", "sm_120"];

/// What is to happen with the committed tables.
pub enum Committed {
    Ignored,
    Checked,
    Written,
}

/// One source file for one architecture.
pub struct Compiled {
    /// The file's name without its extension.
    pub file: String,
    /// One of [`ARCHITECTURES`].
    pub architecture: &'static str,
    pub cubin: PathBuf,
    /// What the cubin was assembled from.
    pub ptx: PathBuf,
    /// What ptxas said: the resources.
    pub log: String,
}

/// The sources, in order of their names.
pub fn sources() -> Result<Vec<PathBuf>> {
    let folder = root().join("kernels");
    if folder.is_dir() { process::files(&folder, &["cu"]) } else { Ok(Vec::new()) }
}

/// Compiles, prints the table, fails on spills and on local memory.
pub fn report(toolchain: &Toolchain, committed: Committed) -> Result<()> {
    let compiled = compile(toolchain, &ARCHITECTURES)?;
    let table = Table::new(&compiled)?;
    println!("{}", table.text());
    for Compiled { file, architecture, log, .. } in &compiled {
        for line in log.lines().filter(|line| line.contains("warning")) {
            println!("{file}.cu, {architecture}: {line}");
        }
    }
    table.check()?;
    for (name, text) in [("resources.json", table.json()?), ("resources.md", table.markdown())] {
        let path = root().join("benches/results").join(name);
        match committed {
            Committed::Ignored => {}
            Committed::Written => fs::write(&path, text)?,
            Committed::Checked if fs::read_to_string(&path).ok().as_ref() == Some(&text) => {}
            Committed::Checked => {
                let message = "is stale; `cargo xtask kernels --write` brings it up to date";
                return Err(format!("benches/results/{name} {message}").into());
            }
        }
    }
    Ok(())
}

/// Compiles every source for each of the architectures. What has not changed is taken from the time before.
pub fn compile(toolchain: &Toolchain, architectures: &[&'static str]) -> Result<Vec<Compiled>> {
    let sources = sources()?;
    if sources.is_empty() {
        return Err("there are no kernels/*.cu".into());
    }
    let folder = process::target().join("kernels");
    fs::create_dir_all(&folder)?;
    let generated = prefuse::objectives::cuda_source();
    fs::write(folder.join("objectives.cuh"), &generated)?;
    let text = contents(&generated)?;
    let jobs = sources.iter().flat_map(|source| architectures.iter().map(move |&a| (source, a)));
    let jobs: Vec<_> = jobs.collect();
    let compile = |&(source, a): &(&PathBuf, _)| compile_one(toolchain, &folder, source, a, &text);
    process::parallel(&jobs, compile)?.into_iter().collect()
}

/// Everything that a kernel may include.
fn contents(generated: &str) -> Result<String> {
    let mut text = generated.to_owned();
    for path in process::files(&root().join("kernels"), &["cu", "cuh"])? {
        text += &fs::read_to_string(path)?;
    }
    Ok(text)
}

fn compile_one(
    toolchain: &Toolchain,
    folder: &Path,
    source: &Path,
    architecture: &'static str,
    contents: &str,
) -> Result<Compiled> {
    let file = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let cubin = folder.join(format!("{file}.{architecture}.cubin"));
    let log_path = cubin.with_extension("log");
    let kept_files = folder.join(architecture);
    fs::create_dir_all(&kept_files)?;
    let ptx = kept_files.join(format!("{file}.ptx"));
    let mut nvcc = command(&toolchain.nvcc);
    nvcc.arg("-cubin").arg(format!("-arch={architecture}"));
    nvcc.arg("--keep").arg("--keep-dir").arg(&kept_files);
    nvcc.args(["-O3", "-std=c++17", "-fmad=false", "-lineinfo", "-Xptxas", "-v"]);
    nvcc.args(["-I", "kernels/include", "-I"]).arg(folder);
    nvcc.arg(source).arg("-o").arg(&cubin);
    let stamp = stamp(&nvcc, contents);
    if let Some(log) = kept(&log_path, &stamp)
        && cubin.exists()
        && ptx.exists()
    {
        return Ok(Compiled { file, architecture, cubin, ptx, log });
    }
    let log = String::from_utf8_lossy(&output(&mut nvcc)?.stderr).into_owned();
    fs::write(&log_path, format!("{stamp}\n{log}"))?;
    Ok(Compiled { file, architecture, cubin, ptx, log })
}

fn stamp(nvcc: &Command, contents: &str) -> String {
    let mut hasher = DefaultHasher::new();
    (nvcc.get_program(), nvcc.get_args().collect::<Vec<_>>(), contents).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// What ptxas said the time before, if that was about the same.
fn kept(path: &Path, stamp: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let (first, log) = text.split_once('\n')?;
    (first == stamp).then(|| log.to_owned())
}
