//! Stage 3 for all terms of a loss, over sums that are known.

use crate::backend::Backend;
use crate::batch::same_length;
use crate::element::DType;
use crate::error::{Error, Result};
use crate::memory::{Buffer, Slice};
use crate::metrics::{PairMetrics, SequenceMetrics};
use crate::objectives::Reduction;
use crate::placed::{PlacedPacking, PlacedTerm, copy, numbers};
use crate::resolved::{Over, Resolved};
use crate::stages::{
    Objective, ObjectiveOutputs, Ranking, RankingOutputs, TokenInputs, TokenObjective,
    TokenObjectiveGrads, TokenObjectiveOutputs, Tokens, Totals, UnitScale,
};

/// The gradient of the caller's own loss by what a forward call returned.
#[non_exhaustive]
#[derive(Clone, Copy, Debug)]
pub enum Upstream<'a> {
    /// By the loss: 1 for the gradient of the loss itself.
    Loss(f64),
    /// By the losses of each term's units, before the term's reduction and weight: one slice for
    /// each term, in order.
    Units(&'a [&'a [f64]]),
}

/// What one term came to.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct TermValue {
    /// The losses of its units under the term's reduction, times the term's weight.
    pub value: f64,
    /// `[units]` losses, times the weight of the unit, before reduction and weight of the term. For a
    /// term over tokens the units are its sequences, and each has the sum of its tokens' losses; for one
    /// over groups they are the groups.
    pub losses: Vec<f64>,
    /// `[units]` implicit rewards: of chosen and rejected for a pair, of the response and 0 for a
    /// sequence or a reward; none for a term over tokens or groups.
    pub rewards: Vec<[f64; 2]>,
}

/// The tokens of a loss that has terms over them.
#[derive(Clone, Copy)]
pub(crate) struct TokenSide<'a> {
    pub tokens: Tokens<'a>,
    pub packing: &'a PlacedPacking,
    pub inputs: TokenInputs<'a>,
}

/// The sums of a batch's sequences, and what the terms of a loss came to.
#[derive(Debug)]
pub(crate) struct Evaluated {
    terms: Vec<PlacedTerm>,
    policy: [Buffer; 3],
    reference: Option<Buffer>,
    values: Vec<TermValue>,
    pair_metrics: Option<PairMetrics>,
    sequence_metrics: Option<SequenceMetrics>,
}

impl Evaluated {
    /// `policy` are sums, counted tokens and sums of their weights, by sequence. Waits for the device.
    ///
    /// # Errors
    /// The device's own.
    pub fn new(
        backend: &dyn Backend,
        terms: Vec<PlacedTerm>,
        policy: [Buffer; 3],
        reference: Option<Buffer>,
        side: Option<TokenSide<'_>>,
    ) -> Result<Self> {
        let (pair_metrics, sequence_metrics) = (None, None);
        let mut evaluated =
            Self { terms, policy, reference, values: vec![], pair_metrics, sequence_metrics };
        // Everything is enqueued before anything is waited for.
        let outputs: Vec<_> = (0..evaluated.terms.len())
            .map(|term| match evaluated.terms[term].term().over() {
                Over::Tokens => {
                    evaluated.run_tokens(backend, term, side, None).map(Outputs::Tokens)
                }
                Over::Groups => evaluated.run_groups(backend, term, None).map(Outputs::Groups),
                Over::Responses => evaluated.run(backend, term, None).map(Outputs::Units),
            })
            .collect::<Result<_>>()?;
        let [sums, counts, _] = &evaluated.policy;
        let (sums, counts) = (numbers(sums)?, numbers(counts)?);
        let terms = evaluated.terms.iter().map(PlacedTerm::term).zip(&outputs);
        evaluated.values =
            terms.map(|(term, outputs)| outputs.read(term, &counts)).collect::<Result<_>>()?;
        evaluated.measure([&sums, &counts]);
        Ok(evaluated)
    }

    /// How much the units of each term weigh in the gradient, where the backend reaches it.
    ///
    /// # Errors
    /// As those of [`Scales::new`].
    pub fn scales<'u>(&self, backend: &dyn Backend, upstream: Upstream<'u>) -> Result<Scales<'u>> {
        Scales::new(backend, upstream, self.terms.iter().map(PlacedTerm::term))
    }

    /// Adds the gradients of the terms over tokens, by log-prob and by entropy.
    ///
    /// # Errors
    /// The device's own.
    pub fn token_grads(
        &self,
        backend: &dyn Backend,
        scales: &Scales<'_>,
        side: TokenSide<'_>,
        (by_log_prob, mut by_entropy): (&mut Buffer, Option<&mut Buffer>),
    ) -> Result<()> {
        for (term, scale) in scales.iter().enumerate() {
            if self.terms[term].term().is_over_tokens() {
                let entropy = by_entropy.as_mut().map(|entropy| entropy.slice_mut());
                let grads = TokenObjectiveGrads { log_probs: by_log_prob.slice_mut(), entropy };
                self.run_tokens(backend, term, Some(side), Some((grads, scale)))?;
            }
        }
        Ok(())
    }

    /// Whether a term looks at the entropies of the tokens.
    pub fn uses_entropy(&self) -> bool {
        self.terms.iter().any(|term| term.term().inputs_used().entropy)
    }

    /// Whether there are terms over tokens.
    pub fn has_tokens(&self) -> bool {
        self.terms.iter().any(|term| term.term().is_over_tokens())
    }

    fn run_tokens(
        &self,
        backend: &dyn Backend,
        term: usize,
        side: Option<TokenSide<'_>>,
        grads: Option<(TokenObjectiveGrads<'_>, UnitScale<'_>)>,
    ) -> Result<Buffer> {
        let placed = &self.terms[term];
        let (objective, what) = (placed.term().name(), "tokens");
        let side = side.ok_or(Error::Missing { objective, what })?;
        let mut losses = backend.allocate(DType::F64, placed.term().units())?;
        let outputs = TokenObjectiveOutputs { losses: losses.slice_mut(), grads };
        let inputs = (side.inputs, self.totals().tokens);
        let tokens = (side.tokens, side.packing);
        backend.token_objective(TokenObjective::new(backend, placed, tokens, inputs, outputs)?)?;
        Ok(losses)
    }

    /// `[sequences]` gradients by the sums.
    ///
    /// # Errors
    /// The device's own.
    pub fn grads(&self, backend: &dyn Backend, scales: &Scales<'_>) -> Result<Buffer> {
        let sequences = self.policy[0].slice().len();
        let mut grads = backend.allocate(DType::F64, sequences)?;
        for (term, scale) in scales.iter().enumerate() {
            let to = Some((&mut grads, scale));
            match self.terms[term].term().over() {
                Over::Tokens => {}
                Over::Groups => drop(self.run_groups(backend, term, to)?),
                Over::Responses => drop(self.run(backend, term, to)?),
            }
        }
        Ok(grads)
    }

    /// The sum of the terms' values.
    pub fn loss(&self) -> f64 {
        self.values.iter().map(|term| term.value).sum()
    }

    pub fn values(&self) -> &[TermValue] {
        &self.values
    }

    pub fn pair_metrics(&self) -> Option<PairMetrics> {
        self.pair_metrics
    }

    pub fn sequence_metrics(&self) -> Option<SequenceMetrics> {
        self.sequence_metrics
    }

    pub fn totals(&self) -> Totals<'_> {
        let [sums, tokens, weights] = self.policy.each_ref().map(Buffer::slice);
        Totals { sums, tokens, weights }
    }

    pub fn reference(&self) -> Option<Slice<'_>> {
        self.reference.as_ref().map(Buffer::slice)
    }

    /// Metrics from the first term over pairs and from the first over sequences that has units; `totals`
    /// are `[sequences]` sums and counted tokens.
    fn measure(&mut self, totals: [&[f64]; 2]) {
        let first = |over_pairs: bool| {
            let mut terms = self.terms.iter().map(PlacedTerm::term).zip(&self.values);
            terms.find(|(term, _)| match over_pairs {
                _ if term.units() == 0 => false,
                true => term.is_over_pairs(),
                false => term.is_over_sequences(),
            })
        };
        let pairs = first(true).map(|(term, value)| PairMetrics::new(term, &value.rewards, totals));
        let sequences =
            first(false).map(|(term, value)| SequenceMetrics::new(term, &value.rewards, totals));
        (self.pair_metrics, self.sequence_metrics) = (pairs, sequences);
    }

    fn run_groups(
        &self,
        backend: &dyn Backend,
        term: usize,
        grads: Option<(&mut Buffer, UnitScale<'_>)>,
    ) -> Result<Buffer> {
        let placed = &self.terms[term];
        let (groups, members) = (placed.term().units(), placed.term().all_members().len());
        let mut losses = backend.allocate(DType::F64, groups)?;
        let mut scratch = backend.allocate(DType::F64, backend.ranking_scratch(members))?;
        let outputs = RankingOutputs {
            losses: losses.slice_mut(),
            grads: grads.map(|(grads, scale)| (grads.slice_mut(), scale)),
        };
        let sums = (self.totals(), self.reference());
        let scratch = scratch.slice_mut();
        backend.ranking(Ranking::new(backend, placed, sums, outputs, scratch)?)?;
        Ok(losses)
    }

    fn run(
        &self,
        backend: &dyn Backend,
        term: usize,
        grads: Option<(&mut Buffer, UnitScale<'_>)>,
    ) -> Result<TermOutputs> {
        let placed = &self.terms[term];
        let (units, members) = (placed.term().units(), placed.term().all_members().len());
        let mut outputs = TermOutputs {
            losses: backend.allocate(DType::F64, units)?,
            rewards: backend.allocate(DType::F64, 2 * units)?,
            value: backend.allocate(DType::F64, 1)?,
        };
        let mut scratch = backend.allocate(DType::F64, backend.objective_scratch(members))?;
        let stage = ObjectiveOutputs {
            losses: outputs.losses.slice_mut(),
            rewards: outputs.rewards.slice_mut(),
            value: outputs.value.slice_mut(),
            grads: grads.map(|(grads, scale)| (grads.slice_mut(), scale)),
        };
        let sums = (self.totals(), self.reference());
        let scratch = scratch.slice_mut();
        backend.objective(Objective::new(backend, placed, sums, stage, scratch)?)?;
        Ok(outputs)
    }
}

/// What stage 3 writes for a term over sequences or pairs.
struct TermOutputs {
    losses: Buffer,
    rewards: Buffer,
    value: Buffer,
}

/// What a term left, still on the device.
enum Outputs {
    Units(TermOutputs),
    Tokens(Buffer),
    Groups(Buffer),
}

impl Outputs {
    /// `counts` are `[sequences]` counted tokens.
    fn read(&self, term: &Resolved, counts: &[f64]) -> Result<TermValue> {
        match self {
            Self::Units(outputs) => Ok(TermValue {
                value: numbers(&outputs.value)?[0],
                losses: numbers(&outputs.losses)?,
                rewards: numbers(&outputs.rewards)?.as_chunks().0.to_vec(),
            }),
            Self::Tokens(losses) => {
                let losses = numbers(losses)?;
                let value = term.token_value(&losses, counts)?;
                Ok(TermValue { value, losses, rewards: vec![] })
            }
            Self::Groups(losses) => {
                let losses = numbers(losses)?;
                let value = term.group_value(&losses, counts)?;
                Ok(TermValue { value, losses, rewards: vec![] })
            }
        }
    }
}

/// How much the units of each term weigh in the gradient, where a backend reaches it.
pub(crate) struct Scales<'u> {
    given: Vec<UnitScale<'u>>,
    copies: Vec<Option<Buffer>>,
}

impl<'u> Scales<'u> {
    /// # Errors
    /// Another number of terms, a factor beyond the range of f32, or the device's own errors.
    pub fn new<'t>(
        backend: &dyn Backend,
        upstream: Upstream<'u>,
        terms: impl ExactSizeIterator<Item = &'t Resolved>,
    ) -> Result<Self> {
        let given: Vec<UnitScale<'u>> = match upstream {
            Upstream::Loss(upstream) => {
                check_factor("upstream gradient", upstream)?;
                let of = |term: &Resolved| {
                    let what = "upstream gradient times a term's weight over its divisor";
                    check_factor(what, upstream * term.weight() / least_divisor(term))?;
                    Ok(UnitScale::Reduced(upstream))
                };
                terms.map(of).collect::<Result<_>>()?
            }
            Upstream::Units(given) => {
                same_length("upstream terms", terms.len(), given.len())?;
                let mut all = given.iter().flat_map(|term| term.iter());
                all.try_for_each(|&got| check_factor("upstream gradient", got))?;
                given.iter().map(|term| UnitScale::Given(Slice::new(term))).collect()
            }
        };
        let copies = given.iter().map(|scale| match scale {
            UnitScale::Given(scale) => copy(backend, *scale),
            UnitScale::Reduced(_) => Ok(None),
        });
        let copies = copies.collect::<Result<_>>()?;
        Ok(Self { given, copies })
    }

    /// By term.
    pub fn iter(&self) -> impl Iterator<Item = UnitScale<'_>> {
        self.given.iter().zip(&self.copies).map(|(&scale, copy)| {
            copy.as_ref().map_or(scale, |copy| UnitScale::Given(copy.slice()))
        })
    }
}

/// What divides a term's losses at the least; how many tokens there are may be known on a device alone.
fn least_divisor(term: &Resolved) -> f64 {
    match term.reduction() {
        Reduction::Mean if term.is_over_tokens() => 1.0,
        _ => term.divisor(1.0),
    }
}

pub(crate) fn check_factor(what: &'static str, got: f64) -> Result<()> {
    if got.abs() <= f64::from(f32::MAX) {
        Ok(())
    } else {
        Err(Error::Scalar { what, expected: "a finite number in the range of f32", got })
    }
}
