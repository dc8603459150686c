//! How far f32 arithmetic may lie from the truth.
//!
//! Every logarithm of a probability carries half an ulp each of `z = (x - m) / T`, of the log-sum, of
//! their difference, and the error of the log-sum itself (75 half ulps of 1: see the test of stage 1):
//! `e`. Where the teacher is a sum of several logits, the roundings of its terms add to that, and
//! AlignDistil's coefficient has the error of a total variation. A column's value `f` and slope `w` change
//! by at most `(p + q) (1 + |log q - log p|)` for each unit of either logarithm; the sums over the row
//! add 100 half ulps of the sum of the magnitudes that go into them, which for the KL are
//! `p (|z| + |z'| + log-sums)`. Where the sign of `q - p` hangs on less than `e`, the slope of a total
//! variation may be of either sign. The stored element is rounded once.

use prefuse::stages::TokenDivergence;
use prefuse::{DType, Element};

use super::case::{Case, Found};
use crate::common::rounding;

/// A distribution, and how well f32 knows the logarithms of its columns.
struct Distribution {
    z: Vec<f64>,
    log_sum: f64,
}

impl Distribution {
    fn new(logits: &[f64], temperature: f64) -> Self {
        let maximum = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let z: Vec<_> = logits.iter().map(|x| (x - maximum) / temperature).collect();
        let log_sum = z.iter().map(|z| z.exp()).sum::<f64>().ln();
        Self { z, log_sum }
    }

    fn log_prob(&self, v: usize) -> f64 {
        self.z[v] - self.log_sum
    }

    /// Half ulps in the logarithm of a column.
    fn error(&self, v: usize) -> f64 {
        4.0 * (self.z[v].abs() + self.log_sum + self.log_prob(v).abs()) + 80.0
    }

    /// What goes into its sums for each unit of probability.
    fn magnitude(&self, v: usize) -> f64 {
        self.z[v].abs() + self.log_sum
    }
}

/// The columns of a row.
struct Row {
    q: Vec<f64>,
    p: Vec<f64>,
    /// `|log q - log p|`, or the size of the advantage.
    distance: Vec<f64>,
    error: Vec<f64>,
    bound: f64,
    /// The factor of the divergence, and its relative error.
    weight: [f64; 2],
}

/// Asserts that everything found is within its bound of the truth.
pub fn compare<S: Element, T: Element>(
    what: &str,
    case: &Case<S, T>,
    got: &Found<S>,
    truth: &Found<f64>,
) {
    let exact = case.exact();
    let half_ulp = if S::DTYPE == DType::F64 { f64::EPSILON / 2.0 } else { 2f64.powi(-24) };
    let (relative, absolute) = rounding::<S>();
    for token in 0..case.tokens() {
        let place = format!("{what} {:?} token {token}", case.divergence);
        let counts = case.ids[token] != -100
            && case.weights.as_ref().is_none_or(|weights| weights[token] != 0.0);
        if !counts {
            let numbers = [&got.values, &got.student_entropy, &got.teacher_entropy];
            assert!(numbers.iter().all(|of| of.get(token).is_none_or(|&x| x == 0.0)), "{place}");
            let row = &got.grads[token * case.vocab..][..case.vocab];
            assert!(row.iter().all(|x| x.to_f64() == 0.0), "{place}");
            continue;
        }
        let row = Row::new(&exact, token, half_ulp);
        let weight = row.weight[0];
        let rounded = |x: f64| 4.0 * half_ulp * x.abs();
        let by_weight = row.weight[1] * truth.values[token].abs();
        let bound = weight * row.bound + by_weight + rounded(truth.values[token]);
        near(&place, "value", got.values[token], truth.values[token], bound);
        for (name, got, truth) in [
            ("student entropy", &got.student_entropy, &truth.student_entropy),
            ("teacher entropy", &got.teacher_entropy, &truth.teacher_entropy),
        ] {
            if let Some((&got, &truth)) = got.get(token).zip(truth.get(token)) {
                near(&place, name, got, truth, 3.0 * row.entropy_bound() + rounded(truth));
            }
        }
        if truth.values[token].is_infinite() {
            continue;
        }
        let scale = case.upstream[token].abs() * weight / case.temperatures[0];
        for v in 0..case.vocab {
            let index = token * case.vocab + v;
            let expected = truth.grads[index];
            // A q below that is 0, and its slope with it: the logarithm and what is taken from it.
            let least = 4.0 * f64::from(f32::MIN_POSITIVE);
            let distance = row.distance.get(v).filter(|x| x.is_finite()).unwrap_or(&0.0);
            let flushed = least * (scale + 1.0) * (1.0 + distance + truth.values[token].abs());
            let arithmetic = scale * row.grad_bound(v)
                + flushed
                + (row.weight[1] + 8.0 * half_ulp) * expected.abs();
            let bound = arithmetic + relative * (expected.abs() + arithmetic) + absolute;
            near(
                &place,
                &format!("gradient of column {v}"),
                got.grads[index].to_f64(),
                expected,
                bound,
            );
        }
    }
}

fn near(place: &str, what: &str, got: f64, expected: f64, bound: f64) {
    let same = got == expected || got.is_nan() && expected.is_nan();
    assert!(
        same || (got - expected).abs() <= bound,
        "{place}: {what} {got} for {expected}, bound {bound}"
    );
}

impl Row {
    fn new(case: &Case<f64, f64>, token: usize, half_ulp: f64) -> Self {
        let columns = case.vocab.min(case.source.vocab);
        let student = &case.student[token * case.vocab..][..columns];
        let parts: Vec<_> = case.source.parts.iter().collect();
        let part = |i: usize| &parts[i].1[token * case.source.vocab..][..columns];
        let q = Distribution::new(student, case.temperatures[0]);
        let mut coefficients: Vec<_> = parts.iter().map(|(c, _)| *c).collect();
        let (mut weight, mut of_alpha) = ([1.0, 0.0], 0.0);
        if let Some((beta, ratio, doubled)) = case.source.adaptive {
            let ratio = if doubled { ratio } else { 0.5 * ratio };
            let both = [part(0), part(1)].map(|row| Distribution::new(row, 1.0));
            let (mut sum, mut error) = (0.0, 0.0);
            for v in 0..columns {
                let [a, b] = both.each_ref().map(|of| of.log_prob(v).exp());
                sum += (a - b).abs();
                for (p, of) in [(a, &both[0]), (b, &both[1])] {
                    error += if p == 0.0 { 0.0 } else { p * (of.error(v) + 100.0) * half_ulp };
                }
            }
            let alpha = ratio * sum + 1e-3;
            of_alpha = ratio * error + 4.0 * half_ulp * alpha;
            coefficients = vec![1.0 + alpha, -alpha];
            weight = [beta / alpha, of_alpha / alpha + 4.0 * half_ulp];
        }
        let is_advantage = matches!(case.divergence, TokenDivergence::ExpectedAdvantage { .. });
        let finite = |x: f64| if x.is_finite() { x.abs() } else { 0.0 };
        let combined: Vec<f64> = (0..columns)
            .map(|v| {
                let terms = || coefficients.iter().enumerate().map(|(i, c)| c * part(i)[v]);
                let excluded = terms().any(|term| term == f64::NEG_INFINITY);
                if excluded { f64::NEG_INFINITY } else { terms().sum() }
            })
            .collect();
        let several = parts.len() > 1;
        let sizes: Vec<f64> = (0..columns)
            .map(|v| (0..parts.len()).map(|i| finite(coefficients[i] * part(i)[v])).sum())
            .collect();
        let largest = sizes.iter().copied().fold(0.0, f64::max);
        let differences: Vec<f64> = (0..columns)
            .map(|v| if several { finite(part(0)[v] - part(parts.len() - 1)[v]) } else { 0.0 })
            .collect();
        let widest = differences.iter().copied().fold(0.0, f64::max);
        let p = Distribution::new(&combined, case.temperatures[1]);
        let advantages = is_advantage.then(|| Advantages::new(case, token, columns));
        let mut row = Self {
            q: (0..columns).map(|v| q.log_prob(v).exp()).collect(),
            p: (0..columns).map(|v| p.log_prob(v).exp()).collect(),
            distance: vec![],
            error: vec![],
            bound: 0.0,
            weight,
        };
        for v in 0..columns {
            let rounded =
                if several { 4.0 * (sizes[v] + largest) / case.temperatures[1] } else { 0.0 };
            let by_alpha = of_alpha * (differences[v] + widest) / case.temperatures[1];
            // A column of probability 0 adds nothing, whatever its logarithm.
            let capped = |x: f64| if x.is_finite() { x } else { 0.0 };
            let (distance, error) = match &advantages {
                Some(of) => (of.size[v], of.error[v] + capped(q.error(v))),
                None => {
                    let distance = (q.log_prob(v) - p.log_prob(v)).abs().min(200.0);
                    (distance, capped(q.error(v)) + capped(p.error(v)) + rounded)
                }
            };
            row.distance.push(if distance.is_nan() { 0.0 } else { distance });
            row.error.push(error * half_ulp + by_alpha);
            let sums = capped(q.magnitude(v)) + capped(p.magnitude(v)) + row.distance[v] + 1.0;
            let both = if is_advantage { row.q[v] } else { row.p[v] + row.q[v] };
            row.bound += both * ((1.0 + row.distance[v]) * row.error[v] + 100.0 * half_ulp * sums);
            if case.divergence == TokenDivergence::TotalVariation {
                row.bound += row.either_sign(v);
            }
        }
        row
    }

    /// What the slope of a total variation may be off by.
    fn either_sign(&self, v: usize) -> f64 {
        if self.distance[v] <= self.error[v] { self.q[v] } else { 0.0 }
    }

    /// The entropies are sums of the same parts.
    fn entropy_bound(&self) -> f64 {
        self.bound
    }

    fn grad_bound(&self, v: usize) -> f64 {
        if v >= self.q.len() {
            return 0.0;
        }
        let both = self.p[v] + self.q[v];
        2.0 * both * (1.0 + self.distance[v]) * self.error[v]
            + 2.0 * self.q[v] * self.bound
            + self.either_sign(v)
            + self.q[v] * self.error[v]
    }
}

/// `|A|`, and half ulps in it.
struct Advantages {
    size: Vec<f64>,
    error: Vec<f64>,
}

impl Advantages {
    fn new(case: &Case<f64, f64>, token: usize, columns: usize) -> Self {
        let TokenDivergence::ExpectedAdvantage { beta, clip } = case.divergence else { panic!() };
        let (mut sum, mut error) = (vec![0.0; columns], vec![0.0; columns]);
        for (c, data) in &case.source.parts {
            let row = &data[token * case.source.vocab..][..columns];
            let of = Distribution::new(row, case.temperatures[1]);
            for v in 0..columns {
                sum[v] += beta * c * of.log_prob(v);
                let own = of.error(v) + 2.0 * of.log_prob(v).abs();
                error[v] += if own.is_finite() { beta * c.abs() * own } else { 0.0 };
            }
        }
        let size = sum.iter().map(|a| a.max(clip.0).min(clip.1).abs());
        Self { size: size.map(|a| if a.is_finite() { a } else { 0.0 }).collect(), error }
    }
}
