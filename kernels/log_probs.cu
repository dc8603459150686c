// Stage 1: logp = (x[label] - m) / T - log1p(excess), and row statistics from the same visit.
//
// Reads each logit of a counted row once and writes O(1) for a row: b bytes for each logit of b bytes.
// Four shapes compute the same tree (include/softmax.cuh), so a row has the same bits in all of them:
//   rows     a warp a row, 8 rows a block: rows of up to 4 segments
//   block    a block a row
//   cluster  the segments of a row over the blocks of a cluster (sm_90): fewer rows than fill the card
//   part     the segments of a row over blocks that leave their states in memory, and `merge` after
//            it: fewer rows still, or a card without clusters
// No shape holds a row on chip: one visit is enough.
//
// Predicted on an H200 (4.3 TB/s copied, 29.6e12 lane instructions/s, 3.7e12 exponentials/s) for 8192
// rows of 128256 bf16: 2.1 GB in 0.49 ms; 7.1 instructions for each logit 0.25 ms, one exponential
// 0.28 ms. Not yet measured. Instructions for each logit in the loop on sm_90 (cargo xtask disassembly):
//            f32   16-bit   with moments
//   part     6.8   7.1     10.7  10.9
//   block    6.8   7.1     10.6  10.9
//   rows     6.9   7.2     10.8  11.1
//   cluster  7.1   7.3     10.7  11.1
// Moments are the sums of exp(z) z and of exp(z)^2: a clamp and two fmas for each logit.
#include "row.cuh"

namespace prefuse {
namespace {

constexpr int ROWS_SEGMENTS = 4;
constexpr int ROWS_WARPS = 8;
constexpr int THREADS = 256;

// A warp's share of a row: segments `first`, `first + step`, ... The loads of a segment are in flight
// together; other warps compute meanwhile. A second segment in registers, loaded ahead, took 128
// registers and so half of the warps.
template <class E, bool MOMENTS>
__device__ __forceinline__ void segment_states(const LogProbsArguments &a,
                                               const typename E::Bits *row, int first, int step,
                                               int lane, RowState *states) {
  for (int s = first; s < a.segments; s += step) {
    Segment<E> segment;
    segment.load(row, a.vocab, int64_t(s) * SEGMENT, lane);
    const RowState state = segment.template state<MOMENTS>(a.scale);
    if (lane == 0) states[s] = state;
  }
}

template <class E, bool MOMENTS> __device__ __forceinline__ void rows(const LogProbsArguments &a) {
  struct Shared {
    RowState states[ROWS_WARPS][ROWS_SEGMENTS];
  };
  Shared &shared = block_shared<Shared>();
  if (a.error->code != 0) return;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  RowState *states = shared.states[warp];
  const int step = gridDim.x * ROWS_WARPS;
  for (int64_t token = blockIdx.x * ROWS_WARPS + warp; token < a.tokens.count; token += step) {
    const Counted which = counted(a.tokens, token);
    if (!which.counts) {
      if (lane == 0) store_not_counted(a, token);
      continue;
    }
    segment_states<E, MOMENTS>(a, row_of<E>(a, token), 0, 1, lane, states);
    __syncwarp();
    finish_row<E, MOMENTS>(a, token, which.label, states, lane);
    __syncwarp();
  }
}

template <class E, bool MOMENTS, bool CLUSTER>
__device__ __forceinline__ void block(const LogProbsArguments &a) {
  RowState *states = &block_shared<RowState>();
  if (a.error->code != 0) return;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const int rank = CLUSTER ? cluster_rank() : 0, size = CLUSTER ? cluster_size() : 1;
  for (int64_t token = blockIdx.x / size; token < a.tokens.count; token += gridDim.x / size) {
    const Counted which = counted(a.tokens, token);
    if (!which.counts) {
      if (rank == 0 && threadIdx.x == 0) store_not_counted(a, token);
      continue;
    }
    if (CLUSTER) {
      cluster_sync();  // the first block runs, and is done with the states of the row before
      segment_states<E, MOMENTS>(a, row_of<E>(a, token), rank * warps + warp, size * warps, lane,
                                 cluster_map(states, 0));
      cluster_sync();
    } else {
      segment_states<E, MOMENTS>(a, row_of<E>(a, token), warp, warps, lane, states);
      __syncthreads();
    }
    if (rank == 0 && warp == 0) finish_row<E, MOMENTS>(a, token, which.label, states, lane);
    if (!CLUSTER) __syncthreads();
  }
}

// Block `part` of `parts` for each row.
template <class E, bool MOMENTS>
__device__ __forceinline__ void part(const LogProbsArguments &a, int32_t parts) {
  if (a.error->code != 0) return;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const int step = gridDim.x / parts;
  for (int64_t token = blockIdx.x / parts; token < a.tokens.count; token += step) {
    if (!counted(a.tokens, token).counts) continue;
    const int first = int(blockIdx.x % parts) * warps + warp;
    segment_states<E, MOMENTS>(a, row_of<E>(a, token), first, parts * warps, lane,
                               a.states + token * a.segments);
  }
}

template <class E, bool MOMENTS> __device__ __forceinline__ void merge(const LogProbsArguments &a) {
  if (a.error->code != 0) return;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const int step = gridDim.x * warps;
  for (int64_t token = blockIdx.x * warps + warp; token < a.tokens.count; token += step) {
    const Counted which = counted(a.tokens, token);
    if (which.counts) {
      finish_row<E, MOMENTS>(a, token, which.label, a.states + token * a.segments, lane);
    } else if (lane == 0) {
      store_not_counted(a, token);
    }
  }
}

}  // namespace
}  // namespace prefuse

// Blocks that a multiprocessor holds: the register budget that keeps every architecture free of spills.
#define PREFUSE_LOG_PROBS(E, MOMENTS, NAME)                                \
  extern "C" __global__ void __launch_bounds__(prefuse::THREADS, 3)        \
      log_probs_rows_##NAME(prefuse::LogProbsArguments a) {                \
    prefuse::rows<prefuse::E, MOMENTS>(a);                                 \
  }                                                                        \
  extern "C" __global__ void __launch_bounds__(prefuse::THREADS, 4)        \
      log_probs_block_##NAME(prefuse::LogProbsArguments a) {               \
    prefuse::block<prefuse::E, MOMENTS, false>(a);                         \
  }                                                                        \
  extern "C" __global__ void __launch_bounds__(prefuse::THREADS, 2)        \
      log_probs_cluster_##NAME(prefuse::LogProbsArguments a) {             \
    prefuse::block<prefuse::E, MOMENTS, true>(a);                          \
  }                                                                        \
  extern "C" __global__ void __launch_bounds__(prefuse::THREADS, 4)        \
      log_probs_part_##NAME(prefuse::LogProbsArguments a, int32_t parts) { \
    prefuse::part<prefuse::E, MOMENTS>(a, parts);                          \
  }                                                                        \
  extern "C" __global__ void __launch_bounds__(prefuse::THREADS, 3)        \
      log_probs_merge_##NAME(prefuse::LogProbsArguments a) {               \
    prefuse::merge<prefuse::E, MOMENTS>(a);                                \
  }

PREFUSE_LOG_PROBS(F32, false, f32)
PREFUSE_LOG_PROBS(F32, true, f32_moments)
PREFUSE_LOG_PROBS(F16, false, f16)
PREFUSE_LOG_PROBS(F16, true, f16_moments)
PREFUSE_LOG_PROBS(BF16, false, bf16)
PREFUSE_LOG_PROBS(BF16, true, bf16_moments)
