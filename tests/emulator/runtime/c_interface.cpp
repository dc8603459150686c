// What Rust calls: one table of functions. Calls on the same device come one after another.
#include <atomic>
#include <memory>
#include <thread>

#include "race.h"
#include "sanitizer.h"
#include "state.h"

namespace emulator {

static std::map<std::string, Kernel> &kernels() {
  static std::map<std::string, Kernel> list;
  return list;
}

Registration::Registration(const Kernel &kernel) { kernels()[kernel.name] = kernel; }

Device::Device(int major, int minor) : major(major), minor(minor), races(new RaceDetector) {}

Device::~Device() = default;

namespace {

enum Outcome : int { kDone, kRefused, kReported };

constexpr unsigned kMaxThreads = 1024;
// Of a cluster, with the attribute that allows more than the portable 8.
constexpr unsigned kMaxBlocks = 16;
constexpr unsigned kMaxGrid = 0x7fffffff;

// Bytes that a block may have at most, by compute capability.
unsigned max_shared(int major, int minor) {
  if (major == 9 || major == 10) return 227 * 1024;
  if (major == 8 && (minor == 0 || minor == 7)) return 163 * 1024;
  return 99 * 1024;
}

template <class... Parts> std::string format(const char *pattern, Parts... parts) {
  char text[400];
  snprintf(text, sizeof text, pattern, parts...);
  return text;
}

std::string complaint_about_extent(const Device &device, const Kernel &kernel,
                                   const Extent &extent) {
  const unsigned max_threads = kernel.max_threads ? kernel.max_threads : kMaxThreads;
  if (extent.block == 0 || extent.block > max_threads) {
    return format("a block of %s takes 1 to %u threads, got %u", kernel.name, max_threads,
                  extent.block);
  }
  if (extent.grid == 0 || extent.grid > kMaxGrid) {
    return format("a grid takes 1 to %u blocks, got %u", kMaxGrid, extent.grid);
  }
  if (extent.cluster == 0 || extent.cluster > kMaxBlocks) {
    return format("a cluster takes 1 to %u blocks, got %u", kMaxBlocks, extent.cluster);
  }
  if (extent.grid % extent.cluster != 0) {
    return format("a grid of %u blocks is no multiple of the cluster's %u", extent.grid,
                  extent.cluster);
  }
  if (extent.cluster > 1 && device.major < 9) {
    return format("compute capability %d.%d has no clusters, got one of %u blocks", device.major,
                  device.minor, extent.cluster);
  }
  const unsigned shared = max_shared(device.major, device.minor);
  if (extent.shared > shared) {
    return format("compute capability %d.%d has %u bytes of shared memory for a block, got %u",
                  device.major, device.minor, shared, extent.shared);
  }
  return "";
}

// A pointer to each argument is all that there is, so sizes can only be checked by what they would
// make of it: arguments that overlap or are not aligned, pointers that point nowhere.
std::string complaint_about_arguments(const Device &device, const Kernel &kernel, void **arguments,
                                      size_t count) {
  if (count != kernel.parameter_count) {
    return format("%s takes %zu arguments, got %zu", kernel.name, kernel.parameter_count, count);
  }
  for (size_t i = 0; i < count; ++i) {
    const Parameter &parameter = kernel.parameters[i];
    const uintptr_t address = uintptr_t(arguments[i]);
    const char *pattern = "argument %zu of %s (%s) %s";
    if (!address) return format(pattern, i, kernel.name, parameter.type, "is a null pointer");
    if (address % parameter.alignment != 0) {
      return format(pattern, i, kernel.name, parameter.type, "is not aligned for its type");
    }
    for (size_t j = 0; j < count; ++j) {
      const uintptr_t other = uintptr_t(arguments[j]);
      if (other > address && other - address < parameter.bytes) {
        return format("argument %zu of %s (%s, %zu bytes) overlaps with argument %zu, %zu bytes on",
                      i, kernel.name, parameter.type, parameter.bytes, j, size_t(other - address));
      }
    }
    if (!parameter.pointer) continue;
    uintptr_t value;
    memcpy(&value, arguments[i], sizeof value);
    // The end of an allocation is where an empty slice may point.
    const DeviceMemory &memory = device.memory;
    if (value && !memory.find(value) && !memory.find(value - 1)) {
      return format(
          pattern, i, kernel.name, parameter.type,
          memory.freed(value) ? "points into freed memory" : "does not point to device memory");
    }
  }
  return "";
}

void run(Launch &launch) {
  const unsigned clusters = launch.extent.grid / launch.extent.cluster;
  std::atomic<unsigned> next{0};
  // Threads of its own, because kernels' stacks and sanitizers leave traces on those that run them.
  auto work = [&launch, &next, clusters] {
    Cluster cluster;
    const SignalStack signal_stack;
    for (unsigned i; !launch.stopped && (i = next++) < clusters;) run_cluster(launch, cluster, i);
    for (Block &block : cluster.blocks) unpoison(block.arena.get(), block.arena_bytes);
  };
  // The race detector follows one cluster after another.
  const unsigned wanted = EMULATOR_RACE ? 1 : launch.device.settings.workers;
  std::vector<std::thread> workers;
  for (unsigned i = 0; i < std::min(std::max(wanted, 1u), clusters); ++i)
    workers.emplace_back(work);
  for (std::thread &worker : workers) worker.join();
}

Device *create(int major, int minor) { return new Device(major, minor); }

void destroy(Device *device) { delete device; }

void configure(Device *device, int order, uint64_t seed, unsigned workers, unsigned preemption) {
  device->settings = {Order(order), seed, workers, preemption};
}

int mode() { return EMULATOR_ASAN ? 2 : EMULATOR_RACE ? 1 : 0; }

uint64_t allocate(Device *device, size_t bytes, int zeroed) {
  return device->memory.allocate(bytes, zeroed ? 0 : kPoison);
}

int free_memory(Device *device, uint64_t address) {
  const Allocation *allocation = device->memory.find(address);
  if (allocation) race_forget(*device, address, allocation->bytes);
  return device->memory.free(address);
}

// A message, or null if the host may copy the range.
const char *check_range(Device *device, uint64_t address, size_t bytes, int will_write) {
  device->message = device->memory.complaint(address, bytes);
  if (!device->message.empty()) return device->message.c_str();
  if (will_write) device->memory.mark_written(address, bytes);
  return nullptr;
}

int launch(Device *device, const char *name, const Extent *extent, void **arguments, size_t count) {
  const auto found = kernels().find(name);
  if (found == kernels().end()) {
    device->message = format("no kernel is named %s", name);
    return kRefused;
  }
  const Kernel &kernel = found->second;
  device->message = complaint_about_extent(*device, kernel, *extent);
  if (device->message.empty()) {
    device->message = complaint_about_arguments(*device, kernel, arguments, count);
  }
  if (!device->message.empty()) return kRefused;
  Launch launch{*device, kernel, *extent, arguments};
  catch_faults();
  watch_sanitizers();
  race_start_launch(*device);
  run(launch);
  device->memory.check_margins(name, device->reports);
  if (device->reports.empty()) return kDone;
  device->message = device->reports.text();
  return kReported;
}

const char *message(Device *device) { return device->message.c_str(); }

size_t allocation_count(Device *device) { return device->memory.count(); }

const char *kernel_name(size_t index) {
  for (const auto &entry : kernels()) {
    if (index-- == 0) return entry.second.name;
  }
  return nullptr;
}

// 0 where there is no such parameter.
size_t parameter_bytes(const char *name, size_t index) {
  const auto found = kernels().find(name);
  if (found == kernels().end() || index >= found->second.parameter_count) return 0;
  return found->second.parameters[index].bytes;
}

struct Interface {
  Device *(*create)(int, int);
  void (*destroy)(Device *);
  void (*configure)(Device *, int, uint64_t, unsigned, unsigned);
  int (*mode)();
  uint64_t (*allocate)(Device *, size_t, int);
  int (*free)(Device *, uint64_t);
  const char *(*check_range)(Device *, uint64_t, size_t, int);
  int (*launch)(Device *, const char *, const Extent *, void **, size_t);
  const char *(*message)(Device *);
  size_t (*allocation_count)(Device *);
  const char *(*kernel_name)(size_t);
  size_t (*parameter_bytes)(const char *, size_t);
};

}  // namespace
}  // namespace emulator

extern "C" const void *prefuse_emulator_interface() {
  using namespace emulator;
  static const Interface interface = {create,   destroy,          configure,   mode,
                                      allocate, free_memory,      check_range, launch,
                                      message,  allocation_count, kernel_name, parameter_bytes};
  return &interface;
}
