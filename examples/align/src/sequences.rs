//! From records to token sequences, and from sequences to the packs that a step works on.

use std::ops::Range;

use anyhow::Result;
use candle_core::{Device, Tensor};
use prefuse::batch::{Packing, Sentence};

use crate::records::{self, Answer, Record, Role, Turn};
use crate::tokenizer::{END, Token, Tokenizer};

/// The label of a row that counts nowhere.
pub const IGNORED: i64 = -100;

/// The rows that predict the tokens of one marked sentence.
#[derive(Debug, Clone)]
pub struct SentenceRows {
    pub rows: Range<usize>,
    pub factual: bool,
}

/// A prompt with one answer, as rows: row `t` reads `inputs[..=t]` and predicts `labels[t]`.
#[derive(Debug, Clone)]
pub struct Sequence {
    pub inputs: Vec<u32>,
    pub labels: Vec<i64>,
    pub sentences: Vec<SentenceRows>,
    /// Whether the prompt or the answer had to be shortened.
    pub shortened: bool,
}

/// The two sequences of a record.
#[derive(Debug, Clone)]
pub struct SequencePair {
    pub chosen: Sequence,
    pub rejected: Sequence,
}

impl SequencePair {
    /// Encodes a record in at most `max_tokens` rows a sequence. Long answers lose their end, long
    /// prompts their beginning; an answer has at least half.
    pub fn new(tokenizer: &Tokenizer, record: &Record, max_tokens: usize) -> Self {
        let prompt = encode_prompt(tokenizer, &record.prompt);
        let chosen = tokenizer.encode(&record.chosen.text);
        let rejected = tokenizer.encode(&record.rejected.text);
        // One part for both answers: a preference compares them under the same prompt.
        let room = max_tokens - prompt.len().min(max_tokens / 2);
        let kept = prompt.len().min(max_tokens - chosen.len().max(rejected.len()).min(room));
        let encode = |tokens: &[Token], answer| {
            let part = &prompt[prompt.len() - kept..];
            let mut sequence = Sequence::new(part, tokens, answer, max_tokens - kept);
            sequence.shortened |= kept < prompt.len();
            sequence
        };
        Self {
            chosen: encode(&chosen, &record.chosen),
            rejected: encode(&rejected, &record.rejected),
        }
    }

    /// Whether shortening has left nothing that tells the answers apart.
    pub fn is_identical(&self) -> bool {
        (&self.chosen.inputs, &self.chosen.labels) == (&self.rejected.inputs, &self.rejected.labels)
    }
}

fn encode_prompt(tokenizer: &Tokenizer, turns: &[Turn]) -> Vec<u32> {
    let mut ids = Vec::new();
    for turn in turns {
        ids.push(Tokenizer::role(turn.role));
        ids.extend(tokenizer.encode(&turn.content).iter().map(|token| token.id));
    }
    ids.push(Tokenizer::role(Role::Assistant));
    ids
}

impl Sequence {
    /// A prompt, then at most `room` of an answer's tokens.
    fn new(prompt: &[u32], tokens: &[Token], answer: &Answer, room: usize) -> Self {
        let kept = tokens.len().min(room);
        let shortened = kept < tokens.len();

        let mut ids = prompt.to_vec();
        ids.extend(tokens[..kept].iter().map(|token| token.id));
        if !shortened {
            ids.push(END);
        }
        let first = prompt.len() - 1;
        let mut labels: Vec<i64> = ids[1..].iter().map(|&id| i64::from(id)).collect();
        labels[..first].fill(IGNORED);
        ids.pop();

        let rows = |sentence: &records::Sentence| {
            let range = token_range(tokens, sentence);
            let rows = first + range.start..first + range.end.min(kept);
            (!rows.is_empty()).then_some(SentenceRows { rows, factual: sentence.factual })
        };
        let sentences = answer.sentences.iter().filter_map(rows).collect();
        Self { inputs: ids, labels, sentences, shortened }
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.inputs.len()
    }
}

/// The indices of the tokens that lie inside a sentence.
fn token_range(tokens: &[Token], sentence: &records::Sentence) -> Range<usize> {
    let start = tokens.partition_point(|token| token.span.start < sentence.span.start);
    let end = tokens.partition_point(|token| token.span.end <= sentence.span.end);
    start..end.max(start)
}

/// Sequences one after another: the rows that the model turns into `[tokens, vocab]` logits.
pub struct Pack {
    /// Token ids, `[sequences, longest]`, padded at the end.
    pub inputs: Tensor,
    /// Where each row of the pack stands in the padded, flattened batch.
    pub positions: Tensor,
    pub labels: Vec<i64>,
    /// Which rows belong to which sequence.
    pub packing: Packing,
    /// The marked sentences of all sequences.
    pub sentences: Vec<Sentence>,
}

impl Pack {
    pub fn new<'a>(sequences: impl IntoIterator<Item = &'a Sequence>) -> Result<Self> {
        let sequences: Vec<_> = sequences.into_iter().collect();
        let longest = sequences.iter().map(|sequence| sequence.len()).max().unwrap_or(0);
        let mut inputs = vec![END; sequences.len() * longest];
        let (mut positions, mut labels, mut sentences) = (Vec::new(), Vec::new(), Vec::new());
        let mut cu_seqlens = vec![0];
        for (index, sequence) in sequences.iter().enumerate() {
            let (start, rows) = (index * longest, sequence.len());
            inputs[start..start + rows].copy_from_slice(&sequence.inputs);
            positions.extend(start as u32..(start + rows) as u32);
            labels.extend_from_slice(&sequence.labels);
            cu_seqlens.push(labels.len() as i64);
            sentences.extend(
                sequence
                    .sentences
                    .iter()
                    .map(|sentence| Sentence::new(index, sentence.rows.clone(), sentence.factual)),
            );
        }
        Ok(Self {
            inputs: Tensor::from_vec(inputs, (sequences.len(), longest), &Device::Cpu)?,
            positions: Tensor::new(positions, &Device::Cpu)?,
            labels,
            packing: Packing::new(&cu_seqlens)?,
            sentences,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::parse_records;

    const LINE: &str = r#"{"prompt":"Is it old?","chosen":"It is old. It is big.","rejected":"No.","chosen_sentences":[{"start":0,"end":10,"factual":true},{"start":11,"end":21,"factual":false}]}"#;
    const TEXT: &str = "It is old. It is big. So.";

    fn pair(max_tokens: usize) -> SequencePair {
        let record = &parse_records("test", LINE.as_bytes()).expect("a record").records[0];
        let texts = ["Is it old?", "It is old. It is big.", "No."];
        let tokenizer = Tokenizer::from_texts(texts.into_iter().chain(texts));
        SequencePair::new(&tokenizer, record, max_tokens)
    }

    fn range(tokens: &[Token], span: Range<usize>) -> Range<usize> {
        token_range(tokens, &records::Sentence { span, factual: true })
    }

    #[test]
    fn a_sentence_holds_the_tokens_inside_it() {
        let tokens = Tokenizer::from_texts([TEXT, TEXT]).encode(TEXT);
        assert_eq!(range(&tokens, 0..10), 0..4);
        // The space between two sentences may belong to either.
        assert_eq!(range(&tokens, 11..21), 4..8);
        assert_eq!(range(&tokens, 10..21), 4..8);
        // Words that stick out at an end do not belong to it.
        assert_eq!(range(&tokens, 1..9), 1..3);
        assert!(range(&tokens, 7..8).is_empty());
    }

    #[test]
    fn bytes_belong_to_sentences_too() {
        let tokens = Tokenizer::from_texts([]).encode(TEXT);
        assert_eq!(range(&tokens, 11..21), 11..21);
    }

    #[test]
    fn rows_predict_the_answer_and_its_end() {
        let chosen = pair(64).chosen;
        // User mark, four prompt tokens, assistant mark; eight answer tokens; the end mark.
        assert_eq!((chosen.len(), chosen.labels.len()), (14, 14));
        assert!(chosen.labels[..5].iter().all(|&label| label == IGNORED));
        let answer: Vec<i64> = chosen.inputs[6..].iter().map(|&id| i64::from(id)).collect();
        assert_eq!(chosen.labels[5..13], answer);
        assert_eq!(chosen.labels[13], i64::from(END));
        let rows: Vec<_> = chosen.sentences.iter().map(|sentence| sentence.rows.clone()).collect();
        assert_eq!(rows, [5..9, 9..13]);
        assert!(!chosen.shortened);
    }

    #[test]
    fn long_sequences_are_shortened_and_say_so() {
        let chosen = pair(8).chosen;
        assert!(chosen.shortened);
        // No end mark, which would teach the model to stop in the middle of a sentence.
        assert_eq!((chosen.len(), chosen.labels.len()), (7, 7));
        assert!(!chosen.labels.contains(&i64::from(END)));
        // Half is left to the prompt, half to the first sentence.
        assert_eq!(chosen.sentences.len(), 1);
        assert_eq!(chosen.sentences[0].rows, 3..7);
    }

    #[test]
    fn both_answers_follow_the_same_part_of_the_prompt() {
        let whole = pair(64).chosen.inputs[..6].to_vec();
        // The chosen answer has eight tokens, the rejected one two, the prompt six.
        for (max_tokens, prompt) in [(8, 4), (9, 4), (10, 5), (11, 5), (12, 6)] {
            let pair = pair(max_tokens);
            for sequence in [&pair.chosen, &pair.rejected] {
                assert_eq!(sequence.inputs[..prompt], whole[6 - prompt..], "{max_tokens}");
                let first = sequence.labels.iter().position(|&label| label != IGNORED);
                assert_eq!(first, Some(prompt - 1), "{max_tokens}");
            }
            assert_eq!(pair.rejected.shortened, prompt < 6);
            assert_eq!(pair.rejected.labels.last(), Some(&i64::from(END)));
        }
    }

    #[test]
    fn a_whole_answer_differs_from_a_cut_one_that_begins_like_it() {
        let line = r#"{"prompt":"Q","chosen":"abcd","rejected":"abcdefgh"}"#;
        let record = &parse_records("test", line.as_bytes()).expect("a record").records[0];
        // Without a vocabulary each byte is a token; the prompt has three.
        let pair = |max_tokens| SequencePair::new(&Tokenizer::from_texts([]), record, max_tokens);
        assert!(pair(7).rejected.shortened && !pair(7).is_identical());
        assert!(pair(6).is_identical());
    }

    #[test]
    fn a_pack_lists_the_rows_of_each_sequence() {
        let pair = pair(64);
        let pack = Pack::new([&pair.rejected, &pair.chosen]).expect("a pack");
        assert_eq!(pack.packing.ranges().collect::<Vec<_>>(), [0..8, 8..22]);
        assert_eq!(pack.inputs.dims(), [2, 14]);
        let positions = pack.positions.to_vec1::<u32>().expect("positions");
        assert_eq!(positions, (0..8).chain(14..28).collect::<Vec<u32>>());
        assert_eq!(pack.sentences[0], Sentence::new(1, 5..9, true));
    }
}
