// The functions that code compiled with -fsanitize=thread calls, and the source lines of such code.
#if EMULATOR_RACE

#include <link.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "race.h"

namespace emulator {
namespace {

// Where the program, or the shared library that holds the kernels, lies in memory.
struct Image {
  uintptr_t base = 0, begin = ~uintptr_t(0), end = 0;
  std::string path;
};

int find_image(dl_phdr_info *info, size_t, void *result) {
  Image image;
  image.base = info->dlpi_addr;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr) &header = info->dlpi_phdr[i];
    if (header.p_type != PT_LOAD) continue;
    const uintptr_t begin = info->dlpi_addr + header.p_vaddr;
    image.begin = std::min(image.begin, begin);
    image.end = std::max(image.end, begin + header.p_memsz);
  }
  const uintptr_t here = uintptr_t(&find_image);
  if (here < image.begin || here >= image.end) return 0;
  image.path = info->dlpi_name;
  *static_cast<Image *>(result) = image;
  return 1;
}

const Image &image() {
  static const Image found = [] {
    Image image;
    dl_iterate_phdr(find_image, &image);
    if (image.path.empty()) {
      char path[4096];
      const ssize_t length = readlink("/proc/self/exe", path, sizeof path);
      if (length > 0) image.path.assign(path, size_t(length));
    }
    return image;
  }();
  return found;
}

void access(void *p, size_t bytes, Access access, const void *pc) {
  if (!current) return;
  Thread &thread = running();
  race_access(thread, p, bytes, access, pc);
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

uint32_t relative_pc(const void *pc) { return uint32_t(uintptr_t(pc) - image().base); }

bool in_program(uintptr_t p) { return p >= image().begin && p < image().end; }

// The innermost line that is the kernel's own: what is inlined from the emulator's or the compiler's
// headers is nobody's business.
Site source_of(uint32_t pc, std::string &storage) {
  // The return address is one past the call.
  char command[4400], line[4096];
  snprintf(command, sizeof command, "addr2line -i -e '%s' 0x%x 2>/dev/null", image().path.c_str(),
           pc - 1);
  storage = "?";
  int number = 0;
  FILE *output = popen(command, "r");
  if (!output) return {storage.c_str(), 0};
  while (fgets(line, sizeof line, output)) {
    const bool ours = strstr(line, "/emulator/cuda/") || strstr(line, "/emulator/runtime/");
    if (number != 0 || ours || strstr(line, "/usr/")) continue;
    if (char *colon = strrchr(line, ':')) {
      number = atoi(colon + 1);
      storage.assign(line, size_t(colon - line));
    }
  }
  pclose(output);
  return {storage.c_str(), number};
}

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
