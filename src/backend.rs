//! The waist: what a backend does, stage by stage, over buffers whose type is a run-time fact.

use std::fmt;

use crate::cpu::Cpu;
#[cfg(feature = "cuda")]
use crate::cuda::Cuda;
use crate::element::DType;
use crate::error::{Error, Result};
use crate::memory::{Buffer, Slice};
use crate::placed::PlacedTerm;
use crate::reference::token_loss as composed;
use crate::stages::{
    Divergence, LogProbs, LogitGrads, MixedLogProbs, MixedLogitGrads, Objective, Ranking,
    SequenceSums, SparseDivergence, TokenGrads, TokenLoss, TokenObjective,
};

pub(crate) mod sealed {
    use crate::memory::Place;

    pub trait Sealed {
        /// Where the memory lies that the stages read and write.
        fn place(&self) -> Place {
            Place::Host
        }

        /// How many errors that kernels had found the host has taken so far.
        fn errors_taken(&self) -> usize {
            0
        }
    }
}

/// Something that runs the stages: [`Cpu`], [`Reference`](crate::Reference), or with the
/// feature `cuda` [`Cuda`].
///
/// The inputs of each stage are a struct of [`stages`](crate::stages), checked when it was made.
/// Each stage publishes its scratch size and allocates nothing of its own (the reference holds one
/// row), so that the caller can own all memory; buffers are as they were when it returns an error.
///
/// On a device a stage is enqueued, not waited for: its errors come where the host next waits, which
/// is where results are read.
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

    /// A copy, of host memory or of its own, that its stages can use.
    ///
    /// # Errors
    /// Memory of another backend, or the device's own errors.
    fn upload(&self, data: Slice<'_>) -> Result<Buffer> {
        let mut buffer = self.allocate(data.dtype(), data.len())?;
        buffer.slice_mut().copy_from(data)?;
        Ok(buffer)
    }

    /// The f64 numbers of scratch that [`log_probs`](Self::log_probs) needs.
    fn log_probs_scratch(&self, tokens: usize, vocab: usize) -> usize;

    /// Stage 1: log-probs of the labels, and row statistics from the same visit.
    ///
    /// Reads the logits once. Rows of tokens that do not count are not read: their log-prob and
    /// entropy are 0, maximum and log-sum NaN, argmax -1.
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

    /// The f64 numbers of scratch that [`objective`](Self::objective) needs, for units of `members`
    /// responses in all.
    fn objective_scratch(&self, members: usize) -> usize;

    /// Stage 3: a term's losses, its value, and its gradient by each sequence's sum. Gradients of
    /// a sequence that stands in several units add in unit order.
    ///
    /// # Errors
    /// The device's own.
    fn objective(&self, stage: Objective<'_>) -> Result<()>;

    /// The f64 numbers of scratch that [`ranking`](Self::ranking) needs, for groups of `members` in all.
    fn ranking_scratch(&self, members: usize) -> usize;

    /// Stage 3 of a term over groups: its losses, and its gradient by each sequence's sum.
    ///
    /// # Errors
    /// The device's own.
    fn ranking(&self, stage: Ranking<'_>) -> Result<()>;

    /// Stage 3 of a term over tokens: its losses, and its gradient by each token's log-prob and entropy.
    ///
    /// # Errors
    /// The device's own.
    fn token_objective(&self, stage: TokenObjective<'_>) -> Result<()>;

    /// Stage 4: the gradient by the logits.
    ///
    /// Reads the logits once and writes once. Rows whose token does not count, or whose gradient
    /// is 0, are not read.
    ///
    /// # Errors
    /// A label outside the vocabulary.
    fn logit_grads(&self, stage: LogitGrads<'_>) -> Result<()>;

    /// The f64 numbers of scratch that [`mixed_log_probs`](Self::mixed_log_probs) needs.
    fn mixed_log_probs_scratch(&self, tokens: usize, vocab: usize) -> usize;

    /// Stage 1 of a combination of logits: log-probs of the labels.
    ///
    /// Reads each of the logits once. Rows of tokens that do not count are not read: their log-prob is 0,
    /// maximum and log-sum NaN.
    ///
    /// # Errors
    /// A label outside the vocabulary.
    fn mixed_log_probs(&self, stage: MixedLogProbs<'_>) -> Result<()>;

    /// Stage 4 of a combination: the gradient by each of the logits.
    ///
    /// Reads all of them once, and writes once for each part whose gradient is asked for. Rows whose token
    /// does not count, or whose gradient is 0, are not read.
    ///
    /// # Errors
    /// A label outside the vocabulary.
    fn mixed_logit_grads(&self, stage: MixedLogitGrads<'_>) -> Result<()>;

    /// The f64 numbers of scratch that [`divergence`](Self::divergence) needs.
    fn divergence_scratch(&self, tokens: usize, vocab: usize) -> usize;

    /// The divergence of the student's distribution from the teacher's at each token, and its gradient by
    /// the student's logits.
    ///
    /// Reads the logits of both and writes the gradient, once each where a row fits on chip. Rows of tokens
    /// that do not count are not read; the gradient of a token whose upstream is 0 is 0.
    ///
    /// # Errors
    /// A label outside the vocabulary.
    fn divergence(&self, stage: Divergence<'_>) -> Result<()>;

    /// The f64 numbers of scratch that [`sparse_divergence`](Self::sparse_divergence) needs.
    fn sparse_divergence_scratch(&self, tokens: usize, vocab: usize) -> usize;

    /// The same from a teacher that lists some entries of each token's distribution.
    ///
    /// # Errors
    /// A label outside the vocabulary; an id outside it, or listed twice, of a token that counts.
    fn sparse_divergence(&self, stage: SparseDivergence<'_>) -> Result<()>;

    /// The f64 numbers of scratch that [`token_loss`](Self::token_loss) needs.
    fn token_loss_scratch(&self, tokens: usize, vocab: usize, terms: &[PlacedTerm]) -> usize {
        composed::scratch(self, [tokens, vocab], terms)
    }

    /// Stages 1, 3 and 4 of terms that look at each token by itself. It has the bits of these stages one
    /// after another, which is what it is unless a backend can do it in one visit of each row: reading
    /// the logits once and writing once.
    ///
    /// # Errors
    /// A label outside the vocabulary.
    fn token_loss(&self, stage: TokenLoss<'_>) -> Result<()> {
        composed::token_loss(self, stage)
    }
}

/// The backend that works here, and why it is that one.
#[non_exhaustive]
#[derive(Debug)]
pub struct DefaultBackend {
    /// CUDA device 0, else the CPU.
    pub backend: Box<dyn Backend>,
    /// Why it is not CUDA; `None` where it is, or where the crate was built without it.
    pub cuda_error: Option<Error>,
    reason: String,
}

/// [`Cuda`] on device 0 if it works, else [`Cpu`]; displays as which and why.
///
/// ```
/// let default = prefuse::default_backend();
/// // Such as "cpu: CUDA driver: .. no such file; install NVIDIA's driver; the CPU backend needs none".
/// eprintln!("{default}");
/// let backend = &*default.backend;
/// # let _ = backend;
/// ```
pub fn default_backend() -> DefaultBackend {
    #[cfg(feature = "cuda")]
    let (cuda_error, reason) = match Cuda::new(0) {
        Ok(cuda) => {
            let (ordinal, name) = cuda.device();
            let reason = format!("device {ordinal}, {name}");
            return DefaultBackend { backend: Box::new(cuda), cuda_error: None, reason };
        }
        Err(error) => (Some(error.clone()), error.to_string()),
    };
    #[cfg(not(feature = "cuda"))]
    let (cuda_error, reason) = (None, "built without the feature `cuda`".to_owned());
    DefaultBackend { backend: Box::new(Cpu::new()), cuda_error, reason }
}

impl fmt::Display for DefaultBackend {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.backend.name(), self.reason)
    }
}
