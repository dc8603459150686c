// Accesses to memory that is not there. They end the launch, as on a GPU, and not the program.
#include <signal.h>
#include <ucontext.h>

#include <mutex>

#include "source.h"
#include "state.h"

namespace emulator {
namespace {

constexpr size_t kSignalStackBytes = 64 * 1024;
constexpr int kSignals[] = {SIGSEGV, SIGBUS};
struct sigaction previous[2];

// Starts over on the thread's stack, which may have overflowed.
void land() { stop_at_fault(running()); }

void handle(int signal, siginfo_t *info, void *raw_context) {
  if (!current) {
    // Not a kernel's. Back with the handler from before, the access is made again.
    for (int i = 0; i < 2; ++i) sigaction(kSignals[i], &previous[i], nullptr);
    return;
  }
  Thread &thread = running();
  auto &registers = static_cast<ucontext_t *>(raw_context)->uc_mcontext.gregs;
  thread.fault.address = uintptr_t(info->si_addr);
  thread.fault.pc = uintptr_t(registers[REG_RIP]);
  thread.fault.signal = signal;
  const uintptr_t top =
      (uintptr_t(thread.fiber.stack) + thread.fiber.stack_bytes - 1024) & ~uintptr_t(15);
  registers[REG_RSP] = greg_t(top - 8);
  registers[REG_RIP] = greg_t(uintptr_t(&land));
}

}  // namespace

void catch_faults() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action = {};
    action.sa_sigaction = handle;
    // The signal is not blocked afterwards, because the handler is left for another context.
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    for (int i = 0; i < 2; ++i) sigaction(kSignals[i], &action, &previous[i]);
  });
}

SignalStack::SignalStack() : memory_(new char[kSignalStackBytes]) {
  stack_t stack = {};
  stack.ss_sp = memory_.get();
  stack.ss_size = kSignalStackBytes;
  sigaltstack(&stack, nullptr);
}

SignalStack::~SignalStack() {
  stack_t stack = {};
  stack.ss_flags = SS_DISABLE;
  sigaltstack(&stack, nullptr);
}

void stop_at_fault(Thread &thread) {
  Cluster &cluster = *thread.cluster;
  if (thread.fault.signal) {
    // The instruction itself, where source_of wants what comes after a call.
    const Source source = source_of(relative_pc(reinterpret_cast<void *>(thread.fault.pc)) + 1);
    cluster.reports().add("illegal address", source.site(), "%#zx by thread %u of block %u%s",
                          size_t(thread.fault.address), thread.index, thread.block_index.x,
                          source.within.c_str());
  }
  cluster.launch->stopped = true;
  switch_fiber(thread.fiber, cluster.scheduler, true);
  __builtin_unreachable();
}

}  // namespace emulator
