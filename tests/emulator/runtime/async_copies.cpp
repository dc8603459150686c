// cp.async, mbarriers and bulk copies. All are adversaries: the destination is poisoned at once,
// and the data lands as early as at the issue or as late as at the wait, by the schedule's seed.
#include "race.h"
#include "state.h"

namespace emulator {
namespace {

void copy(const AsyncCopy &copy) {
  memcpy(copy.to, copy.from, copy.source_bytes);
  memset(static_cast<char *>(copy.to) + copy.source_bytes, 0, copy.bytes - copy.source_bytes);
}

bool lands_early(Cluster &cluster) {
  return cluster.settings().order == Order::kRandom && (cluster.random() & 1) != 0;
}

void check_aligned(const void *p, size_t bytes, Site site) {
  if (uintptr_t(p) % bytes != 0) report_misaligned(p, bytes, site);
}

// An mbarrier is 64 bits of shared memory. Its state lives there, so that one that overlaps with
// data or was never initialised shows.
struct MBarrier {
  uint64_t phase : 1, magic : 12, arrivals : 15, pending : 15;
  int64_t bytes : 21;
};
constexpr unsigned kMagic = 0x2a5;
static_assert(sizeof(MBarrier) == 8);

MBarrier *initialised(uint64_t *p, Thread &thread, Site site) {
  check_aligned(p, 8, site);
  auto *barrier = reinterpret_cast<MBarrier *>(p);
  if (barrier->magic == kMagic) return barrier;
  thread.cluster->reports().add("mbarrier", site, "used before it was initialised");
  return nullptr;
}

void end_phase_if_complete(MBarrier &barrier, Cluster &cluster) {
  if (barrier.pending != 0 || barrier.bytes != 0) return;
  barrier.phase ^= 1;
  barrier.pending = barrier.arrivals;
  cluster.idle_polls = 0;
}

}  // namespace

void async_copy(void *to, const void *from, unsigned bytes, unsigned source_bytes, Site site) {
  Thread &thread = running();
  check_aligned(to, bytes, site);
  check_aligned(from, bytes, site);
  const void *pc = __builtin_return_address(0);
  const bool inside =
      (source_bytes == 0 || race_access(thread, from, source_bytes, Access::kRead, pc)) &&
      race_access(thread, to, bytes, Access::kAsyncWrite, pc);
  if (!inside) stop_at_fault(thread);
  AsyncCopy issued{to, from, bytes, source_bytes, false};
  if (lands_early(*thread.cluster)) {
    copy(issued);
    issued.done = true;
  } else {
    memset(to, kPoison, bytes);
  }
  if (thread.copy_groups.empty()) thread.copy_groups.emplace_back();
  thread.copy_groups.back().push_back(issued);
}

void async_copy_commit() {
  auto &groups = running().copy_groups;
  if (groups.empty()) groups.emplace_back();
  groups.emplace_back();
}

void async_copy_wait(unsigned groups_in_flight) {
  Thread &thread = running();
  auto &groups = thread.copy_groups;
  while (groups.size() > groups_in_flight + 1) {
    for (AsyncCopy &issued : groups.front()) {
      if (!issued.done) copy(issued);
      race_landed(thread, issued.to, issued.bytes, true);
    }
    groups.erase(groups.begin());
  }
}

void finish_async_copies(Thread &thread) {
  for (auto &group : thread.copy_groups) {
    for (AsyncCopy &issued : group) {
      if (!issued.done) copy(issued);
    }
  }
  thread.copy_groups.clear();
}

void mbarrier_init(uint64_t *p, unsigned arrivals, Site site) {
  check_aligned(p, 8, site);
  if (!race_access(running(), p, 8, Access::kAtomicWrite, __builtin_return_address(0))) {
    stop_at_fault(running());
  }
  const MBarrier barrier{0, kMagic, arrivals, arrivals, 0};
  memcpy(p, &barrier, sizeof barrier);
}

void mbarrier_arrive(uint64_t *p, unsigned expected_bytes, Site site) {
  Thread &thread = running();
  MBarrier *barrier = initialised(p, thread, site);
  if (!barrier) return;
  race_access(thread, p, 8, Access::kAtomicWrite, __builtin_return_address(0));
  race_release(thread, p);
  if (barrier->pending == 0) {
    thread.cluster->reports().add("mbarrier", site, "more arrivals than the phase expects");
    return;
  }
  barrier->bytes += int(expected_bytes);
  --barrier->pending;
  end_phase_if_complete(*barrier, *thread.cluster);
}

bool mbarrier_try_wait(uint64_t *p, unsigned parity, Site site) {
  Thread &thread = running();
  MBarrier *barrier = initialised(p, thread, site);
  if (!barrier) return true;
  race_access(thread, p, 8, Access::kAtomicRead, __builtin_return_address(0));
  if (barrier->phase == parity) yield(site);
  if (barrier->phase == parity) return false;
  race_acquire(thread, p);
  auto &landed = thread.cluster->copies_landed;
  for (size_t i = 0; i < landed.size();) {
    if (landed[i].barrier == p) {
      race_landed(thread, landed[i].to, landed[i].bytes, false);
      landed.erase(landed.begin() + long(i));
    } else {
      ++i;
    }
  }
  return true;
}

void complete_bulk_copy(Cluster &cluster, size_t index) {
  const BulkCopy copy = cluster.copies_in_flight[index];
  cluster.copies_in_flight.erase(cluster.copies_in_flight.begin() + long(index));
  memcpy(copy.to, copy.from, copy.bytes);
  cluster.copies_landed.push_back(copy);
  auto *barrier = reinterpret_cast<MBarrier *>(copy.barrier);
  barrier->bytes -= int(copy.bytes);
  cluster.idle_polls = 0;
  end_phase_if_complete(*barrier, cluster);
}

void bulk_copy(void *to, const void *from, unsigned bytes, uint64_t *p, Site site) {
  Thread &thread = running();
  Cluster &cluster = *thread.cluster;
  if (bytes == 0 || bytes % 16 != 0) {
    cluster.reports().add("bulk copy", site, "%u bytes are not a positive multiple of 16", bytes);
  }
  check_aligned(to, 16, site);
  check_aligned(from, 16, site);
  if (!initialised(p, thread, site)) return;
  const void *pc = __builtin_return_address(0);
  const bool inside = race_access(thread, from, bytes, Access::kRead, pc) &&
                      race_access(thread, to, bytes, Access::kAsyncWrite, pc);
  if (!inside) stop_at_fault(thread);
  race_release(thread, p);
  memset(to, kPoison, bytes);
  cluster.copies_in_flight.push_back({to, from, bytes, p});
  if (lands_early(cluster)) complete_bulk_copy(cluster, cluster.copies_in_flight.size() - 1);
}

}  // namespace emulator
