// Stage 3 of terms over groups: losses of the responses to one prompt; twin of `Ranking::evaluate` in
// src/objectives/ranking.rs.
//
// A block has a group of K. Where responses are chosen one after another, best first, warp w takes the
// choices w, w + 8, ...: the largest value and the sum of the exponentials of those that are left; then
// thread t takes the responses t, t + 256, ... and adds what each choice says of them in the choices'
// order. K^2 exponentials twice, and no more memory than 4 numbers a member. Where pairs have weights that
// follow from all values, thread t adds up the pairs of the responses t, t + 256, ... in their order, those
// that they win for the loss and all for the gradient.
#include "block.cuh"
#include "ptx.cuh"
#include "scalar.cuh"
#include "tokens.cuh"

namespace prefuse {
namespace {

constexpr int64_t REWARD_GAPS = 1, CROSS_ENTROPY = 2, KNOW_PAT = 3, KNOW_PAT_CODE = 4;
constexpr int64_t LIPO_LAMBDA = 5, LIPO_LAMBDA_CODE = 6, NCA = 7;
constexpr int64_t AVERAGE = 1, LOG_RATIO = 2;

// Twin of `Arguments` in src/cuda/ranking.rs.
struct RankingArguments {
  const int64_t *members;
  const int64_t *offsets;  // [groups + 1]
  int64_t groups;
  int64_t kind;
  int64_t of;
  double factor;  // of the values
  double temperature;
  const double *policy;
  const double *tokens;
  const double *reference;  // may be null, like the two after it
  const double *scores;
  const double *weight;  // by group
  double *values;        // by member, like the two after it: scratch
  double *largest;  // of each choice; KnowPAT: the weights of the better ones; LiPO-lambda: gains
  double
      *sums;  // of each choice, without the largest; KnowPAT: the weights; LiPO-lambda: discounts
  double *losses;                // by group
  double *grads;                 // by sequence; null where none are asked for
  double divisor;                // 0 for the tokens of all members, at least 1
  double scale;                  // upstream, times the term's weight
  const double *group_upstream;  // by group; null for `scale` over the divisor
  const ErrorSlot *error;
};

constexpr double LN_2 = 0.693147180559945309417;
constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;

struct RankingShared {
  SumShared sum;
  double largest[2];
  double sums[2];
};

__device__ double value_of(const RankingArguments &a, int64_t sequence) {
  const double policy = a.policy[sequence];
  if (a.of == AVERAGE) return a.factor * (policy / length(a.tokens[sequence]));
  if (a.of == LOG_RATIO) return a.factor * (policy - a.reference[sequence]);
  return a.factor * policy;
}

__device__ double slope_of(const RankingArguments &a, int64_t sequence) {
  return a.of == AVERAGE ? a.factor / length(a.tokens[sequence]) : a.factor;
}

__device__ double score(const RankingArguments &a, int64_t member) {
  return a.scores[a.members[member]];
}

// The factor of response `j` where `first` is the best that is left; `last` is the group's last member.
__device__ double gap(const RankingArguments &a, int64_t first, int64_t j, int64_t last) {
  if (a.kind != REWARD_GAPS) return 1.0;
  return score(a, first) - score(a, j == first ? last : j);
}

// By one warp: the largest of f(begin..end).
template <class F> __device__ double largest_of(int64_t begin, int64_t end, const F &f) {
  const int lane = threadIdx.x % 32;
  double most = -__longlong_as_double(0x7ff0000000000000ll);
  for (int64_t j = begin + lane; j < end; j += 32) most = max(most, f(j));
  return warp_reduce(most, [](double x, double y) { return max(x, y); });
}

// By one warp: the largest of f(begin..end), and the sum of exp((f - largest) / temperature) over the
// others.
template <class F>
__device__ void softmax_parts(int64_t begin, int64_t end, double temperature, const F &f,
                              double &largest, double &rest) {
  const int lane = threadIdx.x % 32;
  largest = largest_of(begin, end, f);
  int64_t top = end;
  for (int64_t j = begin + lane; j < end && top == end; j += 32) {
    if (f(j) == largest) top = j;
  }
  top = warp_reduce(top, [](int64_t x, int64_t y) { return x < y ? x : y; });
  double part = 0.0;
  for (int64_t j = begin + lane; j < end; j += 32) {
    if (j != top) part += exp((f(j) - largest) / temperature);
  }
  rest = warp_sum(part);
}

__device__ double choices(const RankingArguments &a, int64_t begin, int64_t end) {
  const int64_t last = end - 1;
  for (int64_t first = begin + threadIdx.x / 32; first < last; first += WARPS) {
    double largest, rest;
    softmax_parts(
        first, end, 1.0, [&](int64_t j) { return product(gap(a, first, j, last), a.values[j]); },
        largest, rest);
    if (threadIdx.x % 32 == 0) {
      a.largest[first] = largest;
      a.sums[first] = rest;
    }
  }
  __syncthreads();
  double loss = 0.0;
  for (int64_t first = begin + threadIdx.x; first < last; first += THREADS) {
    const double own = product(gap(a, first, first, last), a.values[first]);
    loss += a.largest[first] - own + log1p(a.sums[first]);
  }
  return loss;
}

__device__ double choices_grad(const RankingArguments &a, int64_t begin, int64_t end, int64_t j) {
  const int64_t last = end - 1;
  double grad = 0.0;
  for (int64_t first = begin; first <= j && first < last; ++first) {
    const double by = gap(a, first, j, last), scaled = product(by, a.values[j]);
    const double own = exp(scaled - a.largest[first]), rest = a.sums[first];
    if (j != first) {
      grad += product(by, own / (1.0 + rest));
    } else {
      // The shares of the others, since 1 less its own loses what is small.
      const double others = scaled == a.largest[first] ? rest : 1.0 + rest - own;
      grad -= product(by, others / (1.0 + rest));
    }
  }
  return grad;
}

__device__ double target(const RankingArguments &a, const RankingShared &shared, int64_t j) {
  return exp((score(a, j) - shared.largest[1]) / a.temperature) / (1.0 + shared.sums[1]);
}

// By all threads: the parts of the softmax of the values, and of that of the scores.
__device__ void both_softmaxes(const RankingArguments &a, RankingShared &shared, int64_t begin,
                               int64_t end) {
  const int warp = threadIdx.x / 32;
  if (warp < 2) {
    double largest, rest;
    softmax_parts(
        begin, end, warp == 0 ? 1.0 : a.temperature,
        [&](int64_t j) { return warp == 0 ? a.values[j] : score(a, j); }, largest, rest);
    if (threadIdx.x % 32 == 0) {
      shared.largest[warp] = largest;
      shared.sums[warp] = rest;
    }
  }
  __syncthreads();
}

__device__ double cross_entropy(const RankingArguments &a, RankingShared &shared, int64_t begin,
                                int64_t end) {
  both_softmaxes(a, shared, begin, end);
  double loss = 0.0;
  for (int64_t j = begin + threadIdx.x; j < end; j += THREADS) {
    loss += product(target(a, shared, j), shared.largest[0] - a.values[j] + log1p(shared.sums[0]));
  }
  return loss;
}

__device__ double cross_entropy_grad(const RankingArguments &a, const RankingShared &shared,
                                     int64_t j) {
  return exp(a.values[j] - shared.largest[0]) / (1.0 + shared.sums[0]) - target(a, shared, j);
}

__device__ double noise_contrast(const RankingArguments &a, RankingShared &shared, int64_t begin,
                                 int64_t end) {
  both_softmaxes(a, shared, begin, end);
  double loss = 0.0;
  for (int64_t j = begin + threadIdx.x; j < end; j += THREADS) {
    loss += product(target(a, shared, j), softplus(-a.values[j])) +
            softplus(a.values[j]) / double(end - begin);
  }
  return loss;
}

__device__ double noise_contrast_grad(const RankingArguments &a, const RankingShared &shared,
                                      int64_t begin, int64_t end, int64_t j) {
  const double noise = sigmoid(a.values[j]) / double(end - begin);
  return noise - target(a, shared, j) * sigmoid(-a.values[j]);
}

// What divides KnowPAT's sum.
__device__ double divisor_of_weights(const RankingArguments &a, int64_t begin, int64_t end) {
  return a.kind == KNOW_PAT_CODE ? 3.0 : length(double(end - 1 - begin));
}

__device__ double adaptive(const RankingArguments &a, RankingShared &shared, int64_t begin,
                           int64_t end) {
  const int64_t last = end - 1;
  const int warp = threadIdx.x / 32;
  if (warp < 2) {
    const double most =
        largest_of(begin, end, [&](int64_t j) { return warp == 0 ? a.values[j] : -a.values[j]; });
    if (threadIdx.x % 32 == 0) shared.largest[warp] = most;
  }
  __syncthreads();
  const double largest = shared.largest[0], smallest = -shared.largest[1];
  for (int64_t i = begin + threadIdx.x; i < end; i += THREADS) {
    // By the distance from the largest, so that a value of -inf leaves the others a weight of 1.
    const double weight = i < last && a.values[i] != smallest
                              ? 1.0 - (largest - a.values[i]) / (largest - smallest)
                              : 0.0;
    a.sums[i] = weight;
  }
  __syncthreads();
  double loss = 0.0;
  for (int64_t j = begin + threadIdx.x; j < end; j += THREADS) {
    double of_better = 0.0;
    for (int64_t i = begin; i < j; ++i) {
      of_better += a.kind == KNOW_PAT_CODE ? a.sums[i] / length(double(last - i)) : a.sums[i];
    }
    a.largest[j] = of_better;
    loss += product(a.sums[j], softplus(-a.values[j])) + product(of_better, softplus(a.values[j]));
  }
  return loss / divisor_of_weights(a, begin, end);
}

__device__ double adaptive_grad(const RankingArguments &a, int64_t begin, int64_t end, int64_t j) {
  const double down = a.largest[j] * sigmoid(a.values[j]);
  return (down - a.sums[j] * sigmoid(-a.values[j])) / divisor_of_weights(a, begin, end);
}

// The weight of the pair of two responses, the first of which has the larger gain.
__device__ double pair_weight(const RankingArguments &a, int64_t begin, int64_t end, int64_t better,
                              int64_t worse) {
  const double outer = a.kind == LIPO_LAMBDA_CODE ? LN_2 * double(end - begin) : 1.0;
  const double gain = a.largest[better] - a.largest[worse];
  return outer * gain * abs(a.sums[better] - a.sums[worse]);
}

__device__ double lambda_pairs(const RankingArguments &a, int64_t begin, int64_t end) {
  for (int64_t i = begin + threadIdx.x; i < end; i += THREADS) {
    const double value = a.values[i];
    int64_t before = 0;
    for (int64_t j = begin; j < end; ++j) {
      before += a.values[j] > value || (a.values[j] == value && j < i);
    }
    a.largest[i] = exp2(score(a, i));
    a.sums[i] = 1.0 / log(2.0 + double(before));
  }
  __syncthreads();
  double loss = 0.0;
  for (int64_t i = begin + threadIdx.x; i < end; i += THREADS) {
    for (int64_t j = begin; j < end; ++j) {
      if (!(a.largest[i] > a.largest[j])) continue;
      const double margin = a.values[i] - a.values[j];
      loss += product(pair_weight(a, begin, end, i, j), softplus(-margin));
    }
  }
  return loss;
}

__device__ double lambda_pairs_grad(const RankingArguments &a, int64_t begin, int64_t end,
                                    int64_t i) {
  double grad = 0.0;
  for (int64_t j = begin; j < end; ++j) {
    if (a.largest[i] > a.largest[j]) {
      const double slope = sigmoid(-(a.values[i] - a.values[j]));
      grad -= product(pair_weight(a, begin, end, i, j), slope);
    } else if (a.largest[j] > a.largest[i]) {
      const double slope = sigmoid(-(a.values[j] - a.values[i]));
      grad += product(pair_weight(a, begin, end, j, i), slope);
    }
  }
  return grad;
}

// The loss of a group: each thread its part.
__device__ double group_loss(const RankingArguments &a, RankingShared &shared, int64_t begin,
                             int64_t end) {
  if (a.kind == CROSS_ENTROPY) return cross_entropy(a, shared, begin, end);
  if (a.kind == NCA) return noise_contrast(a, shared, begin, end);
  if (a.kind == KNOW_PAT || a.kind == KNOW_PAT_CODE) return adaptive(a, shared, begin, end);
  if (a.kind == LIPO_LAMBDA || a.kind == LIPO_LAMBDA_CODE) return lambda_pairs(a, begin, end);
  return choices(a, begin, end);
}

// Its derivative by the value of response `j`; all parts of the loss have been evaluated.
__device__ double group_grad(const RankingArguments &a, const RankingShared &shared, int64_t begin,
                             int64_t end, int64_t j) {
  if (a.kind == CROSS_ENTROPY) return cross_entropy_grad(a, shared, j);
  if (a.kind == NCA) return noise_contrast_grad(a, shared, begin, end, j);
  if (a.kind == KNOW_PAT || a.kind == KNOW_PAT_CODE) return adaptive_grad(a, begin, end, j);
  if (a.kind == LIPO_LAMBDA || a.kind == LIPO_LAMBDA_CODE) {
    return lambda_pairs_grad(a, begin, end, j);
  }
  return choices_grad(a, begin, end, j);
}

__device__ double group_scale(const RankingArguments &a, int64_t group, double tokens) {
  if (a.group_upstream != nullptr) return a.group_upstream[group];
  return a.scale / (a.divisor == 0.0 ? max(tokens, 1.0) : a.divisor);
}

}  // namespace
}  // namespace prefuse

extern "C" __global__ void __launch_bounds__(prefuse::THREADS, 2)
    ranking(prefuse::RankingArguments a) {
  using namespace prefuse;
  RankingShared &shared = block_shared<RankingShared>();
  if (a.error->code != 0) return;
  double tokens = 0.0;
  if (a.divisor == 0.0 && a.group_upstream == nullptr && a.grads != nullptr) {
    tokens = count_all(a.members, a.offsets[a.groups], a.tokens, shared.sum);
  }
  for (int64_t group = blockIdx.x; group < a.groups; group += gridDim.x) {
    const int64_t begin = a.offsets[group], end = a.offsets[group + 1];
    for (int64_t j = begin + threadIdx.x; j < end; j += THREADS) {
      a.values[j] = value_of(a, a.members[j]);
    }
    __syncthreads();
    const double loss = block_sum(group_loss(a, shared, begin, end), shared.sum.warps);
    const double weight = a.weight == nullptr ? 1.0 : a.weight[group];
    if (threadIdx.x == 0) a.losses[group] = product(weight, loss);
    if (a.grads != nullptr) {
      const double scale = group_scale(a, group, tokens);
      for (int64_t j = begin + threadIdx.x; j < end; j += THREADS) {
        const int64_t sequence = a.members[j];
        const double by_value = group_grad(a, shared, begin, end, j);
        const double grad = product(weight, product(by_value, slope_of(a, sequence)));
        a.grads[sequence] += product(scale, grad);
      }
    }
    __syncthreads();
  }
}
