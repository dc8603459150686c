#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "sanitizer.h"

// Callee-saved registers go on the stack, and the stacks are exchanged.
extern "C" void emulator_switch_stack(void **save_stack_pointer, void *to_stack_pointer);

#if defined(__x86_64__)
__asm__(R"(
.text
.globl emulator_switch_stack
.type emulator_switch_stack,@function
emulator_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulator_switch_stack, .-emulator_switch_stack
)");
constexpr int kSavedRegisters = 6;
#else
#error "the emulator's switch of stacks is written for x86-64"
#endif

namespace emulator {

void Fiber::prepare(char *memory, size_t bytes, unsigned index, void (*entry)()) {
  stack = memory;
  stack_bytes = bytes;
  fake_stack = nullptr;
  unpoison(memory, bytes);
  const size_t top = bytes - (index % 64) * 64 - 64;
  void **slot = reinterpret_cast<void **>(memory + (top & ~size_t(15)));
  // A function starts with its return address on a stack that was aligned before the call.
  *--slot = nullptr;
  *--slot = reinterpret_cast<void *>(entry);
  for (int i = 0; i < kSavedRegisters; ++i) *--slot = nullptr;
  stack_pointer = slot;
}

bool Fiber::on_stack(const void *p) const { return uintptr_t(p) - uintptr_t(stack) < stack_bytes; }

void switch_fiber(Fiber &from, Fiber &to, bool ends) {
  start_switch(ends ? nullptr : &from.fake_stack, to.stack, to.stack_bytes);
  emulator_switch_stack(&from.stack_pointer, to.stack_pointer);
  finish_switch(from.fake_stack, nullptr, nullptr);
}

void fiber_started(Fiber &starter) { finish_switch(nullptr, &starter.stack, &starter.stack_bytes); }

FiberStacks::~FiberStacks() {
  if (!memory_) return;
  // What frames poisoned outlives the mapping, and the next one there may be AddressSanitizer's
  // own: the text of a report, which then looks like a mistake to whoever reads it.
  unpoison(memory_, count_ * bytes_each());
  munmap(memory_, count_ * bytes_each());
}

size_t FiberStacks::bytes_each() {
  // Instrumented frames are larger.
  return (EMULATOR_RACE || EMULATOR_ASAN ? 256 : 64) * 1024;
}

void FiberStacks::allocate(size_t count) {
  count_ = count;
  void *memory = mmap(nullptr, count * bytes_each(), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    perror("memory for the stacks of a cluster's threads");
    abort();
  }
  memory_ = static_cast<char *>(memory);
}

}  // namespace emulator
