//! What the caller hands over, checked when it is made, so that the stages need not.

mod advantages;
mod combination;
mod groups;
mod labels;
mod logits;
mod packing;
mod pairs;
mod reference;
mod sentences;
mod values;
mod weights;

pub use advantages::Advantages;
pub use combination::Combination;
pub(crate) use combination::MOST_PARTS;
pub use groups::{Groups, GroupsError};
pub use labels::{Labels, shift_labels};
pub(crate) use logits::Shape;
pub use logits::{Logits, LogitsMut};
pub use packing::{Offset, Packing};
pub use pairs::Pairs;
pub(crate) use pairs::Role;
pub use reference::ReferenceLogProbs;
pub use sentences::{Sentence, Unlabelled};
pub(crate) use values::{check_pairs, check_sequences};
pub use weights::Weights;

use std::borrow::Cow;

use crate::error::{Error, Result};
use crate::objectives::{Domain, FINITE, PROBABILITY};

/// An empty vector for `len` elements.
///
/// # Errors
/// A length from the caller that no memory holds.
pub(crate) fn with_capacity<T>(what: &'static str, len: usize) -> Result<Vec<T>> {
    let mut list = Vec::new();
    list.try_reserve_exact(len).map_err(|_| Error::OutOfMemory { what, got: len })?;
    Ok(list)
}

/// Everything about a batch but its logits: labels, sequences, and what is known about them.
///
/// Pairs may be there for no term, since losses share a batch, and so may reference log-probs, whose sums
/// [`Forward::reference_sums`](crate::Forward::reference_sums) are; a
/// [`ScalarLoss`](crate::ScalarLoss), which has no such sums, refuses a reference for no term. Everything else
/// that is given (scores, soft labels, weights, margins, old log-probs, advantages, groups, verdicts) has
/// to be looked at by some term, and what is given for pairs by every term over them: a number that
/// changes nothing would be lost in silence.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    labels: Labels<'a>,
    packing: Packing,
    weights: Option<Weights<'a>>,
    reference: Option<ReferenceLogProbs<'a>>,
    old: Option<ReferenceLogProbs<'a>>,
    advantages: Option<Advantages<'a>>,
    groups: Option<Groups<'a>>,
    pairs: Option<Pairs<'a>>,
    /// What the dataset says of each sequence: score, soft label, weight.
    given: [Option<Cow<'a, [f64]>>; 3],
    /// Whether there are no tokens, but one number for each sequence.
    scalar: bool,
}

impl<'a> Batch<'a> {
    /// Labels and the sequences that they stand in.
    ///
    /// # Errors
    /// No tokens, or a packing that ends elsewhere than the labels.
    pub fn new(labels: Labels<'a>, packing: Packing) -> Result<Self> {
        if labels.is_empty() {
            return Err(Error::TooFew { what: "tokens", expected: 1, got: 0 });
        }
        if packing.tokens() != labels.len() {
            return Err(Error::CuSeqlensEnd { tokens: labels.len(), got: packing.tokens() });
        }
        Ok(Self {
            labels,
            packing,
            weights: None,
            reference: None,
            old: None,
            advantages: None,
            groups: None,
            pairs: None,
            given: [None, None, None],
            scalar: false,
        })
    }

    /// A batch without tokens, for [`ScalarLoss`](crate::ScalarLoss): of each sequence one number is
    /// known, a reward or a sum of log-probs.
    ///
    /// # Errors
    /// No sequences, or more than fit in memory.
    pub fn of_sequences(sequences: usize) -> Result<Self> {
        let packing = Packing::padded(sequences, 1)?;
        let mut labels = with_capacity("sequences", sequences)?;
        labels.resize(sequences, Labels::IGNORE);
        Ok(Self { scalar: true, ..Self::new(Labels::new(labels), packing)? })
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

    /// Adds groups of responses to one prompt.
    ///
    /// # Errors
    /// A group that names a sequence beyond the packing.
    pub fn with_groups(mut self, groups: Groups<'a>) -> Result<Self> {
        groups.check(self.packing.sequences())?;
        self.groups = Some(groups);
        Ok(self)
    }

    /// Adds the log-probs of the policy that sampled the tokens, per token, for objectives on tokens.
    /// Without them that policy is the current one.
    ///
    /// # Errors
    /// Another length than the labels, or sums per sequence.
    pub fn with_old(mut self, old: ReferenceLogProbs<'a>) -> Result<Self> {
        match old.tokens() {
            Some(log_probs) => same_length("old log-probs", self.tokens(), log_probs.len())?,
            None => {
                let (expected, got) = ("old log-probs per token", "sums per sequence");
                return Err(Error::BatchKind { expected, got });
            }
        }
        self.old = Some(old);
        Ok(self)
    }

    /// Adds advantages, for objectives on tokens.
    ///
    /// # Errors
    /// Another length than the sequences, or than the labels (per token).
    pub fn with_advantages(mut self, advantages: Advantages<'a>) -> Result<Self> {
        let expected = match advantages.is_per_token() {
            true => self.tokens(),
            false => self.packing.sequences(),
        };
        same_length("advantages", expected, advantages.slice().len())?;
        self.advantages = Some(advantages);
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

    /// Adds `[sequences]` scores: what a judge or another model said of each sequence. Each objective
    /// that uses them says what they are: rewards, win probabilities, average log-probs.
    ///
    /// # Errors
    /// Another length, or a score that is not finite.
    pub fn with_scores(mut self, scores: impl Into<Cow<'a, [f64]>>) -> Result<Self> {
        self.given[0] = Some(self.checked("score", scores.into(), FINITE)?);
        Ok(self)
    }

    /// Adds `[sequences]` probabilities that a sequence is desirable, for objectives over single
    /// sequences such as KTO: 1 or 0 where the label is certain.
    ///
    /// # Errors
    /// Another length, or a number outside 0 to 1.
    pub fn with_soft_labels(mut self, soft_labels: impl Into<Cow<'a, [f64]>>) -> Result<Self> {
        self.given[1] = Some(self.checked("soft label", soft_labels.into(), PROBABILITY)?);
        Ok(self)
    }

    /// Adds `[sequences]` factors of the losses of terms over single sequences; negative ones are
    /// allowed, and 0 takes a sequence out of the sum of the losses and out of the gradient, but not out of
    /// the count that a mean divides by: for that select the others.
    ///
    /// # Errors
    /// Another length, or a factor that is not finite.
    pub fn with_sequence_weights(mut self, weights: impl Into<Cow<'a, [f64]>>) -> Result<Self> {
        self.given[2] = Some(self.checked("weight", weights.into(), FINITE)?);
        Ok(self)
    }

    fn checked(
        &self,
        input: &'static str,
        values: Cow<'a, [f64]>,
        domain: Domain,
    ) -> Result<Cow<'a, [f64]>> {
        same_length(input, self.packing.sequences(), values.len())?;
        check_sequences(input, &values, domain)?;
        Ok(values)
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

    /// The log-probs of the policy that sampled the tokens, if any.
    pub fn old(&self) -> Option<&ReferenceLogProbs<'a>> {
        self.old.as_ref()
    }

    /// The advantages, if any.
    pub fn advantages(&self) -> Option<&Advantages<'a>> {
        self.advantages.as_ref()
    }

    /// The groups, if any.
    pub fn groups(&self) -> Option<&Groups<'a>> {
        self.groups.as_ref()
    }

    /// The pairs, if any.
    pub fn pairs(&self) -> Option<&Pairs<'a>> {
        self.pairs.as_ref()
    }

    /// `[sequences]` scores, if any.
    pub fn scores(&self) -> Option<&[f64]> {
        self.given[0].as_deref()
    }

    /// `[sequences]` probabilities that a sequence is desirable, if any.
    pub fn soft_labels(&self) -> Option<&[f64]> {
        self.given[1].as_deref()
    }

    /// `[sequences]` factors of the losses of terms over single sequences, if any.
    pub fn sequence_weights(&self) -> Option<&[f64]> {
        self.given[2].as_deref()
    }

    /// A copy that owns its data, in host memory.
    ///
    /// # Errors
    /// Reading a device.
    pub fn into_owned(self) -> Result<Batch<'static>> {
        Ok(Batch {
            given: self.given.map(|values| values.map(|values| Cow::Owned(values.into_owned()))),
            scalar: self.scalar,
            labels: self.labels.into_owned()?,
            packing: self.packing,
            weights: self.weights.map(Weights::into_owned).transpose()?,
            reference: self.reference.map(ReferenceLogProbs::into_owned).transpose()?,
            old: self.old.map(ReferenceLogProbs::into_owned).transpose()?,
            advantages: self.advantages.map(Advantages::into_owned).transpose()?,
            groups: self.groups.map(Groups::into_owned),
            pairs: self.pairs.map(Pairs::into_owned),
        })
    }

    /// What no single constructor can see: whether there are tokens, that sums under token weights belong
    /// to a batch with them, and that the advantages of tokens that count are numbers.
    pub(crate) fn check(&self, scalar: bool) -> Result<()> {
        let kind = |scalar| if scalar { "one of Batch::of_sequences" } else { "one with tokens" };
        if scalar != self.scalar {
            return Err(Error::BatchKind { expected: kind(scalar), got: kind(self.scalar) });
        }
        if scalar && self.weights.is_some() {
            let expected = "no token weights, for which pairs have Pairs::with_weight";
            return Err(Error::BatchKind { expected, got: "token weights" });
        }
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
