//! The records of a run, encoded.

use std::path::Path;

use anyhow::{Result, bail};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::args::{Args, Settings};
use crate::records::{Record, parse_records, read_records};
use crate::sequences::{Sequence, SequencePair};
use crate::tokenizer::Tokenizer;

const TRAIN: &str = include_str!("../data/train.jsonl");
const HELD_OUT: &str = include_str!("../data/heldout.jsonl");
/// The share of a file that is held out where no second file is given: one in five.
const HELD_OUT_SHARE: usize = 5;
const MAX_HELD_OUT: usize = 400;

/// Encoded pairs to train on and to evaluate on.
pub struct Data {
    pub train: Vec<SequencePair>,
    pub held_out: Vec<SequencePair>,
    pub vocabulary: usize,
    /// Whether the training records have sentence labels, without which there is no Mask-DPO.
    pub labelled: bool,
    /// What a reader of the results should know about the data.
    pub notes: Vec<String>,
}

impl Data {
    /// Loads the files that the command line names, or the built-in records.
    pub fn load(args: &Args, settings: &Settings) -> Result<Self> {
        let (train, held_out) = match &args.data {
            None => (
                parse_records("data/train.jsonl", TRAIN.as_bytes())?,
                parse_records("data/heldout.jsonl", HELD_OUT.as_bytes())?,
            ),
            Some(path) => match &args.held_out {
                Some(held_out) => (read_records(path)?, read_records(held_out)?),
                None => split_off_held_out(path, read_records(path)?)?,
            },
        };
        Ok(Self::new(train, held_out, settings))
    }

    /// Builds the vocabulary from the training records and encodes both sets.
    pub fn new(train: Vec<Record>, held_out: Vec<Record>, settings: &Settings) -> Self {
        let mut notes = Vec::new();
        let train = sample(train, settings.max_records, "training", &mut notes);
        let held_out = sample(held_out, MAX_HELD_OUT, "held-out", &mut notes);
        let tokenizer = Tokenizer::from_texts(train.iter().flat_map(texts));
        let encode = |records: &[Record]| -> Vec<SequencePair> {
            let pair = |record| SequencePair::new(&tokenizer, record, settings.max_tokens);
            records.iter().map(pair).collect()
        };
        let labelled = train.iter().filter(|record| record.is_labelled()).count();
        if labelled == 0 {
            notes.push("no sentence labels in the training records: Mask-DPO is left out".into());
        } else if labelled < train.len() {
            notes.push(format!(
                "{labelled} of {} training records have sentence labels; Mask-DPO treats the \
                 others as DPO does",
                train.len()
            ));
        }
        let data = Self {
            labelled: labelled > 0,
            train: encode(&train),
            held_out: encode(&held_out),
            vocabulary: tokenizer.vocabulary(),
            notes,
        };
        data.with_note_on_length(settings.max_tokens)
    }

    fn with_note_on_length(mut self, max_tokens: usize) -> Self {
        let shortened = self.sequences().filter(|sequence| sequence.shortened).count();
        if shortened > 0 {
            let all = self.sequences().count();
            self.notes.push(format!(
                "{shortened} of {all} sequences were shortened to {max_tokens} tokens"
            ));
        }
        self
    }

    fn sequences(&self) -> impl Iterator<Item = &Sequence> {
        self.train.iter().chain(&self.held_out).flat_map(|pair| [&pair.chosen, &pair.rejected])
    }

    /// Rows of the longest sequence.
    pub fn longest(&self) -> usize {
        self.sequences().map(Sequence::len).max().unwrap_or(0)
    }
}

fn split_off_held_out(path: &Path, mut train: Vec<Record>) -> Result<(Vec<Record>, Vec<Record>)> {
    if train.len() < 2 {
        bail!("{}: needs two records or more, one of them to be held out", path.display());
    }
    let held_out = train.split_off(train.len() - (train.len() / HELD_OUT_SHARE).max(1));
    Ok((train, held_out))
}

/// At most `limit` of the records, the same ones on every run.
fn sample(
    mut records: Vec<Record>,
    limit: usize,
    name: &str,
    notes: &mut Vec<String>,
) -> Vec<Record> {
    if records.len() > limit {
        notes.push(format!("{limit} of {} {name} records are used", records.len()));
        records.shuffle(&mut StdRng::seed_from_u64(0));
        records.truncate(limit);
    }
    records
}

fn texts(record: &Record) -> impl Iterator<Item = &str> {
    let prompt = record.prompt.iter().map(|turn| turn.content.as_str());
    prompt.chain([record.chosen.text.as_str(), record.rejected.text.as_str()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn settings() -> Settings {
        Args::parse_from(["align"]).settings()
    }

    fn records(count: usize) -> Vec<Record> {
        let line =
            |index| format!("{{\"prompt\":\"Q{index}?\",\"chosen\":\"A.\",\"rejected\":\"B.\"}}\n");
        let lines: String = (0..count).map(line).collect();
        parse_records("test", lines.as_bytes()).expect("records")
    }

    #[test]
    fn the_built_in_records_are_well_formed_and_labelled() {
        let data = Data::load(&Args::parse_from(["align"]), &settings()).expect("built-in data");
        assert!(data.labelled);
        assert!(data.notes.is_empty(), "{:?}", data.notes);
        assert!(
            data.held_out
                .iter()
                .any(|pair| { pair.rejected.sentences.iter().any(|sentence| sentence.factual) })
        );
    }

    #[test]
    fn the_last_fifth_is_held_out() {
        let (train, held_out) = split_off_held_out(Path::new("f"), records(11)).expect("a split");
        assert_eq!((train.len(), held_out.len()), (9, 2));
        assert_eq!(held_out[1].prompt[0].content, "Q10?");
        assert!(split_off_held_out(Path::new("f"), records(1)).is_err());
    }

    #[test]
    fn what_is_missing_or_dropped_is_noted() {
        let settings = Settings { max_records: 3, ..settings() };
        let data = Data::new(records(5), records(2), &settings);
        assert!(!data.labelled);
        let expected = [
            "3 of 5 training records are used",
            "no sentence labels in the training records: Mask-DPO is left out",
        ];
        assert_eq!(data.notes, expected);
    }
}
