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

// The sequences of a term, and what they say of their tokens. Twin of `TermUnits` in
// src/cuda/token_objective.rs.
struct TermUnits {
  const int64_t *members;  // [units] sequences, each once
  int64_t units;
  Tokens tokens;
  const int64_t *offsets;  // [sequences + 1]
  const double *counts;    // by sequence: counted tokens
  Floats advantages;
  int64_t by_token;      // whether they are by token, not by sequence
  const double *weight;  // by unit; may be null
  UnitScale scale;
};

__device__ __forceinline__ double advantage(const TermUnits &term, int64_t token,
                                            int64_t sequence) {
  return at(term.advantages, term.by_token ? token : sequence);
}

__device__ __forceinline__ double unit_weight(const TermUnits &term, int64_t unit) {
  return term.weight == nullptr ? 1.0 : term.weight[unit];
}

// Counted tokens of all units, where a unit's scale depends on them.
__device__ __forceinline__ double all_tokens(const TermUnits &term, SumShared &shared) {
  if (term.scale.divisor != 0.0 || term.scale.upstream != nullptr) return 0.0;
  return count_all(term.members, term.units, term.counts, shared);
}

// The factor of the gradients of a unit's tokens, beside their own weights.
__device__ __forceinline__ double unit_scale(const TermUnits &term, int64_t unit, double all) {
  const UnitScale &s = term.scale;
  const double counted = max(term.counts[term.members[unit]], 1.0);
  const double scale = s.upstream != nullptr ? s.upstream[unit]
                       : s.divisor == 0.0    ? s.scale / max(all, 1.0)
                       : s.divisor < 0.0     ? s.scale / (double(term.units) * counted)
                                             : s.scale / s.divisor;
  return product(scale, unit_weight(term, unit));
}

}  // namespace prefuse
