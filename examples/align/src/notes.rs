//! What a reader of the results should know about the data, as sentences.

use std::collections::HashSet;

use crate::records::{Record, Turn};

/// Below this a share of pairs is uncertain by more than nine points (one standard error).
const ENOUGH_HELD_OUT: usize = 30;

/// "1 pair", "2 pairs".
pub fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Of records that teach no preference, named by their places in the files.
pub fn left_out(places: &[String]) -> Option<String> {
    let first = places.first()?;
    let records = counted(places.len(), "record");
    Some(format!("{records} left out: empty or identical answers (first at {first})"))
}

/// Of pairs whose answers differ only in what was cut off.
pub fn identical(pairs: usize, max_tokens: usize) -> Option<String> {
    let verb = if pairs == 1 { "is" } else { "are" };
    (pairs > 0).then(|| {
        format!(
            "{} {verb} identical after shortening to {max_tokens} tokens; raise --max-tokens",
            counted(pairs, "pair")
        )
    })
}

/// Of a held-out set too small for its figures to mean much.
pub fn few(held_out: usize) -> Option<String> {
    let verb = if held_out == 1 { "is" } else { "are" };
    (held_out < ENOUGH_HELD_OUT)
        .then(|| format!("{} {verb} too few to conclude from", counted(held_out, "held-out pair")))
}

/// Of held-out records that were trained on.
pub fn repeated(train: &[Record], held_out: &[Record]) -> Option<String> {
    let seen: HashSet<_> = train.iter().map(content).collect();
    let count = held_out.iter().filter(|record| seen.contains(&content(record))).count();
    let verb = if count == 1 { "occurs" } else { "occur" };
    (count > 0).then(|| {
        format!(
            "{} also {verb} in training (same prompt and answers)",
            counted(count, "held-out record")
        )
    })
}

fn content(record: &Record) -> (&[Turn], &str, &str) {
    (&record.prompt, &record.chosen.text, &record.rejected.text)
}

/// Of training records without sentence labels.
pub fn unlabelled(labelled: usize, records: usize) -> Option<String> {
    if labelled == 0 {
        return Some("no sentence labels in the training records: Mask-DPO is left out".into());
    }
    (labelled < records).then(|| {
        format!(
            "{labelled} of {records} training records have sentence labels; Mask-DPO treats the \
             others as DPO does"
        )
    })
}
