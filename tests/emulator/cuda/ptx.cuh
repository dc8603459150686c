// Twin of kernels/include/ptx.cuh: the same functions without PTX. It comes first and takes that
// file's include guard.
#ifndef PREFUSE_PTX_CUH
#define PREFUSE_PTX_CUH

namespace prefuse {

using emulator::Site;

template <class T> inline T &block_shared(Site site = Site::here()) {
  if (emulator::self()->shared_bytes < sizeof(T)) emulator::report_shared_size(sizeof(T), site);
  return *reinterpret_cast<T *>(emulator::self()->shared);
}

inline uint4 ld16(const void *p, Site site = Site::here()) {
  return emulator::load<uint4>(p, site);
}

inline uint4 ld16_stream(const void *p, Site site = Site::here()) {
  return emulator::load<uint4>(p, site);
}

inline void st16(void *p, uint4 v, Site site = Site::here()) { emulator::store(p, v, site); }

inline void st16_stream(void *p, uint4 v, Site site = Site::here()) { emulator::store(p, v, site); }

inline float ex2(float x) { return emulator::ex2(x); }

inline float lg2(float x) { return emulator::lg2(x); }

inline float rcp(float x) { return emulator::rcp(x); }

inline uint32_t max_bf16x2(uint32_t a, uint32_t b) {
  return emulator::larger_halves<emulator::kBf16Infinity>(a, b);
}

inline uint32_t max_f16x2(uint32_t a, uint32_t b) {
  return emulator::larger_halves<emulator::kF16Infinity>(a, b);
}

inline uint32_t pack_bf16x2(float low, float high) {
  return emulator::to_bf16(low) | uint32_t(emulator::to_bf16(high)) << 16;
}

inline uint32_t pack_f16x2(float low, float high) {
  return emulator::to_f16(low) | uint32_t(emulator::to_f16(high)) << 16;
}

inline float f16_to_float(uint16_t bits) { return emulator::from_f16(bits); }

// Thread-block clusters.
inline uint32_t cluster_rank() { return emulator::self()->cluster_rank; }

inline uint32_t cluster_size() { return emulator::self()->cluster_size; }

inline void cluster_sync(Site site = Site::here()) { emulator::cluster_barrier(site); }

template <class T> inline T *cluster_map(T *p, uint32_t rank, Site site = Site::here()) {
  return static_cast<T *>(emulator::map_to_rank(p, rank, site));
}

// A barrier of the first warps that arrive, `threads` in all (bar.sync).
inline void named_barrier(int id, int threads, Site site = Site::here()) {
  emulator::named_barrier(id, threads, site);
}

// 16 bytes from device memory to shared memory (cp.async); bytes past `source_bytes` become 0.
inline void cp_async16(void *to, const void *from, uint32_t source_bytes = 16,
                       Site site = Site::here()) {
  emulator::async_copy(to, from, 16, source_bytes, site);
}

inline void cp_async_commit() { emulator::async_copy_commit(); }

template <int kGroupsInFlight> inline void cp_async_wait() {
  emulator::async_copy_wait(kGroupsInFlight);
}

// Barriers in shared memory that count arrivals and bytes, and bulk copies that report to them.
inline void mbarrier_init(uint64_t *barrier, uint32_t arrivals, Site site = Site::here()) {
  emulator::mbarrier_init(barrier, arrivals, site);
}

inline void mbarrier_init_fence() {}

inline void mbarrier_arrive(uint64_t *barrier, Site site = Site::here()) {
  emulator::mbarrier_arrive(barrier, 0, site);
}

inline void mbarrier_arrive_expect(uint64_t *barrier, uint32_t bytes, Site site = Site::here()) {
  emulator::mbarrier_arrive(barrier, bytes, site);
}

inline void mbarrier_wait(uint64_t *barrier, uint32_t parity, Site site = Site::here()) {
  while (!emulator::mbarrier_try_wait(barrier, parity, site)) {
  }
}

inline void bulk_copy_to_shared(void *to, const void *from, uint32_t bytes, uint64_t *barrier,
                                Site site = Site::here()) {
  emulator::bulk_copy(to, from, bytes, barrier, site);
}

}  // namespace prefuse

#endif  // PREFUSE_PTX_CUH
