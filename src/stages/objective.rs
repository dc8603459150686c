use super::{Totals, least_length, same_length, same_values};
use crate::backend::Backend;
use crate::batch::{Batch, Pairs};
use crate::element::DType;
use crate::error::Result;
use crate::memory::{Slice, SliceMut};
use crate::objectives::{Pair, Response, Sequence};
use crate::term::{Over, Resolved};

/// The inputs and outputs of stage 3, for one term.
#[derive(Debug)]
pub struct Objective<'a> {
    term: &'a Resolved,
    pairs: Option<&'a Pairs<'a>>,
    policy: Totals<'a>,
    reference: Option<Slice<'a>>,
    pub(crate) outputs: ObjectiveOutputs<'a>,
    pub(crate) scratch: SliceMut<'a>,
}

/// Where stage 3 writes; all f64.
#[derive(Debug)]
pub struct ObjectiveOutputs<'a> {
    /// `[units]` losses, times the weight of the pair.
    pub losses: SliceMut<'a>,
    /// `[2 * units]` rewards: of chosen and rejected for a pair, of the response and 0 for a
    /// sequence.
    pub rewards: SliceMut<'a>,
    /// `[1]` the losses under the term's reduction, times its weight.
    pub value: SliceMut<'a>,
    /// `[sequences]` gradients, which are added to, and the scale of each unit's.
    pub grads: Option<(SliceMut<'a>, UnitScale<'a>)>,
}

/// How much each unit's loss weighs in the gradient.
#[derive(Clone, Copy, Debug)]
pub enum UnitScale<'a> {
    /// As in the term's value, times this upstream gradient.
    Reduced(f64),
    /// `[units]` upstream gradients by the losses themselves.
    Given(&'a [f64]),
}

/// What an objective said about one unit. A sequence has one response, the second is 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnitResult {
    /// The loss, times the weight of the pair.
    pub loss: f64,
    /// The derivative of that by the policy's sum of each response.
    pub grads: [f64; 2],
    /// The reward of each response.
    pub rewards: [f64; 2],
}

impl<'a> Objective<'a> {
    /// One term over its units.
    ///
    /// # Errors
    /// A length that does not fit, a buffer that is not f64, or too little scratch.
    pub fn new(
        backend: &dyn Backend,
        batch: &'a Batch<'_>,
        term: &'a Resolved,
        (policy, reference): (Totals<'a>, Option<Slice<'a>>),
        outputs: ObjectiveOutputs<'a>,
        scratch: SliceMut<'a>,
    ) -> Result<Self> {
        let (sequences, units) = (batch.packing().sequences(), term.units());
        policy.check(sequences)?;
        if let Some(sums) = reference {
            same_values("reference sums", sums, DType::F64, sequences)?;
        }
        same_values("losses", outputs.losses.as_slice(), DType::F64, units)?;
        same_values("rewards", outputs.rewards.as_slice(), DType::F64, 2 * units)?;
        same_values("value", outputs.value.as_slice(), DType::F64, 1)?;
        if let Some((grads, scale)) = &outputs.grads {
            same_values("sequence grads", grads.as_slice(), DType::F64, sequences)?;
            if let UnitScale::Given(scale) = scale {
                same_length("upstream gradient", units, scale.len())?;
            }
        }
        least_length("scratch of objective", backend.objective_scratch(units), scratch.len())?;
        Ok(Self { term, pairs: batch.pairs(), policy, reference, outputs, scratch })
    }

    pub(crate) fn inputs(&self) -> UnitInputs<'a> {
        let Self { term, pairs, policy, reference, .. } = *self;
        UnitInputs { term, pairs, policy, reference }
    }
}

/// What stage 3 reads, apart from what it writes.
#[derive(Clone, Copy)]
pub(crate) struct UnitInputs<'a> {
    term: &'a Resolved,
    pairs: Option<&'a Pairs<'a>>,
    policy: Totals<'a>,
    reference: Option<Slice<'a>>,
}

impl UnitInputs<'_> {
    pub(crate) fn units(&self) -> usize {
        self.term.units()
    }

    /// The sequences of a unit's responses.
    pub(crate) fn members(&self, unit: usize) -> &[usize] {
        self.term.members(unit)
    }

    pub(crate) fn evaluate(&self, unit: usize) -> UnitResult {
        match (self.term.over(), self.term.members(unit), self.pairs) {
            (Over::Pairs(objective), &[chosen, rejected], Some(pairs)) => {
                let evaluation = objective.evaluate(&Pair {
                    chosen: self.response(chosen),
                    rejected: self.response(rejected),
                    beta: pairs.beta(unit),
                    margin: pairs.margin(unit),
                    soft_label: pairs.soft_label(unit),
                });
                let (weight, grad) = (pairs.weight(unit), evaluation.grad);
                UnitResult {
                    loss: weighted(weight, evaluation.loss),
                    grads: [weighted(weight, grad.chosen), weighted(weight, grad.rejected)],
                    rewards: [evaluation.reward.chosen, evaluation.reward.rejected],
                }
            }
            (Over::Sequences(objective, _), &[sequence], _) => {
                let response = self.response(sequence);
                let evaluation = objective.evaluate(&Sequence { response });
                UnitResult {
                    loss: evaluation.loss,
                    grads: [evaluation.grad.response, 0.0],
                    rewards: [evaluation.reward.response, 0.0],
                }
            }
            _ => unreachable!("a resolved term's units have the members of their kind"),
        }
    }

    /// What the sum of the losses is multiplied with in the term's value.
    pub(crate) fn factor(&self) -> f64 {
        let members = (0..self.units()).flat_map(|unit| self.members(unit));
        let tokens = members.map(|&sequence| self.policy.tokens.get(sequence)).sum();
        self.term.factor(tokens)
    }

    fn response(&self, sequence: usize) -> Response {
        Response {
            policy: self.policy.sums.get(sequence),
            reference: self.reference.map_or(0.0, |sums| sums.get(sequence)),
            tokens: self.policy.tokens.get(sequence),
            weights: self.policy.weights.get(sequence),
        }
    }
}

impl UnitScale<'_> {
    /// The factor of a unit's gradient, where `factor` is that of its loss in the term's value.
    pub(crate) fn of(self, unit: usize, factor: f64) -> f64 {
        match self {
            Self::Reduced(upstream) => upstream * factor,
            Self::Given(upstream) => upstream[unit],
        }
    }
}

/// A weight of 0 takes a unit out of the batch, whatever its loss is.
fn weighted(weight: f64, value: f64) -> f64 {
    if weight == 0.0 { 0.0 } else { weight * value }
}
