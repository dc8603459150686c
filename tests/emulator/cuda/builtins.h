// Built-in variables, barriers and fences.
#pragma once

#define threadIdx (emulator::self()->thread_index)
#define blockIdx (emulator::self()->block_index)
#define blockDim (emulator::self()->block_dim)
#define gridDim (emulator::self()->grid_dim)
constexpr int warpSize = 32;

inline void __syncthreads(emulator::Site site = emulator::Site::here()) {
  emulator::block_barrier(emulator::Vote::kNone, 0, site);
}

inline int __syncthreads_and(int predicate, emulator::Site site = emulator::Site::here()) {
  return emulator::block_barrier(emulator::Vote::kAnd, predicate, site);
}

inline int __syncthreads_or(int predicate, emulator::Site site = emulator::Site::here()) {
  return emulator::block_barrier(emulator::Vote::kOr, predicate, site);
}

inline int __syncthreads_count(int predicate, emulator::Site site = emulator::Site::here()) {
  return emulator::block_barrier(emulator::Vote::kCount, predicate, site);
}

// Within a block the emulator's execution is sequentially consistent, and orders nothing that a
// race could hide behind.
inline void __threadfence_block() {}

inline void __threadfence() { emulator::fence(); }

inline void __threadfence_system() { emulator::fence(); }

inline void __nanosleep(unsigned, emulator::Site site = emulator::Site::here()) {
  emulator::yield(site);
}

#define __trap() emulator::trap(emulator::Site::here())
