//! What each row of the logits is asked for.

use std::borrow::Cow;

use super::values::Values;
use crate::batch::Packing;
use crate::error::{Error, Result};
use crate::memory::Slice;

/// `[tokens]` labels: `labels[t]` is what `logits[t]` predicts.
#[derive(Clone, Debug)]
pub struct Labels<'a> {
    ids: Values<'a, i64>,
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
        Self { ids: Values::Host(ids.into()), ignore: Self::IGNORE }
    }

    /// Labels, i64, in host memory or in that of the backend that will read them.
    ///
    /// On a device a label outside the vocabulary is found by stages 1 and 4: the call writes nothing,
    /// and the error comes where the host next waits for that backend.
    ///
    /// # Errors
    /// Another element type.
    pub fn from_slice(ids: Slice<'a>) -> Result<Self> {
        Ok(Self { ids: Values::from_slice("labels", ids)?, ignore: Self::IGNORE })
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
        self.len() == 0
    }

    /// The labels.
    pub fn slice(&self) -> Slice<'_> {
        self.ids.slice()
    }

    /// The value that marks ignored tokens.
    pub fn ignore(&self) -> i64 {
        self.ignore
    }

    /// A copy that owns its data, in host memory.
    ///
    /// # Errors
    /// Reading a device.
    pub fn into_owned(self) -> Result<Labels<'static>> {
        Ok(Labels { ids: self.ids.into_owned()?, ignore: self.ignore })
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
