//! What the reference model said about the same tokens.

use crate::element::{DType, Element};
use crate::error::{Error, Result};
use crate::memory::{Place, Slice};

/// Log-probs of the labels under the frozen reference model, for objectives that compare with it.
///
/// The numbers are data, like logits: one that is NaN reaches the loss of its own pairs.
///
/// ```
/// use prefuse::batch::{Labels, Logits, ReferenceLogProbs};
/// use prefuse::{Cpu, RowOptions, token_log_probs};
///
/// let reference_logits = [0.1_f32, 0.7, 0.2, 0.9, 0.3, 0.0];
/// let (logits, labels) = (Logits::new(&reference_logits, 2, 3)?, Labels::new(&[1, 0]));
/// let tokens = token_log_probs(&Cpu::new(), logits, &labels, None, RowOptions::default())?;
/// let reference = ReferenceLogProbs::from_slice(tokens.log_probs())?; // on any backend
/// # let _ = reference;
/// # Ok::<(), prefuse::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ReferenceLogProbs<'a>(Kind<'a>);

#[derive(Clone, Debug)]
enum Kind<'a> {
    Tokens(Vec<f64>),
    TokensOnDevice(Slice<'a>),
    Sums { sums: Vec<f64>, weighted: bool },
}

impl ReferenceLogProbs<'static> {
    /// `[tokens]` log-probs of the labels, natural logarithm, of any element type. They are summed with the batch's own
    /// token weights; the values at ignored or masked tokens are not read.
    pub fn per_token<T: Element>(log_probs: &[T]) -> Self {
        Self(Kind::Tokens(exact(log_probs)))
    }

    /// `[sequences]` sums of log-probs, for a batch without token weights.
    pub fn per_sequence<T: Element>(sums: &[T]) -> Self {
        Self(Kind::Sums { sums: exact(sums), weighted: false })
    }

    /// `[sequences]` sums of token weight times log-prob: the caller says that the weights that
    /// went into them are those of the batch.
    pub fn per_sequence_weighted<T: Element>(sums: &[T]) -> Self {
        Self(Kind::Sums { sums: exact(sums), weighted: true })
    }
}

impl<'a> ReferenceLogProbs<'a> {
    /// As [`per_token`](ReferenceLogProbs::per_token), f32 or f64, in host memory or in that of the
    /// backend that will read them, such as the log-probs that
    /// [`token_log_probs`](crate::token_log_probs) left there.
    ///
    /// # Errors
    /// Another element type.
    pub fn from_slice(log_probs: Slice<'a>) -> Result<Self> {
        let got = log_probs.dtype();
        if !matches!(got, DType::F32 | DType::F64) {
            return Err(Error::DataType {
                what: "reference log-probs",
                expected: "f32 or f64",
                got,
            });
        }
        Ok(Self(match log_probs.place() {
            Place::Host => Kind::Tokens(log_probs.to_vec()?),
            Place::Device(_) => Kind::TokensOnDevice(log_probs),
        }))
    }

    pub(crate) fn tokens(&self) -> Option<Slice<'_>> {
        match &self.0 {
            Kind::Tokens(values) => Some(Slice::new(values)),
            Kind::TokensOnDevice(values) => Some(*values),
            Kind::Sums { .. } => None,
        }
    }

    pub(crate) fn sums(&self) -> Option<(&[f64], bool)> {
        match &self.0 {
            Kind::Sums { sums, weighted } => Some((sums, *weighted)),
            _ => None,
        }
    }

    /// A copy that owns its data, in host memory.
    ///
    /// # Errors
    /// Reading a device.
    pub fn into_owned(self) -> Result<ReferenceLogProbs<'static>> {
        Ok(ReferenceLogProbs(match self.0 {
            Kind::Tokens(values) => Kind::Tokens(values),
            Kind::TokensOnDevice(values) => Kind::Tokens(values.to_vec()?),
            Kind::Sums { sums, weighted } => Kind::Sums { sums, weighted },
        }))
    }
}

fn exact<T: Element>(values: &[T]) -> Vec<f64> {
    values.iter().map(|&value| value.to_f64()).collect()
}
