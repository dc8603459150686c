//! The tree is the picture of the architecture: a stage has the same file name in every room.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::common::root;

fn stems(folder: &str, extension: &str) -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(root().join(folder)) else { return BTreeSet::new() };
    entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|stem| stem != "mod")
        .collect()
}

/// `src/stages` names the stages; every backend and the kernels have a file for each; so do the tests
/// and the benches.
#[test]
fn a_stage_has_one_name_in_every_room() {
    let stages = stems("src/stages", "rs");
    assert_eq!(stems("src/reference", "rs"), stages);
    let rooms = ["src/cpu", "src/cuda", "tests", "benches"].map(|folder| (folder, "rs"));
    for (folder, extension) in rooms.into_iter().chain([("kernels", "cu")]) {
        let missing: Vec<_> = stages.difference(&stems(folder, extension)).cloned().collect();
        assert!(missing.is_empty(), "{folder} lacks {missing:?}");
    }
}

/// Kernels are read by nvcc and by a host's C++ compiler alike: what is not plain CUDA C++ is in
/// `ptx.cuh`, which has a twin in the emulator.
#[test]
fn kernels_are_plain() {
    let folders = ["kernels", "kernels/include"].map(|folder| root().join(folder));
    for path in folders.into_iter().flat_map(|folder| std::fs::read_dir(folder).unwrap()) {
        let path = path.unwrap().path();
        if path.is_dir() || path.ends_with("ptx.cuh") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let known = ["#pragma ", "#define ", "#include \"", "#include <stdint.h>"];
            let plain = known.iter().any(|known| line.trim_start().starts_with(known));
            assert!(plain || !line.trim_start().starts_with('#'), "{}: {line}", path.display());
            assert!(!line.contains("asm"), "{}: {line}", path.display());
        }
    }
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// `unsafe` lives in the SIMD dispatch of the CPU backend, in `src/cuda`, and nowhere else in the
/// crate; `reference` and `objectives` are free of it by that.
#[test]
fn unsafe_code_has_its_place() {
    let mut found = Vec::new();
    sources(&root().join("src"), &mut found);
    for path in found {
        let allowed =
            path.ends_with("src/cpu/simd.rs") || path.starts_with(root().join("src/cuda"));
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let mut words =
            code.flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'));
        assert!(allowed || words.all(|word| word != "unsafe"), "unsafe in {}", path.display());
    }
}

/// The objectives are a module that depends on nothing else in the crate, so that the build script
/// can include it; what evaluates them for an instruction set stands beside it there.
#[test]
fn objectives_depend_on_nothing() {
    let mut found = Vec::new();
    sources(&root().join("src/objectives"), &mut found);
    for path in found {
        let text = std::fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            let code = !line.trim_start().starts_with("//");
            let outside = ["crate::", "super::super"].iter().any(|path| line.contains(path));
            let names = ["objective!", "choice!", "each_variant!", "evaluate_vectorized("];
            let names = names.map(|name| format!("crate::{name}"));
            let own =
                line.contains("crate::objectives") || names.iter().any(|name| line.contains(name));
            assert!(!code || !outside || own, "{}:{}: {line}", path.display(), number + 1);
        }
    }
}

/// Files stay short enough to be read.
#[test]
fn files_are_short() {
    let mut found = Vec::new();
    for folder in ["src", "candle", "examples", "xtask", "benches", "tests"] {
        sources(&root().join(folder), &mut found);
    }
    for path in found {
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        // Tables of facts may be long.
        let table = path.components().any(|part| part.as_os_str() == "facts");
        assert!(table || lines <= 500, "{} has {lines} lines", path.display());
    }
}
