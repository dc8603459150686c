//! The records of a run, encoded.

use std::path::Path;

use anyhow::{Result, bail, ensure};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::args::{Args, Settings};
use crate::notes;
use crate::records::{Record, Records, parse_records, read_records};
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
        let left_out = [train.left_out, held_out.left_out].concat();
        let mut data = Self::new(train.records, held_out.records, settings)?;
        data.notes.splice(0..0, notes::left_out(&left_out));
        Ok(data)
    }

    /// Builds the vocabulary from the training records and encodes both sets.
    pub fn new(train: Vec<Record>, held_out: Vec<Record>, settings: &Settings) -> Result<Self> {
        let mut notes = Vec::new();
        let train = sample(train, settings.max_records, "training", &mut notes);
        let held_out = sample(held_out, MAX_HELD_OUT, "held-out", &mut notes);
        let tokenizer = Tokenizer::from_texts(train.iter().flat_map(texts));
        let records = train.len() + held_out.len();
        let (train, train_pairs) = encode(&tokenizer, train, "training", settings.max_tokens)?;
        let (held_out, held_out_pairs) =
            encode(&tokenizer, held_out, "held-out", settings.max_tokens)?;
        let identical = records - train.len() - held_out.len();
        let labelled = train.iter().filter(|record| record.is_labelled()).count();
        notes.extend(notes::identical(identical, settings.max_tokens));
        notes.extend(notes::unlabelled(labelled, train.len()));
        notes.extend(notes::few(held_out.len()));
        notes.extend(notes::repeated(&train, &held_out));
        let data = Self {
            labelled: labelled > 0,
            train: train_pairs,
            held_out: held_out_pairs,
            vocabulary: tokenizer.vocabulary(),
            notes,
        };
        Ok(data.with_note_on_length(settings.max_tokens))
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

/// The records whose answers differ within `max_tokens`, and their pairs.
fn encode(
    tokenizer: &Tokenizer,
    records: Vec<Record>,
    name: &str,
    max_tokens: usize,
) -> Result<(Vec<Record>, Vec<SequencePair>)> {
    let kept: (Vec<_>, Vec<_>) = records
        .into_iter()
        .map(|record| {
            let pair = SequencePair::new(tokenizer, &record, max_tokens);
            (record, pair)
        })
        .filter(|(_, pair)| !pair.is_identical())
        .unzip();
    ensure!(
        !kept.0.is_empty(),
        "all {name} pairs are identical after shortening to {max_tokens} tokens; raise --max-tokens"
    );
    Ok(kept)
}

/// The last records of a file, held out; those left out of it stand with the others.
fn split_off_held_out(path: &Path, file: Records) -> Result<(Records, Records)> {
    let Records { records: mut train, left_out } = file;
    if train.len() < 2 {
        bail!("{}: needs two records or more, one of them to be held out", path.display());
    }
    let held_out = train.split_off(train.len() - (train.len() / HELD_OUT_SHARE).max(1));
    Ok((Records { records: train, left_out }, Records { records: held_out, left_out: Vec::new() }))
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

    fn records(count: usize) -> Records {
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
        assert_eq!((train.records.len(), held_out.records.len()), (9, 2));
        assert_eq!(held_out.records[1].prompt[0].content, "Q10?");
        assert!(split_off_held_out(Path::new("f"), records(1)).is_err());
    }

    #[test]
    fn what_is_missing_or_dropped_is_noted() {
        let settings = Settings { max_records: 3, ..settings() };
        let data = Data::new(records(5).records, records(2).records, &settings).expect("data");
        assert!(!data.labelled);
        let expected = [
            "3 of 5 training records are used",
            "no sentence labels in the training records: Mask-DPO is left out",
            "2 held-out pairs are too few to conclude from",
            "2 held-out records also occur in training (same prompt and answers)",
        ];
        assert_eq!(data.notes, expected);
        let data = Data::new(records(5).records, records(30).records, &settings).expect("data");
        assert!(!data.notes.iter().any(|note| note.contains("too few")), "{:?}", data.notes);
    }

    #[test]
    fn pairs_without_a_difference_are_left_out_with_a_note() {
        let settings = Settings { max_tokens: 8, ..settings() };
        let long = |end: &str| format!("A{}{end}", " x".repeat(9));
        let record = |chosen: &str, rejected: &str| {
            let line =
                format!("{{\"prompt\":\"Q\",\"chosen\":\"{chosen}\",\"rejected\":\"{rejected}\"}}");
            parse_records("test", line.as_bytes()).expect("a record").records.remove(0)
        };
        let same = || record(&long("."), &long("!"));
        let data = Data::new(vec![same(), record("A", "B")], vec![record("B", "A")], &settings);
        let data = data.expect("one pair of each");
        assert_eq!((data.train.len(), data.held_out.len()), (1, 1));
        let expected = "1 pair is identical after shortening to 8 tokens; raise --max-tokens";
        assert_eq!(data.notes[0], expected);
        assert!(data.notes.contains(&"1 held-out pair is too few to conclude from".to_string()));
        let error = Data::new(vec![same()], vec![record("A", "B")], &settings).err();
        let error = error.expect("nothing to train on").to_string();
        assert!(error.starts_with("all training pairs are identical after shortening"), "{error}");
    }

    #[test]
    fn records_left_out_of_a_file_are_noted() {
        let folder = std::env::temp_dir().join(format!("align-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("pairs.jsonl");
        let line = |rejected| {
            format!("{{\"prompt\":\"Q\",\"chosen\":\"A\",\"rejected\":\"{rejected}\"}}\n")
        };
        std::fs::write(&path, [line("B"), line("A"), line("C"), line("")].concat())
            .expect("a file");
        let args = Args::parse_from(["align", "--data", &path.display().to_string()]);
        let data = Data::load(&args, &settings()).expect("data");
        std::fs::remove_dir_all(&folder).expect("removed");
        let place = format!("first at {}:2", path.display());
        let expected = format!("2 records left out: empty or identical answers ({place})");
        assert_eq!(data.notes[0], expected);
        assert_eq!((data.train.len(), data.held_out.len()), (1, 1));
    }
}
