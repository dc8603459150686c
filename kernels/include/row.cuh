// What stage 1 is asked for, and what becomes of a row once its states are known.
#pragma once

#include "softmax.cuh"
#include "tokens.cuh"

namespace prefuse {

// Twin of `Arguments` in src/cuda/log_probs.rs.
struct LogProbsArguments {
  const void *logits;
  int64_t stride;
  int64_t vocab;
  Tokens tokens;
  double inverse_temperature;
  float scale;  // log2(e) / T
  int32_t segments;
  float *log_probs;
  float *maximum;
  float *log_sum;
  float *entropy;  // null where it was not asked for, like the two after it
  float *log_sum_squares;
  int64_t *argmax;
  RowState *states;  // [tokens, segments], for `part` and `merge`
  const ErrorSlot *error;
};

// What stage 4 needs of a row.
struct RowResults {
  float log_prob;
  float maximum;
  float log_sum;
  float entropy;
};

template <class E>
__device__ const typename E::Bits *row_of(const LogProbsArguments &a, int64_t token) {
  return static_cast<const typename E::Bits *>(a.logits) + token * a.stride;
}

__device__ inline void store_results(const LogProbsArguments &a, int64_t token, float log_prob,
                                     float maximum, float log_sum, float entropy,
                                     float log_sum_squares, int64_t argmax) {
  a.log_probs[token] = log_prob;
  a.maximum[token] = maximum;
  a.log_sum[token] = log_sum;
  if (a.entropy != nullptr) a.entropy[token] = entropy;
  if (a.log_sum_squares != nullptr) a.log_sum_squares[token] = log_sum_squares;
  if (a.argmax != nullptr) a.argmax[token] = argmax;
}

__device__ inline void store_not_counted(const LogProbsArguments &a, int64_t token) {
  store_results(a, token, 0.0f, not_a_number(), not_a_number(), 0.0f, 0.0f, -1);
}

// By one warp, once all states of the row are there; the results are lane 0's.
template <class E, bool MOMENTS>
__device__ RowResults finish_row(const LogProbsArguments &a, int64_t token, int64_t label,
                                 const RowState *states, int lane) {
  const typename E::Bits *row = row_of<E>(a, token);
  int peak;
  const RowState state = merge_states<MOMENTS>(states, a.segments, a.scale, lane, peak);
  int64_t argmax = -1;
  if (a.argmax != nullptr) {
    Segment<E> segment;
    segment.load(row, a.vocab, int64_t(peak) * SEGMENT, lane);
    argmax = segment.find(state.maximum, int64_t(peak) * SEGMENT, a.vocab, lane);
  }
  if (lane != 0) return {};
  // A row of -inf has no distribution.
  const float log_sum =
      state.maximum == negative_infinity() ? not_a_number() : log1pf(state.excess);
  // A bad label is in the error slot, and this is not reached; but should a thread of the host take the
  // error meanwhile, nothing outside of the row may be read.
  const bool inside = label >= 0 && label < a.vocab;
  const float logit = inside ? E::load(row[label]) : not_a_number();
  const double difference = double(logit) - double(state.maximum);
  const float log_prob = float(difference * a.inverse_temperature - double(log_sum));
  const float entropy = MOMENTS ? log_sum - LN_2 * (state.weighted / (1.0f + state.excess)) : 0.0f;
  const float log_sum_squares = MOMENTS ? log1pf(state.squares) - 2.0f * log_sum : 0.0f;
  store_results(a, token, log_prob, state.maximum, log_sum, entropy, log_sum_squares, argmax);
  return {log_prob, state.maximum, log_sum, entropy};
}

}  // namespace prefuse
