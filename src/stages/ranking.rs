use super::objective::{check_grads, check_sums, columns};
use super::{BackendId, Totals, UnitScale, check_scratch, same_values};
use crate::backend::Backend;
use crate::batch::same_length;
use crate::element::DType;
use crate::error::Result;
use crate::memory::{Slice, SliceMut};
use crate::objectives::scalar::product;
use crate::objectives::{Columns, LossSum, Ranking as Of, Response};
use crate::placed::PlacedTerm;
use crate::resolved::{Over, Resolved};

/// The inputs and outputs of stage 3 for a term over groups.
#[derive(Debug)]
pub struct Ranking<'a> {
    pub(crate) backend: BackendId,
    pub(crate) term: &'a PlacedTerm,
    pub(crate) policy: Totals<'a>,
    pub(crate) reference: Option<Slice<'a>>,
    pub(crate) outputs: RankingOutputs<'a>,
    pub(crate) scratch: SliceMut<'a>,
}

/// Where stage 3 writes for a term over groups; all f64.
#[derive(Debug)]
pub struct RankingOutputs<'a> {
    /// `[groups]` losses, times the weight of the group.
    pub losses: SliceMut<'a>,
    /// `[sequences]` gradients, which are added to, and the scale of each group's.
    pub grads: Option<(SliceMut<'a>, UnitScale<'a>)>,
}

impl<'a> Ranking<'a> {
    /// One term over its groups.
    ///
    /// # Errors
    /// A term over other units, a length that does not fit, a buffer that is not f64, or too little
    /// scratch.
    pub fn new(
        backend: &dyn Backend,
        placed: &'a PlacedTerm,
        (policy, reference): (Totals<'a>, Option<Slice<'a>>),
        outputs: RankingOutputs<'a>,
        scratch: SliceMut<'a>,
    ) -> Result<Self> {
        let (place, term) = (backend.place(), placed.term());
        placed.check(place, Over::Groups)?;
        check_sums(placed, place, (policy, reference))?;
        let losses = outputs.losses.as_slice();
        same_values(place, "losses", losses, DType::F64, term.units())?;
        check_grads(placed, place, outputs.grads.as_ref())?;
        let needed = backend.ranking_scratch(term.all_members().len());
        check_scratch(place, "scratch of ranking", needed, &scratch)?;
        let backend = BackendId::of(backend);
        Ok(Self { backend, term: placed, policy, reference, outputs, scratch })
    }

    /// # Errors
    /// Sums of a device.
    pub(crate) fn inputs(&self) -> Result<GroupInputs<'a>> {
        let term = self.term.term();
        let Some((ranking, offsets)) = term.ranking() else {
            unreachable!("the constructor checked it")
        };
        let columns = columns(term, (self.policy, self.reference))?;
        Ok(GroupInputs { term, ranking, offsets, columns })
    }
}

/// What stage 3 reads of groups, apart from what it writes.
#[derive(Clone, Copy)]
pub(crate) struct GroupInputs<'a> {
    pub term: &'a Resolved,
    ranking: &'a Of,
    offsets: &'a [i64],
    columns: Columns<'a>,
}

impl GroupInputs<'_> {
    pub fn groups(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The sequences of a group.
    pub fn members(&self, group: usize) -> impl Iterator<Item = usize> {
        let bounds = self.offsets[group] as usize..self.offsets[group + 1] as usize;
        self.term.all_members()[bounds].iter().map(|&sequence| sequence as usize)
    }

    /// The loss of a group times its weight; its gradients by the members' sums, in `grads`.
    pub fn evaluate(&self, group: usize, grads: &mut Vec<f64>) -> f64 {
        let responses: Vec<Response> =
            self.members(group).map(|sequence| self.columns.response(sequence)).collect();
        let loss = self.ranking.evaluate(&responses, grads);
        let weight = self.term.unit_weight(group);
        grads.iter_mut().for_each(|grad| *grad = product(weight, *grad));
        product(weight, loss)
    }

    /// Counted tokens of all members.
    pub fn tokens(&self) -> f64 {
        let members = self.term.all_members().iter();
        members.map(|&sequence| self.columns.tokens[sequence as usize]).sum()
    }

    /// How much each of a group's losses weighs in the gradient.
    pub fn scale(&self, scale: UnitScale<'_>, group: usize, tokens: f64) -> f64 {
        match scale {
            UnitScale::Reduced(upstream) => {
                upstream * self.term.weight() / self.term.divisor(tokens)
            }
            UnitScale::Given(upstream) => upstream.get(group),
        }
    }
}

impl Resolved {
    /// The value of a term over groups: from the `[groups]` losses that stage 3 wrote, and the
    /// `[sequences]` counted tokens.
    ///
    /// # Errors
    /// Other lengths.
    pub fn group_value(&self, losses: &[f64], counts: &[f64]) -> Result<f64> {
        same_length("losses", self.units(), losses.len())?;
        self.check_counts(counts)?;
        let members = self.all_members().iter();
        let tokens = members.map(|&sequence| counts[sequence as usize]).sum();
        let mut sum = LossSum::default();
        losses.iter().for_each(|&loss| sum.add(loss));
        Ok(product(self.weight(), sum.over(self.divisor(tokens))))
    }
}
