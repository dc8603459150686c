// Stage 4: dx = (a (p - [v = label]) + c p (log p + H)) / T, where a and c are minus the gradients by
// the log-prob and by the entropy H.
//
// Reads each logit of a row that has a gradient once and writes each element once: 2 b bytes for each
// logit of b bytes. Rows of tokens that do not count, or whose gradient is 0, are not read.
// Two shapes, which differ in nothing but who has which element:
//   rows   a warp a row, 8 rows a block
//   block  the row in `parts`, a block each
// Rows go from the last to the first: what stage 1 read last may still be in the second-level cache.
//
// Predicted on an H200 (4.3 TB/s copied, 29.6e12 lane instructions/s, 3.7e12 exponentials/s) for 8192
// rows of 128256 bf16: 4.2 GB in 0.98 ms; 7.4 instructions for each logit 0.26 ms, one exponential
// 0.28 ms. Not yet measured. Instructions for each logit in the loop on sm_90 (cargo xtask disassembly):
//            f32   16-bit   with entropy
//   block    6.8   7.4      9.9  10.4
//   rows     9.3   8.7     12.3  11.7
#include "gradient.cuh"

namespace prefuse {
namespace {

// Twin of `Arguments` in src/cuda/logit_grads.rs.
struct LogitGradsArguments {
  const void *logits;
  int64_t stride;
  void *grads;  // may be `logits`
  int64_t grads_stride;
  int64_t vocab;
  Tokens tokens;
  const float *maximum;
  const float *log_sum;
  const float *by_log_prob;
  const float *by_entropy;  // null where the entropy has no gradient
  const float *entropy;
  float inverse_temperature;
  float scale;  // log2(e) / T
  int32_t keep_masked;
  const ErrorSlot *error;
};

constexpr int ROWS_WARPS = 8;
constexpr int BLOCK_THREADS = 256;

// Vectors that a thread has in flight.
constexpr int UNROLL = 4;

// What thread `thread` of THREADS has of part `part` of a row. Vectors lie on the boundaries of the
// gradient, so that stores are whole, and come in tiles of UNROLL for each thread; elements before the
// first boundary and after the last whole vector go one by one, in the first part.
template <class E, int THREADS> struct Span {
  using Bits = typename E::Bits;
  static constexpr int TILE = THREADS * UNROLL;
  static constexpr int STEP = THREADS * E::COUNT;
  const Bits *x;
  Bits *dx;
  int64_t vocab, vectors;
  int head, thread, part, parts;

  __device__ Span(const LogitGradsArguments &a, int64_t token, int thread, int part, int parts)
      : x(static_cast<const Bits *>(a.logits) + token * a.stride),
        dx(static_cast<Bits *>(a.grads) + token * a.grads_stride),
        vocab(a.vocab),
        thread(thread),
        part(part),
        parts(parts) {
    const int64_t before = ((16 - misalignment(dx)) & 15) / int(sizeof(Bits));
    head = int(before < vocab ? before : vocab);
    vectors = (vocab - head) / E::COUNT;
  }

  // Calls `write` for this thread's columns outside of whole vectors: fewer than two vectors' worth.
  template <class Write> __device__ __forceinline__ void edges(Write write) const {
    const int64_t tail = head + vectors * E::COUNT;
    if (part == 0 && thread < head) write(thread);
    if (part == 0 && thread < vocab - tail) write(tail + thread);
  }

  // Calls `write_tile` with where this thread's first vector of each tile is to be read and written;
  // `write` with the index of each of its vectors in the tiles that are not among the first `whole`,
  // and in the tile `apart`. Both pointers go along with the loop: computed from an index they cost
  // 2 instructions for each logit.
  template <class WriteTile, class Write>
  __device__ __forceinline__ void tiles(int whole, int apart, WriteTile write_tile,
                                        Write write) const {
    const int64_t first = (int64_t(part) * TILE + thread) * E::COUNT + head;
    const int64_t step = int64_t(parts) * TILE * E::COUNT;
    const Bits *from = x + first;
    Bits *to = dx + first;
    const int count = int((vectors + TILE - 1) / TILE);
#pragma unroll 1
    for (int tile = part; tile < count; tile += parts, from += step, to += step) {
      if (tile < whole && tile != apart) {
        write_tile(from, to);
      } else {
        const int64_t mine = int64_t(tile) * TILE + thread;
#pragma unroll 1
        for (int u = 0; u < UNROLL && mine + u * THREADS < vectors; ++u) write(mine + u * THREADS);
      }
    }
  }

  __device__ void zero() const {
    const uint4 zeros = make_uint4(0, 0, 0, 0);
    tiles(
        int(vectors / TILE), -1,
        [&](const Bits *, Bits *to) {
#pragma unroll
          for (int u = 0; u < UNROLL; ++u) st16_stream(to + u * STEP, zeros);
        },
        [&](int64_t k) { st16_stream(dx + head + k * E::COUNT, zeros); });
    edges([&](int64_t v) { dx[v] = 0; });
  }

  template <bool ENTROPY>
  __device__ __forceinline__ void grads(const RowGradient &row, int64_t label) const {
    const int shift = misalignment(x + head);
    // The tile with the label's column, for the thread that has its vector.
    const int64_t label_vector = label < head ? -1 : (label - head) / E::COUNT;
    const bool mine = label_vector >= 0 && label_vector % THREADS == thread;
    tiles(
        shift == 0 ? int(vectors / TILE) : 0, mine ? int(label_vector / TILE) : -1,
        [&](const Bits *from, Bits *to) {
          uint4 raw[UNROLL];
#pragma unroll
          for (int u = 0; u < UNROLL; ++u) raw[u] = ld16_stream(from + u * STEP);
#pragma unroll
          for (int u = 0; u < UNROLL; ++u)
            st16_stream(to + u * STEP, grad_vector<E, ENTROPY>(row, raw[u]));
        },
        [&](int64_t k) {
          const int64_t c = k * E::COUNT;
          const uint4 raw = load_vector<E>(x, vocab, head + c, shift);
          st16_stream(dx + head + c, grad_vector_with<E, ENTROPY>(row, raw, label - head - c));
        });
    edges([&](int64_t v) {
      const float value = E::load(x[v]);
      dx[v] = E::store(v == label ? row.at_label<ENTROPY>(value) : row.at<ENTROPY>(value));
    });
  }
};

template <class E, bool ENTROPY, int THREADS>
__device__ __forceinline__ void row_grads(const LogitGradsArguments &a, int64_t token, int thread,
                                          int part, int parts) {
  const Counted which = counted(a.tokens, token);
  if (!which.counts && a.keep_masked) return;
  const Span<E, THREADS> span(a, token, thread, part, parts);
  const float by_log_prob = which.counts ? a.by_log_prob[token] : 0.0f;
  const float by_entropy = ENTROPY && which.counts ? a.by_entropy[token] : 0.0f;
  if (by_log_prob == 0.0f && by_entropy == 0.0f) return span.zero();
  const RowResults results = {0.0f, a.maximum[token], a.log_sum[token],
                              ENTROPY ? a.entropy[token] : 0.0f};
  const RowGradient row =
      row_gradient(results, by_log_prob, by_entropy, a.inverse_temperature, a.scale);
  span.template grads<ENTROPY>(row, which.label);
}

template <class E, bool ENTROPY>
__device__ __forceinline__ void rows(const LogitGradsArguments &a) {
  if (a.error->code != 0) return;
  const int step = gridDim.x * ROWS_WARPS, first = blockIdx.x * ROWS_WARPS + threadIdx.x / 32;
  for (int64_t token = a.tokens.count - 1 - first; token >= 0; token -= step) {
    row_grads<E, ENTROPY, 32>(a, token, threadIdx.x % 32, 0, 1);
  }
}

template <class E, bool ENTROPY>
__device__ __forceinline__ void block(const LogitGradsArguments &a, int32_t parts) {
  if (a.error->code != 0) return;
  const int part = blockIdx.x % parts;
  const int step = gridDim.x / parts, first = blockIdx.x / parts;
  for (int64_t token = a.tokens.count - 1 - first; token >= 0; token -= step) {
    row_grads<E, ENTROPY, BLOCK_THREADS>(a, token, threadIdx.x, part, parts);
  }
}

}  // namespace
}  // namespace prefuse

// Three blocks of a multiprocessor have 48 KB of loads in flight, twice what its share of the memory's
// bandwidth asks for; four would leave 64 registers, and spill.
#define PREFUSE_LOGIT_GRADS(E, ENTROPY, NAME)                                   \
  extern "C" __global__ void __launch_bounds__(32 * prefuse::ROWS_WARPS, 3)     \
      logit_grads_rows_##NAME(prefuse::LogitGradsArguments a) {                 \
    prefuse::rows<prefuse::E, ENTROPY>(a);                                      \
  }                                                                             \
  extern "C" __global__ void __launch_bounds__(prefuse::BLOCK_THREADS, 3)       \
      logit_grads_block_##NAME(prefuse::LogitGradsArguments a, int32_t parts) { \
    prefuse::block<prefuse::E, ENTROPY>(a, parts);                              \
  }

PREFUSE_LOGIT_GRADS(F32, false, f32)
PREFUSE_LOGIT_GRADS(F32, true, f32_entropy)
PREFUSE_LOGIT_GRADS(F16, false, f16)
PREFUSE_LOGIT_GRADS(F16, true, f16_entropy)
PREFUSE_LOGIT_GRADS(BF16, false, bf16)
PREFUSE_LOGIT_GRADS(BF16, true, bf16_entropy)
