// Several models' logits as one: sum c_i z_i, and what a warp knows of a segment of that.
#pragma once

#include "columns.cuh"
#include "softmax.cuh"

namespace prefuse {

// Twin of MOST_PARTS in src/batch/combination.rs.
constexpr int MOST_PARTS = 3;

static_assert(RUNS * RUN == SEGMENT, "runs make a segment");

// Sums for N columns, and with `EXCLUDING` the lowest term of each: a column that one part excludes is excluded,
// also where another would make it NaN. Without, such a column is NaN; all others have the same bits.
template <int N, bool EXCLUDING> struct Sums {
  float z[N] = {};
  float lowest[N] = {};

  __device__ __forceinline__ void add(const float (&x)[N], float factor) {
#pragma unroll
    for (int j = 0; j < N; ++j) {
      z[j] = fmaf(x[j], factor, z[j]);
      if (EXCLUDING) lowest[j] = fminf(lowest[j], x[j] * factor);
    }
  }

  __device__ __forceinline__ void get(float (&sums)[N]) const {
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const bool excluded = EXCLUDING && lowest[j] == negative_infinity();
      sums[j] = excluded ? negative_infinity() : z[j];
    }
  }
};

// Twin of `Part` in src/cuda/mixed_log_probs.rs.
struct Part {
  const void *logits;
  int64_t stride;
  double coefficient;
  float factor;  // the same
  int32_t type;
  int64_t place;  // vectors before its own in a lane's slot
};

// Parts of coefficient 0 are not among them. Twin of `Parts` in src/cuda/mixed_log_probs.rs.
struct Parts {
  Part of[MOST_PARTS];
  int64_t vocab;
  int32_t count;
  int32_t slot_vectors;  // of a lane
};
static_assert(sizeof(Parts) == 136, "the twin's size");

// A segment on chip. Its columns are sums of c (z - anchor), each anchor the part's own maximum, so that logits
// of a large common offset keep their digits; what that leaves out is `offset`, in f64.
template <int TYPE> struct Mixture {
  const Parts &parts;
  uint4 *slot;  // the lane's vectors, 32 apart, which no other lane reads
  int lane;
  int64_t start;
  bool inside;  // all of it, of the row
  float anchor[MOST_PARTS] = {};
  double offset;

  __device__ Mixture(const Parts &parts, uint4 *slot, int lane)
      : parts(parts), slot(slot), lane(lane) {}

  __device__ __forceinline__ int type(const Part &part) const {
    return TYPE == ANY ? part.type : TYPE;
  }

  template <class E> __device__ __forceinline__ float fill(const Part &part, int64_t token) const {
    const auto *row = static_cast<const typename E::Bits *>(part.logits) + token * part.stride;
    return copy_segment<E>(row, parts.vocab, start, false, slot + part.place * 32);
  }

  __device__ __forceinline__ void load(int64_t token, int64_t first_column) {
    start = first_column;
    inside = start + SEGMENT <= parts.vocab;
    offset = 0.0;
#pragma unroll 1
    for (int i = 0; i < parts.count; ++i) {
      const Part &part = parts.of[i];
      const float maximum = warp_max(type(part) == TYPE_F32   ? fill<F32>(part, token)
                                     : type(part) == TYPE_F16 ? fill<F16>(part, token)
                                                              : fill<BF16>(part, token));
      // From an infinite one the difference would be NaN.
      const float own = maximum - maximum == 0.0f ? maximum : 0.0f;
#pragma unroll
      for (int j = 0; j < MOST_PARTS; ++j) anchor[j] = j == i ? own : anchor[j];
      offset += part.coefficient * double(own);
    }
  }

  // Of `load(part, x)`, which writes N logits of a part.
  template <bool EXCLUDING, int N, class Load>
  __device__ __forceinline__ void sums(Load load, float (&z)[N]) const {
    Sums<N, EXCLUDING> sums;
#pragma unroll
    for (int i = 0; i < MOST_PARTS; ++i) {
      if (i >= parts.count) break;
      const Part &part = parts.of[i];
      float x[N];
      load(part, x);
#pragma unroll
      for (int j = 0; j < N; ++j) x[j] -= anchor[i];
      sums.add(x, part.factor);
    }
    sums.get(z);
  }

  // The lane's columns of a run; -inf beyond the last. `EXCLUDING` is a third of the instructions, and few have
  // a column that needs it.
  template <bool EXCLUDING> __device__ __forceinline__ void columns(int run, float (&z)[8]) const {
    const auto load = [&](const Part &part, float(&x)[8]) {
      const uint4 *from = slot + (int(part.place) + run * vectors_per_run(type(part))) * 32;
      const bool two = type(part) == TYPE_F32;
      unpack8(type(part), from[0], two ? from[32] : make_uint4(0, 0, 0, 0), x);
    };
    sums<EXCLUDING>(load, z);
    if (inside) return;
    const int64_t first = start + run * RUN + lane * 8;
#pragma unroll
    for (int j = 0; j < 8; ++j) z[j] = first + j < parts.vocab ? z[j] : negative_infinity();
  }

  // Calls `visit` with each run and the lane's columns of it.
  template <class Call> __device__ __forceinline__ void runs(Call visit) const {
#pragma unroll 1
    for (int run = 0; run < RUNS; ++run) {
      float z[8];
      columns<false>(run, z);
      const float all = ((z[0] + z[1]) + (z[2] + z[3])) + ((z[4] + z[5]) + (z[6] + z[7]));
      if (all != all) columns<true>(run, z);
      visit(run, z);
    }
  }

  // A column of the row, in this segment.
  __device__ __forceinline__ bool has(int64_t column) const {
    return column >= start && column < start + SEGMENT && column < parts.vocab;
  }

  // One column by itself, with the same bits.
  __device__ __forceinline__ float at(int64_t token, int64_t column) const {
    float z[1];
    const auto load = [&](const Part &part, float(&x)[1]) {
      x[0] = load_one(type(part), part.logits, token * part.stride + column);
    };
    sums<true>(load, z);
    return z[0];
  }
};

}  // namespace prefuse
