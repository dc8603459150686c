// The functions that code compiled with -fsanitize=thread calls.
#if EMULATOR_RACE

#include "race.h"

namespace emulator {
namespace {

void access(void *p, size_t bytes, Access access, const void *pc) {
  if (!current) return;
  Thread &thread = running();
  if (!race_access(thread, p, bytes, access, pc)) stop_at_fault(thread);
  const Settings &settings = thread.cluster->settings();
  if (settings.preemption == 0 || settings.order != Order::kRandom) return;
  if (thread.fiber.on_stack(p) || thread.cluster->random() % settings.preemption != 0) return;
  thread.cluster->ready.push_back(&thread);
  leave(thread);
}

void volatile_access(void *p, size_t bytes, Access kind, const void *pc) {
  access(p, bytes, kind, pc);
  // CUDA's volatile accesses are strong and relaxed, like atomics.
  if (current && !running().fiber.on_stack(p)) race_publish(running(), p);
}

}  // namespace

}  // namespace emulator

using emulator::Access;

#define EMULATOR_HOOKS(bytes)                                                               \
  extern "C" void __tsan_read##bytes(void *p) {                                             \
    emulator::access(p, bytes, Access::kRead, __builtin_return_address(0));                 \
  }                                                                                         \
  extern "C" void __tsan_write##bytes(void *p) {                                            \
    emulator::access(p, bytes, Access::kWrite, __builtin_return_address(0));                \
  }                                                                                         \
  extern "C" void __tsan_unaligned_read##bytes(void *p) {                                   \
    emulator::access(p, bytes, Access::kRead, __builtin_return_address(0));                 \
  }                                                                                         \
  extern "C" void __tsan_unaligned_write##bytes(void *p) {                                  \
    emulator::access(p, bytes, Access::kWrite, __builtin_return_address(0));                \
  }                                                                                         \
  extern "C" void __tsan_volatile_read##bytes(void *p) {                                    \
    emulator::volatile_access(p, bytes, Access::kAtomicRead, __builtin_return_address(0));  \
  }                                                                                         \
  extern "C" void __tsan_volatile_write##bytes(void *p) {                                   \
    emulator::volatile_access(p, bytes, Access::kAtomicWrite, __builtin_return_address(0)); \
  }                                                                                         \
  extern "C" void __tsan_unaligned_volatile_read##bytes(void *p) {                          \
    emulator::volatile_access(p, bytes, Access::kAtomicRead, __builtin_return_address(0));  \
  }                                                                                         \
  extern "C" void __tsan_unaligned_volatile_write##bytes(void *p) {                         \
    emulator::volatile_access(p, bytes, Access::kAtomicWrite, __builtin_return_address(0)); \
  }

EMULATOR_HOOKS(1)
EMULATOR_HOOKS(2)
EMULATOR_HOOKS(4)
EMULATOR_HOOKS(8)
EMULATOR_HOOKS(16)

extern "C" void __tsan_read_range(void *p, size_t bytes) {
  emulator::access(p, bytes, Access::kRead, __builtin_return_address(0));
}
extern "C" void __tsan_write_range(void *p, size_t bytes) {
  emulator::access(p, bytes, Access::kWrite, __builtin_return_address(0));
}
extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void *) {}
extern "C" void __tsan_func_exit() {}
extern "C" void __tsan_vptr_update(void *, void *) {}

#endif
