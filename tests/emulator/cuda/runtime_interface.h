// What kernels, through the CUDA functions of these headers, ask of the runtime.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "vector_types.h"

// Code that is compiled together with the kernels and is no part of them: its accesses are not the
// kernel's. It is opaque to the optimiser too, lest a caller loads an argument on its behalf.
#if !EMULATOR_RACE
#define EMULATOR_UNCHECKED inline
#elif defined(__clang__)
#define EMULATOR_UNCHECKED __attribute__((noinline, disable_sanitizer_instrumentation))
#else
#define EMULATOR_UNCHECKED __attribute__((noipa, no_sanitize("thread")))
#endif

namespace emulator {

// A place in the source. As a default argument it is the caller's.
struct Site {
  const char *file;
  int line;
  static constexpr Site here(const char *file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

// What a CUDA thread can see of itself. The runtime's Thread derives from it.
struct ThreadView {
  uint3 thread_index, block_index;
  dim3 block_dim, grid_dim;
  unsigned lane;
  unsigned cluster_rank, cluster_size;
  unsigned char *shared;  // the block's dynamic shared memory
  size_t shared_bytes;
};

extern __thread ThreadView *current;
#if EMULATOR_RACE
ThreadView *self();  // out of line, so that reading `current` is no access of the kernel
#else
inline ThreadView *self() { return current; }
#endif

enum class Vote : uint8_t { kNone, kAnd, kOr, kCount };
int block_barrier(Vote vote, int predicate, Site site);
void named_barrier(int id, int threads, Site site);
void cluster_barrier(Site site);
void *map_to_rank(void *p, unsigned rank, Site site);
// The body of a loop that waits for another thread.
void yield(Site site);

enum class WarpOp : uint8_t {
  kShuffle,
  kBallot,
  kAny,
  kAll,
  kMatch,
  kSync,
  kReduceAdd,
  kReduceMin,
  kReduceMax,
  kReduceMinSigned,
  kReduceMaxSigned,
  kReduceAnd,
  kReduceOr,
  kReduceXor,
};
uint64_t warp_operation(WarpOp op, unsigned mask, uint64_t value, int source_lane, Site site);

void async_copy(void *to, const void *from, unsigned bytes, unsigned source_bytes, Site site);
void async_copy_commit();
void async_copy_wait(unsigned groups_in_flight);

void mbarrier_init(uint64_t *barrier, unsigned arrivals, Site site);
void mbarrier_arrive(uint64_t *barrier, unsigned expected_bytes, Site site);
bool mbarrier_try_wait(uint64_t *barrier, unsigned parity, Site site);
void bulk_copy(void *to, const void *from, unsigned bytes, uint64_t *barrier, Site site);

void *copy_bytes(void *to, const void *from, size_t bytes);
void *set_bytes(void *to, int value, size_t bytes);
void atomic_access(const void *p, size_t bytes);  // before the access itself
void fence();  // what came before is published by the next atomic
void report_misaligned(const void *p, size_t bytes, Site site);
void report_shared_size(size_t needed, Site site);
[[noreturn]] void trap(Site site);

// ---- entry points: the argument block is cuLaunchKernel's, a pointer to each argument ----

struct Parameter {
  size_t bytes, alignment;
  bool pointer;
  const char *type;
};

struct Kernel {
  const char *name;
  void *function;
  void (*invoke)(void *function, void **arguments);
  const Parameter *parameters;
  size_t parameter_count;
  unsigned max_threads;  // __launch_bounds__
};

template <class T> constexpr const char *type_name() { return __PRETTY_FUNCTION__; }

template <class Function> struct Entry;
template <class... Arguments> struct Entry<void (*)(Arguments...)> {
  static constexpr size_t kCount = sizeof...(Arguments);

  // One more than there are, because an array has at least one element.
  static constexpr Parameter kParameters[] = {
      {sizeof(Arguments), alignof(Arguments), std::is_pointer_v<Arguments>,
       type_name<Arguments>()}...,
      {0, 0, false, nullptr}};

  template <size_t... Index> EMULATOR_UNCHECKED static void call(void *function, void **arguments,
                                                                 std::index_sequence<Index...>) {
    reinterpret_cast<void (*)(Arguments...)>(function)(
        *static_cast<std::remove_cv_t<Arguments> *>(arguments[Index])...);
  }

  static void invoke(void *function, void **arguments) {
    call(function, arguments, std::index_sequence_for<Arguments...>{});
  }
};

struct Registration {
  explicit Registration(const Kernel &kernel);
};

}  // namespace emulator

// The build writes one line for each entry point that it finds.
#define EMULATOR_KERNEL(entry, max_threads)                                                       \
  static const emulator::Registration emulator_registration_##entry(                              \
      {#entry, reinterpret_cast<void *>(&entry), &emulator::Entry<decltype(&entry)>::invoke,      \
       emulator::Entry<decltype(&entry)>::kParameters, emulator::Entry<decltype(&entry)>::kCount, \
       max_threads});
