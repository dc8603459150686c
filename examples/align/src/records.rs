//! Preference records: one JSON object a line, in any of the layouts that public datasets use.

mod answer;
mod conversation;
mod json;

use std::fmt;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

pub use answer::{Answer, Sentence};
pub use conversation::{Role, Turn};

/// Two answers to one prompt, the first preferred.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub prompt: Vec<Turn>,
    pub chosen: Answer,
    pub rejected: Answer,
}

impl Record {
    /// Whether either answer carries sentence labels.
    pub fn is_labelled(&self) -> bool {
        self.chosen.is_labelled() || self.rejected.is_labelled()
    }
}

/// The records of a file, and the places ("FILE:LINE") of those that teach no preference because an
/// answer is empty or both are the same: public datasets have such rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Records {
    pub records: Vec<Record>,
    pub left_out: Vec<String>,
}

/// What is wrong with a data file, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordError {
    pub file: String,
    /// Counted from 1; absent where the file as a whole is wrong.
    pub line: Option<usize>,
    pub problem: String,
}

impl fmt::Display for RecordError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(out, "{}:{line}: {}", self.file, self.problem),
            None => write!(out, "{}: {}", self.file, self.problem),
        }
    }
}

impl std::error::Error for RecordError {}

/// Reads and checks a data file.
pub fn read_records(path: &Path) -> Result<Records, RecordError> {
    let file = path.display().to_string();
    match fs::read(path) {
        Ok(bytes) => parse_records(&file, &bytes),
        Err(error) => Err(RecordError { file, line: None, problem: error.to_string() }),
    }
}

/// Parses the lines of a data file; `file` is its name in error messages. Blank lines are skipped.
pub fn parse_records(file: &str, bytes: &[u8]) -> Result<Records, RecordError> {
    let error = |line, problem| RecordError { file: file.to_string(), line, problem };
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let (mut records, mut left_out) = (Vec::new(), Vec::new());
    let mut first = true;
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let hint = if first { layout_hint(line) } else { "" };
        first = false;
        match parse_line(line).map_err(|problem| error(Some(index + 1), problem + hint))? {
            Some(record) => records.push(record),
            None => left_out.push(format!("{file}:{}", index + 1)),
        }
    }
    if records.is_empty() {
        let problem = match left_out.len() {
            0 => "the file holds no records",
            _ => "no records remain: all have empty or identical answers",
        };
        return Err(error(None, problem.to_string()));
    }
    Ok(Records { records, left_out })
}

/// A file that begins with a list is most likely one list of all records.
fn layout_hint(first_line: &[u8]) -> &'static str {
    let is_list = first_line.trim_ascii_start().starts_with(b"[");
    if is_list { " (one JSON object on each line)" } else { "" }
}

/// The record of a line; none where an answer is empty or both are the same.
fn parse_line(line: &[u8]) -> Result<Option<Record>, String> {
    let text = std::str::from_utf8(line)
        .map_err(|error| format!("not UTF-8 at byte {}", error.valid_up_to()))?;
    let object: Map<String, Value> = match serde_json::from_str(text) {
        Ok(Value::Object(object)) => object,
        Ok(other) => return Err(format!("expected a JSON object, found {}", json::kind(&other))),
        Err(error) => return Err(json::describe(&error)),
    };
    let Some((prompt, chosen, rejected)) = conversation::split(&object)? else {
        return Ok(None);
    };
    let chosen = Answer::new(chosen, "chosen", &object)?;
    let rejected = Answer::new(rejected, "rejected", &object)?;
    Ok((chosen.text != rejected.text).then_some(Record { prompt, chosen, rejected }))
}

#[cfg(test)]
mod tests;
