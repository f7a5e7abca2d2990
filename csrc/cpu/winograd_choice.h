// Whether a convolution may, and should, be computed by Winograd's transforms.
//
// F(2x2, 3x3) computes an output from the pixels that it sees alone, though these and the taps of a filter
// are mixed: its error is bounded by float32's precision times the largest of these pixels times the sum of
// the filter's magnitudes, as that of the direct sum is. Two things are different: infinity - infinity, where
// a direct sum has infinities of one sign, and what overflows or is subnormal on the way. So where the caller
// leaves the choice to us, an image is computed directly if it has a pixel beyond 2^60, infinite or NaN, and
// all of them are if a filter's largest weight is not 0 or within [2^-60, 2^60].
#pragma once
#include <array>
#include <vector>

#include "cpu/winograd.h"
#include "ops/conv2d.h"

namespace fastarch::cpu::winograd {

inline bool applies(const Conv2dShape& a) {
  return a.r == 3 && a.s == 3 && a.stride_h == 1 && a.stride_w == 1 && a.dilation_h == 1 &&
         a.dilation_w == 1 && a.groups == 1 && a.c > 0 && a.k > 0;
}

// Whether it was measured to be faster (docs/kernels-winograd.md).
inline bool pays(int64_t n, int64_t c, int64_t k, int64_t p, int64_t q) {
  const int64_t tiles = n * ceil_div(p, 2) * ceil_div(q, 2);
  return c >= 64 && k >= 64 && tiles >= 128 && 16 * tiles <= 5 * n * p * q;
}

// A float without its sign, as an integer: in the same order, NaN the largest.
using Magnitude = int32_t;

constexpr Magnitude kOne = 1 << 23;  // of the exponent
constexpr Magnitude kSmallest = (127 - 60) * kOne, kLargest = (127 + 60) * kOne;

// The largest of n, in any of the lanes.
constexpr int64_t kLanes = 128;
constexpr int64_t kPart = 65'536;  // of an image, for a thread
using Lanes = std::array<Magnitude, kLanes>;

inline void largest_of(const float* x, int64_t n, Lanes& lanes) {
  for (int64_t i = 0; i < n; i += kLanes)
    kernels<float>().largest_magnitudes(x + i, std::min(kLanes, n - i), lanes.data());
}

inline bool filters_in_range(const WinogradProblem<float>& a) {
  // Of each filter, in lanes: its taps where filters lie side by side, else pieces of the whole filter.
  const bool side_by_side = a.filter_step == 9;
  const int64_t lanes = side_by_side ? 9 : kLanes;
  const Scratch<Magnitude> largest(a.k * lanes);
  std::fill(largest.get(), largest.get() + a.k * lanes, 0);
  if (side_by_side) {
    for (int64_t c = 0; c < a.c; ++c)
      kernels<float>().largest_magnitudes(a.weight + c * a.channel_step, a.k * 9, largest.get());
  } else {
    for (int64_t k = 0; k < a.k; ++k)
      for (int64_t i = 0; i < a.c * 9; i += lanes)
        kernels<float>().largest_magnitudes(a.weight + k * a.filter_step + i, std::min(lanes, a.c * 9 - i),
                                            largest.get() + k * lanes);
  }
  for (int64_t k = 0; k < a.k; ++k) {
    const Magnitude most = *std::max_element(largest.get() + k * lanes, largest.get() + (k + 1) * lanes);
    if (most != 0 && (most < kSmallest || most > kLargest)) return false;
  }
  return true;
}

// Those of n images that may be computed so.
template <class T>
std::vector<int64_t> images_in_range(const WinogradProblem<T>& a, int64_t n) {
  std::vector<int64_t> images;
  if constexpr (std::is_same_v<T, float>) {
    const int64_t size = a.c * a.h * a.w;
    if (size == 0 || !filters_in_range(a)) return images;
    const int64_t parts = ceil_div(size, kPart);
    const Scratch<Magnitude> largest(n * parts);
    parallel_for(n * parts, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        Lanes lanes{};
        const int64_t first = i % parts * kPart;
        largest_of(a.x + i / parts * size + first, std::min(kPart, size - first), lanes);
        largest[i] = *std::max_element(lanes.begin(), lanes.end());
      }
    });
    for (int64_t i = 0; i < n; ++i)
      if (*std::max_element(largest.get() + i * parts, largest.get() + (i + 1) * parts) <= kLargest)
        images.push_back(i);
  }
  return images;
}

}  // namespace fastarch::cpu::winograd
