//! The fast CPU backend: rayon over rows, SIMD inside a row.
//!
//! A row's sums are one fixed tree: 64 lanes inside a block of columns, a fixed tree over the
//! lanes, and the blocks merged in index order in f64. Neither the number of threads nor the number
//! of rows nor a row's address enters it.

mod anchored;
mod blocks;
mod combination;
mod convert;
mod divergence;
mod exp;
mod floor;
mod gradient;
mod ln;
mod log_probs;
mod logit_grads;
mod mixed_log_probs;
mod mixed_logit_grads;
pub(crate) mod objective;
mod peak;
mod places;
mod probabilities;
mod ranking;
mod row_state;
mod rows;
mod sequence_sums;
mod simd;
mod softmax;
mod sparse_divergence;
mod state;
mod student;
mod token_loss;
mod token_objective;

pub use simd::SimdLevel;

use crate::backend::{Backend, sealed};
use crate::element::DType;
use crate::error::Result;
use crate::memory::Buffer;
use crate::placed::PlacedTerm;
use crate::reference::token_loss as composed;
use crate::stages::{
    BackendId, Divergence, LogProbs, LogitGrads, MixedLogProbs, MixedLogitGrads, Objective,
    Ranking, SequenceSums, SparseDivergence, TokenGrads, TokenLoss, TokenObjective,
};
use simd::Simd;

/// Batches of fewer rows are split inside the rows too, so that no thread waits for the last row.
/// The threshold is a number of rows, not of threads, because the scratch size is a function of the
/// shape alone.
const FEW_ROWS: usize = 32;

const DTYPES: &[DType] = &[DType::F32, DType::F16, DType::BF16];

/// The CPU backend, for f32, f16 and bf16 logits. It runs in rayon's current thread pool.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    simd: Simd,
}

impl Default for Cpu {
    fn default() -> Self {
        Self::new()
    }
}

impl Cpu {
    /// The backend with the best instruction set that the machine has.
    pub fn new() -> Self {
        Self { simd: Simd::best() }
    }

    /// The backend with a chosen instruction set, or `None` if the machine lacks it.
    pub fn with_simd(level: SimdLevel) -> Option<Self> {
        Simd::new(level).map(|simd| Self { simd })
    }

    /// The instruction set in use.
    pub fn simd(&self) -> SimdLevel {
        self.simd.level()
    }
}

impl sealed::Sealed for Cpu {}

impl Backend for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn dtypes(&self) -> &'static [DType] {
        DTYPES
    }

    fn allocate(&self, dtype: DType, len: usize) -> Result<Buffer> {
        Ok(Buffer::host(dtype, len))
    }

    fn log_probs_scratch(&self, tokens: usize, vocab: usize) -> usize {
        log_probs::scratch(tokens, vocab)
    }

    fn log_probs(&self, stage: LogProbs<'_>) -> Result<()> {
        BackendId::of(self).check(stage.backend)?;
        log_probs::log_probs(self.simd, stage)
    }

    fn sequence_sums(&self, stage: SequenceSums<'_>) -> Result<()> {
        BackendId::of(self).check(stage.backend)?;
        sequence_sums::sequence_sums(stage)
    }

    fn token_grads(&self, stage: TokenGrads<'_>) -> Result<()> {
        BackendId::of(self).check(stage.backend)?;
        sequence_sums::token_grads(stage)
    }

    fn objective_scratch(&self, members: usize) -> usize {
        objective::scratch(members)
    }

    fn objective(&self, stage: Objective<'_>) -> Result<()> {
        BackendId::of(self).check(stage.backend)?;
        objective::objective(stage)
    }

    fn ranking_scratch(&self, members: usize) -> usize {
        ranking::scratch(members)
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
        logit_grads::logit_grads(self.simd, stage)
    }

    fn mixed_log_probs_scratch(&self, tokens: usize, _vocab: usize) -> usize {
        mixed_log_probs::scratch(tokens)
    }

    fn mixed_log_probs(&self, stage: MixedLogProbs<'_>) -> Result<()> {
        BackendId::of(self).check(stage.backend)?;
        mixed_log_probs::mixed_log_probs(self.simd, stage)
    }

    fn mixed_logit_grads(&self, stage: MixedLogitGrads<'_>) -> Result<()> {
        BackendId::of(self).check(stage.backend)?;
        mixed_logit_grads::mixed_logit_grads(self.simd, stage)
    }

    fn divergence_scratch(&self, tokens: usize, _vocab: usize) -> usize {
        student::scratch(tokens)
    }

    fn divergence(&self, stage: Divergence<'_>) -> Result<()> {
        BackendId::of(self).check(stage.backend)?;
        divergence::divergence(self.simd, stage)
    }

    fn sparse_divergence_scratch(&self, tokens: usize, _vocab: usize) -> usize {
        student::scratch(tokens)
    }

    fn sparse_divergence(&self, stage: SparseDivergence<'_>) -> Result<()> {
        BackendId::of(self).check(stage.backend)?;
        sparse_divergence::sparse_divergence(self.simd, stage)
    }

    fn token_loss_scratch(&self, tokens: usize, vocab: usize, terms: &[PlacedTerm]) -> usize {
        let composed = composed::scratch(self, [tokens, vocab], terms);
        composed.max(token_loss::scratch(tokens))
    }

    fn token_loss(&self, stage: TokenLoss<'_>) -> Result<()> {
        BackendId::of(self).check(stage.backend)?;
        if stage.target.logits().tokens() < FEW_ROWS {
            return composed::token_loss(self, stage);
        }
        token_loss::token_loss(self.simd, stage)
    }
}

/// Elements that are worth handing over to another thread.
const TASK: usize = 1 << 15;

/// Rows that one task takes at least.
fn rows_per_task(vocab: usize) -> usize {
    (TASK / vocab).max(1)
}

/// Whether the calling thread does best without the others: to wake them and wait takes longer than a few rows
/// of a short vocabulary.
fn is_one_task(tokens: usize, vocab: usize) -> bool {
    tokens.saturating_mul(vocab) <= TASK
}
