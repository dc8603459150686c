// What the kernels of terms over tokens share: their inputs, and how much each sequence's losses weigh.
#pragma once

#include "block.cuh"
#include "ptx.cuh"
#include "scalar.cuh"
#include "tokens.cuh"

namespace prefuse {

// f32 or f64 numbers; may be null. Twin of `Floats` in src/cuda/token_objective.rs.
struct Floats {
  const void *values;
  int64_t is_double;
};

__device__ inline double nothing() { return __longlong_as_double(0x7ff8000000000000ll); }

// An objective that reads what it does not declare has to be heard.
__device__ inline double at(Floats x, int64_t index) {
  if (x.values == nullptr) return nothing();
  return x.is_double ? static_cast<const double *>(x.values)[index]
                     : double(static_cast<const float *>(x.values)[index]);
}

// How much each unit's loss weighs in the gradient. Twin of `Scale` in src/cuda/token_objective.rs.
struct UnitScale {
  double divisor;          // 0 for counted tokens of all units, -1 for units times those of each
  double scale;            // upstream, times the term's weight
  const double *upstream;  // by unit; null for `scale` over the divisor
};

// Whether the counted tokens of all units have to be known.
__device__ __forceinline__ bool needs_all(const UnitScale &s) {
  return s.divisor == 0.0 && s.upstream == nullptr;
}

__device__ __forceinline__ double unit_scale(const UnitScale &s, int64_t unit, int64_t units,
                                             double counted, double all) {
  if (s.upstream != nullptr) return s.upstream[unit];
  if (s.divisor == 0.0) return s.scale / max(all, 1.0);
  if (s.divisor < 0.0) return s.scale / (double(units) * max(counted, 1.0));
  return s.scale / s.divisor;
}

struct SumShared {
  double warps[256 / 32];
  double all;
};

// The sum over a block of 256 threads, for all of them.
__device__ __forceinline__ double sum_for_all(double x, SumShared &shared) {
  x = block_sum(x, shared.warps);
  if (threadIdx.x == 0) shared.all = x;
  __syncthreads();
  x = shared.all;
  __syncthreads();
  return x;
}

// Counted tokens of all units: whole numbers, so that the order of their sum does not show.
__device__ __forceinline__ double count_all(const int64_t *members, int64_t units,
                                            const double *counts, SumShared &shared) {
  double all = 0.0;
  for (int64_t i = threadIdx.x; i < units; i += 256) all += counts[members[i]];
  return sum_for_all(all, shared);
}

}  // namespace prefuse
