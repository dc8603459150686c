//! What a forward call leaves.

use std::sync::Arc;

use crate::backend::Backend;
use crate::batch::{Advantages, Batch, ReferenceLogProbs};
use crate::error::Result;
use crate::evaluated::{Evaluated, TermValue};
use crate::memory::{Buffer, Slice};
use crate::metrics::{PairMetrics, SequenceMetrics};
use crate::placed::{PlacedPacking, copy};
use crate::stages::Totals;
use crate::token_log_probs::{TokenCopies, TokenLogProbs};

/// What [`Loss::forward`](crate::Loss::forward) computed, and what the gradient needs again: O(tokens) numbers.
#[derive(Debug)]
pub struct Forward {
    pub(crate) loss_id: usize,
    pub(crate) copies: TokenCopies,
    pub(crate) packing: PlacedPacking,
    pub(crate) tokens: Arc<TokenLogProbs>,
    pub(crate) facts: TokenFacts,
    pub(crate) evaluated: Evaluated,
    /// Whether the gradient stands where the logits were.
    pub(crate) overwritten: bool,
}

impl Forward {
    /// The loss: the sum of the terms' values.
    pub fn loss(&self) -> f64 {
        self.evaluated.loss()
    }

    /// What each term came to, in order.
    pub fn terms(&self) -> &[TermValue] {
        self.evaluated.values()
    }

    /// What trainers log, from the first term over pairs, if there is one.
    pub fn metrics(&self) -> Option<PairMetrics> {
        self.evaluated.pair_metrics()
    }

    /// What trainers log, from the first term over single sequences, if there is one.
    pub fn sequence_metrics(&self) -> Option<SequenceMetrics> {
        self.evaluated.sequence_metrics()
    }

    /// Log-probs, entropies and argmax of the tokens.
    pub fn tokens(&self) -> &TokenLogProbs {
        &self.tokens
    }

    /// `[sequences]` f64 sums of weight times log-prob, counted tokens, and sums of their weights.
    pub fn totals(&self) -> Totals<'_> {
        self.evaluated.totals()
    }

    /// `[sequences]` f64 sums of weight times reference log-prob, if the batch has a reference.
    pub fn reference_sums(&self) -> Option<Slice<'_>> {
        self.evaluated.reference()
    }
}

/// Copies of what a batch says of its tokens, for a backend that does not reach the caller's: old and
/// reference log-probs, and advantages.
#[derive(Debug)]
pub(crate) struct TokenFacts([Option<Buffer>; 3]);

impl TokenFacts {
    pub fn new(backend: &dyn Backend, batch: &Batch<'_>) -> Result<Self> {
        let mut copies = [None, None, None];
        for (to, values) in copies.iter_mut().zip(token_facts(batch)) {
            *to = values.map(|values| copy(backend, values)).transpose()?.flatten();
        }
        Ok(Self(copies))
    }

    /// The copies, and where there are none the batch's own.
    pub fn of<'f>(&'f self, batch: &'f Batch<'_>) -> [Option<Slice<'f>>; 3] {
        let own = token_facts(batch);
        std::array::from_fn(|i| self.0[i].as_ref().map(Buffer::slice).or(own[i]))
    }
}

/// Old and reference log-probs per token, and advantages.
fn token_facts<'f>(batch: &'f Batch<'_>) -> [Option<Slice<'f>>; 3] {
    let log_probs = [batch.old(), batch.reference()];
    let [old, reference] = log_probs.map(|values| values.and_then(ReferenceLogProbs::tokens));
    [old, reference, batch.advantages().map(Advantages::slice)]
}
