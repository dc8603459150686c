//! Stage 3 over groups: one group after another.

use crate::error::Result;
use crate::objectives::scalar::product;
use crate::stages::Ranking;

pub(super) fn ranking(stage: Ranking<'_>) -> Result<()> {
    let inputs = stage.inputs()?;
    let mut outputs = stage.outputs;
    let tokens = inputs.tokens();
    let mut group_grads = vec![];
    for group in 0..inputs.groups() {
        outputs.losses.set(group, inputs.evaluate(group, &mut group_grads));
        if let Some((grads, scale)) = &mut outputs.grads {
            let scale = inputs.scale(*scale, group, tokens);
            for (sequence, &grad) in inputs.members(group).zip(&group_grads) {
                grads.set(sequence, grads.get(sequence) + product(scale, grad));
            }
        }
    }
    Ok(())
}
