// The windows of a convolution of channels-last images, for the multiply of gemm/wgmma_pixels.h.
#pragma once
#include "gemm/wgmma_pixels.h"
#include "ops/conv2d.h"

namespace fastarch::cuda::channels_last {

// x, read through the windows of y's pixels.
template <class T>
WindowSource<T> windows_of(const T* x, const Conv2dShape& s) {
  const auto axis = [](int64_t extent, int64_t count, int64_t taps, int64_t stride, int64_t dilation,
                       int64_t padding) {
    return WindowAxis{extent,
                      count,
                      static_cast<int>(taps),
                      static_cast<int>(stride),
                      static_cast<int>(dilation),
                      static_cast<int>(-padding)};
  };
  return {x, s.n, s.c, axis(s.h, s.p, s.r, s.stride_h, s.dilation_h, s.padding_h),
          axis(s.w, s.q, s.s, s.stride_w, s.dilation_w, s.padding_w)};
}

// dy, read through the windows of x's pixels, which are those of x the other way around. For stride 1.
template <class T>
WindowSource<T> gradient_windows_of(const T* dy, const Conv2dShape& s) {
  const auto axis = [](int64_t extent, int64_t count, int64_t taps, int64_t dilation, int64_t padding) {
    return WindowAxis{extent,
                      count,
                      static_cast<int>(taps),
                      1,
                      static_cast<int>(dilation),
                      static_cast<int>(padding - (taps - 1) * dilation),
                      true};
  };
  return {dy, s.n, s.k, axis(s.p, s.h, s.r, s.dilation_h, s.padding_h),
          axis(s.q, s.w, s.s, s.dilation_w, s.padding_w)};
}

}  // namespace fastarch::cuda::channels_last
