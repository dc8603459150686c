//! Compiles each `kernels/*.cu` ahead of time into a fatbin, and writes `kernels.rs`, which embeds
//! them. Where nvcc is missing the crate builds all the same, without kernels, and says so at run
//! time. What a person can set:
//!
//! - `PREFUSE_NVCC`: `require` makes a missing nvcc a build error, `off` leaves nvcc alone;
//! - `PREFUSE_CUDA_ARCHS`: what to build for, such as `90` or `80;90;100;120+ptx80`;
//! - `PREFUSE_KERNEL_CACHE`: a folder for fatbins that several builds share;
//! - `PREFUSE_PREBUILT`: a folder of ready ones, such as `fatbins` in another build's `OUT_DIR`;
//! - `NVCC`, `NVCC_CCBIN`, `CUDA_HOME` and its like: the compiler and its host compiler.

use std::ffi::{OsStr, OsString};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::{env, fs, thread};

#[allow(dead_code, unused_imports)]
#[path = "src/objectives/mod.rs"]
mod objectives;

/// Why there are no fatbins.
enum Refusal {
    /// Nobody asked for them.
    Off,
    /// There is nothing to make them with.
    Missing(String),
    /// Making them went wrong.
    Failed(String),
}

type Result<T> = std::result::Result<T, Refusal>;

fn failed(what: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Refusal {
    move |error| Refusal::Failed(format!("{what}: {error}"))
}

fn main() {
    println!("cargo::rustc-check-cfg=cfg(prefuse_kernels)");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/objectives");
    println!("cargo::rerun-if-changed=kernels");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() || variable("DOCS_RS").is_some() {
        return;
    }
    let setting = variable("PREFUSE_NVCC").unwrap_or_default();
    match fatbins(setting.to_str()) {
        Ok(()) => println!("cargo::rustc-cfg=prefuse_kernels"),
        Err(Refusal::Off) => println!("cargo::rustc-env=PREFUSE_NO_KERNELS=PREFUSE_NVCC was off"),
        Err(Refusal::Missing(reason)) if setting != "require" => {
            println!("cargo::warning=no CUDA kernels in this build: {reason}");
            println!("cargo::rustc-env=PREFUSE_NO_KERNELS={reason}");
        }
        Err(Refusal::Missing(text) | Refusal::Failed(text)) => {
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
        got => Err(Refusal::Failed(format!("PREFUSE_NVCC: require or off, not {got:?}")))?,
    }
    let sources = files(Path::new("kernels"), "cu")?;
    if sources.is_empty() {
        return Err(Refusal::Missing("kernels/ has no .cu file".to_owned()));
    }
    // Under fixed names, so that the folder can be another build's PREFUSE_PREBUILT.
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let ready = out.join("fatbins");
    let _ = fs::remove_dir_all(&ready);
    fs::create_dir_all(&ready).map_err(failed(ready.display()))?;
    if let Some(folder) = prebuilt {
        println!("cargo::rerun-if-changed={}", folder.display());
        copy(&folder, &ready, "built")?;
        for source in &sources {
            copy(&folder, &ready, &format!("{}.fatbin", stem(source)))?;
        }
    } else {
        Compiler::find()?.compile(&sources, &out, &ready)?;
    }
    let built = String::from_utf8_lossy(&read(&ready.join("built"))?).into_owned();
    fs::write(out.join("kernels.rs"), embedding(&built, &sources)?).map_err(failed("kernels.rs"))
}

fn stem(source: &Path) -> &str {
    source.file_stem().and_then(OsStr::to_str).unwrap_or_default()
}

fn copy(from: &Path, to: &Path, name: &str) -> Result<()> {
    let (from, to) = (from.join(name), to.join(name));
    fs::copy(&from, to).map(drop).map_err(failed(from.display()))
}

/// `built` is the compiler's version and what it compiled for: `13.0 sm_90 compute_80`.
fn embedding(built: &str, sources: &[PathBuf]) -> Result<String> {
    let described = built.trim().split_once(' ').and_then(|(toolkit, targets)| {
        let (major, minor) = toolkit.split_once('.')?;
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?, targets))
    });
    let Some((major, minor, targets)) = described else {
        return Err(Refusal::Failed(format!("fatbins/built: not a version and targets: {built}")));
    };
    let module = |source: &PathBuf| {
        let stem = stem(source);
        let path = format!("concat!(env!(\"OUT_DIR\"), \"/fatbins/{stem}.fatbin\")");
        format!(
            "Module {{ name: {stem:?}, image: {{ const IMAGE: &Aligned<[u8]> = &Aligned(*include_bytes!({path})); &IMAGE.0 }} }},\n"
        )
    };
    let modules: String = sources.iter().map(module).collect();
    Ok(format!(
        "static EMBEDDED: Kernels = Kernels {{ toolkit: ({major}, {minor}), built: {targets:?}, modules: &[\n{modules}] }};\n"
    ))
}

/// Files of a folder in order of name.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(failed(folder.display()))?;
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.extension().is_some_and(|found| found == extension));
    found.sort();
    Ok(found)
}

struct Compiler {
    nvcc: PathBuf,
    version: (u32, u32),
    /// All that `nvcc --version` says.
    identity: String,
    /// `sm_90` for machine code, `compute_80` for PTX.
    targets: Vec<String>,
    flags: Vec<String>,
    jobs: usize,
}

impl Compiler {
    fn find() -> Result<Self> {
        let nvcc = find_nvcc()?;
        println!("cargo::rerun-if-changed={}", nvcc.display());
        let identity = run(Command::new(&nvcc).arg("--version"))?;
        let release = identity.split("release ").nth(1).and_then(|rest| {
            let (major, minor) = rest.split([',', ' ', '\n']).next()?.split_once('.')?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        });
        let text = format!("{} --version names no release:\n{identity}", nvcc.display());
        let version = release.ok_or(Refusal::Failed(text))?;
        // Older ones do not know our kernels' instructions.
        if version < (12, 0) {
            let text = format!("{} is older than release 12.0", nvcc.display());
            return Err(Refusal::Missing(text));
        }
        let targets = targets(&nvcc)?;
        // Kernels say fmaf where they mean it: contraction is the compiler's choice, which could
        // differ between two kernels that have to give the same bits, and it would keep equal
        // log-ratios from cancelling.
        let flags = ["-fatbin", "-std=c++17", "-O3", "-fmad=false", "-lineinfo"];
        let mut flags = flags.map(str::to_owned).to_vec();
        if version >= (12, 8) {
            flags.push("--compress-mode=size".to_owned());
        }
        if let Some(compiler) = variable("NVCC_CCBIN") {
            flags.push(format!("-ccbin={}", compiler.display()));
        }
        flags.extend(targets.iter().map(|code| {
            let number = code.trim_start_matches(|c: char| !c.is_ascii_digit());
            format!("-gencode=arch=compute_{number},code={code}")
        }));
        let jobs = env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1);
        Ok(Self { nvcc, version, identity, targets, flags, jobs })
    }

    /// A fatbin in `ready` for each source, several at a time.
    fn compile(&self, sources: &[PathBuf], out: &Path, ready: &Path) -> Result<()> {
        let generated = out.join("objectives.cuh");
        fs::write(&generated, objectives::cuda_source()).map_err(failed(generated.display()))?;
        let mut headers = Vec::new();
        for header in files(Path::new("kernels/include"), "cuh")? {
            headers.push((header.file_name().map(OsStr::to_owned), read(&header)?));
        }
        let cache = variable("PREFUSE_KERNEL_CACHE").map_or(out.to_owned(), PathBuf::from);
        fs::create_dir_all(&cache).map_err(failed(cache.display()))?;
        let built = format!("{}.{} {}", self.version.0, self.version.1, self.targets.join(" "));
        fs::write(ready.join("built"), built).map_err(failed("fatbins/built"))?;
        let (queue, result) = (Mutex::new(sources.iter()), Mutex::new(Ok(())));
        let next = || queue.lock().ok()?.next();
        thread::scope(|scope| {
            for _ in 0..sources.len().min(self.jobs) {
                scope.spawn(|| {
                    while let Some(source) = next() {
                        let one = self.compile_one(source, &headers, out, &cache, ready);
                        if let (Err(refusal), Ok(mut result)) = (one, result.lock()) {
                            *result = Err(refusal);
                        }
                    }
                });
            }
        });
        result.into_inner().unwrap_or_else(|_| Err(Refusal::Failed("a thread died".to_owned())))
    }

    fn compile_one(
        &self,
        source: &Path,
        headers: &[(Option<OsString>, Vec<u8>)],
        out: &Path,
        cache: &Path,
        ready: &Path,
    ) -> Result<()> {
        let flags = &self.flags;
        let mut command = Command::new(&self.nvcc);
        // Targets side by side, on what several files at a time leave idle.
        command.arg(format!("--threads={}", self.jobs.div_ceil(4)));
        // Folders stay out of the hash, so that builds in different places share a cache.
        let mut hash = DefaultHasher::new();
        if stem(source) == "objective" {
            read(&out.join("objectives.cuh"))?.hash(&mut hash);
            command.arg("-I").arg(out);
        }
        (&self.identity, flags, read(source)?, headers).hash(&mut hash);
        let cached = cache.join(format!("{}-{:016x}.fatbin", stem(source), hash.finish()));
        if !cached.is_file() {
            // Renamed when complete: another build may look at the same time.
            let partial = cached.with_extension(std::process::id().to_string());
            command.args(flags).arg("-Ikernels/include").arg(source).arg("-o").arg(&partial);
            run(&mut command)?;
            fs::rename(&partial, &cached).map_err(failed(cached.display()))?;
        }
        let to = ready.join(format!("{}.fatbin", stem(source)));
        fs::copy(&cached, to).map(drop).map_err(failed(cached.display()))
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(failed(path.display()))
}

/// Standard output of a command that succeeds.
fn run(command: &mut Command) -> Result<String> {
    let output = command.output().map_err(failed(command.get_program().display()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let [said, complained] = [&output.stdout, &output.stderr].map(|o| String::from_utf8_lossy(o));
    Err(Refusal::Failed(format!(
        "{command:?} failed ({}); PREFUSE_NVCC=off builds without kernels\n{said}{complained}",
        output.status
    )))
}

/// What to compile for: all that is asked for, or those of our list that the compiler knows.
fn targets(nvcc: &Path) -> Result<Vec<String>> {
    if let Some(asked) = variable("PREFUSE_CUDA_ARCHS") {
        let asked = asked.to_string_lossy().into_owned();
        let target = |target: &str| {
            let (kind, number) =
                target.strip_prefix("ptx").map_or(("sm", target), |number| ("compute", number));
            let valid = number.trim_end_matches(['a', 'f']).parse::<u32>().is_ok();
            valid.then(|| format!("{kind}_{number}"))
        };
        let text = format!("PREFUSE_CUDA_ARCHS: expected the like of 80;90+ptx80, got {asked}");
        let targets: Option<_> = asked.split([';', '+']).map(target).collect();
        return targets.ok_or(Refusal::Failed(text));
    }
    let known = run(Command::new(nvcc).arg("--list-gpu-code"))?;
    let ours = ["sm_80", "sm_90", "sm_100", "sm_120"].into_iter();
    let machine = ours.filter(|target| known.lines().any(|line| line.trim() == *target));
    Ok(machine.chain(["compute_80"]).map(str::to_owned).collect())
}

fn find_nvcc() -> Result<PathBuf> {
    let name = format!("nvcc{}", env::consts::EXE_SUFFIX);
    if let Some(nvcc) = variable("NVCC").map(PathBuf::from) {
        let text = format!("NVCC is no file: {}", nvcc.display());
        return Some(nvcc).filter(|nvcc| nvcc.is_file()).ok_or(Refusal::Missing(text));
    }
    let roots = ["CUDA_HOME", "CUDA_PATH", "CUDA_ROOT", "CUDA_TOOLKIT_ROOT_DIR"];
    let roots = roots.iter().filter_map(|name| variable(name));
    let mut places: Vec<PathBuf> = roots.map(|root| Path::new(&root).join("bin")).collect();
    places.extend(variable("PATH").iter().flat_map(env::split_paths));
    for environment in ["VIRTUAL_ENV", "CONDA_PREFIX"].iter().filter_map(|name| variable(name)) {
        let pythons = fs::read_dir(Path::new(&environment).join("lib")).into_iter().flatten();
        let mut pythons: Vec<PathBuf> = pythons.flatten().map(|entry| entry.path()).collect();
        pythons.sort();
        places.extend(pythons.iter().map(|path| path.join("site-packages/nvidia/cu13/bin")));
    }
    places.extend(["/usr/local/cuda/bin", "/opt/cuda/bin"].map(PathBuf::from));
    let found = places.iter().map(|place| place.join(&name)).find(|path| path.is_file());
    found.ok_or_else(|| Refusal::Missing("nvcc was not found".to_owned()))
}
