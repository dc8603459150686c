// The detector of data races, accesses out of bounds and reads of uninitialised shared memory.
//
// In race mode the kernels are compiled with -fsanitize=thread, which makes every load and store
// call a function; those functions are ours (race_hooks.cpp). Which accesses are ordered is decided
// by what the kernel synchronises, never by the order in which they happen to run: so a race is
// reported in every schedule. In other modes all of this is empty.
#pragma once

#include "source.h"
#include "state.h"

namespace emulator {

enum class Access : uint8_t {
  kRead,
  kWrite,
  kAtomicRead,
  kAtomicWrite,
  kAtomicUpdate,
  kAsyncWrite,
};

#if EMULATOR_RACE

// `pc`: the return address, from which the source line is found. False where there is no memory.
bool race_access(Thread &thread, const void *p, size_t bytes, Access access, const void *pc);
// The thread has waited for an asynchronous write; `own`: by waiting for its own copies.
void race_landed(Thread &thread, const void *p, size_t bytes, bool own);
// What happened before a release of the object happens before what follows an acquire of it.
void race_release(Thread &thread, const void *object);
void race_acquire(Thread &thread, const void *object);
void race_warp_sync(Thread *const *threads, int count);
void race_block_barrier(Block &block, Cluster &cluster);
// An atomic access: publishes what the thread's last fence covers, and learns what others
// published.
void race_publish(Thread &thread, const void *p);
void race_start_launch(Device &device);
void race_forget(Device &device, uintptr_t address, size_t bytes);

// One access, as the shadow of the memory remembers it.
struct Remembered {
  uint32_t clock, epoch;
  uint32_t pc;        // relative to the start of the program
  uint16_t thread;    // in its cluster
  uint8_t bytes : 2;  // which of the cell's
  bool atomic : 1;
  bool async : 1;  // a copy that nobody has waited for
  bool valid : 1;
};

// Two bytes of memory: the last write, the last read, and reads that are concurrent with it.
struct Cell {
  Remembered write = {}, read = {};
  uint32_t more_reads = 0;  // index of a list, 0 for none
};

class RaceDetector {
 public:
  bool check(Thread &thread, uintptr_t p, size_t bytes, Access access, uint32_t pc);
  void landed(Thread &thread, uintptr_t p, size_t bytes, bool own);
  void publish(Thread &thread, const void *p);
  void start_launch();
  void forget(uintptr_t address, size_t bytes);

 private:
  struct Query;  // the access that is being checked

  Cell &cell(uintptr_t index);
  Cell *existing_cell(uintptr_t index);
  void expire(Cell &cell, uint32_t horizon);
  void drop_reads(Cell &cell);
  void check_cell(const Query &query, Cell &cell, unsigned bytes);
  void remember_read(const Query &query, Cell &cell, const Remembered &now);
  bool clashes(const Query &query, const Remembered &earlier, unsigned bytes) const;
  bool first_report(uint32_t earlier_pc, uint32_t pc);
  void report_outside(const Query &query);
  void report_race(const Query &query, const Remembered &earlier, bool earlier_writes);
  void report_uninitialised(const Query &query, const char *memory, size_t byte);
  void check_written(const Query &query);

  static constexpr int kCellBits = 1;
  static constexpr int kPageBits = 12;
  struct Page {
    Cell cells[1 << (kPageBits - kCellBits)];
  };
  std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages_;
  uintptr_t last_page_number_ = 0;  // neighbours are asked for one after another
  Page *last_page_ = nullptr;
  std::vector<std::vector<Remembered>> lists_ = std::vector<std::vector<Remembered>>(1);
  std::vector<uint32_t> free_lists_;
  std::unordered_map<const void *, std::vector<Published>> published_;
  std::unordered_map<uint64_t, bool> reported_;
  uint32_t launch_epoch_ = 0;
};

#else

class RaceDetector {};
inline bool race_access(Thread &, const void *, size_t, Access, const void *) { return true; }
inline void race_landed(Thread &, const void *, size_t, bool) {}
inline void race_release(Thread &, const void *) {}
inline void race_acquire(Thread &, const void *) {}
inline void race_warp_sync(Thread *const *, int) {}
inline void race_block_barrier(Block &, Cluster &) {}
inline void race_publish(Thread &, const void *) {}
inline void race_start_launch(Device &) {}
inline void race_forget(Device &, uintptr_t, size_t) {}

#endif

}  // namespace emulator
