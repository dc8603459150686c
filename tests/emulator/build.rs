//! Compiles the CUDA kernels for the CPU, with the runtime that stands in for a GPU.
//!
//! `PREFUSE_EMULATOR` chooses the mode: `fast` (default), `race` or `asan`; `check` compiles nothing, for
//! lints and documentation, which link nothing.
//! `PREFUSE_EMULATOR_KERNELS` names a folder to take instead of `kernels`, and
//! `PREFUSE_EMULATOR_SHARED` a file that becomes a shared library of it all, for test programs that
//! are built already: `cargo xtask mutate` uses both.
#![allow(clippy::unwrap_used, reason = "a build that cannot go on has to stop")]

#[path = "build/entries.rs"]
mod entries;

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use entries::Entry;

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Fast,
    Race,
    Asan,
}

/// A C++ file, and what its object file depends on.
struct Unit {
    source: PathBuf,
    /// Code of kernels, which the sanitizers watch.
    kernel: bool,
    entries: Vec<Entry>,
    key: u64,
}

struct Build {
    mode: Mode,
    out: PathBuf,
    /// Folders of `.cu` files: the crate's, and the emulator's own.
    folders: [PathBuf; 2],
    includes: Vec<PathBuf>,
}

fn main() {
    println!("cargo:rustc-check-cfg=cfg(emulator)");
    if let Some(reason) = unavailable() {
        assert!(variable("PREFUSE_REQUIRE_CXX").is_none(), "{reason}");
        println!("cargo:warning=the emulator and its tests are skipped: {reason}");
        return;
    }
    println!("cargo:rustc-cfg=emulator");
    if variable("PREFUSE_EMULATOR").as_deref() == Some("check") {
        return;
    }
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR").unwrap());
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap());
    let mode = match variable("PREFUSE_EMULATOR").as_deref() {
        None | Some("" | "fast") => Mode::Fast,
        Some("race") => Mode::Race,
        Some("asan") => Mode::Asan,
        Some(other) => panic!("PREFUSE_EMULATOR: expected fast, race, asan or check, got {other}"),
    };
    let kernels = variable("PREFUSE_EMULATOR_KERNELS")
        .map_or_else(|| here.join("../../kernels"), PathBuf::from)
        .canonicalize()
        .unwrap();
    let generated = out.join("include");
    write(&generated.join("objectives.cuh"), &prefuse::objectives::cuda_source());
    let own = here.join("kernels");
    for path in [&here.join("build"), &here.join("runtime"), &here.join("cuda"), &own, &kernels] {
        println!("cargo:rerun-if-changed={}", path.display());
    }
    let includes = vec![here.join("cuda"), generated, kernels.join("include")];
    let build = Build { mode, out, folders: [kernels, own], includes };

    let runtime = runtime_units(&here);
    let kernels = build.kernel_units();
    let objects = build.compile_all(runtime.iter().chain(&kernels).collect());
    let mut archive = cc::Build::new();
    // Kernels register themselves before main, and nothing else refers to them.
    archive.cpp(true).objects(&objects).link_lib_modifier("+whole-archive");
    archive.compile("prefuse_emulator");
    if mode == Mode::Asan {
        // rustc links without default libraries, where -fsanitize=address would not bring its own;
        // and the shared one insists on being the program's first.
        let static_asan = "-Wl,--whole-archive,-l:libasan.a,--no-whole-archive";
        for argument in
            [static_asan, "-l:libubsan.a", "-lstdc++", "-lm", "-ldl", "-lrt", "-lpthread"]
        {
            println!("cargo:rustc-link-arg={argument}");
        }
    }
    if let Some(path) = variable("PREFUSE_EMULATOR_SHARED") {
        let mut command = cc::Build::new().cpp(true).get_compiler().to_command();
        command.args(["-shared", "-Wl,-Bsymbolic", "-o"]).arg(&path).args(&objects);
        assert!(command.status().unwrap().success(), "{command:?}");
    }
}

/// Why nothing can be built here.
fn unavailable() -> Option<&'static str> {
    let target = ["CARGO_CFG_TARGET_OS", "CARGO_CFG_TARGET_ARCH"].map(variable);
    if target != [Some("linux".to_owned()), Some("x86_64".to_owned())] {
        return Some("it switches stacks on Linux on x86-64 alone");
    }
    let compiler = cc::Build::new().cpp(true).try_get_compiler();
    let runs = compiler.is_ok_and(|compiler| {
        compiler.to_command().arg("--version").output().is_ok_and(|output| output.status.success())
    });
    (!runs).then_some("no C++ compiler")
}

fn variable(name: &str) -> Option<String> {
    println!("cargo:rerun-if-env-changed={name}");
    std::env::var(name).ok()
}

fn runtime_units(here: &Path) -> Vec<Unit> {
    // They include one another freely, so a change of one is a change of all.
    let headers = [files(&here.join("cuda"), ""), files(&here.join("runtime"), "")].concat();
    let mut hasher = DefaultHasher::new();
    headers.iter().for_each(|path| fs::read(path).unwrap().hash(&mut hasher));
    let key = hasher.finish();
    let sources = files(&here.join("runtime"), "cpp").into_iter();
    sources.map(|source| Unit { source, kernel: false, entries: Vec::new(), key }).collect()
}

impl Build {
    /// A C++ file for each `.cu` file: it includes that and registers the entry points.
    fn kernel_units(&self) -> Vec<Unit> {
        let sources: Vec<_> = self.folders.iter().flat_map(|folder| files(folder, "cu")).collect();
        let mut units = parallel(&sources, |source| self.kernel_unit(source));
        units.sort_by(|a, b| a.source.cmp(&b.source));
        let mut names = HashSet::new();
        for entry in units.iter().flat_map(|unit| &unit.entries) {
            assert!(names.insert(&entry.name), "two entry points are named {}", entry.name);
        }
        units
    }

    fn kernel_unit(&self, source: &Path) -> Unit {
        let include = format!("#include \"cuda_host.h\"\n#include \"{}\"\n", source.display());
        let folder = source.parent().unwrap().to_str().unwrap();
        let own = folder != self.folders[0].to_str().unwrap();
        let stem = source.file_stem().unwrap().to_str().unwrap();
        let stem = if own { format!("own_{stem}") } else { stem.to_owned() };
        let scan = self.out.join(format!("scan/{stem}.cpp"));
        write(&scan, &include);
        let mut compiler = self.compiler(true);
        let text = compiler.define("EMULATOR_SCAN", None).file(&scan).expand();
        // Where the files lie changes nothing: copies of the tree share their objects.
        let text = String::from_utf8_lossy(&text).replace(folder, "");
        let entries = entries::find(&text).unwrap_or_else(|error| {
            panic!("{}: {error}", source.display());
        });
        let registrations: String = entries.iter().map(Entry::registration).collect();
        let unit = self.out.join(format!("units/{stem}.cpp"));
        // Entry points may stand in the namespace or outside of it.
        write(
            &unit,
            &format!("{include}namespace prefuse {{}}\nusing namespace prefuse;\n{registrations}"),
        );
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        registrations.hash(&mut hasher);
        Unit { source: unit, kernel: true, entries, key: hasher.finish() }
    }

    fn compile_all(&self, units: Vec<&Unit>) -> Vec<PathBuf> {
        let mut objects = parallel(&units, |unit| self.compile(unit));
        objects.sort();
        objects
    }

    /// Object files are kept under the hash of what they are made from.
    fn compile(&self, unit: &Unit) -> PathBuf {
        let mut compiler = self.compiler(unit.kernel);
        let mut hasher = DefaultHasher::new();
        (unit.key, format!("{:?}", compiler.get_compiler().to_command())).hash(&mut hasher);
        let name = unit.source.file_stem().unwrap().to_str().unwrap();
        let kept = self.out.join(format!("objects/{name}-{:016x}.o", hasher.finish()));
        if !kept.exists() {
            fs::create_dir_all(kept.parent().unwrap()).unwrap();
            let objects = compiler.file(&unit.source).compile_intermediates();
            fs::rename(&objects[0], &kept).unwrap();
        }
        kept
    }

    fn compiler(&self, kernel: bool) -> cc::Build {
        let mut build = cc::Build::new();
        build.cpp(true).std("c++17").includes(&self.includes).opt_level(2);
        build.warnings(true).extra_warnings(true).flag("-Wno-unknown-pragmas");
        // blockDim and its like are unsigned, and indices are not; objectives share a signature.
        build.flag("-Wno-sign-compare").flag("-Wno-unused-parameter");
        // What a template leaves alone where it is not asked for, it still hands on.
        build.flag_if_supported("-Wno-maybe-uninitialized");
        // Reports name lines; more than these would be half of the compiler's time.
        build.flag("-g1");
        // A raw reinterpret_cast means on the GPU what it says.
        build.flag("-fno-strict-aliasing").flag("-ffp-contract=off");
        let flag = |on: bool| if on { "1" } else { "0" };
        build.define("EMULATOR_RACE", flag(self.mode == Mode::Race));
        build.define("EMULATOR_ASAN", flag(self.mode == Mode::Asan));
        match self.mode {
            Mode::Race if kernel => {
                // A loop that became a call of memcpy would not be watched.
                build.flag("-fsanitize=thread").flag("-fno-tree-loop-distribute-patterns");
                build.flag_if_supported("--param=tsan-instrument-func-entry-exit=0");
                build.flag_if_supported("--param=tsan-distinguish-volatile=1");
            }
            Mode::Asan => {
                build.flag("-fsanitize=address").flag("-fno-omit-frame-pointer");
                build.flag("-fsanitize-recover=address").opt_level(1);
                if kernel {
                    build.flag("-fsanitize=undefined").flag("-fno-sanitize=vptr");
                }
            }
            _ => {}
        }
        build
    }
}

/// Files of a folder with an extension, or all of them, in order.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .filter(|path| path.is_file())
        .filter(|path| extension.is_empty() || path.extension().is_some_and(|e| e == extension))
        .collect();
    files.sort();
    files
}

/// Leaves a file alone that has the contents already.
fn write(path: &Path, contents: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    if fs::read_to_string(path).ok().as_deref() != Some(contents) {
        fs::write(path, contents).unwrap();
    }
}

/// Maps the items on all cores; results come in any order.
fn parallel<T: Sync, R: Send>(items: &[T], map: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = Mutex::new(items.iter());
    let results = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let Some(item) = next.lock().unwrap().next() else { break };
                    let result = map(item);
                    results.lock().unwrap().push(result);
                }
            });
        }
    });
    results.into_inner().unwrap()
}
