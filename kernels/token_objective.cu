// Stage 3 of terms over tokens: each token's loss, and the gradient by its log-prob and entropy, by the
// objectives' own text.
//
// A block has a sequence, thread t its tokens t, t + 256, ... in order, so that every sum depends on
// positions within the sequence alone. Reads some 40 bytes for each token and adds to 4 or 8, beside the
// vocabulary's worth of bytes that stage 1 reads for it; one launch. The value of the term is a sum over
// sequences, which the host takes with their losses.
#include "token_terms.cuh"
#include "units.cuh"

namespace prefuse {
namespace {

// Twin of `Arguments` in src/cuda/token_objective.rs.
struct TokenObjectiveArguments {
  TermUnits term;
  const float *log_probs;
  Floats old;  // null for the policy itself
  Floats reference;
  const float *entropy;  // may be null
  double bound;          // of the terms of a sequence's log-ratio
  double *losses;        // by unit
  float *grads;          // by token; null where none are asked for
  float *entropy_grads;  // may be null
  const ErrorSlot *error;
};

constexpr int THREADS = 256;

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
  const double by = advantage(a.term, token, sequence);
  if (by > 0.0 && ratio > a.bound) return {a.bound, false};
  if (by < 0.0 && ratio < -a.bound) return {-a.bound, false};
  return {ratio, true};
}

template <class Objective>
__device__ __forceinline__ void token_objective(const TokenObjectiveArguments &a,
                                                const Objective &objective) {
  SumShared &shared = block_shared<SumShared>();
  if (a.error->code != 0) return;
  const TermUnits &term = a.term;
  const bool wants = a.grads != nullptr;
  const double all = wants ? all_tokens(term, shared) : 0.0;
  for (int64_t unit = blockIdx.x; unit < term.units; unit += gridDim.x) {
    const int64_t sequence = term.members[unit];
    const int64_t first = term.offsets[sequence] + threadIdx.x, end = term.offsets[sequence + 1];
    double ratio = 0.0;
    for (int64_t token = first; token < end; token += THREADS) {
      if (counted(term.tokens, token).counts) ratio += log_ratio(a, token, sequence).value;
    }
    ratio = sum_for_all(ratio, shared);
    const double scale = wants ? unit_scale(term, unit, all) : 0.0;
    double loss = 0.0, by_sequence = 0.0;
    for (int64_t token = first; token < end; token += THREADS) {
      const Counted which = counted(term.tokens, token);
      if (!which.counts) continue;
      const double entropy = a.entropy == nullptr ? nothing() : double(a.entropy[token]);
      const Token input = {double(a.log_probs[token]),
                           old_log_prob(a, token),
                           at(a.reference, token),
                           advantage(term, token, sequence),
                           entropy,
                           ratio,
                           max(term.counts[sequence], 1.0)};
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
    if (threadIdx.x == 0) a.losses[unit] = product(unit_weight(term, unit), loss);
    by_sequence = sum_for_all(by_sequence, shared);
    if (!wants || by_sequence == 0.0) continue;
    for (int64_t token = first; token < end; token += THREADS) {
      if (counted(term.tokens, token).counts && log_ratio(a, token, sequence).free) {
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
