use super::mixed_log_probs::check_combination;
use super::{
    BackendId, MaskedRows, RowStatistics, Tokens, check_target, check_temperature, same_values,
};
use crate::backend::Backend;
use crate::batch::{Combination, LogitsMut, MOST_PARTS, same_length};
use crate::element::DType;
use crate::error::Result;
use crate::memory::Slice;

/// The inputs and outputs of the stage: stage 4 of a combination of logits, by each of its parts.
#[derive(Debug)]
pub struct MixedLogitGrads<'a> {
    pub(crate) backend: BackendId,
    pub(crate) logits: Combination<'a>,
    pub(crate) grads: [Option<LogitsMut<'a>>; MOST_PARTS],
    pub(crate) tokens: Tokens<'a>,
    pub(crate) temperature: f64,
    pub(crate) statistics: RowStatistics<'a>,
    pub(crate) upstream: Slice<'a>,
    pub(crate) masked: MaskedRows,
}

impl<'a> MixedLogitGrads<'a> {
    /// The gradient by the parts that have somewhere to put it, `grads` in the order of the parts, each of its
    /// part's shape and element type; from the statistics of [`MixedLogProbs`](super::MixedLogProbs) (the
    /// maxima are f64) and the `[tokens]` gradient of a loss by the log-probs.
    ///
    /// # Errors
    /// A shape or type that does not fit, another number of gradients than of parts, or a temperature outside
    /// 1e-30 to 1e30.
    pub fn new(
        backend: &dyn Backend,
        (logits, grads): (Combination<'a>, Vec<Option<LogitsMut<'a>>>),
        tokens: Tokens<'a>,
        temperature: f64,
        statistics: RowStatistics<'a>,
        upstream: Slice<'a>,
        masked: MaskedRows,
    ) -> Result<Self> {
        check_combination(backend, &logits, tokens)?;
        check_temperature("temperature", temperature)?;
        let ([count, _], dtype) = (logits.size(), logits.per_token());
        let place = backend.place();
        same_values(place, "maximum", statistics.maximum, DType::F64, count)?;
        same_values(place, "log_sum", statistics.log_sum, dtype, count)?;
        same_values(place, "upstream gradient by log_probs", upstream, dtype, count)?;
        same_length("gradients of a combination", logits.parts().len(), grads.len())?;
        let mut all = [const { None }; MOST_PARTS];
        for ((to, (_, logits)), grads) in all.iter_mut().zip(logits.parts()).zip(grads) {
            check_target(place, logits, grads.as_ref())?;
            *to = grads;
        }
        let (grads, backend) = (all, BackendId::of(backend));
        Ok(Self { backend, logits, grads, tokens, temperature, statistics, upstream, masked })
    }
}
