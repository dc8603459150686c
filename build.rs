//! Compiles each `kernels/*.cu` ahead of time into a fatbin, and writes `kernels.rs`, which embeds
//! them. Where nvcc is missing or does not work the crate builds all the same, without kernels, and
//! says so at run time: whoever only depends on it should not have to have a compiler in order.
//! What a person can set:
//!
//! - `PREFUSE_NVCC`: `require` makes that a build error, `off` leaves nvcc alone;
//! - `PREFUSE_CUDA_ARCHS`: what to build for, such as `90` or `80;90;100;120+ptx80`;
//! - `PREFUSE_KERNEL_CACHE`: a folder for fatbins that several builds share;
//! - `PREFUSE_PREBUILT`: a folder of ready ones, such as `fatbins` in another build's `OUT_DIR`;
//! - `NVCC`, `NVCC_CCBIN`, `CUDA_HOME` and its like: the compiler and its host compiler.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::{env, fs};

#[path = "build/nvcc.rs"]
mod nvcc;
#[allow(dead_code, unused_imports)]
#[path = "src/objectives/mod.rs"]
mod objectives;
#[path = "build/vectorized.rs"]
mod vectorized;

use vectorized::evaluate_vectorized;

/// Why there are no fatbins.
enum Refusal {
    /// Nobody asked for them.
    Off,
    /// There is no compiler, or it fails.
    Without(String),
    /// What was asked for is wrong, or files are.
    Wrong(String),
}

type Result<T> = std::result::Result<T, Refusal>;

fn failed(what: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Refusal {
    move |error| Refusal::Wrong(format!("{what}: {error}"))
}

fn main() {
    println!("cargo::rustc-check-cfg=cfg(prefuse_kernels)");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=src/objectives");
    println!("cargo::rerun-if-changed=kernels");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() || variable("DOCS_RS").is_some() {
        return;
    }
    let setting = variable("PREFUSE_NVCC").unwrap_or_default();
    match fatbins(setting.to_str()) {
        Ok(()) => println!("cargo::rustc-cfg=prefuse_kernels"),
        Err(Refusal::Off) => println!("cargo::rustc-env=PREFUSE_NO_KERNELS=PREFUSE_NVCC was off"),
        Err(Refusal::Without(text)) if setting != "require" => {
            // Where nvcc looks for its host compiler.
            let _ = variable("PATH");
            let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            let reason = lines.by_ref().take(4).collect::<Vec<_>>().join(" / ");
            println!("cargo::warning=no CUDA kernels in this build: {reason}");
            lines.for_each(|line| println!("cargo::warning={line}"));
            println!("cargo::rustc-env=PREFUSE_NO_KERNELS={reason}");
        }
        Err(Refusal::Without(text) | Refusal::Wrong(text)) => {
            text.lines().for_each(|line| println!("cargo::error={line}"));
        }
    }
}

/// An environment variable that is set and not empty; cargo watches it.
fn variable(name: &str) -> Option<OsString> {
    println!("cargo::rerun-if-env-changed={name}");
    env::var_os(name).filter(|value| !value.is_empty())
}

fn fatbins(setting: Option<&str>) -> Result<()> {
    let prebuilt = variable("PREFUSE_PREBUILT").map(PathBuf::from);
    match setting {
        Some("off") if prebuilt.is_none() => return Err(Refusal::Off),
        Some("" | "require" | "off") => {}
        got => {
            let got = got.unwrap_or("no text");
            let text = format!("PREFUSE_NVCC: expected require or off, got {got}");
            return Err(Refusal::Wrong(text));
        }
    }
    let sources = Sources::read()?;
    // Under fixed names, so that the folder can be another build's PREFUSE_PREBUILT.
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let ready = out.join("fatbins");
    let empty = || {
        let _ = fs::remove_dir_all(&ready);
        fs::create_dir_all(&ready).map_err(failed(ready.display()))
    };
    let built = if let Some(folder) = prebuilt {
        println!("cargo::rerun-if-changed={}", folder.display());
        let built = sources.check(&folder)?;
        // It may be this build's own: nothing to copy, and nothing to lose.
        if fs::canonicalize(&folder).ok() != fs::canonicalize(&ready).ok() {
            empty()?;
            sources.outputs().try_for_each(|name| copy(&folder.join(&name), &ready.join(name)))?;
        }
        built
    } else {
        empty()?;
        nvcc::Compiler::find()?.compile(&sources, &out, &ready)?;
        sources.check(&ready)?
    };
    fs::write(out.join("kernels.rs"), embedding(&built, &sources)?).map_err(failed("kernels.rs"))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).map_err(failed(from.display()))
}

/// `built` is the compiler's version and what it compiled for: `13.0 sm_90 compute_80`.
fn embedding(built: &str, sources: &Sources) -> Result<String> {
    let described = built.split_once(' ').and_then(|(toolkit, targets)| {
        let (major, minor) = toolkit.split_once('.')?;
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?, targets))
    });
    let Some((major, minor, targets)) = described else {
        return Err(Refusal::Wrong(format!("fatbins/built: not a version and targets: {built}")));
    };
    let module = |kernel: &File| {
        let stem = kernel.stem();
        let path = format!("concat!(env!(\"OUT_DIR\"), \"/fatbins/{stem}.fatbin\")");
        format!(
            "Module {{ name: {stem:?}, image: {{ const IMAGE: &Aligned<[u8]> = &Aligned(*include_bytes!({path})); &IMAGE.0 }} }},\n"
        )
    };
    let modules: String = sources.kernels.iter().map(module).collect();
    Ok(format!(
        "static EMBEDDED: Kernels = Kernels {{ toolkit: ({major}, {minor}), built: {targets:?}, modules: &[\n{modules}] }};\n"
    ))
}

struct File {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl File {
    fn stem(&self) -> &str {
        self.path.file_stem().and_then(OsStr::to_str).unwrap_or_default()
    }

    /// Whether its kernels are the objectives' own text.
    fn includes_objectives(&self) -> bool {
        String::from_utf8_lossy(&self.bytes).contains("#include \"objectives.cuh\"")
    }

    fn parts(&self) -> [&[u8]; 2] {
        [self.stem().as_bytes(), &self.bytes]
    }
}

/// All that fatbins are made of.
struct Sources {
    kernels: Vec<File>,
    headers: Vec<File>,
    objectives: String,
}

impl Sources {
    fn read() -> Result<Self> {
        let kernels = files(Path::new("kernels"), "cu")?;
        if kernels.is_empty() {
            return Err(Refusal::Without("kernels/ has no .cu file".to_owned()));
        }
        let headers = files(Path::new("kernels/include"), "cuh")?;
        Ok(Self { kernels, headers, objectives: objectives::cuda_source() })
    }

    /// The files of a folder of fatbins.
    fn outputs(&self) -> impl Iterator<Item = String> {
        let fatbins = self.kernels.iter().map(|kernel| format!("{}.fatbin", kernel.stem()));
        std::iter::once("built".to_owned()).chain(fatbins)
    }

    /// Names the argument structs that kernels take: those of other sources would be misread.
    fn fingerprint(&self) -> String {
        let files = self.kernels.iter().chain(&self.headers).flat_map(File::parts);
        let flags = nvcc::FLAGS.map(str::as_bytes);
        format!("{:016x}", fingerprint(files.chain([self.objectives.as_bytes()]).chain(flags)))
    }

    /// What a folder of fatbins was built for, if it is complete and of these sources.
    fn check(&self, folder: &Path) -> Result<String> {
        let built = fs::read_to_string(folder.join("built")).map_err(|error| {
            let folder = folder.display();
            Refusal::Wrong(format!("PREFUSE_PREBUILT: no file `built` in {folder}: {error}"))
        })?;
        let (built, sources) = built.trim().split_once('\n').unwrap_or((&built, ""));
        if sources != self.fingerprint() {
            return Err(Refusal::Wrong(format!(
                "PREFUSE_PREBUILT: {} was compiled from other kernels than those of this version; compile it again (without PREFUSE_PREBUILT, from these sources) or unset the variable",
                folder.display()
            )));
        }
        for path in self.outputs().map(|name| folder.join(name)) {
            fs::metadata(&path).map_err(failed(path.display()))?;
        }
        Ok(built.to_owned())
    }
}

/// FNV-1a, which is the same under every Rust and on every machine: fatbins travel.
fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        // With lengths, so that no two lists run into the same bytes.
        for byte in part.iter().chain(&(part.len() as u64).to_le_bytes()) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

/// Files of a folder in order of name.
fn files(folder: &Path, extension: &str) -> Result<Vec<File>> {
    let entries = fs::read_dir(folder).map_err(failed(folder.display()))?;
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.extension().is_some_and(|found| found == extension));
    found.sort();
    found.into_iter().map(|path| Ok(File { bytes: read(&path)?, path })).collect()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(failed(path.display()))
}
