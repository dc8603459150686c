use candle_core::{Error, Result, Shape, Storage, Tensor};
use prefuse::batch::{Labels, Logits, LogitsMut, Weights};
use prefuse::stages::{LogProbs, LogitGrads, RowStatistics, TokenOutputs, TokenUpstream, Tokens};
use prefuse::{Buffer, RowOptions, Slice, Target};

use crate::operation::{Operation, attach};
use crate::place::{self, Place};

/// Log-probs of labels, and what else was asked for in the same visit.
#[derive(Clone, Debug)]
pub struct TokenLogProbs {
    /// `[tokens]` natural log-probs of the labels, f32 (f64 for f64 logits), differentiable; 0 for
    /// tokens that do not count.
    pub log_probs: Tensor,
    /// `[tokens]` entropies in nats, of the same type, differentiable, if asked for; 0 for tokens
    /// that do not count.
    pub entropies: Option<Tensor>,
    /// `[tokens]` natural logarithms of the sums of squared probabilities, if asked for, for
    /// [`wpo_weights`](prefuse::statistics::wpo_weights); 0 for tokens that do not count.
    pub log_sum_squares: Option<Vec<f64>>,
    /// `[tokens]` lowest indices of the maxima, if asked for; -1 for tokens that do not count.
    pub argmax: Option<Vec<i64>>,
}

/// Log-probs of the labels under `[.., vocab]` logits, for a loss of your own, with a backward.
///
/// Logits as in [`preference_loss`](crate::preference_loss). The output is flat: one number for
/// each of the `tokens` rows. Weights say only which tokens count (those of weight 0 do not); no
/// log-prob is multiplied with its weight. On CUDA nothing waits for the device, unless what comes
/// as a `Vec` is asked for.
///
/// ```
/// use candle_core::{Device, Var};
/// use prefuse::RowOptions;
/// use prefuse::batch::Labels;
///
/// let logits = Var::new(&[[0.0_f32, 1.0, 2.0], [3.0, 1.0, 0.0]], &Device::Cpu)?;
/// let options = RowOptions::default().with_temperature(0.7).with_entropy();
/// let labels = Labels::new(&[2, 0]);
/// let tokens = prefuse_candle::token_log_probs(&logits, &labels, None, options)?;
///
/// let mut loss = tokens.log_probs.mean(0)?.neg()?;
/// if let Some(entropies) = tokens.entropies {
///     loss = (loss - (entropies.mean(0)? * 0.01)?)?;
/// }
/// assert!(loss.backward()?.get(&logits).is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Logits as in [`preference_loss`](crate::preference_loss); labels or weights of another number
/// than the rows, or not in host memory; a label outside the vocabulary; a temperature outside 1e-30 to
/// 1e30. The backward refuses second derivatives.
pub fn token_log_probs(
    logits: &Tensor,
    labels: &Labels<'_>,
    weights: Option<&Weights<'_>>,
    options: RowOptions,
) -> Result<TokenLogProbs> {
    let (value, others, operation) = place::read(logits, |place, rows| {
        if place.is_asynchronous() {
            check_labels(labels, rows.vocab()).map_err(Error::wrap)?;
        }
        TokenOperation::forward(place, rows, (labels, weights), options)
    })?;
    let shape = Shape::from((1 + usize::from(options.has_entropy()), labels.len()));
    let output = attach(logits, (value, shape), operation)?;
    let entropies = if options.has_entropy() { Some(output.get(1)?) } else { None };
    let Others { log_sum_squares, argmax } = others;
    Ok(TokenLogProbs { log_probs: output.get(0)?, entropies, log_sum_squares, argmax })
}

/// A device says it where the host next waits, which may be in nobody's call.
fn check_labels(labels: &Labels<'_>, vocab: usize) -> prefuse::Result<()> {
    let ignore = labels.ignore();
    let outside = |&label: &i64| {
        label != ignore && usize::try_from(label).map_or(true, |label| label >= vocab)
    };
    let labels = labels.slice().host::<i64>()?;
    match labels.iter().position(outside) {
        None => Ok(()),
        Some(token) => Err(prefuse::Error::Label { token, label: labels[token], vocab, ignore }),
    }
}

/// A candle operation has one output, so this one's is `[1, tokens]` log-probs, or `[2, tokens]`
/// log-probs and entropies.
struct TokenOperation {
    labels: Buffer,
    ignore: i64,
    weights: Option<Buffer>,
    options: RowOptions,
    maximum: Buffer,
    log_sum: Buffer,
}

/// What has no gradient.
struct Others {
    log_sum_squares: Option<Vec<f64>>,
    argmax: Option<Vec<i64>>,
}

impl TokenOperation {
    fn forward(
        place: &Place,
        rows: Logits<'_>,
        (labels, weights): (&Labels<'_>, Option<&Weights<'_>>),
        options: RowOptions,
    ) -> Result<(Storage, Others, Self)> {
        let backend = place.backend();
        let (count, dtype) = (rows.tokens(), rows.dtype().per_token());
        let allocate = |dtype, len| backend.allocate(dtype, len).map_err(Error::wrap);
        let upload = |values| backend.upload(values).map_err(Error::wrap);
        let mut operation = Self {
            labels: upload(labels.slice())?,
            ignore: labels.ignore(),
            weights: weights.map(|weights| upload(weights.slice())).transpose()?,
            options,
            maximum: allocate(dtype, count)?,
            log_sum: allocate(dtype, count)?,
        };
        let mut log_sum_squares = match options.has_log_sum_squares() {
            true => Some(allocate(dtype, count)?),
            false => None,
        };
        let mut argmax = match options.has_argmax() {
            true => Some(allocate(prefuse::DType::I64, count)?),
            false => None,
        };
        let scratch = backend.log_probs_scratch(count, rows.vocab());
        let mut scratch = allocate(prefuse::DType::F64, scratch)?;
        let entropies = if options.has_entropy() { count } else { 0 };
        let value = place.output(dtype, [count, entropies], |log_probs, entropy| {
            let outputs = TokenOutputs {
                log_probs,
                maximum: operation.maximum.slice_mut(),
                log_sum: operation.log_sum.slice_mut(),
                entropy: options.has_entropy().then_some(entropy),
                log_sum_squares: log_sum_squares.as_mut().map(Buffer::slice_mut),
                argmax: argmax.as_mut().map(Buffer::slice_mut),
            };
            let (labels, ignore) = (operation.labels.slice(), operation.ignore);
            let weights = operation.weights.as_ref().map(Buffer::slice);
            with_tokens((labels, ignore, weights), |tokens| {
                let (temperature, scratch) = (options.temperature(), scratch.slice_mut());
                let stage = LogProbs::new(backend, rows, tokens, temperature, outputs, scratch)?;
                backend.log_probs(stage)
            })
            .map_err(Error::wrap)
        })?;
        let argmax = argmax.map(|argmax| argmax.slice().read()).transpose().map_err(Error::wrap)?;
        let squares = log_sum_squares.map(|squares| squares.slice().to_vec());
        let log_sum_squares = squares.transpose().map_err(Error::wrap)?;
        Ok((value, Others { log_sum_squares, argmax }, operation))
    }
}

fn with_tokens(
    (labels, ignore, weights): (Slice<'_>, i64, Option<Slice<'_>>),
    run: impl FnOnce(Tokens<'_>) -> prefuse::Result<()>,
) -> prefuse::Result<()> {
    let labels = Labels::from_slice(labels)?.with_ignore(ignore);
    let weights = weights.map(Weights::from_slice).transpose()?;
    run(Tokens::new(&labels, weights.as_ref())?)
}

impl Operation for TokenOperation {
    const NAME: &'static str = "prefuse-token-log-probs";
    const GRADIENT_NAME: &'static str = "prefuse-token-log-probs-gradient";

    fn logit_grads(
        &self,
        place: &Place,
        (logits, grads): (Logits<'_>, LogitsMut<'_>),
        output: &Tensor,
        upstream: &Tensor,
    ) -> Result<()> {
        let upstream = upstream.contiguous()?;
        let (upstream, upstream_layout) = upstream.storage_and_layout();
        let (output, output_layout) = output.storage_and_layout();
        let (upstream, output) = (place.lend(&upstream)?, place.lend(&output)?);
        let upstream = place::values(upstream.slice()?, upstream_layout)?;
        let output = place::values(output.slice()?, output_layout)?;

        let count = logits.tokens();
        let part = |index| index * count..(index + 1) * count;
        let run = || {
            let entropy = match self.options.has_entropy() {
                true => Some((upstream.part(part(1))?, output.part(part(1))?)),
                false => None,
            };
            let upstream = TokenUpstream { log_probs: upstream.part(part(0))?, entropy };
            let statistics =
                RowStatistics { maximum: self.maximum.slice(), log_sum: self.log_sum.slice() };
            let weights = self.weights.as_ref().map(Buffer::slice);
            with_tokens((self.labels.slice(), self.ignore, weights), |tokens| {
                let backend = place.backend();
                backend.logit_grads(LogitGrads::new(
                    backend,
                    Target::OutOfPlace { logits, grads },
                    tokens,
                    self.options.temperature(),
                    statistics,
                    upstream,
                    place.masked_rows(),
                )?)
            })
        };
        run().map_err(Error::wrap)
    }
}
