// What eight columns of a lane add to a row's sums, and their gradients: the measures of divergence.cuh over
// the columns of columns.cuh.
#pragma once

#include "cluster_sums.cuh"
#include "divergence.cuh"

namespace prefuse {

// Logarithms' differences by the exponentials of student and teacher, and the extremes of those differences.
template <bool EXCLUDING>
__device__ __forceinline__ void add_gaps(const float (&z)[8], const float (&other)[8],
                                         const float (&q)[8], const float (&p)[8],
                                         float (&sum)[MOST_SUMS], float &most, float &least) {
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    const float gap = z[j] - other[j], weighed = EXCLUDING ? finite(gap) : gap;
    sum[2] = fmaf(q[j], weighed, sum[2]);
    sum[3] = fmaf(-p[j], weighed, sum[3]);
    if (EXCLUDING) most = fmaxf(most, q[j] > 0.0f ? gap : 0.0f);
    if (EXCLUDING) least = fminf(least, p[j] > 0.0f ? gap : 0.0f);
  }
}

template <bool EXCLUDING>
__device__ __forceinline__ void add_moments(const float (&z)[8], const float (&other)[8],
                                            const float (&q)[8], const float (&p)[8],
                                            float (&sum)[MOST_SUMS]) {
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    sum[4] = fmaf(q[j], EXCLUDING ? fmaxf(z[j], LOWEST) : z[j], sum[4]);
    sum[5] = fmaf(p[j], EXCLUDING ? fmaxf(other[j], LOWEST) : other[j], sum[5]);
  }
}

template <bool LEANS>
__device__ __forceinline__ void mixture_terms(const DivergenceMeasure &m, const LogSums &logs,
                                              const float (&z)[8], const float (&other)[8],
                                              float (&sum)[MOST_SUMS]) {
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    const MixtureColumn<LEANS> column(m, logs, z[j], other[j]);
    sum[0] += column.value(m);
    sum[1] = fmaf(column.q, column.by_q(m), sum[1]);
  }
}

// A column's part of the value, and of sum w, in the units that the row's conclusion multiplies.
template <bool HAS_ADVANTAGE>
__device__ __forceinline__ void add_terms(const DivergenceMeasure &m, const LogSums &logs,
                                          const float (&z)[8], const float (&other)[8],
                                          float (&sum)[MOST_SUMS]) {
  if (m.kind == MIXTURE && m.lean == 0.0f) {
    mixture_terms<false>(m, logs, z, other, sum);
  } else if (m.kind == MIXTURE) {
    mixture_terms<true>(m, logs, z, other, sum);
  } else if (m.kind == TOTAL_VARIATION) {
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const float q = logs.q(z[j]);
      sum[0] += fabsf(q - logs.p(other[j]));
      sum[1] = fmaf(q, logs.sign(z[j], other[j]), sum[1]);
    }
  } else if (HAS_ADVANTAGE) {
#pragma unroll
    for (int j = 0; j < 8; ++j) sum[0] += expected(z[j] - logs.student, loss(m, other[j]));
  }
}

template <bool LEANS>
__device__ __forceinline__ void mixture_grads(const DivergenceMeasure &m, const LogSums &logs,
                                              float sum, const float (&z)[8],
                                              const float (&other)[8], float (&grad)[8]) {
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    const MixtureColumn<LEANS> column(m, logs, z[j], other[j]);
    grad[j] = column.q * (column.by_q(m) - sum);
  }
}

__device__ __forceinline__ void kl_grads(const DivergenceMeasure &m, const LogSums &logs, float sum,
                                         const float (&z)[8], const float (&other)[8],
                                         float (&grad)[8]) {
  const float forward = m.forward, reverse = m.reverse * LN_2;
  float q[8];
#pragma unroll
  for (int j = 0; j < 8; ++j) q[j] = logs.q(z[j]);
  if (reverse == 0.0f) {
#pragma unroll
    for (int j = 0; j < 8; ++j) grad[j] = q[j] - logs.p(other[j]);
    return;
  }
#pragma unroll
  for (int j = 0; j < 8; ++j) grad[j] = reverse * q[j] * (finite(z[j] - other[j]) - sum);
  if (forward == 0.0f) return;
#pragma unroll
  for (int j = 0; j < 8; ++j) grad[j] = fmaf(forward, q[j] - logs.p(other[j]), grad[j]);
}

// By the student's logits at temperature 1, of an upstream gradient of 1 and a row's `factor`.
template <bool HAS_ADVANTAGE>
__device__ __forceinline__ void gradients(const DivergenceMeasure &m, const LogSums &logs,
                                          float sum, const float (&z)[8], const float (&other)[8],
                                          float (&grad)[8]) {
  if (m.kind == KL) {
    kl_grads(m, logs, sum, z, other, grad);
  } else if (m.kind == MIXTURE && m.lean == 0.0f) {
    mixture_grads<false>(m, logs, sum, z, other, grad);
  } else if (m.kind == MIXTURE) {
    mixture_grads<true>(m, logs, sum, z, other, grad);
  } else if (m.kind == TOTAL_VARIATION) {
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      grad[j] = logs.q(z[j]) * (logs.sign(z[j], other[j]) - sum);
    }
  } else if (HAS_ADVANTAGE) {
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const float log_q = z[j] - logs.student;
      grad[j] = expected(log_q, loss(m, other[j])) - ex2(log_q) * sum;
    }
  }
}

// What `gradients` leaves out.
__device__ __forceinline__ float factor(const DivergenceMeasure &m) {
  if (m.kind == KL && m.reverse == 0.0f) return m.forward;
  return m.kind == MIXTURE ? LN_2 : m.kind == TOTAL_VARIATION ? 0.5f : 1.0f;
}

}  // namespace prefuse
