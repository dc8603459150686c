//! Log-probs of labels, for any loss of your own.

use crate::backend::Backend;
use crate::batch::{Labels, Logits, Weights, same_length};
use crate::element::DType;
use crate::error::{Error, Result};
use crate::memory::{Buffer, Slice};
use crate::placed::copy;
use crate::stages::{
    LogProbs, LogitGrads, MaskedRows, RowStatistics, Target, TokenOutputs, TokenUpstream, Tokens,
};

/// What to compute from each row of logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowOptions {
    temperature: f64,
    entropy: bool,
    log_sum_squares: bool,
    argmax: bool,
}

impl Default for RowOptions {
    fn default() -> Self {
        Self { temperature: 1.0, entropy: false, log_sum_squares: false, argmax: false }
    }
}

impl RowOptions {
    /// Log-probs of `softmax(logits / temperature)`; 1 by default, checked when used.
    #[must_use]
    pub fn with_temperature(mut self, temperature: f64) -> Self {
        self.temperature = temperature;
        self
    }

    /// The temperature.
    pub fn temperature(&self) -> f64 {
        self.temperature
    }

    /// Also the entropies, from the same visit.
    #[must_use]
    pub fn with_entropy(mut self) -> Self {
        self.entropy = true;
        self
    }

    /// Whether the entropies are asked for.
    pub fn has_entropy(&self) -> bool {
        self.entropy
    }

    /// Also the logarithms of the sums of squared probabilities, from the same visit: WPO's weights come
    /// from them (`statistics::wpo_weights`).
    #[must_use]
    pub fn with_log_sum_squares(mut self) -> Self {
        self.log_sum_squares = true;
        self
    }

    /// Whether the logarithms of the sums of squared probabilities are asked for.
    pub fn has_log_sum_squares(&self) -> bool {
        self.log_sum_squares
    }

    /// Also the most probable entries, from the same visit.
    #[must_use]
    pub fn with_argmax(mut self) -> Self {
        self.argmax = true;
        self
    }

    /// Whether the most probable entries are asked for.
    pub fn has_argmax(&self) -> bool {
        self.argmax
    }
}

/// `[tokens]` log-probs of labels, and what the gradient needs again.
#[derive(Debug)]
pub struct TokenLogProbs {
    size: [usize; 2],
    temperature: f64,
    log_probs: Buffer,
    maximum: Buffer,
    log_sum: Buffer,
    entropy: Option<Buffer>,
    log_sum_squares: Option<Buffer>,
    argmax: Option<Buffer>,
    /// Of the labels and of the masked tokens.
    fingerprint: [Option<u64>; 2],
}

/// Log-probs of the labels under `[tokens, vocab]` logits: one read of the logits.
///
/// # Errors
/// Shapes that do not fit, an element type that the backend does not take, a label outside the
/// vocabulary, or a temperature outside 1e-30 to 1e30.
pub fn token_log_probs(
    backend: &dyn Backend,
    logits: Logits<'_>,
    labels: &Labels<'_>,
    weights: Option<&Weights<'_>>,
    options: RowOptions,
) -> Result<TokenLogProbs> {
    let copies = TokenCopies::new(backend, labels, weights)?;
    let tokens = copies.tokens(labels, weights)?;
    let log_probs = TokenLogProbs::compute(backend, logits, tokens, options)?;
    Ok(TokenLogProbs { fingerprint: fingerprint(labels, weights), ..log_probs })
}

/// Of the labels, and of the tokens that weights mask, as far as they are in host memory.
fn fingerprint(labels: &Labels<'_>, weights: Option<&Weights<'_>>) -> [Option<u64>; 2] {
    // FNV-1a, a number at a time: for mistakes, not for adversaries.
    fn hash(numbers: impl Iterator<Item = i64>) -> u64 {
        numbers.fold(0xcbf2_9ce4_8422_2325, |hash, number| {
            (hash ^ number as u64).wrapping_mul(0x0100_0000_01b3).rotate_left(29)
        })
    }
    let ignore = labels.ignore();
    let label = |&id: &i64| if id == ignore { Labels::IGNORE } else { id };
    let labels = labels.slice().host().map(|ids: &[i64]| hash(ids.iter().map(label)));
    let masked = |weights: &Weights<'_>| {
        let weights = weights.host().ok()?;
        Some(hash(weights.iter().map(|&weight| i64::from(weight == 0.0))))
    };
    [labels.ok(), weights.and_then(masked)]
}

/// Labels and weights for a backend that does not reach the caller's.
#[derive(Debug)]
pub(crate) struct TokenCopies {
    labels: Option<Buffer>,
    weights: Option<Buffer>,
}

impl TokenCopies {
    pub fn new(
        backend: &dyn Backend,
        labels: &Labels<'_>,
        weights: Option<&Weights<'_>>,
    ) -> Result<Self> {
        let weights = weights.map(|weights| copy(backend, weights.slice())).transpose()?.flatten();
        Ok(Self { labels: copy(backend, labels.slice())?, weights })
    }

    /// The copies, and where there are none the originals.
    pub fn tokens<'a>(
        &'a self,
        labels: &'a Labels<'_>,
        weights: Option<&'a Weights<'_>>,
    ) -> Result<Tokens<'a>> {
        let mut tokens = Tokens::new(labels, weights)?;
        tokens.labels = self.labels.as_ref().map_or(tokens.labels, Buffer::slice);
        tokens.weights = self.weights.as_ref().map(Buffer::slice).or(tokens.weights);
        Ok(tokens)
    }
}

impl TokenLogProbs {
    /// Buffers for what the options ask for.
    pub(crate) fn allocate(
        backend: &dyn Backend,
        logits: Logits<'_>,
        options: RowOptions,
    ) -> Result<Self> {
        let (count, dtype) = (logits.tokens(), logits.dtype().per_token());
        let allocate = || backend.allocate(dtype, count);
        Ok(Self {
            size: logits.shape().size(),
            temperature: options.temperature,
            log_probs: allocate()?,
            maximum: allocate()?,
            log_sum: allocate()?,
            entropy: if options.entropy { Some(allocate()?) } else { None },
            log_sum_squares: if options.log_sum_squares { Some(allocate()?) } else { None },
            argmax: match options.argmax {
                true => Some(backend.allocate(DType::I64, count)?),
                false => None,
            },
            fingerprint: [None; 2],
        })
    }

    /// The buffers, for a stage to write.
    pub(crate) fn outputs(&mut self) -> TokenOutputs<'_> {
        TokenOutputs {
            log_probs: self.log_probs.slice_mut(),
            maximum: self.maximum.slice_mut(),
            log_sum: self.log_sum.slice_mut(),
            entropy: self.entropy.as_mut().map(Buffer::slice_mut),
            log_sum_squares: self.log_sum_squares.as_mut().map(Buffer::slice_mut),
            argmax: self.argmax.as_mut().map(Buffer::slice_mut),
        }
    }

    pub(crate) fn compute(
        backend: &dyn Backend,
        logits: Logits<'_>,
        tokens: Tokens<'_>,
        options: RowOptions,
    ) -> Result<Self> {
        let scratch = backend.log_probs_scratch(logits.tokens(), logits.vocab());
        let mut scratch = backend.allocate(DType::F64, scratch)?;
        let mut result = Self::allocate(backend, logits, options)?;
        let outputs = result.outputs();
        let (temperature, scratch) = (options.temperature, scratch.slice_mut());
        let stage = LogProbs::new(backend, logits, tokens, temperature, outputs, scratch)?;
        backend.log_probs(stage)?;
        Ok(result)
    }

    /// # Errors
    /// Another number of labels; other labels, or a mask now and another one then, as far as they are
    /// in host memory.
    pub(crate) fn check_tokens(
        &self,
        labels: &Labels<'_>,
        weights: Option<&Weights<'_>>,
    ) -> Result<()> {
        same_length("labels of the log-probs", self.size[0], labels.len())?;
        let [of_labels, masked] = fingerprint(labels, weights);
        let [labels_then, masked_then] = self.fingerprint;
        let differ = |now: Option<u64>, then: Option<u64>| {
            now.zip(then).is_some_and(|(now, then)| now != then)
        };
        if differ(of_labels, labels_then) {
            return Err(Error::BatchKind {
                expected: "the labels that the log-probs were computed with",
                got: "other labels",
            });
        }
        let unmasked_now = masked_then.is_some() && weights.is_none();
        if unmasked_now || differ(masked, masked_then) {
            return Err(Error::BatchKind {
                expected: "the mask that the log-probs were computed with",
                got: "another mask",
            });
        }
        Ok(())
    }

    /// Natural log-probs of the labels, f32 (f64 for f64 logits); 0 for tokens that do not count.
    pub fn log_probs(&self) -> Slice<'_> {
        self.log_probs.slice()
    }

    /// Maxima of the rows and logarithms of the sums of `exp((x - maximum) / temperature)`; the
    /// log-sum-exp of the scaled logits is `maximum / temperature + log_sum`. NaN for tokens that do
    /// not count, so that a gradient that counts them after all cannot pass for one.
    pub fn statistics(&self) -> RowStatistics<'_> {
        RowStatistics { maximum: self.maximum.slice(), log_sum: self.log_sum.slice() }
    }

    /// Entropies in nats, if asked for.
    pub fn entropy(&self) -> Option<Slice<'_>> {
        self.entropy.as_ref().map(Buffer::slice)
    }

    /// Natural logarithms of the sums of squared probabilities, if asked for: between minus the
    /// logarithm of the vocabulary and 0. NaN for a row of -inf; 0 for tokens that do not count.
    pub fn log_sum_squares(&self) -> Option<Slice<'_>> {
        self.log_sum_squares.as_ref().map(Buffer::slice)
    }

    /// Lowest indices of the maxima, i64, if asked for; -1 for tokens that do not count.
    pub fn argmax(&self) -> Option<Slice<'_>> {
        self.argmax.as_ref().map(Buffer::slice)
    }

    /// Writes the gradient by the logits of any loss, given its gradient by the log-probs (and by
    /// the entropies, where they were asked for), `[tokens]` each, of the type of the log-probs.
    /// `target`'s logits, `labels` and `weights` are those of the forward call.
    ///
    /// # Errors
    /// Shapes or types that do not fit, entropy gradients without entropies, or a label outside the
    /// vocabulary.
    pub fn logit_grads(
        &self,
        backend: &dyn Backend,
        target: Target<'_>,
        (labels, weights): (&Labels<'_>, Option<&Weights<'_>>),
        (log_prob_grads, entropy_grads): (Slice<'_>, Option<Slice<'_>>),
        masked: MaskedRows,
    ) -> Result<()> {
        let entropy = match (entropy_grads, self.entropy()) {
            (Some(grads), Some(entropy)) => Some((grads, entropy)),
            (Some(_), None) => return Err(Error::EntropyNotComputed),
            (None, _) => None,
        };
        let copies = TokenCopies::new(backend, labels, weights)?;
        let tokens = copies.tokens(labels, weights)?;
        let upstream = TokenUpstream { log_probs: log_prob_grads, entropy };
        self.run_logit_grads(backend, target, tokens, upstream, masked)
    }

    pub(crate) fn run_logit_grads(
        &self,
        backend: &dyn Backend,
        target: Target<'_>,
        tokens: Tokens<'_>,
        upstream: TokenUpstream<'_>,
        masked: MaskedRows,
    ) -> Result<()> {
        let got = target.logits().shape().size();
        if got != self.size {
            return Err(Error::Shape { what: "logits", expected: self.size, got });
        }
        let statistics = self.statistics();
        let stage = LogitGrads::new(
            backend,
            target,
            tokens,
            self.temperature,
            statistics,
            upstream,
            masked,
        )?;
        backend.logit_grads(stage)
    }
}
