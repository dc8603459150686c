// Divergences of a student from a teacher at each token, and the student's gradient: every measure, teachers
// of one to three logits, each tensor of its own type.
//
// With q and p the softmax of student and teacher, D the divergence and w = q dD/dq, the gradient by a logit
// is g (w - q sum w) / T. A row is gone through as often as its measure needs (`Phase`): maxima, sums of
// exponentials, value and sum w where these need p and q, the gradient; AlignDistil's coefficient, advantages
// and combinations come between. The warps of a cluster share a row's segments of 1024 columns. Where the row
// fits on chip it is read once; where it does not, every sweep reads it again. Sums of segments meet in one
// tree either way, and whoever has them, so that the bits are the same.
//
// Moves 2 b bytes for each pair of logits of b bytes, and b more for the gradient. Registers hold eight
// columns of a lane for as long as they are numbers: exponentials kept from one sweep for the next would be
// four bytes for each logit, which halves the rows that fit on chip.
//
// Predicted on an H200 (4.3 TB/s copied, 29.6e12 lane instructions/s, 3.7e12 special functions/s) for 8192 rows
// of 128256 bf16 with their gradient, clusters of 8: 6.3 GB in 1.47 ms. Not yet measured. For each pair of
// logits, counted in the machine code of sm_90 along the loops of rows that exclude nothing, instructions and
// special functions (ex2, lg2, rcp) of all sweeps, and the ms that these are by themselves:
//                              instructions   ms   special   ms
//   forward KL                      36        1.3     4      1.1
//   reverse KL                      37        1.3     3      0.9
//   total variation                 59        2.1     5      1.4
//   Jensen-Shannon, 1/2             79        2.8     8      2.3
//   Jensen-Shannon, skew KL         93        3.3    10      2.8
// Mixtures are limited by instructions before special functions. That is why none of their exponentials is
// a polynomial, which trades one special function for six instructions or more.
#include "measures.cuh"
#include "teacher.cuh"

namespace prefuse {
namespace {

// Sweeps over a row, in their order; each row skips those that it does not need.
enum Phase : int {
  MAXIMA,           // of all logits
  PART_SUMS,        // of each part by itself, for AlignDistil's coefficient and for advantages
  VARIATION,        // sum |p - p'| of the two parts
  TEACHER_MAXIMUM,  // of the parts' combination
  SUMS,             // of both exponentials, and what they weigh
  TERMS,            // value and sum w of what needs p and q for these
  GRADIENT,
  DONE
};

template <int TYPE> struct Visit : Slots<TYPE> {
  using Base = Slots<TYPE>;
  using Base::a, Base::warp, Base::vectors, Base::first, Base::step, Base::lane, Base::resident;
  using Base::ONE_MODEL, Base::type, Base::parts, Base::side, Base::first_part, Base::scaled,
      Base::teacher;
  float *partials;  // two buffers, which sweeps take by turns
  int tile;         // segments of a buffer

  // Sums of one segment; what a lane has of them.
  __device__ __forceinline__ float part_sum(uint4 *slot, int i, bool has_peak) const {
    Side of = side(slot, i);
    of.scale = a.ratio != 0.0f ? LOG2_E : a.teacher_scale;
    if (has_peak) return Base::excess([=](int run, float(&z)[8]) { scaled(i, of, run, z); });
    float sum = 0.0f;
#pragma unroll 1
    for (int run = 0; run < RUNS; ++run) {
      float z[8];
      scaled(i, of, run, z);
#pragma unroll
      for (int j = 0; j < 8; ++j) sum += ex2(z[j]);
    }
    return sum;
  }

  __device__ __forceinline__ void part_sums(uint4 *slot, int segment,
                                            float (&sum)[MOST_SUMS]) const {
#pragma unroll
    for (int i = 1; i <= MOST_PARTS; ++i) {
      if (i <= parts()) sum[i] = part_sum(slot, i, segment == warp.peak[i]);
    }
  }

  __device__ __forceinline__ void variation(uint4 *slot, float (&sum)[MOST_SUMS]) const {
    Side of = side(slot, 1), other = side(slot, 2);
    of.scale = other.scale = LOG2_E;
    const float log_sum = warp.log_sum[1], others = warp.log_sum[2];
#pragma unroll 1
    for (int run = 0; run < RUNS; ++run) {
      float z[8], other_z[8];
      scaled(1, of, run, z);
      scaled(2, other, run, other_z);
#pragma unroll
      for (int j = 0; j < 8; ++j) sum[0] += fabsf(ex2(z[j] - log_sum) - ex2(other_z[j] - others));
    }
  }

  __device__ __forceinline__ void teacher_maximum(uint4 *slot, const Row &row,
                                                  float (&sum)[MOST_SUMS]) const {
    const Side only = first_part(slot);
    sum[0] = negative_infinity();
#pragma unroll 1
    for (int run = 0; run < RUNS; ++run) {
      float z[8];
      teacher(slot, only, row.start, run, 0.0f, z);
#pragma unroll
      for (int j = 0; j < 8; ++j) sum[0] = fmaxf(sum[0], z[j]);
    }
  }

  // Calls `columns` with eight logarithms of student and teacher, less their maxima, of each run; of an
  // advantage with the sum of the parts' log-probs for the teacher.
  template <class Columns>
  __device__ __forceinline__ void runs(uint4 *slot, const Row &row, Columns columns) const {
    const Side student = side(slot, 0), only = first_part(slot);
#pragma unroll 1
    for (int run = 0; run < RUNS; ++run) {
      float z[8], other[8];
      scaled(0, student, run, z);
      teacher(slot, only, row.start, run, row.teacher_maximum, other);
      columns(run, z, other);
    }
  }

  // Exponentials of both; for the KL of either direction times the difference of the logarithms, and for
  // entropies times the logarithms. Logarithms of -inf make these sums infinite or NaN, unless they are
  // `excluding` some.
  __device__ __forceinline__ void sums(uint4 *slot, const Row &row, bool excluding,
                                       float (&sum)[MOST_SUMS]) const {
    const bool gaps = a.measure.kind == KL, moments = a.moments != 0;
    float most = 0.0f, least = 0.0f;
#pragma unroll
    for (int n = 0; n < MOST_SUMS; ++n) sum[n] = 0.0f;
    runs(slot, row, [&](int, const float(&z)[8], const float(&other)[8]) {
      float q[8], p[8];
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        q[j] = ex2(z[j]);
        p[j] = ex2(other[j]);
        sum[0] += q[j];
        sum[1] += p[j];
      }
      if (gaps && !excluding) add_gaps<false>(z, other, q, p, sum, most, least);
      if (gaps && excluding) add_gaps<true>(z, other, q, p, sum, most, least);
      if (moments && !excluding) add_moments<false>(z, other, q, p, sum);
      if (moments && excluding) add_moments<true>(z, other, q, p, sum);
    });
    // A column that one has and the other excludes.
    if (most == -negative_infinity()) sum[2] = most;
    if (least == negative_infinity()) sum[3] = -least;
  }

  __device__ __forceinline__ void all_sums(uint4 *slot, int segment, const Row &row,
                                           float (&sum)[MOST_SUMS]) const {
    // Few segments exclude a column, or are beyond the last: the others need no limits, which would be a
    // third of the instructions.
    bool excluding = false, again = false;
    do {
      sums(slot, row, excluding, sum);
      const float all = (sum[2] + sum[3]) + (sum[4] + sum[5]);
      again = !excluding && __any_sync(ALL_LANES, all - all != 0.0f);
      excluding = true;
    } while (again);
    if (segment == warp.peak[0]) {
      const Side student = side(slot, 0);
      sum[0] = Base::excess([&](int run, float(&z)[8]) { scaled(0, student, run, z); });
    }
    if (segment == warp.teacher_peak) {
      const Side only = first_part(slot);
      sum[1] = Base::excess([&](int run, float(&z)[8]) {
        teacher(slot, only, row.start, run, row.teacher_maximum, z);
      });
    }
  }

  __device__ __forceinline__ void terms(uint4 *slot, const Row &row,
                                        float (&sum)[MOST_SUMS]) const {
    const LogSums logs = warp.logs;
    runs(slot, row, [&](int, const float(&z)[8], const float(&other)[8]) {
      add_terms<!ONE_MODEL>(a.measure, logs, z, other, sum);
    });
  }

  __device__ __forceinline__ void write_grads(uint4 *slot, const Row &row, float upstream) const {
    char *of = Base::grads_of(row.token);
    const bool add = a.target == ADDED;
    const LogSums logs = warp.logs;
    const float sum = warp.sum;
    runs(slot, row, [&](int run, const float(&z)[8], const float(&other)[8]) {
      float grad[8];
      gradients<!ONE_MODEL>(a.measure, logs, sum, z, other, grad);
      // 1/T comes last: multiplied into the upstream it could overflow where the products do not.
#pragma unroll
      for (int j = 0; j < 8; ++j) grad[j] = grad[j] * upstream * a.inverse_temperature;
      const int64_t first = row.start + run * RUN + lane * 8;
      if (type(0) == TYPE_F32) {
        write8<F32>(of, a.columns, first, add, grad);
      } else if (type(0) == TYPE_F16) {
        write8<F16>(of, a.columns, first, add, grad);
      } else {
        write8<BF16>(of, a.columns, first, add, grad);
      }
    });
  }

  // Zeros in the row of the gradient from a column on.
  __device__ __forceinline__ void zero(int64_t token, int64_t from) const {
    const int size = type(0) == TYPE_F32 ? 4 : 2;
    char *row = Base::grads_of(token);
    zero_bytes(row + from * size, row + a.vocab * size, first * 32 + lane, step * 32);
  }

  __device__ __forceinline__ void segment(Phase phase, uint4 *slot, int segment, const Row &row,
                                          float (&sum)[MOST_SUMS]) const {
    if (phase == SUMS) return all_sums(slot, segment, row, sum);
    if (phase == TERMS) return terms(slot, row, sum);
    if (ONE_MODEL) return;
    if (phase == PART_SUMS) return part_sums(slot, segment, sum);
    if (phase == VARIATION) return variation(slot, sum);
    teacher_maximum(slot, row, sum);
  }

  // How many sums the phase has.
  __device__ __forceinline__ int count(Phase phase) const {
    switch (phase) {
      case MAXIMA:
      case PART_SUMS:
        return 1 + parts();
      case SUMS:
        return a.moments ? 6 : 4;
      case TERMS:
        return 2;
      default:
        return 1;
    }
  }

  // Brings a segment on chip, and its maxima to where they are shared.
  __device__ __forceinline__ void fill(Phase phase, const Row &row, uint4 *slot, float *to) const {
    const bool written = phase == GRADIENT && a.grads == a.logits[0].data;
#pragma unroll 1
    for (int i = 0; i <= parts(); ++i) {
      const float maximum = Base::fill(i, row.token, row.start, slot, written);
      if (phase == MAXIMA) publish_one(true, maximum, to + i * tile);
    }
  }

  // A warp's segments, what each comes to in the shared memory of every block of the cluster, and what
  // all come to, by each warp for itself: one barrier, where a warp that tells the others would need two.
  // Buffers go by turns: who writes one again has passed the barrier after the one that its readers
  // were waiting at.
  __device__ __forceinline__ void sweep(Phase phase, Row &row, int &turn) const {
    const bool is_maximum = phase == MAXIMA || phase == TEACHER_MAXIMUM;
    const int sums = count(phase);
    uint4 *slot = vectors;
    int s = first;
#pragma unroll 1
    for (int begin = 0; begin < a.segments; begin += tile) {
      const int end = min(begin + tile, a.segments);
      float *buffer = partials + turn * MOST_SUMS * tile;
#pragma unroll 1
      for (; s < end; s += step) {
        row.start = int64_t(s) * SEGMENT;
        float *to = buffer + s - begin;
        if (phase == MAXIMA || !resident()) fill(phase, row, slot, to);
        if (phase != MAXIMA) {
          float sum[MOST_SUMS] = {};
          segment(phase, slot, s, row, sum);
          publish(is_maximum, sums, sum, to, tile);
        }
        if (resident()) slot += a.slot_vectors * 32;
      }
      cluster_sync();
      collect(is_maximum, sums, buffer, tile, begin, end - begin, warp.of_row);
      turn ^= 1;
    }
  }

  __device__ __forceinline__ void store(int64_t token, float value, float student_entropy,
                                        float teacher_entropy) const {
    if (first != 0 || lane != 0) return;
    a.values[token] = value;
    if (a.student_entropy != nullptr) a.student_entropy[token] = student_entropy;
    if (a.teacher_entropy != nullptr) a.teacher_entropy[token] = teacher_entropy;
  }

  __device__ __forceinline__ Phase after_maxima(Row &row) const {
    if (lane <= parts()) {
      warp.maximum[lane] = known_maximum(warp.of_row.sum[lane]);
      warp.factor[lane] = a.logits[lane].factor;
      warp.peak[lane] = warp.of_row.segment[lane];
    }
    if (lane == 0) {
      warp.weight = 1.0f;
      warp.teacher_peak = parts() == 0 ? 0 : warp.of_row.segment[1];
    }
    __syncwarp();
    row.teacher_maximum = 0.0f;
    if (ONE_MODEL) return SUMS;
    if (a.ratio != 0.0f || a.measure.kind == ADVANTAGE) return PART_SUMS;
    const bool known = parts() == 0 || (parts() == 1 && a.logits[1].factor > 0.0f);
    return known ? SUMS : TEACHER_MAXIMUM;
  }

  __device__ __forceinline__ Phase after_part_sums(Row &row) const {
    float all = 0.0f;
#pragma unroll 1
    for (int i = 1; i <= parts(); ++i) {
      const float log_sum = log1pf(warp.of_row.sum[i]) * LOG2_E;
      all = fmaf(a.logits[i].coefficient, log_sum, all);
      if (lane == 0) warp.log_sum[i] = log_sum;
    }
    if (lane == 0) warp.teacher_peak = -1;
    __syncwarp();
    if (a.measure.kind != ADVANTAGE) return VARIATION;
    row.teacher_maximum = all;
    return SUMS;
  }

  __device__ __forceinline__ Phase after_variation(Row &row) const {
    const float alpha = fmaf(a.ratio, warp.of_row.sum[0], LEAST_ALPHA);
    if (lane == 0) {
      warp.factor[1] = (1.0f + alpha) * a.teacher_scale;
      warp.factor[2] = -alpha * a.teacher_scale;
      warp.weight = a.beta / alpha;
    }
    __syncwarp();
    return TEACHER_MAXIMUM;
  }

  __device__ __forceinline__ void keep_sum(float sum) const {
    if (lane == 0) warp.sum = sum;
    __syncwarp();
  }

  __device__ __forceinline__ Phase gradient_or_done() const {
    return a.target == VALUES ? DONE : GRADIENT;
  }

  __device__ __forceinline__ Phase after_sums(Row &row) const {
    const DivergenceMeasure &m = a.measure;
    const LogSums logs = log_sums(warp.of_row.sum[0], warp.of_row.sum[1]);
    if (lane == 0) warp.logs = logs;
    __syncwarp();
    const float student = 1.0f + warp.of_row.sum[0], teacher = 1.0f + warp.of_row.sum[1];
    const float of_student = log1pf(warp.of_row.sum[0]) - LN_2 * (warp.of_row.sum[4] / student);
    const float of_teacher = log1pf(warp.of_row.sum[1]) - LN_2 * (warp.of_row.sum[5] / teacher);
    if (m.kind != KL) {
      store(row.token, 0.0f, of_student, of_teacher);
      return TERMS;
    }
    // The log-sums' difference from what the exponentials weigh.
    const float by_student = warp.of_row.sum[2] / student,
                by_teacher = warp.of_row.sum[3] / teacher;
    const float apart = by_student + logs.gap;
    const float reverse = not_negative(LN_2 * apart);
    float forward = not_negative(LN_2 * (by_teacher - logs.gap));
    if (m.cross) forward += of_teacher;
    float value = 0.0f;
    if (m.forward != 0.0f) value += m.forward * forward;
    if (m.reverse != 0.0f) value += m.reverse * reverse;
    // Infinite, it has no gradient.
    keep_sum(apart - apart == 0.0f ? by_student : not_a_number());
    store(row.token, warp.weight * value, of_student, of_teacher);
    return gradient_or_done();
  }

  __device__ __forceinline__ Phase after_terms(Row &row) const {
    const int kind = a.measure.kind;
    // Minima and maxima of a column drop NaN.
    const float nan =
        warp.logs.student + row.teacher_maximum + (kind == ADVANTAGE ? 0.0f : warp.logs.teacher);
    float value = warp.of_row.sum[0];
    if (kind == MIXTURE) value = not_negative(LN_2 * value);
    if (kind == TOTAL_VARIATION) value *= 0.5f;
    if (nan != nan) value = nan;
    // Infinite, an advantage has no gradient.
    const float sum = kind == ADVANTAGE ? value : warp.of_row.sum[1];
    keep_sum(value - value == 0.0f ? sum : not_a_number());
    if (first == 0 && lane == 0) a.values[row.token] = warp.weight * value;
    return gradient_or_done();
  }

  __device__ __forceinline__ Phase conclude(Phase phase, Row &row) const {
    switch (phase) {
      case MAXIMA:
        return after_maxima(row);
      case PART_SUMS:
        return after_part_sums(row);
      case VARIATION:
        return after_variation(row);
      case TEACHER_MAXIMUM: {
        row.teacher_maximum = known_maximum(warp.of_row.sum[0]);
        if (lane == 0) warp.teacher_peak = warp.of_row.segment[0];
        __syncwarp();
        return SUMS;
      }
      case SUMS:
        return after_sums(row);
      default:
        return after_terms(row);
    }
  }

  // Everybody has read the row, which may be where its gradient goes.
  __device__ __forceinline__ void gradient(Row &row) const {
    const float upstream = a.upstream[row.token];
    if (upstream == 0.0f) {
      if (a.target != ADDED) zero(row.token, 0);
      return;
    }
    uint4 *slot = vectors;
#pragma unroll 1
    for (int s = first; s < a.segments; s += step) {
      row.start = int64_t(s) * SEGMENT;
      if (!resident()) fill(GRADIENT, row, slot, partials);
      write_grads(slot, row, upstream * warp.weight * factor(a.measure));
      if (resident()) slot += a.slot_vectors * 32;
    }
    if (a.target != ADDED) zero(row.token, a.columns);
  }
};

template <int TYPE> __device__ __forceinline__ void divergence(const DivergenceArguments &a) {
  if (a.error->code != 0) return;
  const int warps = blockDim.x / 32, index = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int size = cluster_size(), tile = min(a.segments, TILE);
  // What warps know, the buffers, then each warp's slots.
  WarpRow *rows = &block_shared<WarpRow>();
  float *partials = reinterpret_cast<float *>(rows + warps);
  uint4 *vectors = reinterpret_cast<uint4 *>(partials + 2 * MOST_SUMS * tile);
  vectors += index * a.slots * a.slot_vectors * 32 + lane;
  const int step = size * warps;
  const int first = int(cluster_rank()) * warps + index;
  const Visit<TYPE> visit = {{a, rows[index], vectors, first, step, lane}, partials, tile};
  const int rows_apart = gridDim.x / size;
  int turn = 0;
  cluster_sync();  // all blocks run
#pragma unroll 1
  for (int64_t token = blockIdx.x / size; token < a.tokens.count; token += rows_apart) {
    if (!counted(a.tokens, token).counts) {
      visit.store(token, 0.0f, 0.0f, 0.0f);
      if (a.target == WRITTEN) visit.zero(token, 0);
      continue;
    }
    Row row = {token, 0, 0.0f};
    Phase phase = MAXIMA;
#pragma unroll 1
    while (phase < GRADIENT) {
      visit.sweep(phase, row, turn);
      phase = visit.conclude(phase, row);
    }
    if (phase == GRADIENT) visit.gradient(row);
  }
}

}  // namespace
}  // namespace prefuse

// Three blocks of 8 warps or one of 24 leave 80 registers.
#define PREFUSE_DIVERGENCE(TYPE, NAME)                                                    \
  extern "C" __global__ void __launch_bounds__(768, 1)                                    \
      divergence_cluster_##NAME(const __grid_constant__ prefuse::DivergenceArguments a) { \
    prefuse::divergence<prefuse::TYPE>(a);                                                \
  }

PREFUSE_DIVERGENCE(ANY, any)
PREFUSE_DIVERGENCE(TYPE_F32, f32)
PREFUSE_DIVERGENCE(TYPE_F16, f16)
PREFUSE_DIVERGENCE(TYPE_BF16, bf16)
