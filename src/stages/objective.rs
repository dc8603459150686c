use super::{BackendId, Totals, check_scratch, same_values};
use crate::backend::Backend;
use crate::element::DType;
use crate::error::{Error, Result};
use crate::memory::{Place, Slice, SliceMut};
use crate::objectives::scalar::product;
use crate::objectives::{Columns, Evaluated, LossSum, MAX_RESPONSES, Reduction, Response};
use crate::placed::PlacedTerm;
use crate::resolved::{Over, Resolved};

/// The inputs and outputs of stage 3, for one term.
#[derive(Debug)]
pub struct Objective<'a> {
    pub(crate) backend: BackendId,
    pub(crate) term: &'a PlacedTerm,
    pub(crate) policy: Totals<'a>,
    pub(crate) reference: Option<Slice<'a>>,
    pub(crate) outputs: ObjectiveOutputs<'a>,
    pub(crate) scratch: SliceMut<'a>,
}

/// Where stage 3 writes; all f64.
#[derive(Debug)]
pub struct ObjectiveOutputs<'a> {
    /// `[units]` losses, times the weight of the unit.
    pub losses: SliceMut<'a>,
    /// `[2 * units]` implicit rewards: of chosen and rejected for a pair, of the response and 0 for a
    /// sequence or a reward.
    pub rewards: SliceMut<'a>,
    /// `[1]` the losses under the term's reduction, times its weight.
    pub value: SliceMut<'a>,
    /// `[sequences]` gradients, which are added to, and the scale of each unit's.
    pub grads: Option<(SliceMut<'a>, UnitScale<'a>)>,
}

/// How much each unit's loss weighs in the gradient.
#[non_exhaustive]
#[derive(Clone, Copy, Debug)]
pub enum UnitScale<'a> {
    /// As in the term's value, times this upstream gradient.
    Reduced(f64),
    /// `[units]` upstream gradients by the losses themselves.
    Given(Slice<'a>),
}

/// What an objective said about one unit, in the order of its responses, then zeros.
#[derive(Clone, Copy)]
pub(crate) struct UnitResult {
    /// The loss, times the weight of the unit.
    pub loss: f64,
    /// The derivative of that by the policy's sum of each response.
    pub grads: [f64; MAX_RESPONSES],
    /// The rewards of the first two responses.
    pub rewards: [f64; 2],
}

impl<'a> Objective<'a> {
    /// One term over its units.
    ///
    /// # Errors
    /// A term over tokens or groups, a length that does not fit, a buffer that is not f64, or too
    /// little scratch.
    pub fn new(
        backend: &dyn Backend,
        placed: &'a PlacedTerm,
        (policy, reference): (Totals<'a>, Option<Slice<'a>>),
        outputs: ObjectiveOutputs<'a>,
        scratch: SliceMut<'a>,
    ) -> Result<Self> {
        let (place, term) = (backend.place(), placed.term());
        placed.check(place, Over::Responses)?;
        let units = term.units();
        check_sums(placed, place, (policy, reference))?;
        same_values(place, "losses", outputs.losses.as_slice(), DType::F64, units)?;
        same_values(place, "rewards", outputs.rewards.as_slice(), DType::F64, 2 * units)?;
        same_values(place, "value", outputs.value.as_slice(), DType::F64, 1)?;
        check_grads(placed, place, outputs.grads.as_ref())?;
        let needed = backend.objective_scratch(term.all_members().len());
        check_scratch(place, "scratch of objective", needed, &scratch)?;
        let backend = BackendId::of(backend);
        Ok(Self { backend, term: placed, policy, reference, outputs, scratch })
    }

    /// # Errors
    /// Sums of a device.
    pub(crate) fn inputs(&self) -> Result<UnitInputs<'a>> {
        UnitInputs::new(self.term.term(), (self.policy, self.reference))
    }
}

/// # Errors
/// Sums that do not fit the term's batch, or a reference that the term lacks.
pub(super) fn check_sums(
    placed: &PlacedTerm,
    place: Place,
    (policy, reference): (Totals<'_>, Option<Slice<'_>>),
) -> Result<()> {
    let (term, sequences) = (placed.term(), placed.sequences());
    policy.check(place, sequences)?;
    match reference {
        Some(sums) => same_values(place, "reference sums", sums, DType::F64, sequences),
        None if term.uses_reference() => {
            Err(Error::Missing { objective: term.name(), what: "reference log-probs" })
        }
        None => Ok(()),
    }
}

/// # Errors
/// Gradients by the sums, or upstream gradients, that do not fit the term.
pub(super) fn check_grads(
    placed: &PlacedTerm,
    place: Place,
    grads: Option<&(SliceMut<'_>, UnitScale<'_>)>,
) -> Result<()> {
    let Some((grads, scale)) = grads else { return Ok(()) };
    same_values(place, "sequence grads", grads.as_slice(), DType::F64, placed.sequences())?;
    scale.check(place, placed.term().units())
}

impl UnitScale<'_> {
    pub(super) fn check(self, place: Place, units: usize) -> Result<()> {
        match self {
            Self::Reduced(_) => Ok(()),
            Self::Given(scale) => same_values(place, "upstream gradient", scale, DType::F64, units),
        }
    }
}

/// What is known of a term's sequences and units.
///
/// # Errors
/// Sums of a device.
pub(super) fn columns<'a>(
    term: &'a Resolved,
    (policy, reference): (Totals<'a>, Option<Slice<'a>>),
) -> Result<Columns<'a>> {
    Ok(Columns {
        members: term.all_members(),
        policy: policy.sums.host()?,
        tokens: policy.tokens.host()?,
        weights: policy.weights.host()?,
        reference: reference.filter(|_| term.uses_reference()).map(Slice::host).transpose()?,
        scores: term.scores(),
        given: term.inputs().each_ref().map(Option::as_deref),
    })
}

/// What stage 3 reads, apart from what it writes.
#[derive(Clone, Copy)]
pub(crate) struct UnitInputs<'a> {
    pub term: &'a Resolved,
    columns: Columns<'a>,
}

/// How much each unit weighs in the gradient.
#[derive(Clone, Copy)]
pub(crate) enum Scales<'a> {
    Same(f64),
    Given(&'a [f64]),
}

impl Scales<'_> {
    /// A unit's part of the gradient by the sum of one of its responses.
    pub(crate) fn scaled(self, unit: usize, grad: f64) -> f64 {
        match self {
            Self::Same(scale) => product(scale, grad),
            Self::Given(scales) => product(scales[unit], grad),
        }
    }
}

impl<'a> UnitInputs<'a> {
    /// # Errors
    /// Sums of a device.
    pub(crate) fn new(term: &'a Resolved, sums: (Totals<'a>, Option<Slice<'a>>)) -> Result<Self> {
        Ok(Self { term, columns: columns(term, sums)? })
    }

    pub(crate) fn units(&self) -> usize {
        self.term.units()
    }

    /// The sequences of a unit's responses.
    pub(crate) fn members(&self, unit: usize) -> impl Iterator<Item = usize> {
        self.term.members(unit)
    }

    pub(crate) fn evaluate(&self, unit: usize) -> UnitResult {
        let mut responses = [Response::default(); MAX_RESPONSES];
        for (response, sequence) in responses.iter_mut().zip(self.term.members(unit)) {
            *response = self.columns.response(sequence);
        }
        let evaluation = self.term.evaluate(&responses, self.columns.given(unit));
        let weight = self.columns.weight(unit);
        let [first, second, ..] = evaluation.rewards;
        UnitResult {
            loss: product(weight, evaluation.loss),
            grads: evaluation.grads.map(|grad| product(weight, grad)),
            rewards: [first, second],
        }
    }

    /// The same of as many units as there are losses, from the first on.
    pub(crate) fn evaluate_all(&self, first: usize, to: Evaluated<'_>) {
        self.term.evaluate_all(&self.columns, first, to);
    }

    /// What divides the sum of the losses in the term's value.
    pub(crate) fn divisor(&self) -> f64 {
        let tokens = match self.term.reduction() {
            Reduction::TokenMean => {
                let members = self.columns.members.iter();
                members.map(|&sequence| self.columns.tokens[sequence as usize]).sum()
            }
            _ => 0.0,
        };
        self.term.divisor(tokens)
    }

    /// The term's value: its weight times the losses, added in unit order, over `divisor`.
    pub(crate) fn value(&self, losses: impl Iterator<Item = f64>, divisor: f64) -> f64 {
        let mut sum = LossSum::default();
        losses.for_each(|loss| sum.add(loss));
        product(self.term.weight(), sum.over(divisor))
    }

    /// # Errors
    /// An upstream gradient of a device.
    pub(crate) fn scales<'s>(&self, scale: UnitScale<'s>, divisor: f64) -> Result<Scales<'s>> {
        Ok(match scale {
            UnitScale::Reduced(upstream) => Scales::Same(upstream * self.term.weight() / divisor),
            UnitScale::Given(upstream) => Scales::Given(upstream.host()?),
        })
    }
}
