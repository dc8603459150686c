// What a call has to know of the entries that a sparse teacher lists before anything is written: those of a
// token that counts are entries of the vocabulary, each once, with log-probs of at most 0. The lowest token
// that breaks this goes to the error slot with its first id that is outside, else its first log-prob that is
// above 0, else its first id that is there again.
//
// A block has a row, and marks its ids in a bitmap; then one block looks for the lowest token. 10 to 12 bytes
// for each entry and 4 for each row, next to the vocabulary's worth of bytes that the stage reads for it.
#include "block.cuh"
#include "listed.cuh"
#include "tokens.cuh"

namespace prefuse {
namespace {

constexpr int THREADS = 256;
constexpr int REPORT_THREADS = 1024;

// Twin of `Ids` in src/cuda/sparse_divergence.rs.
struct SparseIdsArguments {
  Tokens tokens;
  const int64_t *ids;     // [tokens, entries], like the next
  const void *log_probs;  // of the type `type`
  int64_t entries;
  int64_t vocab;
  int32_t *first_bad;  // [tokens]: 0, or 1 + the place of a row's first entry that is none
  ErrorSlot *error;
  ErrorSlot *mapped;
  int64_t type;

  __device__ __forceinline__ float log_prob(int64_t at) const {
    return load_one(int(type), log_probs, at);
  }
};

// Places of a row's first entries that are none.
struct Shared {
  int32_t outside, above, twice;
  int32_t unused;
};
static_assert(sizeof(Shared) == 16, "the launcher's size");

// All threads get the place of the row's first id outside of the vocabulary; else of the first log-prob above
// 0; else of the first id that an earlier one equals; else `entries`.
__device__ int first_bad(const SparseIdsArguments &a, int64_t token, Shared &shared,
                         uint32_t *listed) {
  const int64_t *ids = a.ids + token * a.entries;
  const int entries = int(a.entries);
  if (threadIdx.x == 0) shared.outside = shared.above = shared.twice = entries;
  __syncthreads();
  for (int entry = threadIdx.x; entry < entries; entry += blockDim.x) {
    if (ids[entry] < 0 || ids[entry] >= a.vocab) atomicMin(&shared.outside, entry);
    if (a.log_prob(token * a.entries + entry) > 0.0f) atomicMin(&shared.above, entry);
  }
  bool twice = false;
  for (int64_t start = 0; start < a.vocab; start += WINDOW)
    twice |= mark(ids, entries, start, a.vocab, listed);
  twice = __syncthreads_or(twice);
  // Which of two equal ids met the other's bit is chance, so the first is looked for.
  for (int entry = threadIdx.x; twice && entry < entries; entry += blockDim.x) {
    int earlier = 0;
    while (ids[earlier] != ids[entry]) ++earlier;
    if (earlier < entry) atomicMin(&shared.twice, entry);
  }
  __syncthreads();
  const int first = shared.outside < entries ? shared.outside
                    : shared.above < entries ? shared.above
                                             : shared.twice;
  __syncthreads();
  return first;
}

struct ReportShared {
  int64_t lowest[32];
};

}  // namespace
}  // namespace prefuse

// A block a row.
extern "C" __global__ void __launch_bounds__(prefuse::THREADS)
    check_sparse_ids(const __grid_constant__ prefuse::SparseIdsArguments a) {
  prefuse::Shared &shared = prefuse::block_shared<prefuse::Shared>();
  uint32_t *listed = reinterpret_cast<uint32_t *>(&shared + 1);
  if (a.error->code != 0) return;
  for (int64_t token = blockIdx.x; token < a.tokens.count; token += gridDim.x) {
    int first = int(a.entries);
    if (prefuse::counted(a.tokens, token).counts) {
      first = prefuse::first_bad(a, token, shared, listed);
    }
    if (threadIdx.x == 0) a.first_bad[token] = first == a.entries ? 0 : 1 + first;
  }
}

// One block: the slot has to be there before the next kernel writes.
extern "C" __global__ void __launch_bounds__(prefuse::REPORT_THREADS)
    report_sparse_ids(const __grid_constant__ prefuse::SparseIdsArguments a) {
  prefuse::ReportShared &shared = prefuse::block_shared<prefuse::ReportShared>();
  if (a.error->code != 0) return;
  int64_t lowest = a.tokens.count;
  for (int64_t token = threadIdx.x; token < lowest; token += prefuse::REPORT_THREADS) {
    if (a.first_bad[token] != 0) lowest = token;
  }
  lowest = prefuse::block_lowest(lowest, shared.lowest);
  if (threadIdx.x != 0 || lowest == a.tokens.count) return;
  const int64_t place = lowest * a.entries + a.first_bad[lowest] - 1;
  const int64_t id = a.ids[place];
  const float log_prob = a.log_prob(place);
  prefuse::ErrorSlot slot = {prefuse::SPARSE_ID_TWICE, lowest, id, a.vocab, 0};
  if (id < 0 || id >= a.vocab) {
    slot.code = prefuse::SPARSE_ID_OUTSIDE;
  } else if (log_prob > 0.0f) {
    slot.code = prefuse::SPARSE_LOG_PROB_ABOVE;
    slot.value = int64_t(__float_as_uint(log_prob));
  }
  prefuse::raise(slot, a.error, a.mapped);
}
