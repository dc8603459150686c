// What happens before what: vector clocks for warps and barrier objects, epochs for the barriers of
// blocks and clusters, publication by fence and atomic between clusters.
#include <algorithm>

#include "race.h"

namespace emulator {

#if EMULATOR_RACE

namespace {

uint32_t &own_entry(Thread &thread) { return thread.known.warp[thread.lane]; }

std::vector<uint32_t> &whole_cluster(Thread &thread) {
  auto &clocks = thread.known.cluster;
  if (clocks.empty()) clocks.resize(thread.cluster->size());
  return clocks;
}

void join(uint32_t *into, const uint32_t *from, size_t count) {
  for (size_t i = 0; i < count; ++i) into[i] = std::max(into[i], from[i]);
}

}  // namespace

void race_warp_sync(Thread *const *threads, int count) {
  uint32_t warp[kWarpSize] = {};
  std::vector<uint32_t> cluster;
  for (int i = 0; i < count; ++i) {
    Thread &thread = *threads[i];
    own_entry(thread) = thread.clock;
    join(warp, thread.known.warp, kWarpSize);
    const auto &wide = thread.known.cluster;
    if (wide.empty()) continue;
    cluster.resize(wide.size());
    join(cluster.data(), wide.data(), wide.size());
  }
  for (int i = 0; i < count; ++i) {
    memcpy(threads[i]->known.warp, warp, sizeof warp);
    if (!cluster.empty()) threads[i]->known.cluster = cluster;
    ++threads[i]->clock;
  }
}

void race_block_barrier(Block &block, Cluster &cluster) {
  block.epoch = next_epoch();
  for (unsigned i = 0; i < block.threads; ++i) {
    Thread &thread = cluster.threads[block.first + i];
    thread.clock_at_barrier = thread.clock++;
  }
}

void race_release(Thread &thread, const void *object) {
  Cluster &cluster = *thread.cluster;
  std::vector<uint32_t> &clocks = cluster.released[object];
  clocks.resize(cluster.size());
  own_entry(thread) = thread.clock;
  const Block &block = *thread.block;
  const unsigned warp = block.first + thread.warp * kWarpSize;
  join(&clocks[warp], thread.known.warp, std::min(kWarpSize, block.first + block.threads - warp));
  if (!thread.known.cluster.empty())
    join(clocks.data(), thread.known.cluster.data(), clocks.size());
  for (unsigned i = block.first; i < block.first + block.threads; ++i) {
    clocks[i] = std::max(clocks[i], cluster.threads[i].clock_at_barrier);
  }
  ++thread.clock;
}

void race_acquire(Thread &thread, const void *object) {
  const auto found = thread.cluster->released.find(object);
  if (found == thread.cluster->released.end()) return;
  join(whole_cluster(thread).data(), found->second.data(), found->second.size());
}

void race_publish(Thread &thread, const void *p) {
  thread.cluster->launch->device.races->publish(thread, p);
}

// A fence and then an atomic publishes what the thread did, and what barriers had ordered before
// it. Whoever accesses the same word atomically learns of it; with it, generously, its whole
// cluster.
void RaceDetector::publish(Thread &thread, const void *p) {
  std::vector<Published> &list = published_[p];
  Cluster &cluster = *thread.cluster;
  auto &known = cluster.published;
  known.insert(known.end(), list.begin(), list.end());
  if (!thread.fenced) return;
  const uint32_t epoch = thread.block->epoch;
  list = known;
  list.push_back({cluster.start_epoch, epoch - 1, -1});
  list.push_back({epoch, epoch, int(thread.index_in_cluster)});
}

static bool learnt(const Cluster &cluster, const Remembered &earlier) {
  for (const Published &published : cluster.published) {
    if (earlier.epoch >= published.first && earlier.epoch <= published.last &&
        (published.thread < 0 || published.thread == earlier.thread)) {
      return true;
    }
  }
  return false;
}

bool happens_before(const Remembered &earlier, const Thread &thread) {
  const Cluster &cluster = *thread.cluster;
  if (earlier.async) return false;
  if (earlier.epoch < cluster.start_epoch) return learnt(cluster, earlier);
  if (earlier.thread == thread.index_in_cluster) return true;
  const Thread &other = cluster.threads[earlier.thread];
  // A barrier of the block, or of the cluster, lies between.
  if (other.block == thread.block && earlier.epoch < thread.block->epoch) return true;
  if (earlier.epoch <= cluster.barrier_epoch) return true;
  if (other.block == thread.block && other.warp == thread.warp &&
      thread.known.warp[other.lane] >= earlier.clock) {
    return true;
  }
  const auto &wide = thread.known.cluster;
  return !wide.empty() && wide[earlier.thread] >= earlier.clock;
}

#endif

void atomic_access(const void *p, size_t bytes) {
  Thread &thread = running();
  if (!race_access(thread, p, bytes, Access::kAtomicUpdate, __builtin_return_address(0))) {
    stop_at_fault(thread);
  }
  race_publish(thread, p);
}

void *copy_bytes(void *to, const void *from, size_t bytes) {
  Thread &thread = running();
  const void *pc = __builtin_return_address(0);
  const bool inside = bytes == 0 || (race_access(thread, from, bytes, Access::kRead, pc) &&
                                     race_access(thread, to, bytes, Access::kWrite, pc));
  if (!inside) stop_at_fault(thread);
  return memcpy(to, from, bytes);
}

void *set_bytes(void *to, int value, size_t bytes) {
  Thread &thread = running();
  const void *pc = __builtin_return_address(0);
  if (bytes != 0 && !race_access(thread, to, bytes, Access::kWrite, pc)) stop_at_fault(thread);
  return memset(to, value, bytes);
}

void fence() {
  running().fenced = true;
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

}  // namespace emulator
