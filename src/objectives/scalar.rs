//! The functions that an objective's body may call, on f64.

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

/// `label * softplus(-u) + (1 - label) * softplus(u)`: the logistic loss of margin `u` under a
/// soft label.
pub fn logistic_loss(u: f64, label: f64) -> f64 {
    product(label, softplus(-u)) + product(1.0 - label, softplus(u))
}

/// The derivative of [`logistic_loss`] by `u`. It equals `sigmoid(u) - label`, without that form's
/// cancellation.
pub fn logistic_slope(u: f64, label: f64) -> f64 {
    (1.0 - label) * sigmoid(u) - label * sigmoid(-u)
}

/// The natural exponential.
pub fn exp(x: f64) -> f64 {
    x.exp()
}

/// `log(1 + x)`.
pub fn log1p(x: f64) -> f64 {
    x.ln_1p()
}

/// The magnitude.
pub fn abs(x: f64) -> f64 {
    x.abs()
}

/// The larger; NaN if either is NaN.
pub fn max(a: f64, b: f64) -> f64 {
    if a > b || a.is_nan() { a } else { b }
}
