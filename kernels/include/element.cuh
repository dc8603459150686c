// The element types of logits, as bits: sources need no SDK header for half precision.
#pragma once

#include <stdint.h>

#include "ptx.cuh"

namespace prefuse {

constexpr float LOG2_E = 1.44269504088896340736f;
constexpr float LN_2 = 0.693147180559945309417f;

__device__ __forceinline__ float negative_infinity() { return __uint_as_float(0xff800000u); }
__device__ __forceinline__ float not_a_number() { return __uint_as_float(0x7fc00000u); }

// Each type: `Bits`, one element; `COUNT` elements in 16 bytes; `FILL`, a word of -inf; `unpack` and
// `pack` between 16 bytes and floats, exact one way and to nearest even the other; `larger`, the
// larger of each element of two words, where NaN loses; `maximum` of a word's elements.
struct F32 {
  using Bits = uint32_t;
  static constexpr int COUNT = 4;
  static constexpr uint32_t FILL = 0xff800000u;

  __device__ static float load(Bits bits) { return __uint_as_float(bits); }
  __device__ static Bits store(float value) { return __float_as_uint(value); }
  __device__ static uint32_t larger(uint32_t a, uint32_t b) {
    return __float_as_uint(fmaxf(__uint_as_float(a), __uint_as_float(b)));
  }
  __device__ static float maximum(uint32_t word) { return __uint_as_float(word); }
  __device__ static void unpack(uint4 v, float (&x)[COUNT]) {
    x[0] = __uint_as_float(v.x);
    x[1] = __uint_as_float(v.y);
    x[2] = __uint_as_float(v.z);
    x[3] = __uint_as_float(v.w);
  }
  __device__ static uint4 pack(const float (&x)[COUNT]) {
    return make_uint4(__float_as_uint(x[0]), __float_as_uint(x[1]), __float_as_uint(x[2]),
                      __float_as_uint(x[3]));
  }
};

// What the two 16-bit types share: two elements in a word, the first in the low half.
template <class Self> struct Half {
  using Bits = uint16_t;
  static constexpr int COUNT = 8;

  __device__ static float maximum(uint32_t word) {
    return fmaxf(Self::low(word), Self::high(word));
  }
  __device__ static void unpack(uint4 v, float (&x)[COUNT]) {
    const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      x[2 * i] = Self::low(words[i]);
      x[2 * i + 1] = Self::high(words[i]);
    }
  }
  __device__ static uint4 pack(const float (&x)[COUNT]) {
    return make_uint4(Self::two(x[0], x[1]), Self::two(x[2], x[3]), Self::two(x[4], x[5]),
                      Self::two(x[6], x[7]));
  }
  __device__ static Bits store(float value) { return Bits(Self::two(value, 0.0f)); }
};

struct BF16 : Half<BF16> {
  static constexpr uint32_t FILL = 0xff80ff80u;

  __device__ static float load(Bits bits) { return __uint_as_float(uint32_t(bits) << 16); }
  __device__ static float low(uint32_t word) { return __uint_as_float(word << 16); }
  __device__ static float high(uint32_t word) { return __uint_as_float(word & 0xffff0000u); }
  __device__ static uint32_t larger(uint32_t a, uint32_t b) { return max_bf16x2(a, b); }
  __device__ static uint32_t two(float low, float high) { return pack_bf16x2(low, high); }
};

struct F16 : Half<F16> {
  static constexpr uint32_t FILL = 0xfc00fc00u;

  __device__ static float load(Bits bits) { return f16_to_float(bits); }
  __device__ static float low(uint32_t word) { return f16_to_float(uint16_t(word)); }
  __device__ static float high(uint32_t word) { return f16_to_float(uint16_t(word >> 16)); }
  __device__ static uint32_t larger(uint32_t a, uint32_t b) { return max_f16x2(a, b); }
  __device__ static uint32_t two(float low, float high) { return pack_f16x2(low, high); }
};

}  // namespace prefuse
