// What a column adds to a divergence of student q and teacher p, and its part of the gradient.
//
// With w = q dD/dq the gradient by a logit is w - q sum w, and any multiple of q may be added to w: all
// forms of columns are 0 where p is q. Their logarithms are in bits.
#pragma once

#include "element.cuh"
#include "ptx.cuh"

namespace prefuse {

// In place of an infinite logarithm that a probability of 0 multiplies.
constexpr float LARGE = 3.0e38f;

// 2^-LOWEST is 0.
constexpr float LOWEST = -150.0f;

constexpr int KL = 0, MIXTURE = 1, TOTAL_VARIATION = 2, ADVANTAGE = 3;

// Twin of `MeasureArguments` in src/cuda/divergence.rs.
struct DivergenceMeasure {
  int32_t kind;
  int32_t cross;           // whether the teacher's entropy goes with the forward KL
  float forward, reverse;  // factors of KL(p || .) and KL(q || .)
  float teacher, student;  // parts of the mixture: above 0, and 1 together
  float lean;              // forward * student - reverse * teacher
  float beta;              // of an advantage in bits
  float low, high;
};

__device__ __forceinline__ float finite(float x) { return fmaxf(fminf(x, LARGE), -LARGE); }

// Of student and teacher in bits, of whose logits z, less their maximum, the exponentials are summed.
struct LogSums {
  float student, teacher;
  float gap;  // the teacher's less the student's, rounded once: 0 where the sums are equal

  __device__ __forceinline__ float q(float z) const { return ex2(z - student); }
  __device__ __forceinline__ float p(float other) const { return ex2(other - teacher); }

  // log q - log p: not of the two, whose rounding is that of their size. NaN where both are 0.
  __device__ __forceinline__ float log_ratio(float z, float other) const {
    return (z - other) + gap;
  }

  // Of q - p.
  __device__ __forceinline__ float sign(float z, float other) const {
    const float d = log_ratio(z, other);
    return d > 0.0f ? 1.0f : d < 0.0f ? -1.0f : 0.0f;
  }
};

// From the sums less 1.
__device__ __forceinline__ LogSums log_sums(float student, float teacher) {
  const bool teacher_is_larger = teacher >= student;
  const float larger = teacher_is_larger ? teacher : student;
  const float smaller = teacher_is_larger ? student : teacher;
  const float gap = log1pf((larger - smaller) / (1.0f + smaller)) * LOG2_E;
  return {log1pf(student) * LOG2_E, log1pf(teacher) * LOG2_E, teacher_is_larger ? gap : -gap};
}

// No divergence is negative, but its sum may round to a number that is. NaN stays.
__device__ __forceinline__ float not_negative(float x) { return x < 0.0f ? 0.0f : x; }

// A column of KL(p || m) and KL(q || m), m = teacher p + student q.
//
// All of it comes from r, the smaller of p and q by the larger: with c the larger one's part in the
// mixture, m is the larger times t = c + (1 - c) r, which neither overflows nor cancels. Three operations
// of the special function unit, four where the mixture leans.
template <bool LEANS> struct MixtureColumn {
  float p, q;
  float p_by_m, q_by_m;  // logarithms
  float shift;           // (q - p) / m times student; nothing unless the mixture leans

  __device__ __forceinline__ MixtureColumn(const DivergenceMeasure &m, const LogSums &logs, float z,
                                           float other) {
    const float d = logs.log_ratio(z, other);
    const bool by_student = d > 0.0f;
    // A column that neither has: NaN becomes LOWEST, and both are 0.
    const float size = fminf(fabsf(d), -LOWEST), r = ex2(-size);
    const float own = by_student ? m.student : m.teacher;
    const float others = by_student ? m.teacher : m.student;
    const float t = fmaf(others, r, own), by_t = -lg2(t);
    const float larger = ex2(fmaxf(z - logs.student, other - logs.teacher)), smaller = larger * r;
    p = by_student ? smaller : larger;
    q = by_student ? larger : smaller;
    p_by_m = by_student ? by_t - size : by_t;
    q_by_m = by_student ? by_t : by_t - size;
    if (LEANS) {
      const float difference = (1.0f - r) * rcp(t) * m.student;
      shift = by_student ? difference : -difference;
    }
  }

  __device__ __forceinline__ float value(const DivergenceMeasure &m) const {
    const float logarithms = fmaf(m.forward * p, p_by_m, m.reverse * q * q_by_m);
    return LEANS ? fmaf(m.lean * LOG2_E, q - p, logarithms) : logarithms;
  }

  // w in bits; in place of q times the same number.
  __device__ __forceinline__ float by_q(const DivergenceMeasure &m) const {
    const float logarithm = m.reverse * q_by_m;
    return LEANS ? fmaf(m.lean * LOG2_E, shift, logarithm) : logarithm;
  }
};

// Minus the advantage that a column's teacher gives; `sum` is that of the logarithms.
__device__ __forceinline__ float loss(const DivergenceMeasure &m, float sum) {
  return -fminf(fmaxf(m.beta * sum, m.low), m.high);
}

// A probability times a number that may be infinite.
__device__ __forceinline__ float expected(float log_q, float loss) {
  const float q = ex2(log_q);
  return q == 0.0f ? 0.0f : q * loss;
}

// Of distributions of few bins, where f64 costs little beside the row: what a bin adds to the value, and
// its w. Logarithms are natural. Twin of `Measure::term` in src/reference/divergence.rs.
struct BinTerm {
  double value, by_q;
};

// 0 where the weight is, though x be infinite.
__device__ __forceinline__ double weighed(double weight, double x) {
  return weight == 0.0 ? 0.0 : weight * x;
}

// A probability, 0 where it counts as that beside another logarithm.
__device__ __forceinline__ double beside(double other, double probability) {
  return other == negative_infinity() && probability < 1.1754943508222875e-38 ? 0.0 : probability;
}

__device__ __forceinline__ BinTerm kl_bin(const DivergenceMeasure &m, double log_q, double log_p,
                                          double q, double p) {
  const double forward = weighed(beside(log_q, p), m.cross ? -log_q : log_p - log_q);
  const double reverse = weighed(m.reverse, weighed(beside(log_p, q), log_q - log_p));
  return {weighed(m.forward, forward) + reverse, reverse + m.forward * (q - p)};
}

// The mixture is the larger of p and q times a number that neither overflows nor is 0.
__device__ __forceinline__ BinTerm mixture_bin(const DivergenceMeasure &m, double log_q,
                                               double log_p, double q, double p) {
  const double larger = fmax(log_q, log_p);
  if (larger == negative_infinity()) return {0.0, 0.0};
  const double parts = m.teacher * exp(log_p - larger) + m.student * exp(log_q - larger);
  const double log_m = larger + log(parts);
  const double reverse = weighed(m.reverse, weighed(q, log_q - log_m));
  const double share = m.student * exp(log_q - log_m);
  return {weighed(m.forward, weighed(p, log_p - log_m)) + reverse,
          reverse - share * (m.forward * p + m.reverse * q)};
}

__device__ __forceinline__ BinTerm bin_term(const DivergenceMeasure &m, double log_q,
                                            double log_p) {
  const double q = exp(log_q), p = exp(log_p);
  if (m.kind == KL) return kl_bin(m, log_q, log_p, q, p);
  if (m.kind == MIXTURE) return mixture_bin(m, log_q, log_p, q, p);
  // NaN stays.
  const double difference = q - p;
  const double sign = difference > 0.0 ? 1.0 : difference < 0.0 ? -1.0 : difference;
  return {0.5 * fabs(difference), 0.5 * sign * q};
}

}  // namespace prefuse
