//! What the reference model said about the same tokens.

use crate::element::Element;

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
/// let reference = ReferenceLogProbs::per_token(tokens.log_probs().host::<f32>()?);
/// # let _ = reference;
/// # Ok::<(), prefuse::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ReferenceLogProbs(Kind);

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    PerToken(Vec<f64>),
    PerSequence { sums: Vec<f64>, weighted: bool },
}

impl ReferenceLogProbs {
    /// `[tokens]` log-probs of the labels, natural logarithm, of any element type. They are summed with the batch's own
    /// token weights; the values at ignored or masked tokens are not read.
    pub fn per_token<T: Element>(log_probs: &[T]) -> Self {
        Self(Kind::PerToken(exact(log_probs)))
    }

    /// `[sequences]` sums of log-probs, for a batch without token weights.
    pub fn per_sequence<T: Element>(sums: &[T]) -> Self {
        Self(Kind::PerSequence { sums: exact(sums), weighted: false })
    }

    /// `[sequences]` sums of token weight times log-prob: the caller says that the weights that
    /// went into them are those of the batch.
    pub fn per_sequence_weighted<T: Element>(sums: &[T]) -> Self {
        Self(Kind::PerSequence { sums: exact(sums), weighted: true })
    }

    pub(crate) fn tokens(&self) -> Option<&[f64]> {
        match &self.0 {
            Kind::PerToken(values) => Some(values),
            Kind::PerSequence { .. } => None,
        }
    }

    pub(crate) fn sums(&self) -> Option<(&[f64], bool)> {
        match &self.0 {
            Kind::PerToken(_) => None,
            Kind::PerSequence { sums, weighted } => Some((sums, *weighted)),
        }
    }
}

fn exact<T: Element>(values: &[T]) -> Vec<f64> {
    values.iter().map(|&value| value.to_f64()).collect()
}
