//! Stage 1 of `m = sum_i c_i z_i`: `logp = (m[label] - M) / T - log(sum exp((m - M) / T))`, `M` the row's
//! maximum.

use super::divergence::combination;
use super::log_probs::{Row, scores};
use crate::batch::Combination;
use crate::error::Result;
use crate::stages::{MixedLogProbs, NOT_COUNTED};

pub(super) fn mixed_log_probs(stage: MixedLogProbs<'_>) -> Result<()> {
    let MixedLogProbs { logits, tokens, temperature, mut outputs, .. } = stage;
    let ([count, vocab], tokens) = (logits.size(), tokens.host()?);
    tokens.check(vocab)?;
    for token in 0..count {
        let row = tokens.counted_label(token).map(|label| {
            let row = Row::new(&mixed_scores(&logits, token), label, temperature);
            [row.log_prob, row.maximum, row.log_sum]
        });
        outputs.set(token, row.unwrap_or(NOT_COUNTED));
    }
    Ok(())
}

pub(super) fn mixed_scores(logits: &Combination<'_>, token: usize) -> Vec<f64> {
    let parts = logits.parts().iter();
    let (coefficients, rows): (Vec<_>, Vec<_>) =
        parts.map(|&(coefficient, logits)| (coefficient, scores(logits, token))).unzip();
    combination(&coefficients, &rows)
}
