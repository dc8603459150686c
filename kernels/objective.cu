// Stage 3: each unit's loss, rewards and gradients, by the objectives' own text; then the value of the
// term and the gradient by each sequence's sum.
//
// Some 200 bytes for each unit, all f64. One launch of one block, which goes round: the sums over units need
// all of them, and a second launch for these takes as long as some rounds do. A pair has rows of logits, at
// least two, whose stages are by far longer than its share of a round.
//
// A loss makes the same again in its backward, into outputs of its own: to keep the units' gradients would
// save some microseconds, for 16 bytes a pair held until then.
#include "block.cuh"
#include "ptx.cuh"
#include "scalar.cuh"
#include "tokens.cuh"
#include "units.cuh"

namespace prefuse {
namespace {

// Twin of `UnitsArguments` in src/cuda/objective.rs. Arrays by sequence, then by unit; those that may
// be null are at their neutral values where they are.
struct UnitsArguments {
  const int64_t *members;  // [units, responses]
  int64_t units;
  const double *policy;
  const double *reference;  // may be null
  const double *tokens;
  const double *token_weights;
  const double *scores;  // may be null, like the four after it
  const double *beta;
  const double *margin;
  const double *soft_label;
  const double *weight;
  double *losses;
  double *rewards;     // [units, 2]
  double *unit_grads;  // [units, responses]
  const ErrorSlot *error;
};

// Twin of `ReduceArguments` in src/cuda/objective.rs.
struct ReduceArguments {
  const double *losses;
  const double *unit_grads;  // [units, responses]
  int64_t units;
  const int64_t *members;  // [units, responses]
  int64_t responses;
  const double *tokens;  // by sequence
  double divisor;        // 0 for the tokens of all members, at least 1
  double weight;         // of the term
  double *value;         // null where a launch of its own reduces
  double *grads;         // by sequence; null where none are asked for
  int64_t sequences;
  const int64_t *uses_offsets;  // [sequences + 1]
  const int64_t *uses;          // where a sequence's gradients are in `unit_grads`, in unit order
  double upstream;
  const double *unit_upstream;  // by unit; null for `upstream` by the value
  const ErrorSlot *error;
};

constexpr int THREADS = 256;

__device__ double or_neutral(const double *values, int64_t unit, double neutral) {
  return values == nullptr ? neutral : values[unit];
}

// An objective that reads a reference or a score without saying so has to be heard.
__device__ double or_nan(const double *values, int64_t sequence) {
  return values == nullptr ? __longlong_as_double(0x7ff8000000000000ll) : values[sequence];
}

__device__ Response response(const UnitsArguments &a, int64_t member) {
  const int64_t sequence = a.members[member];
  return {a.policy[sequence],        or_nan(a.reference, sequence), a.tokens[sequence],
          a.token_weights[sequence], or_nan(a.scores, sequence),    or_nan(nullptr, 0)};
}

__device__ void load_unit(const UnitsArguments &a, int64_t unit, Pair &pair) {
  pair = {response(a, 2 * unit), response(a, 2 * unit + 1), or_neutral(a.beta, unit, 1.0),
          or_neutral(a.margin, unit, 0.0), or_neutral(a.soft_label, unit, 1.0)};
}

__device__ void load_unit(const UnitsArguments &a, int64_t unit, Sequence &sequence) {
  sequence = {response(a, unit), or_neutral(a.soft_label, unit, 1.0)};
}

__device__ void load_unit(const UnitsArguments &a, int64_t unit, JudgedPair &pair) {
  pair = {response(a, 4 * unit), response(a, 4 * unit + 1), response(a, 4 * unit + 2),
          response(a, 4 * unit + 3)};
}

__device__ void load_unit(const UnitsArguments &a, int64_t unit, RewardPair &pair) {
  pair = {response(a, 2 * unit).policy, response(a, 2 * unit + 1).policy,
          or_neutral(a.margin, unit, 0.0), or_neutral(a.soft_label, unit, 1.0)};
}

__device__ void load_unit(const UnitsArguments &a, int64_t unit, Reward &reward) {
  const Response of = response(a, unit);
  reward = {of.policy, of.score};
}

constexpr int MAX_RESPONSES = 4;

// Into the order of the responses; returns their number.
__device__ int spread(PerPair x, double (&out)[MAX_RESPONSES]) {
  out[0] = x.chosen;
  out[1] = x.rejected;
  return 2;
}

__device__ int spread(PerSequence x, double (&out)[MAX_RESPONSES]) {
  out[0] = x.response;
  out[1] = 0.0;
  return 1;
}

__device__ int spread(PerJudgedPair x, double (&out)[MAX_RESPONSES]) {
  out[0] = x.chosen;
  out[1] = x.rejected;
  out[2] = x.verdict_chosen;
  out[3] = x.verdict_rejected;
  return 4;
}

template <class Unit, class PerResponse, class Objective>
__device__ __forceinline__ void evaluate_units(const UnitsArguments &a,
                                               const Objective &objective) {
  for (int64_t unit = threadIdx.x; unit < a.units; unit += THREADS) {
    Unit input;
    load_unit(a, unit, input);
    double loss = 0.0;
    PerResponse grad = {}, reward = {};
    evaluate(objective, input, loss, grad, reward);
    // A weight of 0 takes a unit out of the term, whatever its loss is.
    const double weight = or_neutral(a.weight, unit, 1.0);
    double grads[MAX_RESPONSES], rewards[MAX_RESPONSES];
    const int responses = spread(grad, grads);
    spread(reward, rewards);
    a.losses[unit] = product(weight, loss);
    for (int i = 0; i < responses; ++i) {
      a.unit_grads[responses * unit + i] = product(weight, grads[i]);
    }
    for (int i = 0; i < 2; ++i) a.rewards[2 * unit + i] = rewards[i];
  }
}

// Twin of `LossSum` in src/objectives/reduction.rs: what additions round away is kept (Knuth's
// two-sum), so that the mean of n equal losses is that loss to the last bit.
struct LossSum {
  double sum, rest;

  __device__ static LossSum of(double a, double b, double rest) {
    const double sum = a + b, added = sum - a;
    return {sum, rest + ((a - (sum - added)) + (b - added))};
  }
  __device__ LossSum plus(double loss) const { return of(sum, loss, rest); }
  __device__ LossSum plus(LossSum other) const { return of(sum, other.sum, rest + other.rest); }
  __device__ double over(double divisor) const {
    const double quotient = sum / divisor;
    const double remainder = fma(-quotient, divisor, sum) + rest;
    return isfinite(remainder) ? quotient + remainder / divisor : quotient;
  }
};

// By one warp: lane l adds the losses l, l + 32, ... in order, then lanes meet in a butterfly.
__device__ LossSum sum_losses(const double *losses, int64_t units, int lane) {
  LossSum sum = {0.0, 0.0};
  for (int64_t unit = lane; unit < units; unit += 32) sum = sum.plus(losses[unit]);
  for (int offset = 16; offset > 0; offset /= 2) {
    const LossSum other = {__shfl_xor_sync(ALL_LANES, sum.sum, offset),
                           __shfl_xor_sync(ALL_LANES, sum.rest, offset)};
    sum = sum.plus(other);
  }
  return sum;
}

__device__ void add_grads(const ReduceArguments &a, double divisor, int64_t sequence) {
  double grad = a.grads[sequence];
  for (int64_t i = a.uses_offsets[sequence]; i < a.uses_offsets[sequence + 1]; ++i) {
    const int64_t use = a.uses[i];
    const double scale = a.unit_upstream == nullptr ? a.upstream * a.weight / divisor
                                                    : a.unit_upstream[use / a.responses];
    grad += product(scale, a.unit_grads[use]);
  }
  a.grads[sequence] = grad;
}

// By one block, once all units have been evaluated.
__device__ __forceinline__ void reduce_units(const ReduceArguments &a) {
  SumShared &shared = block_shared<SumShared>();
  const double divisor =
      a.divisor == 0.0 ? max(count_all(a.members, a.units * a.responses, a.tokens, shared), 1.0)
                       : a.divisor;
  if (threadIdx.x < 32) {
    const LossSum sum = sum_losses(a.losses, a.units, threadIdx.x);
    if (threadIdx.x == 0) *a.value = product(a.weight, sum.over(divisor));
  }
  if (a.grads == nullptr) return;
  for (int64_t sequence = threadIdx.x; sequence < a.sequences; sequence += THREADS) {
    add_grads(a, divisor, sequence);
  }
}

template <class Unit, class PerResponse, class Objective>
__device__ __forceinline__ void objective(const UnitsArguments &units, const Objective &objective,
                                          const ReduceArguments &all) {
  if (units.error->code != 0) return;
  evaluate_units<Unit, PerResponse>(units, objective);
  __syncthreads();
  reduce_units(all);
}

}  // namespace
}  // namespace prefuse

extern "C" __global__ void __launch_bounds__(prefuse::THREADS)
    objective_reduce(prefuse::ReduceArguments a) {
  if (a.error->code == 0) prefuse::reduce_units(a);
}

// 2 blocks a multiprocessor: left to itself ptxas aims at more, and spills around the calls of the f64
// division's slow path (seen in 9 objectives, up to 40 bytes).
#define OBJECTIVE(NAME, UNIT, PER_RESPONSE)                                                   \
  extern "C" __global__ void __launch_bounds__(THREADS, 2)                                    \
      objective_##UNIT##_##NAME(UnitsArguments units, NAME parameters, ReduceArguments all) { \
    objective<UNIT, PER_RESPONSE>(units, parameters, all);                                    \
  }

// Those of kernels/token_objective.cu.
#define TOKEN_OBJECTIVE(NAME)

namespace prefuse {
#include "objectives.cuh"
}  // namespace prefuse
