// Sums over the threads of a block, in one order.
#pragma once

#include "warp.cuh"

namespace prefuse {

// All threads of the block call it; thread 0 gets the sum: a butterfly in each warp, then the warps in
// index order. `shared` has room for a number from each warp, and is free again when this returns.
template <class T> __device__ __forceinline__ T block_sum(T x, T *shared) {
  x = warp_sum(x);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int warp = 1; warp < int(blockDim.x / 32); ++warp) x = x + shared[warp];
  }
  __syncthreads();
  return x;
}

}  // namespace prefuse
