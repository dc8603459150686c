// Stage mixed_logit_grads: dz_i = c_i g ([v = label] - p) / T of m = sum c_i z_i, where g is the gradient by the
// log-prob.
//
// Reads each logit of a row that has a gradient once, and writes each element of the gradients that were asked
// for once: b bytes of each part, and b of each target. The softmax of eight columns is made once for all of
// them. Warps share a row by segments, on chip while the parts' maxima are found (include/parts.cuh), and need
// nothing of each other. Rows go from the last to the first: what stage 1 read last may still be in the
// second-level cache.
//
// Predicted on an H200 (4.3 TB/s copied, 29.6e12 lane instructions/s, 3.7e12 special functions/s) for 8192 rows
// of 128256, two bf16 parts with both gradients: 8.4 GB in 1.95 ms. Not yet measured. For each column about 44
// instructions, 1.57 ms by themselves, and one special function (ex2), 0.28 ms. Counted in the machine code of
// sm_90 along the loops of aligned rows that exclude nothing: 2.5 for each logit that is brought on chip, 29 for
// the softmax and the first gradient, 7.1 for each other, 3 for what a segment needs once.
#include "parts.cuh"
#include "tokens.cuh"

namespace prefuse {
namespace {

// Where the gradient by a part goes. Twin of `Target` in src/cuda/mixed_logit_grads.rs.
struct MixedTarget {
  void *grads;
  int64_t stride;
  double coefficient;
  int64_t type;
};

// Twin of `Arguments` in src/cuda/mixed_logit_grads.rs.
struct MixedLogitGradsArguments {
  Parts parts;
  MixedTarget targets[MOST_PARTS];  // of the parts whose gradient was asked for
  Tokens tokens;
  const double *maximum;
  const float *log_sum;
  const float *upstream;
  const ErrorSlot *error;
  double inverse_temperature;
  float scale;  // log2(e) / T
  int32_t target_count;
  int32_t segments;
  int32_t warps;  // that have a row
  int32_t keep_masked;
  float single_inverse;  // 1 / T
};
static_assert(sizeof(MixedLogitGradsArguments) == 328, "the twin's size");

constexpr int WARPS = 8;

// What the softmax is multiplied by, for each target.
struct Factors {
  float of[MOST_PARTS];

  // By selection: an index would put them in local memory.
  __device__ __forceinline__ float at(int target) const {
    float factor = of[0];
#pragma unroll
    for (int i = 1; i < MOST_PARTS; ++i) factor = i == target ? of[i] : factor;
    return factor;
  }
};

// A warp's share of a row.
template <int TYPE> struct Share {
  const MixedLogitGradsArguments &a;
  int64_t token;
  int first, lane;
  uint4 *slot;

  __device__ __forceinline__ int type(const MixedTarget &target) const {
    return TYPE == ANY ? int(target.type) : TYPE;
  }

  __device__ __forceinline__ char *row_of(const MixedTarget &target) const {
    const int size = type(target) == TYPE_F32 ? 4 : 2;
    return static_cast<char *>(target.grads) + token * target.stride * size;
  }

  __device__ __forceinline__ void zero(const MixedTarget &target) const {
    const int size = type(target) == TYPE_F32 ? 4 : 2;
    char *row = row_of(target);
    zero_bytes(row, row + a.parts.vocab * size, first * 32 + lane, a.warps * 32);
  }

  // Natural, of a column that is x less the offset.
  __device__ __forceinline__ double log_prob(const Mixture<TYPE> &mixture, float x) const {
    const double difference = (double(x) + mixture.offset) - a.maximum[token];
    return difference * a.inverse_temperature - double(a.log_sum[token]);
  }

  template <class E>
  __device__ __forceinline__ void write(const MixedTarget &target, int64_t column, float factor,
                                        const float (&p)[8]) const {
    float grad[8];
    // 1/T comes last: multiplied into the factor it could overflow where the products do not.
#pragma unroll
    for (int j = 0; j < 8; ++j) grad[j] = p[j] * factor * a.single_inverse;
    write8<E>(row_of(target), a.parts.vocab, column, false, grad);
  }

  // What does not enter has no gradient, whatever the others are.
  __device__ __forceinline__ void write(int64_t column, const Factors &factors,
                                        const float (&p)[8]) const {
#pragma unroll 1
    for (int i = 0; i < a.target_count; ++i) {
      const MixedTarget &target = a.targets[i];
      if (target.coefficient == 0.0) continue;
      const float factor = factors.at(i);
      if (type(target) == TYPE_F32) {
        write<F32>(target, column, factor, p);
      } else if (type(target) == TYPE_F16) {
        write<F16>(target, column, factor, p);
      } else {
        write<BF16>(target, column, factor, p);
      }
    }
  }

  __device__ __forceinline__ void segment(const Mixture<TYPE> &mixture, const Factors &factors,
                                          int64_t label) const {
    // The row's maximum goes first, as in stage 1: where it is a column of this segment, the difference is 0,
    // however small the temperature.
    const double maximum = a.maximum[token] - mixture.offset;
    const float from = float(fmin(fmax(maximum, -3.0e38), 3.0e38));
    const float bits = float(log_prob(mixture, from) * 1.4426950408889634);
    // p - 1 by expm1: as a difference it would cancel where p is near 1.
    const bool has_label = mixture.has(label);
    const float of_label =
        has_label ? expm1f(float(log_prob(mixture, mixture.at(token, label)))) : 0.0f;
    mixture.runs([&](int run, float(&z)[8]) {
      const int64_t column = mixture.start + run * RUN + lane * 8;
#pragma unroll
      for (int j = 0; j < 8; ++j) z[j] = ex2(fmaf(z[j] - from, a.scale, bits));
      if (has_label) {
#pragma unroll
        for (int j = 0; j < 8; ++j) z[j] = column + j == label ? of_label : z[j];
      }
      write(column, factors, z);
    });
  }

  __device__ __forceinline__ void segments(float upstream, int64_t label) const {
    Factors factors = {};
#pragma unroll
    for (int i = 0; i < MOST_PARTS; ++i) {
      factors.of[i] = float(-a.targets[i].coefficient * double(upstream));
    }
    const double all = double(upstream) + a.maximum[token] + double(a.log_sum[token]);
    Mixture<TYPE> mixture(a.parts, slot, lane);
#pragma unroll 1
    for (int s = first; s < a.segments; s += a.warps) {
      const int64_t start = int64_t(s) * SEGMENT;
      if (all == all) {
        mixture.load(token, start);
        segment(mixture, factors, label);
        continue;
      }
      float nan[8];
#pragma unroll
      for (int j = 0; j < 8; ++j) nan[j] = not_a_number();
#pragma unroll 1
      for (int run = 0; run < RUNS; ++run) write(start + run * RUN + lane * 8, factors, nan);
    }
  }

  __device__ __forceinline__ void row() const {
    const Counted which = counted(a.tokens, token);
    if (!which.counts && a.keep_masked) return;
    const float upstream = which.counts ? a.upstream[token] : 0.0f;
#pragma unroll 1
    for (int i = 0; i < a.target_count; ++i) {
      if (upstream == 0.0f || a.targets[i].coefficient == 0.0) zero(a.targets[i]);
    }
    if (upstream == 0.0f) return;
    segments(upstream, which.label);
  }
};

template <int TYPE> __device__ __forceinline__ void grads(const MixedLogitGradsArguments &a) {
  if (a.error->code != 0) return;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  uint4 *slot = &block_shared<uint4>() + warp * a.parts.slot_vectors * 32 + lane;
  const int64_t shares = a.tokens.count * a.warps;
#pragma unroll 1
  for (int64_t i = int64_t(blockIdx.x) * WARPS + warp; i < shares;
       i += int64_t(gridDim.x) * WARPS) {
    const int64_t row = i / a.warps;
    const Share<TYPE> share = {a, a.tokens.count - 1 - row, int(i - row * a.warps), lane, slot};
    share.row();
  }
}

}  // namespace
}  // namespace prefuse

extern "C" __global__ void __launch_bounds__(32 * prefuse::WARPS, 3)
    mixed_logit_grads_any(const __grid_constant__ prefuse::MixedLogitGradsArguments a) {
  prefuse::grads<prefuse::ANY>(a);
}

extern "C" __global__ void __launch_bounds__(32 * prefuse::WARPS, 3)
    mixed_logit_grads_bf16(const __grid_constant__ prefuse::MixedLogitGradsArguments a) {
  prefuse::grads<prefuse::TYPE_BF16>(a);
}
