//! Stage 3 over groups: groups side by side, then their gradients added in group order.
//!
//! Scratch: the gradient of each member.

use rayon::prelude::*;

use crate::error::Result;
use crate::objectives::scalar::product;
use crate::stages::Ranking;

pub(super) fn scratch(members: usize) -> usize {
    members
}

pub(super) fn ranking(mut stage: Ranking<'_>) -> Result<()> {
    let inputs = stage.inputs()?;
    let losses = stage.outputs.losses.host::<f64>()?;
    let mut rest = &mut stage.scratch.host::<f64>()?[..];
    let mut parts = Vec::with_capacity(inputs.groups());
    for group in 0..inputs.groups() {
        let (part, after) = rest.split_at_mut(inputs.members(group).count());
        parts.push(part);
        rest = after;
    }
    losses.par_iter_mut().zip(&mut parts).enumerate().for_each(|(group, (loss, part))| {
        let mut grads = vec![];
        *loss = inputs.evaluate(group, &mut grads);
        part.copy_from_slice(&grads);
    });
    let Some((grads, scale)) = &mut stage.outputs.grads else { return Ok(()) };
    let tokens = inputs.tokens();
    for (group, part) in parts.iter().enumerate() {
        let scale = inputs.scale(*scale, group, tokens);
        for (sequence, &grad) in inputs.members(group).zip(part.iter()) {
            grads.set(sequence, grads.get(sequence) + product(scale, grad));
        }
    }
    Ok(())
}
