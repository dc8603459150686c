//! Stage 2: each sequence in token order in f64, sequences side by side; and backwards.

use rayon::prelude::*;

use crate::error::Result;
use crate::stages::{SequenceSums, TokenGrads};

pub(super) fn sequence_sums(stage: SequenceSums<'_>) -> Result<()> {
    let SequenceSums { log_probs, tokens, packing, mut totals, .. } = stage;
    let (tokens, packing) = (tokens.host()?, packing.packing());
    let sums = totals.sums.host::<f64>()?.par_iter_mut();
    let counts = totals.tokens.host::<f64>()?;
    let weights = totals.weights.host::<f64>()?;
    sums.zip(counts).zip(weights).enumerate().for_each(|(sequence, ((sum, count), weights))| {
        let counted = packing.range(sequence).filter(|&t| tokens.counted_label(t).is_some());
        (*sum, *count, *weights) = counted.fold((0.0, 0.0, 0.0), |(sum, count, weights), token| {
            let weight = tokens.weight(token);
            (sum + weight * log_probs.get(token), count + 1.0, weights + weight)
        });
    });
    Ok(())
}

pub(super) fn token_grads(stage: TokenGrads<'_>) -> Result<()> {
    let TokenGrads { sequence_grads, tokens, packing, mut grads, .. } = stage;
    let (tokens, packing) = (tokens.host()?, packing.packing());
    for sequence in 0..packing.sequences() {
        let grad = sequence_grads.get(sequence);
        for token in packing.range(sequence) {
            let counted = tokens.counted_label(token).map(|_| tokens.weight(token) * grad);
            grads.set(token, counted.unwrap_or(0.0));
        }
    }
    Ok(())
}
