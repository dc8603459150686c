// Loads and stores with cache hints, which check their alignment, and atomics.
#pragma once

namespace emulator {

// As one access of the whole size. A misaligned one, which a GPU faults on, is reported and carried
// out all the same.
template <class T> inline T load(const void *p, Site site) {
  if (reinterpret_cast<uintptr_t>(p) % sizeof(T)) report_misaligned(p, sizeof(T), site);
  T value;
  memcpy(&value, p, sizeof value);
  return value;
}

template <class T> inline void store(void *p, T value, Site site) {
  if (reinterpret_cast<uintptr_t>(p) % sizeof(T)) report_misaligned(p, sizeof(T), site);
  memcpy(p, &value, sizeof value);
}

// Blocks run on several threads of the host, so atomics are the host's. Relaxed, as CUDA's.
template <class T, class Change>
EMULATOR_UNCHECKED T read_modify_write(T *p, Change change, Site site) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "atomics take 4 or 8 bytes");
  if (reinterpret_cast<uintptr_t>(p) % sizeof(T)) report_misaligned(p, sizeof(T), site);
  atomic_access(p, sizeof(T));
  T before, after;
  __atomic_load(p, &before, __ATOMIC_RELAXED);
  do {
    after = change(before);
  } while (
      !__atomic_compare_exchange(p, &before, &after, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return before;
}

// Keeps a parameter out of template deduction: the pointer alone says the type.
template <class T> struct Exactly {
  using Type = T;
};
template <class T> using ExactlyT = typename Exactly<T>::Type;

}  // namespace emulator

#define EMULATOR_LOAD(name)                                                             \
  template <class T> T name(const T *p, emulator::Site site = emulator::Site::here()) { \
    return emulator::load<T>(p, site);                                                  \
  }
EMULATOR_LOAD(__ldg)
EMULATOR_LOAD(__ldca)
EMULATOR_LOAD(__ldcg)
EMULATOR_LOAD(__ldcs)
EMULATOR_LOAD(__ldcv)
EMULATOR_LOAD(__ldlu)
#undef EMULATOR_LOAD

#define EMULATOR_STORE(name)                                                                   \
  template <class T>                                                                           \
  void name(T *p, emulator::ExactlyT<T> value, emulator::Site site = emulator::Site::here()) { \
    emulator::store<T>(p, value, site);                                                        \
  }
EMULATOR_STORE(__stcg)
EMULATOR_STORE(__stcs)
EMULATOR_STORE(__stwb)
EMULATOR_STORE(__stwt)
#undef EMULATOR_STORE

// With the system's scope too, for memory that the host reads. Those with a block's are left out:
// the emulator could not tell when another block uses the word.
#define EMULATOR_ATOMIC(name, result)                                                          \
  template <class T> EMULATOR_UNCHECKED T name(T *p, emulator::ExactlyT<T> value,              \
                                               emulator::Site site = emulator::Site::here()) { \
    return emulator::read_modify_write(p, [=](T old) -> T { return result; }, site);           \
  }                                                                                            \
  template <class T> EMULATOR_UNCHECKED T name##_system(                                       \
      T *p, emulator::ExactlyT<T> value, emulator::Site site = emulator::Site::here()) {       \
    return name(p, value, site);                                                               \
  }
EMULATOR_ATOMIC(atomicAdd, old + value)
EMULATOR_ATOMIC(atomicSub, old - value)
EMULATOR_ATOMIC(atomicExch, (static_cast<void>(old), value))
EMULATOR_ATOMIC(atomicMin, old < value ? old : value)
EMULATOR_ATOMIC(atomicMax, old > value ? old : value)
EMULATOR_ATOMIC(atomicAnd, old &value)
EMULATOR_ATOMIC(atomicOr, old | value)
EMULATOR_ATOMIC(atomicXor, old ^ value)
EMULATOR_ATOMIC(atomicInc, old >= value ? T(0) : T(old + 1))
EMULATOR_ATOMIC(atomicDec, old == 0 || old > value ? value : T(old - 1))
#undef EMULATOR_ATOMIC

template <class T> EMULATOR_UNCHECKED T atomicCAS(T *p, emulator::ExactlyT<T> compare,
                                                  emulator::ExactlyT<T> value,
                                                  emulator::Site site = emulator::Site::here()) {
  return emulator::read_modify_write(
      p, [=](T old) -> T { return old == compare ? value : old; }, site);
}

template <class T>
EMULATOR_UNCHECKED T atomicCAS_system(T *p, emulator::ExactlyT<T> compare,
                                      emulator::ExactlyT<T> value,
                                      emulator::Site site = emulator::Site::here()) {
  return atomicCAS(p, compare, value, site);
}

// Calls of the library would go past the race detector.
#define memcpy emulator::copy_bytes
#define memset emulator::set_bytes
