//! Log-probs of labels under several models' logits at once.

use crate::backend::Backend;
use crate::batch::{Combination, Labels, LogitsMut, Packing, Weights};
use crate::element::DType;
use crate::error::{Error, Result};
use crate::memory::Slice;
use crate::stages::{MaskedRows, MixedLogProbs, MixedLogitGrads, MixedOutputs, RowStatistics};
use crate::token_log_probs::{SequenceTotals, TokenCopies, TokenLogProbs};

/// `[tokens]` log-probs of labels under a combination of logits, and what the gradient needs again.
#[derive(Debug)]
pub struct MixedTokenLogProbs {
    tokens: TokenLogProbs,
    coefficients: Vec<f64>,
}

/// Log-probs of the labels under `softmax(sum_i c_i z_i / temperature)`: one read of each of the
/// `[tokens, vocab]` logits.
///
/// NextQuill's second loss (eq. 7 of its paper, which weighs the tokens; the released code does not) is the
/// cross-entropy of the logits with the user's history less those without it, with the gradient by both. SPA (Kim
/// et al., 2025) detects noisy labels by margins of sums of log-probs under `mu z + (1 - mu) z_reference`: in the
/// paper `mu` is above 1, in the released configuration it is 1.
///
/// ```
/// use prefuse::batch::{Combination, Labels, Logits, LogitsMut};
/// use prefuse::{Cpu, MaskedRows, Slice, mixed_token_log_probs};
///
/// let with_history = [0.1_f32, 0.7, 0.2, 0.9, 0.3, 0.0];
/// let without = [half::bf16::ONE; 6];
/// let difference = [
///     (1.0, Logits::new(&with_history, 2, 3)?),
///     (-1.0, Logits::new(&without, 2, 3)?),
/// ];
/// let (difference, labels) = (Combination::new(&difference)?, Labels::new(&[1, 0]));
/// let mixed = mixed_token_log_probs(&Cpu::new(), &difference, &labels, None, 1.0)?;
/// let loss = -0.1 * mixed.log_probs().to_vec()?.iter().sum::<f64>() / 2.0;
/// assert!(loss > 0.0);
///
/// let (mut by_with, mut by_without) = ([0.0_f32; 6], [half::bf16::ZERO; 6]);
/// let grads = vec![
///     Some(LogitsMut::new(&mut by_with, 2, 3)?),
///     Some(LogitsMut::new(&mut by_without, 2, 3)?),
/// ];
/// let (upstream, masked) = ([-0.05_f32; 2], MaskedRows::Zero);
/// let tokens = (&labels, None);
/// mixed.logit_grads(&Cpu::new(), (&difference, grads), tokens, Slice::new(&upstream), masked)?;
/// assert!(by_with[1] < 0.0 && f32::from(by_without[1]) > 0.0);
/// # Ok::<(), prefuse::Error>(())
/// ```
///
/// # Errors
/// Shapes that do not fit, an element type that the backend does not take, a label outside the
/// vocabulary, or a temperature outside 1e-30 to 1e30.
pub fn mixed_token_log_probs(
    backend: &dyn Backend,
    logits: &Combination<'_>,
    labels: &Labels<'_>,
    weights: Option<&Weights<'_>>,
    temperature: f64,
) -> Result<MixedTokenLogProbs> {
    let copies = TokenCopies::new(backend, labels, weights)?;
    let counted = copies.tokens(labels, weights)?;
    let [count, vocab] = logits.size();
    let needed = backend.mixed_log_probs_scratch(count, vocab);
    let mut scratch = backend.allocate(DType::F64, needed)?;
    let mut tokens =
        TokenLogProbs::of_combination(backend, logits, temperature)?.with_counted(labels, weights);
    let outputs = tokens.outputs();
    let outputs = MixedOutputs {
        log_probs: outputs.log_probs,
        maximum: outputs.maximum,
        log_sum: outputs.log_sum,
    };
    let scratch = scratch.slice_mut();
    backend.mixed_log_probs(MixedLogProbs::new(
        backend,
        *logits,
        counted,
        temperature,
        outputs,
        scratch,
    )?)?;
    let coefficients = logits.parts().iter().map(|&(coefficient, _)| coefficient).collect();
    Ok(MixedTokenLogProbs { tokens, coefficients })
}

impl MixedTokenLogProbs {
    /// Natural log-probs of the labels, f32 (f64 where one of the logits is); 0 for tokens that do not count.
    pub fn log_probs(&self) -> Slice<'_> {
        self.tokens.log_probs()
    }

    /// Maxima of the combination's rows (f64) and logarithms of the sums of `exp((x - maximum) /
    /// temperature)`; NaN for tokens that do not count.
    pub fn statistics(&self) -> RowStatistics<'_> {
        self.tokens.statistics()
    }

    /// Sums of weight times log-prob, counted tokens and sums of their weights, of each sequence. Waits for
    /// the results.
    ///
    /// # Errors
    /// As [`TokenLogProbs::sums`]'s.
    pub fn sums(
        &self,
        backend: &dyn Backend,
        tokens: (&Labels<'_>, Option<&Weights<'_>>),
        packing: &Packing,
    ) -> Result<SequenceTotals> {
        self.tokens.sums(backend, tokens, packing)
    }

    /// Writes the gradient of any loss by the logits of the parts that have somewhere to put it, given its
    /// `[tokens]` gradient by the log-probs, of their type: `grads` in the order of the parts, each of its
    /// part's shape and element type. Logits, labels and weights are those of the forward call.
    ///
    /// # Errors
    /// Shapes or types that do not fit, another number of gradients than of parts, other coefficients than in
    /// the forward call, or a label outside the vocabulary.
    pub fn logit_grads(
        &self,
        backend: &dyn Backend,
        (logits, grads): (&Combination<'_>, Vec<Option<LogitsMut<'_>>>),
        (labels, weights): (&Labels<'_>, Option<&Weights<'_>>),
        log_prob_grads: Slice<'_>,
        masked: MaskedRows,
    ) -> Result<()> {
        self.check(logits)?;
        let copies = TokenCopies::new(backend, labels, weights)?;
        let tokens = copies.tokens(labels, weights)?;
        let (statistics, temperature) = (self.statistics(), self.tokens.temperature());
        let both = (*logits, grads);
        backend.mixed_logit_grads(MixedLogitGrads::new(
            backend,
            both,
            tokens,
            temperature,
            statistics,
            log_prob_grads,
            masked,
        )?)
    }

    fn check(&self, logits: &Combination<'_>) -> Result<()> {
        if self.coefficients.len() != logits.parts().len() {
            let (expected, got) = ("that of the forward call", "one of more or fewer models");
            return Err(Error::Selection { objective: "a combination", expected, got });
        }
        let mut both = self.coefficients.iter().zip(logits.parts());
        if let Some((_, &(got, _))) = both.find(|(expected, (got, _))| **expected != *got) {
            let (what, expected) = ("coefficient of a combination", "that of the forward call");
            return Err(Error::Scalar { what, expected, got });
        }
        self.tokens.check_size(logits.size())
    }
}
