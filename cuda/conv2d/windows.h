// The windows of a convolution of channels-last images, as the multiplies of gemm/ want them described.
#pragma once
#include "gemm/channels_last.h"
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

// The same as patches for the other multiplies, `Width` channels at a time.
template <class T, int Width>
ChannelPatches<T, Width> patches_of(const T* x, const Conv2dShape& s) {
  return {.x = x,
          .image_pitch = s.h * s.w * s.c,
          .pixel_pitch = s.c,
          .height = static_cast<int>(s.h),
          .width = static_cast<int>(s.w),
          .columns = s.n * s.p * s.q,
          .taps = s.c / s.groups * s.r * s.s,
          .pixels = Grid(s.p, s.q),
          .window = Grid(s.r, s.s),
          .channels = FastDivider(s.c / s.groups),
          .stride_h = static_cast<int>(s.stride_h),
          .stride_w = static_cast<int>(s.stride_w),
          .origin_h = static_cast<int>(-s.padding_h),
          .origin_w = static_cast<int>(-s.padding_w),
          .step_h = static_cast<int>(s.dilation_h),
          .step_w = static_cast<int>(s.dilation_w)};
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
