// 16-bit floats to and from float on the host, rounding to the nearest, ties to even. Kernels take
// cuda/core/half.h, which uses the device's instructions.
#pragma once
#include <cstring>

#include "core/types.h"

namespace fastarch {

inline float to_float(bfloat16 x) {
  const uint32_t bits = uint32_t{x.bits} << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline float to_float(float16 x) {
  const uint32_t sign = uint32_t{x.bits & 0x8000u} << 16, exponent = x.bits >> 10 & 0x1fu;
  const uint32_t fraction = x.bits & 0x3ffu;
  if (exponent == 0) {  // zero or subnormal: a multiple of 2^-24
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  const uint32_t wide = exponent == 31 ? 255 : exponent + (127 - 15);  // infinity and NaN keep the top one
  const uint32_t bits = sign | wide << 23 | fraction << 13;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

namespace detail {

constexpr uint32_t kInfinityBits = 0x7f800000u;

// value / 2^shift, rounded to an integer, ties to even; 1 <= shift < 32.
inline uint32_t shift_to_nearest(uint32_t value, int shift) {
  const uint32_t quotient = value >> shift, rest = value & ((uint32_t{1} << shift) - 1);
  const uint32_t half = uint32_t{1} << (shift - 1);
  return quotient + (rest > half || (rest == half && (quotient & 1)));
}

}  // namespace detail

// round_to<float16>(x): what is too large becomes infinite; a NaN stays one, quiet.
template <class T>
T round_to(float x);

template <>
inline bfloat16 round_to<bfloat16>(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if ((bits & 0x7fffffffu) > detail::kInfinityBits) return {static_cast<uint16_t>(bits >> 16 | 0x40u)};
  return {static_cast<uint16_t>(detail::shift_to_nearest(bits, 16))};  // a carry moves the exponent, rightly
}

template <>
inline float16 round_to<float16>(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude > detail::kInfinityBits) {
    half = 0x7e00u | (magnitude >> 13 & 0x1ffu);
  } else if (magnitude >= 0x47800000u) {  // 2^16
    half = 0x7c00u;
  } else if (magnitude >= 0x38800000u) {  // 2^-14, the smallest normal number; a carry may give infinity
    half = detail::shift_to_nearest(magnitude - ((127 - 15) << 23), 13);
  } else if (magnitude >= 0x33000000u) {  // 2^-25: rounds to a multiple of 2^-24
    const int exponent = static_cast<int>(magnitude >> 23);
    half = detail::shift_to_nearest((magnitude & 0x7fffffu) | 0x800000u, 126 - exponent);
  } else {
    half = 0;
  }
  return {static_cast<uint16_t>(sign | half)};
}

}  // namespace fastarch
