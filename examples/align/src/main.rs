//! DPO and Mask-DPO from one start, compared on a model small enough for a CPU.
//!
//! [`train`] holds the stages, [`loss`] the calls of the library, everything else serves them.

mod args;
mod data;
mod loss;
mod measure;
mod model;
mod notes;
mod parallel;
mod plot;
mod progress;
mod records;
mod report;
mod results;
mod sequences;
#[cfg(test)]
mod tests;
mod tokenizer;
mod train;

use std::fs;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use crate::args::{Args, Settings};
use crate::data::Data;
use crate::loss::Method;
use crate::progress::Progress;
use crate::results::{Results, Run, summarize};
use crate::train::{align, fine_tune};

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let started = Instant::now();
    let settings = args.settings();
    let data = Data::load(args, &settings)?;
    ensure!(!args.out.is_file(), "{} is a file, expected a folder", args.out.display());
    // A folder that cannot be written should be known before the training, not after it.
    fs::create_dir_all(&args.out)
        .with_context(|| format!("cannot create {}", args.out.display()))?;
    let source = match &args.data {
        Some(path) => path.display().to_string(),
        None => "built-in".to_string(),
    };
    announce(&source, &data);
    let runs = compare(&data, &settings)?;
    let results = Results {
        data: source,
        training_pairs: data.train.len(),
        held_out_pairs: data.held_out.len(),
        vocabulary: data.vocabulary,
        notes: data.notes,
        settings,
        summary: summarize(&runs),
        runs,
    };
    println!("\n{}", report::render(&results));
    write_files(args, &results)?;
    println!("{:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// What the run works on, before it takes its time.
fn announce(source: &str, data: &Data) {
    println!(
        "{source} records: {} to train on, {} held out; vocabulary of {} tokens (words, \
         punctuation, 256 bytes and 5 marks)",
        data.train.len(),
        data.held_out.len(),
        data.vocabulary
    );
    for note in &data.notes {
        println!("note: {note}");
    }
}

/// Fine-tunes once a seed and trains each method from there.
fn compare(data: &Data, settings: &Settings) -> Result<Vec<Run>> {
    let methods: &[Method] =
        if data.labelled { &[Method::Dpo, Method::MaskDpo] } else { &[Method::Dpo] };
    let seeds = settings.seeds as usize;
    let progress = Progress::new(seeds * (settings.sft_steps + methods.len() * settings.steps));
    let starts = parallel::map(seeds, |seed| fine_tune(data, settings, seed as u64, &progress))?;
    let runs = parallel::map(seeds * methods.len(), |job| {
        let (start, method) = (&starts[job / methods.len()], methods[job % methods.len()]);
        let points = align(start, method, data, settings, &progress)?;
        anyhow::Ok(Run { method, seed: start.seed, points })
    })?;
    progress.finish();
    Ok(runs)
}

fn write_files(args: &Args, results: &Results) -> Result<()> {
    let json = serde_json::to_string_pretty(results)? + "\n";
    for (name, content) in [("align.svg", plot::render(results)), ("align.json", json)] {
        let path = args.out.join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        println!("wrote {}", path.display());
    }
    Ok(())
}
