use super::{BackendId, Tokens, check_logits, check_scratch, check_temperature, same_values};
use crate::backend::Backend;
use crate::batch::Logits;
use crate::element::DType;
use crate::error::Result;
use crate::memory::{Place, SliceMut};

/// The inputs and outputs of stage 1.
#[derive(Debug)]
pub struct LogProbs<'a> {
    pub(crate) backend: BackendId,
    pub(crate) logits: Logits<'a>,
    pub(crate) tokens: Tokens<'a>,
    pub(crate) temperature: f64,
    pub(crate) outputs: TokenOutputs<'a>,
    pub(crate) scratch: SliceMut<'a>,
}

/// Where stage 1 writes. The buffers are f32, or f64 where the logits are.
#[derive(Debug)]
pub struct TokenOutputs<'a> {
    /// `[tokens]` natural log-probs of the labels.
    pub log_probs: SliceMut<'a>,
    /// `[tokens]` maxima of the rows.
    pub maximum: SliceMut<'a>,
    /// `[tokens]` logarithms of the sums of `exp((x - maximum) / temperature)`.
    pub log_sum: SliceMut<'a>,
    /// `[tokens]` entropies, in nats.
    pub entropy: Option<SliceMut<'a>>,
    /// `[tokens]` natural logarithms of the sums of squared probabilities.
    pub log_sum_squares: Option<SliceMut<'a>>,
    /// `[tokens]` i64 lowest indices of the maxima; of the first NaN where a row has one.
    pub argmax: Option<SliceMut<'a>>,
}

impl<'a> TokenOutputs<'a> {
    /// What stage 1 always writes; the rest is added with `..`.
    pub fn new(log_probs: SliceMut<'a>, maximum: SliceMut<'a>, log_sum: SliceMut<'a>) -> Self {
        let (entropy, log_sum_squares, argmax) = (None, None, None);
        Self { log_probs, maximum, log_sum, entropy, log_sum_squares, argmax }
    }

    /// The same buffers, for a while.
    pub fn reborrow(&mut self) -> TokenOutputs<'_> {
        TokenOutputs {
            log_probs: self.log_probs.reborrow(),
            maximum: self.maximum.reborrow(),
            log_sum: self.log_sum.reborrow(),
            entropy: self.entropy.as_mut().map(SliceMut::reborrow),
            log_sum_squares: self.log_sum_squares.as_mut().map(SliceMut::reborrow),
            argmax: self.argmax.as_mut().map(SliceMut::reborrow),
        }
    }

    pub(super) fn check(&self, place: Place, logits: Logits<'_>) -> Result<()> {
        let (count, dtype) = (logits.tokens(), logits.dtype().per_token());
        same_values(place, "log_probs", self.log_probs.as_slice(), dtype, count)?;
        same_values(place, "maximum", self.maximum.as_slice(), dtype, count)?;
        same_values(place, "log_sum", self.log_sum.as_slice(), dtype, count)?;
        if let Some(entropy) = &self.entropy {
            same_values(place, "entropy", entropy.as_slice(), dtype, count)?;
        }
        if let Some(squares) = &self.log_sum_squares {
            same_values(place, "log_sum_squares", squares.as_slice(), dtype, count)?;
        }
        if let Some(argmax) = &self.argmax {
            same_values(place, "argmax", argmax.as_slice(), DType::I64, count)?;
        }
        Ok(())
    }
}

impl<'a> LogProbs<'a> {
    /// Log-probs of `softmax(logits / temperature)`.
    ///
    /// # Errors
    /// A shape that does not fit, a type that the backend does not take, a temperature outside
    /// 1e-30 to 1e30, or too little scratch.
    pub fn new(
        backend: &dyn Backend,
        logits: Logits<'a>,
        tokens: Tokens<'a>,
        temperature: f64,
        outputs: TokenOutputs<'a>,
        scratch: SliceMut<'a>,
    ) -> Result<Self> {
        check_logits(backend, logits, tokens)?;
        check_temperature("temperature", temperature)?;
        let place = backend.place();
        outputs.check(place, logits)?;
        let needed = backend.log_probs_scratch(logits.tokens(), logits.vocab());
        check_scratch(place, "scratch of log_probs", needed, &scratch)?;
        let backend = BackendId::of(backend);
        Ok(Self { backend, logits, tokens, temperature, outputs, scratch })
    }
}
