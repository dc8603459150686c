//! Stage 3: units side by side, then their losses and gradients added in unit order.
//!
//! Scratch: the gradients of the responses of each unit.

use rayon::prelude::*;

use crate::error::Result;
use crate::stages::Objective;

/// Units that one task takes at least; an evaluation is tens of nanoseconds.
const UNITS_PER_TASK: usize = 1024;

pub(super) fn scratch(members: usize) -> usize {
    members
}

pub(super) fn objective(mut stage: Objective<'_>) -> Result<()> {
    let inputs = stage.inputs();
    let responses = inputs.term.members_of_unit();
    let losses = stage.outputs.losses.host::<f64>()?;
    let rewards = stage.outputs.rewards.host::<f64>()?;
    let unit_grads = &mut stage.scratch.host::<f64>()?[..scratch(inputs.term.all_members().len())];
    let rewards = rewards.par_chunks_mut(2);
    losses
        .par_iter_mut()
        .zip(rewards)
        .zip(unit_grads.par_chunks_mut(responses))
        .enumerate()
        .with_min_len(UNITS_PER_TASK)
        .for_each(|(unit, ((loss, rewards), grads))| {
            let result = inputs.evaluate(unit);
            *loss = result.loss;
            rewards.copy_from_slice(&result.rewards);
            grads.copy_from_slice(&result.grads[..responses]);
        });
    let divisor = inputs.divisor();
    stage.outputs.value.set(0, inputs.value(losses.iter().copied(), divisor));
    if let Some((grads, scale)) = &mut stage.outputs.grads {
        for (unit, unit_grads) in unit_grads.chunks(responses).enumerate() {
            for (sequence, &grad) in inputs.members(unit).zip(unit_grads) {
                let grad = inputs.scaled(*scale, unit, divisor, grad);
                grads.set(sequence, grads.get(sequence) + grad);
            }
        }
    }
    Ok(())
}
