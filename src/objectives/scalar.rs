//! The functions that an objective's body may call, on f64. Twin: `kernels/include/scalar.cuh`.

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
pub fn divergence_score(divergence: Divergence, alpha: f64, log_ratio: f64) -> f64 {
    match divergence {
        Divergence::ReverseKl => log_ratio,
        Divergence::ForwardKl => -expm1(-log_ratio),
        Divergence::JensenShannon => std::f64::consts::LN_2 - softplus(-log_ratio),
        Divergence::Alpha if alpha == 1.0 => log_ratio,
        Divergence::Alpha => expm1((alpha - 1.0) * log_ratio) / (alpha - 1.0),
    }
}

/// The derivative of [`divergence_score`] by the log-ratio.
pub fn divergence_slope(divergence: Divergence, alpha: f64, log_ratio: f64) -> f64 {
    match divergence {
        Divergence::ReverseKl => 1.0,
        Divergence::ForwardKl => exp(-log_ratio),
        Divergence::JensenShannon => sigmoid(-log_ratio),
        Divergence::Alpha => exp((alpha - 1.0) * log_ratio),
    }
}

/// The score of `chosen` over its length, minus that of `rejected` over its own. Where both are
/// infinite the larger exponent decides, as it does a little before.
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
    let rate = if divergence == Divergence::ForwardKl { -1.0 } else { alpha - 1.0 };
    let exponents = rate * (chosen - rejected) - log(chosen_length / rejected_length);
    if exponents == 0.0 { 0.0 } else { product(exponents, first) }
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
pub fn kl_decay(estimator: KlEstimator, difference: f64) -> f64 {
    if estimator == KlEstimator::K3 { expm1(-difference) } else { 0.0 }
}

/// An estimate of the KL divergence from the difference of two log-probs, and [`kl_decay`] of it.
pub fn kl_estimate(estimator: KlEstimator, difference: f64, decay: f64) -> f64 {
    match estimator {
        KlEstimator::K1 => difference,
        KlEstimator::K2 => 0.5 * difference * difference,
        KlEstimator::K3 => decay + difference,
    }
}

/// The derivative of [`kl_estimate`] by the difference; [`kl_decay`] of it is the same.
pub fn kl_slope(estimator: KlEstimator, difference: f64, decay: f64) -> f64 {
    match estimator {
        KlEstimator::K1 => 1.0,
        KlEstimator::K2 => difference,
        KlEstimator::K3 => -decay,
    }
}

/// `a` if the condition holds, else `b`.
pub fn select(condition: bool, a: f64, b: f64) -> f64 {
    if condition { a } else { b }
}

/// The logistic function.
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + exp(-x))
}

/// `log(1 + exp(x))`, finite wherever the mathematics is.
pub fn softplus(x: f64) -> f64 {
    max(x, 0.0) + log1p(exp(-abs(x)))
}

/// `a * b`, where a factor of exactly 0 wins over an infinite one.
pub fn product(a: f64, b: f64) -> f64 {
    if a == 0.0 || b == 0.0 { 0.0 } else { a * b }
}

/// `right * softplus(-u) + wrong * softplus(u)`: the logistic loss of margin `u` under a soft label whose
/// complement is known to more digits than `1 - right` has, as it is where the label is a
/// [`sigmoid`].
pub fn soft_loss(u: f64, right: f64, wrong: f64) -> f64 {
    product(right, softplus(-u)) + product(wrong, softplus(u))
}

/// The derivative of [`soft_loss`] by `u`, for `right + wrong = 1`. It equals `sigmoid(u) - right`,
/// without that form's cancellation.
pub fn soft_slope(u: f64, right: f64, wrong: f64) -> f64 {
    wrong * sigmoid(u) - right * sigmoid(-u)
}

/// [`soft_loss`] under a label that is given.
pub fn logistic_loss(u: f64, label: f64) -> f64 {
    soft_loss(u, label, 1.0 - label)
}

/// The derivative of [`logistic_loss`] by `u`.
pub fn logistic_slope(u: f64, label: f64) -> f64 {
    soft_slope(u, label, 1.0 - label)
}

/// `w` if the label is right and `1 - w` if it is not, for a label that is wrong with probability
/// `label_smoothing`.
pub fn smoothed(soft_label: f64, label_smoothing: f64) -> f64 {
    (1.0 - label_smoothing) * soft_label + label_smoothing * (1.0 - soft_label)
}

/// A count of tokens as a divisor: at least 1, so that an empty response has an average.
pub fn length(tokens: f64) -> f64 {
    max(tokens, 1.0)
}

/// `divisor` if `divides`, else 1.
pub fn one_or(divides: bool, divisor: f64) -> f64 {
    if divides { divisor } else { 1.0 }
}

/// `a / b`, and 1 where both are 0.
pub fn ratio(a: f64, b: f64) -> f64 {
    if a == b { 1.0 } else { a / b }
}

/// The log-odds that a label is right, by the probability of that before and the log-odds that the policy
/// gives it: `log_odds + logit(prior)`. A prior of 0 or 1 is certain: infinite.
pub fn posterior_log_odds(log_odds: f64, prior: f64) -> f64 {
    let of_prior = log(prior / (1.0 - prior));
    if of_prior.is_infinite() { of_prior } else { log_odds + of_prior }
}

/// The natural exponential.
pub fn exp(x: f64) -> f64 {
    x.exp()
}

/// 2 to the power of `x`.
pub fn exp2(x: f64) -> f64 {
    x.exp2()
}

/// `log(1 + x)`.
pub fn log1p(x: f64) -> f64 {
    x.ln_1p()
}

/// `exp(x) - 1`.
pub fn expm1(x: f64) -> f64 {
    x.exp_m1()
}

/// The natural logarithm.
pub fn log(x: f64) -> f64 {
    x.ln()
}

/// The magnitude.
pub fn abs(x: f64) -> f64 {
    x.abs()
}

/// The smaller; NaN if either is NaN.
pub fn min(a: f64, b: f64) -> f64 {
    if a < b || a.is_nan() { a } else { b }
}

/// `x`, but no less than `low` and no more than `high`; NaN if it is NaN.
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
pub fn max(a: f64, b: f64) -> f64 {
    if a > b || a.is_nan() { a } else { b }
}
