// Warp functions. __activemask() is left out on purpose: what it returns is up to the hardware.
#pragma once

namespace emulator {

template <class T> EMULATOR_UNCHECKED uint64_t to_bits(T value) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "warp functions take 4 or 8 bytes");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  return bits;
}

template <class T> EMULATOR_UNCHECKED T from_bits(uint64_t bits) {
  T value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

template <class T> T shuffle(unsigned mask, T value, int source_lane, Site site) {
  return from_bits<T>(warp_operation(WarpOp::kShuffle, mask, to_bits(value), source_lane, site));
}

inline uint64_t vote(WarpOp op, unsigned mask, int predicate, Site site) {
  return warp_operation(op, mask, predicate != 0, -1, site);
}

// First lane of the segment of `width` lanes that this thread is in.
inline int segment(int width) { return int(self()->lane) & ~(width - 1); }

}  // namespace emulator

inline void __syncwarp(unsigned mask = ~0u, emulator::Site site = emulator::Site::here()) {
  emulator::warp_operation(emulator::WarpOp::kSync, mask, 0, -1, site);
}

template <class T> T __shfl_sync(unsigned mask, T value, int lane, int width = 32,
                                 emulator::Site site = emulator::Site::here()) {
  return emulator::shuffle(mask, value, emulator::segment(width) | (lane & (width - 1)), site);
}

template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                                    emulator::Site site = emulator::Site::here()) {
  const int self = emulator::self()->lane, from = self - int(delta);
  return emulator::shuffle(mask, value, from < emulator::segment(width) ? self : from, site);
}

template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                                      emulator::Site site = emulator::Site::here()) {
  const int self = emulator::self()->lane, from = self + int(delta);
  return emulator::shuffle(mask, value, from >= emulator::segment(width) + width ? self : from,
                           site);
}

template <class T> T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32,
                                     emulator::Site site = emulator::Site::here()) {
  const int self = emulator::self()->lane, from = self ^ lanes;
  return emulator::shuffle(mask, value, from >= emulator::segment(width) + width ? self : from,
                           site);
}

inline unsigned __ballot_sync(unsigned mask, int predicate,
                              emulator::Site site = emulator::Site::here()) {
  return unsigned(emulator::vote(emulator::WarpOp::kBallot, mask, predicate, site));
}

inline int __any_sync(unsigned mask, int predicate, emulator::Site site = emulator::Site::here()) {
  return int(emulator::vote(emulator::WarpOp::kAny, mask, predicate, site));
}

inline int __all_sync(unsigned mask, int predicate, emulator::Site site = emulator::Site::here()) {
  return int(emulator::vote(emulator::WarpOp::kAll, mask, predicate, site));
}

template <class T>
unsigned __match_any_sync(unsigned mask, T value, emulator::Site site = emulator::Site::here()) {
  return unsigned(
      emulator::warp_operation(emulator::WarpOp::kMatch, mask, emulator::to_bits(value), -1, site));
}

#define EMULATOR_REDUCE(name, type, op)                                                           \
  inline type name(unsigned mask, type value, emulator::Site site = emulator::Site::here()) {     \
    return type(emulator::warp_operation(emulator::WarpOp::op, mask, unsigned(value), -1, site)); \
  }
EMULATOR_REDUCE(__reduce_add_sync, unsigned, kReduceAdd)
EMULATOR_REDUCE(__reduce_add_sync, int, kReduceAdd)
EMULATOR_REDUCE(__reduce_min_sync, unsigned, kReduceMin)
EMULATOR_REDUCE(__reduce_min_sync, int, kReduceMinSigned)
EMULATOR_REDUCE(__reduce_max_sync, unsigned, kReduceMax)
EMULATOR_REDUCE(__reduce_max_sync, int, kReduceMaxSigned)
EMULATOR_REDUCE(__reduce_and_sync, unsigned, kReduceAnd)
EMULATOR_REDUCE(__reduce_or_sync, unsigned, kReduceOr)
EMULATOR_REDUCE(__reduce_xor_sync, unsigned, kReduceXor)
#undef EMULATOR_REDUCE
