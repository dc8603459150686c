//! Words and punctuation marks as tokens; what the vocabulary lacks falls back to bytes.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::Range;

use crate::records::Role;

/// Closes an answer.
pub const END: u32 = 4;
const BYTES: u32 = 5;
const WORDS: u32 = BYTES + 256;
/// Rarer pieces are spelled in bytes: a word seen once teaches nothing about itself.
const MIN_COUNT: usize = 2;
const MAX_WORDS: usize = 4096;

/// A token and the bytes of the text that it stands for, without a leading space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub id: u32,
    pub span: Range<usize>,
}

/// Token ids: four roles, the end mark, 256 bytes, then the pieces of the training texts.
pub struct Tokenizer {
    ids: HashMap<String, u32>,
    #[cfg(test)]
    pieces: Vec<String>,
}

impl Tokenizer {
    /// Takes the most frequent pieces of the texts as its vocabulary.
    pub fn from_texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for text in texts {
            for span in pieces(text) {
                *counts.entry(&text[span]).or_default() += 1;
            }
        }
        let mut pieces: Vec<_> =
            counts.into_iter().filter(|&(_, count)| count >= MIN_COUNT).collect();
        pieces.sort_unstable_by_key(|&(piece, count)| (Reverse(count), piece));
        pieces.truncate(MAX_WORDS);
        let pieces: Vec<String> = pieces.into_iter().map(|(piece, _)| piece.to_string()).collect();
        Self {
            ids: pieces.iter().cloned().zip(WORDS..).collect(),
            #[cfg(test)]
            pieces,
        }
    }

    /// The number of token ids.
    pub fn vocabulary(&self) -> usize {
        WORDS as usize + self.ids.len()
    }

    /// The token that opens a message.
    pub fn role(role: Role) -> u32 {
        match role {
            Role::System => 0,
            Role::User => 1,
            Role::Assistant => 2,
            Role::Tool => 3,
        }
    }

    pub fn encode(&self, text: &str) -> Vec<Token> {
        let mut tokens = Vec::new();
        for span in pieces(text) {
            let piece = &text[span.clone()];
            match self.ids.get(piece) {
                Some(&id) => {
                    let start = span.start + usize::from(piece.len() > 1 && piece.starts_with(' '));
                    tokens.push(Token { id, span: start..span.end });
                }
                None => tokens.extend(piece.bytes().zip(span).map(|(byte, offset)| Token {
                    id: BYTES + u32::from(byte),
                    span: offset..offset + 1,
                })),
            }
        }
        tokens
    }
}

/// Cuts a text into words, punctuation marks and white space; a word takes the space before it.
fn pieces(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let rest = &text[start..];
        let mut chars = rest.char_indices().peekable();
        let mut first = chars.next()?.1;
        if first == ' ' {
            first = chars.next_if(|(_, char)| !char.is_whitespace()).map_or(' ', |(_, char)| char);
        }
        if first.is_alphanumeric() {
            while chars.next_if(|(_, char)| char.is_alphanumeric()).is_some() {}
        }
        let length = chars.peek().map_or(rest.len(), |&(offset, _)| offset);
        start += length;
        Some(start - length..start)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(tokenizer: &Tokenizer, tokens: &[Token]) -> String {
        let mut bytes = Vec::new();
        for token in tokens {
            match token.id {
                id if id >= WORDS => {
                    bytes.extend_from_slice(tokenizer.pieces[(id - WORDS) as usize].as_bytes());
                }
                id => bytes.push((id - BYTES) as u8),
            }
        }
        String::from_utf8(bytes).expect("whole characters")
    }

    #[test]
    fn any_text_survives_a_round_trip() {
        let known = "The town of Belmont was founded in 1488. The town of Belmont trades rope.";
        let tokenizer = Tokenizer::from_texts([known, known]);
        for text in
            [known, "", " ", "  The  town\n\tof", "Zürich — 東京 🦀!", " of of Unknown", "a  "]
        {
            assert_eq!(decode(&tokenizer, &tokenizer.encode(text)), text);
        }
    }

    #[test]
    fn words_are_single_tokens_and_rare_words_are_bytes() {
        let tokenizer = Tokenizer::from_texts(["one two, two", "one"]);
        let spans =
            |text| tokenizer.encode(text).into_iter().map(|token| token.span).collect::<Vec<_>>();
        // " two" stands twice in the texts; "," once.
        assert_eq!(spans("one two"), [0..3, 4..7]);
        assert_eq!(spans("one, two"), [0..3, 3..4, 5..8]);
        assert_eq!(spans("é two"), [0..1, 1..2, 3..6]);
    }

    #[test]
    fn the_vocabulary_does_not_depend_on_hashing() {
        let text = "a b c d e f g h a b c d e f g h";
        let encode = || Tokenizer::from_texts([text, text]).encode(text);
        assert_eq!(encode(), encode());
    }
}
