//! How far f32 arithmetic may lie from the truth.
//!
//! A logit of the combination is made of differences `d_i = z_i - a_i` from a maximum of the part's own, that of
//! the block or the segment that the column lies in, so that `|d_i| <= max z_i - z_i`. Each difference, the
//! coefficient and their product are rounded once, and the sums of at most three of them twice: `e = 5 u sum_i
//! |c_i d_i|`, u half an ulp. Where the anchors lie is known in f64. What moves all logits alike moves no
//! log-prob, and that of the label moves by `(1 - p) e` of its own and by `sum p e` of the others.
//!
//! The sum of exponentials is that of stage 1, whose test says what `SUM` is, for blocks of at most 4096
//! columns; its arguments `z = (x - m) / T` add `3 u sum p |z|`.

use super::Case;
use prefuse::DType;

/// Half an ulp of f32.
const ROUND: f64 = 1.0 / (1 << 24) as f64;

const SUM: f64 = 75.0 * ROUND;

/// `sum p |x|`, where 0 times infinity is 0.
fn mean(p: &[f64], x: &[f64]) -> f64 {
    let terms = p.iter().zip(x).filter(|(p, _)| **p > 0.0);
    terms.map(|(p, x)| p * x.abs()).sum()
}

/// A token that counts.
pub struct Bound {
    label: usize,
    is_f64: bool,
    /// Of each column: probability, z, and what its logit is off by, divided by the temperature.
    p: Vec<f64>,
    z: Vec<f64>,
    error: Vec<f64>,
    mean_error: f64,
    log_sum: f64,
    scaled_maximum: f64,
}

impl Bound {
    pub fn new(case: &Case, token: usize) -> Self {
        let (row, t) = (case.combined(token), case.temperature);
        let maximum = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let z: Vec<f64> = row.iter().map(|x| (x - maximum) / t).collect();
        let sum: f64 = z.iter().map(|z| z.exp()).sum();
        let p: Vec<f64> = z.iter().map(|z| z.exp() / sum).collect();
        let parts: Vec<_> = case.parts.iter().filter(|part| part.coefficient != 0.0).collect();
        let of_part = |data: &[f64]| data[token * case.vocab..][..case.vocab].to_vec();
        let mut error = vec![0.0; case.vocab];
        for part in &parts {
            let logits = of_part(&part.data);
            let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            for (error, x) in error.iter_mut().zip(logits) {
                let size = part.coefficient.abs() * (largest - x);
                *error += if size.is_finite() { 5.0 * ROUND * size / t } else { 0.0 };
            }
        }
        let is_f64 = case.parts.iter().any(|part| part.dtype == DType::F64);
        let (label, log_sum) = (case.ids[token] as usize, sum.ln());
        let (mean_error, scaled_maximum) = (mean(&p, &error), maximum.abs() / t);
        Self { label, is_f64, p, z, error, mean_error, log_sum, scaled_maximum }
    }

    fn sum(&self) -> f64 {
        SUM * self.log_sum.min(1.0) + 3.0 * ROUND * mean(&self.p, &self.z)
    }

    pub fn log_prob(&self, value: f64) -> f64 {
        if self.is_f64 {
            return 1e-11 * (value.abs() + 1e-3 * self.scaled_maximum);
        }
        let own = (1.0 - 2.0 * self.p[self.label]) * self.error[self.label];
        // f64 is not exact where a maximum is far from 0.
        let of_f64 = 1e-14 * self.scaled_maximum;
        self.sum() + own.abs() + self.mean_error + ROUND * value.abs() + of_f64
    }

    /// Of the logarithm of the sum of `exp(x / T)`.
    pub fn log_sum_exp(&self) -> f64 {
        let of_f64 = 1e-14 * (self.scaled_maximum + self.log_sum);
        if self.is_f64 {
            return 1e3 * of_f64;
        }
        self.sum() + self.mean_error + ROUND * self.log_sum + 10.0 * of_f64
    }

    /// Relative, of a column's probability: the argument `z - log-sum` carries an ulp each of z, of the log-sum
    /// and of itself, and what stage 4's test has for the exponential; then what the logits are off by.
    pub fn probability(&self, v: usize) -> f64 {
        if self.p[v] == 0.0 {
            return 0.0;
        }
        let log_p = self.z[v] - self.log_sum;
        let parts = self.z[v].abs() + self.log_sum + log_p.abs();
        let unit = if self.is_f64 { f64::EPSILON } else { ROUND };
        let logits = if self.is_f64 { 1e-12 } else { self.error[v] + self.mean_error };
        (4.0 * parts + 80.0) * unit + logits + 1e-14 * self.scaled_maximum
    }

    /// The probability, and minus the gradient of a log-prob of temperature 1 by the column.
    pub fn column(&self, v: usize) -> f64 {
        self.p[v]
    }
}
