// Lets a host C++ compiler take a .cu file as it is. Included before the file; the standard headers
// come first because they must not see the keywords.
#pragma once

#ifdef __CUDACC__
#error "cuda_host.h is for host compilers"
#endif

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <type_traits>
#include <utility>

#include "keywords.h"
#include "vector_types.h"
#include "runtime_interface.h"
#include "builtins.h"
#include "warp.h"
#include "math.cuh"
#include "half_precision.h"
#include "memory_access.h"
#include "ptx.cuh"
