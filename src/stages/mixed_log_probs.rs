use super::{BackendId, Tokens, check_logits, check_scratch, check_temperature, same_values};
use crate::backend::Backend;
use crate::batch::Combination;
use crate::element::DType;
use crate::error::Result;
use crate::memory::{Place, SliceMut};

/// The inputs and outputs of the stage: stage 1 of a combination of logits.
#[derive(Debug)]
pub struct MixedLogProbs<'a> {
    pub(crate) backend: BackendId,
    pub(crate) logits: Combination<'a>,
    pub(crate) tokens: Tokens<'a>,
    pub(crate) temperature: f64,
    pub(crate) outputs: MixedOutputs<'a>,
    pub(crate) scratch: SliceMut<'a>,
}

/// Where the stage writes: `[tokens]` numbers each, f32 (f64 where one of the logits is) but for the maxima.
#[derive(Debug)]
pub struct MixedOutputs<'a> {
    /// Natural log-probs of the labels.
    pub log_probs: SliceMut<'a>,
    /// Maxima of the combination's rows, f64: they are no element of anything, and what f32 drops of an offset
    /// of 1e4 would be a factor of every probability.
    pub maximum: SliceMut<'a>,
    /// Logarithms of the sums of `exp((x - maximum) / temperature)`.
    pub log_sum: SliceMut<'a>,
}

impl MixedOutputs<'_> {
    fn check(&self, place: Place, logits: &Combination<'_>) -> Result<()> {
        let ([count, _], dtype) = (logits.size(), logits.per_token());
        same_values(place, "log_probs", self.log_probs.as_slice(), dtype, count)?;
        same_values(place, "maximum", self.maximum.as_slice(), DType::F64, count)?;
        same_values(place, "log_sum", self.log_sum.as_slice(), dtype, count)
    }

    /// Stores a token's log-prob, maximum and log-sum.
    pub(crate) fn set(&mut self, token: usize, [log_prob, maximum, log_sum]: [f64; 3]) {
        self.log_probs.set(token, log_prob);
        self.maximum.set(token, maximum);
        self.log_sum.set(token, log_sum);
    }
}

/// What [`MixedOutputs::set`] stores for a token that does not count.
pub(crate) const NOT_COUNTED: [f64; 3] = [0.0, f64::NAN, f64::NAN];

impl<'a> MixedLogProbs<'a> {
    /// Log-probs of `softmax(sum_i c_i z_i / temperature)`.
    ///
    /// # Errors
    /// A shape that does not fit, a type that the backend does not take, a temperature outside
    /// 1e-30 to 1e30, or too little scratch.
    pub fn new(
        backend: &dyn Backend,
        logits: Combination<'a>,
        tokens: Tokens<'a>,
        temperature: f64,
        outputs: MixedOutputs<'a>,
        scratch: SliceMut<'a>,
    ) -> Result<Self> {
        check_combination(backend, &logits, tokens)?;
        check_temperature("temperature", temperature)?;
        let place = backend.place();
        outputs.check(place, &logits)?;
        let [count, vocab] = logits.size();
        let needed = backend.mixed_log_probs_scratch(count, vocab);
        check_scratch(place, "scratch of mixed_log_probs", needed, &scratch)?;
        let backend = BackendId::of(backend);
        Ok(Self { backend, logits, tokens, temperature, outputs, scratch })
    }
}

/// What either stage asks of the logits.
pub(super) fn check_combination(
    backend: &dyn Backend,
    logits: &Combination<'_>,
    tokens: Tokens<'_>,
) -> Result<()> {
    let mut parts = logits.parts().iter();
    parts.try_for_each(|(_, logits)| check_logits(backend, *logits, tokens))
}
