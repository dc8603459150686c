//! Stage 3: units side by side, then their losses and gradients added in unit order.
//!
//! Scratch: the two gradients of each unit.

use rayon::prelude::*;

use crate::stages::Objective;

/// Units that one task takes at least; an evaluation is tens of nanoseconds.
const UNITS_PER_TASK: usize = 1024;

pub(super) fn scratch(units: usize) -> usize {
    2 * units
}

pub(super) fn objective(mut stage: Objective<'_>) {
    let inputs = stage.inputs();
    let units = inputs.units();
    let losses = stage.outputs.losses.typed::<f64>().unwrap_or_default();
    let rewards = stage.outputs.rewards.typed::<f64>().unwrap_or_default();
    let unit_grads = &mut stage.scratch.typed::<f64>().unwrap_or_default()[..scratch(units)];
    let rewards = rewards.par_chunks_mut(2);
    losses
        .par_iter_mut()
        .zip(rewards)
        .zip(unit_grads.par_chunks_mut(2))
        .enumerate()
        .with_min_len(UNITS_PER_TASK)
        .for_each(|(unit, ((loss, rewards), grads))| {
            let result = inputs.evaluate(unit);
            *loss = result.loss;
            rewards.copy_from_slice(&result.rewards);
            grads.copy_from_slice(&result.grads);
        });
    let factor = inputs.factor();
    stage.outputs.value.set(0, factor * losses.iter().sum::<f64>());
    if let Some((grads, scale)) = &mut stage.outputs.grads {
        for (unit, unit_grads) in unit_grads.as_chunks::<2>().0.iter().enumerate() {
            for (&sequence, grad) in inputs.members(unit).iter().zip(unit_grads) {
                grads.set(sequence, grads.get(sequence) + scale.of(unit, factor) * grad);
            }
        }
    }
}
