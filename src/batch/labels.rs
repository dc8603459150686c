//! What each row of the logits is asked for.

use std::borrow::Cow;

use crate::batch::Packing;
use crate::error::{Error, Result};

/// `[tokens]` labels: `labels[t]` is what `logits[t]` predicts.
#[derive(Clone, Debug, PartialEq)]
pub struct Labels<'a> {
    ids: Cow<'a, [i64]>,
    ignore: i64,
}

impl<'a> Labels<'a> {
    /// What trainers write where there is nothing to predict.
    pub const IGNORE: i64 = -100;

    /// Labels, already shifted (see [`shift_labels`]). Tokens whose label is [`Self::IGNORE`] are
    /// not read, count nowhere and get a gradient of exactly 0.
    ///
    /// A label outside the vocabulary is found when the logits are known.
    pub fn new(ids: impl Into<Cow<'a, [i64]>>) -> Self {
        Self { ids: ids.into(), ignore: Self::IGNORE }
    }

    /// Another ignore value; any value will do, also one inside the vocabulary.
    #[must_use]
    pub fn with_ignore(mut self, ignore: i64) -> Self {
        self.ignore = ignore;
        self
    }

    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The label of a token, or `None` where it is ignored; for labels that passed `check`, so that
    /// they are not negative.
    pub(crate) fn get(&self, token: usize) -> Option<usize> {
        let label = self.ids[token];
        (label != self.ignore).then_some(label as usize)
    }

    /// A copy that owns its data.
    pub fn into_owned(self) -> Labels<'static> {
        Labels { ids: Cow::Owned(self.ids.into_owned()), ignore: self.ignore }
    }

    pub(crate) fn check(&self, tokens: usize, vocab: usize) -> Result<()> {
        if self.len() != tokens {
            return Err(Error::Length { what: "labels", expected: tokens, got: self.len() });
        }
        let outside = |&label: &i64| {
            label != self.ignore && usize::try_from(label).map_or(true, |label| label >= vocab)
        };
        match self.ids.iter().position(outside) {
            None => Ok(()),
            Some(token) => {
                Err(Error::Label { token, label: self.ids[token], vocab, ignore: self.ignore })
            }
        }
    }
}

/// Labels for a causal model: position `t` is asked for the id at `t + 1`, and the last position
/// of each sequence, which has no next id, is ignored.
///
/// ```
/// use prefuse::batch::{Packing, shift_labels};
///
/// let packing = Packing::new(&[0, 3, 5])?;
/// assert_eq!(shift_labels(&[7, 8, 9, 4, 5], &packing, -100)?, [8, 9, -100, 5, -100]);
/// # Ok::<(), prefuse::Error>(())
/// ```
///
/// # Errors
/// `ids` of another length than the pack.
pub fn shift_labels(ids: &[i64], packing: &Packing, ignore: i64) -> Result<Vec<i64>> {
    if ids.len() != packing.tokens() {
        return Err(Error::Length { what: "ids", expected: packing.tokens(), got: ids.len() });
    }
    let mut labels = Vec::with_capacity(ids.len());
    for range in packing.ranges() {
        if !range.is_empty() {
            labels.extend_from_slice(&ids[range.start + 1..range.end]);
            labels.push(ignore);
        }
    }
    Ok(labels)
}
