// The gradient of a row of which most columns have the same formula, by a block.
#pragma once

#include "columns.cuh"

namespace prefuse {

// Vectors that a thread has in flight.
constexpr int UNROLL = 4;

// The gradient of columns that are not listed.
struct Others {
  float maximum, scale, factor, inverse_temperature;

  // 1/T comes last: folded into the factor it could overflow where the product does not.
  __device__ __forceinline__ float at(float x) const {
    return ex2((x - maximum) * scale) * factor * inverse_temperature;
  }

  template <class E, bool ADD>
  __device__ __forceinline__ uint4 vector(uint4 raw, uint4 before) const {
    float values[E::COUNT], sum[E::COUNT] = {};
    E::unpack(raw, values);
    if (ADD) E::unpack(before, sum);
#pragma unroll
    for (int j = 0; j < E::COUNT; ++j) {
      values[j] = ADD ? sum[j] + at(values[j]) : at(values[j]);
    }
    return E::pack(values);
  }
};

// A row and where its gradient goes. Vectors lie on the boundaries of the gradient, so that stores are
// whole; elements before the first boundary and after the last whole vector go one by one.
template <class E> struct Sweep {
  using Bits = typename E::Bits;
  const Bits *x;
  Bits *dx;
  int64_t vocab, vectors;
  int head, shift;

  __device__ Sweep(const Bits *x, Bits *dx, int64_t vocab) : x(x), dx(dx), vocab(vocab) {
    const int64_t before = ((16 - misalignment(dx)) & 15) / int(sizeof(Bits));
    head = int(before < vocab ? before : vocab);
    vectors = (vocab - head) / E::COUNT;
    shift = misalignment(x + head);
  }

  // Calls `write` for the columns outside of whole vectors: fewer than two vectors' worth.
  template <class Write> __device__ __forceinline__ void edges(Write write) const {
    const int64_t tail = head + vectors * E::COUNT, column = threadIdx.x;
    if (column < head) write(column);
    if (column < vocab - tail) write(tail + column);
  }

  __device__ void zero() const {
    zero_bytes(reinterpret_cast<char *>(dx), reinterpret_cast<char *>(dx + vocab), threadIdx.x,
               blockDim.x);
  }

  // As much of a tile as there is, of a row that may lie across vectors.
  template <bool ADD>
  __device__ __forceinline__ void part_of_tile(const Others &others, int64_t first) const {
#pragma unroll 1
    for (int u = 0; u < UNROLL; ++u) {
      const int64_t i = first + u * int64_t(blockDim.x), column = head + i * E::COUNT;
      if (i >= vectors) return;
      const uint4 before = ADD ? ld16(dx + column) : make_uint4(0, 0, 0, 0);
      const uint4 raw = load_vector<E>(x, vocab, column, shift);
      st16_stream(dx + column, others.vector<E, ADD>(raw, before));
    }
  }

  template <bool ADD> __device__ __forceinline__ void grads(const Others &others) const {
    const int step = blockDim.x * E::COUNT;
    const Bits *from = x + head + threadIdx.x * E::COUNT;
    Bits *to = dx + head + threadIdx.x * E::COUNT;
    const int64_t last = (UNROLL - 1) * int64_t(blockDim.x);
#pragma unroll 1
    for (int64_t i = threadIdx.x; i < vectors; i += last + blockDim.x) {
      if (shift == 0 && i + last < vectors) {
        uint4 raw[UNROLL], before[UNROLL];
#pragma unroll
        for (int u = 0; u < UNROLL; ++u) {
          raw[u] = ld16_stream(from + u * step);
          before[u] = ADD ? ld16_stream(to + u * step) : make_uint4(0, 0, 0, 0);
        }
#pragma unroll
        for (int u = 0; u < UNROLL; ++u) {
          st16_stream(to + u * step, others.vector<E, ADD>(raw[u], before[u]));
        }
      } else {
        part_of_tile<ADD>(others, i);
      }
      from += UNROLL * step;
      to += UNROLL * step;
    }
    edges([&](int64_t v) {
      const float grad = others.at(E::load(x[v]));
      dx[v] = E::store(ADD ? E::load(dx[v]) + grad : grad);
    });
  }
};

}  // namespace prefuse
