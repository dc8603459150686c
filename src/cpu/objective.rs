//! Stage 3: units side by side, then their losses and gradients added in unit order.
//!
//! Scratch: the gradients of the responses of each unit.

use rayon::prelude::*;

use super::simd::{Isa, Kernel, Simd};
use crate::error::Result;
use crate::objectives::{self, Evaluated, Evaluation, Unit};
use crate::stages::Objective;

/// Units of one task; an evaluation is some ten nanoseconds.
const UNITS_PER_TASK: usize = 1024;

pub(super) fn scratch(members: usize) -> usize {
    members
}

pub(super) fn objective(mut stage: Objective<'_>) -> Result<()> {
    let inputs = stage.inputs()?;
    let responses = inputs.term.members_of_unit();
    let losses = stage.outputs.losses.host::<f64>()?;
    let rewards = stage.outputs.rewards.host::<f64>()?;
    let unit_grads = &mut stage.scratch.host::<f64>()?[..scratch(inputs.term.all_members().len())];
    losses
        .par_chunks_mut(UNITS_PER_TASK)
        .zip(rewards.par_chunks_mut(2 * UNITS_PER_TASK))
        .zip(unit_grads.par_chunks_mut(responses * UNITS_PER_TASK))
        .enumerate()
        .for_each(|(task, ((losses, rewards), grads))| {
            inputs.evaluate_all(task * UNITS_PER_TASK, Evaluated { losses, rewards, grads });
        });
    let divisor = inputs.divisor();
    stage.outputs.value.set(0, inputs.value(losses.iter().copied(), divisor));
    if let Some((grads, scale)) = &mut stage.outputs.grads {
        let (grads, scales) = (grads.host::<f64>()?, inputs.scales(*scale, divisor)?);
        let members = inputs.term.all_members().chunks_exact(responses);
        for (unit, (members, unit_grads)) in members.zip(unit_grads.chunks(responses)).enumerate() {
            for (&sequence, &grad) in members.iter().zip(unit_grads) {
                grads[sequence as usize] += scales.scaled(unit, grad);
            }
        }
    }
    Ok(())
}

/// `evaluate`, which calls nothing that is not inlined, compiled for each instruction set: a loop over units
/// then takes some of them at a time.
#[doc(hidden)]
pub fn evaluate_vectorized<U: Unit, O: objectives::Objective<U>>(
    objective: &O,
    units: &[U],
    evaluations: &mut [Evaluation<U>],
    evaluate: impl FnOnce(&O, &[U], &mut [Evaluation<U>]),
) {
    Simd::best().run(Vectorized { objective, units, evaluations, evaluate });
}

struct Vectorized<'a, U: Unit, O, F> {
    objective: &'a O,
    units: &'a [U],
    evaluations: &'a mut [Evaluation<U>],
    evaluate: F,
}

impl<U: Unit, O, F: FnOnce(&O, &[U], &mut [Evaluation<U>])> Kernel for Vectorized<'_, U, O, F> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        (self.evaluate)(self.objective, self.units, self.evaluations);
    }
}

#[cfg(test)]
mod tests {
    use crate::objectives::{
        AnyObjective, Columns, Evaluated, Evaluation, Given, Layout, MAX_RESPONSES, Response,
        Token, objectives,
    };

    /// More than a chunk, and no multiple of a register.
    const UNITS: usize = 149;

    /// Ordinary numbers, and what is at an end.
    fn numbers(count: usize, seed: usize) -> Vec<f64> {
        let ends = [0.0, -1e3, 1e3, -1e-9, f64::NEG_INFINITY, -745.0, 0.5];
        let number = |i: usize| match (i * 31 + seed) % 23 {
            which if which < ends.len() => ends[which],
            which => (which as f64 - 18.3) * (1.0 + i as f64 / 77.0),
        };
        (0..count).map(number).collect()
    }

    fn assert_same(name: &str, unit: usize, expected: &[f64], got: &[f64]) {
        let same = |(a, b): (&f64, &f64)| a == b || (a.is_nan() && b.is_nan());
        assert!(expected.iter().zip(got).all(same), "{name} {unit}: {expected:?}, {got:?}");
    }

    fn check_units(objective: &AnyObjective) {
        let (name, responses) = (objective.name(), objective.responses().len());
        let sequences = responses * UNITS;
        let members: Vec<i64> = (0..sequences).rev().map(|member| member as i64).collect();
        let [policy, reference, scores] = [1, 2, 3].map(|seed| numbers(sequences, seed));
        let tokens: Vec<f64> = (0..sequences).map(|i| (i % 5) as f64).collect();
        let [betas, margins, labels] = [4.0, 0.5, 8.0]
            .map(|by| -> Vec<f64> { (0..UNITS).map(|unit| (unit % 9) as f64 / by).collect() });
        let columns = Columns {
            members: &members,
            policy: &policy,
            tokens: &tokens,
            weights: &tokens,
            reference: Some(&reference),
            scores: Some(&scores),
            given: [Some(&betas), Some(&margins), Some(&labels), None],
        };
        let (mut losses, mut rewards) = (vec![0.0; UNITS], vec![0.0; 2 * UNITS]);
        let mut grads = vec![0.0; sequences];
        let to = Evaluated { losses: &mut losses, rewards: &mut rewards, grads: &mut grads };
        objective.evaluate_all(&columns, 0, to);
        for unit in 0..UNITS {
            let mut of_unit = [Response::default(); MAX_RESPONSES];
            for (response, &member) in of_unit.iter_mut().zip(&members[unit * responses..]) {
                *response = columns.response(member as usize);
            }
            let given =
                Given { beta: betas[unit], margin: margins[unit], soft_label: labels[unit] };
            let expected = objective.evaluate(&of_unit, given);
            assert_same(name, unit, &[expected.loss], &losses[unit..]);
            assert_same(name, unit, &expected.rewards[..2], &rewards[2 * unit..]);
            assert_same(name, unit, &expected.grads[..responses], &grads[unit * responses..]);
        }
    }

    fn check_tokens(objective: &AnyObjective) {
        let columns: [Vec<f64>; 6] = std::array::from_fn(|seed| numbers(UNITS, seed));
        let token = |i: usize| {
            let [policy, old, reference, advantage, entropy, sequence_log_ratio] =
                columns.each_ref().map(|column| column[i]);
            let tokens = (i % 5 + 1) as f64;
            Token { policy, old, reference, advantage, entropy, sequence_log_ratio, tokens }
        };
        let tokens: Vec<Token> = (0..UNITS).map(token).collect();
        let mut evaluations = [Evaluation::default(); UNITS];
        objective.evaluate_tokens(&tokens, &mut evaluations);
        for (i, (token, got)) in tokens.iter().zip(evaluations).enumerate() {
            let expected = objective.evaluate(&token.responses(), Given::NEUTRAL);
            let by = [got.loss, got.grad.policy, got.grad.sequence, got.grad.entropy];
            let grads = expected.grads;
            assert_same(objective.name(), i, &[expected.loss, grads[0], grads[1], grads[2]], &by);
        }
    }

    /// Some units at a time are the same bits as one, which is compiled for the baseline.
    #[test]
    fn vectorized_as_alone() {
        for objective in objectives() {
            match objective.layout() {
                Layout::Tokens => check_tokens(&objective),
                _ => check_units(&objective),
            }
        }
    }
}
