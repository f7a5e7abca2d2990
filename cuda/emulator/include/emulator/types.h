// CUDA's qualifiers and vector types, as plain C++.
#pragma once
#include <cstddef>
#include <cstdint>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) alignas(bytes)

// The alignments are CUDA's: a misaligned vector access is a fault on the device, and here under the
// sanitizer.
#define FASTARCH_VECTOR_TYPES(name, element, align2, align4)                              \
  struct name##1 { element x; };                                                          \
  struct alignas(align2) name##2 { element x, y; };                                       \
  struct name##3 { element x, y, z; };                                                    \
  struct alignas(align4) name##4 { element x, y, z, w; };                                 \
  constexpr name##1 make_##name##1(element x) { return {x}; }                             \
  constexpr name##2 make_##name##2(element x, element y) { return {x, y}; }               \
  constexpr name##3 make_##name##3(element x, element y, element z) { return {x, y, z}; } \
  constexpr name##4 make_##name##4(element x, element y, element z, element w) { return {x, y, z, w}; }

FASTARCH_VECTOR_TYPES(char, signed char, 2, 4)
FASTARCH_VECTOR_TYPES(uchar, unsigned char, 2, 4)
FASTARCH_VECTOR_TYPES(short, short, 4, 8)
FASTARCH_VECTOR_TYPES(ushort, unsigned short, 4, 8)
FASTARCH_VECTOR_TYPES(int, int, 8, 16)
FASTARCH_VECTOR_TYPES(uint, unsigned, 8, 16)
FASTARCH_VECTOR_TYPES(longlong, long long, 16, 16)
FASTARCH_VECTOR_TYPES(ulonglong, unsigned long long, 16, 16)
FASTARCH_VECTOR_TYPES(float, float, 8, 16)
FASTARCH_VECTOR_TYPES(double, double, 16, 16)
#undef FASTARCH_VECTOR_TYPES

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
  constexpr operator uint3() const { return {x, y, z}; }
};
