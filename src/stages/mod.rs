//! What each stage reads and writes. The constructors check every shape and type.

mod log_probs;
mod logit_grads;
mod objective;
mod sequence_sums;

pub use log_probs::{LogProbs, TokenOutputs};
pub use logit_grads::{LogitGrads, MaskedRows, RowStatistics, Target, TokenUpstream};
pub use objective::{Objective, ObjectiveOutputs, UnitScale};
pub use sequence_sums::{SequenceSums, TokenGrads, Totals, TotalsMut};

use crate::backend::Backend;
use crate::batch::{Batch, Labels, Logits, Weights, same_length};
use crate::element::DType;
use crate::error::{Error, Result};
use crate::memory::{Slice, SliceMut};

/// Which tokens count, and how much.
#[derive(Clone, Copy, Debug)]
pub struct Tokens<'a> {
    pub(crate) labels: &'a Labels<'a>,
    weights: Option<&'a [f32]>,
}

impl<'a> Tokens<'a> {
    /// Labels and their weights, if any.
    ///
    /// # Errors
    /// No tokens, or another number of weights.
    pub fn new(labels: &'a Labels<'_>, weights: Option<&'a Weights<'_>>) -> Result<Self> {
        if labels.is_empty() {
            return Err(Error::NoTokens);
        }
        if let Some(weights) = weights {
            same_length("token weights", labels.len(), weights.as_slice().len())?;
        }
        Ok(Self { labels, weights: weights.map(Weights::as_slice) })
    }

    /// The tokens of a batch.
    pub fn of(batch: &'a Batch<'_>) -> Self {
        Self { labels: batch.labels(), weights: batch.weights().map(Weights::as_slice) }
    }

    /// How many there are, counted or not; at least 1.
    pub fn count(self) -> usize {
        self.labels.len()
    }

    /// The factor of a token's log-prob.
    pub(crate) fn weight(self, token: usize) -> f64 {
        self.weights.map_or(1.0, |weights| f64::from(weights[token]))
    }

    /// The label of a token that counts: not ignored, and of a weight that is not 0.
    pub(crate) fn counted_label(self, token: usize) -> Option<usize> {
        self.labels.get(token).filter(|_| self.weight(token) != 0.0)
    }
}

fn check_scratch(what: &'static str, expected: usize, scratch: &SliceMut<'_>) -> Result<()> {
    if scratch.dtype() != DType::F64 {
        return Err(Error::DataType { what, expected: "f64", got: scratch.dtype() });
    }
    let got = scratch.len();
    if got >= expected { Ok(()) } else { Err(Error::Length { what, expected, got }) }
}

/// A stage was checked, and its scratch was sized, for one backend.
pub(crate) fn check_backend(expected: &'static str, got: &'static str) -> Result<()> {
    if expected == got { Ok(()) } else { Err(Error::OtherBackend { expected, got }) }
}

fn same_values(what: &'static str, values: Slice<'_>, dtype: DType, len: usize) -> Result<()> {
    if values.dtype() != dtype {
        return Err(Error::DataType { what, expected: dtype.name(), got: values.dtype() });
    }
    same_length(what, len, values.len())
}

fn check_logits(backend: &dyn Backend, logits: Logits<'_>, tokens: Tokens<'_>) -> Result<()> {
    if !backend.dtypes().contains(&logits.dtype()) {
        let (backend, expected) = (backend.name(), backend.dtypes());
        return Err(Error::LogitsType { backend, expected, got: logits.dtype() });
    }
    same_length("labels", logits.tokens(), tokens.count())
}

fn check_temperature(got: f64) -> Result<()> {
    // So that its inverse is a normal f32, and -inf logits stay -inf when scaled.
    if (1e-30..=1e30).contains(&got) {
        Ok(())
    } else {
        Err(Error::Scalar { what: "temperature", expected: "a number from 1e-30 to 1e30", got })
    }
}
