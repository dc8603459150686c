// What AddressSanitizer and UndefinedBehaviorSanitizer find becomes a report too.
#if EMULATOR_ASAN

#include <fcntl.h>

#include <cstdlib>
#include <mutex>

#include "sanitizer.h"
#include "state.h"

// Found by the sanitizers' runtime by their names.
extern "C" const char *__asan_default_options() {
  // Stopping at the first error would stop the tests. Faults are ours (faults.cpp), and dropped
  // stacks would look like leaks.
  return "halt_on_error=0:suppress_equal_pcs=0:detect_leaks=0:handle_segv=0:handle_sigbus=0:"
         "detect_stack_use_after_return=0";
}
extern "C" void __ubsan_on_report();
extern "C" void __ubsan_get_current_report_data(const char **kind, const char **message,
                                                const char **file, unsigned *line, unsigned *column,
                                                char **address);

namespace emulator {
namespace {

// "... ERROR: AddressSanitizer: heap-buffer-overflow on address ..." and frames like
// "    #1 0x55 in function /folder/file.cu:12".
void report_asan(const char *text) {
  const char *error = strstr(text, "AddressSanitizer: ");
  if (!current || !error) {
    // Not a kernel's: somebody else's memory is broken, and nothing that follows means anything.
    fputs(text, stderr);
    abort();
  }
  const std::string rest = error + strlen("AddressSanitizer: ");
  const std::string kind = rest.substr(0, rest.find(' '));
  std::string file;
  int line = 0;
  const char *frame = strstr(text, "\n    #0 ");
  for (; frame && line == 0; frame = strstr(frame + 1, "\n    #")) {
    const std::string one(frame + 1, strcspn(frame + 1, "\n"));
    const size_t slash = one.rfind('/');
    const size_t colon = slash == std::string::npos ? slash : one.find(':', slash);
    const bool foreign = one.find("/emulator/cuda/") != std::string::npos ||
                         one.find("/emulator/runtime/") != std::string::npos ||
                         one.find("/usr/") != std::string::npos;
    if (foreign || colon == std::string::npos) continue;
    file = one.substr(slash + 1, colon - slash - 1);
    line = atoi(one.c_str() + colon + 1);
  }
  // Its second line tells reads and writes, and their size.
  const size_t second = rest.find('\n');
  const std::string what = rest.substr(second + 1, rest.find('\n', second + 1) - second - 1);
  const Thread &thread = running();
  thread.cluster->reports().add(kind.c_str(), {file.c_str(), line}, "%s, thread %u of block %u",
                                what.substr(0, what.find(" thread T")).c_str(), thread.index,
                                thread.block_index.x);
  thread.cluster->launch->stopped = true;
}

}  // namespace

void say_that_it_is_over() { fputs("the sanitizer has ended the program\n", stderr); }

void watch_sanitizers() {
  static std::once_flag once;
  std::call_once(once, [] {
    __asan_set_error_report_callback(report_asan);
    __sanitizer_set_death_callback(say_that_it_is_over);
    // Their own print is a page for each report.
    const intptr_t nowhere = open("/dev/null", O_WRONLY);
    if (nowhere >= 0) __sanitizer_set_report_fd(reinterpret_cast<void *>(nowhere));
  });
}

}  // namespace emulator

extern "C" void __ubsan_on_report() {
  const char *kind, *message, *file;
  unsigned line, column;
  char *address;
  __ubsan_get_current_report_data(&kind, &message, &file, &line, &column, &address);
  if (!emulator::current) return;
  const emulator::Thread &thread = emulator::running();
  thread.cluster->reports().add("undefined behaviour", {file, int(line)},
                                "%s, thread %u of block %u", message, thread.index,
                                thread.block_index.x);
}

#endif
