//! The functions that an objective's body may call, on f64. Twin: `kernels/include/scalar.cuh`.

pub use super::elementary::{exp, expm1, log, log1p};

crate::choice! {
    /// The divergence from the reference that the policy is held by (f-DPO; Wang et al., 2023): it
    /// turns the log-ratio `d` of a response into a score that takes its place.
    pub enum Divergence {
        /// `d` itself, as in DPO.
        ReverseKl,
        /// `1 - exp(-d)`.
        ForwardKl,
        /// `log 2 + log sigmoid(d)`.
        JensenShannon,
        /// `(exp((alpha - 1) d) - 1) / (alpha - 1)`, as TRL 1.16 has it: `d` at 1, forward KL at 0. The
        /// paper's alpha, and that of TRL up to 0.28, is `1 - alpha` of it: `f'(u) = (1 - u^-a) / a` at
        /// `u = exp(d)`, `a` from 0 (reverse KL) to 1 (forward KL).
        Alpha,
    }
}

/// The score of a log-ratio under a divergence; infinite beyond the range of f64.
#[inline(always)]
pub fn divergence_score(divergence: Divergence, alpha: f64, log_ratio: f64) -> f64 {
    let rate = divergence_rate(divergence, alpha);
    match divergence {
        Divergence::ReverseKl => log_ratio,
        Divergence::JensenShannon => std::f64::consts::LN_2 - softplus(-log_ratio),
        _ if rate == 0.0 => log_ratio,
        _ => expm1(rate * log_ratio) / rate,
    }
}

/// The derivative of [`divergence_score`] by the log-ratio.
#[inline(always)]
pub fn divergence_slope(divergence: Divergence, alpha: f64, log_ratio: f64) -> f64 {
    match divergence {
        Divergence::ReverseKl => 1.0,
        Divergence::JensenShannon => sigmoid(-log_ratio),
        _ => exp(divergence_rate(divergence, alpha) * log_ratio),
    }
}

/// The score of `chosen` over its length, minus that of `rejected` over its own. Where both are
/// infinite the larger exponent decides, as it does a little before.
#[inline(always)]
pub fn divergence_margin(
    divergence: Divergence,
    alpha: f64,
    chosen: f64,
    chosen_length: f64,
    rejected: f64,
    rejected_length: f64,
) -> f64 {
    let first = divergence_score(divergence, alpha, chosen) / chosen_length;
    let second = divergence_score(divergence, alpha, rejected) / rejected_length;
    if first != second || !first.is_infinite() {
        return first - second;
    }
    let rate = divergence_rate(divergence, alpha);
    let exponents = rate * (chosen - rejected) - log(chosen_length / rejected_length);
    if exponents == 0.0 { 0.0 } else { product(exponents, first) }
}

/// What multiplies the log-ratio in the exponent of a score that has one. Forward KL is alpha's at 0.
#[inline(always)]
fn divergence_rate(divergence: Divergence, alpha: f64) -> f64 {
    if divergence == Divergence::ForwardKl { -1.0 } else { alpha - 1.0 }
}

crate::choice! {
    /// An estimator of the KL divergence from one sample (Schulman, 2020), `d = log-prob - reference
    /// log-prob`.
    pub enum KlEstimator {
        /// `d`: unbiased, may be negative.
        K1,
        /// `d^2 / 2`: biased, never negative.
        K2,
        /// `exp(-d) + d - 1`: unbiased, never negative.
        K3,
    }
}

/// The exponential less 1 of minus a difference of two log-probs, for the estimator that looks at it.
#[inline(always)]
pub fn kl_decay(estimator: KlEstimator, difference: f64) -> f64 {
    if estimator == KlEstimator::K3 { expm1(-difference) } else { 0.0 }
}

/// An estimate of the KL divergence from the difference of two log-probs, and [`kl_decay`] of it.
#[inline(always)]
pub fn kl_estimate(estimator: KlEstimator, difference: f64, decay: f64) -> f64 {
    match estimator {
        KlEstimator::K1 => difference,
        KlEstimator::K2 => 0.5 * difference * difference,
        KlEstimator::K3 => decay + difference,
    }
}

/// The derivative of [`kl_estimate`] by the difference; [`kl_decay`] of it is the same.
#[inline(always)]
pub fn kl_slope(estimator: KlEstimator, difference: f64, decay: f64) -> f64 {
    match estimator {
        KlEstimator::K1 => 1.0,
        KlEstimator::K2 => difference,
        KlEstimator::K3 => -decay,
    }
}

/// `a` if the condition holds, else `b`.
#[inline(always)]
pub fn select(condition: bool, a: f64, b: f64) -> f64 {
    if condition { a } else { b }
}

/// The logistic function. Like [`softplus`] it takes the exponential of `-|x|`: those of `x` and of `-x`,
/// which stand side by side in most losses and their gradients, share it once they are inlined.
#[inline(always)]
pub fn sigmoid(x: f64) -> f64 {
    let tail = exp(-abs(x));
    let numerator = if x < 0.0 { tail } else { 1.0 };
    numerator / (1.0 + tail)
}

/// `log(1 + exp(x))`, finite wherever the mathematics is.
#[inline(always)]
pub fn softplus(x: f64) -> f64 {
    max(x, 0.0) + log1p(exp(-abs(x)))
}

/// `a * b`, where a factor of exactly 0 wins over an infinite one.
#[inline(always)]
pub fn product(a: f64, b: f64) -> f64 {
    if a == 0.0 || b == 0.0 { 0.0 } else { a * b }
}

/// `right * softplus(-u) + wrong * softplus(u)`: the logistic loss of margin `u` under a soft label whose
/// complement is known to more digits than `1 - right` has, as it is where the label is a
/// [`sigmoid`].
#[inline(always)]
pub fn soft_loss(u: f64, right: f64, wrong: f64) -> f64 {
    product(right, softplus(-u)) + product(wrong, softplus(u))
}

/// The derivative of [`soft_loss`] by `u`, for `right + wrong = 1`. It equals `sigmoid(u) - right`,
/// without that form's cancellation.
#[inline(always)]
pub fn soft_slope(u: f64, right: f64, wrong: f64) -> f64 {
    wrong * sigmoid(u) - right * sigmoid(-u)
}

/// [`soft_loss`] under a label that is given.
#[inline(always)]
pub fn logistic_loss(u: f64, label: f64) -> f64 {
    soft_loss(u, label, 1.0 - label)
}

/// The derivative of [`logistic_loss`] by `u`.
#[inline(always)]
pub fn logistic_slope(u: f64, label: f64) -> f64 {
    soft_slope(u, label, 1.0 - label)
}

/// `w` if the label is right and `1 - w` if it is not, for a label that is wrong with probability
/// `label_smoothing`.
#[inline(always)]
pub fn smoothed(soft_label: f64, label_smoothing: f64) -> f64 {
    (1.0 - label_smoothing) * soft_label + label_smoothing * (1.0 - soft_label)
}

/// A count of tokens as a divisor: at least 1, so that an empty response has an average.
#[inline(always)]
pub fn length(tokens: f64) -> f64 {
    max(tokens, 1.0)
}

/// `divisor` if `divides`, else 1.
#[inline(always)]
pub fn one_or(divides: bool, divisor: f64) -> f64 {
    if divides { divisor } else { 1.0 }
}

/// `a / b`, and 1 where both are 0.
#[inline(always)]
pub fn ratio(a: f64, b: f64) -> f64 {
    if a == b { 1.0 } else { a / b }
}

/// The log-odds that a label is right, by the probability of that before and the log-odds that the policy
/// gives it: `log_odds + logit(prior)`. A prior of 0 or 1 is certain: infinite.
#[inline(always)]
pub fn posterior_log_odds(log_odds: f64, prior: f64) -> f64 {
    let of_prior = log(prior / (1.0 - prior));
    if of_prior.is_infinite() { of_prior } else { log_odds + of_prior }
}

/// 2 to the power of `x`.
#[inline(always)]
pub fn exp2(x: f64) -> f64 {
    x.exp2()
}

/// The magnitude.
#[inline(always)]
pub fn abs(x: f64) -> f64 {
    x.abs()
}

/// The smaller; NaN if either is NaN.
#[inline(always)]
pub fn min(a: f64, b: f64) -> f64 {
    if a < b || a.is_nan() { a } else { b }
}

/// `x`, but no less than `low` and no more than `high`; NaN if it is NaN.
#[inline(always)]
pub fn clip(x: f64, low: f64, high: f64) -> f64 {
    if x < low {
        low
    } else if x > high {
        high
    } else {
        x
    }
}

/// The larger; NaN if either is NaN.
#[inline(always)]
pub fn max(a: f64, b: f64) -> f64 {
    if a > b || a.is_nan() { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_signs_of_the_logistic_function() {
        for i in -8000..=8000 {
            let x = f64::from(i) / 10.0;
            let (expected, got) = (1.0 / (1.0 + (-x).exp()), sigmoid(x));
            // Where exp(-x) overflows the quotient of the other form is 0; this one has its tail.
            let bound = 4.0 * f64::EPSILON * expected + f64::MIN_POSITIVE;
            assert!((got - expected).abs() <= bound, "{x}");
            assert!((got + sigmoid(-x) - 1.0).abs() <= 2.0 * f64::EPSILON, "{x}");
        }
        assert!(sigmoid(f64::NAN).is_nan());
        assert_eq!([sigmoid(f64::INFINITY), sigmoid(f64::NEG_INFINITY)], [1.0, 0.0]);
    }
}
