// Student and teacher as a warp has them on chip: raw bits in shared memory, eight columns of a lane at a
// time as numbers.
#pragma once

#include "cluster_sums.cuh"
#include "divergence.cuh"
#include "parts.cuh"
#include "tokens.cuh"

namespace prefuse {

// Twin of `Adaptive::LEAST` in src/stages/divergence.rs.
constexpr float LEAST_ALPHA = 1e-3f;

// Of the student, then of each part of the teacher. Twin of `LogitsArguments` in src/cuda/divergence.rs.
struct DivergenceLogits {
  const void *data;
  int64_t stride;
  float coefficient;
  float factor;  // log2(e) / T times the coefficient
  int32_t type;
  int32_t place;  // vectors before its own in a lane's slot
};

// Twin of `Arguments` in src/cuda/divergence.rs.
struct DivergenceArguments {
  DivergenceLogits logits[1 + MOST_PARTS];
  void *grads;  // may be the student's logits
  int64_t grads_stride;
  int64_t vocab;
  int64_t columns;  // that all logits have; the gradient of the others is 0
  Tokens tokens;
  const float *upstream;
  float *values;
  float *student_entropy;  // null where it was not asked for, like the next
  float *teacher_entropy;
  const ErrorSlot *error;
  DivergenceMeasure measure;
  float inverse_temperature;
  float teacher_scale;  // log2(e) / T of the teacher
  float ratio, beta;    // AlignDistil's; ratio is 0 for other teachers
  int32_t parts;
  int32_t segments;
  int32_t slots;         // segments of a warp on chip
  int32_t slot_vectors;  // of a lane
  int32_t target;
  int32_t moments;  // whether an entropy is needed
};
static_assert(sizeof(DivergenceLogits) == 32 && sizeof(DivergenceMeasure) == 40 &&
                  sizeof(DivergenceArguments) == 312,
              "the twins' sizes");

// What a warp knows of the logits of its row: of the student, then of each part.
struct WarpRow {
  float maximum[1 + MOST_PARTS];  // NaN where there is no distribution
  float factor[1 + MOST_PARTS];
  float log_sum[1 + MOST_PARTS];  // in bits, of the parts by themselves
  int32_t peak[1 + MOST_PARTS];   // first segment with the maximum
  SweepSums of_row;
  float weight;          // of the divergence
  float sum;             // of w, in the units of its terms; NaN where the row's divergence is
  int32_t teacher_peak;  // first segment with the combination's maximum; none of an advantage
  LogSums logs;
};
static_assert(sizeof(WarpRow) == 128, "the launcher's size");

// Logits of -inf are no distribution.
__device__ __forceinline__ float known_maximum(float x) {
  return x == negative_infinity() ? not_a_number() : x;
}

// A row's results so far, the same in all lanes of the cluster, and the first column of the segment that
// this warp is at.
struct Row {
  int64_t token, start;
  float teacher_maximum;  // of the combination; of an advantage the parts' log-sums
};

// A tensor's part of a segment, for a lane, and how its logits become logarithms.
struct Side {
  const uint4 *vectors;
  float maximum, scale;
};

// The segments of a warp. Of `ANY` type logits are in any combination; otherwise one model's, of the student's
// own type and a coefficient above 0, which needs no maximum of its own.
template <int TYPE> struct Slots {
  static constexpr bool ONE_MODEL = TYPE != ANY;
  const DivergenceArguments &a;
  WarpRow &warp;
  uint4 *vectors;
  int first, step;
  int lane;

  // Whether the row stays on chip.
  __device__ __forceinline__ bool resident() const { return a.slots * step >= a.segments; }

  __device__ __forceinline__ int type(int i) const { return ONE_MODEL ? TYPE : a.logits[i].type; }

  __device__ __forceinline__ int parts() const { return ONE_MODEL ? 1 : a.parts; }

  __device__ __forceinline__ uint4 *place(uint4 *slot, int i) const {
    const int vectors = ONE_MODEL ? i * RUNS * vectors_per_run(TYPE) : a.logits[i].place;
    return slot + vectors * 32;
  }

  __device__ __forceinline__ const void *row_of(int i, int64_t token) const {
    const int64_t size = type(i) == TYPE_F32 ? 4 : 2;
    return static_cast<const char *>(a.logits[i].data) + token * a.logits[i].stride * size;
  }

  __device__ __forceinline__ char *grads_of(int64_t token) const {
    const int64_t size = type(0) == TYPE_F32 ? 4 : 2;
    return static_cast<char *>(a.grads) + token * a.grads_stride * size;
  }

  // Brings a segment of logits i on chip, and returns the largest of this lane. Nobody but the lane that
  // stored a vector reads it. `written` says that others may be writing their columns of the student's.
  __device__ __forceinline__ float fill(int i, int64_t token, int64_t start, uint4 *slot,
                                        bool written) const {
    const void *row = row_of(i, token);
    uint4 *to = place(slot, i);
    // Words around a vector are others' columns, where the row is on no boundary.
    const bool apart = written && i == 0 && misalignment(row) != 0;
    if (type(i) == TYPE_F32) return copy_segment<F32>(row, a.columns, start, apart, to);
    if (type(i) == TYPE_F16) return copy_segment<F16>(row, a.columns, start, apart, to);
    return copy_segment<BF16>(row, a.columns, start, apart, to);
  }

  __device__ __forceinline__ Side side(uint4 *slot, int i) const {
    return {place(slot, i), warp.maximum[i],
            i == 0 || ONE_MODEL ? a.logits[i].factor : warp.factor[i]};
  }

  // A teacher of no parts asks for none; what a warp knows of one was not written.
  __device__ __forceinline__ Side first_part(uint4 *slot) const {
    return side(slot, parts() == 0 ? 0 : 1);
  }

  // x - maximum: that always goes first, since logits may have a common offset.
  __device__ __forceinline__ void differences(int i, const Side &side, int run,
                                              float (&x)[8]) const {
    const uint4 *from = side.vectors + run * vectors_per_run(type(i)) * 32;
    unpack8(type(i), from[0], type(i) == TYPE_F32 ? from[32] : make_uint4(0, 0, 0, 0), x);
#pragma unroll
    for (int j = 0; j < 8; ++j) x[j] -= side.maximum;
  }

  __device__ __forceinline__ void scaled(int i, const Side &side, int run, float (&z)[8]) const {
    differences(i, side, run, z);
#pragma unroll
    for (int j = 0; j < 8; ++j) z[j] *= side.scale;
  }

  __device__ __forceinline__ void combined(uint4 *slot, int run, float (&z)[8]) const {
    Sums<8, true> sum;
#pragma unroll 1
    for (int i = 1; i <= a.parts; ++i) {
      const Side part = side(slot, i);
      float x[8];
      differences(i, part, run, x);
      sum.add(x, part.scale);
    }
    sum.get(z);
  }

  // The teacher's logarithms less `maximum`.
  __device__ __forceinline__ void teacher(uint4 *slot, const Side &only, int64_t start, int run,
                                          float maximum, float (&z)[8]) const {
    if (ONE_MODEL || a.parts == 1) {
      scaled(1, only, run, z);
    } else {
      combined(slot, run, z);
    }
    if constexpr (!ONE_MODEL) {
#pragma unroll
      for (int j = 0; j < 8; ++j) z[j] -= maximum;
      // The -inf beyond the columns is not that of a part with a negative coefficient, or of none.
      if (start + SEGMENT > a.columns) {
        const int64_t column = start + run * RUN + lane * 8;
#pragma unroll
        for (int j = 0; j < 8; ++j) z[j] = column + j < a.columns ? z[j] : negative_infinity();
      }
    }
  }

  // This lane's part of a segment's sum of exponentials less 1, of the segment with the first maximum:
  // the rest would drown in the rounding of the largest one's 1.
  template <class Load> __device__ __forceinline__ float excess(Load load) const {
    float rest = 0.0f;
    int largest = 0;
#pragma unroll 1
    for (int run = 0; run < RUNS; ++run) {
      float z[8];
      load(run, z);
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        largest += z[j] == 0.0f;
        rest += z[j] == 0.0f ? 0.0f : ex2(z[j]);
      }
    }
    const unsigned lanes = __ballot_sync(ALL_LANES, largest > 0);
    if (lane == __ffs(int(lanes)) - 1) --largest;
    return rest + float(largest);
  }
};

}  // namespace prefuse
