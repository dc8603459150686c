//! What the reference model said about the same tokens.

use std::borrow::Cow;

/// Log-probs of the labels under the frozen reference model, for objectives that compare with it.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferenceLogProbs<'a>(Kind<'a>);

#[derive(Clone, Debug, PartialEq)]
enum Kind<'a> {
    PerToken(Cow<'a, [f32]>),
    PerSequence { sums: Cow<'a, [f64]>, weighted: bool },
}

impl<'a> ReferenceLogProbs<'a> {
    /// `[tokens]` log-probs of the labels, natural logarithm. They are summed with the batch's own
    /// token weights; the values at ignored or masked tokens are not read.
    pub fn per_token(log_probs: impl Into<Cow<'a, [f32]>>) -> Self {
        Self(Kind::PerToken(log_probs.into()))
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
            Kind::PerToken(values) => Kind::PerToken(Cow::Owned(values.into_owned())),
            Kind::PerSequence { sums, weighted } => {
                Kind::PerSequence { sums: Cow::Owned(sums.into_owned()), weighted }
            }
        })
    }

    pub(crate) fn tokens(&self) -> Option<&[f32]> {
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
