// What the lanes of a warp make of their values together. All 32 take part.
#pragma once

namespace prefuse {

constexpr unsigned ALL_LANES = 0xffffffffu;

// All lanes get the same bits: a butterfly combines the same two values on both sides.
template <class T, class Combine> __device__ __forceinline__ T warp_reduce(T x, Combine combine) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    x = combine(x, __shfl_xor_sync(ALL_LANES, x, offset));
  }
  return x;
}

template <class T> __device__ __forceinline__ T warp_sum(T x) {
  return warp_reduce(x, [](T a, T b) { return a + b; });
}

}  // namespace prefuse
