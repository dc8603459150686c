// AddressSanitizer's interface, and nothing in builds without it.
#pragma once

#include <cstddef>

#if EMULATOR_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace emulator {

#if EMULATOR_ASAN
void watch_sanitizers();
#else
inline void watch_sanitizers() {}
#endif

inline void poison([[maybe_unused]] const void *p, [[maybe_unused]] size_t bytes) {
#if EMULATOR_ASAN
  __asan_poison_memory_region(p, bytes);
#endif
}

inline void unpoison([[maybe_unused]] const void *p, [[maybe_unused]] size_t bytes) {
#if EMULATOR_ASAN
  __asan_unpoison_memory_region(p, bytes);
#endif
}

inline void start_switch([[maybe_unused]] void **fake_stack, [[maybe_unused]] const void *stack,
                         [[maybe_unused]] size_t bytes) {
#if EMULATOR_ASAN
  __sanitizer_start_switch_fiber(fake_stack, stack, bytes);
#endif
}

inline void finish_switch([[maybe_unused]] void *fake_stack, [[maybe_unused]] const void **stack,
                          [[maybe_unused]] size_t *bytes) {
#if EMULATOR_ASAN
  __sanitizer_finish_switch_fiber(fake_stack, stack, bytes);
#endif
}

}  // namespace emulator
