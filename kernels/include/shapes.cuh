// Who computes the states of a row, and who merges them: the shapes of stage 1, for whatever the states are of.
//
// A `Visit` is what a warp knows: its arguments `a`, `lane`, `warp` of its block, and
//   states()                                     the first state of the block, in shared memory
//   segments(token, label, first, step, states)  computes segments `first`, `first + step`, ...
//   finish(token, label, states)                 merges all of a row's, and stores its results
//   not_counted(token)                           what one lane stores in their place
#pragma once

#include "tokens.cuh"

namespace prefuse {

// Twins of the numbers in src/cuda/launch.rs.
constexpr int ROWS_SEGMENTS = 4;
constexpr int ROWS_WARPS = 8;
constexpr int SHAPE_THREADS = 32 * ROWS_WARPS;

// A warp a row.
template <class Visit> __device__ __forceinline__ void rows(const Visit &visit) {
  const auto &a = visit.a;
  if (a.error->code != 0) return;
  auto *states = visit.states() + visit.warp * ROWS_SEGMENTS;
  const int step = gridDim.x * ROWS_WARPS;
  for (int64_t token = blockIdx.x * ROWS_WARPS + visit.warp; token < a.tokens.count;
       token += step) {
    const Counted which = counted(a.tokens, token);
    if (!which.counts) {
      if (visit.lane == 0) visit.not_counted(token);
      continue;
    }
    visit.segments(token, which.label, 0, 1, states);
    __syncwarp();
    visit.finish(token, which.label, states);
    __syncwarp();
  }
}

// A block a row, or the blocks of a cluster.
template <bool CLUSTER, class Visit> __device__ __forceinline__ void block(const Visit &visit) {
  const auto &a = visit.a;
  auto *states = visit.states();
  if (a.error->code != 0) return;
  const int warps = blockDim.x / 32;
  const int rank = CLUSTER ? cluster_rank() : 0, size = CLUSTER ? cluster_size() : 1;
  for (int64_t token = blockIdx.x / size; token < a.tokens.count; token += gridDim.x / size) {
    const Counted which = counted(a.tokens, token);
    if (!which.counts) {
      if (rank == 0 && threadIdx.x == 0) visit.not_counted(token);
      continue;
    }
    if (CLUSTER) {
      cluster_sync();  // the first block runs, and is done with the states of the row before
      visit.segments(token, which.label, rank * warps + visit.warp, size * warps,
                     cluster_map(states, 0));
      cluster_sync();
    } else {
      visit.segments(token, which.label, visit.warp, warps, states);
      __syncthreads();
    }
    if (rank == 0 && visit.warp == 0) visit.finish(token, which.label, states);
    if (!CLUSTER) __syncthreads();
  }
}

// Block `part` of `parts` for each row.
template <class Visit> __device__ __forceinline__ void part(const Visit &visit, int32_t parts) {
  const auto &a = visit.a;
  if (a.error->code != 0) return;
  const int warps = blockDim.x / 32, step = gridDim.x / parts;
  for (int64_t token = blockIdx.x / parts; token < a.tokens.count; token += step) {
    const Counted which = counted(a.tokens, token);
    if (!which.counts) continue;
    const int first = int(blockIdx.x % parts) * warps + visit.warp;
    visit.segments(token, which.label, first, parts * warps, a.states + token * a.segments);
  }
}

template <class Visit> __device__ __forceinline__ void merge(const Visit &visit) {
  const auto &a = visit.a;
  if (a.error->code != 0) return;
  const int warps = blockDim.x / 32, step = gridDim.x * warps;
  for (int64_t token = blockIdx.x * warps + visit.warp; token < a.tokens.count; token += step) {
    const Counted which = counted(a.tokens, token);
    if (which.counts) {
      visit.finish(token, which.label, a.states + token * a.segments);
    } else if (visit.lane == 0) {
      visit.not_counted(token);
    }
  }
}

}  // namespace prefuse
