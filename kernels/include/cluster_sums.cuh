// Sums and maxima over the segments of a row that the warps of a cluster share.
#pragma once

#include "softmax.cuh"

namespace prefuse {

// Sums that a sweep takes of a row, at most, and segments of which they are in shared memory at a time.
// Twins of the constants in src/cuda/launch.rs.
constexpr int MOST_SUMS = 6;
constexpr int TILE = 256;

// What a sweep came to: sums, or maxima and the first segment of each.
struct SweepSums {
  float sum[MOST_SUMS];
  int32_t segment[4];
};

// What the lanes have of a segment, in the shared memory of every block of the cluster: a warp that told
// the others what all segments come to would need a second barrier.
__device__ __forceinline__ void publish_one(bool is_maximum, float x, float *to) {
  const int lane = threadIdx.x % 32, size = cluster_size();
  const float all = is_maximum ? warp_max(x) : warp_sum(x);
  if (lane < size) *cluster_map(to, lane) = all;
}

// The same of the first `sums`, `stride` apart.
__device__ __forceinline__ void publish(bool is_maximum, int sums, const float (&sum)[MOST_SUMS],
                                        float *to, int stride) {
#pragma unroll
  for (int n = 0; n < MOST_SUMS; ++n) {
    if (n < sums) publish_one(is_maximum, sum[n], to + n * stride);
  }
}

__device__ __forceinline__ void collect_maximum(const float *from, int begin, int count,
                                                float &maximum, int32_t &segment) {
  const int lane = threadIdx.x % 32;
  float mine = negative_infinity();
  int first = 0;
#pragma unroll 1
  for (int i = lane; i < count; i += 32) {
    const float x = from[i];
    if (x > mine) {
      mine = x;
      first = i;
    }
  }
  const float highest = warp_max(mine);
  first = __reduce_min_sync(ALL_LANES, mine == highest ? first : count);
  if (lane == 0 && (begin == 0 || highest > maximum)) {
    maximum = highest;
    segment = begin + first;
  }
}

// Of the `count` segments from `begin` on, by one warp: lane l takes l, l + 32, ... in order, then lanes
// meet in a butterfly. Each TILE of segments is added to those before it. `all` is the warp's own.
__device__ __forceinline__ void collect(bool is_maximum, int sums, const float *from, int stride,
                                        int begin, int count, SweepSums &all) {
  const int lane = threadIdx.x % 32;
  __syncwarp();
#pragma unroll 1
  for (int n = 0; n < sums; ++n, from += stride) {
    if (is_maximum) {
      collect_maximum(from, begin, count, all.sum[n], all.segment[n]);
      continue;
    }
    float sum = 0.0f;
#pragma unroll 1
    for (int i = lane; i < count; i += 32) sum += from[i];
    sum = warp_sum(sum);
    if (lane == 0) all.sum[n] = begin == 0 ? sum : all.sum[n] + sum;
  }
  __syncwarp();
}

}  // namespace prefuse
