//! The oracle: each stage as its formula reads, in f64, one element after another.

pub(crate) mod divergence;
mod log_probs;
mod logit_grads;
mod mixed_log_probs;
mod mixed_logit_grads;
mod objective;
mod ranking;
mod sequence_sums;
pub(crate) mod sparse_divergence;
pub(crate) mod token_loss;
mod token_objective;

use crate::backend::{Backend, sealed};
use crate::element::DType;
use crate::error::Result;
use crate::memory::Buffer;
use crate::stages::{
    BackendId, Divergence, LogProbs, LogitGrads, MixedLogProbs, MixedLogitGrads, Objective,
    Ranking, SequenceSums, SparseDivergence, TokenGrads, TokenObjective,
};

/// The plain backend: slow, for every element type, and easy to check by eye. With f64 logits all
/// per-token numbers are f64 too.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reference;

impl Reference {
    /// The backend.
    pub fn new() -> Self {
        Self
    }
}

impl sealed::Sealed for Reference {}

impl Backend for Reference {
    fn name(&self) -> &'static str {
        "reference"
    }

    fn dtypes(&self) -> &'static [DType] {
        &[DType::F64, DType::F32, DType::F16, DType::BF16]
    }

    fn allocate(&self, dtype: DType, len: usize) -> Result<Buffer> {
        Ok(Buffer::host(dtype, len))
    }

    fn log_probs_scratch(&self, _tokens: usize, _vocab: usize) -> usize {
        0
    }

    fn log_probs(&self, stage: LogProbs<'_>) -> Result<()> {
        BackendId::of(self).check(stage.backend)?;
        log_probs::log_probs(stage)
    }

    fn sequence_sums(&self, stage: SequenceSums<'_>) -> Result<()> {
        BackendId::of(self).check(stage.backend)?;
        sequence_sums::sequence_sums(stage)
    }

    fn token_grads(&self, stage: TokenGrads<'_>) -> Result<()> {
        BackendId::of(self).check(stage.backend)?;
        sequence_sums::token_grads(stage)
    }

    fn objective_scratch(&self, _members: usize) -> usize {
        0
    }

    fn objective(&self, stage: Objective<'_>) -> Result<()> {
        BackendId::of(self).check(stage.backend)?;
        objective::objective(stage)
    }

    fn ranking_scratch(&self, _members: usize) -> usize {
        0
    }

    fn ranking(&self, stage: Ranking<'_>) -> Result<()> {
        BackendId::of(self).check(stage.backend)?;
        ranking::ranking(stage)
    }

    fn token_objective(&self, stage: TokenObjective<'_>) -> Result<()> {
        BackendId::of(self).check(stage.backend)?;
        token_objective::token_objective(stage)
    }

    fn logit_grads(&self, stage: LogitGrads<'_>) -> Result<()> {
        BackendId::of(self).check(stage.backend)?;
        logit_grads::logit_grads(stage)
    }

    fn mixed_log_probs_scratch(&self, _tokens: usize, _vocab: usize) -> usize {
        0
    }

    fn mixed_log_probs(&self, stage: MixedLogProbs<'_>) -> Result<()> {
        BackendId::of(self).check(stage.backend)?;
        mixed_log_probs::mixed_log_probs(stage)
    }

    fn mixed_logit_grads(&self, stage: MixedLogitGrads<'_>) -> Result<()> {
        BackendId::of(self).check(stage.backend)?;
        mixed_logit_grads::mixed_logit_grads(stage)
    }

    fn divergence_scratch(&self, _tokens: usize, _vocab: usize) -> usize {
        0
    }

    fn divergence(&self, stage: Divergence<'_>) -> Result<()> {
        BackendId::of(self).check(stage.backend)?;
        divergence::divergence(stage)
    }

    fn sparse_divergence_scratch(&self, _tokens: usize, _vocab: usize) -> usize {
        0
    }

    fn sparse_divergence(&self, stage: SparseDivergence<'_>) -> Result<()> {
        BackendId::of(self).check(stage.backend)?;
        sparse_divergence::sparse_divergence(stage)
    }
}
