// Runs the threads of a cluster in turns. A thread runs until it waits for others, and in race mode
// may be stopped between two accesses.
#include <algorithm>

#include "race.h"
#include "sanitizer.h"
#include "state.h"

namespace emulator {

__thread ThreadView *current;
#if EMULATOR_RACE
ThreadView *self() { return current; }
#endif

namespace {

// A loop that has waited so often while nothing else happened waits for ever.
constexpr unsigned kMaxIdlePolls = 1000000;
// Room for an alignment of 256 bytes before the dynamic shared memory, and a margin after it.
constexpr size_t kArenaMargin = 1024;

std::atomic<uint32_t> epoch_counter{1};

// A third of the seeds leaves the pick to chance, a third starves one warp, and a third one block,
// or half of the warps where there is only one: chance alone never lets anyone fall far behind.
bool starved(Cluster &cluster, const Thread &thread) {
  const unsigned victim = cluster.victim;
  switch (cluster.settings().seed % 3) {
    case 1:
      return thread.index_in_cluster / kWarpSize ==
             victim % ((cluster.size() + kWarpSize - 1) / kWarpSize);
    case 2:
      return cluster.blocks.size() > 1 ? thread.cluster_rank == victim % cluster.blocks.size()
                                       : (victim >> (thread.warp % 32) & 1) != 0;
    default: return false;
  }
}

Thread *pick(Cluster &cluster) {
  auto &ready = cluster.ready;
  if (ready.empty()) return nullptr;
  Thread *picked = nullptr;
  switch (cluster.settings().order) {
    case Order::kRandom: {
      size_t i = cluster.random() % ready.size();
      // A starved thread that everybody polls for has its turn.
      if (cluster.idle_polls <= 3 * cluster.size()) {
        for (size_t tries = 0; tries < ready.size() && starved(cluster, *ready[i]); ++tries) {
          i = (i + 1) % ready.size();
        }
      }
      std::swap(ready[i], ready.back());
      picked = ready.back();
      ready.pop_back();
      return picked;
    }
    case Order::kReverse:
      // While somebody polls, the last one would only be the poller again.
      if (cluster.idle_polls == 0) {
        picked = ready.back();
        ready.pop_back();
        return picked;
      }
      break;
    case Order::kForward: break;
  }
  picked = ready.front();
  ready.pop_front();
  return picked;
}

// Bulk copies land by chance, and at the latest when nobody can go on without them.
void land_bulk_copies(Cluster &cluster) {
  auto &copies = cluster.copies_in_flight;
  if (copies.empty()) return;
  const Order order = cluster.settings().order;
  const bool by_chance = order == Order::kRandom && cluster.random() % 64 == 0;
  if (!by_chance && !cluster.ready.empty() && cluster.idle_polls <= 2 * cluster.live) return;
  size_t index = 0;
  if (order == Order::kReverse) index = copies.size() - 1;
  if (order == Order::kRandom) index = cluster.random() % copies.size();
  complete_bulk_copy(cluster, index);
}

void report_deadlock(Cluster &cluster) {
  const Thread *one = nullptr, *other = nullptr;
  for (const Thread &thread : cluster.threads) {
    if (thread.status == Status::kExited) continue;
    if (!one) one = &thread;
    else if (!other && (thread.status != one->status || thread.site.line != one->site.line))
      other = &thread;
  }
  char also[160] = "";
  if (other) {
    snprintf(also, sizeof also, "; thread %u of block %u waits at %s, line %d", other->index,
             other->block_index.x, status_name(other->status), other->site.line);
  }
  cluster.reports().add("deadlock", one->site,
                        "thread %u of block %u waits at %s for ever; %u of %u threads are live%s",
                        one->index, one->block_index.x, status_name(one->status), cluster.live,
                        cluster.size(), also);
}

void exit_thread(Thread &thread) {
  Cluster &cluster = *thread.cluster;
  Block &block = *thread.block;
  finish_async_copies(thread);
  thread.status = Status::kExited;
  cluster.idle_polls = 0;
  --block.live;
  --cluster.live;
  if (block.live == 0 && block.remote_use > cluster.barrier_epoch) {
    cluster.reports().add(
        "cluster", {cluster.launch->kernel.name, 0},
        "block rank %u exits, and no cluster barrier has followed another block's use "
        "of its shared memory",
        thread.cluster_rank);
  }
  // Nobody waits any longer for one that has exited.
  release_block_barrier(block, cluster);
  release_cluster_barrier(cluster);
  const unsigned first = thread.warp * kWarpSize;
  for (unsigned i = first; i < std::min(first + kWarpSize, block.threads); ++i) {
    release_warp(cluster.threads[block.first + i]);
  }
  if (block.live == 0) poison(block.shared, block.shared_bytes);
}

void thread_main() {
  Thread &thread = running();
  Launch &launch = *thread.cluster->launch;
  fiber_started(thread.cluster->scheduler);
  ++thread.block->started;
  launch.kernel.invoke(launch.kernel.function, launch.arguments);
  exit_thread(thread);
  switch_fiber(thread.fiber, thread.cluster->scheduler, true);
  abort();
}

void allocate(Cluster &cluster, const Extent &extent) {
  cluster.blocks.resize(extent.cluster);
  cluster.threads.resize(size_t(extent.cluster) * extent.block);
  cluster.stacks.allocate(cluster.threads.size());
  for (Block &block : cluster.blocks) {
    block.arena_bytes = extent.shared + kArenaMargin;
    block.arena.reset(new unsigned char[block.arena_bytes]);
  }
}

void prepare_shared_memory(Block &block, size_t bytes) {
  unsigned char *base = block.arena.get();
  const size_t total = block.arena_bytes;
  unpoison(base, total);
  block.shared = reinterpret_cast<unsigned char *>((uintptr_t(base) + 255) & ~uintptr_t(255));
  block.shared_bytes = bytes;
  memset(base, kPoison, total);
  poison(base, size_t(block.shared - base));
  poison(block.shared + bytes, size_t(base + total - (block.shared + bytes)));
}

void prepare_thread(Thread &thread, Cluster &cluster, Block &block, unsigned index,
                    unsigned block_number) {
  const Extent &extent = cluster.launch->extent;
  thread = Thread();
  thread.thread_index = {index, 0, 0};
  thread.block_index = {block_number, 0, 0};
  thread.block_dim = dim3(extent.block);
  thread.grid_dim = dim3(extent.grid);
  thread.lane = index % kWarpSize;
  thread.cluster_rank = block.rank;
  thread.cluster_size = extent.cluster;
  thread.shared = block.shared;
  thread.shared_bytes = block.shared_bytes;
  thread.block = &block;
  thread.cluster = &cluster;
  thread.index = index;
  thread.index_in_cluster = block.first + index;
  thread.warp = index / kWarpSize;
  thread.fiber.prepare(cluster.stacks[thread.index_in_cluster], FiberStacks::bytes_each(),
                       thread.index_in_cluster, &thread_main);
  cluster.ready.push_back(&thread);
}

void prepare(Cluster &cluster, Launch &launch, unsigned number) {
  const Extent &extent = launch.extent;
  cluster.launch = &launch;
  if (cluster.threads.empty()) allocate(cluster, extent);
  cluster.ready.clear();
  cluster.copies_in_flight.clear();
  cluster.copies_landed.clear();
  cluster.published.clear();
  cluster.released.clear();
  cluster.live = cluster.size();
  cluster.arrived = cluster.idle_polls = 0;
  cluster.random_state = (launch.device.settings.seed + 1) * 0x2545F4914F6CDD1D ^
                         (uint64_t(number) + 1) * 0x9E3779B97F4A7C15;
  cluster.random();
  cluster.victim = cluster.random();
  cluster.start_epoch = next_epoch();
  cluster.barrier_epoch = 0;
  for (unsigned rank = 0; rank < extent.cluster; ++rank) {
    Block &block = cluster.blocks[rank];
    block.rank = rank;
    block.first = rank * extent.block;
    block.threads = block.live = extent.block;
    block.started = block.arrived = 0;
    block.named_barriers.clear();
    block.epoch = next_epoch();
    block.remote_use = 0;
    prepare_shared_memory(block, extent.shared);
    for (unsigned i = 0; i < extent.block; ++i) {
      prepare_thread(cluster.threads[block.first + i], cluster, block, i,
                     number * extent.cluster + rank);
    }
  }
}

}  // namespace

uint32_t next_epoch() { return ++epoch_counter; }
uint32_t last_epoch() { return epoch_counter.load(); }

const char *status_name(Status status) {
  switch (status) {
    case Status::kReady: return "a loop that polls";
    case Status::kBlockBarrier: return "__syncthreads";
    case Status::kNamedBarrier: return "a named barrier";
    case Status::kClusterBarrier: return "a cluster barrier";
    case Status::kWarp: return "a warp function";
    case Status::kExited: return "its end";
  }
  return "?";
}

unsigned Cluster::random() {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return unsigned(random_state * 0x9E3779B97F4A7C15 >> 32);
}

Block *Cluster::owner_of_shared(const void *p) {
  for (Block &block : blocks) {
    if (uintptr_t(p) - uintptr_t(block.shared) < block.shared_bytes) return &block;
  }
  return nullptr;
}

void make_ready(Thread &thread) {
  thread.status = Status::kReady;
  thread.cluster->ready.push_back(&thread);
  thread.cluster->idle_polls = 0;
}

void leave(Thread &thread) { switch_fiber(thread.fiber, thread.cluster->scheduler, false); }

void yield(Site site) {
  Thread &thread = running();
  thread.site = site;
  const unsigned polls = thread.cluster->idle_polls + 1;
  make_ready(thread);
  thread.cluster->idle_polls = polls;
  leave(thread);
}

void trap(Site site) {
  Thread &thread = running();
  thread.cluster->reports().add("trap", site, "thread %u of block %u", thread.index,
                                thread.block_index.x);
  stop_at_fault(thread);
}

void report_misaligned(const void *p, size_t bytes, Site site) {
  const Thread &thread = running();
  thread.cluster->reports().add("misaligned address", site,
                                "%zu-byte access at ...%02x by thread %u of block %u", bytes,
                                unsigned(uintptr_t(p) & 0xff), thread.index, thread.block_index.x);
}

void report_shared_size(size_t needed, Site site) {
  const Thread &thread = running();
  thread.cluster->reports().add("shared memory", site,
                                "%zu bytes are used, and the launch gives %zu", needed,
                                thread.shared_bytes);
}

void run_cluster(Launch &launch, Cluster &cluster, unsigned number) {
  prepare(cluster, launch, number);
  while (cluster.live > 0 && !launch.stopped) {
    land_bulk_copies(cluster);
    Thread *thread = pick(cluster);
    if (!thread && !cluster.copies_in_flight.empty()) continue;
    if (!thread) {
      report_deadlock(cluster);
      launch.stopped = true;
      break;  // the stacks are dropped as they are
    }
    if (cluster.idle_polls > kMaxIdlePolls) {
      cluster.reports().add("livelock", thread->site, "thread %u of block %u polls for ever",
                            thread->index, thread->block_index.x);
      launch.stopped = true;
      break;
    }
    current = thread;
    switch_fiber(cluster.scheduler, thread->fiber, false);
    current = nullptr;
  }
  if (!launch.stopped && !cluster.copies_in_flight.empty()) {
    cluster.reports().add("bulk copy", {launch.kernel.name, 0},
                          "the cluster exited with a copy in flight");
  }
}

}  // namespace emulator
