//! Stage 4: `dx[v] = (g * ([v == label] - p[v]) - h * p[v] * (log p[v] + H)) / T`, where `g` and `h`
//! are the gradients by the log-prob and by the entropy `H`.

use super::log_probs::scores;
use crate::error::Result;
use crate::stages::{LogitGrads, MaskedRows, RowStatistics, Target, TokenUpstream};

pub(super) fn logit_grads(stage: LogitGrads<'_>) -> Result<()> {
    let LogitGrads { mut target, tokens, temperature, statistics, upstream, masked, .. } = stage;
    let [count, vocab] = target.logits().shape().size();
    let tokens = tokens.host()?;
    tokens.check(vocab)?;
    for token in 0..count {
        let grads = match tokens.counted_label(token) {
            Some(label) => {
                let row = Row::new(token, label, temperature, statistics, upstream);
                row.grads(|| scores(target.logits(), token), vocab)
            }
            None if masked == MaskedRows::AlreadyZero => continue,
            None => vec![0.0; vocab],
        };
        let (Target::InPlace(out) | Target::OutOfPlace { grads: out, .. }) = &mut target;
        let start = token * out.shape().stride;
        for (v, &grad) in grads.iter().enumerate() {
            out.data_mut().set(start + v, grad);
        }
    }
    Ok(())
}

pub(super) struct Row {
    label: usize,
    temperature: f64,
    maximum: f64,
    log_sum: f64,
    log_prob_grad: f64,
    entropy_grad: f64,
    entropy: f64,
}

impl Row {
    pub fn new(
        token: usize,
        label: usize,
        temperature: f64,
        statistics: RowStatistics<'_>,
        upstream: TokenUpstream<'_>,
    ) -> Self {
        let entropy = upstream.entropy.map(|(grads, values)| (grads.get(token), values.get(token)));
        let (entropy_grad, entropy) = entropy.unwrap_or((0.0, 0.0));
        Self {
            label,
            temperature,
            maximum: statistics.maximum.get(token),
            log_sum: statistics.log_sum.get(token),
            log_prob_grad: upstream.log_probs.get(token),
            entropy_grad,
            entropy,
        }
    }

    pub fn grads(&self, scores: impl Fn() -> Vec<f64>, vocab: usize) -> Vec<f64> {
        if self.log_prob_grad == 0.0 && self.entropy_grad == 0.0 {
            return vec![0.0; vocab];
        }
        scores().iter().enumerate().map(|(v, &x)| self.grad(v, x)).collect()
    }

    fn grad(&self, v: usize, x: f64) -> f64 {
        let log_p = (x - self.maximum) / self.temperature - self.log_sum;
        // 1 - p without cancellation at a confident label.
        let by_log_prob = if v == self.label { -log_p.exp_m1() } else { -log_p.exp() };
        let by_entropy = match log_p {
            f64::NEG_INFINITY => 0.0,
            _ => -log_p.exp() * (log_p + self.entropy),
        };
        (self.log_prob_grad * by_log_prob + self.entropy_grad * by_entropy) / self.temperature
    }
}
