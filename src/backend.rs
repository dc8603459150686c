//! The waist: what a backend does, stage by stage, over buffers whose type is a run-time fact.

use crate::element::DType;
use crate::error::Result;
use crate::memory::Buffer;
use crate::stages::{LogProbs, LogitGrads, Objective, SequenceSums, TokenGrads};

pub(crate) mod sealed {
    pub trait Sealed {}
}

/// Something that runs the stages: [`Cpu`](crate::Cpu) or [`Reference`](crate::Reference).
///
/// The inputs of each stage are a struct of [`stages`](crate::stages), checked when it was made.
/// Each stage publishes its scratch size and allocates nothing of its own (the reference holds one
/// row), so that the caller can own all memory; buffers are as they were when it returns an error.
pub trait Backend: std::fmt::Debug + Send + Sync + sealed::Sealed {
    /// The backend's name, for messages.
    fn name(&self) -> &'static str;

    /// The element types of logits that it takes.
    fn dtypes(&self) -> &'static [DType];

    /// Zeroed memory that its stages can use.
    ///
    /// # Errors
    /// The device's own.
    fn allocate(&self, dtype: DType, len: usize) -> Result<Buffer>;

    /// The f64 numbers of scratch that [`log_probs`](Self::log_probs) needs.
    fn log_probs_scratch(&self, tokens: usize, vocab: usize) -> usize;

    /// Stage 1: log-probs of the labels, and row statistics from the same visit.
    ///
    /// Reads the logits once. Rows of tokens that do not count are not read; their outputs are 0,
    /// their argmax -1.
    ///
    /// # Errors
    /// A label outside the vocabulary.
    fn log_probs(&self, stage: LogProbs<'_>) -> Result<()>;

    /// Stage 2: sums over each sequence, in token order.
    ///
    /// # Errors
    /// The device's own.
    fn sequence_sums(&self, stage: SequenceSums<'_>) -> Result<()>;

    /// Stage 2 backwards: the gradient by each token's log-prob from that by its sequence's sum.
    ///
    /// # Errors
    /// The device's own.
    fn token_grads(&self, stage: TokenGrads<'_>) -> Result<()>;

    /// The f64 numbers of scratch that [`objective`](Self::objective) needs.
    fn objective_scratch(&self, units: usize) -> usize;

    /// Stage 3: a term's losses, its value, and its gradient by each sequence's sum. Gradients of
    /// a sequence that stands in several units add in unit order.
    ///
    /// # Errors
    /// The device's own.
    fn objective(&self, stage: Objective<'_>) -> Result<()>;

    /// Stage 4: the gradient by the logits.
    ///
    /// Reads the logits once and writes once. Rows whose token does not count, or whose gradient
    /// is 0, are not read.
    ///
    /// # Errors
    /// A label outside the vocabulary.
    fn logit_grads(&self, stage: LogitGrads<'_>) -> Result<()>;
}
