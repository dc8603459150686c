// Device memory. Kernels reach it directly, so its addresses are the host's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

namespace emulator {

class Reports;

struct Allocation {
  uintptr_t address;
  size_t bytes;
  void *base;  // of the allocation on the host, with its margins
  size_t total;
  // Race mode: for each byte, whether it has been written to.
  std::vector<uint8_t> written;
};

class DeviceMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(const DeviceMemory &) = delete;
  DeviceMemory &operator=(const DeviceMemory &) = delete;
  ~DeviceMemory();

  uintptr_t allocate(size_t bytes, unsigned char fill);  // 0 if there is no memory
  bool free(uintptr_t address);                          // false if it is not an allocation's
  // The allocation that holds the address, or null.
  const Allocation *find(uintptr_t address) const;
  Allocation *find(uintptr_t address);
  void mark_written(uintptr_t address, size_t bytes);
  // Why the range is not inside of one allocation; empty if it is.
  std::string complaint(uintptr_t address, size_t bytes) const;
  // Whether it was given back, as far as that is remembered.
  bool freed(uintptr_t address) const;
  // Looks for writes next to allocations and into freed ones, which only a sanitizer sees at once.
  void check_margins(const char *kernel, Reports &reports);
  size_t count() const { return live_.size(); }

 private:
  void release(const Allocation &allocation);

  std::map<uintptr_t, Allocation> live_;
  std::deque<Allocation> quarantine_;  // freed, and poisoned for a while
  size_t quarantined_bytes_ = 0;
};

}  // namespace emulator
