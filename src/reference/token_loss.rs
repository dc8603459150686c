//! Stages 1, 3 and 4 one after another: what a backend does that has no visit of its own for them, and
//! whose bits one that has is held to.

use crate::backend::Backend;
use crate::error::Result;
use crate::memory::SliceMut;
use crate::placed::PlacedTerm;
use crate::stages::{
    LogProbs, LogitGrads, RowStatistics, TokenLoss, TokenLossOutputs, TokenObjective,
    TokenObjectiveOutputs, TokenUpstream,
};

/// f64 numbers.
pub(crate) fn scratch<B: Backend + ?Sized>(
    backend: &B,
    [tokens, vocab]: [usize; 2],
    terms: &[PlacedTerm],
) -> usize {
    let units = terms.iter().map(|placed| placed.term().units());
    units.chain([backend.log_probs_scratch(tokens, vocab)]).max().unwrap_or(0)
}

pub(crate) fn token_loss<B: Backend + ?Sized>(backend: &B, stage: TokenLoss<'_>) -> Result<()> {
    let TokenLoss { backend: id, target, tokens, temperature, .. } = stage;
    let TokenLossOutputs { mut rows, mut grads } = stage.outputs;
    let mut scratch = stage.scratch;
    backend.log_probs(LogProbs {
        backend: id,
        logits: target.logits(),
        tokens,
        temperature,
        outputs: rows.reborrow(),
        scratch: scratch.reborrow(),
    })?;
    for (term, &scale) in stage.terms.iter().zip(stage.scales) {
        let losses = scratch.reborrow().part(0..term.term().units())?;
        backend.token_objective(TokenObjective {
            backend: id,
            term,
            tokens,
            packing: stage.packing,
            counts: stage.counts,
            inputs: stage.sampled.with(&rows),
            outputs: TokenObjectiveOutputs { losses, grads: Some((grads.reborrow(), scale)) },
        })?;
    }
    let entropy = grads.entropy.as_ref().map(SliceMut::as_slice);
    let entropy = entropy.zip(rows.entropy.as_ref().map(SliceMut::as_slice));
    let statistics =
        RowStatistics { maximum: rows.maximum.as_slice(), log_sum: rows.log_sum.as_slice() };
    backend.logit_grads(LogitGrads {
        backend: id,
        target,
        tokens,
        temperature,
        statistics,
        upstream: TokenUpstream { log_probs: grads.log_probs.as_slice(), entropy },
        masked: stage.masked,
    })
}
