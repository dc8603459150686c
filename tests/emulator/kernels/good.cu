// Correct kernels: they pass in silence in every mode and schedule, with the right values.
#include "ptx.cuh"

namespace prefuse {
namespace {

constexpr unsigned kAll = 0xffffffffu;
constexpr int kBlock = 256;

struct Tiles {
  float word[1024];
  int flag[64];
  alignas(16) float tile[2][256];
};

}  // namespace

// 12 results for each thread of one warp and a half.
extern "C" __global__ void good_warp(int *out) {
  const int thread = threadIdx.x, lane = thread & 31;
  const unsigned mask = thread < 32 ? kAll : 0xffffu;
  int *o = out + thread * 12;
  o[0] = __shfl_sync(mask, thread, 3);
  o[1] = __shfl_sync(mask, thread, 5, 8);
  o[2] = __shfl_up_sync(mask, thread, 2, 16);
  o[3] = __shfl_down_sync(mask, thread, 3, 16);
  o[4] = __shfl_xor_sync(mask, thread, 5, 8);
  o[5] = int(__ballot_sync(mask, lane % 3 == 0));
  o[6] = __any_sync(mask, lane == 9) * 2 + __all_sync(mask, lane < 32);
  o[7] = __reduce_add_sync(mask, thread);
  o[8] = __reduce_max_sync(mask, -thread);
  o[9] = int(__match_any_sync(mask, lane % 4));
  const long long wide = __shfl_xor_sync(mask, (1ll << 40) | lane, 1);
  const double real = __shfl_xor_sync(mask, 1e300 * lane, 1);
  o[10] = wide >> 40 == 1 && real == 1e300 * (lane ^ 1) ? int(wide & 0xff) : -1;
  o[11] = __syncthreads_count(lane == 1) * 4 + __syncthreads_or(thread == 40) * 2 +
          __syncthreads_and(thread >= 0);
}

// Two halves of a warp on different paths, with masks of their own.
extern "C" __global__ void good_halves(int *out) {
  const int lane = threadIdx.x;
  int value = lane;
  if (lane < 16) {
    for (int step = 8; step; step >>= 1) value += __shfl_xor_sync(0x0000ffffu, value, step);
  } else {
    for (int step = 8; step; step >>= 1)
      value = max(value, __shfl_xor_sync(0xffff0000u, value, step));
  }
  out[lane] = value;
}

extern "C" __global__ void good_segment_sum(const float *x, const int *segment, float *out, int n) {
  const int step = gridDim.x * blockDim.x;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step)
    atomicAdd(&out[segment[i]], x[i]);
}

// Every thread of the grid on the same words.
extern "C" __global__ void good_atomics(int *words, unsigned long long *wide) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  atomicAdd(&words[0], 1);
  atomicMin(&words[1], -i);
  atomicMax(&words[2], i);
  atomicCAS(&words[3], 0, 7);
  atomicAdd(&wide[0], 1ull << 32);
  atomicMin(&wide[1], (unsigned long long)i);
  atomicMax(&wide[2], 1ull << 40 | i);
  unsigned long long seen = static_cast<volatile unsigned long long *>(wide)[3], expected;
  do {
    expected = seen;
    seen = atomicCAS(&wide[3], expected, expected + 3);
  } while (seen != expected);
}

// Warp 0 produces for warps 1 and 2 alone; warp 3 never joins.
extern "C" __global__ void good_named_barrier(float *out) {
  Tiles &shared = block_shared<Tiles>();
  const int thread = threadIdx.x;
  if (thread < 32)
    for (int i = thread; i < 64; i += 32) shared.word[i] = 2.0f * i;
  if (thread < 96) named_barrier(1, 96);
  if (thread >= 32 && thread < 96) out[thread - 32] = shared.word[thread - 32];
}

// Waits for a flag in device memory that an earlier block has set, by volatile reads.
extern "C" __global__ void good_volatile_flag(int *value, volatile int *flag, int *out) {
  if (threadIdx.x != 0) return;
  if (blockIdx.x == 0) {
    *value = 42;
    __threadfence();
    *flag = 1;
  } else {
    while (*flag == 0) __nanosleep(20);
    __threadfence();
    out[blockIdx.x - 1] = *value;
  }
}

// A word of each block's shared memory from each block of its cluster.
extern "C" __global__ void __launch_bounds__(kBlock) good_cluster(float *out) {
  Tiles &shared = block_shared<Tiles>();
  if (threadIdx.x < 16) shared.word[threadIdx.x] = 100.0f * cluster_rank() + threadIdx.x;
  cluster_sync();
  const unsigned other = (cluster_rank() + 1) % cluster_size();
  if (threadIdx.x < 16)
    out[blockIdx.x * 16 + threadIdx.x] = cluster_map(shared.word, other)[threadIdx.x];
  cluster_sync();
}

// Bit intrinsics of two words, in the order of the test.
extern "C" __global__ void good_bits(const unsigned *in, unsigned *out) {
  const unsigned a = in[0], b = in[1];
  out[0] = __funnelshift_r(a, b, 8);
  out[1] = __funnelshift_l(a, b, 40);
  out[2] = __byte_perm(a, b, 0x5410);
  out[3] = __byte_perm(a, b, 0x80f3);
  out[4] = __popc(a);
  out[5] = __ffs(int(a)) * 100 + __ffs(0);
  out[6] = __clz(int(b)) * 100 + __clz(0);
  out[7] = __ffsll(1ll << 40) * 100 + __clzll(1);
  out[8] = __float_as_uint(__uint_as_float(a));
  out[9] = __brev(a);
  out[10] = __umulhi(a, b);
  out[11] = __ldg(&in[1]);
}

// fmaxf and fminf of all pairs, then log1pf, expm1f and their f64 relatives, and fmaf.
extern "C" __global__ void good_math(const float *x, int n, float *out, double *wide) {
  for (int i = threadIdx.x; i < n * n; i += blockDim.x) {
    out[2 * i] = fmaxf(x[i / n], x[i % n]);
    out[2 * i + 1] = fminf(x[i / n], x[i % n]);
  }
  if (threadIdx.x != 0) return;
  float *o = out + 2 * n * n;
  o[0] = log1pf(0.25f);
  o[1] = expm1f(0.25f);
  o[2] = fmaf(3.0f, 0x1p-24f, 1.0f);
  o[3] = ex2(0.5f);
  wide[0] = exp(0.25);
  wide[1] = log1p(0.25);
  wide[2] = expm1(0.25);
}

}  // namespace prefuse
