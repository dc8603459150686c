//! Which sequences answer one prompt.

use std::borrow::Cow;

use super::Pairs;
use crate::error::{Error, Result};

/// What is wrong with groups.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GroupsError {
    /// No groups.
    #[error("groups: expected at least 1, got 0")]
    None,
    /// A group that compares nothing.
    #[error("group {group}: expected at least 2 sequences, got {got}")]
    Size {
        /// The group.
        group: usize,
        /// Its sequences.
        got: usize,
    },
    /// A sequence that stands in two groups, or twice in one.
    #[error("group member {position}: expected each sequence once, got {sequence} again")]
    Member {
        /// Position among all members.
        position: usize,
        /// The sequence.
        sequence: usize,
    },
    /// The factor of a group's loss.
    #[error("weight of group {group}: expected a finite number, got {got}")]
    Weight {
        /// The group.
        group: usize,
        /// The number found.
        got: f64,
    },
    /// Responses that do not stand best first.
    #[error(
        "{objective}: expected the scores of group {group} best first, got {got} after {previous} at {position}"
    )]
    Order {
        /// The objective's name.
        objective: &'static str,
        /// The group.
        group: usize,
        /// Position within the group.
        position: usize,
        /// The score before.
        previous: f64,
        /// The score found.
        got: f64,
    },
}

/// Groups of sequences, each the responses to one prompt: ragged, of at least 2. A sequence stands in one
/// group at most.
#[derive(Clone, Debug, PartialEq)]
pub struct Groups<'a> {
    members: Cow<'a, [usize]>,
    /// `[groups + 1]` where each group's part of the members begins.
    offsets: Vec<usize>,
    weight: Option<Cow<'a, [f64]>>,
}

impl<'a> Groups<'a> {
    /// Groups of `sizes`, one after another in `members`.
    ///
    /// # Errors
    /// No groups, a group of fewer than 2, sizes that do not add up to the members, or a sequence that
    /// stands twice.
    pub fn new(members: impl Into<Cow<'a, [usize]>>, sizes: &[usize]) -> Result<Self> {
        let members = members.into();
        if sizes.is_empty() {
            return Err(GroupsError::None.into());
        }
        let mut offsets = vec![0];
        let mut end = 0_usize;
        for (group, &size) in sizes.iter().enumerate() {
            if size < 2 {
                return Err(GroupsError::Size { group, got: size }.into());
            }
            end = end.saturating_add(size);
            offsets.push(end);
        }
        super::same_length("group members", end, members.len())?;
        let mut seen: Vec<(usize, usize)> =
            members.iter().enumerate().map(|(position, &sequence)| (sequence, position)).collect();
        seen.sort_unstable();
        if let Some(twice) = seen.windows(2).find(|two| two[0].0 == two[1].0) {
            let (sequence, position) = twice[1];
            return Err(GroupsError::Member { sequence, position }.into());
        }
        Ok(Self { members, offsets, weight: None })
    }

    /// Groups of sequences in the pack's order: the first of `sizes[0]`, and so on.
    ///
    /// # Errors
    /// As [`new`](Self::new), or more than fit in memory.
    pub fn consecutive(sizes: &[usize]) -> Result<Groups<'static>> {
        let count = sizes.iter().fold(0_usize, |sum, &size| sum.saturating_add(size));
        let mut members = super::with_capacity("group members", count)?;
        members.extend(0..count);
        Groups::new(members, sizes)
    }

    /// `[groups]` factors of the losses; neutral 1. Negative factors are allowed.
    ///
    /// # Errors
    /// Another length, or a factor that is not finite.
    pub fn with_weight(mut self, weight: impl Into<Cow<'a, [f64]>>) -> Result<Self> {
        let weight = weight.into();
        super::same_length("weight", self.len(), weight.len())?;
        if let Some(group) = weight.iter().position(|weight| !weight.is_finite()) {
            return Err(GroupsError::Weight { group, got: weight[group] }.into());
        }
        self.weight = Some(weight);
        Ok(self)
    }

    /// The number of groups.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Always false: there is at least one group.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The sequences of a group, if there is one of this index.
    pub fn get(&self, group: usize) -> Option<&[usize]> {
        let end = *self.offsets.get(group.checked_add(1)?)?;
        Some(&self.members[self.offsets[group]..end])
    }

    /// The sequences of each group, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[usize]> {
        self.offsets.windows(2).map(|bounds| &self.members[bounds[0]..bounds[1]])
    }

    /// All pairs within the groups whose scores differ, the higher the chosen one: for losses that are
    /// sums or means over pairs of ranked responses (RRHF, TRPA, MORE, all-pairs Bradley-Terry).
    /// `scores` are by sequence. Each member is compared with those after it, in order.
    ///
    /// # Errors
    /// A score for another number of sequences than the members name, one that is NaN, or no two that
    /// differ.
    pub fn pairs(&self, scores: &[f64]) -> Result<Pairs<'static>> {
        let beyond = self.members.iter().position(|&sequence| sequence >= scores.len());
        if let Some(position) = beyond {
            return Err(Error::SequenceIndex {
                what: "group member",
                position,
                sequences: scores.len(),
                got: self.members[position],
            });
        }
        if let Some(&sequence) = self.members.iter().find(|&&sequence| scores[sequence].is_nan()) {
            let (input, expected) = ("score", "a number");
            return Err(Error::SequenceInput { input, sequence, expected, got: f64::NAN });
        }
        let mut pairs = vec![];
        for group in self.iter() {
            for (position, &first) in group.iter().enumerate() {
                for &second in &group[position + 1..] {
                    if scores[first] > scores[second] {
                        pairs.push((first, second));
                    } else if scores[first] < scores[second] {
                        pairs.push((second, first));
                    }
                }
            }
        }
        Pairs::new(pairs)
    }

    /// `[groups]` factors of the losses, if any.
    pub(crate) fn weight(&self) -> Option<&[f64]> {
        self.weight.as_deref()
    }

    pub(crate) fn members(&self) -> &[usize] {
        &self.members
    }

    /// `[groups + 1]` where each group's part of the members begins.
    pub(crate) fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// A copy that owns its data.
    pub fn into_owned(self) -> Groups<'static> {
        Groups {
            members: Cow::Owned(self.members.into_owned()),
            offsets: self.offsets,
            weight: self.weight.map(|weight| Cow::Owned(weight.into_owned())),
        }
    }

    pub(crate) fn check(&self, sequences: usize) -> Result<()> {
        match self.members.iter().position(|&sequence| sequence >= sequences) {
            None => Ok(()),
            Some(position) => {
                let got = self.members[position];
                Err(Error::SequenceIndex { what: "group member", position, sequences, got })
            }
        }
    }
}
