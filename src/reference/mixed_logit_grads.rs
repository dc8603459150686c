//! Stage 4 of `m = sum_i c_i z_i`: `dz_i[v] = c_i * g * ([v == label] - p[v]) / T`, where `p` is the softmax of
//! `m / T` and `g` the gradient by the log-prob.

use super::logit_grads::Row;
use super::mixed_log_probs::mixed_scores;
use crate::error::Result;
use crate::objectives::scalar::product;
use crate::stages::{MaskedRows, MixedLogitGrads, TokenUpstream};

pub(super) fn mixed_logit_grads(stage: MixedLogitGrads<'_>) -> Result<()> {
    let MixedLogitGrads { logits, mut grads, tokens, temperature, statistics, masked, .. } = stage;
    let ([count, vocab], tokens) = (logits.size(), tokens.host()?);
    tokens.check(vocab)?;
    let upstream = TokenUpstream { log_probs: stage.upstream, entropy: None };
    for token in 0..count {
        let by_mixture = match tokens.counted_label(token) {
            Some(label) => {
                let row = Row::new(token, label, temperature, statistics, upstream);
                row.grads(|| mixed_scores(&logits, token), vocab)
            }
            None if masked == MaskedRows::AlreadyZero => continue,
            None => vec![0.0; vocab],
        };
        for ((coefficient, _), out) in logits.parts().iter().zip(&mut grads) {
            let Some(out) = out else { continue };
            let start = token * out.shape().stride;
            for (v, &grad) in by_mixture.iter().enumerate() {
                out.data_mut().set(start + v, product(*coefficient, grad));
            }
        }
    }
    Ok(())
}
