//! Writes preference pairs about checkable facts, with a label for every sentence.
//!
//! `make_data FOLDER` writes `train.jsonl` and `heldout.jsonl`; `make_data --check FOLDER` compares
//! them with what it would write and fails if they differ; `make_data --stats` prints their counts.

use std::path::Path;
use std::process::ExitCode;
use std::{env, fs, io};

mod facts;
mod generate;
mod record;
mod shuffle;
mod stats;
#[cfg(test)]
mod tests;

const USAGE: &str = "usage: make_data [--check] FOLDER | make_data --stats";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["--stats"] => {
            print!("{}", stats::report(&generate::generate()));
            Ok(())
        }
        ["--check", folder] => check(Path::new(folder)),
        [folder] if !folder.starts_with('-') => write(Path::new(folder)),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// The names and contents of the files.
fn files() -> [(&'static str, String); 2] {
    let data = generate::generate();
    [("train.jsonl", record::lines(&data.train)), ("heldout.jsonl", record::lines(&data.heldout))]
}

fn write(folder: &Path) -> Result<(), String> {
    let explain = |error: io::Error| format!("{}: {error}", folder.display());
    fs::create_dir_all(folder).map_err(explain)?;
    for (name, contents) in files() {
        fs::write(folder.join(name), contents).map_err(explain)?;
    }
    Ok(())
}

fn check(folder: &Path) -> Result<(), String> {
    for (name, contents) in files() {
        let path = folder.join(name);
        let found = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        if found != contents.as_bytes() {
            return Err(format!("{} is stale: run make_data again", path.display()));
        }
    }
    Ok(())
}
