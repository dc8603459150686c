// The softmax of a row as a small state: one for each segment of 1024 columns, merged in one tree.
//
// With z = (x - m) / T and m the maximum, sum exp(z) = 1 + excess: the largest logit contributes
// exactly 1, and keeping the rest apart from it is what lets a log-prob of -1e-9 have six digits
// instead of being 0.
//
// The tree depends on column indices alone. A segment belongs to one warp; lane l holds the COUNT
// columns from l * COUNT of each run of 32 * COUNT; lanes meet in a butterfly; segments meet in
// `merge_states`, lane l taking l, l + 32, ... in order. Which warp of which block has a segment, and
// at what address the row lies, does not enter.
#pragma once

#include "vector.cuh"
#include "warp.cuh"

namespace prefuse {

constexpr int SEGMENT = 1024;

// A state below this sum is summed a second time without its largest element: its excess would drown
// in the rounding of the 1. Two elements at the maximum make it 2, so below there is just one.
constexpr float PEAKED = 1.5f;

struct RowState {
  float maximum;   // -inf where there is nothing, NaN where there is a NaN
  float excess;    // sum exp(z) - 1; -1 where there is nothing
  float weighted;  // sum exp(z) z log2(e), where moments were asked for, like the next
  float squares;   // sum exp(z)^2 - 1; -1 where there is nothing
};

__device__ __forceinline__ RowState empty_state() {
  return {negative_infinity(), -1.0f, 0.0f, -1.0f};
}

__device__ __forceinline__ RowState nothing_but_nan(float maximum) {
  return {maximum, not_a_number(), not_a_number(), not_a_number()};
}

// Integers with the order of the floats, so that one reduction instruction does what takes five
// shuffles and five comparisons. A positive NaN wins, a negative one loses; 0 is above -0.
__device__ __forceinline__ float warp_max(float x) {
  const int bits = __float_as_int(x), ordered = bits ^ ((bits >> 31) & 0x7fffffff);
  const int highest = __reduce_max_sync(ALL_LANES, ordered);
  return __int_as_float(highest ^ ((highest >> 31) & 0x7fffffff));
}

// A segment in the registers of a warp.
template <class E> struct Segment {
  static constexpr int VECTORS = SEGMENT / 32 / E::COUNT;
  uint4 v[VECTORS];

  // Columns between a lane's vectors.
  static constexpr int STEP = 32 * E::COUNT;

  // Columns from `start` of a row of `vocab` columns; -inf beyond its end.
  __device__ __forceinline__ void load(const typename E::Bits *row, int64_t vocab, int64_t start,
                                       int lane) {
    const int shift = misalignment(row);
    const int64_t first = start + lane * E::COUNT;
    const typename E::Bits *p = row + first;
    if (start + SEGMENT <= vocab && shift == 0) {
#pragma unroll
      for (int i = 0; i < VECTORS; ++i) v[i] = ld16_stream(p + i * STEP);
      return;
    }
#pragma unroll
    for (int i = 0; i < VECTORS; ++i) v[i] = load_vector<E>(row, vocab, first + i * STEP, shift);
  }

  __device__ __forceinline__ float maximum() const {
    uint32_t words = E::FILL;
#pragma unroll
    for (int i = 0; i < VECTORS; ++i) {
      words = E::larger(words, E::larger(E::larger(v[i].x, v[i].y), E::larger(v[i].z, v[i].w)));
    }
    return E::maximum(words);
  }

  // Whether any element of the warp is NaN.
  __device__ bool has_nan() const {
    bool found = false;
    for (int i = 0; i < VECTORS; ++i) {
      float x[E::COUNT];
      E::unpack(v[i], x);
      for (int j = 0; j < E::COUNT; ++j) found |= x[j] != x[j];
    }
    return __any_sync(ALL_LANES, found);
  }

  // The first column equal to `maximum` (NaN equals NaN), or `vocab` if there is none.
  __device__ int64_t find(float maximum, int64_t start, int64_t vocab, int lane) const {
    int first = SEGMENT;
    for (int i = VECTORS - 1; i >= 0; --i) {
      float x[E::COUNT];
      E::unpack(v[i], x);
      for (int j = E::COUNT - 1; j >= 0; --j) {
        const bool equal = x[j] == maximum || (x[j] != x[j] && maximum != maximum);
        if (equal) first = i * STEP + lane * E::COUNT + j;
      }
    }
    first = __reduce_min_sync(ALL_LANES, first);
    return first < SEGMENT && start + first < vocab ? start + first : vocab;
  }

  // Sums of this lane's exponentials, and with `SQUARES` of their squares: a square that underflows is
  // nothing beside that of the largest, which is 1. `REST` leaves out the elements at the maximum. The maximum
  // always goes first: hoisted forms such as fma(x, scale, -m * scale) lose the digits of z where the
  // logits have a common offset (3.2e-4 in the log-prob at 1e4).
  template <bool WEIGHTED, bool SQUARES, bool REST>
  __device__ __forceinline__ void sums(float maximum, float scale, float &plain, float &weighted,
                                       float &squares) const {
    // Four chains, because an addition takes four cycles.
    float sum[4], moment[4], square[4];
#pragma unroll
    for (int i = 0; i < VECTORS; ++i) {
      float x[E::COUNT];
      E::unpack(v[i], x);
#pragma unroll
      for (int j = 0; j < E::COUNT; ++j) {
        const float difference = x[j] - maximum;
        const float z = difference * scale;
        const float e = ex2(z);
        const float term = REST && difference == 0.0f ? 0.0f : e;
        const bool begins = i == 0 && j < 4;
        sum[j % 4] = begins ? term : sum[j % 4] + term;
        if (WEIGHTED) {
          // 0 * -inf would be NaN; below -126 the exponential is 0 anyway.
          const float finite = fmaxf(z, -150.0f);
          moment[j % 4] = begins ? e * finite : fmaf(e, finite, moment[j % 4]);
        }
        if (SQUARES) square[j % 4] = begins ? term * term : fmaf(term, term, square[j % 4]);
      }
    }
    plain = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    if (WEIGHTED) weighted = (moment[0] + moment[1]) + (moment[2] + moment[3]);
    if (SQUARES) squares = (square[0] + square[1]) + (square[2] + square[3]);
  }

  // The same in every lane. `scale` is log2(e) / T.
  template <bool MOMENTS> __device__ __forceinline__ RowState state(float scale) const {
    const float maximum = warp_max(this->maximum());
    if (maximum == negative_infinity()) {
      return has_nan() ? nothing_but_nan(not_a_number()) : empty_state();
    }
    float sum, weighted, squares;
    sums<MOMENTS, MOMENTS, false>(maximum, scale, sum, weighted, squares);
    sum = warp_sum(sum);
    if (MOMENTS) {
      weighted = warp_sum(weighted);
      squares = warp_sum(squares) - 1.0f;
    }
    if (sum != sum) {
      // An element is NaN, or the maximum is infinite and gave inf - inf.
      return nothing_but_nan(has_nan() ? not_a_number() : maximum);
    }
    float excess = sum - 1.0f;
    if (sum < PEAKED) {
      // The same number, but the compiler does not know it: it would keep the 32 exponentials of the
      // first visit in registers for this one, and spill.
      const float again = __shfl_sync(ALL_LANES, maximum, 0);
      float unused;
      sums<false, MOMENTS, true>(again, scale, excess, unused, squares);
      excess = warp_sum(excess);
      if (MOMENTS) squares = warp_sum(squares);
    }
    return {maximum, excess, MOMENTS ? weighted : 0.0f, MOMENTS ? squares : 0.0f};
  }
};

__device__ __forceinline__ double warp_max(double x) {
  return warp_reduce(x, [](double a, double b) { return fmax(a, b); });
}

// All states of a row, by one warp; the same in every lane. `peak` is the first state that holds the
// maximum, or a NaN. A `State` has what `RowState` has, of which without moments only the first two count; its
// maximum may be f64.
template <bool MOMENTS, class State>
__device__ __forceinline__ State merge_states(const State *states, int count, float scale, int lane,
                                              int &peak) {
  decltype(State::maximum) maximum = negative_infinity();
  int first = count, first_nan = count;
#pragma unroll 1
  for (int i = lane; i < count; i += 32) {
    const auto m = states[i].maximum;
    if (m != m) first_nan = min(first_nan, i);
    if (m > maximum) {
      maximum = m;
      first = i;
    }
  }
  first_nan = __reduce_min_sync(ALL_LANES, first_nan);
  const auto highest = warp_max(maximum);
  peak = __reduce_min_sync(ALL_LANES, maximum == highest ? first : count);
  if (first_nan < count) {
    peak = first_nan;
    return states[first_nan];
  }
  State all = {};
  all.maximum = highest;
  if (highest == negative_infinity()) {
    peak = 0;
    all.excess = -1.0f;
    if constexpr (MOMENTS) all.squares = -1.0f;
    return all;
  }
  float excess = 0.0f, weighted = 0.0f, squares = 0.0f;
#pragma unroll 1
  for (int i = lane; i < count; i += 32) {
    const State state = states[i];
    const float d = float(state.maximum - highest) * scale, factor = ex2(d);
    const float total = 1.0f + state.excess;
    excess += i == peak ? state.excess : factor * total;
    if constexpr (MOMENTS) {
      weighted += factor * fmaf(fmaxf(d, -150.0f), total, state.weighted);
      squares += i == peak ? state.squares : factor * factor * (1.0f + state.squares);
    }
  }
  all.excess = warp_sum(excess);
  if constexpr (MOMENTS) {
    all.weighted = warp_sum(weighted);
    all.squares = warp_sum(squares);
  }
  return all;
}

}  // namespace prefuse
