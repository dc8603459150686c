// The keywords that CUDA adds to C++.
#pragma once

// The build looks for entry points in the preprocessed text, where __global__ must survive.
#ifndef EMULATOR_SCAN
#define __global__
#define __launch_bounds__(...)
#endif

#define __device__
#define __host__
#define __constant__ static const
#define __grid_constant__
#ifndef __clang__
#define __builtin_assume(condition) static_cast<void>(0)
#endif
#define __cluster_dims__(...)
#define __noinline__ __attribute__((noinline))
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(bytes) __attribute__((aligned(bytes)))
// One block's shared memory is bounds-checked, poisoned and reachable from its cluster, which a
// variable of the host program could not be.
#define __shared__ _Pragma("GCC error \"shared memory is had through block_shared<T>()\"")
