//! The build script, compiled by itself and run in a package of two kernels with a shell script for
//! nvcc.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Writes its arguments to `$FAKE_LOG`, and a file of 6 bytes as the fatbin.
const NVCC: &str = r#"#!/bin/sh
case "$1" in
--version) echo "Cuda compilation tools, release ${FAKE_RELEASE:-13.0}, V13.0.88"; exit ;;
--list-gpu-code) printf 'sm_75\nsm_80\nsm_90\n'; exit ;;
esac
echo "$@" >>"$FAKE_LOG"
if [ "$FAKE_FAIL" ]; then echo "row.cu(1): error: no such thing" >&2; exit 2; fi
for last; do :; done
printf fatbin >"$last"
"#;

/// The build script's binary; `None` where there is no compiler or no source.
fn script() -> Option<&'static Path> {
    static SCRIPT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let compile = || {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("build.rs");
        let binary = target()?.join(format!("build-script-{}", std::process::id()));
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let mut command = Command::new(rustc);
        command.args(["--edition", "2024", "-A", "warnings", "-o"]).arg(&binary).arg(&source);
        let output = command.output().ok()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let kept = binary.with_file_name("build-script");
        fs::rename(binary, &kept).unwrap();
        Some(kept)
    };
    SCRIPT.get_or_init(compile).as_deref()
}

/// Where tests may write, if this runs where it was built.
fn target() -> Option<&'static Path> {
    Some(Path::new(env!("CARGO_TARGET_TMPDIR"))).filter(|path| path.is_dir())
}

/// A package with two kernels and a header.
struct Package(PathBuf);

impl Package {
    /// `None` says on the way why nothing can be tested.
    fn new(name: &str) -> Option<Self> {
        if script().is_none() {
            eprintln!("skipped: no Rust compiler, or not where this was built");
            return None;
        }
        let package = Self(target()?.join("build_script").join(name));
        let _ = fs::remove_dir_all(&package.0);
        for folder in ["kernels/include", "out", "other", "empty"] {
            fs::create_dir_all(package.0.join(folder)).unwrap();
        }
        for file in ["kernels/row.cu", "kernels/objective.cu", "kernels/include/units.cuh"] {
            package.write(file, file);
        }
        package.nvcc("bin/nvcc");
        Some(package)
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.0.join(file), text).unwrap();
    }

    fn nvcc(&self, place: &str) {
        let nvcc = self.0.join(place);
        fs::create_dir_all(nvcc.parent().unwrap()).unwrap();
        fs::write(&nvcc, NVCC).unwrap();
        fs::set_permissions(&nvcc, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// What the script prints, with nothing else in its environment; `@` stands for the package.
    fn run(&self, environment: &[(&str, &str)]) -> String {
        let mut command = Command::new(script().unwrap());
        command.current_dir(&self.0).env_clear();
        command.env("OUT_DIR", self.0.join("out")).env("FAKE_LOG", self.0.join("log"));
        command.env("CARGO_FEATURE_CUDA", "1").env("NUM_JOBS", "2");
        for (name, value) in environment {
            command.env(name, value.replace('@', self.0.to_str().unwrap()));
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The compilations since the last time, in order of name.
    fn compilations(&self) -> Vec<String> {
        let log = fs::read_to_string(self.0.join("log")).unwrap_or_default();
        let _ = fs::remove_file(self.0.join("log"));
        let mut lines: Vec<_> = log.lines().map(str::to_owned).collect();
        lines.sort_by_key(|line| line.contains("row.cu"));
        lines
    }
}

const BUILT: &str = "cargo::rustc-cfg=prefuse_kernels";
const WITHOUT: &str = "cargo::rustc-env=PREFUSE_NO_KERNELS=";
const FOUND: (&str, &str) = ("NVCC", "@/bin/nvcc");

#[test]
fn each_kernel_becomes_a_fatbin() {
    let Some(package) = Package::new("fatbins") else { return };
    let said = package.run(&[FOUND, ("NVCC_CCBIN", "g++-13")]);
    assert!(said.contains(BUILT) && !said.contains(WITHOUT), "{said}");
    let common = "-fatbin -std=c++17 -O3 -fmad=false -lineinfo --compress-mode=size -ccbin=g++-13 \
                  -gencode=arch=compute_80,code=sm_80 -gencode=arch=compute_90,code=sm_90 \
                  -gencode=arch=compute_80,code=compute_80";
    let [objective, row] = package.compilations().try_into().unwrap();
    assert!(row.contains(common), "{row}");
    assert!(objective.contains(common), "{objective}");
    assert!(objective.contains(package.0.join("out").to_str().unwrap()), "{objective}");
    for file in ["fatbins/row.fatbin", "fatbins/objective.fatbin"] {
        assert_eq!(fs::read(package.0.join("out").join(file)).unwrap(), b"fatbin");
    }
    let objectives = fs::read_to_string(package.0.join("out/objectives.cuh")).unwrap();
    assert_eq!(objectives, prefuse::objectives::cuda_source());
    let kernels = fs::read_to_string(package.0.join("out/kernels.rs")).unwrap();
    let fields = "toolkit: (13, 0), built: \"sm_80 sm_90 compute_80\"";
    assert!(kernels.contains(fields), "{kernels}");
    for stem in ["row", "objective"] {
        assert!(kernels.contains(&format!("/fatbins/{stem}.fatbin")), "{kernels}");
    }
}

#[test]
fn only_what_changed_is_compiled_again() {
    let Some(package) = Package::new("incremental") else { return };
    let compile = |extra: &[(&str, &str)]| {
        let said = package.run(&[&[FOUND], extra].concat());
        assert!(said.contains(BUILT), "{said}");
        package.compilations().len()
    };
    assert_eq!(compile(&[]), 2);
    assert_eq!(compile(&[]), 0);
    package.write("kernels/row.cu", "changed");
    assert_eq!(compile(&[]), 1);
    package.write("kernels/include/units.cuh", "changed");
    assert_eq!(compile(&[]), 2);
    assert_eq!(compile(&[("FAKE_RELEASE", "13.1")]), 2);
    assert_eq!(compile(&[("PREFUSE_CUDA_ARCHS", "90")]), 2);
    assert_eq!(compile(&[]), 0);
    // A cache serves builds with other output folders.
    let cache = ("PREFUSE_KERNEL_CACHE", "@/cache");
    assert_eq!(compile(&[cache]), 2);
    assert_eq!(compile(&[cache, ("OUT_DIR", "@/other")]), 0);
}

#[test]
fn targets_can_be_chosen() {
    let Some(package) = Package::new("targets") else { return };
    let choose = |targets| package.run(&[FOUND, ("PREFUSE_CUDA_ARCHS", targets)]);
    assert!(choose("90a;120+ptx90").contains(BUILT));
    let flags = "-gencode=arch=compute_90a,code=sm_90a -gencode=arch=compute_120,code=sm_120 \
                 -gencode=arch=compute_90,code=compute_90";
    let compilations = package.compilations();
    assert!(compilations.iter().all(|line| line.contains(flags)), "{compilations:?}");
    for wrong in ["sm_90", "90,100", "ptx", "90;"] {
        let said = choose(wrong);
        assert!(said.contains("cargo::error=PREFUSE_CUDA_ARCHS: "), "{wrong}: {said}");
    }
    // Compilers before 12.8 compress in one way only.
    assert!(package.run(&[FOUND, ("FAKE_RELEASE", "12.4")]).contains(BUILT));
    assert!(package.compilations().iter().all(|line| !line.contains("--compress-mode")));
}

#[test]
fn a_missing_compiler_is_an_error_on_request_only() {
    let Some(package) = Package::new("missing") else { return };
    let missing = ("NVCC", "@/nowhere");
    let said = package.run(&[missing]);
    assert!(
        said.contains("cargo::warning=no CUDA kernels in this build: NVCC is no file"),
        "{said}"
    );
    assert!(said.contains(WITHOUT) && !said.contains(BUILT), "{said}");
    let said = package.run(&[missing, ("PREFUSE_NVCC", "require")]);
    assert!(said.contains("cargo::error=NVCC is no file") && !said.contains(BUILT), "{said}");
    let old = [FOUND, ("FAKE_RELEASE", "11.8")];
    let said = package.run(&old);
    assert!(said.contains(WITHOUT) && said.contains("older than release 12.0"), "{said}");
    let said = package.run(&[&old[..], &[("PREFUSE_NVCC", "require")]].concat());
    assert!(said.contains("cargo::error="), "{said}");

    let said = package.run(&[FOUND, ("PREFUSE_NVCC", "off")]);
    assert!(said.contains(WITHOUT) && !said.contains("cargo::warning"), "{said}");
    let said = package.run(&[FOUND, ("PREFUSE_NVCC", "/usr/bin/nvcc")]);
    assert!(said.contains("cargo::error=PREFUSE_NVCC: require or off, not"), "{said}");
    assert!(package.compilations().is_empty());
    let said = package.run(&[FOUND, ("DOCS_RS", "1")]);
    assert!(!said.contains(WITHOUT) && !said.contains(BUILT), "{said}");
}

#[test]
fn a_failing_compilation_is_always_an_error() {
    let Some(package) = Package::new("failing") else { return };
    let said = package.run(&[FOUND, ("FAKE_FAIL", "1")]);
    assert!(said.contains("cargo::error=row.cu(1): error: no such thing"), "{said}");
    assert!(said.contains("PREFUSE_NVCC=off") && !said.contains(BUILT), "{said}");
}

#[test]
fn ready_fatbins_need_no_compiler() {
    let Some(package) = Package::new("prebuilt") else { return };
    let prebuilt = [("PREFUSE_PREBUILT", "@/out/fatbins"), ("OUT_DIR", "@/other")];
    let said = package.run(&prebuilt);
    assert!(said.contains("cargo::error=") && said.contains("built: "), "{said}");
    package.run(&[FOUND]);
    package.compilations();
    let said = package.run(&prebuilt);
    assert!(said.contains(BUILT) && package.compilations().is_empty(), "{said}");
    let [ours, theirs] =
        ["other", "out"].map(|out| fs::read(package.0.join(out).join("kernels.rs")).unwrap());
    assert_eq!(ours, theirs);
    fs::remove_file(package.0.join("out/fatbins/row.fatbin")).unwrap();
    let said = package.run(&prebuilt);
    assert!(said.contains("cargo::error=") && said.contains("row.fatbin"), "{said}");
}

#[test]
fn the_compiler_is_looked_for_in_order() {
    let Some(package) = Package::new("search") else { return };
    let places = [
        ("VIRTUAL_ENV", "@/venv", "venv/lib/python3.11/site-packages/nvidia/cu13/bin/nvcc"),
        ("PATH", "@/empty:@/path", "path/nvcc"),
        ("CUDA_PATH", "@/cuda_path", "cuda_path/bin/nvcc"),
        ("CUDA_HOME", "@/cuda_home", "cuda_home/bin/nvcc"),
        ("NVCC", "@/named", "named"),
    ];
    let mut environment = Vec::new();
    for (variable, value, place) in places {
        package.nvcc(place);
        environment.push((variable, value));
        let said = package.run(&environment);
        let nvcc = package.0.join(place);
        assert!(said.contains(&format!("cargo::rerun-if-changed={}\n", nvcc.display())), "{said}");
        assert!(said.contains(&format!("cargo::rerun-if-env-changed={variable}\n")), "{said}");
    }
}
