//! What each stage reads and writes. The constructors check every shape and type.

mod divergence;
mod log_probs;
mod logit_grads;
mod mixed_log_probs;
mod mixed_logit_grads;
mod objective;
mod ranking;
mod sequence_sums;
mod sparse_divergence;
mod token_loss;
mod token_objective;

pub(crate) use divergence::{Adaptive, Measure};
pub use divergence::{Divergence, DivergenceOutputs, StudentTarget, Teacher, TokenDivergence};
pub use log_probs::{LogProbs, TokenOutputs};
use logit_grads::check_target;
pub use logit_grads::{LogitGrads, MaskedRows, RowStatistics, Target, TokenUpstream};
pub(crate) use mixed_log_probs::NOT_COUNTED;
pub use mixed_log_probs::{MixedLogProbs, MixedOutputs};
pub use mixed_logit_grads::MixedLogitGrads;
#[cfg(feature = "cuda")]
pub(crate) use objective::UnitInputs;
pub use objective::{Objective, ObjectiveOutputs, UnitScale};
pub use ranking::{Ranking, RankingOutputs};
pub use sequence_sums::{SequenceSums, TokenGrads, Totals, TotalsMut};
pub(crate) use sparse_divergence::MOST_ENTRIES;
pub use sparse_divergence::{Remainder, SparseDivergence, SparseTeacher, SparseTeacherError};
pub(crate) use token_loss::TokenTerm;
pub use token_loss::{SampledTokens, TokenLoss, TokenLossOutputs};
pub(crate) use token_objective::{CHUNK, TokenUnits, divisor};
pub use token_objective::{
    TokenAdvantages, TokenInputs, TokenObjective, TokenObjectiveGrads, TokenObjectiveOutputs,
};

use crate::backend::Backend;
use crate::batch::{Batch, Labels, Logits, Weights, same_length};
use crate::element::DType;
use crate::error::{Error, Result};
use crate::memory::{Place, Slice, SliceMut};

/// Which tokens count, and how much.
#[derive(Clone, Copy, Debug)]
pub struct Tokens<'a> {
    pub(crate) labels: Slice<'a>,
    pub(crate) ignore: i64,
    pub(crate) weights: Option<Slice<'a>>,
}

impl<'a> Tokens<'a> {
    /// Labels and their weights, if any.
    ///
    /// # Errors
    /// No tokens, or another number of weights.
    pub fn new(labels: &'a Labels<'_>, weights: Option<&'a Weights<'_>>) -> Result<Self> {
        if labels.is_empty() {
            return Err(Error::TooFew { what: "tokens", expected: 1, got: 0 });
        }
        let weights = weights.map(Weights::slice);
        if let Some(weights) = weights {
            same_length("token weights", labels.len(), weights.len())?;
        }
        Ok(Self { labels: labels.slice(), ignore: labels.ignore(), weights })
    }

    /// The tokens of a batch.
    pub fn of(batch: &'a Batch<'_>) -> Self {
        let (labels, weights) = (batch.labels(), batch.weights());
        let (ignore, weights) = (labels.ignore(), weights.map(Weights::slice));
        Self { labels: labels.slice(), ignore, weights }
    }

    /// How many there are, counted or not; at least 1.
    pub fn count(self) -> usize {
        self.labels.len()
    }

    fn check(self, place: Place) -> Result<()> {
        place.check("labels", self.labels.place())?;
        self.weights.map_or(Ok(()), |weights| place.check("token weights", weights.place()))
    }

    /// What a host backend asks of each token.
    pub(crate) fn host(self) -> Result<HostTokens<'a>> {
        let weights = self.weights.map(Slice::host).transpose()?;
        Ok(HostTokens { labels: self.labels.host()?, ignore: self.ignore, weights })
    }
}

/// [`Tokens`] in host memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostTokens<'a> {
    labels: &'a [i64],
    ignore: i64,
    weights: Option<&'a [f32]>,
}

impl<'a> HostTokens<'a> {
    pub fn new(labels: &'a [i64], ignore: i64, weights: Option<&'a [f32]>) -> Self {
        Self { labels, ignore, weights }
    }

    /// # Errors
    /// The first label that names no entry of the vocabulary and is not ignored.
    pub fn check(self, vocab: usize) -> Result<()> {
        let Self { labels, ignore, .. } = self;
        let outside = |&label: &i64| {
            label != ignore && usize::try_from(label).map_or(true, |label| label >= vocab)
        };
        match labels.iter().position(outside) {
            None => Ok(()),
            Some(token) => Err(Error::Label { token, label: labels[token], vocab, ignore }),
        }
    }

    /// The factor of a token's log-prob.
    pub fn weight(self, token: usize) -> f64 {
        self.weights.map_or(1.0, |weights| f64::from(weights[token]))
    }

    /// The label of a token that counts: not ignored, and of a weight that is not 0. For labels that
    /// passed [`check`](Self::check), so that they are not negative.
    pub fn counted_label(self, token: usize) -> Option<usize> {
        let label = self.labels[token];
        (label != self.ignore && self.weight(token) != 0.0).then_some(label as usize)
    }
}

/// The backend that a stage was checked, and its scratch was sized, for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BackendId {
    pub name: &'static str,
    place: Place,
}

impl BackendId {
    pub fn of(backend: &dyn Backend) -> Self {
        Self { name: backend.name(), place: backend.place() }
    }

    /// # Errors
    /// A stage of another backend.
    pub fn check(self, got: Self) -> Result<()> {
        let other = if self.name == got.name { "another backend of that name" } else { got.name };
        if self == got {
            Ok(())
        } else {
            Err(Error::OtherBackend { expected: self.name, got: other })
        }
    }
}

fn check_scratch(
    place: Place,
    what: &'static str,
    expected: usize,
    scratch: &SliceMut<'_>,
) -> Result<()> {
    if scratch.dtype() != DType::F64 {
        return Err(Error::DataType { what, expected: "f64", got: scratch.dtype() });
    }
    let got = scratch.len();
    if got < expected {
        return Err(Error::Length { what, expected, got });
    }
    if expected == 0 { Ok(()) } else { place.check(what, scratch.as_slice().place()) }
}

fn same_values(
    place: Place,
    what: &'static str,
    values: Slice<'_>,
    dtype: DType,
    len: usize,
) -> Result<()> {
    if values.dtype() != dtype {
        return Err(Error::DataType { what, expected: dtype.name(), got: values.dtype() });
    }
    same_length(what, len, values.len())?;
    place.check(what, values.place())
}

/// # Errors
/// Numbers of tokens of another type than those that the backend has of its logits.
fn check_per_token(backend: &dyn Backend, what: &'static str, got: DType) -> Result<()> {
    let types = || backend.dtypes().iter().map(|dtype| dtype.per_token());
    if types().any(|dtype| dtype == got) {
        return Ok(());
    }
    let expected = if types().any(|dtype| dtype == DType::F64) { "f32 or f64" } else { "f32" };
    Err(Error::DataType { what, expected, got })
}

/// # Errors
/// Numbers of the caller that are neither f32 nor f64.
pub(crate) fn check_floats(what: &'static str, got: DType) -> Result<()> {
    match got {
        DType::F32 | DType::F64 => Ok(()),
        _ => Err(Error::DataType { what, expected: "f32 or f64", got }),
    }
}

pub(crate) fn check_logits(
    backend: &dyn Backend,
    logits: Logits<'_>,
    tokens: Tokens<'_>,
) -> Result<()> {
    check_logits_type(backend, logits)?;
    same_length("rows of logits", tokens.count(), logits.tokens())?;
    backend.place().check("logits", logits.data().place())?;
    tokens.check(backend.place())
}

fn check_logits_type(backend: &dyn Backend, logits: Logits<'_>) -> Result<()> {
    if backend.dtypes().contains(&logits.dtype()) {
        return Ok(());
    }
    let (backend, expected) = (backend.name(), backend.dtypes());
    Err(Error::LogitsType { backend, expected, got: logits.dtype() })
}

fn check_temperature(what: &'static str, got: f64) -> Result<()> {
    // So that its inverse is a normal f32, and -inf logits stay -inf when scaled.
    if (1e-30..=1e30).contains(&got) {
        Ok(())
    } else {
        Err(Error::Scalar { what, expected: "a number from 1e-30 to 1e30", got })
    }
}
