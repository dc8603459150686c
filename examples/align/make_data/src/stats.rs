//! Counts of the data, for its README.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::facts::{RELATIONS, TOPICS};
use crate::generate::Data;
use crate::record::{Answer, Record};

/// The words of a text: runs of letters and digits, and each other character but the space.
pub fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for piece in text.split(' ') {
        let mut rest = piece;
        while !rest.is_empty() {
            let letters = rest.bytes().take_while(u8::is_ascii_alphanumeric).count();
            let (word, later) = rest.split_at(letters.max(1));
            words.push(word);
            rest = later;
        }
    }
    words
}

/// The distinct words of all prompts and answers.
pub fn vocabulary(records: &[Record]) -> BTreeSet<&str> {
    let texts = records.iter().flat_map(|r| [&r.prompt, &r.chosen.text, &r.rejected.text]);
    texts.flat_map(|text| words(text)).collect()
}

/// The rows of the table of counts, in Markdown.
pub fn report(data: &Data) -> String {
    let mut out = String::from("| | train | held out |\n|---|---|---|\n");
    let mut row = |name: &str, count: &dyn Fn(&[Record]) -> String| {
        let _ = writeln!(out, "| {name} | {} | {} |", count(&data.train), count(&data.heldout));
    };
    row("pairs", &|records| records.len().to_string());
    row("true / false sentences in chosen", &|records| sentences(records, |r| &r.chosen));
    row("true / false sentences in rejected", &|records| sentences(records, |r| &r.rejected));
    row("pairs with a false sentence in chosen", &|records| {
        records.iter().filter(|r| r.chosen.false_count() > 0).count().to_string()
    });
    row("words in an answer (mean of chosen)", &|records| mean(records, |r| &r.chosen));
    row("words in an answer (mean of rejected)", &|records| mean(records, |r| &r.rejected));
    row("words in an answer (most)", &|records| {
        let answers = records.iter().flat_map(|r| [&r.chosen, &r.rejected]);
        answers.map(length).max().unwrap_or(0).to_string()
    });
    row("combinations (entity, order of its relations)", &|records| {
        let answers = records.iter().flat_map(|r| [(r.origin, &r.chosen), (r.origin, &r.rejected)]);
        let made = answers.map(|(origin, answer)| (origin, answer.order()));
        made.collect::<BTreeSet<_>>().len().to_string()
    });
    row("distinct words", &|records| vocabulary(records).len().to_string());
    let entities: usize = TOPICS.iter().map(|topic| topic.entities.len()).sum();
    let topics = TOPICS.map(|topic| format!("{} {}", topic.entities.len(), topic.name)).join(", ");
    let facts = entities * RELATIONS;
    let _ = writeln!(out, "\n{entities} entities with {facts} facts: {topics}.");
    out
}

/// Words of an answer, without its full stops.
pub fn length(answer: &Answer) -> usize {
    answer.text.split(' ').count()
}

fn sentences(records: &[Record], answer: impl Fn(&Record) -> &Answer) -> String {
    let all: usize = records.iter().map(|r| answer(r).sentences.len()).sum();
    let wrong: usize = records.iter().map(|r| answer(r).false_count()).sum();
    format!("{} / {wrong}", all - wrong)
}

fn mean(records: &[Record], answer: impl Fn(&Record) -> &Answer) -> String {
    let all: usize = records.iter().map(|r| length(answer(r))).sum();
    format!("{:.1}", all as f64 / records.len() as f64)
}
