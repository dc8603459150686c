//! Stage 3: one evaluation after another, losses and gradients added in unit order.

use crate::error::Result;
use crate::stages::Objective;

pub(super) fn objective(stage: Objective<'_>) -> Result<()> {
    let inputs = stage.inputs()?;
    let mut outputs = stage.outputs;
    let divisor = inputs.divisor();
    let scales = match &outputs.grads {
        Some((_, scale)) => Some(inputs.scales(*scale, divisor)?),
        None => None,
    };
    for unit in 0..inputs.units() {
        let result = inputs.evaluate(unit);
        outputs.losses.set(unit, result.loss);
        outputs.rewards.set(2 * unit, result.rewards[0]);
        outputs.rewards.set(2 * unit + 1, result.rewards[1]);
        if let (Some((grads, _)), Some(scales)) = (&mut outputs.grads, scales) {
            for (sequence, grad) in inputs.members(unit).zip(result.grads) {
                grads.set(sequence, grads.get(sequence) + scales.scaled(unit, grad));
            }
        }
    }
    let losses = (0..inputs.units()).map(|unit| outputs.losses.get(unit));
    outputs.value.set(0, inputs.value(losses, divisor));
    Ok(())
}
