// The functions that an objective's body may call, on f64; twin of src/objectives/scalar.rs.
//
// exp, exp2, expm1, log and log1p are the compiler's own. max is ours: fmax drops NaN where Rust's twin keeps it.
#pragma once

namespace prefuse {

using let = const double;

__device__ inline double abs(double x) { return fabs(x); }

__device__ inline double max(double a, double b) { return a > b || a != a ? a : b; }

__device__ inline double min(double a, double b) { return a < b || a != a ? a : b; }

__device__ inline double clip(double x, double low, double high) {
  return x < low ? low : x > high ? high : x;
}

__device__ inline double sigmoid(double x) {
  const double tail = exp(-abs(x));
  return (x < 0.0 ? tail : 1.0) / (1.0 + tail);
}

__device__ inline double softplus(double x) { return max(x, 0.0) + log1p(exp(-abs(x))); }

__device__ inline double product(double a, double b) { return a == 0.0 || b == 0.0 ? 0.0 : a * b; }

__device__ inline double soft_loss(double u, double right, double wrong) {
  return product(right, softplus(-u)) + product(wrong, softplus(u));
}

__device__ inline double soft_slope(double u, double right, double wrong) {
  return wrong * sigmoid(u) - right * sigmoid(-u);
}

__device__ inline double logistic_loss(double u, double label) {
  return soft_loss(u, label, 1.0 - label);
}

__device__ inline double logistic_slope(double u, double label) {
  return soft_slope(u, label, 1.0 - label);
}

__device__ inline double smoothed(double soft_label, double label_smoothing) {
  return (1.0 - label_smoothing) * soft_label + label_smoothing * (1.0 - soft_label);
}

__device__ inline double length(double tokens) { return max(tokens, 1.0); }

__device__ inline double one_or(double divides, double divisor) {
  return divides != 0.0 ? divisor : 1.0;
}

__device__ inline double ratio(double a, double b) { return a == b ? 1.0 : a / b; }

__device__ inline double posterior_log_odds(double log_odds, double prior) {
  const double of_prior = log(prior / (1.0 - prior));
  return of_prior - of_prior == 0.0 ? log_odds + of_prior : of_prior;
}

// The values of `Divergence` in src/objectives/scalar.rs.
namespace Divergence {
constexpr double ReverseKl = 0.0, ForwardKl = 1.0, JensenShannon = 2.0, Alpha = 3.0;
}

__device__ inline double divergence_score(double kind, double alpha, double log_ratio) {
  if (kind == Divergence::ForwardKl) return -expm1(-log_ratio);
  if (kind == Divergence::JensenShannon) return 0.693147180559945309417 - softplus(-log_ratio);
  if (kind == Divergence::ReverseKl || alpha == 1.0) return log_ratio;
  return expm1((alpha - 1.0) * log_ratio) / (alpha - 1.0);
}

__device__ inline double divergence_slope(double kind, double alpha, double log_ratio) {
  if (kind == Divergence::ReverseKl) return 1.0;
  if (kind == Divergence::ForwardKl) return exp(-log_ratio);
  if (kind == Divergence::JensenShannon) return sigmoid(-log_ratio);
  return exp((alpha - 1.0) * log_ratio);
}

__device__ inline double divergence_margin(double kind, double alpha, double chosen,
                                           double chosen_length, double rejected,
                                           double rejected_length) {
  const double first = divergence_score(kind, alpha, chosen) / chosen_length;
  const double second = divergence_score(kind, alpha, rejected) / rejected_length;
  if (first != second || first - first == 0.0) return first - second;
  const double rate = kind == Divergence::ForwardKl ? -1.0 : alpha - 1.0;
  const double exponents = rate * (chosen - rejected) - log(chosen_length / rejected_length);
  return exponents == 0.0 ? 0.0 : product(exponents, first);
}

// The values of `KlEstimator` in src/objectives/scalar.rs.
namespace KlEstimator {
constexpr double K1 = 0.0, K2 = 1.0, K3 = 2.0;
}

__device__ inline double kl_decay(double estimator, double difference) {
  return estimator == KlEstimator::K3 ? expm1(-difference) : 0.0;
}

__device__ inline double kl_estimate(double estimator, double difference, double decay) {
  if (estimator == KlEstimator::K1) return difference;
  if (estimator == KlEstimator::K2) return 0.5 * difference * difference;
  return decay + difference;
}

__device__ inline double kl_slope(double estimator, double difference, double decay) {
  if (estimator == KlEstimator::K1) return 1.0;
  if (estimator == KlEstimator::K2) return difference;
  return -decay;
}

__device__ inline double select(bool condition, double a, double b) { return condition ? a : b; }

}  // namespace prefuse
