use super::{BackendId, Tokens, check_logits, check_temperature, same_values};
use crate::backend::Backend;
use crate::batch::{Logits, LogitsMut};
use crate::error::{Error, Result};
use crate::memory::{Place, Slice};

/// The inputs and outputs of stage 4.
#[derive(Debug)]
pub struct LogitGrads<'a> {
    pub(crate) backend: BackendId,
    pub(crate) target: Target<'a>,
    pub(crate) tokens: Tokens<'a>,
    pub(crate) temperature: f64,
    pub(crate) statistics: RowStatistics<'a>,
    pub(crate) upstream: TokenUpstream<'a>,
    pub(crate) masked: MaskedRows,
}

/// Where the logits are, and where their gradient goes.
#[non_exhaustive]
#[derive(Debug)]
pub enum Target<'a> {
    /// The gradient replaces the logits.
    InPlace(LogitsMut<'a>),
    /// The gradient has a buffer of its own, of the logits' shape and element type.
    OutOfPlace {
        /// What to read.
        logits: Logits<'a>,
        /// What to write; its rows may have another stride.
        grads: LogitsMut<'a>,
    },
}

/// What stage 1 left for stage 4, `[tokens]` each.
#[derive(Clone, Copy, Debug)]
pub struct RowStatistics<'a> {
    /// Maxima of the rows.
    pub maximum: Slice<'a>,
    /// Logarithms of the sums of `exp((x - maximum) / temperature)`.
    pub log_sum: Slice<'a>,
}

/// The gradient of a loss by what stage 1 computed, `[tokens]` each. Values at tokens that do not
/// count are not read.
#[derive(Clone, Copy, Debug)]
pub struct TokenUpstream<'a> {
    /// By the log-probs.
    pub log_probs: Slice<'a>,
    /// By the entropies, and the entropies.
    pub entropy: Option<(Slice<'a>, Slice<'a>)>,
}

/// What becomes of the gradient rows of tokens that do not count.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MaskedRows {
    /// They are set to 0.
    #[default]
    Zero,
    /// They are left alone: the caller says that they hold 0 already. In place, that means that the
    /// logits of those rows were 0; others would be taken for a gradient.
    AlreadyZero,
}

impl<'a> LogitGrads<'a> {
    /// The gradient by the logits of the same tokens and temperature as in stage 1.
    ///
    /// # Errors
    /// A shape or type that does not fit, or a temperature outside 1e-30 to 1e30.
    pub fn new(
        backend: &dyn Backend,
        target: Target<'a>,
        tokens: Tokens<'a>,
        temperature: f64,
        statistics: RowStatistics<'a>,
        upstream: TokenUpstream<'a>,
        masked: MaskedRows,
    ) -> Result<Self> {
        let logits = target.logits();
        check_logits(backend, logits, tokens)?;
        check_temperature("temperature", temperature)?;
        let (count, dtype) = (tokens.count(), logits.dtype().per_token());
        let place = backend.place();
        same_values(place, "maximum", statistics.maximum, dtype, count)?;
        same_values(place, "log_sum", statistics.log_sum, dtype, count)?;
        same_values(place, "upstream gradient by log_probs", upstream.log_probs, dtype, count)?;
        if let Some((grads, entropy)) = upstream.entropy {
            same_values(place, "upstream gradient by entropy", grads, dtype, count)?;
            same_values(place, "entropy", entropy, dtype, count)?;
        }
        check_target(place, &logits, target.grads())?;
        let backend = BackendId::of(backend);
        Ok(Self { backend, target, tokens, temperature, statistics, upstream, masked })
    }
}

impl Target<'_> {
    pub(crate) fn logits(&self) -> Logits<'_> {
        match self {
            Self::InPlace(logits) => logits.view(),
            Self::OutOfPlace { logits, .. } => *logits,
        }
    }

    /// The gradient's own buffer, if it has one.
    pub(super) fn grads(&self) -> Option<&LogitsMut<'_>> {
        match self {
            Self::InPlace(_) => None,
            Self::OutOfPlace { grads, .. } => Some(grads),
        }
    }

    /// What is read, and what is written.
    #[cfg(feature = "cuda")]
    pub(crate) fn views(&self) -> (Logits<'_>, Logits<'_>) {
        let grads = match self {
            Self::InPlace(grads) | Self::OutOfPlace { grads, .. } => grads.view(),
        };
        (self.logits(), grads)
    }
}

/// Of a gradient in a buffer of its own.
pub(super) fn check_target(
    place: Place,
    logits: &Logits<'_>,
    grads: Option<&LogitsMut<'_>>,
) -> Result<()> {
    let Some(grads) = grads else { return Ok(()) };
    let (what, grads) = ("logits gradient", grads.view());
    if grads.dtype() != logits.dtype() {
        let expected = logits.dtype().name();
        return Err(Error::DataType { what, expected, got: grads.dtype() });
    }
    let (expected, got) = (logits.shape().size(), grads.shape().size());
    if expected != got {
        return Err(Error::Shape { what, expected, got });
    }
    place.check(what, grads.data().place())
}
