// Stage mixed_log_probs: stage 1 of m = sum c_i z_i, logp = (m[label] - M) / T - log1p(excess).
//
// Reads each logit of a counted row once: b bytes of each part. Shapes and tree are those of log_probs.cu, and
// a lane's columns those of include/columns.cuh, whatever the types. A segment is on chip while its maxima are
// found (include/parts.cuh); its columns are then numbers once: a lane's sum of exponentials follows the maximum
// of the columns so far, eight at a time, and only a segment that one column dominates is summed a second time.
// The label's distance from its segment's maximum goes along with the segment's state, so that f64 has it whole.
//
// Predicted on an H200 (4.3 TB/s copied, 29.6e12 lane instructions/s, 3.7e12 special functions/s) for 8192 rows
// of 128256, two bf16 parts: 4.2 GB in 0.98 ms. Not yet measured. For each column about 24 instructions, 0.85 ms
// by themselves, and 1.1 special functions (ex2), 0.32 ms. Counted in the machine code of sm_90 along the loops
// of aligned rows that exclude nothing: 2.6 for each logit that is brought on chip, 16.4 for the sum and the
// exponential, 3 for what a segment needs once. Where the parts are not all bf16, types cost two
// instructions for each logit more.
#include "parts.cuh"
#include "shapes.cuh"

namespace prefuse {
namespace {

// Of the columns of one segment; the launcher knows its size.
struct MixedState {
  double maximum;  // as `RowState` has it, like the next
  float excess;
  float label;  // of the segment that has the label's column: that less the maximum
};
static_assert(sizeof(MixedState) == sizeof(RowState), "the launcher's size");

// Twin of `Arguments` in src/cuda/mixed_log_probs.rs.
struct MixedLogProbsArguments {
  Parts parts;
  Tokens tokens;
  double inverse_temperature;
  float scale;  // log2(e) / T
  int32_t segments;
  float *log_probs;
  double *maximum;
  float *log_sum;
  MixedState *states;  // [tokens, segments], for `part` and `merge`
  const ErrorSlot *error;
};
static_assert(sizeof(MixedLogProbsArguments) == 224, "the twin's size");

template <int TYPE> struct Visit {
  const MixedLogProbsArguments &a;
  int lane, warp;

  __device__ Visit(const MixedLogProbsArguments &a)
      : a(a), lane(threadIdx.x % 32), warp(threadIdx.x / 32) {}

  // The warps' slots come before the states.
  __device__ __forceinline__ uint4 *slots() const { return &block_shared<uint4>(); }
  __device__ __forceinline__ int slot_size() const { return a.parts.slot_vectors * 32; }
  __device__ __forceinline__ MixedState *states() const {
    return reinterpret_cast<MixedState *>(slots() + ROWS_WARPS * slot_size());
  }

  // Exponentials of the segment with the `maximum`, less that of the one column that has it.
  __device__ __forceinline__ float rest(const Mixture<TYPE> &mixture, float maximum) const {
    float sum = 0.0f;
    mixture.runs([&](int, const float(&z)[8]) {
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const float difference = z[j] - maximum;
        sum += difference == 0.0f ? 0.0f : ex2(difference * a.scale);
      }
    });
    return warp_sum(sum);
  }

  __device__ __forceinline__ static bool has_nan(const Mixture<TYPE> &mixture) {
    bool found = false;
    mixture.runs([&](int, const float(&z)[8]) {
#pragma unroll
      for (int j = 0; j < 8; ++j) found |= z[j] != z[j];
    });
    return __any_sync(ALL_LANES, found);
  }

  __device__ __forceinline__ static float largest_of(float x, const float (&z)[8]) {
#pragma unroll
    for (int j = 0; j < 8; ++j) x = fmaxf(x, z[j]);
    return x;
  }

  // Excluded columns are 0 also where there are no others.
  __device__ __forceinline__ float exponentials(float maximum, const float (&z)[8]) const {
    const float from = maximum == negative_infinity() ? 0.0f : maximum;
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < 8; ++j) sum += ex2((z[j] - from) * a.scale);
    return sum;
  }

  // What a sum of exponentials is multiplied by where their maximum is a higher one.
  __device__ __forceinline__ float factor(float maximum, float higher) const {
    return maximum == higher ? 1.0f : ex2((maximum - higher) * a.scale);
  }

  // In one sweep: a lane's sum follows its maximum.
  __device__ __forceinline__ RowState state_of(const Mixture<TYPE> &mixture) const {
    float highest = negative_infinity(), sum = 0.0f;
#pragma unroll 1
    for (int run = 0; run < RUNS; ++run) {
      float z[8];
      mixture.template columns<false>(run, z);
      float now = largest_of(highest, z), added = exponentials(now, z);
      if (added != added) {
        mixture.template columns<true>(run, z);
        now = largest_of(highest, z);
        added = exponentials(now, z);
      }
      sum = fmaf(sum, factor(highest, now), added);
      highest = now;
    }
    const float maximum = warp_max(highest);
    sum = warp_sum(sum * factor(highest, maximum));
    if (sum != sum) return nothing_but_nan(has_nan(mixture) ? not_a_number() : maximum);
    const bool peaked = sum < PEAKED && maximum != negative_infinity();
    return {maximum, peaked ? rest(mixture, maximum) : sum - 1.0f, 0.0f, 0.0f};
  }

  __device__ __forceinline__ MixedState state(int64_t token, int64_t label, int64_t start) const {
    Mixture<TYPE> mixture(a.parts, slots() + warp * slot_size() + lane, lane);
    mixture.load(token, start);
    const RowState state = state_of(mixture);
    float of_label = 0.0f;
    if (mixture.has(label)) {
      const float x = mixture.at(token, label);
      of_label = x == negative_infinity() ? x : x - state.maximum;
    }
    return {double(state.maximum) + mixture.offset, state.excess, of_label};
  }

  __device__ __forceinline__ void segments(int64_t token, int64_t label, int first, int step,
                                           MixedState *states) const {
#pragma unroll 1
    for (int s = first; s < a.segments; s += step) {
      const MixedState state = this->state(token, label, int64_t(s) * SEGMENT);
      if (lane == 0) states[s] = state;
    }
  }

  __device__ __forceinline__ void store(int64_t token, float log_prob, double maximum,
                                        float log_sum) const {
    a.log_probs[token] = log_prob;
    a.maximum[token] = maximum;
    a.log_sum[token] = log_sum;
  }

  __device__ __forceinline__ void not_counted(int64_t token) const {
    store(token, 0.0f, not_a_number(), not_a_number());
  }

  __device__ __forceinline__ void finish(int64_t token, int64_t label,
                                         const MixedState *states) const {
    int peak;
    const MixedState all = merge_states<false>(states, a.segments, a.scale, lane, peak);
    if (lane != 0) return;
    // A row of -inf has no distribution.
    const float log_sum = all.maximum == negative_infinity() ? not_a_number() : log1pf(all.excess);
    // As in `finish_row` of include/row.cuh: nothing outside of the row may be read.
    const bool inside = label >= 0 && label < a.parts.vocab;
    const MixedState own = states[inside ? label / SEGMENT : 0];
    const double difference = double(own.label) + (own.maximum - all.maximum);
    const double log_prob = difference * a.inverse_temperature - double(log_sum);
    store(token, inside ? float(log_prob) : not_a_number(), all.maximum, log_sum);
  }
};

}  // namespace
}  // namespace prefuse

// Blocks that a multiprocessor holds: the register budget that keeps every architecture free of spills.
#define PREFUSE_MIXED_LOG_PROBS(TYPE, NAME)                                                       \
  extern "C" __global__ void __launch_bounds__(prefuse::SHAPE_THREADS, 3)                         \
      mixed_log_probs_rows_##NAME(const __grid_constant__ prefuse::MixedLogProbsArguments a) {    \
    prefuse::rows(prefuse::Visit<prefuse::TYPE>(a));                                              \
  }                                                                                               \
  extern "C" __global__ void __launch_bounds__(prefuse::SHAPE_THREADS, 3)                         \
      mixed_log_probs_block_##NAME(const __grid_constant__ prefuse::MixedLogProbsArguments a) {   \
    prefuse::block<false>(prefuse::Visit<prefuse::TYPE>(a));                                      \
  }                                                                                               \
  extern "C" __global__ void __launch_bounds__(prefuse::SHAPE_THREADS, 2)                         \
      mixed_log_probs_cluster_##NAME(const __grid_constant__ prefuse::MixedLogProbsArguments a) { \
    prefuse::block<true>(prefuse::Visit<prefuse::TYPE>(a));                                       \
  }                                                                                               \
  extern "C" __global__ void __launch_bounds__(prefuse::SHAPE_THREADS, 3)                         \
      mixed_log_probs_part_##NAME(const __grid_constant__ prefuse::MixedLogProbsArguments a,      \
                                  int32_t parts) {                                                \
    prefuse::part(prefuse::Visit<prefuse::TYPE>(a), parts);                                       \
  }

PREFUSE_MIXED_LOG_PROBS(ANY, any)
PREFUSE_MIXED_LOG_PROBS(TYPE_BF16, bf16)

extern "C" __global__ void __launch_bounds__(prefuse::SHAPE_THREADS, 3)
    mixed_log_probs_merge(const __grid_constant__ prefuse::MixedLogProbsArguments a) {
  prefuse::merge(prefuse::Visit<prefuse::ANY>(a));
}
