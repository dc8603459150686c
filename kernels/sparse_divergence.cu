// The divergence of each token from a teacher that lists some entries, and the student's gradient.
//
// A column that is not listed has the share s = exp((x - m) / T) / sum of what the student gives to all
// of them, m and sum being theirs alone: that probability is never 1 less a sum. With w = q dD/dq of each
// bin and W their sum
//   dx = g / T * (w_entry - q_entry W)    of a listed column, in f64
//   dx = g / T * s * (w_rest - q_rest W)  of any other: one factor for the row
//
// A block has a row and visits it twice: for the maximum and the sum, in the tree of include/softmax.cuh
// with listed columns left out, and for the gradient. Between the visits are at most 1025 entries in
// f64. Sums over them are by chunks of 32, whatever the block's size. Listed columns of the gradient are
// written last, over what the second visit leaves there.
//
// Reads each logit twice and writes each element once: 3 b bytes for each logit of b bytes, of which the
// second read is the second-level cache's where the rows of all resident blocks fit it (src/cuda/launch.rs
// chooses the block's size for that). Rows of tokens that do not count are not read.
//
// Predicted on an H200 (4.3 TB/s copied, 29.6e12 lane instructions/s, 3.7e12 special functions/s) for 8192
// rows of 128256 bf16 with their gradient: 4.2 GB in 0.98 ms, or 6.3 GB in 1.47 ms where the cache helps in
// nothing. Not yet measured. For each logit of both visits 15.2 instructions, 0.54 ms by themselves, or 19.0
// with the student's entropy, 0.67 ms, and two special functions (ex2), 0.57 ms. An entry has at most 870 in
// f64, which are half as fast: 0.03 ms of 64 entries, 0.5 ms of 1024. Counted in the machine code of sm_90,
// instructions for each logit in the loops of aligned rows:
//                    f32   16-bit
//   sums             7.2   7.4
//   with entropies  11.0  11.2
//   gradient         7.4   7.8
#include "block.cuh"
#include "columns.cuh"
#include "divergence.cuh"
#include "listed.cuh"
#include "others.cuh"
#include "tokens.cuh"

namespace prefuse {
namespace {

// The most entries; twin of MOST_ENTRIES in src/stages/sparse_divergence.rs.
constexpr int MOST_ENTRIES = 1024;

// Threads of the largest block: 64 registers, of 1024, were not enough. Twin of SPARSE_THREADS in
// src/cuda/launch.rs.
constexpr int THREADS = 768;

// Twin of `Arguments` in src/cuda/sparse_divergence.rs.
struct SparseArguments {
  const void *logits;
  int64_t stride;
  void *grads;  // may be `logits`
  int64_t grads_stride;
  int64_t vocab;
  Tokens tokens;
  const int64_t *ids;     // [tokens, entries], like the next
  const void *log_probs;  // of the type `type`
  const float *upstream;
  float *values;
  float *student_entropy;  // null where it was not asked for, like the next
  float *teacher_entropy;
  const ErrorSlot *error;
  DivergenceMeasure measure;
  double inverse_temperature;
  float scale;  // log2(e) / T
  int32_t entries;
  int32_t type;
  int32_t target;
  int32_t renormalised;  // whether nothing is left for others, whatever is listed
};
static_assert(sizeof(SparseArguments) == 200, "the twin's size");

// Sums over entries are taken by chunks of 32.
constexpr int CHUNKS = MOST_ENTRIES / 32;
constexpr int BIN_SUMS = 4;

// What all threads have to know of a row.
struct RowNumbers {
  double maximum, log_sum;                  // of the student
  double teacher_maximum, teacher_log_sum;  // 0 where log-probs stay what they are
  double log_rest, teacher_log_rest;        // of what is not listed
  double sum;                               // W
  double factor;                            // (w_rest - q_rest W) / sum of exponentials
};

struct Shared {
  double partials[BIN_SUMS][CHUNKS];
  double log_p[MOST_ENTRIES];  // later w
  float x[MOST_ENTRIES];       // of listed columns: logits, later what is written
  RowState states[WINDOW / SEGMENT + 1];
  RowNumbers row;
};
static_assert(sizeof(Shared) == 15440, "the launcher's size");

// What the phases of a row that counts have in common. Each entry is one thread's in all of them.
struct Entries {
  const SparseArguments &a;
  Shared &shared;
  int64_t token;
  int lane, warp;

  __device__ Entries(const SparseArguments &a, Shared &shared, int64_t token)
      : a(a), shared(shared), token(token), lane(threadIdx.x % 32), warp(threadIdx.x / 32) {}

  __device__ __forceinline__ const int64_t *ids() const { return a.ids + token * a.entries; }

  // Calls `visit` with the warp's chunks and this lane's entry of each, which may be beyond the last.
  template <class Call> __device__ __forceinline__ void each(Call visit) const {
#pragma unroll 1
    for (int chunk = warp; chunk * 32 < a.entries; chunk += blockDim.x / 32) {
      visit(chunk, chunk * 32 + lane);
    }
  }

  template <int N> __device__ __forceinline__ void keep(int chunk, const double (&sums)[N]) const {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const double sum = warp_sum(sums[i]);
      if (lane == 0) shared.partials[i][chunk] = sum;
    }
  }

  // The same in all lanes of a warp.
  __device__ __forceinline__ double partial(int i, double none) const {
    return lane * 32 < a.entries ? shared.partials[i][lane] : none;
  }
  __device__ __forceinline__ double total(int i) const { return warp_sum(partial(i, 0.0)); }
  __device__ static double largest(double x) {
    return warp_reduce(x, [](double a, double b) { return fmax(a, b); });
  }

  __device__ __forceinline__ double scaled(double x) const {
    return (x - shared.row.maximum) * a.inverse_temperature;
  }
  __device__ __forceinline__ double log_q(int entry) const {
    return scaled(shared.x[entry]) - shared.row.log_sum;
  }

  __device__ __forceinline__ void maxima() const {
    if (warp == 0) {
      const double x = largest(partial(0, negative_infinity()));
      const double log_p = largest(partial(1, negative_infinity()));
      if (lane == 0) {
        shared.row.maximum = fmax(x, double(shared.states[0].maximum));
        shared.row.teacher_maximum = a.renormalised ? log_p : 0.0;
      }
    }
    __syncthreads();
  }

  // What the largest logit contributes is exactly 1, and is kept apart from the rest.
  __device__ __forceinline__ void log_sums() const {
    each([&](int chunk, int entry) {
      double sums[3] = {0.0, 0.0, 0.0};
      if (entry < a.entries) {
        const double x = shared.x[entry];
        const bool peak = x == shared.row.maximum;
        sums[0] = peak ? 0.0 : exp(scaled(x));
        sums[1] = peak;
        sums[2] = exp(shared.log_p[entry] - shared.row.teacher_maximum);
      }
      keep(chunk, sums);
    });
    __syncthreads();
    if (warp == 0) {
      const double rest = total(0), peaks = total(1), teacher_sum = total(2);
      if (lane == 0) set_log_sums(rest, peaks, teacher_sum);
    }
    __syncthreads();
  }

  __device__ __forceinline__ void set_log_sums(double rest, double peaks, double teacher) const {
    const RowState others = shared.states[0];
    const double factor = exp(scaled(others.maximum)), excess = others.excess;
    const double log_sum =
        log1p(peaks == 0.0 ? excess + rest : (peaks - 1.0) + rest + factor * (1.0 + excess));
    shared.row.log_sum = log_sum;
    shared.row.log_rest = scaled(others.maximum) + log1p(excess) - log_sum;
    // Half an ulp of each addition, and of each of the logarithms.
    const double left = 1.0 - teacher, rounding = 4.0 * 2.220446049250313e-16 * a.entries;
    shared.row.teacher_log_sum = a.renormalised || left < 0.0 ? log(teacher) : 0.0;
    shared.row.teacher_log_rest =
        a.renormalised || left <= rounding ? negative_infinity() : log(left);
  }

  __device__ __forceinline__ void terms() const {
    each([&](int chunk, int entry) {
      double sums[4] = {0.0, 0.0, 0.0, 0.0};
      if (entry < a.entries) {
        const double log_q = this->log_q(entry);
        const double log_p =
            (shared.log_p[entry] - shared.row.teacher_maximum) - shared.row.teacher_log_sum;
        const BinTerm term = bin_term(a.measure, log_q, log_p);
        shared.log_p[entry] = term.by_q;
        sums[0] = term.value;
        sums[1] = term.by_q;
        sums[2] = weighed(exp(log_q), log_q);
        sums[3] = weighed(exp(log_p), log_p);
      }
      keep(chunk, sums);
    });
    __syncthreads();
    if (warp == 0) {
      const double sums[4] = {total(0), total(1), total(2), total(3)};
      if (lane == 0) finish(sums);
    }
    __syncthreads();
  }

  // The bin of what is not listed, and the results. Where all columns are listed there is none.
  __device__ __forceinline__ void finish(const double (&sums)[4]) const {
    const RowState others = shared.states[0];
    const double log_q = shared.row.log_rest, log_p = shared.row.teacher_log_rest;
    const double q = exp(log_q), total = 1.0 + double(others.excess);
    BinTerm rest = {0.0, 0.0};
    double entropy = -sums[2], teacher_entropy = -sums[3];
    if (a.entries < a.vocab) {
      rest = bin_term(a.measure, log_q, log_p);
      const double own = log1p(double(others.excess)) - double(LN_2) * others.weighted / total;
      entropy -= weighed(q, log_q - own);
      teacher_entropy -= weighed(exp(log_p), log_p);
    }
    a.values[token] = float(sums[0] + rest.value);
    if (a.student_entropy != nullptr) a.student_entropy[token] = float(entropy);
    if (a.teacher_entropy != nullptr) a.teacher_entropy[token] = float(teacher_entropy);
    // Infinite, it has no gradient.
    const double all = sums[1] + rest.by_q, sum = all - all == 0.0 ? all : not_a_number();
    shared.row.sum = sum;
    // Nothing has a share where all others are excluded.
    shared.row.factor =
        others.maximum == negative_infinity() ? 0.0 * sum : (rest.by_q - q * sum) / total;
  }
};

// What comes between the visits, once `states[0]` is that of the columns that are not listed.
__device__ __forceinline__ void divergence_of(const SparseArguments &a, Shared &shared,
                                              int64_t token) {
  const Entries row(a, shared, token);
  row.maxima();
  row.log_sums();
  row.terms();
}

template <class E>
__device__ __forceinline__ Sweep<E> sweep_of(const SparseArguments &a, int64_t token) {
  using Bits = typename E::Bits;
  return Sweep<E>(static_cast<const Bits *>(a.logits) + token * a.stride,
                  static_cast<Bits *>(a.grads) + token * a.grads_stride, a.vocab);
}

// The visits of a row that counts.
template <class E> struct Visits : Entries {
  using Entries::Entries;

  __device__ __forceinline__ const typename E::Bits *row() const {
    return static_cast<const typename E::Bits *>(a.logits) + token * a.stride;
  }

  // The listed columns' logits and log-probs, before anything overwrites them, and their maxima.
  __device__ __forceinline__ void gather() const {
    each([&](int chunk, int entry) {
      double x = negative_infinity(), log_p = negative_infinity();
      if (entry < a.entries) {
        const float logit = E::load(row()[ids()[entry]]);
        shared.x[entry] = logit;
        x = logit;
        shared.log_p[entry] = log_p = load_one(a.type, a.log_probs, token * a.entries + entry);
      }
      x = largest(x);
      log_p = largest(log_p);
      if (lane == 0) {
        shared.partials[0][chunk] = x;
        shared.partials[1][chunk] = log_p;
      }
    });
    if (threadIdx.x == 0) shared.states[0] = empty_state();
  }

  // States of the segments of a window, by all warps.
  template <bool MOMENTS>
  __device__ __forceinline__ void segments(int64_t start, int count, const uint32_t *listed) const {
#pragma unroll 1
    for (int s = warp; s < count; s += blockDim.x / 32) {
      Segment<E> segment;
      segment.load(row(), a.vocab, start + int64_t(s) * SEGMENT, lane);
      leave_out(segment, listed + s * (SEGMENT / 32), lane);
      const RowState state = segment.template state<MOMENTS>(a.scale);
      if (lane == 0) shared.states[1 + s] = state;
    }
  }

  // Leaves the state of all columns that are not listed in `states[0]`, for the first warp.
  __device__ __forceinline__ void others() const {
    uint32_t *listed = reinterpret_cast<uint32_t *>(&shared + 1);
#pragma unroll 1
    for (int64_t start = 0; start < a.vocab; start += WINDOW) {
      mark(ids(), a.entries, start, a.vocab, listed);
      const int64_t left = (a.vocab - start + SEGMENT - 1) / SEGMENT;
      const int count = int(left < WINDOW / SEGMENT ? left : WINDOW / SEGMENT);
      if (a.student_entropy != nullptr) {
        segments<true>(start, count, listed);
      } else {
        segments<false>(start, count, listed);
      }
      __syncthreads();
      if (warp != 0) continue;
      int peak;
      const RowState all = merge_states<true>(shared.states, 1 + count, a.scale, lane, peak);
      __syncwarp();
      if (lane == 0) shared.states[0] = all;
    }
  }

  // What is to be written to the listed columns. With `ADDED` this reads what the sweep overwrites.
  __device__ __forceinline__ void listed_grads(double upstream, const typename E::Bits *dx) const {
    const double scale = upstream * a.inverse_temperature;
    each([&](int, int entry) {
      if (entry >= a.entries) return;
      const double w = shared.log_p[entry], q = exp(log_q(entry));
      const float grad = float(scale * (w - q * shared.row.sum));
      shared.x[entry] = a.target == ADDED ? E::load(dx[ids()[entry]]) + grad : grad;
    });
  }

  __device__ __forceinline__ void grads() const {
    const double upstream = a.upstream[token];
    const Sweep<E> sweep = sweep_of<E>(a, token);
    if (upstream == 0.0) {
      if (a.target != ADDED) sweep.zero();
      return;
    }
    listed_grads(upstream, sweep.dx);
    __syncthreads();
    const float maximum = shared.states[0].maximum;
    const Others others = {maximum == negative_infinity() ? 0.0f : maximum, a.scale,
                           float(upstream * shared.row.factor), float(a.inverse_temperature)};
    if (a.target == ADDED) {
      sweep.template grads<true>(others);
    } else {
      sweep.template grads<false>(others);
    }
    __syncthreads();
    each([&](int, int entry) {
      if (entry < a.entries) sweep.dx[ids()[entry]] = E::store(shared.x[entry]);
    });
  }
};

template <class E> __device__ __forceinline__ void rows(const SparseArguments &a) {
  Shared &shared = block_shared<Shared>();
  if (a.error->code != 0) return;
  for (int64_t token = blockIdx.x; token < a.tokens.count; token += gridDim.x) {
    if (!counted(a.tokens, token).counts) {
      if (threadIdx.x == 0) {
        a.values[token] = 0.0f;
        if (a.student_entropy != nullptr) a.student_entropy[token] = 0.0f;
        if (a.teacher_entropy != nullptr) a.teacher_entropy[token] = 0.0f;
      }
      if (a.target == WRITTEN) sweep_of<E>(a, token).zero();
      continue;
    }
    const Visits<E> visits(a, shared, token);
    visits.gather();
    visits.others();
    divergence_of(a, shared, token);
    if (a.target != VALUES) visits.grads();
  }
}

}  // namespace
}  // namespace prefuse

#define PREFUSE_SPARSE_DIVERGENCE(E, NAME)                                           \
  extern "C" __global__ void __launch_bounds__(prefuse::THREADS)                     \
      sparse_divergence_##NAME(const __grid_constant__ prefuse::SparseArguments a) { \
    prefuse::rows<prefuse::E>(a);                                                    \
  }

PREFUSE_SPARSE_DIVERGENCE(F32, f32)
PREFUSE_SPARSE_DIVERGENCE(F16, f16)
PREFUSE_SPARSE_DIVERGENCE(BF16, bf16)
