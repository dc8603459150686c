//! Which sequences are compared.

use std::borrow::Cow;

use super::values::check_pairs;
use super::{same_length, with_capacity};
use crate::error::{Error, Result};
use crate::objectives::{Domain, FINITE, POSITIVE, PROBABILITY};

/// Pairs of a preferred and a dispreferred sequence, and numbers that a dataset may give for each.
///
/// A sequence may stand in several pairs; its gradients add in pair order.
#[derive(Clone, Debug, PartialEq)]
pub struct Pairs<'a> {
    indices: Cow<'a, [(usize, usize)]>,
    beta: Option<Cow<'a, [f64]>>,
    margin: Option<Cow<'a, [f64]>>,
    soft_label: Option<Cow<'a, [f64]>>,
    weight: Option<Cow<'a, [f64]>>,
    verdicts: Option<Cow<'a, [(usize, usize)]>>,
}

/// What a sequence is in its pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Chosen,
    Rejected,
}

impl<'a> Pairs<'a> {
    /// From `(chosen, rejected)` sequence indices.
    ///
    /// # Errors
    /// No pairs, or a pair of a sequence with itself. That the sequences exist is checked by
    /// [`Batch::with_pairs`](crate::batch::Batch::with_pairs).
    pub fn new(indices: impl Into<Cow<'a, [(usize, usize)]>>) -> Result<Self> {
        let indices = indices.into();
        if indices.is_empty() {
            return Err(Error::TooFew { what: "pairs", expected: 1, got: 0 });
        }
        if let Some(pair) = indices.iter().position(|(chosen, rejected)| chosen == rejected) {
            return Err(Error::PairOfSame { pair, sequence: indices[pair].0 });
        }
        Ok(Self {
            indices,
            beta: None,
            margin: None,
            soft_label: None,
            weight: None,
            verdicts: None,
        })
    }

    /// All chosen sequences first, then all rejected ones: pair `i` is `(i, pairs + i)`
    /// (TRL, Liger, OpenRLHF, LLaMA-Factory).
    ///
    /// # Errors
    /// No pairs, or more than fit in memory.
    pub fn halves(pairs: usize) -> Result<Pairs<'static>> {
        let mut indices = with_capacity("pairs", pairs)?;
        indices.extend((0..pairs).map(|pair| (pair, pairs + pair)));
        Pairs::new(indices)
    }

    /// Chosen and rejected in turn: pair `i` is `(2 i, 2 i + 1)` (NeMo-RL, packed NeMo-Aligner).
    ///
    /// # Errors
    /// No pairs, or more than fit in memory.
    pub fn interleaved(pairs: usize) -> Result<Pairs<'static>> {
        let mut indices = with_capacity("pairs", pairs)?;
        indices.extend((0..pairs).map(|pair| (2 * pair, 2 * pair + 1)));
        Pairs::new(indices)
    }

    /// `[pairs]` factors of the objective's beta; neutral 1.
    ///
    /// # Errors
    /// Another length, or a factor outside 1e-30 to 1e30.
    pub fn with_beta(mut self, beta: impl Into<Cow<'a, [f64]>>) -> Result<Self> {
        self.beta = Some(self.checked("beta", beta.into(), POSITIVE)?);
        Ok(self)
    }

    /// `[pairs]` margins, subtracted inside the link function; neutral 0.
    ///
    /// # Errors
    /// Another length, or a margin that is not finite.
    pub fn with_margin(mut self, margin: impl Into<Cow<'a, [f64]>>) -> Result<Self> {
        self.margin = Some(self.checked("margin", margin.into(), FINITE)?);
        Ok(self)
    }

    /// `[pairs]` probabilities that the chosen sequence really is the preferred one; neutral 1.
    ///
    /// # Errors
    /// Another length, or a number outside 0 to 1.
    pub fn with_soft_label(mut self, soft_label: impl Into<Cow<'a, [f64]>>) -> Result<Self> {
        self.soft_label = Some(self.checked("soft label", soft_label.into(), PROBABILITY)?);
        Ok(self)
    }

    /// `[pairs]` factors of the losses; neutral 1. Negative factors are allowed.
    ///
    /// # Errors
    /// Another length, or a factor that is not finite.
    pub fn with_weight(mut self, weight: impl Into<Cow<'a, [f64]>>) -> Result<Self> {
        self.weight = Some(self.checked("weight", weight.into(), FINITE)?);
        Ok(self)
    }

    /// `[pairs]` sequences of a judge's two verdicts: that the chosen and that the rejected sequence
    /// is better, after a prompt that shows both; for objectives over judged pairs. Where a verdict is
    /// one token, both are labels of the same row, which then stands in the pack twice, and its
    /// gradient is the sum of the two.
    ///
    /// # Errors
    /// Another length, or two verdicts in one sequence. That the sequences exist is checked by
    /// [`Batch::with_pairs`](crate::batch::Batch::with_pairs).
    pub fn with_verdicts(mut self, verdicts: impl Into<Cow<'a, [(usize, usize)]>>) -> Result<Self> {
        let verdicts = verdicts.into();
        same_length("verdicts", self.len(), verdicts.len())?;
        if let Some(pair) = verdicts.iter().position(|(chosen, rejected)| chosen == rejected) {
            return Err(Error::PairOfSame { pair, sequence: verdicts[pair].0 });
        }
        self.verdicts = Some(verdicts);
        Ok(self)
    }

    /// The number of pairs.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Always false: a list of pairs has at least one.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// `(chosen, rejected)` sequence indices.
    pub fn indices(&self) -> &[(usize, usize)] {
        &self.indices
    }

    /// Sequences of the verdicts for chosen and rejected, if any.
    pub fn verdicts(&self) -> Option<&[(usize, usize)]> {
        self.verdicts.as_deref()
    }

    /// Beta, margin, soft label and weight of each pair, as far as they are given: what a statistic has set,
    /// for a binding that hands them on.
    pub fn inputs(&self) -> [Option<&[f64]>; 4] {
        [&self.beta, &self.margin, &self.soft_label, &self.weight].map(Option::as_deref)
    }

    /// A copy that owns its data.
    pub fn into_owned(self) -> Pairs<'static> {
        let owned = |values: Option<Cow<'_, [f64]>>| values.map(|v| Cow::Owned(v.into_owned()));
        Pairs {
            indices: Cow::Owned(self.indices.into_owned()),
            beta: owned(self.beta),
            margin: owned(self.margin),
            soft_label: owned(self.soft_label),
            weight: owned(self.weight),
            verdicts: self.verdicts.map(|verdicts| Cow::Owned(verdicts.into_owned())),
        }
    }

    /// The role of each sequence, if it stands in a pair.
    ///
    /// # Errors
    /// A pair beyond the sequences, or a sequence that is chosen in one pair and rejected in another.
    pub(crate) fn roles(&self, sequences: usize) -> Result<Vec<Option<Role>>> {
        self.check(sequences)?;
        let mut roles = vec![None; sequences];
        for &(chosen, rejected) in self.indices() {
            for (sequence, role) in [(chosen, Role::Chosen), (rejected, Role::Rejected)] {
                match roles[sequence].replace(role) {
                    Some(other) if other != role => return Err(Error::TwoRoles { sequence }),
                    _ => {}
                }
            }
        }
        Ok(roles)
    }

    pub(crate) fn check(&self, sequences: usize) -> Result<()> {
        let verdicts = self.verdicts().unwrap_or_default().iter().enumerate();
        let of_verdicts = ["verdict for chosen", "verdict for rejected"];
        let pairs = self.indices.iter().enumerate().map(|pair| (["chosen", "rejected"], pair));
        let all = pairs.chain(verdicts.map(|verdict| (of_verdicts, verdict)));
        for (roles, (pair, &(chosen, rejected))) in all {
            for (role, got) in roles.into_iter().zip([chosen, rejected]) {
                if got >= sequences {
                    return Err(Error::PairIndex { role, pair, sequences, got });
                }
            }
        }
        Ok(())
    }

    fn checked(
        &self,
        input: &'static str,
        values: Cow<'a, [f64]>,
        domain: Domain,
    ) -> Result<Cow<'a, [f64]>> {
        same_length(input, self.len(), values.len())?;
        check_pairs(input, &values, domain)?;
        Ok(values)
    }
}
