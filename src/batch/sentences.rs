//! Mask-DPO: from sentence-level factuality labels to token weights.
//!
//! Mask-DPO: Generalizable Fine-grained Factuality Alignment of LLMs (Gu et al., ICLR 2025). In the
//! chosen answer only factual sentences count, in the rejected answer only non-factual ones, and
//! the reference is summed under the same mask. Two habits of the released code are not copied: it
//! aligns sentences with tokens by tokenising them apart, and it drops tokens of id 0.

use std::ops::Range;

use super::pairs::Role;
use super::with_capacity;
use crate::batch::{Packing, Pairs, Weights};
use crate::error::{Error, Result};

/// A sentence of an answer, and whether it is true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentence {
    sequence: usize,
    tokens: Range<usize>,
    /// Whether `tokens` are positions of ids, which are labels one position earlier.
    ids: bool,
    factual: bool,
}

impl Sentence {
    /// From positions of labels, counted from the first token of the sequence.
    pub fn new(sequence: usize, labels: Range<usize>, factual: bool) -> Self {
        Self { sequence, tokens: labels, ids: false, factual }
    }

    /// From positions of token ids, for labels made by [`shift_labels`](crate::batch::shift_labels):
    /// the id at `t` is the label at `t - 1`, and the id at 0 is predicted by nothing.
    pub fn from_ids(sequence: usize, ids: Range<usize>, factual: bool) -> Self {
        Self { sequence, tokens: ids, ids: true, factual }
    }
}

/// What becomes of tokens that stand in no sentence, such as the end-of-answer token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unlabelled {
    /// They count on both sides, as in the released code.
    #[default]
    Keep,
    /// They count on no side.
    Drop,
}

impl Weights<'static> {
    /// Mask-DPO's token weights: 1 for factual sentences of chosen sequences and for non-factual
    /// sentences of rejected ones, 0 for the other sentences, `unlabelled` for the rest.
    /// Sequences that stand in no pair keep weight 1.
    ///
    /// A side whose every token is masked has sum 0 and count 0: the loss stays finite and that
    /// side gets no gradient.
    ///
    /// # Errors
    /// A pair or a sentence outside the pack, sentences that overlap, or a sequence that is chosen
    /// in one pair and rejected in another (its two roles would need two weights).
    pub fn mask_dpo(
        packing: &Packing,
        pairs: &Pairs<'_>,
        sentences: &[Sentence],
        unlabelled: Unlabelled,
    ) -> Result<Self> {
        let roles = pairs.roles(packing.sequences())?;
        let mut weights = with_capacity("tokens", packing.tokens())?;
        weights.resize(packing.tokens(), 1.0);
        if unlabelled == Unlabelled::Drop {
            for sequence in (0..packing.sequences()).filter(|&sequence| roles[sequence].is_some()) {
                weights[packing.range(sequence)].fill(0.0);
            }
        }
        let mut seen = with_capacity("tokens", packing.tokens())?;
        seen.resize(packing.tokens(), false);
        for (index, sentence) in sentences.iter().enumerate() {
            let range = checked_range(packing, index, sentence)?;
            if let Some(token) = range.clone().find(|&token| seen[token]) {
                let sequence = sentence.sequence;
                let first = packing.range(sequence).start;
                let token = token - first + usize::from(sentence.ids);
                return Err(Error::SentenceOverlap { sentence: index, sequence, token });
            }
            seen[range.clone()].fill(true);
            if let Some(role) = roles[sentence.sequence] {
                let counts = sentence.factual == (role == Role::Chosen);
                weights[range].fill(if counts { 1.0 } else { 0.0 });
            }
        }
        Weights::new(weights)
    }
}

fn checked_range(packing: &Packing, index: usize, sentence: &Sentence) -> Result<Range<usize>> {
    let Sentence { sequence, ref tokens, ids, .. } = *sentence;
    let sequences = packing.sequences();
    if sequence >= sequences {
        let what = "sentence";
        return Err(Error::SequenceIndex { what, position: index, sequences, got: sequence });
    }
    let whole = packing.range(sequence);
    if tokens.start > tokens.end || tokens.end > whole.len() {
        return Err(Error::SentenceRange {
            sentence: index,
            sequence,
            tokens: whole.len(),
            start: tokens.start,
            end: tokens.end,
        });
    }
    let earlier = usize::from(ids);
    let label = |token: usize| whole.start + token.saturating_sub(earlier);
    Ok(label(tokens.start)..label(tokens.end))
}
