// Arithmetic and bit intrinsics. The approximate ones (__expf and the like) are exact here, so
// tests compare with tolerances.
#pragma once

inline int __float_as_int(float x) {
  int bits;
  memcpy(&bits, &x, 4);
  return bits;
}

inline unsigned __float_as_uint(float x) { return unsigned(__float_as_int(x)); }

inline float __int_as_float(int bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

inline float __uint_as_float(unsigned bits) { return __int_as_float(int(bits)); }

inline long long __double_as_longlong(double x) {
  long long bits;
  memcpy(&bits, &x, 8);
  return bits;
}

inline double __longlong_as_double(long long bits) {
  double x;
  memcpy(&x, &bits, 8);
  return x;
}

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }

inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int bit = 0; bit < 32; ++bit) reversed |= (x >> bit & 1) << (31 - bit);
  return reversed;
}

inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  return unsigned(((uint64_t(high) << 32 | low) << (shift & 31)) >> 32);
}

inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return unsigned((uint64_t(high) << 32 | low) >> (shift & 31));
}

// A selector's top bit spreads the sign of the byte over all its bits.
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selectors) {
  const uint64_t bytes = uint64_t(b) << 32 | a;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned selector = selectors >> (4 * i);
    unsigned byte = unsigned(bytes >> (8 * (selector & 7))) & 0xff;
    if (selector & 8) byte = byte & 0x80 ? 0xff : 0;
    result |= byte << (8 * i);
  }
  return result;
}

inline int __mulhi(int a, int b) { return int((int64_t(a) * b) >> 32); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned long long)((unsigned __int128)a * b >> 64);
}

namespace emulator {

// The one number where the other is NaN, 0x7fffffff for two NaNs, and +0 is larger than -0. The
// host's fmaxf leaves the last two open.
inline float fmaxf(float a, float b) {
  if (a != a) return b != b ? __int_as_float(0x7fffffff) : b;
  if (b != b) return a;
  if (a == b) return __int_as_float(__float_as_int(a) & __float_as_int(b));
  return a > b ? a : b;
}

inline float fminf(float a, float b) {
  if (a != a) return b != b ? __int_as_float(0x7fffffff) : b;
  if (b != b) return a;
  if (a == b) return __int_as_float(__float_as_int(a) | __float_as_int(b));
  return a < b ? a : b;
}

inline float expf(float x) { return ::expf(x); }
inline float exp10f(float x) { return ::powf(10.0f, x); }
inline float logf(float x) { return ::logf(x); }
inline float log2f(float x) { return ::log2f(x); }
inline float powf(float x, float y) { return ::powf(x, y); }

}  // namespace emulator

#define fmaxf emulator::fmaxf
#define fminf emulator::fminf
// The host's math library has these names for itself, so they cannot be defined.
#define __expf emulator::expf
#define __exp10f emulator::exp10f
#define __logf emulator::logf
#define __log2f emulator::log2f
#define __powf emulator::powf

inline float rsqrtf(float x) { return 1.0f / ::sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / ::sqrt(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return ::sqrtf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return ::fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __fma_rn(double a, double b, double c) { return ::fma(a, b, c); }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline float __double2float_rn(double x) { return float(x); }
inline float __int2float_rn(int x) { return float(x); }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
inline int __float2int_rn(float x) { return int(::rintf(x)); }
inline int __float2int_rd(float x) { return int(::floorf(x)); }

// CUDA's min and max mix types by the usual arithmetic conversions; on floats they are fmin and
// fmax.
template <class A, class B> inline std::common_type_t<A, B> max(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_same_v<T, float>) return fmaxf(a, b);
  else if constexpr (std::is_same_v<T, double>) return ::fmax(a, b);
  else return T(a) > T(b) ? T(a) : T(b);
}

template <class A, class B> inline std::common_type_t<A, B> min(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_same_v<T, float>) return fminf(a, b);
  else if constexpr (std::is_same_v<T, double>) return ::fmin(a, b);
  else return T(a) < T(b) ? T(a) : T(b);
}

using std::isfinite;
using std::isinf;
using std::isnan;
