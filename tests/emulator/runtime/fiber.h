// Contexts that take turns on one thread of the host.
#pragma once

#include <cstddef>

namespace emulator {

struct Fiber {
  void *stack_pointer = nullptr;
  const void *stack = nullptr;  // lowest address
  size_t stack_bytes = 0;
  void *fake_stack = nullptr;  // AddressSanitizer's

  // The first switch to the fiber calls `entry`, which never returns. `index` staggers the stacks,
  // lest all begin in the same cache set.
  void prepare(char *memory, size_t bytes, unsigned index, void (*entry)());
  bool on_stack(const void *p) const;
};

// Saves the caller in `from` and goes on with `to`; `ends`: `from` will not run again.
void switch_fiber(Fiber &from, Fiber &to, bool ends);

// The first thing that a new fiber does; `starter` is who has switched to it.
void fiber_started(Fiber &starter);

// Memory for as many stacks; pages that are not touched cost nothing.
class FiberStacks {
 public:
  FiberStacks() = default;
  FiberStacks(const FiberStacks &) = delete;
  FiberStacks &operator=(const FiberStacks &) = delete;
  ~FiberStacks();

  static size_t bytes_each();
  void allocate(size_t count);
  char *operator[](size_t index) const { return memory_ + index * bytes_each(); }

 private:
  char *memory_ = nullptr;
  size_t count_ = 0;
};

}  // namespace emulator
