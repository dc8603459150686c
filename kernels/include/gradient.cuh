// The gradient by the logits of a row whose results are known, element by element.
#pragma once

#include "row.cuh"

namespace prefuse {

struct RowGradient {
  float maximum, log_sum, entropy, a, c, inverse_temperature, scale;
  float offset, bits, c_bits;  // -log_sum and the entropy in bits, and c for each bit

  // 1/T comes last: folded into a it could overflow where the product with p does not.
  template <bool ENTROPY> __device__ __forceinline__ float at(float x) const {
    const float log2_p = fmaf(x - maximum, scale, offset);
    const float p = ex2(log2_p);
    if (!ENTROPY) return p * a * inverse_temperature;
    // 0 * -inf would be NaN.
    return p * fmaf(c_bits, fmaxf(log2_p, -150.0f) + bits, a) * inverse_temperature;
  }

  // p - 1 by expm1: as a difference it would cancel where p is near 1.
  template <bool ENTROPY> __device__ float at_label(float x) const {
    const float log_p = fmaf(x - maximum, inverse_temperature, -log_sum);
    float sum = a * expm1f(log_p);
    if (ENTROPY) {
      const float p = expf(log_p);
      if (p != 0.0f) sum += c * p * (log_p + entropy);
    }
    return sum * inverse_temperature;
  }
};

__device__ __forceinline__ RowGradient row_gradient(const RowResults &results, float by_log_prob,
                                                    float by_entropy, float inverse_temperature,
                                                    float scale) {
  RowGradient row;
  row.maximum = results.maximum;
  row.log_sum = results.log_sum;
  row.entropy = results.entropy;
  row.a = -by_log_prob;
  row.c = -by_entropy;
  row.inverse_temperature = inverse_temperature;
  row.scale = scale;
  row.offset = -row.log_sum * LOG2_E;
  row.bits = row.entropy * LOG2_E;
  row.c_bits = row.c * LN_2;
  return row;
}

template <class E, bool ENTROPY>
__device__ __forceinline__ uint4 grad_vector(const RowGradient &row, uint4 raw) {
  float values[E::COUNT];
  E::unpack(raw, values);
#pragma unroll
  for (int j = 0; j < E::COUNT; ++j) values[j] = row.at<ENTROPY>(values[j]);
  return E::pack(values);
}

// The same where the label's column may be among these, at `label`.
template <class E, bool ENTROPY>
__device__ __forceinline__ uint4 grad_vector_with(const RowGradient &row, uint4 raw,
                                                  int64_t label) {
  float values[E::COUNT];
  E::unpack(raw, values);
  float at_label = values[0];
#pragma unroll
  for (int j = 1; j < E::COUNT; ++j) at_label = j == label ? values[j] : at_label;
  if (label >= 0 && label < E::COUNT) at_label = row.at_label<ENTROPY>(at_label);
#pragma unroll
  for (int j = 0; j < E::COUNT; ++j) {
    values[j] = j == label ? at_label : row.at<ENTROPY>(values[j]);
  }
  return E::pack(values);
}

}  // namespace prefuse
