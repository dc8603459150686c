//! The divergence `D` of each token, and the student's gradient `dx[v] = g * (w[v] - q[v] * sum w) / T`
//! with `w[v] = q[v] * dD/dq[v]`, `q` the student's distribution and `g` the gradient by the token's `D`.

use super::log_probs::scores;
use crate::batch::Logits;
use crate::error::Result;
use crate::objectives::scalar::product;
use crate::stages::{Adaptive, Divergence, MaskedRows, Measure, StudentTarget, Target, Teacher};

pub(crate) fn divergence(mut stage: Divergence<'_>) -> Result<()> {
    let [count, vocab] = stage.student.logits().shape().size();
    let tokens = stage.tokens.host()?;
    tokens.check(vocab)?;
    for token in 0..count {
        let row = tokens.counted_label(token).map(|_| Row::new(&stage, token));
        stage.outputs.set(token, row.as_ref().map_or([0.0; 3], |row| row.results));
        let upstream = stage.upstream.map_or(0.0, |upstream| upstream.get(token));
        write(&mut stage.student, token, upstream, row);
    }
    Ok(())
}

/// The gradient of a token, times the gradient `upstream` by its divergence.
pub(super) fn write(
    student: &mut StudentTarget<'_>,
    token: usize,
    upstream: f64,
    row: Option<Row>,
) {
    let vocab = student.logits().vocab();
    let grads = row.map(|row| match upstream {
        0.0 => vec![0.0; vocab],
        _ => row.grads.iter().map(|grad| upstream * grad).collect(),
    });
    let (out, add, grads) = match (student, grads) {
        (StudentTarget::Values(_), _)
        | (StudentTarget::Added { .. }, None)
        | (StudentTarget::Written(_, MaskedRows::AlreadyZero), None) => return,
        (StudentTarget::Added { grads: out, .. }, Some(grads)) => (out, true, grads),
        (StudentTarget::Written(target, _), grads) => {
            let (Target::InPlace(out) | Target::OutOfPlace { grads: out, .. }) = target;
            (out, false, grads.unwrap_or(vec![0.0; vocab]))
        }
    };
    let start = token * out.shape().stride;
    for (v, grad) in grads.into_iter().enumerate() {
        let before = if add { out.view().data().get(start + v) } else { 0.0 };
        out.data_mut().set(start + v, before + grad);
    }
}

/// A token that counts.
pub(super) struct Row {
    /// The divergence, and the entropies of student and teacher.
    pub results: [f64; 3],
    /// By the student's logits: of every column, also of those that the teacher lacks.
    pub grads: Vec<f64>,
}

impl Row {
    fn new(stage: &Divergence<'_>, token: usize) -> Self {
        let Divergence { student, teacher, columns, temperatures, measure, .. } = stage;
        let student = student.logits();
        let log_q = log_softmax(&first(student, token, *columns), temperatures[0]);
        let (target, weight) = target(teacher, token, *columns);
        let (terms, teacher_entropy): (Vec<_>, _) = match *measure {
            Measure::Advantage { beta, low, high } => {
                let advantages = advantages(teacher, token, *columns, temperatures[1]);
                let clipped = advantages.iter().map(|a| clip(beta * a, low, high));
                (log_q.iter().zip(clipped).map(|(&log_q, a)| expected(log_q, a)).collect(), 0.0)
            }
            measure => {
                let log_p = log_softmax(&target, temperatures[1]);
                let both = log_q.iter().zip(&log_p);
                let terms = both.map(|(&log_q, &log_p)| measure.term(log_q, log_p)).collect();
                (terms, entropy(&log_p))
            }
        };
        let value: f64 = terms.iter().map(|[value, _]| value).sum();
        let sum: f64 = terms.iter().map(|[_, w]| w).sum();
        let scale = weight / temperatures[0];
        // Infinite, it has no gradient.
        let sum = if sum.is_finite() { sum } else { f64::NAN };
        let both = log_q.iter().zip(&terms);
        let grads = both.map(|(log_q, [_, w])| scale * (w - log_q.exp() * sum));
        let beyond = std::iter::repeat_n(0.0, student.vocab() - columns);
        Self {
            results: [weight * value, entropy(&log_q), teacher_entropy],
            grads: grads.chain(beyond).collect(),
        }
    }
}

impl Measure {
    /// What a column adds to the value, and its `w`.
    pub(crate) fn term(self, log_q: f64, log_p: f64) -> [f64; 2] {
        if log_q.is_nan() || log_p.is_nan() {
            // Also where it meets a logarithm of 0.
            return [f64::NAN; 2];
        }
        let (q, p) = (log_q.exp(), log_p.exp());
        match self {
            Self::Kl { forward, reverse, cross } => {
                let log_ratio = if cross { -log_q } else { log_p - log_q };
                let by_student = product(beside(log_p, q), log_q - log_p);
                let by_teacher = product(beside(log_q, p), log_ratio);
                [
                    product(forward, by_teacher) + product(reverse, by_student),
                    // dD/dq may have any constant: with 1 here both terms are 0 where p is q.
                    product(reverse, by_student) + forward * (q - p),
                ]
            }
            Self::Mixture { teacher, forward, reverse } => {
                let log_m = log_mixture(teacher, log_p, log_q);
                let (log_p, log_q) = (product(p, log_p - log_m), product(q, log_q - log_m));
                // At most 1.
                let share = product((1.0 - teacher) * q, (-log_m).exp());
                [
                    product(forward, log_p) + product(reverse, log_q),
                    product(reverse, log_q) - share * (forward * p + reverse * q),
                ]
            }
            Self::TotalVariation => {
                let difference = q - p;
                let sign = if difference == 0.0 { 0.0 } else { difference.signum() };
                [0.5 * difference.abs(), 0.5 * sign * q]
            }
            Self::Advantage { .. } => [f64::NAN; 2],
        }
    }
}

/// A probability, 0 where it counts as that beside another logarithm.
fn beside(other: f64, probability: f64) -> f64 {
    let is_least = probability < f64::from(f32::MIN_POSITIVE);
    if other.is_infinite() && is_least { 0.0 } else { probability }
}

/// NaN stays.
fn clip(number: f64, low: f64, high: f64) -> f64 {
    match number {
        number if number < low => low,
        number if number > high => high,
        number => number,
    }
}

/// The same of an advantage.
fn expected(log_q: f64, advantage: f64) -> [f64; 2] {
    [-product(beside(advantage, log_q.exp()), advantage); 2]
}

fn log_mixture(teacher: f64, log_p: f64, log_q: f64) -> f64 {
    let (a, b) = (teacher.ln() + log_p, (1.0 - teacher).ln() + log_q);
    let maximum = a.max(b);
    maximum + ((a - maximum).exp() + (b - maximum).exp()).ln()
}

pub(crate) fn entropy(log_probs: &[f64]) -> f64 {
    -log_probs.iter().map(|&log_p| product(log_p.exp(), log_p)).sum::<f64>()
}

fn first(logits: Logits<'_>, token: usize, columns: usize) -> Vec<f64> {
    let mut scores = scores(logits, token);
    scores.truncate(columns);
    scores
}

/// The teacher's logits, and the factor of the token's divergence.
fn target(teacher: &Teacher<'_>, token: usize, columns: usize) -> (Vec<f64>, f64) {
    let parts = teacher.parts();
    let rows: Vec<_> = parts.iter().map(|(_, logits)| first(*logits, token, columns)).collect();
    let mut coefficients: Vec<_> = parts.iter().map(|&(coefficient, _)| coefficient).collect();
    let mut weight = 1.0;
    if let Some(Adaptive { ratio, beta }) = teacher.adaptive() {
        let [p, other] = [&rows[0], &rows[1]].map(|row| log_softmax(row, 1.0));
        let distance: f64 = p.iter().zip(&other).map(|(a, b)| (a.exp() - b.exp()).abs()).sum();
        let alpha = ratio * distance + Adaptive::LEAST;
        coefficients = vec![1.0 + alpha, -alpha];
        weight = beta / alpha;
    }
    (combination(&coefficients, &rows), weight)
}

/// A column that one of the parts excludes is excluded: it is -inf, also where another would make it NaN.
pub(super) fn combination(coefficients: &[f64], rows: &[Vec<f64>]) -> Vec<f64> {
    let column = |v: usize| {
        let terms = || coefficients.iter().zip(rows).map(|(&c, row)| product(c, row[v]));
        match terms().any(|term| term == f64::NEG_INFINITY) {
            true => f64::NEG_INFINITY,
            false => terms().sum(),
        }
    };
    (0..rows[0].len()).map(column).collect()
}

/// `sum_i c_i log p_i`.
fn advantages(teacher: &Teacher<'_>, token: usize, columns: usize, temperature: f64) -> Vec<f64> {
    let parts = teacher.parts().iter();
    let log_p = |logits: Logits<'_>| log_softmax(&first(logits, token, columns), temperature);
    let (coefficients, rows): (Vec<_>, Vec<_>) =
        parts.map(|&(coefficient, logits)| (coefficient, log_p(logits))).unzip();
    combination(&coefficients, &rows)
}

pub(super) fn log_softmax(scores: &[f64], temperature: f64) -> Vec<f64> {
    let maximum = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let scaled = |x: f64| (x - maximum) / temperature;
    let first = scores.iter().position(|&x| x == maximum).unwrap_or(0);
    let others = scores.iter().enumerate().filter(|&(v, x)| v != first || x.is_nan());
    let log_sum = others.map(|(_, &x)| scaled(x).exp()).sum::<f64>().ln_1p();
    scores.iter().map(|&x| scaled(x) - log_sum).collect()
}
