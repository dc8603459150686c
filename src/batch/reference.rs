//! What the reference model said about the same tokens.

use std::borrow::Cow;

use crate::element::Element;

/// Log-probs of the labels under the frozen reference model, for objectives that compare with it.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferenceLogProbs<'a>(Kind<'a>);

#[derive(Clone, Debug, PartialEq)]
enum Kind<'a> {
    PerToken(Vec<f64>),
    PerSequence { sums: Cow<'a, [f64]>, weighted: bool },
}

impl<'a> ReferenceLogProbs<'a> {
    /// `[tokens]` log-probs of the labels, natural logarithm, of any element type. They are summed with the batch's own
    /// token weights; the values at ignored or masked tokens are not read.
    pub fn per_token<T: Element>(log_probs: &[T]) -> Self {
        Self(Kind::PerToken(log_probs.iter().map(|&value| value.to_f64()).collect()))
    }

    /// `[sequences]` sums of log-probs, for a batch without token weights.
    pub fn per_sequence(sums: impl Into<Cow<'a, [f64]>>) -> Self {
        Self(Kind::PerSequence { sums: sums.into(), weighted: false })
    }

    /// `[sequences]` sums of token weight times log-prob: the caller says that the weights that
    /// went into them are those of the batch.
    pub fn per_sequence_weighted(sums: impl Into<Cow<'a, [f64]>>) -> Self {
        Self(Kind::PerSequence { sums: sums.into(), weighted: true })
    }

    /// A copy that owns its data.
    pub fn into_owned(self) -> ReferenceLogProbs<'static> {
        ReferenceLogProbs(match self.0 {
            Kind::PerToken(values) => Kind::PerToken(values),
            Kind::PerSequence { sums, weighted } => {
                Kind::PerSequence { sums: Cow::Owned(sums.into_owned()), weighted }
            }
        })
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
