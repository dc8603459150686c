// Stages 1, 3 and 4 of terms that look at each token by itself, in one visit: a row stays in the shared
// memory of a cluster while its log-prob, the gradient by that, and the gradient by its logits are found.
//
// Reads each logit of a counted row once and writes each element once: 2 b bytes for each logit of b
// bytes, where the stages one after another move 3 b. The bits are theirs: segments are summed by the
// tree of include/softmax.cuh, whichever block of the cluster holds them, and an element of the gradient
// depends on its logit and the row's results alone (include/gradient.cuh). A warp reads back what it
// stored itself, so that blocks wait for each other twice a row: when all states are there, and when the
// row's results are. `token_factors` goes before it: what a sequence says of its tokens, by token.
//
// Shared memory of a block: its share of the row, and in the first block of the cluster the states of all
// segments. The launcher takes the smallest cluster of which three blocks fit a multiprocessor, or two:
// one loads while others compute and store. A block alone would do one of these at a time, and be no
// faster than the stages. Rows of fewer than 8 segments, gradients whose rows are not on boundaries of
// 16 bytes, and rows that no cluster holds go through the stages.
//
// Predicted on an H200 (4.3 TB/s copied, 29.6e12 lane instructions/s, 3.7e12 exponentials/s) for 8192
// rows of 128256 bf16, clusters of 4: 4.2 GB in 0.98 ms (the stages: 1.47 ms); two exponentials 0.57 ms.
// Not yet measured. Instructions for each logit in the loops on sm_90 (cargo xtask disassembly), which
// together are 0.57 ms of issue slots for bf16:
//                f32   16-bit   with moments   with the entropy's gradient
//   read         7.3   7.4      11.0  11.2     11.0  11.2
//   write        8.0   8.5       8.0   8.5     11.0  11.5
#include "gradient.cuh"
#include "token_terms.cuh"
#include "units.cuh"

namespace prefuse {
namespace {

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;

// Twins of the constants in src/cuda/token_loss.rs.
constexpr int MAX_TERMS = 8;
constexpr int MAX_PARAMETERS = 8;

// What comes before the states in a block's shared memory; twin of the constant in src/cuda/launch.rs.
constexpr int NEWS_BYTES = 64;

// A term as the visit of a row asks it. Twin of `TermArguments` in src/cuda/token_loss.rs.
struct TermArguments {
  int64_t objective;  // place in TOKEN_OBJECTIVES
  double parameters[MAX_PARAMETERS];
  const double *factors;  // by token: of the gradients; 0 where the term does not look at the token
};

// Twin of `Arguments` in src/cuda/token_loss.rs.
struct TokenLossArguments {
  LogProbsArguments rows;
  void *grads;  // may be the logits
  int64_t grads_stride;
  float *by_log_prob;  // by token, added to
  float *by_entropy;   // null where no term looks at entropies
  Floats old;          // null for the policy itself
  Floats reference;
  const double *advantages;  // by token
  float inverse_temperature;
  int32_t keep_masked;
  int64_t terms;
  TermArguments term[MAX_TERMS];
};

// Twin of `FactorsArguments` in src/cuda/token_loss.rs.
struct TokenFactorsArguments {
  TermUnits term;
  double *factors;           // by token; 0 before
  double *token_advantages;  // by token
  const ErrorSlot *error;
};

__device__ __forceinline__ void write_factors(const TokenFactorsArguments &a) {
  SumShared &shared = block_shared<SumShared>();
  if (a.error->code != 0) return;
  const TermUnits &term = a.term;
  const double all = all_tokens(term, shared);
  for (int64_t unit = blockIdx.x; unit < term.units; unit += gridDim.x) {
    const int64_t sequence = term.members[unit], end = term.offsets[sequence + 1];
    const double scale = unit_scale(term, unit, all);
    for (int64_t token = term.offsets[sequence] + threadIdx.x; token < end; token += THREADS) {
      const Counted which = counted(term.tokens, token);
      if (!which.counts) continue;
      a.factors[token] = scale * double(which.weight);
      a.token_advantages[token] = advantage(term, token, sequence);
    }
  }
}

}  // namespace

#define OBJECTIVE(NAME, UNIT, PER_RESPONSE)
#define TOKEN_OBJECTIVE(NAME)
#include "objectives.cuh"

namespace {

// What the first block of a cluster tells the others.
struct RowNews {
  RowGradient row;
  int32_t is_zero;
};
static_assert(sizeof(RowNews) <= NEWS_BYTES && sizeof(RowState) == 16, "the launcher's sizes");
static_assert(sizeof(TermArguments) == 80 && sizeof(TokenLossArguments) == 864, "the twins' sizes");

// The gradients of a token, added to what is there as stage 3 adds them: rounded to f32 after each term.
__device__ void add_token_grads(const TokenLossArguments &a, int64_t token,
                                const RowResults &results, float &by_log_prob, float &by_entropy) {
  const double log_prob = results.log_prob;
  const Token input = {log_prob,
                       a.old.values == nullptr ? log_prob : at(a.old, token),
                       at(a.reference, token),
                       a.advantages[token],
                       a.by_entropy == nullptr ? nothing() : double(results.entropy),
                       nothing(),
                       nothing()};
#pragma unroll 1
  for (int64_t i = 0; i < a.terms; ++i) {
    const TermArguments &term = a.term[i];
    const double factor = term.factors[token];
    // Not of the term, or of no weight: what would be added is 0.
    if (factor == 0.0) continue;
    double loss = 0.0;
    PerToken grad = {}, reward = {};
    switch (term.objective) {
#define EVALUATE(PLACE, NAME)                                                              \
  case PLACE:                                                                              \
    evaluate(*reinterpret_cast<const NAME *>(term.parameters), input, loss, grad, reward); \
    break;
      TOKEN_OBJECTIVES(EVALUATE)
    }
    by_log_prob = float(double(by_log_prob) + product(factor, grad.policy));
    by_entropy = float(double(by_entropy) + product(factor, grad.entropy));
  }
}

// What a warp has of a row of the gradient: segments `first`, `first + step`, ...
template <class E> struct Share {
  using Bits = typename E::Bits;
  Bits *dx;
  int64_t vocab;
  int first, step, segments, lane;

  // Calls `vector` with the place among the warp's vectors and that of `label` from the vector's first
  // column, and writes what comes back, as much of it as lies within the row.
  template <class Vector>
  __device__ __forceinline__ void write(int64_t label, Vector vector) const {
    int place = 0;
    for (int s = first; s < segments; s += step) {
      const int64_t start = int64_t(s) * SEGMENT, beyond = label - start;
      const int at =
          (beyond < 0 || beyond >= SEGMENT ? -2 * SEGMENT : int(beyond)) - lane * E::COUNT;
      const int64_t column = start + lane * E::COUNT;
      if (start + SEGMENT <= vocab) {
        Bits *to = dx + column;
#pragma unroll
        for (int i = 0; i < Segment<E>::VECTORS; ++i) {
          st16_stream(to + i * Segment<E>::STEP, vector(place + i, at - i * Segment<E>::STEP));
        }
      } else {
#pragma unroll 1
        for (int i = 0; i < Segment<E>::VECTORS; ++i) {
          write_some(column + i * Segment<E>::STEP, vector(place + i, at - i * Segment<E>::STEP));
        }
      }
      place += Segment<E>::VECTORS;
    }
  }

  __device__ void zero() const {
    write(-1, [](int, int) { return make_uint4(0, 0, 0, 0); });
  }

  __device__ void write_some(int64_t column, uint4 packed) const {
    float values[E::COUNT];
    E::unpack(packed, values);
#pragma unroll
    for (int j = 0; j < E::COUNT; ++j) {
      if (column + j < vocab) dx[column + j] = E::store(values[j]);
    }
  }
};

template <class E, bool MOMENTS, bool ENTROPY>
__device__ __forceinline__ void token_loss(const TokenLossArguments &a) {
  // News, states, then vectors: of each warp in the order in which it comes to them.
  RowNews &news = block_shared<RowNews>();
  RowState *states = reinterpret_cast<RowState *>(&block_shared<char>() + NEWS_BYTES);
  uint4 *vectors = reinterpret_cast<uint4 *>(states + a.rows.segments);
  if (a.rows.error->code != 0) return;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int rank = cluster_rank(), size = cluster_size();
  const int slots = (a.rows.segments + size * WARPS - 1) / (size * WARPS);
  vectors += warp * slots * Segment<E>::VECTORS * 32 + lane;
  Share<E> share = {nullptr,      a.rows.vocab,    rank * WARPS + warp,
                    size * WARPS, a.rows.segments, lane};
  cluster_sync();  // the first block runs
  for (int64_t token = blockIdx.x / size; token < a.rows.tokens.count; token += gridDim.x / size) {
    share.dx = static_cast<typename E::Bits *>(a.grads) + token * a.grads_stride;
    const Counted which = counted(a.rows.tokens, token);
    if (!which.counts) {
      if (rank == 0 && threadIdx.x == 0) store_not_counted(a.rows, token);
      if (!a.keep_masked) share.zero();
      continue;
    }
    const typename E::Bits *row = row_of<E>(a.rows, token);
    RowState *all_states = cluster_map(states, 0);
    uint4 *mine = vectors;
    for (int s = share.first; s < share.segments; s += share.step) {
      Segment<E> segment;
      segment.load(row, a.rows.vocab, int64_t(s) * SEGMENT, lane);
#pragma unroll
      for (int i = 0; i < Segment<E>::VECTORS; ++i, mine += 32) *mine = segment.v[i];
      const RowState state = segment.template state<MOMENTS>(a.rows.scale);
      if (lane == 0) all_states[s] = state;
    }
    cluster_sync();
    if (rank == 0 && warp == 0) {
      const RowResults results = finish_row<E, MOMENTS>(a.rows, token, which.label, states, lane);
      if (lane == 0) {
        float by_log_prob = a.by_log_prob[token];
        float by_entropy = ENTROPY ? a.by_entropy[token] : 0.0f;
        add_token_grads(a, token, results, by_log_prob, by_entropy);
        if (!ENTROPY) by_entropy = 0.0f;
        a.by_log_prob[token] = by_log_prob;
        if (ENTROPY) a.by_entropy[token] = by_entropy;
        news.row =
            row_gradient(results, by_log_prob, by_entropy, a.inverse_temperature, a.rows.scale);
        news.is_zero = by_log_prob == 0.0f && by_entropy == 0.0f;
      }
    }
    cluster_sync();
    const RowNews *told = cluster_map(&news, 0);
    if (told->is_zero) {
      share.zero();
      continue;
    }
    const RowGradient gradient = told->row;
    share.write(which.label, [&](int place, int label) {
      const uint4 raw = vectors[place * 32];
      // The label's column is in one vector of the row.
      return label >= 0 && label < E::COUNT ? grad_vector_with<E, ENTROPY>(gradient, raw, label)
                                            : grad_vector<E, ENTROPY>(gradient, raw);
    });
  }
  cluster_sync();  // the others have read what the first one told
}

}  // namespace
}  // namespace prefuse

extern "C" __global__ void __launch_bounds__(prefuse::THREADS, 4)
    token_factors(prefuse::TokenFactorsArguments a) {
  prefuse::write_factors(a);
}

#define PREFUSE_TOKEN_LOSS(E, MOMENTS, ENTROPY, NAME)                                    \
  extern "C" __global__ void __launch_bounds__(prefuse::THREADS, 3)                      \
      token_loss_cluster_##NAME(const __grid_constant__ prefuse::TokenLossArguments a) { \
    prefuse::token_loss<prefuse::E, MOMENTS, ENTROPY>(a);                                \
  }

PREFUSE_TOKEN_LOSS(F32, false, false, f32)
PREFUSE_TOKEN_LOSS(F32, true, false, f32_moments)
PREFUSE_TOKEN_LOSS(F32, true, true, f32_entropy)
PREFUSE_TOKEN_LOSS(F16, false, false, f16)
PREFUSE_TOKEN_LOSS(F16, true, false, f16_moments)
PREFUSE_TOKEN_LOSS(F16, true, true, f16_entropy)
PREFUSE_TOKEN_LOSS(BF16, false, false, bf16)
PREFUSE_TOKEN_LOSS(BF16, true, false, bf16_moments)
PREFUSE_TOKEN_LOSS(BF16, true, true, bf16_entropy)
