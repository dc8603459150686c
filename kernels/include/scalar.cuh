// The functions that an objective's body may call, on f64; twin of src/objectives/scalar.rs.
//
// exp and log1p are the compiler's own. max is ours: fmax drops NaN where Rust's twin keeps it.
#pragma once

namespace prefuse {

using let = const double;

__device__ inline double abs(double x) { return fabs(x); }

__device__ inline double max(double a, double b) { return a > b || a != a ? a : b; }

__device__ inline double sigmoid(double x) { return 1.0 / (1.0 + exp(-x)); }

__device__ inline double softplus(double x) { return max(x, 0.0) + log1p(exp(-abs(x))); }

__device__ inline double product(double a, double b) { return a == 0.0 || b == 0.0 ? 0.0 : a * b; }

__device__ inline double logistic_loss(double u, double label) {
  return product(label, softplus(-u)) + product(1.0 - label, softplus(u));
}

__device__ inline double logistic_slope(double u, double label) {
  return (1.0 - label) * sigmoid(u) - label * sigmoid(-u);
}

}  // namespace prefuse
