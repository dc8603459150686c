//! Stage 3 over tokens: one sequence after another, each in token order.

use crate::error::Result;
use crate::stages::TokenObjective;

pub(super) fn token_objective(stage: TokenObjective<'_>) -> Result<()> {
    let units = stage.units()?;
    let mut outputs = stage.outputs;
    let tokens = units.count();
    for unit in 0..units.term.units() {
        let loss = match &mut outputs.grads {
            None => units.evaluate(unit, 0.0, |_, _, _| ()),
            Some((grads, scale)) => {
                let scale = units.scale(*scale, unit, tokens);
                units.evaluate(unit, scale, |token, by_log_prob, by_entropy| {
                    let log_probs = &mut grads.log_probs;
                    log_probs.set(token, log_probs.get(token) + by_log_prob);
                    if let Some(entropy) = &mut grads.entropy {
                        entropy.set(token, entropy.get(token) + by_entropy);
                    }
                })
            }
        };
        outputs.losses.set(unit, loss);
    }
    Ok(())
}
