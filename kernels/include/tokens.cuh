// Which tokens count, and the error slot that every kernel of a backend looks at first.
#pragma once

#include <stdint.h>

namespace prefuse {

// Twin of `Record` in src/cuda/context.rs. `code` is 0 where all is well. Once it is not, no kernel of
// the same backend writes anything until the host has taken the error: a failed call leaves the
// caller's buffers as they were, and what was enqueued after it does not compute with garbage.
struct ErrorSlot {
  int64_t code;
  int64_t token;
  int64_t value;
  int64_t vocab;
  int64_t ignore;
};

constexpr int64_t LABEL_OUTSIDE = 1;
constexpr int64_t WEIGHT_NOT_FINITE = 2;
constexpr int64_t SPARSE_ID_OUTSIDE = 3;
constexpr int64_t SPARSE_ID_TWICE = 4;
constexpr int64_t SPARSE_LOG_PROB_ABOVE = 5;

// By one thread.
__device__ __forceinline__ void raise(const ErrorSlot &slot, ErrorSlot *error, ErrorSlot *mapped) {
  *error = slot;
  // The host looks at the code while this runs, and at the rest when it has ended.
  *mapped = slot;
}

// Twin of `Tokens` in src/cuda/tokens.rs; `weights` may be null.
struct Tokens {
  const int64_t *labels;
  const float *weights;
  int64_t count;
  int64_t ignore;
};

// The factor of a token's log-prob, and whether it counts at all: not ignored, and weight not 0.
struct Counted {
  int64_t label;
  float weight;
  bool counts;
};

__device__ __forceinline__ Counted counted(const Tokens &tokens, int64_t token) {
  const int64_t label = tokens.labels[token];
  const float weight = tokens.weights == nullptr ? 1.0f : tokens.weights[token];
  return {label, weight, label != tokens.ignore && weight != 0.0f};
}

}  // namespace prefuse
