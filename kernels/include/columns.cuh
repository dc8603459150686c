// Eight neighbouring columns of a row whose element type may be known only as the kernel runs.
//
// Student and teachers may each be of any type, and to compile every combination would be 81 kernels: where
// they differ, a uniform branch chooses for eight columns of a tensor. A lane owns eight columns of each run
// of 256 whatever the type, so that the sums over a row are the same tree for all of them.
#pragma once

#include "vector.cuh"

namespace prefuse {

// Twins of the numbers in src/cuda/divergence.rs.
constexpr int TYPE_F32 = 0, TYPE_F16 = 1, TYPE_BF16 = 2;

// In a kernel's name: whichever each tensor has.
constexpr int ANY = -1;

// What becomes of the gradient: nothing, or it is written, also where tokens do not count, or added.
constexpr int VALUES = 0, WRITTEN = 1, WRITTEN_COUNTED = 2, ADDED = 3;

constexpr int RUN = 256;

// Runs of a segment of 1024 columns.
constexpr int RUNS = 4;

__device__ __forceinline__ int vectors_per_run(int type) { return type == TYPE_F32 ? 2 : 1; }

__device__ __forceinline__ void unpack8(int type, uint4 first, uint4 second, float (&x)[8]) {
  if (type == TYPE_BF16) {
    BF16::unpack(first, x);
  } else if (type == TYPE_F16) {
    F16::unpack(first, x);
  } else {
    float low[4], high[4];
    F32::unpack(first, low);
    F32::unpack(second, high);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      x[j] = low[j];
      x[4 + j] = high[j];
    }
  }
}

__device__ __forceinline__ float load_one(int type, const void *of, int64_t at) {
  if (type == TYPE_F32) return F32::load(static_cast<const F32::Bits *>(of)[at]);
  const uint16_t bits = static_cast<const uint16_t *>(of)[at];
  return type == TYPE_F16 ? F16::load(bits) : BF16::load(bits);
}

template <class E> __device__ __forceinline__ uint32_t largest(uint32_t words, uint4 v) {
  return E::larger(words, E::larger(E::larger(v.x, v.y), E::larger(v.z, v.w)));
}

// Copies a lane's columns of a segment to `to`, 32 vectors apart: those from `start` on, of each run;
// -inf from `columns` on. Returns the largest, where NaN loses. `apart` reads element by element, nothing
// but these columns.
template <class E>
__device__ __forceinline__ float copy_segment(const void *of, int64_t columns, int64_t start,
                                              bool apart, uint4 *to) {
  using Bits = typename E::Bits;
  // A lane's two vectors of f32 are half of the same sector each: the second load finds it in the
  // first-level cache, which streamed loads leave out.
  constexpr int PER_RUN = 8 / E::COUNT, VECTORS = RUNS * PER_RUN;
  constexpr int IN_FLIGHT = 4;
  const Bits *row = static_cast<const Bits *>(of);
  const int shift = misalignment(row);
  const int64_t first = start + threadIdx.x % 32 * 8;
  const int beyond = shift == 0 ? 0 : E::COUNT;
  const bool inside = start >= beyond && start + RUNS * RUN + beyond <= columns;
  uint32_t words = E::FILL;
  if (inside && !apart) {
#pragma unroll 1
    for (int at = 0; at < VECTORS; at += IN_FLIGHT) {
      uint4 v[IN_FLIGHT];
      const auto load = [&](auto vector_at) {
#pragma unroll
        for (int i = 0; i < IN_FLIGHT; ++i) {
          v[i] = vector_at(row + first + at / PER_RUN * RUN + i / PER_RUN * RUN +
                           i % PER_RUN * E::COUNT);
        }
      };
      // One branch for all: by vector, the compiler makes each instruction of `cut` conditional.
      if (shift == 0) {
        load([](const Bits *p) { return PER_RUN == 1 ? ld16_stream(p) : ld16(p); });
      } else {
        load([=](const Bits *p) { return load_across(p, shift); });
      }
#pragma unroll
      for (int i = 0; i < IN_FLIGHT; ++i) {
        to[(at + i) * 32] = v[i];
        words = largest<E>(words, v[i]);
      }
    }
    return E::maximum(words);
  }
#pragma unroll 1
  for (int i = 0; i < VECTORS; ++i) {
    const int64_t column = first + i / PER_RUN * RUN + i % PER_RUN * E::COUNT;
    const uint4 v =
        apart ? load_edge<E>(row, columns, column) : load_vector<E>(row, columns, column, shift);
    to[i * 32] = v;
    words = largest<E>(words, v);
  }
  return E::maximum(words);
}

// Writes eight numbers to columns `column` and following of a row, as much of them as lies before
// `columns`; with `add` to what is there.
template <class E>
__device__ __forceinline__ void write8(void *of, int64_t columns, int64_t column, bool add,
                                       const float (&x)[8]) {
  using Bits = typename E::Bits;
  Bits *to = static_cast<Bits *>(of) + column;
  if (misalignment(of) == 0 && column + 8 <= columns) {
#pragma unroll
    for (int i = 0; i < 8; i += E::COUNT) {
      float values[E::COUNT] = {};
      if (add) E::unpack(ld16(to + i), values);
#pragma unroll
      for (int j = 0; j < E::COUNT; ++j) values[j] = add ? values[j] + x[i + j] : x[i + j];
      st16_stream(to + i, E::pack(values));
    }
    return;
  }
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    if (column + j < columns) to[j] = E::store(add ? E::load(to[j]) + x[j] : x[j]);
  }
}

// Zeros from byte `begin` to byte `end`, which are of even addresses, by `threads` threads.
__device__ __forceinline__ void zero_bytes(char *begin, char *end, int64_t thread,
                                           int64_t threads) {
  const int64_t bytes = end - begin, before = (16 - misalignment(begin)) & 15;
  const int64_t head = before < bytes ? before : bytes, vectors = (bytes - head) / 16;
#pragma unroll 1
  for (int64_t i = thread; i < vectors; i += threads) {
    st16_stream(begin + head + i * 16, make_uint4(0, 0, 0, 0));
  }
  uint16_t *first = reinterpret_cast<uint16_t *>(begin);
  uint16_t *last = reinterpret_cast<uint16_t *>(begin + head + vectors * 16);
#pragma unroll 1
  for (int64_t i = thread; i < head / 2; i += threads) first[i] = 0;
#pragma unroll 1
  for (int64_t i = thread; i < (bytes - head - vectors * 16) / 2; i += threads) last[i] = 0;
}

}  // namespace prefuse
