//! What the caller hands over, checked when it is made, so that the stages need not.

mod labels;
mod logits;
mod packing;
mod pairs;
mod reference;
mod sentences;
mod values;
mod weights;

pub use labels::{Labels, shift_labels};
pub(crate) use logits::Shape;
pub use logits::{Logits, LogitsMut};
pub use packing::{Offset, Packing};
pub use pairs::Pairs;
pub use reference::ReferenceLogProbs;
pub use sentences::{Sentence, Unlabelled};
pub use weights::Weights;

use crate::error::{Error, Result};

/// An empty vector for `len` elements.
///
/// # Errors
/// A length from the caller that no memory holds.
fn with_capacity<T>(what: &'static str, len: usize) -> Result<Vec<T>> {
    let mut list = Vec::new();
    list.try_reserve_exact(len).map_err(|_| Error::OutOfMemory { what, got: len })?;
    Ok(list)
}

/// Everything about a batch but its logits: labels, sequences, and what is known about them.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    labels: Labels<'a>,
    packing: Packing,
    weights: Option<Weights<'a>>,
    reference: Option<ReferenceLogProbs<'a>>,
    pairs: Option<Pairs<'a>>,
}

impl<'a> Batch<'a> {
    /// Labels and the sequences that they stand in.
    ///
    /// # Errors
    /// No tokens, or a packing that ends elsewhere than the labels.
    pub fn new(labels: Labels<'a>, packing: Packing) -> Result<Self> {
        if labels.is_empty() {
            return Err(Error::NoTokens);
        }
        if packing.tokens() != labels.len() {
            return Err(Error::CuSeqlensEnd { tokens: labels.len(), got: packing.tokens() });
        }
        Ok(Self { labels, packing, weights: None, reference: None, pairs: None })
    }

    /// Adds token weights.
    ///
    /// # Errors
    /// Another length than the labels.
    pub fn with_weights(mut self, weights: Weights<'a>) -> Result<Self> {
        same_length("token weights", self.tokens(), weights.slice().len())?;
        self.weights = Some(weights);
        Ok(self)
    }

    /// Adds the reference model's log-probs.
    ///
    /// # Errors
    /// Another length than the labels (per token) or the sequences (per sequence).
    pub fn with_reference(mut self, reference: ReferenceLogProbs<'a>) -> Result<Self> {
        if let Some(log_probs) = reference.tokens() {
            same_length("reference log-probs", self.tokens(), log_probs.len())?;
        }
        if let Some((sums, _)) = reference.sums() {
            same_length("reference sums", self.packing.sequences(), sums.len())?;
        }
        self.reference = Some(reference);
        Ok(self)
    }

    /// Adds pairs.
    ///
    /// # Errors
    /// A pair that names a sequence beyond the packing.
    pub fn with_pairs(mut self, pairs: Pairs<'a>) -> Result<Self> {
        pairs.check(self.packing.sequences())?;
        self.pairs = Some(pairs);
        Ok(self)
    }

    /// The number of tokens.
    pub fn tokens(&self) -> usize {
        self.labels.len()
    }

    /// The labels.
    pub fn labels(&self) -> &Labels<'a> {
        &self.labels
    }

    /// The sequences.
    pub fn packing(&self) -> &Packing {
        &self.packing
    }

    /// The token weights, if any.
    pub fn weights(&self) -> Option<&Weights<'a>> {
        self.weights.as_ref()
    }

    /// The reference log-probs, if any.
    pub fn reference(&self) -> Option<&ReferenceLogProbs<'a>> {
        self.reference.as_ref()
    }

    /// The pairs, if any.
    pub fn pairs(&self) -> Option<&Pairs<'a>> {
        self.pairs.as_ref()
    }

    /// A copy that owns its data, in host memory.
    ///
    /// # Errors
    /// Reading a device.
    pub fn into_owned(self) -> Result<Batch<'static>> {
        Ok(Batch {
            labels: self.labels.into_owned()?,
            packing: self.packing,
            weights: self.weights.map(Weights::into_owned).transpose()?,
            reference: self.reference.map(ReferenceLogProbs::into_owned).transpose()?,
            pairs: self.pairs.map(Pairs::into_owned),
        })
    }

    /// What no single constructor can see: sums under token weights belong to a batch with them.
    pub(crate) fn check(&self) -> Result<()> {
        let declared = self.reference.as_ref().and_then(ReferenceLogProbs::sums);
        match (self.weights.is_some(), declared.map(|(_, weighted)| weighted)) {
            (true, Some(false)) => Err(Error::ReferenceWeights {
                expected: "sums under the batch's token weights",
                got: "per_sequence",
            }),
            (false, Some(true)) => Err(Error::ReferenceWeights {
                expected: "sums of a batch without token weights",
                got: "per_sequence_weighted",
            }),
            _ => Ok(()),
        }
    }
}

pub(crate) fn same_length(what: &'static str, expected: usize, got: usize) -> Result<()> {
    if expected == got { Ok(()) } else { Err(Error::Length { what, expected, got }) }
}
