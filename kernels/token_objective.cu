// Stage 3 of terms over tokens: each token's loss, and the gradient by its log-prob and entropy, by the
// objectives' own text.
//
// A block has a sequence, thread t its tokens t, t + 256, ... in order, so that every sum depends on
// positions within the sequence alone. Reads some 40 bytes for each token and adds to 4 or 8, beside the
// vocabulary's worth of bytes that stage 1 reads for it; one launch. The value of the term is a sum over
// sequences, which the host takes with their losses.
#include "block.cuh"
#include "ptx.cuh"
#include "scalar.cuh"
#include "tokens.cuh"
#include "units.cuh"

namespace prefuse {
namespace {

// f32 or f64 numbers; may be null. Twin of `Floats` in src/cuda/token_objective.rs.
struct Floats {
  const void *values;
  int64_t is_double;
};

// Twin of `Arguments` in src/cuda/token_objective.rs.
struct TokenObjectiveArguments {
  const int64_t *members;  // [units] sequences, each once
  int64_t units;
  Tokens tokens;
  const int64_t *offsets;  // [sequences + 1]
  const double *counts;    // by sequence: counted tokens
  const float *log_probs;
  Floats old;  // null for the policy itself
  Floats reference;
  const float *entropy;  // may be null
  Floats advantages;
  int64_t by_token;      // whether they are by token, not by sequence
  const double *weight;  // by unit; may be null
  double bound;          // of the terms of a sequence's log-ratio
  double *losses;        // by unit
  float *grads;          // by token; null where none are asked for
  float *entropy_grads;  // may be null
  double divisor;        // 0 for counted tokens of all units, -1 for units times those of each
  double scale;          // upstream, times the term's weight
  const double *unit_upstream;  // by unit; null for `scale` over the divisor
  const ErrorSlot *error;
};

constexpr int THREADS = 256;

struct TokenObjectiveShared {
  double warps[THREADS / 32];
  double all;
};

__device__ double nothing() { return __longlong_as_double(0x7ff8000000000000ll); }

// An objective that reads what it does not declare has to be heard.
__device__ double at(Floats x, int64_t index) {
  if (x.values == nullptr) return nothing();
  return x.is_double ? static_cast<const double *>(x.values)[index]
                     : double(static_cast<const float *>(x.values)[index]);
}

// The sum over the block, for all of its threads.
__device__ double sum_for_all(double x, TokenObjectiveShared &shared) {
  x = block_sum(x, shared.warps);
  if (threadIdx.x == 0) shared.all = x;
  __syncthreads();
  x = shared.all;
  __syncthreads();
  return x;
}

__device__ double advantage(const TokenObjectiveArguments &a, int64_t token, int64_t sequence) {
  return at(a.advantages, a.by_token ? token : sequence);
}

__device__ double old_log_prob(const TokenObjectiveArguments &a, int64_t token) {
  return a.old.values == nullptr ? double(a.log_probs[token]) : at(a.old, token);
}

// What a token adds to its sequence's log-ratio, and whether that has a gradient.
struct RatioTerm {
  double value;
  bool free;
};

__device__ RatioTerm log_ratio(const TokenObjectiveArguments &a, int64_t token, int64_t sequence) {
  const double ratio = double(a.log_probs[token]) - old_log_prob(a, token);
  const double by = advantage(a, token, sequence);
  if (by > 0.0 && ratio > a.bound) return {a.bound, false};
  if (by < 0.0 && ratio < -a.bound) return {-a.bound, false};
  return {ratio, true};
}

__device__ double unit_scale(const TokenObjectiveArguments &a, int64_t unit, double counted,
                             double all) {
  if (a.unit_upstream != nullptr) return a.unit_upstream[unit];
  if (a.divisor == 0.0) return a.scale / max(all, 1.0);
  if (a.divisor < 0.0) return a.scale / (double(a.units) * max(counted, 1.0));
  return a.scale / a.divisor;
}

template <class Objective>
__device__ __forceinline__ void token_objective(const TokenObjectiveArguments &a,
                                                const Objective &objective) {
  TokenObjectiveShared &shared = block_shared<TokenObjectiveShared>();
  if (a.error->code != 0) return;
  double all = 0.0;
  if (a.divisor == 0.0 && a.unit_upstream == nullptr && a.grads != nullptr) {
    // Whole numbers: the order of their sum does not show.
    for (int64_t i = threadIdx.x; i < a.units; i += THREADS) all += a.counts[a.members[i]];
    all = sum_for_all(all, shared);
  }
  for (int64_t unit = blockIdx.x; unit < a.units; unit += gridDim.x) {
    const int64_t sequence = a.members[unit];
    const int64_t first = a.offsets[sequence] + threadIdx.x, end = a.offsets[sequence + 1];
    const double counted_tokens = a.counts[sequence];
    double ratio = 0.0;
    for (int64_t token = first; token < end; token += THREADS) {
      if (counted(a.tokens, token).counts) ratio += log_ratio(a, token, sequence).value;
    }
    ratio = sum_for_all(ratio, shared);
    const double weight = a.weight == nullptr ? 1.0 : a.weight[unit];
    const bool wants = a.grads != nullptr;
    const double scale = wants ? product(unit_scale(a, unit, counted_tokens, all), weight) : 0.0;
    double loss = 0.0, by_sequence = 0.0;
    for (int64_t token = first; token < end; token += THREADS) {
      const Counted which = counted(a.tokens, token);
      if (!which.counts) continue;
      const double entropy = a.entropy == nullptr ? nothing() : double(a.entropy[token]);
      const Token input = {double(a.log_probs[token]),
                           old_log_prob(a, token),
                           at(a.reference, token),
                           advantage(a, token, sequence),
                           entropy,
                           ratio,
                           max(counted_tokens, 1.0)};
      double token_loss = 0.0;
      PerToken grad = {}, reward = {};
      evaluate(objective, input, token_loss, grad, reward);
      loss += double(which.weight) * token_loss;
      by_sequence += double(which.weight) * grad.sequence;
      if (!wants) continue;
      const double of_token = scale * double(which.weight);
      a.grads[token] = float(double(a.grads[token]) + product(of_token, grad.policy));
      if (a.entropy_grads != nullptr) {
        a.entropy_grads[token] =
            float(double(a.entropy_grads[token]) + product(of_token, grad.entropy));
      }
    }
    loss = block_sum(loss, shared.warps);
    if (threadIdx.x == 0) a.losses[unit] = product(weight, loss);
    by_sequence = sum_for_all(by_sequence, shared);
    if (!wants || by_sequence == 0.0) continue;
    for (int64_t token = first; token < end; token += THREADS) {
      if (counted(a.tokens, token).counts && log_ratio(a, token, sequence).free) {
        a.grads[token] = float(double(a.grads[token]) + product(scale, by_sequence));
      }
    }
  }
}

}  // namespace
}  // namespace prefuse

#define OBJECTIVE(NAME, UNIT, PER_RESPONSE)

#define TOKEN_OBJECTIVE(NAME)                                             \
  extern "C" __global__ void __launch_bounds__(THREADS, 2)                \
      objective_Token_##NAME(TokenObjectiveArguments a, NAME objective) { \
    token_objective(a, objective);                                        \
  }

namespace prefuse {
#include "objectives.cuh"
}  // namespace prefuse
