// Barriers of blocks, of some warps, and of clusters.
#include "race.h"
#include "state.h"

namespace emulator {

void release_block_barrier(Block &block, Cluster &cluster) {
  // Threads that have exited are not waited for, as on the hardware.
  if (block.arrived == 0 || block.arrived < block.live) return;
  int all = 1, any = 0, count = 0;
  const Thread *first = nullptr;
  for (unsigned i = 0; i < block.threads; ++i) {
    const Thread &thread = cluster.threads[block.first + i];
    if (thread.status != Status::kBlockBarrier) continue;
    all &= thread.predicate != 0;
    any |= thread.predicate != 0;
    count += thread.predicate != 0;
    if (!first) first = &thread;
    const bool same = thread.site.file == first->site.file &&
                      thread.site.line == first->site.line && thread.vote == first->vote;
    if (!same) {
      cluster.reports().add("divergent barrier", thread.site,
                            "thread %u of block %u is here while thread %u is at line %d",
                            thread.index, thread.block_index.x, first->index, first->site.line);
    }
  }
  block.arrived = 0;
  race_block_barrier(block, cluster);
  for (unsigned i = 0; i < block.threads; ++i) {
    Thread &thread = cluster.threads[block.first + i];
    if (thread.status != Status::kBlockBarrier) continue;
    thread.result = uint64_t(thread.vote == Vote::kAnd  ? all
                             : thread.vote == Vote::kOr ? any
                                                        : count);
    make_ready(thread);
  }
}

int block_barrier(Vote vote, int predicate, Site site) {
  Thread &thread = running();
  thread.status = Status::kBlockBarrier;
  thread.vote = vote;
  thread.predicate = predicate;
  thread.site = site;
  ++thread.block->arrived;
  release_block_barrier(*thread.block, *thread.cluster);
  leave(thread);
  return int(thread.result);
}

void named_barrier(int id, int threads, Site site) {
  Thread &thread = running();
  Cluster &cluster = *thread.cluster;
  if (threads <= 0 || threads % int(kWarpSize) != 0) {
    cluster.reports().add("named barrier", site, "%d threads are not a multiple of %u", threads,
                          kWarpSize);
  }
  if (id < 0 || id > 15) {
    cluster.reports().add("named barrier", site, "barrier %d is not one of 0 to 15", id);
  }
  std::vector<Thread *> &waiting = thread.block->named_barriers[id];
  thread.status = Status::kNamedBarrier;
  thread.site = site;
  thread.named_threads = threads;
  waiting.push_back(&thread);
  for (const Thread *other : waiting) {
    if (other->named_threads == threads) continue;
    cluster.reports().add("named barrier", site, "barrier %d is used with %d and with %d threads",
                          id, threads, other->named_threads);
  }
  if (int(waiting.size()) >= threads) {
    for (Thread *other : waiting) race_release(*other, &waiting);
    for (Thread *other : waiting) race_acquire(*other, &waiting);
    std::vector<Thread *> arrived;
    arrived.swap(waiting);
    for (Thread *other : arrived) make_ready(*other);
  }
  leave(thread);
}

void release_cluster_barrier(Cluster &cluster) {
  if (cluster.arrived == 0 || cluster.arrived < cluster.live) return;
  cluster.arrived = 0;
  for (Block &block : cluster.blocks) race_block_barrier(block, cluster);
  cluster.barrier_epoch = last_epoch();
  for (Block &block : cluster.blocks) block.epoch = next_epoch();
  for (Thread &thread : cluster.threads) {
    if (thread.status == Status::kClusterBarrier) make_ready(thread);
  }
}

void cluster_barrier(Site site) {
  Thread &thread = running();
  // A cluster is one block there, and the twin for the GPU a barrier of that.
  if (thread.cluster->launch->device.major < 9) {
    block_barrier(Vote::kNone, 0, site);
    return;
  }
  thread.status = Status::kClusterBarrier;
  thread.site = site;
  ++thread.cluster->arrived;
  release_cluster_barrier(*thread.cluster);
  leave(thread);
}

void *map_to_rank(void *p, unsigned rank, Site site) {
  Thread &thread = running();
  Cluster &cluster = *thread.cluster;
  if (cluster.launch->device.major < 9) return p;
  Block *own = cluster.owner_of_shared(p);
  if (!own || rank >= cluster.blocks.size()) {
    cluster.reports().add("cluster", site, "%s",
                          own ? "there is no block of that rank in the cluster"
                              : "the address is not in dynamic shared memory");
    return p;
  }
  Block &other = cluster.blocks[rank];
  const char *problem = nullptr;
  if (!other.started) problem = "used before that block has started";
  else if (!other.live) problem = "used after that block has exited";
  else if (&other != own && cluster.barrier_epoch == 0)
    problem = "used before a cluster barrier has made sure that the block has started";
  if (problem)
    cluster.reports().add("cluster", site, "shared memory of block rank %u is %s", rank, problem);
  if (&other != own) other.remote_use = last_epoch();
  return other.shared + (static_cast<unsigned char *>(p) - own->shared);
}

}  // namespace emulator
