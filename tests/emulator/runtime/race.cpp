#include "race.h"

#if EMULATOR_RACE

namespace emulator {

bool happens_before(const Remembered &earlier, const Thread &thread);

namespace {

enum class Space { kPrivate, kShared, kDevice, kOutside, kFreed, kExited };

// Where an access goes, and to whom that belongs.
struct Place {
  Space space;
  Block *block;            // of the shared memory
  Allocation *allocation;  // of the device memory
};

// A write to the program's constants is outside of everything, reads of them are nobody's business.
Place place_of(Thread &thread, uintptr_t p, size_t bytes, bool writes) {
  Cluster &cluster = *thread.cluster;
  const auto *pointer = reinterpret_cast<void *>(p);
  if (thread.fiber.on_stack(pointer)) return {Space::kPrivate, nullptr, nullptr};
  if (Block *block = cluster.owner_of_shared(pointer)) {
    const bool inside = p + bytes <= uintptr_t(block->shared) + block->shared_bytes;
    const Space space = !inside ? Space::kOutside : block->live ? Space::kShared : Space::kExited;
    return {space, block, nullptr};
  }
  DeviceMemory &memory = cluster.launch->device.memory;
  if (Allocation *allocation = memory.find(p)) {
    const bool inside = bytes <= allocation->bytes - (p - allocation->address);
    return {inside ? Space::kDevice : Space::kOutside, nullptr, allocation};
  }
  // threadIdx and its like.
  const uintptr_t threads = uintptr_t(cluster.threads.data());
  const bool in_threads = p - threads < cluster.threads.size() * sizeof(Thread);
  if (in_threads || (!writes && in_program(p))) return {Space::kPrivate, nullptr, nullptr};
  return {memory.freed(p) ? Space::kFreed : Space::kOutside, nullptr, nullptr};
}

bool writes(Access access) { return access != Access::kRead && access != Access::kAtomicRead; }

bool reads(Access access) { return !writes(access) || access == Access::kAtomicUpdate; }

bool atomic(Access access) {
  return access == Access::kAtomicRead || access == Access::kAtomicWrite ||
         access == Access::kAtomicUpdate;
}

}  // namespace

struct RaceDetector::Query {
  Thread &thread;
  Place place;
  uintptr_t p;
  size_t bytes;
  Access access;
  uint32_t pc;
};

bool RaceDetector::check(Thread &thread, uintptr_t p, size_t bytes, Access access, uint32_t pc) {
  const Place place = place_of(thread, p, bytes, writes(access));
  const Space space = place.space;
  if (space == Space::kPrivate) return true;
  const Query query{thread, place, p, bytes, access, pc};
  if (space != Space::kShared && space != Space::kDevice) {
    report_outside(query);
    return false;
  }
  if (space == Space::kDevice) check_written(query);
  // Not covered by the last fence.
  if (space == Space::kDevice && access == Access::kWrite) thread.fenced = false;
  // Earlier launches happened before; earlier blocks had shared memory of their own.
  const uint32_t horizon = space == Space::kDevice ? launch_epoch_ : thread.cluster->start_epoch;
  const uintptr_t end = p + bytes;
  for (uintptr_t index = p >> kCellBits; index <= (end - 1) >> kCellBits; ++index) {
    const uintptr_t low = index << kCellBits;
    const unsigned touched = (p <= low ? 1u : 0u) | (end >= low + 2 ? 2u : 0u);
    Cell &found = cell(index);
    expire(found, horizon);
    check_cell(query, found, touched);
  }
  return true;
}

void RaceDetector::check_cell(const Query &query, Cell &cell, unsigned bytes) {
  const bool write = writes(query.access);
  if (clashes(query, cell.write, bytes)) report_race(query, cell.write, true);
  if (write) {
    if (clashes(query, cell.read, bytes)) report_race(query, cell.read, false);
    if (cell.more_reads) {
      for (const Remembered &read : lists_[cell.more_reads]) {
        if (!clashes(query, read, bytes)) continue;
        report_race(query, read, false);
        break;
      }
    }
  }
  if (reads(query.access) && query.place.space == Space::kShared && !cell.write.valid) {
    report_uninitialised(query, "uninitialised shared memory",
                         query.p - uintptr_t(query.place.block->shared));
  }
  const Thread &thread = query.thread;
  const Remembered now = {thread.clock,
                          thread.block->epoch,
                          query.pc,
                          uint16_t(thread.index_in_cluster),
                          uint8_t(bytes),
                          atomic(query.access),
                          query.access == Access::kAsyncWrite,
                          true};
  if (write) {
    cell.write = now;
    drop_reads(cell);
  } else {
    remember_read(query, cell, now);
  }
}

// A read replaces one that it is ordered after; of concurrent ones all are kept.
void RaceDetector::remember_read(const Query &query, Cell &cell, const Remembered &now) {
  constexpr size_t kMaxReads = 4096;
  const Remembered earlier = cell.read;
  cell.read = now;
  if (!earlier.valid || happens_before(earlier, query.thread)) return;
  if (!cell.more_reads) {
    if (free_lists_.empty()) {
      free_lists_.push_back(uint32_t(lists_.size()));
      lists_.emplace_back();
    }
    cell.more_reads = free_lists_.back();
    free_lists_.pop_back();
  }
  std::vector<Remembered> &list = lists_[cell.more_reads];
  if (list.size() < kMaxReads) list.push_back(earlier);
}

bool RaceDetector::clashes(const Query &query, const Remembered &earlier, unsigned bytes) const {
  if (!earlier.valid || (earlier.bytes & bytes) == 0) return false;
  if (earlier.atomic && atomic(query.access)) return false;
  return !happens_before(earlier, query.thread);
}

void RaceDetector::expire(Cell &cell, uint32_t horizon) {
  if (cell.write.epoch < horizon) cell.write.valid = false;
  if (cell.read.valid && cell.read.epoch < horizon) drop_reads(cell);
}

void RaceDetector::drop_reads(Cell &cell) {
  cell.read.valid = false;
  if (!cell.more_reads) return;
  lists_[cell.more_reads].clear();
  free_lists_.push_back(cell.more_reads);
  cell.more_reads = 0;
}

Cell &RaceDetector::cell(uintptr_t index) {
  constexpr uintptr_t kInPage = (uintptr_t(1) << (kPageBits - kCellBits)) - 1;
  const uintptr_t number = index >> (kPageBits - kCellBits);
  if (!last_page_ || number != last_page_number_) {
    std::unique_ptr<Page> &page = pages_[number];
    if (!page) page.reset(new Page);
    last_page_ = page.get();
    last_page_number_ = number;
  }
  return last_page_->cells[index & kInPage];
}

Cell *RaceDetector::existing_cell(uintptr_t index) {
  return pages_.count(index >> (kPageBits - kCellBits)) ? &cell(index) : nullptr;
}

// The cell goes on naming the thread that issued the copy: whoever has waited on the mbarrier knows
// of that thread, and others need a barrier after this point.
void RaceDetector::landed(Thread &thread, uintptr_t p, size_t bytes, bool own) {
  for (uintptr_t index = p >> kCellBits; index <= (p + bytes - 1) >> kCellBits; ++index) {
    Cell *found = existing_cell(index);
    if (!found || !found->write.valid || !found->write.async) continue;
    found->write.async = false;
    found->write.epoch = thread.block->epoch;
    if (own) found->write.clock = thread.clock;
  }
}

void RaceDetector::start_launch() {
  launch_epoch_ = next_epoch();
  published_.clear();
  reported_.clear();
}

void RaceDetector::forget(uintptr_t address, size_t bytes) {
  last_page_ = nullptr;
  for (uintptr_t page = address >> kPageBits; page <= (address + bytes) >> kPageBits; ++page) {
    const auto found = pages_.find(page);
    if (found == pages_.end()) continue;
    for (Cell &cell : found->second->cells) drop_reads(cell);
    pages_.erase(found);
  }
}

bool RaceDetector::first_report(uint32_t earlier_pc, uint32_t pc) {
  return reported_.emplace(uint64_t(earlier_pc) << 32 | pc, true).second;
}

static std::string by(const Thread &thread) {
  return "thread " + std::to_string(thread.index) + " (warp " + std::to_string(thread.warp) +
         ") of block " + std::to_string(thread.block_index.x);
}

void RaceDetector::report_outside(const Query &query) {
  if (!first_report(0, query.pc)) return;
  const Source source = source_of(query.pc);
  const char *kind = query.place.space == Space::kFreed    ? "use after free"
                     : query.place.space == Space::kExited ? "cluster"
                                                           : "out of bounds";
  query.thread.cluster->reports().add(
      kind, source.site(), "%zu-byte %s by %s%s%s", query.bytes,
      writes(query.access) ? "write" : "read", by(query.thread).c_str(),
      query.place.space == Space::kExited ? " of the shared memory of a block that has exited" : "",
      source.within.c_str());
}

void RaceDetector::report_race(const Query &query, const Remembered &earlier, bool earlier_writes) {
  if (!first_report(earlier.pc, query.pc)) return;
  const Source source = source_of(query.pc), other = source_of(earlier.pc);
  const Cluster &cluster = *query.thread.cluster;
  const std::string whose = earlier.epoch >= cluster.start_epoch
                                ? by(cluster.threads[earlier.thread])
                                : std::string("a thread of an earlier block");
  const char *what = earlier.async    ? "asynchronous copy that nobody has waited for"
                     : earlier_writes ? "write"
                                      : "read";
  query.thread.cluster->reports().add(
      "data race", source.site(),
      "%s by %s%s, and %s at %s:%d by %s%s: %s memory, nothing orders them",
      writes(query.access) ? "write" : "read", by(query.thread).c_str(), source.within.c_str(),
      what, other.file.c_str(), other.line, whose.c_str(), other.within.c_str(),
      query.place.space == Space::kDevice ? "device" : "shared");
}

void RaceDetector::report_uninitialised(const Query &query, const char *memory, size_t byte) {
  if (!first_report(1, query.pc)) return;
  const Source source = source_of(query.pc);
  query.thread.cluster->reports().add(memory, source.site(), "read of byte %zu by %s%s", byte,
                                      by(query.thread).c_str(), source.within.c_str());
}

void RaceDetector::check_written(const Query &query) {
  Allocation &allocation = *query.place.allocation;
  const size_t offset = query.p - allocation.address;
  for (size_t byte = offset; byte < offset + query.bytes; ++byte) {
    if (reads(query.access) && !allocation.written[byte]) {
      report_uninitialised(query, "uninitialised device memory", byte);
      return;
    }
    if (writes(query.access)) allocation.written[byte] = true;
  }
}

bool race_access(Thread &thread, const void *p, size_t bytes, Access access, const void *pc) {
  return thread.cluster->launch->device.races->check(thread, uintptr_t(p), bytes, access,
                                                     relative_pc(pc));
}

void race_landed(Thread &thread, const void *p, size_t bytes, bool own) {
  thread.cluster->launch->device.races->landed(thread, uintptr_t(p), bytes, own);
}

void race_start_launch(Device &device) { device.races->start_launch(); }

void race_forget(Device &device, uintptr_t address, size_t bytes) {
  device.races->forget(address, bytes);
}

}  // namespace emulator

#endif
