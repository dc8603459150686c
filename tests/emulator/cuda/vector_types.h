// CUDA's built-in vector types, with its alignments.
#pragma once

#define EMULATOR_VECTOR_TYPES(scalar, name, align1, align2, align4)                 \
  struct name##1 { scalar x; };                                                     \
  struct alignas(align2) name##2 { scalar x, y; };                                  \
  struct name##3 { scalar x, y, z; };                                               \
  struct alignas(align4) name##4 { scalar x, y, z, w; };                            \
  static_assert(alignof(name##1) == align1);                                        \
  inline name##2 make_##name##2(scalar x, scalar y) { return {x, y}; }              \
  inline name##3 make_##name##3(scalar x, scalar y, scalar z) { return {x, y, z}; } \
  inline name##4 make_##name##4(scalar x, scalar y, scalar z, scalar w) { return {x, y, z, w}; }

EMULATOR_VECTOR_TYPES(signed char, char, 1, 2, 4)
EMULATOR_VECTOR_TYPES(unsigned char, uchar, 1, 2, 4)
EMULATOR_VECTOR_TYPES(short, short, 2, 4, 8)
EMULATOR_VECTOR_TYPES(unsigned short, ushort, 2, 4, 8)
EMULATOR_VECTOR_TYPES(int, int, 4, 8, 16)
EMULATOR_VECTOR_TYPES(unsigned, uint, 4, 8, 16)
EMULATOR_VECTOR_TYPES(long long, longlong, 8, 16, 16)
EMULATOR_VECTOR_TYPES(unsigned long long, ulonglong, 8, 16, 16)
EMULATOR_VECTOR_TYPES(float, float, 4, 8, 16)
EMULATOR_VECTOR_TYPES(double, double, 8, 16, 16)
#undef EMULATOR_VECTOR_TYPES

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
