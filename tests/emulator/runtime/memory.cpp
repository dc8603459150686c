#include "memory.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "report.h"
#include "sanitizer.h"
#include "state.h"

namespace emulator {

// cuMemAlloc's alignment, and the margin before an allocation.
constexpr size_t kAlignment = 256;
// AddressSanitizer has margins of its own.
constexpr size_t kMarginBefore = EMULATOR_ASAN ? 0 : kAlignment;
constexpr size_t kMarginAfter = EMULATOR_ASAN ? 0 : 4096;
// How much freed memory is kept poisoned before the host may have it again.
constexpr size_t kQuarantineBytes = size_t(16) << 20;

DeviceMemory::~DeviceMemory() {
  for (const auto &entry : live_) std::free(entry.second.base);
  for (const Allocation &allocation : quarantine_) release(allocation);
}

uintptr_t DeviceMemory::allocate(size_t bytes, unsigned char fill) {
  if (bytes > size_t(1) << 46) return 0;
  // Without a sanitizer the end is rounded up, so that a vector access over it stays in the margin.
  const size_t rounded = EMULATOR_ASAN ? bytes : (bytes + kAlignment - 1) & ~(kAlignment - 1);
  const size_t total = kMarginBefore + rounded + kMarginAfter;
  void *base = nullptr;
  if (posix_memalign(&base, kAlignment, total) != 0) return 0;
  memset(base, kPoison, total);
  const uintptr_t address = uintptr_t(base) + kMarginBefore;
  memset(reinterpret_cast<void *>(address), fill, bytes);
  // What is filled with something else than poison is meant to be read.
  std::vector<uint8_t> written(EMULATOR_RACE ? bytes : 0, fill != kPoison);
  live_[address] = {address, bytes, base, total, std::move(written)};
  return address;
}

bool DeviceMemory::free(uintptr_t address) {
  const auto found = live_.find(address);
  if (found == live_.end()) return false;
  Allocation allocation = std::move(found->second);
  live_.erase(found);
  allocation.written = {};
  memset(reinterpret_cast<void *>(address), kPoison, allocation.bytes);
  poison(allocation.base, allocation.total);
  quarantine_.push_back(allocation);
  quarantined_bytes_ += allocation.total;
  while (quarantined_bytes_ > kQuarantineBytes) {
    quarantined_bytes_ -= quarantine_.front().total;
    release(quarantine_.front());
    quarantine_.pop_front();
  }
  return true;
}

void DeviceMemory::release(const Allocation &allocation) {
  unpoison(allocation.base, allocation.total);
  std::free(allocation.base);
}

Allocation *DeviceMemory::find(uintptr_t address) {
  auto after = live_.upper_bound(address);
  if (after == live_.begin()) return nullptr;
  Allocation &allocation = (--after)->second;
  return address - allocation.address < allocation.bytes ? &allocation : nullptr;
}

const Allocation *DeviceMemory::find(uintptr_t address) const {
  return const_cast<DeviceMemory *>(this)->find(address);
}

void DeviceMemory::mark_written(uintptr_t address, size_t bytes) {
  Allocation *allocation = find(address);
  if (!allocation || allocation->written.empty()) return;
  const auto begin = allocation->written.begin() + long(address - allocation->address);
  std::fill(begin, begin + long(bytes), 1);
}

bool DeviceMemory::freed(uintptr_t address) const {
  for (const Allocation &allocation : quarantine_) {
    if (address - allocation.address < allocation.bytes) return true;
  }
  return false;
}

std::string DeviceMemory::complaint(uintptr_t address, size_t bytes) const {
  char text[160];
  const Allocation *allocation = find(address);
  if (!allocation) {
    snprintf(text, sizeof text, "address %#zx is %s", size_t(address),
             freed(address) ? "in freed memory" : "not in device memory");
    return text;
  }
  const size_t offset = address - allocation->address;
  if (bytes <= allocation->bytes - offset) return "";
  snprintf(text, sizeof text, "%zu bytes from byte %zu of an allocation of %zu bytes", bytes,
           offset, allocation->bytes);
  return text;
}

// First byte that is not poisoned any more, or null; makes it poison again.
static unsigned char *repair(unsigned char *begin, unsigned char *end) {
  for (unsigned char *p = begin; p < end; ++p) {
    if (*p == kPoison) continue;
    memset(p, kPoison, size_t(end - p));
    return p;
  }
  return nullptr;
}

void DeviceMemory::check_margins(const char *kernel, Reports &reports) {
  if (EMULATOR_ASAN) return;
  for (const auto &[address, allocation] : live_) {
    auto *base = static_cast<unsigned char *>(allocation.base);
    auto *data = reinterpret_cast<unsigned char *>(address);
    unsigned char *found = repair(base, data);
    if (!found) found = repair(data + allocation.bytes, base + allocation.total);
    if (!found) continue;
    reports.add("out of bounds", {kernel, 0}, "byte %td of an allocation of %zu bytes was written",
                found - data, allocation.bytes);
  }
  for (const Allocation &allocation : quarantine_) {
    auto *data = reinterpret_cast<unsigned char *>(allocation.address);
    if (unsigned char *found = repair(data, data + allocation.bytes)) {
      reports.add("use after free", {kernel, 0},
                  "byte %td of a freed allocation of %zu bytes was written", found - data,
                  allocation.bytes);
    }
  }
}

}  // namespace emulator
