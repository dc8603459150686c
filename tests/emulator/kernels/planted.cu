// Kernels with a mistake each, which must be noticed. One without any comes first in each family,
// so that it is the mistake that is noticed.
#include "ptx.cuh"

namespace prefuse {
namespace {

constexpr unsigned kAll = 0xffffffffu;
constexpr int kBlock = 128;

enum class Bug {
  kNone,
  kNoBarrier,
  kWrongMask,
  kNoFence,
  kNoWait,
  kEarlyRefill,
  kNoBarrierBefore,
  kNoBarrierAfter,
  kUninitialised,
};

struct Shared {
  float word[kBlock];
  float total;
  int last;
  float peer[16];
  alignas(128) float tile[2][256];
  alignas(8) uint64_t full[2];
};

// out[block] = sum of the block's threads' values.
template <Bug kBug> __device__ void sum_block(const float *x, float *out) {
  Shared &shared = block_shared<Shared>();
  const int thread = threadIdx.x, lane = thread & 31, warp = thread >> 5;
  const unsigned mask = kBug == Bug::kWrongMask ? 0x0000ffffu : kAll;
  float value = x[blockIdx.x * kBlock + thread];
  for (int step = 16; step; step >>= 1) value += __shfl_xor_sync(mask, value, step);
  if (lane == 0 && kBug != Bug::kUninitialised) shared.word[warp] = value;
  if (kBug != Bug::kNoBarrier) __syncthreads();
  if (thread == 0) {
    float total = 0.0f;
    for (int i = 0; i < kBlock / 32; ++i) total += shared.word[i];
    out[blockIdx.x] = total;
  }
}

// The last block to finish adds up what all have written.
template <Bug kBug> __device__ void sum_in_last_block(float *parts, int *count, float *out) {
  Shared &shared = block_shared<Shared>();
  const int thread = threadIdx.x, blocks = gridDim.x;
  if (thread < 2) parts[blockIdx.x * 2 + thread] = blockIdx.x + 1.0f;
  if (kBug != Bug::kNoFence) __threadfence();
  if (kBug != Bug::kNoBarrier) __syncthreads();
  if (thread == 0) shared.last = atomicAdd(count, 1) == blocks - 1;
  __syncthreads();
  if (shared.last && thread == 0) {
    float total = 0.0f;
    for (int i = 0; i < 2 * blocks; ++i) total += parts[i];
    out[0] = total;
  }
}

// Tiles of 256 floats through two stages of cp.async; out[t] is a sum over the tiles.
template <Bug kBug> __device__ void sum_async(const float *x, float *out, int n) {
  Shared &shared = block_shared<Shared>();
  const int thread = threadIdx.x, tiles = n / 256;
  auto issue = [&](int tile) {
    if (tile < tiles && thread < 64)
      cp_async16(&shared.tile[tile & 1][thread * 4], x + tile * 256 + thread * 4);
    cp_async_commit();
  };
  float total = 0.0f;
  issue(0);
  for (int tile = 0; tile < tiles; ++tile) {
    issue(tile + 1);
    if (kBug != Bug::kNoWait) cp_async_wait<1>();
    __syncthreads();
    total += shared.tile[tile & 1][2 * thread] + shared.tile[tile & 1][255 - 2 * thread];
    __syncthreads();
  }
  out[thread] = total;
}

// The same by bulk copies; the blocks of a cluster share the tiles and the sum.
template <Bug kBug> __device__ void sum_bulk(const float *x, float *out, int n) {
  Shared &shared = block_shared<Shared>();
  const int thread = threadIdx.x, tiles = n / 256;
  const int rank = cluster_rank(), blocks = cluster_size();
  if (thread == 0) {
    for (int stage = 0; stage < 2; ++stage) mbarrier_init(&shared.full[stage], 1);
    mbarrier_init_fence();
  }
  __syncthreads();
  auto issue = [&](int round) {
    const int tile = rank + round * blocks, stage = round & 1;
    if (tile >= tiles) return;
    mbarrier_arrive_expect(&shared.full[stage], 1024);
    bulk_copy_to_shared(shared.tile[stage], x + tile * 256, 1024, &shared.full[stage]);
  };
  if (thread == 0) {
    issue(0);
    issue(1);
  }
  float value = 0.0f;
  for (int round = 0; rank + round * blocks < tiles; ++round) {
    const int stage = round & 1;
    if (kBug != Bug::kNoWait) mbarrier_wait(&shared.full[stage], (round >> 1) & 1);
    value += shared.tile[stage][thread] + shared.tile[stage][thread + 128];
    if (kBug != Bug::kEarlyRefill) __syncthreads();
    if (thread == 0) issue(round + 2);
  }
  for (int step = 16; step; step >>= 1) value += __shfl_xor_sync(kAll, value, step);
  if ((thread & 31) == 0) shared.word[thread >> 5] = value;
  __syncthreads();
  if (kBug != Bug::kNoBarrierBefore) cluster_sync();
  if (thread == 0) {
    for (int i = 1; i < kBlock / 32; ++i) value += shared.word[i];
    *cluster_map(&shared.peer[rank], 0) = value;
  }
  if (kBug != Bug::kNoBarrierAfter) cluster_sync();
  if (rank == 0 && thread == 0) {
    float total = 0.0f;
    for (int i = 0; i < blocks; ++i) total += shared.peer[i];
    out[blockIdx.x / blocks] = total;
  }
}

}  // namespace

#define SUM(name, bug)                                                                    \
  extern "C" __global__ void __launch_bounds__(kBlock) name(const float *x, float *out) { \
    sum_block<Bug::bug>(x, out);                                                          \
  }
SUM(sum, kNone)
SUM(sum_no_barrier, kNoBarrier)
SUM(sum_wrong_mask, kWrongMask)
SUM(sum_uninitialised, kUninitialised)

#define LAST_BLOCK(name, bug)                                             \
  extern "C" __global__ void name(float *parts, int *count, float *out) { \
    sum_in_last_block<Bug::bug>(parts, count, out);                       \
  }
LAST_BLOCK(last_block, kNone)
LAST_BLOCK(last_block_no_fence, kNoFence)
LAST_BLOCK(last_block_no_barrier, kNoBarrier)

#define ASYNC(name, body, bug) \
  extern "C" __global__ void name(const float *x, float *out, int n) { body<Bug::bug>(x, out, n); }
ASYNC(async_sum, sum_async, kNone)
ASYNC(async_sum_no_wait, sum_async, kNoWait)
ASYNC(bulk_sum, sum_bulk, kNone)
ASYNC(bulk_sum_no_wait, sum_bulk, kNoWait)
ASYNC(bulk_sum_early_refill, sum_bulk, kEarlyRefill)
ASYNC(bulk_sum_no_barrier_before, sum_bulk, kNoBarrierBefore)
ASYNC(bulk_sum_no_barrier_after, sum_bulk, kNoBarrierAfter)

// Vectors of 4 over a row, also where the last one is not whole.
extern "C" __global__ void copy_past_end(const float *x, float *out, int n) {
  for (int i = 4 * threadIdx.x; i < n; i += 4 * blockDim.x) st16(out + i, ld16(x + i));
}

extern "C" __global__ void read_past_end(const float *x, float *out, int n) {
  float total = 0.0f;
  for (int i = 4 * threadIdx.x; i < n; i += 4 * blockDim.x) total += __uint_as_float(ld16(x + i).x);
  out[threadIdx.x] = total;
}

extern "C" __global__ void misaligned(const float *x, float *out) {
  out[threadIdx.x] = __uint_as_float(ld16(x + 4 * threadIdx.x + 1).x);
}

extern "C" __global__ void exchange(float *out) {
  Shared &shared = block_shared<Shared>();
  shared.word[threadIdx.x] = threadIdx.x;
  __syncwarp();
  out[threadIdx.x] = shared.word[threadIdx.x ^ 1];
}

extern "C" __global__ void exchange_no_sync_warp(float *out) {
  Shared &shared = block_shared<Shared>();
  shared.word[threadIdx.x] = threadIdx.x;
  out[threadIdx.x] = shared.word[threadIdx.x ^ 1];
}

// Sixteen floats at once, which is more than a register.
extern "C" __global__ void copy_no_barrier(const float *x, float *out) {
  Shared &shared = block_shared<Shared>();
  if (threadIdx.x == 0) memcpy(shared.word, x, 64);
  out[threadIdx.x] = shared.word[threadIdx.x];
}

// The second write comes before all have read the first.
extern "C" __global__ void write_after_read(float *out) {
  Shared &shared = block_shared<Shared>();
  float total = 0.0f;
  for (int i = 1; i <= 2; ++i) {
    if (threadIdx.x == 0) shared.total = i;
    __syncthreads();
    total += shared.total;
  }
  out[threadIdx.x] = total;
}

extern "C" __global__ void lost_update(float *out) {
  Shared &shared = block_shared<Shared>();
  if (threadIdx.x == 0) shared.total = 0.0f;
  __syncthreads();
  shared.total += 1.0f;
  __syncthreads();
  if (threadIdx.x == 0) out[0] = shared.total;
}

extern "C" __global__ void two_blocks_on_one_word(float *out) {
  if (threadIdx.x == 0) out[blockIdx.x / 2] += 1.0f;
}

extern "C" __global__ void divergent_barrier(float *out) {
  if (threadIdx.x < 64) {
    out[threadIdx.x] = 1.0f;
    __syncthreads();
  } else {
    __syncthreads();
  }
}

extern "C" __global__ void deadlock(float *out) {
  if (threadIdx.x == 5) {
    __syncwarp();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = 1.0f;
}

extern "C" __global__ void livelock(float *out) {
  while (__ldcv(out) != 0.0f) __nanosleep(20);
}

extern "C" __global__ void mixed_masks(float *out) {
  const int lane = threadIdx.x;
  const float x = lane;
  out[lane] = lane < 16 ? __shfl_xor_sync(kAll, x, 1) : __shfl_xor_sync(0xffff0000u, x, 1);
}

extern "C" __global__ void traps(float *out) {
  if (threadIdx.x == 3) __trap();
  out[threadIdx.x] = 1.0f;
}

// Follows an address that is no argument, so that only the access itself can tell.
extern "C" __global__ void indirect(const unsigned long long *address, float *out) {
  if (threadIdx.x == 0) out[0] = *reinterpret_cast<const float *>(address[0]);
}

// Indexes far out of any buffer.
extern "C" __global__ void far_away(float *out) { out[threadIdx.x + (1ll << 44)] = 1.0f; }

// The launch says how many words there are in shared memory.
extern "C" __global__ void dynamic_words(float *out, int words) {
  float *word = &block_shared<float>();
  for (int i = threadIdx.x; i < words; i += blockDim.x) word[i] = i;
  __syncthreads();
  if (threadIdx.x == 0) out[0] = word[words - 1];
}

}  // namespace prefuse
