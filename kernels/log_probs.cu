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
#include "shapes.cuh"

namespace prefuse {
namespace {

template <class E, bool MOMENTS> struct Visit {
  const LogProbsArguments &a;
  int lane, warp;

  __device__ Visit(const LogProbsArguments &a)
      : a(a), lane(threadIdx.x % 32), warp(threadIdx.x / 32) {}

  __device__ __forceinline__ RowState *states() const { return &block_shared<RowState>(); }

  // The loads of a segment are in flight together; other warps compute meanwhile. A second segment in
  // registers, loaded ahead, took 128 registers and so half of the warps.
  __device__ __forceinline__ void segments(int64_t token, int64_t, int first, int step,
                                           RowState *states) const {
    const typename E::Bits *row = row_of<E>(a, token);
    for (int s = first; s < a.segments; s += step) {
      Segment<E> segment;
      segment.load(row, a.vocab, int64_t(s) * SEGMENT, lane);
      const RowState state = segment.template state<MOMENTS>(a.scale);
      if (lane == 0) states[s] = state;
    }
  }

  __device__ __forceinline__ void finish(int64_t token, int64_t label,
                                         const RowState *states) const {
    finish_row<E, MOMENTS>(a, token, label, states, lane);
  }

  __device__ __forceinline__ void not_counted(int64_t token) const { store_not_counted(a, token); }
};

}  // namespace
}  // namespace prefuse

// Blocks that a multiprocessor holds: the register budget that keeps every architecture free of spills.
#define PREFUSE_LOG_PROBS(E, MOMENTS, NAME)                                \
  extern "C" __global__ void __launch_bounds__(prefuse::SHAPE_THREADS, 3)  \
      log_probs_rows_##NAME(prefuse::LogProbsArguments a) {                \
    prefuse::rows(prefuse::Visit<prefuse::E, MOMENTS>(a));                 \
  }                                                                        \
  extern "C" __global__ void __launch_bounds__(prefuse::SHAPE_THREADS, 4)  \
      log_probs_block_##NAME(prefuse::LogProbsArguments a) {               \
    prefuse::block<false>(prefuse::Visit<prefuse::E, MOMENTS>(a));         \
  }                                                                        \
  extern "C" __global__ void __launch_bounds__(prefuse::SHAPE_THREADS, 2)  \
      log_probs_cluster_##NAME(prefuse::LogProbsArguments a) {             \
    prefuse::block<true>(prefuse::Visit<prefuse::E, MOMENTS>(a));          \
  }                                                                        \
  extern "C" __global__ void __launch_bounds__(prefuse::SHAPE_THREADS, 4)  \
      log_probs_part_##NAME(prefuse::LogProbsArguments a, int32_t parts) { \
    prefuse::part(prefuse::Visit<prefuse::E, MOMENTS>(a), parts);          \
  }                                                                        \
  extern "C" __global__ void __launch_bounds__(prefuse::SHAPE_THREADS, 3)  \
      log_probs_merge_##NAME(prefuse::LogProbsArguments a) {               \
    prefuse::merge(prefuse::Visit<prefuse::E, MOMENTS>(a));                \
  }

PREFUSE_LOG_PROBS(F32, false, f32)
PREFUSE_LOG_PROBS(F32, true, f32_moments)
PREFUSE_LOG_PROBS(F16, false, f16)
PREFUSE_LOG_PROBS(F16, true, f16_moments)
PREFUSE_LOG_PROBS(BF16, false, bf16)
PREFUSE_LOG_PROBS(BF16, true, bf16_moments)
