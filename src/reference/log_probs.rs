//! Stage 1: `logp = (x[label] - m) / T - log(sum exp((x - m) / T))`, `m` the row's maximum.

use crate::batch::Logits;
use crate::error::Result;
use crate::stages::LogProbs;

pub(super) fn log_probs(stage: LogProbs<'_>) -> Result<()> {
    let LogProbs { logits, tokens, temperature, mut outputs, .. } = stage;
    let tokens = tokens.host()?;
    tokens.check(logits.vocab())?;
    for token in 0..logits.tokens() {
        let label = tokens.counted_label(token);
        let row = label.map(|label| Row::new(&scores(logits, token), label, temperature));
        let row = row.unwrap_or(Row::NOT_COUNTED);
        outputs.log_probs.set(token, row.log_prob);
        outputs.maximum.set(token, row.maximum);
        outputs.log_sum.set(token, row.log_sum);
        if let Some(entropy) = &mut outputs.entropy {
            entropy.set(token, row.entropy);
        }
        if let Some(log_sum_squares) = &mut outputs.log_sum_squares {
            log_sum_squares.set(token, row.log_sum_squares);
        }
        if let Some(argmax) = &mut outputs.argmax {
            argmax.set(token, row.argmax);
        }
    }
    Ok(())
}

pub(super) fn scores(logits: Logits<'_>, token: usize) -> Vec<f64> {
    let start = token * logits.shape().stride;
    (start..start + logits.vocab()).map(|index| logits.data().get(index)).collect()
}

pub(super) struct Row {
    pub log_prob: f64,
    pub maximum: f64,
    pub log_sum: f64,
    entropy: f64,
    log_sum_squares: f64,
    argmax: f64,
}

impl Row {
    const NOT_COUNTED: Self = Self {
        log_prob: 0.0,
        maximum: f64::NAN,
        log_sum: f64::NAN,
        entropy: 0.0,
        log_sum_squares: 0.0,
        argmax: -1.0,
    };

    pub fn new(scores: &[f64], label: usize, temperature: f64) -> Self {
        let maximum = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let scaled = |x: f64| (x - maximum) / temperature;
        let first = scores.iter().position(|&x| x == maximum).unwrap_or(0);
        // The first maximum contributes exactly 1, so that log1p keeps the digits of the rest.
        let others = || {
            let of = scores.iter().enumerate();
            of.filter(|&(v, _)| v != first || scores[v].is_nan()).map(|(_, &x)| scaled(x))
        };
        let log_sum = others().map(f64::exp).sum::<f64>().ln_1p();
        let log_sum = if maximum.is_finite() { log_sum } else { f64::NAN };
        let entropy = scores.iter().map(|&x| surprise(scaled(x) - log_sum)).sum();
        let squares = others().map(|z| (2.0 * z).exp()).sum::<f64>();
        let nan = scores.iter().position(|x| x.is_nan());
        Self {
            log_prob: scaled(scores[label]) - log_sum,
            maximum: if nan.is_some() { f64::NAN } else { maximum },
            log_sum,
            entropy,
            log_sum_squares: squares.ln_1p() - 2.0 * log_sum,
            argmax: nan.unwrap_or(first) as f64,
        }
    }
}

/// `-p log p`, with `0 log 0 = 0`.
fn surprise(log_prob: f64) -> f64 {
    if log_prob == f64::NEG_INFINITY { 0.0 } else { -log_prob.exp() * log_prob }
}
