// Which columns of a row are listed: a bitmap in shared memory, of a window of the vocabulary at a time.
#pragma once

#include "columns.cuh"
#include "softmax.cuh"

namespace prefuse {

// Columns of a window: 16 KB, so that several blocks fit. Twin of SPARSE_WINDOW in src/cuda/launch.rs.
constexpr int WINDOW = 1 << 17;

// Marks the columns of the window from `start` on that are among `count` ids. Whether one of this thread's
// had been marked. All threads of the block call it.
__device__ __forceinline__ bool mark(const int64_t *ids, int count, int64_t start, int64_t vocab,
                                     uint32_t *listed) {
  const int64_t end = start + WINDOW < vocab ? start + WINDOW : vocab;
  const int words = int((end - start + SEGMENT - 1) / SEGMENT) * (SEGMENT / 32);
  for (int i = threadIdx.x; i < words; i += blockDim.x) listed[i] = 0;
  __syncthreads();
  bool twice = false;
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    const int64_t id = ids[i];
    if (id < start || id >= end) continue;
    const int column = int(id - start);
    const uint32_t bit = 1u << column % 32;
    twice |= (atomicOr(&listed[column / 32], bit) & bit) != 0;
  }
  __syncthreads();
  return twice;
}

// A word of two elements, or of one, with -inf in place of those whose bits are set.
template <class E> __device__ __forceinline__ uint32_t filled(uint32_t word, uint32_t bits) {
  const uint32_t low = 0 - (bits & 1), high = 0 - (bits >> 1 & 1);
  const uint32_t mask = E::COUNT == 4 ? low : (low & 0xffffu) | (high & 0xffff0000u);
  return (word & ~mask) | (E::FILL & mask);
}

// Makes the listed columns of a segment -inf; `listed` are its bits.
template <class E>
__device__ __forceinline__ void leave_out(Segment<E> &segment, const uint32_t *listed, int lane) {
  if (!__any_sync(ALL_LANES, listed[lane] != 0)) return;
  constexpr int PER_WORD = E::COUNT / 4;
#pragma unroll
  for (int i = 0; i < Segment<E>::VECTORS; ++i) {
    const int column = i * Segment<E>::STEP + lane * E::COUNT;
    const uint32_t bits = listed[column / 32] >> column % 32;
    uint4 &v = segment.v[i];
    v = make_uint4(filled<E>(v.x, bits), filled<E>(v.y, bits >> PER_WORD),
                   filled<E>(v.z, bits >> 2 * PER_WORD), filled<E>(v.w, bits >> 3 * PER_WORD));
  }
}

}  // namespace prefuse
