//! Stage 2: `sum[s] = sum of weight[t] * logp[t]` over the tokens of sequence `s`; and backwards.

use crate::error::Result;
use crate::stages::{SequenceSums, TokenGrads};

pub(super) fn sequence_sums(stage: SequenceSums<'_>) -> Result<()> {
    let SequenceSums { log_probs, tokens, packing, mut totals, .. } = stage;
    let (tokens, packing) = (tokens.host()?, packing.packing());
    for sequence in 0..packing.sequences() {
        let (mut sum, mut count, mut weights) = (0.0, 0.0, 0.0);
        for token in packing.range(sequence) {
            if tokens.counted_label(token).is_some() {
                sum += tokens.weight(token) * log_probs.get(token);
                count += 1.0;
                weights += tokens.weight(token);
            }
        }
        totals.sums.set(sequence, sum);
        totals.tokens.set(sequence, count);
        totals.weights.set(sequence, weights);
    }
    Ok(())
}

pub(super) fn token_grads(stage: TokenGrads<'_>) -> Result<()> {
    let TokenGrads { sequence_grads, tokens, packing, mut grads, .. } = stage;
    let (tokens, packing) = (tokens.host()?, packing.packing());
    for sequence in 0..packing.sequences() {
        for token in packing.range(sequence) {
            let counted = tokens.counted_label(token).is_some();
            let grad = tokens.weight(token) * sequence_grads.get(sequence);
            grads.set(token, if counted { grad } else { 0.0 });
        }
    }
    Ok(())
}
