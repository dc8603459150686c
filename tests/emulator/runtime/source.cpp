#include "source.h"

#include <link.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

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

// Frames of one machine instruction, innermost first, as addr2line prints them: a line each. Those
// of the emulator's and the compiler's headers are left out.
Source parse(FILE *output) {
  Source source;
  char line[4096];
  for (int frames = 0; fgets(line, sizeof line, output);) {
    const bool foreign = strstr(line, "/emulator/cuda/") || strstr(line, "/emulator/runtime/") ||
                         strstr(line, "/usr/") || line[0] == '?';
    char *slash = strrchr(line, '/'), *colon = strrchr(line, ':');
    if (foreign || !colon) continue;
    const std::string file(slash ? slash + 1 : line, colon);
    const int number = atoi(colon + 1);
    if (frames++ == 0) {
      source.file = file;
      source.line = number;
    } else {
      source.within = " in " + file + ":" + std::to_string(number);
    }
  }
  return source;
}

}  // namespace

uint32_t relative_pc(const void *pc) { return uint32_t(uintptr_t(pc) - image().base); }

bool in_program(uintptr_t p) { return p >= image().begin && p < image().end; }

Source source_of(uint32_t pc) {
  // Reading the program's debug information takes a good part of a second.
  static std::mutex mutex;
  static std::map<uint32_t, Source> known;
  std::lock_guard<std::mutex> lock(mutex);
  const auto found = known.find(pc);
  if (found != known.end()) return found->second;
  char command[4400];
  snprintf(command, sizeof command, "addr2line -i -e '%s' 0x%x 2>/dev/null", image().path.c_str(),
           pc - 1);
  FILE *output = popen(command, "r");
  if (!output) return {};
  Source &source = known[pc];
  source = parse(output);
  pclose(output);
  return source;
}

}  // namespace emulator
