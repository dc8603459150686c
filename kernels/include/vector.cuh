// 16 bytes of a row, whatever the alignment of the row.
//
// A row starts where elements do, not where vectors do: an odd vocabulary moves every other row. The
// lane that owns columns c to c + COUNT has to have just these, or equal rows at different addresses
// would be summed in different orders; so what lies across two aligned words is cut out of both. The
// second of the two loads finds its line in the first-level cache.
#pragma once

#include "element.cuh"

namespace prefuse {

// Bytes from the last 16-byte boundary at or before `p`.
__device__ __forceinline__ int misalignment(const void *p) {
  return int(reinterpret_cast<uintptr_t>(p) & 15);
}

// The 16 bytes that start `shift` bytes into `first`, `second`.
__device__ __forceinline__ uint4 cut(uint4 first, uint4 second, int shift) {
  // By halves, then words, then bytes: an index that depends on `shift` would put the words in
  // local memory.
  const bool half = shift & 8, word = shift & 4;
  const uint32_t a = half ? first.z : first.x, b = half ? first.w : first.y;
  const uint32_t c = half ? second.x : first.z, d = half ? second.y : first.w;
  const uint32_t e = half ? second.z : second.x, f = half ? second.w : second.y;
  const uint32_t v = word ? b : a, w = word ? c : b, x = word ? d : c, y = word ? e : d;
  const uint32_t z = word ? f : e;
  const int bits = (shift & 3) * 8;
  return make_uint4(__funnelshift_r(v, w, bits), __funnelshift_r(w, x, bits),
                    __funnelshift_r(x, y, bits), __funnelshift_r(y, z, bits));
}

// The vector at `p`, which is `shift` bytes past a boundary. Reads the aligned words around it: one,
// or two where `shift` is not 0.
__device__ __forceinline__ uint4 load_across(const void *p, int shift) {
  const char *boundary = static_cast<const char *>(p) - shift;
  const uint4 first = ld16(boundary);
  return shift == 0 ? first : cut(first, ld16(boundary + 16), shift);
}

// Whether the words around the vector of columns `column` and following lie within the row.
template <class E> __device__ __forceinline__ bool fits(int64_t vocab, int64_t column, int shift) {
  const int beyond = shift == 0 ? 0 : E::COUNT;
  return column >= beyond && column + E::COUNT + beyond <= vocab;
}

// The vector of columns `column` and following, -inf beyond the row's end, element by element: what
// lies outside of the row is not read, it may be outside of the buffer.
template <class E>
__device__ __forceinline__ uint4 load_edge(const typename E::Bits *row, int64_t vocab,
                                           int64_t column) {
  constexpr int PER_WORD = E::COUNT / 4;
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    words[i] = E::FILL;
#pragma unroll
    for (int j = 0; j < PER_WORD; ++j) {
      const int64_t v = column + i * PER_WORD + j;
      if (v < vocab) {
        constexpr uint32_t MASK = PER_WORD == 1 ? 0xffffffffu : 0xffffu;
        words[i] = (words[i] & ~(MASK << (16 * j))) | uint32_t(row[v]) << (16 * j);
      }
    }
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

// The vector of columns `column` and following of a row, -inf beyond its end; `shift` is that of the
// vector's address.
template <class E>
__device__ __forceinline__ uint4 load_vector(const typename E::Bits *row, int64_t vocab,
                                             int64_t column, int shift) {
  return fits<E>(vocab, column, shift) ? load_across(row + column, shift)
                                       : load_edge<E>(row, vocab, column);
}

}  // namespace prefuse
