// What a call has to know of its tokens before anything is written: every label that is not ignored is
// an entry of the vocabulary, every weight a finite number. The lowest token that breaks this goes to
// the error slot, on the device for the kernels and in mapped host memory for whoever polls.
//
// One block, because the slot has to be there before the next kernel writes; 8 to 12 bytes for each
// token, next to the vocabulary's worth of bytes that stage 1 reads for it.
#include "block.cuh"
#include "ptx.cuh"
#include "tokens.cuh"

namespace prefuse {
namespace {

// Twin of `Arguments` in src/cuda/tokens.rs.
struct CheckTokensArguments {
  Tokens tokens;
  int64_t vocab;
  ErrorSlot *error;
  ErrorSlot *mapped;
};

constexpr int THREADS = 1024;

__device__ __forceinline__ bool label_is_bad(const CheckTokensArguments &a, int64_t label) {
  return label != a.tokens.ignore && (label < 0 || label >= a.vocab);
}

__device__ __forceinline__ bool weight_is_bad(const CheckTokensArguments &a, int64_t token) {
  return a.tokens.weights != nullptr && !isfinite(a.tokens.weights[token]);
}

__device__ void report(const CheckTokensArguments &a, int64_t token) {
  const int64_t label = a.tokens.labels[token];
  ErrorSlot slot = {WEIGHT_NOT_FINITE, token, 0, a.vocab, a.tokens.ignore};
  if (label_is_bad(a, label)) {
    slot.code = LABEL_OUTSIDE;
    slot.value = label;
  } else {
    slot.value = int64_t(__float_as_uint(a.tokens.weights[token]));
  }
  raise(slot, a.error, a.mapped);
}

}  // namespace
}  // namespace prefuse

extern "C" __global__ void __launch_bounds__(prefuse::THREADS)
    check_tokens(prefuse::CheckTokensArguments a) {
  struct Shared {
    int64_t lowest[32];
  };
  Shared &shared = prefuse::block_shared<Shared>();
  if (a.error->code != 0) return;
  int64_t lowest = a.tokens.count;
  for (int64_t token = threadIdx.x; token < lowest; token += prefuse::THREADS) {
    if (prefuse::label_is_bad(a, a.tokens.labels[token]) || prefuse::weight_is_bad(a, token)) {
      lowest = token;
    }
  }
  lowest = prefuse::block_lowest(lowest, shared.lowest);
  if (threadIdx.x == 0 && lowest < a.tokens.count) prefuse::report(a, lowest);
}
