//! The walk-through of `docs/adding_a_loss.md`, walked: one new file and one line are a new loss.

use std::collections::BTreeMap;
use std::fs::DirEntry;
use std::path::Path;
use std::process::Command;

use crate::common::root;

/// What stands between the fences of the first block in this language.
fn block<'a>(text: &'a str, language: &str) -> &'a str {
    let start = text.find(&format!("```{language}\n")).unwrap() + language.len() + 4;
    &text[start..start + text[start..].find("```").unwrap()]
}

/// Asks the list, as the build script does, for the kernels' text and for the new loss.
const MAIN: &str = r#"
#![allow(dead_code, unused_imports)]
mod objectives;
mod vectorized;
use objectives::{AnyObjective, Given, Response, cuda_source, from_named};
use vectorized::evaluate_vectorized;

fn main() {
    assert!(cuda_source().contains("OBJECTIVE(Rebel, Pair, PerPair)"));
    assert_eq!(objectives::objectives().iter().filter(|o| o.name() == "Rebel").count(), 2);
    let rebel: AnyObjective = from_named("Rebel", &[("eta", 0.5)]).unwrap();
    assert!(rebel.description().unwrap().doc.contains("Gao et al."));
    assert!(from_named("Rebel", &[("eta", -0.5)]).is_err());
    let at = |policies: [f64; 2]| {
        let response = |policy: f64, score: f64| {
            Response::new(policy, 3.0).with_reference(-2.0).with_score(score)
        };
        let none = Response::default();
        let pair = [response(policies[0], 0.5), response(policies[1], 0.25), none, none];
        rebel.evaluate(&pair, Given::NEUTRAL)
    };
    // (-1 + 2) / 0.5 - (-1.5 + 2) / 0.5 - 0.25
    assert!((at([-1.0, -1.5]).loss - 0.75 * 0.75).abs() < 1e-12);
    for policies in [[-1.0, -1.5], [-3.0, -0.5], [-0.25, -4.0]] {
        for response in 0..2 {
            let moved = |step: f64| {
                let mut policies = policies;
                policies[response] += step;
                at(policies).loss
            };
            let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((at(policies).grads[response] - slope).abs() < 1e-7);
        }
    }
    println!("walked");
}
"#;

/// The names and texts of a folder's files.
fn files(folder: &Path) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let name = |entry: &DirEntry| entry.file_name().into_string().unwrap();
    entries.map(|entry| (name(&entry), std::fs::read_to_string(entry.path()).unwrap())).collect()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

#[test]
fn the_walk_through_is_true() {
    let text = std::fs::read_to_string(root().join("docs/adding_a_loss.md")).unwrap();
    let compiler = std::env::var("RUSTC").unwrap_or("rustc".to_owned());
    if Command::new(&compiler).arg("--version").output().is_err() {
        eprintln!("skipped: no rustc");
        return;
    }
    let folder = std::env::temp_dir().join(format!("prefuse-walk-{}", std::process::id()));
    let module = folder.join("objectives");
    copy(&root().join("src/objectives"), &module);
    assert!(
        !module.join("rebel.rs").exists(),
        "the walk-through's loss is in the list: choose another"
    );
    std::fs::write(module.join("rebel.rs"), block(&text, "rust")).unwrap();
    let list = std::fs::read_to_string(module.join("mod.rs")).unwrap();
    let line = block(&text, "text");
    assert_eq!(line.lines().count(), 1);
    let (before, after) = list.split_once("list! {\n").unwrap();
    std::fs::write(module.join("mod.rs"), format!("{before}list! {{\n{line}{after}")).unwrap();
    let (found, mut expected) = (files(&module), files(&root().join("src/objectives")));
    let rest = found["mod.rs"].replacen(line, "", 1);
    assert_eq!(expected.insert("mod.rs".to_owned(), found["mod.rs"].clone()).unwrap(), rest);
    expected.insert("rebel.rs".to_owned(), block(&text, "rust").to_owned());
    assert!(found == expected, "more than a file and a line are new");
    std::fs::write(folder.join("main.rs"), MAIN).unwrap();
    std::fs::copy(root().join("build/vectorized.rs"), folder.join("vectorized.rs")).unwrap();
    let (main, binary) = (folder.join("main.rs"), folder.join("walk"));
    let compiled =
        Command::new(&compiler).args(["--edition", "2024", "-o"]).arg(&binary).arg(&main).output();
    let compiled = compiled.unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let output = Command::new(&binary).output().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout, b"walked\n");
}
