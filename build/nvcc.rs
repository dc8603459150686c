//! The compiler: finding it, what it is asked for, and what it says when it fails.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::{env, fs, thread};

use super::{File, Refusal, Result, Sources, copy, failed, fingerprint, variable};

/// Kernels say fmaf where they mean it: contraction is the compiler's choice, which could differ
/// between two kernels that have to give the same bits, and it would keep equal log-ratios from
/// cancelling.
pub const FLAGS: [&str; 5] = ["-fatbin", "-std=c++17", "-O3", "-fmad=false", "-lineinfo"];

pub struct Compiler {
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
    pub fn find() -> Result<Self> {
        let nvcc = find_nvcc()?;
        println!("cargo::rerun-if-changed={}", nvcc.display());
        let identity = run(command(&nvcc).arg("--version"))?;
        let release = identity.split("release ").nth(1).and_then(|rest| {
            let (major, minor) = rest.split([',', ' ', '\n']).next()?.split_once('.')?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        });
        let text = format!("{} --version names no release:\n{identity}", nvcc.display());
        let version = release.ok_or(Refusal::Without(text))?;
        // Older ones do not know our kernels' instructions.
        if version < (12, 0) {
            let text = format!("{} is older than release 12.0", nvcc.display());
            return Err(Refusal::Without(text));
        }
        let targets = targets(&nvcc)?;
        let mut flags = FLAGS.map(str::to_owned).to_vec();
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

    /// A fatbin in `ready` for each kernel, several at a time.
    pub fn compile(&self, sources: &Sources, out: &Path, ready: &Path) -> Result<()> {
        let generated = out.join("objectives.cuh");
        fs::write(&generated, &sources.objectives).map_err(failed(generated.display()))?;
        let cache = variable("PREFUSE_KERNEL_CACHE").map_or(out.to_owned(), PathBuf::from);
        fs::create_dir_all(&cache).map_err(failed(cache.display()))?;
        let (queue, result) = (Mutex::new(sources.kernels.iter()), Mutex::new(Ok(())));
        let next = || queue.lock().ok()?.next();
        thread::scope(|scope| {
            for _ in 0..sources.kernels.len().min(self.jobs) {
                scope.spawn(|| {
                    while let Some(kernel) = next() {
                        let one = self.compile_one(kernel, sources, out, &cache, ready);
                        if let (Err(refusal), Ok(mut result)) = (one, result.lock()) {
                            *result = Err(refusal);
                        }
                    }
                });
            }
        });
        result.into_inner().unwrap_or_else(|_| Err(Refusal::Wrong("a thread died".to_owned())))?;
        let (major, minor) = self.version;
        let built =
            format!("{major}.{minor} {}\n{}", self.targets.join(" "), sources.fingerprint());
        fs::write(ready.join("built"), built).map_err(failed("fatbins/built"))
    }

    fn compile_one(
        &self,
        kernel: &File,
        sources: &Sources,
        out: &Path,
        cache: &Path,
        ready: &Path,
    ) -> Result<()> {
        let stem = kernel.stem();
        let mut command = command(&self.nvcc);
        // Targets side by side, on what several files at a time leave idle.
        command.arg(format!("--threads={}", self.jobs.div_ceil(4)));
        // Folders stay out of the hash, so that builds in different places share a cache.
        let mut parts = vec![self.identity.as_bytes()];
        parts.extend(self.flags.iter().map(String::as_bytes));
        parts.extend(sources.headers.iter().chain([kernel]).flat_map(File::parts));
        if kernel.includes_objectives() {
            parts.push(sources.objectives.as_bytes());
            command.arg("-I").arg(out);
        }
        let cached = cache.join(format!("{stem}-{:016x}.fatbin", fingerprint(parts)));
        if !cached.is_file() {
            // Renamed when complete: another build may look at the same time.
            let partial = cached.with_extension(std::process::id().to_string());
            command.args(&self.flags).arg("-Ikernels/include").arg(&kernel.path);
            run(command.arg("-o").arg(&partial))?;
            fs::rename(&partial, &cached).map_err(failed(cached.display()))?;
        }
        copy(&cached, &ready.join(format!("{stem}.fatbin")))
    }
}

/// Without the flags that nvcc takes from the environment, which would make other kernels of the same
/// sources.
fn command(nvcc: &Path) -> Command {
    let mut command = Command::new(nvcc);
    command.env_remove("NVCC_APPEND_FLAGS").env_remove("NVCC_PREPEND_FLAGS");
    command
}

/// Standard output of a compiler that succeeds.
fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().display().to_string();
    let output =
        command.output().map_err(|error| Refusal::Without(format!("{program}: {error}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let [said, complained] = [&output.stdout, &output.stderr].map(|o| String::from_utf8_lossy(o));
    // Not in the reason, which the crate remembers: temporary files have other names every time.
    println!("cargo::warning={command:?}");
    let status = output.status;
    Err(Refusal::Without(format!("{program} failed ({status})\n{complained}{said}")))
}

/// What to compile for: all that is asked for, or those of our list that the compiler knows.
fn targets(nvcc: &Path) -> Result<Vec<String>> {
    if let Some(asked) = variable("PREFUSE_CUDA_ARCHS") {
        let asked = asked.to_string_lossy().into_owned();
        let target = |target: &str| {
            let (kind, number) =
                target.strip_prefix("ptx").map_or(("sm", target), |number| ("compute", number));
            let capability = number.trim_end_matches(['a', 'f']).parse::<u32>();
            // The least that knows the kernels' instructions.
            capability.is_ok_and(|capability| capability >= 80).then(|| format!("{kind}_{number}"))
        };
        let text =
            format!("PREFUSE_CUDA_ARCHS: expected numbers from 80, as in 80;90+ptx80, got {asked}");
        let targets: Option<_> = asked.split([';', '+']).map(target).collect();
        return targets.ok_or(Refusal::Wrong(text));
    }
    let known = ["--list-gpu-code", "--list-gpu-arch"].map(|list| run(command(nvcc).arg(list)));
    let known = known.into_iter().collect::<Result<String>>()?;
    let ours = ["sm_80", "sm_90", "sm_100", "sm_120", "compute_80"].into_iter();
    let ours = ours.filter(|target| known.lines().any(|line| line.trim() == *target));
    let targets: Vec<_> = ours.map(str::to_owned).collect();
    let text = || format!("{} knows none of the architectures of the kernels", nvcc.display());
    if targets.is_empty() { Err(Refusal::Without(text())) } else { Ok(targets) }
}

fn find_nvcc() -> Result<PathBuf> {
    let on_path = |name: &str| {
        let path = variable("PATH").unwrap_or_default();
        env::split_paths(&path).map(|place| place.join(name)).collect::<Vec<_>>()
    };
    let name = format!("nvcc{}", env::consts::EXE_SUFFIX);
    if let Some(nvcc) = variable("NVCC").map(PathBuf::from) {
        // As a shell finds it: a bare name is on PATH.
        let places = match nvcc.to_str() {
            Some("nvcc") => on_path(&name),
            Some(bare) if nvcc.parent() == Some(Path::new("")) => on_path(bare),
            _ => vec![nvcc.clone()],
        };
        let text = format!("NVCC names no file: {}", nvcc.display());
        return places.into_iter().find(|path| path.is_file()).ok_or(Refusal::Without(text));
    }
    let roots = ["CUDA_HOME", "CUDA_PATH", "CUDA_ROOT", "CUDA_TOOLKIT_ROOT_DIR"];
    let roots = roots.iter().filter_map(|name| variable(name));
    let mut places: Vec<PathBuf> =
        roots.map(|root| Path::new(&root).join("bin").join(&name)).collect();
    places.extend(on_path(&name));
    for environment in ["VIRTUAL_ENV", "CONDA_PREFIX"].iter().filter_map(|name| variable(name)) {
        let pythons = fs::read_dir(Path::new(&environment).join("lib")).into_iter().flatten();
        let mut pythons: Vec<PathBuf> = pythons.flatten().map(|entry| entry.path()).collect();
        pythons.sort();
        let place = |path: &PathBuf| path.join("site-packages/nvidia/cu13/bin").join(&name);
        places.extend(pythons.iter().map(place));
    }
    places
        .extend(["/usr/local/cuda/bin", "/opt/cuda/bin"].map(|place| Path::new(place).join(&name)));
    // Places without it are not watched: cargo takes a missing file for a changed one, always.
    let found = places.into_iter().find(|path| path.is_file());
    found.ok_or_else(|| {
        let text = "nvcc was not found in CUDA_HOME, PATH, an active environment, /usr/local/cuda or \
                    /opt/cuda; set NVCC";
        Refusal::Without(text.to_owned())
    })
}
