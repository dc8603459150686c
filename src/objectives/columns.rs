//! Many units at a time: what is known of them, and what an objective says of each, number by number.

use super::objective::{Evaluation, Objective};
use super::scalar::product;
use super::units::{Given, MAX_RESPONSES, Response, Unit};

/// Units that an objective is asked about at once; their numbers stay in the first-level cache.
const CHUNK: usize = 64;

/// What stage 3 knows of units.
#[derive(Clone, Copy)]
pub(crate) struct Columns<'a> {
    /// `[units, responses]` sequences.
    pub members: &'a [i64],
    /// `[sequences]` numbers of the responses.
    pub policy: &'a [f64],
    pub tokens: &'a [f64],
    pub weights: &'a [f64],
    /// NaN where there are none: an objective that reads them without saying so has to be heard.
    pub reference: Option<&'a [f64]>,
    pub scores: Option<&'a [f64]>,
    /// `[units]` betas, margins, soft labels and weights.
    pub given: [Option<&'a [f64]>; 4],
}

/// Where an objective's word on consecutive units goes, times the weights of the units but for the
/// rewards.
pub(crate) struct Evaluated<'a> {
    pub losses: &'a mut [f64],
    /// `[units, 2]`.
    pub rewards: &'a mut [f64],
    /// `[units, responses]`.
    pub grads: &'a mut [f64],
}

impl<'a> Columns<'a> {
    /// What is known of a response.
    #[inline(always)]
    pub(crate) fn response(&self, sequence: usize) -> Response {
        let or_nan = |values: Option<&[f64]>| values.map_or(f64::NAN, |values| values[sequence]);
        Response::new(self.policy[sequence], self.tokens[sequence])
            .with_reference(or_nan(self.reference))
            .with_weights(self.weights[sequence])
            .with_score(or_nan(self.scores))
    }

    /// What the dataset says about a unit.
    #[inline(always)]
    pub(crate) fn given(&self, unit: usize) -> Given {
        let neutral = Given::NEUTRAL;
        let [beta, margin, soft_label, _] = self.given;
        let or = |values: Option<&[f64]>, neutral| values.map_or(neutral, |values| values[unit]);
        Given {
            beta: or(beta, neutral.beta),
            margin: or(margin, neutral.margin),
            soft_label: or(soft_label, neutral.soft_label),
        }
    }

    /// The factor of a unit's losses.
    pub(crate) fn weight(&self, unit: usize) -> f64 {
        self.given[3].map_or(1.0, |weights| weights[unit])
    }

    /// What the objective says of units, from the first on.
    pub(super) fn evaluate<U: Unit>(
        &self,
        objective: &dyn Objective<U>,
        first: usize,
        to: Evaluated<'_>,
    ) {
        let count = U::RESPONSES.len();
        let mut units = [U::new_unit(&Default::default(), Given::NEUTRAL); CHUNK];
        let mut evaluations = [Evaluation::default(); CHUNK];
        let rewards = to.rewards.chunks_mut(2 * CHUNK);
        let parts =
            to.losses.chunks_mut(CHUNK).zip(rewards.zip(to.grads.chunks_mut(count * CHUNK)));
        for (part, (losses, (rewards, grads))) in parts.enumerate() {
            let first = first + part * CHUNK;
            let (units, evaluations) =
                (&mut units[..losses.len()], &mut evaluations[..losses.len()]);
            self.read(first, units);
            objective.evaluate_all(units, evaluations);
            let weights = self.given[3].map(|weights| &weights[first..first + losses.len()]);
            spread(evaluations, weights, Evaluated { losses, rewards, grads });
        }
    }

    /// What is known of units, from the first on.
    fn read<U: Unit>(&self, first: usize, units: &mut [U]) {
        let count = U::RESPONSES.len();
        let members = self.members[first * count..].chunks_exact(count);
        let sequences = self.policy.len();
        let of_all = |values: &'a [f64]| &values[..sequences];
        let (tokens, weights) = (of_all(self.tokens), of_all(self.weights));
        let (reference, scores) = (self.reference.map(of_all), self.scores.map(of_all));
        let known = Self { tokens, weights, reference, scores, ..*self };
        let mut responses = [Response::default(); MAX_RESPONSES];
        for ((unit, members), which) in units.iter_mut().zip(members).zip(first..) {
            for (response, &sequence) in responses.iter_mut().zip(members) {
                *response = known.response(sequence as usize);
            }
            *unit = U::new_unit(&responses, known.given(which));
        }
    }
}

/// Evaluations number by number, times the weights of the units.
fn spread<U: Unit>(evaluations: &[Evaluation<U>], weights: Option<&[f64]>, to: Evaluated<'_>) {
    let count = U::RESPONSES.len();
    let places = to.rewards.chunks_exact_mut(2).zip(to.grads.chunks_exact_mut(count));
    let places = to.losses.iter_mut().zip(places);
    for (unit, (evaluation, (loss, (rewards, grads)))) in evaluations.iter().zip(places).enumerate()
    {
        // A weight of 0 takes a unit out of the sum, whatever its loss is; a mean still counts it.
        let weighted = |number| weights.map_or(number, |weights| product(weights[unit], number));
        *loss = weighted(evaluation.loss);
        for (to, grad) in grads.iter_mut().zip(U::spread(evaluation.grad)) {
            *to = weighted(grad);
        }
        rewards.copy_from_slice(&U::spread(evaluation.reward)[..2]);
    }
}
