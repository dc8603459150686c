// Stage 2: sum[s] = sum of weight[t] * logp[t] over the tokens of sequence s, and backwards.
//
// Reads 12 to 20 bytes for each token and writes 24 for each sequence; backwards 12 and 4. Sums are
// f64. A block has a sequence; thread t takes its tokens t, t + 256, ... in order, so the order depends
// on positions within the sequence alone, and padding of ignored tokens changes no bit.
#include "block.cuh"
#include "ptx.cuh"
#include "tokens.cuh"

namespace prefuse {
namespace {

// Twin of `SumsArguments` in src/cuda/sequence_sums.rs.
struct SequenceSumsArguments {
  const void *log_probs;
  Tokens tokens;
  const int64_t *offsets;  // [sequences + 1]
  int64_t sequences;
  double *sums;
  double *counts;
  double *weights;
  const ErrorSlot *error;
};

// Twin of `GradsArguments` in src/cuda/sequence_sums.rs.
struct TokenGradsArguments {
  const double *sequence_grads;
  Tokens tokens;
  const int64_t *offsets;
  int64_t sequences;
  float *grads;
  const ErrorSlot *error;
};

constexpr int THREADS = 256;

template <class T> __device__ __forceinline__ void sequence_sums(const SequenceSumsArguments &a) {
  struct Shared {
    double warps[THREADS / 32];
  };
  Shared &shared = block_shared<Shared>();
  if (a.error->code != 0) return;
  const T *log_probs = static_cast<const T *>(a.log_probs);
  for (int64_t sequence = blockIdx.x; sequence < a.sequences; sequence += gridDim.x) {
    double sum = 0.0, count = 0.0, weights = 0.0;
    const int64_t end = a.offsets[sequence + 1];
    for (int64_t token = a.offsets[sequence] + threadIdx.x; token < end; token += THREADS) {
      const Counted which = counted(a.tokens, token);
      if (which.counts) {
        sum += double(which.weight) * double(log_probs[token]);
        count += 1.0;
        weights += double(which.weight);
      }
    }
    sum = block_sum(sum, shared.warps);
    count = block_sum(count, shared.warps);
    weights = block_sum(weights, shared.warps);
    if (threadIdx.x == 0) {
      a.sums[sequence] = sum;
      a.counts[sequence] = count;
      a.weights[sequence] = weights;
    }
  }
}

// The last sequence that begins at or before the token: empty ones before it begin there too.
__device__ int64_t sequence_of(const int64_t *offsets, int64_t sequences, int64_t token) {
  int64_t low = 0, high = sequences;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    if (offsets[middle] <= token) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

}  // namespace
}  // namespace prefuse

extern "C" __global__ void __launch_bounds__(prefuse::THREADS)
    sequence_sums_f32(prefuse::SequenceSumsArguments a) {
  prefuse::sequence_sums<float>(a);
}

extern "C" __global__ void __launch_bounds__(prefuse::THREADS)
    sequence_sums_f64(prefuse::SequenceSumsArguments a) {
  prefuse::sequence_sums<double>(a);
}

extern "C" __global__ void __launch_bounds__(prefuse::THREADS)
    token_grads_f32(prefuse::TokenGradsArguments a) {
  if (a.error->code != 0) return;
  const int64_t step = int64_t(gridDim.x) * prefuse::THREADS;
  for (int64_t token = int64_t(blockIdx.x) * prefuse::THREADS + threadIdx.x; token < a.tokens.count;
       token += step) {
    const prefuse::Counted which = prefuse::counted(a.tokens, token);
    const int64_t sequence = prefuse::sequence_of(a.offsets, a.sequences, token);
    a.grads[token] = which.counts ? float(double(which.weight) * a.sequence_grads[sequence]) : 0.0f;
  }
}
