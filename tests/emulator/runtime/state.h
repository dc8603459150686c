// What the emulator keeps of a device, and while a kernel runs of its clusters, blocks and threads.
//
// Every CUDA thread is a fiber. The blocks of a cluster share one scheduler, which runs on one
// thread of the host until they are done; clusters are spread over the host's threads.
#pragma once

#include <atomic>
#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "runtime_interface.h"
#include "fiber.h"
#include "memory.h"
#include "report.h"

namespace emulator {

constexpr unsigned kWarpSize = 32;
// What fresh memory is filled with: a NaN in every floating-point format.
constexpr unsigned char kPoison = 0xff;

enum class Order : int { kForward, kReverse, kRandom };

struct Settings {
  Order order = Order::kForward;
  uint64_t seed = 0;
  unsigned workers = 1;
  // Race mode: about one memory access in so many is followed by a switch; 0 for none.
  unsigned preemption = 0;
};

class RaceDetector;
struct Cluster;
struct Block;

struct Device {
  Device(int major, int minor);
  ~Device();

  int major, minor;
  Settings settings;
  DeviceMemory memory;
  Reports reports;
  std::string message;  // of the last call that failed
  std::unique_ptr<RaceDetector> races;
};

struct Extent {
  unsigned grid, block, cluster, shared;
};

struct Launch {
  Device &device;
  const Kernel &kernel;
  Extent extent;
  void **arguments;
  std::atomic<bool> stopped{false};  // by a fault, as a GPU would be
};

enum class Status : uint8_t {
  kReady,
  kBlockBarrier,
  kNamedBarrier,
  kClusterBarrier,
  kWarp,
  kExited,
};
const char *status_name(Status status);

// One cp.async.
struct AsyncCopy {
  void *to;
  const void *from;
  unsigned bytes, source_bytes;
  bool done;
};

// What a thread knows of the clocks of others: of its own warp always, of the rest of the cluster
// once it has synchronised with them one by one. What it learns at a block's or cluster's barrier
// is kept as epochs instead.
struct VectorClock {
  uint32_t warp[kWarpSize] = {};
  std::vector<uint32_t> cluster;  // empty: nothing
};

struct Thread : ThreadView {
  Fiber fiber;
  Block *block = nullptr;
  Cluster *cluster = nullptr;
  unsigned index = 0;             // in the block
  unsigned index_in_cluster = 0;  // over all of its blocks
  unsigned warp = 0;              // in the block
  Status status = Status::kReady;
  Site site = {nullptr, 0};  // where it waits

  Vote vote = Vote::kNone;  // of its block barrier
  int predicate = 0;
  int named_threads = 0;  // of its named barrier
  WarpOp warp_op = WarpOp::kSync;
  unsigned mask = 0;
  int source_lane = 0;
  uint64_t value = 0;
  uint64_t result = 0;

  struct {
    uintptr_t address, pc;
    int signal;  // 0: none
  } fault = {0, 0, 0};

  std::vector<std::vector<AsyncCopy>> copy_groups;  // oldest first; the last one is open

  // Race mode.
  uint32_t clock = 1;
  uint32_t clock_at_barrier = 0;  // the last one of the block
  VectorClock known;
  bool fenced = false;  // no plain write to device memory since the last fence
};

struct Block {
  unsigned rank = 0;                // in the cluster
  unsigned first = 0, threads = 0;  // its part of the cluster's threads
  unsigned live = 0, started = 0, arrived = 0;
  std::unique_ptr<unsigned char[]> arena;
  size_t arena_bytes = 0;
  unsigned char *shared = nullptr;
  size_t shared_bytes = 0;
  std::map<int, std::vector<Thread *>> named_barriers;  // who waits
  uint32_t epoch = 0;                                   // goes up at every barrier
  uint32_t remote_use = 0;  // when another block last asked for our shared memory
};

// One bulk copy.
struct BulkCopy {
  void *to;
  const void *from;
  unsigned bytes;
  uint64_t *barrier;
};

// Accesses of other clusters that are known to have happened: those of a range of epochs, of one
// thread or of all (-1).
struct Published {
  uint32_t first, last;
  int thread;
};

struct Cluster {
  Launch *launch = nullptr;
  std::vector<Block> blocks;
  std::vector<Thread> threads;
  std::deque<Thread *> ready;
  std::deque<BulkCopy> copies_in_flight;
  std::vector<BulkCopy> copies_landed;  // nobody has waited on their barrier yet
  unsigned live = 0, arrived = 0;
  unsigned idle_polls = 0;  // yields since anything else has happened
  Fiber scheduler;
  FiberStacks stacks;

  uint64_t random_state = 1;
  unsigned victim = 0;  // whom a random schedule starves

  uint32_t start_epoch = 0, barrier_epoch = 0;
  std::vector<Published> published;
  std::unordered_map<const void *, std::vector<uint32_t>> released;  // clocks, by barrier object

  unsigned size() const { return unsigned(threads.size()); }
  unsigned random();
  Settings &settings() { return launch->device.settings; }
  Reports &reports() { return launch->device.reports; }
  Block *owner_of_shared(const void *p);
};

// Epochs number barriers and launches, over all devices.
uint32_t next_epoch();
uint32_t last_epoch();

inline Thread &running() { return *static_cast<Thread *>(current); }

// The scheduler's side of waiting.
void make_ready(Thread &thread);
void leave(Thread &thread);  // returns when the thread is scheduled again
void run_cluster(Launch &launch, Cluster &cluster, unsigned number);

// Ends the launch. The thread's mistake has been reported, or the host has caught it.
[[noreturn]] void stop_at_fault(Thread &thread);
// From now on, the host's signals of bad accesses by kernels are reports.
void catch_faults();
// What a thread of the host needs for that.
class SignalStack {
 public:
  SignalStack();
  ~SignalStack();

 private:
  std::unique_ptr<char[]> memory_;
};

// Lets waiting threads go on if the last one has come, or has exited.
void release_block_barrier(Block &block, Cluster &cluster);
void release_cluster_barrier(Cluster &cluster);
void release_warp(Thread &thread);
void complete_bulk_copy(Cluster &cluster, size_t index);
void finish_async_copies(Thread &thread);

}  // namespace emulator
