// Sums over the threads of a block, in one order.
#pragma once

#include <stdint.h>

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

// The lowest number over a block of 1024 threads, for thread 0; `shared` has room for one from each warp.
__device__ __forceinline__ int64_t block_lowest(int64_t x, int64_t *shared) {
  const auto lower = [](int64_t a, int64_t b) { return a < b ? a : b; };
  x = warp_reduce(x, lower);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  return threadIdx.x < 32 ? warp_reduce(shared[threadIdx.x], lower) : x;
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

// Counted tokens of all members, by sequence `counts`: whole numbers, so that the order of their sum does
// not show.
__device__ __forceinline__ double count_all(const int64_t *members, int64_t size,
                                            const double *counts, SumShared &shared) {
  double all = 0.0;
  for (int64_t i = threadIdx.x; i < size; i += 256) all += counts[members[i]];
  return sum_for_all(all, shared);
}

}  // namespace prefuse
