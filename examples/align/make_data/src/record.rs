//! What a record is, and how it is written as a line of JSON.

use std::fmt::Write as _;

/// A prompt with a better and a worse answer.
#[derive(Debug)]
pub struct Record {
    /// The question.
    pub prompt: String,
    /// The answer with fewer false sentences.
    pub chosen: Answer,
    /// The answer with more of them.
    pub rejected: Answer,
    /// How the record was made; not written.
    pub origin: Origin,
}

/// The entity a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// Position in `facts::TOPICS`.
    pub topic: usize,
    /// Position in the topic's entities.
    pub entity: usize,
}

/// Sentences, with what each says.
#[derive(Debug, Default)]
pub struct Answer {
    /// The sentences, with one space between two.
    pub text: String,
    /// Where they are and whether they are true.
    pub sentences: Vec<Sentence>,
}

/// A range of bytes of an answer. A sentence begins where the one before it ended, so it includes
/// the space that separates the two.
#[derive(Clone, Copy, Debug)]
pub struct Sentence {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
    /// Whether the sentence is true.
    pub factual: bool,
    /// Position of the relation in the topic; not written.
    pub relation: usize,
}

impl Answer {
    /// Appends a sentence.
    pub fn push(&mut self, text: &str, factual: bool, relation: usize) {
        let start = self.text.len();
        if start > 0 {
            self.text.push(' ');
        }
        self.text.push_str(text);
        self.sentences.push(Sentence { start, end: self.text.len(), factual, relation });
    }

    /// The relations in the order in which they are mentioned.
    pub fn order(&self) -> Vec<usize> {
        self.sentences.iter().map(|sentence| sentence.relation).collect()
    }

    /// How many sentences are false.
    pub fn false_count(&self) -> usize {
        self.sentences.iter().filter(|sentence| !sentence.factual).count()
    }
}

/// The records as lines of JSON, each with a line feed at its end.
pub fn lines(records: &[Record]) -> String {
    let mut out = String::new();
    for record in records {
        out.push_str("{\"prompt\": ");
        push_string(&mut out, &record.prompt);
        out.push_str(", \"chosen\": ");
        push_string(&mut out, &record.chosen.text);
        out.push_str(", \"rejected\": ");
        push_string(&mut out, &record.rejected.text);
        out.push_str(", \"chosen_sentences\": ");
        push_sentences(&mut out, &record.chosen.sentences);
        out.push_str(", \"rejected_sentences\": ");
        push_sentences(&mut out, &record.rejected.sentences);
        out.push_str("}\n");
    }
    out
}

fn push_string(out: &mut String, text: &str) {
    let plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\';
    assert!(text.bytes().all(plain), "needs an escape: {text}");
    out.push('"');
    out.push_str(text);
    out.push('"');
}

fn push_sentences(out: &mut String, sentences: &[Sentence]) {
    out.push('[');
    for (position, Sentence { start, end, factual, .. }) in sentences.iter().enumerate() {
        if position > 0 {
            out.push_str(", ");
        }
        let _ = write!(out, "{{\"start\": {start}, \"end\": {end}, \"factual\": {factual}}}");
    }
    out.push(']');
}
