//! Answers and the sentences marked in them.

use std::ops::Range;

use serde_json::{Map, Value};

use super::json;

/// A stretch of an answer, in bytes, marked as factual or not.
#[derive(Debug, Clone, PartialEq)]
pub struct Sentence {
    pub span: Range<usize>,
    pub factual: bool,
}

/// An answer with its marked sentences, in order; none where the data has no labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub text: String,
    pub sentences: Vec<Sentence>,
}

impl Answer {
    /// The answer named `side`, with the labels in the record's `<side>_sentences`.
    pub(super) fn new(
        text: String,
        side: &str,
        object: &Map<String, Value>,
    ) -> Result<Self, String> {
        let field = format!("{side}_sentences");
        let sentences = match json::get(object, &field) {
            None => Vec::new(),
            Some(Value::Array(list)) => parse_sentences(&field, list, &text)?,
            Some(other) => {
                return Err(format!("`{field}` must be a list, found {}", json::kind(other)));
            }
        };
        Ok(Self { text, sentences })
    }

    pub fn is_labelled(&self) -> bool {
        !self.sentences.is_empty()
    }
}

fn parse_sentences(field: &str, list: &[Value], text: &str) -> Result<Vec<Sentence>, String> {
    let mut sentences: Vec<Sentence> = Vec::with_capacity(list.len());
    for (index, value) in list.iter().enumerate() {
        let owner = format!("`{field}[{index}]`: ");
        let Value::Object(object) = value else {
            return Err(format!("{owner}must be an object, found {}", json::kind(value)));
        };
        let start = json::offset(object, &owner, "start")?;
        let end = json::offset(object, &owner, "end")?;
        let factual = json::boolean(object, &owner, "factual")?;
        check_span(start, end, text).map_err(|problem| format!("{owner}{problem}"))?;
        sentences.push(Sentence { span: start..end, factual });
    }
    sentences.sort_by_key(|sentence| sentence.span.start);
    for pair in sentences.windows(2) {
        let (first, second) = (&pair[0].span, &pair[1].span);
        if first.end > second.start {
            return Err(format!(
                "`{field}`: sentences {}..{} and {}..{} overlap",
                first.start, first.end, second.start, second.end
            ));
        }
    }
    Ok(sentences)
}

fn check_span(start: usize, end: usize, text: &str) -> Result<(), String> {
    if start >= end {
        return Err(format!("start {start} is not before end {end}"));
    }
    if end > text.len() {
        return Err(format!("end {end} is past the answer, which has {} bytes", text.len()));
    }
    for offset in [start, end] {
        if !text.is_char_boundary(offset) {
            return Err(format!("byte {offset} lies inside a character"));
        }
    }
    Ok(())
}
