//! The build script, compiled by itself and run in a package of two kernels with a shell script for
//! nvcc.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Writes its arguments to `$FAKE_LOG`, with those from the environment, and a file of 6 bytes as the
/// fatbin.
const NVCC: &str = r#"#!/bin/sh
case "$1" in
--version) echo "Cuda compilation tools, release ${FAKE_RELEASE:-13.0}, V13.0.88"; exit ;;
--list-gpu-code) printf 'sm_75\nsm_80\nsm_90\n'; exit ;;
--list-gpu-arch) printf 'compute_75\n%s\ncompute_90\n' "${FAKE_PTX-compute_80}"; exit ;;
esac
echo "$NVCC_PREPEND_FLAGS" "$@" "$NVCC_APPEND_FLAGS" >>"$FAKE_LOG"
if [ "$FAKE_FAIL" ]; then
  printf 'included from here:\nrow.cu(1): error: no such thing\n\n3\n4\n5\n' >&2
  exit 2
fi
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
    // By default, those that the compiler knows, PTX like the rest.
    assert!(package.run(&[FOUND, ("FAKE_PTX", "")]).contains(BUILT));
    let kernels = fs::read_to_string(package.0.join("out/kernels.rs")).unwrap();
    assert!(kernels.contains("built: \"sm_80 sm_90\""), "{kernels}");
    package.compilations();
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
        said.contains("cargo::warning=no CUDA kernels in this build: NVCC names no file"),
        "{said}"
    );
    assert!(said.contains(WITHOUT) && !said.contains(BUILT), "{said}");
    let said = package.run(&[missing, ("PREFUSE_NVCC", "require")]);
    assert!(said.contains("cargo::error=NVCC names no file") && !said.contains(BUILT), "{said}");
    let old = [FOUND, ("FAKE_RELEASE", "11.8")];
    let said = package.run(&old);
    assert!(said.contains(WITHOUT) && said.contains("older than release 12.0"), "{said}");
    let said = package.run(&[&old[..], &[("PREFUSE_NVCC", "require")]].concat());
    assert!(said.contains("cargo::error="), "{said}");

    let said = package.run(&[FOUND, ("PREFUSE_NVCC", "off")]);
    assert!(said.contains(WITHOUT) && !said.contains("cargo::warning"), "{said}");
    let said = package.run(&[FOUND, ("PREFUSE_NVCC", "/usr/bin/nvcc")]);
    assert!(said.contains("cargo::error=PREFUSE_NVCC: expected require or off, got"), "{said}");
    assert!(package.compilations().is_empty());
    let said = package.run(&[FOUND, ("DOCS_RS", "1")]);
    assert!(!said.contains(WITHOUT) && !said.contains(BUILT), "{said}");
}

#[test]
fn a_failing_compiler_is_an_error_on_request_only() {
    let Some(package) = Package::new("failing") else { return };
    let failing = [FOUND, ("FAKE_FAIL", "1")];
    let said = package.run(&failing);
    let reason = format!(
        "{}/bin/nvcc failed (exit status: 2) / included from here: / row.cu(1): error: no such thing / 3\n",
        package.0.display()
    );
    for prefix in [WITHOUT, "cargo::warning=no CUDA kernels in this build: "] {
        assert!(said.contains(&format!("{prefix}{reason}")), "{said}");
    }
    assert!(said.contains("cargo::warning=5\n") && !said.contains("cargo::error"), "{said}");
    assert!(
        said.lines().any(|line| line.contains("::warning=") && line.contains("-fatbin")),
        "{said}"
    );
    assert_eq!(said.matches("-fatbin").count(), 2, "{said}");
    assert!(!said.contains(BUILT), "{said}");
    // The host compiler may turn up there.
    assert!(said.contains("cargo::rerun-if-env-changed=PATH\n"), "{said}");
    let said = package.run(&[&failing[..], &[("PREFUSE_NVCC", "require")]].concat());
    assert!(said.contains("cargo::error=row.cu(1): error: no such thing"), "{said}");
    assert!(!said.contains(WITHOUT) && !said.contains(BUILT), "{said}");
    // What does not run at all.
    package.write("text", "no program");
    let said = package.run(&[("NVCC", "@/text")]);
    assert!(
        said.contains(WITHOUT) && said.contains("/text: ") && !said.contains("::error"),
        "{said}"
    );
}

#[test]
fn flags_from_the_environment_change_no_kernel() {
    let Some(package) = Package::new("flags") else { return };
    let said = package.run(&[
        FOUND,
        ("NVCC_APPEND_FLAGS", "-use_fast_math"),
        ("NVCC_PREPEND_FLAGS", "-use_fast_math"),
    ]);
    assert!(said.contains(BUILT), "{said}");
    let compilations = package.compilations();
    assert_eq!(compilations.len(), 2);
    assert!(compilations.iter().all(|line| !line.contains("fast_math")), "{compilations:?}");
}

#[test]
fn ready_fatbins_need_no_compiler() {
    let Some(package) = Package::new("prebuilt") else { return };
    let prebuilt = [("PREFUSE_PREBUILT", "@/out/fatbins"), ("OUT_DIR", "@/other")];
    let said = package.run(&prebuilt);
    assert!(said.contains("cargo::error=PREFUSE_PREBUILT: no file `built` in "), "{said}");
    package.run(&[FOUND]);
    package.compilations();
    let said = package.run(&prebuilt);
    assert!(said.contains(BUILT) && package.compilations().is_empty(), "{said}");
    let [ours, theirs] =
        ["other", "out"].map(|out| fs::read(package.0.join(out).join("kernels.rs")).unwrap());
    assert_eq!(ours, theirs);
    // Kernels of other sources take other arguments.
    let changed = [
        ("kernels/row.cu", "kernels/row.cu "),
        ("kernels/include/units.cuh", "changed"),
        ("kernels/new.cu", "new"),
    ];
    for (file, text) in changed {
        let before = fs::read_to_string(package.0.join(file));
        package.write(file, text);
        let said = package.run(&prebuilt);
        let refused =
            "was compiled from other kernels than those of this version; compile it again";
        assert!(said.contains("cargo::error=PREFUSE_PREBUILT: "), "{file}: {said}");
        assert!(said.contains(refused) && !said.contains(BUILT), "{file}: {said}");
        match before {
            Ok(before) => package.write(file, &before),
            Err(_) => fs::remove_file(package.0.join(file)).unwrap(),
        }
    }
    assert!(package.run(&prebuilt).contains(BUILT));
    // So do those of versions that did not say what they were made of.
    let built = fs::read_to_string(package.0.join("out/fatbins/built")).unwrap();
    package.write("out/fatbins/built", built.lines().next().unwrap());
    assert!(package.run(&prebuilt).contains("cargo::error=PREFUSE_PREBUILT: "));
    package.write("out/fatbins/built", &built);
    fs::remove_file(package.0.join("out/fatbins/row.fatbin")).unwrap();
    let said = package.run(&prebuilt);
    assert!(said.contains("cargo::error=") && said.contains("row.fatbin"), "{said}");
}

#[test]
fn ready_fatbins_may_be_this_builds_own() {
    let Some(package) = Package::new("own") else { return };
    package.run(&[FOUND]);
    package.compilations();
    std::os::unix::fs::symlink(package.0.join("out"), package.0.join("link")).unwrap();
    for folder in ["@/out/fatbins", "@/link/../out/fatbins/", "@/link/fatbins"] {
        let said = package.run(&[("PREFUSE_PREBUILT", folder)]);
        assert!(said.contains(BUILT), "{said}");
        assert_eq!(fs::read(package.0.join("out/fatbins/row.fatbin")).unwrap(), b"fatbin");
    }
    package.write("kernels/row.cu", "changed");
    let said = package.run(&[("PREFUSE_PREBUILT", "@/out/fatbins")]);
    assert!(said.contains("cargo::error=PREFUSE_PREBUILT: "), "{said}");
    assert!(package.0.join("out/fatbins/row.fatbin").is_file());
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

#[test]
fn a_compiler_is_named_by_path_or_found_by_name() {
    let Some(package) = Package::new("named") else { return };
    package.nvcc("path/nvcc");
    package.nvcc("path/nvcc-13.0");
    for name in ["nvcc", "nvcc-13.0", "path/nvcc", "./path/nvcc"] {
        let said = package.run(&[("NVCC", name), ("PATH", "@/empty:@/path")]);
        assert!(said.contains(BUILT), "{name}: {said}");
        assert!(said.contains(&format!("{}\n", name.trim_start_matches("./"))), "{said}");
        let watched = said.contains("cargo::rerun-if-env-changed=PATH\n");
        assert_eq!(watched, !name.contains('/'), "{said}");
    }
    for name in ["nvcc-12.0", "bin", "bin/none"] {
        let said = package.run(&[("NVCC", name), ("PATH", "@/empty:@/path")]);
        assert!(said.contains(&format!("{WITHOUT}NVCC names no file: {name}\n")), "{said}");
    }
}

/// Cargo runs the script again at every build where a watched file is missing.
#[test]
fn nothing_missing_is_watched() {
    let Some(package) = Package::new("watched") else { return };
    for folder in ["build", "src/objectives", "venv/lib/python3.11/site-packages"] {
        fs::create_dir_all(package.0.join(folder)).unwrap();
    }
    package.write("build.rs", "");
    let nowhere = [("CUDA_HOME", "@/cuda"), ("VIRTUAL_ENV", "@/venv"), ("PATH", "@/empty")];
    for environment in [&nowhere[..], &[("NVCC", "@/nowhere")], &[FOUND]] {
        let said = package.run(environment);
        let watched = said.lines().filter_map(|line| line.strip_prefix("cargo::rerun-if-changed="));
        let watched: Vec<_> = watched.collect();
        assert!(watched.len() >= 4, "{said}");
        assert!(watched.iter().all(|path| package.0.join(path).exists()), "{said}");
    }
}
