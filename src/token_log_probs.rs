//! Log-probs of labels, for any loss of your own.

use crate::backend::Backend;
use crate::batch::{Combination, Labels, Logits, Packing, Weights, same_length};
use crate::element::DType;
use crate::error::{Error, Result};
use crate::memory::{Buffer, Slice};
use crate::pipeline::sequence_sums;
use crate::placed::{copy, numbers};
use crate::stages::{
    HostTokens, LogProbs, LogitGrads, MaskedRows, RowStatistics, Target, TokenOutputs,
    TokenUpstream, Tokens, check_floats,
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
    /// The labels of the tokens that count and -1 of others, where the caller's are in host memory.
    counted: Option<Vec<i64>>,
}

/// What the tokens of each sequence add up to: `[sequences]` numbers each, in host memory.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct SequenceTotals {
    /// Sums of weight times log-prob.
    pub sums: Vec<f64>,
    /// Counted tokens.
    pub tokens: Vec<f64>,
    /// Sums of their weights.
    pub weights: Vec<f64>,
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
    Ok(log_probs.with_counted(labels, weights))
}

/// The labels of the tokens that count and -1 of others, where they are in host memory.
fn counted(labels: &Labels<'_>, weights: Option<&Weights<'_>>) -> Option<Vec<i64>> {
    let tokens = Tokens::new(labels, weights).and_then(Tokens::host).ok()?;
    let label = |token| tokens.counted_label(token).map_or(-1, |label| label as i64);
    Some((0..labels.len()).map(label).collect())
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
            counted: None,
        })
    }

    /// The same of a combination, whose maxima are f64.
    pub(crate) fn of_combination(
        backend: &dyn Backend,
        logits: &Combination<'_>,
        temperature: f64,
    ) -> Result<Self> {
        let (size, dtype) = (logits.size(), logits.per_token());
        Ok(Self {
            size,
            temperature,
            log_probs: backend.allocate(dtype, size[0])?,
            maximum: backend.allocate(DType::F64, size[0])?,
            log_sum: backend.allocate(dtype, size[0])?,
            entropy: None,
            log_sum_squares: None,
            argmax: None,
            counted: None,
        })
    }

    /// What stage 1 left in memory of somebody else's, such as a framework's, copied to the backend: log-probs,
    /// [`statistics`](Self::statistics) and entropies of `[tokens, vocab]` logits at a temperature.
    ///
    /// # Errors
    /// Other lengths than `tokens`, a type that is not f32 or f64 or that differs between them, or the
    /// device's own errors.
    pub fn from_parts(
        backend: &dyn Backend,
        (size, temperature): ([usize; 2], f64),
        (log_probs, statistics): (Slice<'_>, RowStatistics<'_>),
        entropy: Option<Slice<'_>>,
    ) -> Result<Self> {
        let dtype = log_probs.dtype();
        check_floats("log_probs", dtype)?;
        let copied = |from: Slice<'_>| -> Result<Buffer> {
            let mut to = backend.allocate(dtype, size[0])?;
            to.slice_mut().copy_from(from)?;
            Ok(to)
        };
        Ok(Self {
            size,
            temperature,
            log_probs: copied(log_probs)?,
            maximum: copied(statistics.maximum)?,
            log_sum: copied(statistics.log_sum)?,
            entropy: entropy.map(copied).transpose()?,
            log_sum_squares: None,
            argmax: None,
            counted: None,
        })
    }

    /// Remembers whose log-probs they are.
    pub(crate) fn with_counted(self, labels: &Labels<'_>, weights: Option<&Weights<'_>>) -> Self {
        Self { counted: counted(labels, weights), ..self }
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
    /// Another number of labels; a token that counts and did not when these were computed; another label,
    /// where both are in host memory.
    pub(crate) fn check_tokens(
        &self,
        labels: &Labels<'_>,
        weights: Option<&Weights<'_>>,
    ) -> Result<()> {
        same_length("labels of the log-probs", self.size[0], labels.len())?;
        let ids: Vec<i64> = labels.slice().read()?;
        let weights: Option<Vec<f32>> =
            weights.map(|weights| weights.slice().read()).transpose()?;
        let now = HostTokens::new(&ids, labels.ignore(), weights.as_deref());
        let then = match &self.counted {
            Some(labels) => labels,
            None => &self.labels_of_counted(&ids)?,
        };
        let counted = |token: usize| now.counted_label(token).map(|label| label as i64);
        let mut counted = (0..ids.len()).filter_map(|token| Some((then[token], counted(token)?)));
        match counted.find(|(then, now)| then != now) {
            None => Ok(()),
            Some((-1, _)) => Err(Error::BatchKind {
                expected: "tokens that counted when the log-probs were computed",
                got: "a token that did not",
            }),
            Some(_) => Err(Error::BatchKind {
                expected: "the labels that the log-probs were computed with",
                got: "other labels",
            }),
        }
    }

    /// Of tokens that counted `labels`, which are not known, and -1 of others: a log-prob of 0 with a
    /// maximum of NaN is theirs alone.
    fn labels_of_counted(&self, labels: &[i64]) -> Result<Vec<i64>> {
        let (log_probs, maxima) =
            (self.log_probs.slice().to_vec()?, self.maximum.slice().to_vec()?);
        let numbers = log_probs.iter().zip(&maxima).zip(labels);
        let label = |((log_prob, maximum), &label): ((&f64, &f64), &i64)| match maximum.is_nan() {
            true if *log_prob == 0.0 => -1,
            _ => label,
        };
        Ok(numbers.map(label).collect())
    }

    /// # Errors
    /// Other logits than those of the forward call, as far as their size tells.
    pub(crate) fn check_size(&self, got: [usize; 2]) -> Result<()> {
        let (what, expected) = ("logits", self.size);
        if got == expected { Ok(()) } else { Err(Error::Shape { what, expected, got }) }
    }

    pub(crate) fn temperature(&self) -> f64 {
        self.temperature
    }

    /// What was asked for.
    fn options(&self) -> RowOptions {
        RowOptions {
            temperature: self.temperature,
            entropy: self.entropy.is_some(),
            log_sum_squares: self.log_sum_squares.is_some(),
            argmax: self.argmax.is_some(),
        }
    }

    /// # Errors
    /// Another temperature, or something that is asked for and was not computed.
    pub(crate) fn check_options(&self, expected: RowOptions) -> Result<()> {
        let got = self.options();
        // What was computed beside does no harm.
        let shared = RowOptions {
            temperature: got.temperature,
            entropy: got.entropy && expected.entropy,
            log_sum_squares: got.log_sum_squares && expected.log_sum_squares,
            argmax: got.argmax && expected.argmax,
        };
        if shared == expected { Ok(()) } else { Err(Error::RowOptions { expected, got }) }
    }

    /// Sums of weight times log-prob, counted tokens and sums of their weights, of each sequence: stage 2,
    /// for statistics that a loss takes as constants. Waits for the results.
    ///
    /// ```
    /// use prefuse::batch::{Labels, Logits, Packing};
    /// use prefuse::statistics::{EmptySequences, kto_baseline, kto_log_ratios};
    /// use prefuse::{Cpu, RowOptions, token_log_probs};
    ///
    /// let data = [0.1_f32, 0.7, 0.2, 0.9, 0.3, 0.0]; // of the mismatched completions
    /// let (logits, labels) = (Logits::new(&data, 2, 3)?, Labels::new(&[1, 0]));
    /// let tokens = token_log_probs(&Cpu::new(), logits, &labels, None, RowOptions::default())?;
    /// let packing = Packing::padded(2, 1)?;
    /// let policy = tokens.sums(&Cpu::new(), (&labels, None), &packing)?;
    /// let reference = [-1.0, -1.2];
    /// let ratios =
    ///     kto_log_ratios(&policy.sums, &reference, &policy.tokens, EmptySequences::Skip)?;
    /// let baseline = kto_baseline(&ratios.into_iter().collect());
    /// assert!(baseline >= 0.0);
    /// # Ok::<(), prefuse::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Loss::evaluate`](crate::Loss::evaluate)'s of labels and weights, or a packing of another number
    /// of tokens.
    pub fn sums(
        &self,
        backend: &dyn Backend,
        (labels, weights): (&Labels<'_>, Option<&Weights<'_>>),
        packing: &Packing,
    ) -> Result<SequenceTotals> {
        self.check_tokens(labels, weights)?;
        let copies = TokenCopies::new(backend, labels, weights)?;
        let tokens = copies.tokens(labels, weights)?;
        let totals = sequence_sums(backend, tokens, &packing.place(backend)?, self.log_probs())?;
        let [sums, tokens, weights] = totals.each_ref().map(numbers);
        Ok(SequenceTotals { sums: sums?, tokens: tokens?, weights: weights? })
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
            (Some(_), None) => {
                let (expected, got) = (self.options().with_entropy(), self.options());
                return Err(Error::RowOptions { expected, got });
            }
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
        self.check_size(target.logits().shape().size())?;
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
