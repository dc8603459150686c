// The GPU's conversions and maxima of 16-bit floats, and its ex2, lg2 and rcp, bit by bit.
#pragma once

namespace emulator {

constexpr uint16_t kBf16Infinity = 0x7f80;
constexpr uint16_t kF16Infinity = 0x7c00;

// To nearest even; every NaN becomes 0x7fff.
inline uint16_t to_bf16(float x) {
  const unsigned bits = __float_as_uint(x);
  if (x != x) return 0x7fff;
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// To nearest even; every NaN becomes 0x7fff.
inline uint16_t to_f16(float x) {
  const unsigned bits = __float_as_uint(x), sign = bits >> 16 & 0x8000;
  const unsigned magnitude = bits & 0x7fffffff;
  if (x != x) return 0x7fff;
  // 65520 and above round to a power of two that is out of range.
  if (magnitude >= 0x477ff000) return uint16_t(sign | kF16Infinity);
  if (magnitude >= 0x38800000) {  // 2^-14, the smallest normal number
    const unsigned rebased = magnitude - ((127 - 15) << 23);
    return uint16_t(sign | (rebased + 0xfff + (rebased >> 13 & 1)) >> 13);
  }
  // Next to 0.5 a float's last bit is 2^-24, the step of subnormal f16: the addition rounds.
  const float shifted = __uint_as_float(magnitude) + 0.5f;
  return uint16_t(sign | (__float_as_uint(shifted) - __float_as_uint(0.5f)));
}

inline float from_f16(uint16_t bits) {
  const unsigned sign = unsigned(bits & 0x8000) << 16;
  const unsigned exponent = bits >> 10 & 31, fraction = bits & 0x3ff;
  if (exponent == 31) return __uint_as_float(sign | 0x7f800000 | fraction << 13);
  if (exponent != 0) return __uint_as_float(sign | (exponent + 127 - 15) << 23 | fraction << 13);
  const float subnormal = float(fraction) * 0x1p-24f;
  return __uint_as_float(sign | __float_as_uint(subnormal));
}

// Larger of two numbers whose exponents are all ones at `infinity` and beyond. NaN loses, two NaNs
// give 0x7fff, and +0 is larger than -0.
template <uint16_t infinity> inline uint16_t larger_half(uint16_t a, uint16_t b) {
  const bool a_is_nan = (a & 0x7fff) > infinity, b_is_nan = (b & 0x7fff) > infinity;
  if (a_is_nan) return b_is_nan ? 0x7fff : b;
  if (b_is_nan) return a;
  // Sign and magnitude as a number that orders alike.
  auto key = [](uint16_t x) { return x & 0x8000 ? -int(x & 0x7fff) - 1 : int(x); };
  return key(a) >= key(b) ? a : b;
}

template <uint16_t infinity> inline uint32_t larger_halves(uint32_t a, uint32_t b) {
  const uint32_t high = larger_half<infinity>(uint16_t(a >> 16), uint16_t(b >> 16));
  return high << 16 | larger_half<infinity>(uint16_t(a), uint16_t(b));
}

// Subnormal arguments and results are 0. A GPU may differ elsewhere
// by 2 units in the last place.
inline float ex2(float x) {
  if (::fabsf(x) < 0x1p-126f) return 1.0f;
  if (x != x) return __uint_as_float(0x7fffffff);
  const float y = ::exp2f(x);
  return y < 0x1p-126f ? 0.0f : y;
}

inline float flushed(float x) { return ::fabsf(x) < 0x1p-126f ? ::copysignf(0.0f, x) : x; }

inline float lg2(float x) { return x != x ? __uint_as_float(0x7fffffff) : ::log2f(flushed(x)); }

inline float rcp(float x) {
  return x != x ? __uint_as_float(0x7fffffff) : flushed(1.0f / flushed(x));
}

}  // namespace emulator
