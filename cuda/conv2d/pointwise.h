// Convolution with 1x1 filters, stride 1 and no padding: products of the images' channels as they lie, with
// 16-byte loads of pixels. Compiled by pointwise.cu.
#pragma once
#include "gemm/patches.h"
#include "ops/conv2d.h"

namespace fastarch::cuda::pointwise {

// Whether the functions below take a convolution that reads `images`, x or dy or both.
template <class... T>
bool takes(const Conv2dShape& s, const T*... images) {
  const bool same = s.h == s.p && s.w == s.q && s.padding_h == 0 && s.padding_w == 0;
  constexpr int64_t kWidth = (kVector<T> + ...) / sizeof...(T);
  return s.r == 1 && s.s == 1 && s.stride_h == 1 && s.stride_w == 1 && same && s.h * s.w % kWidth == 0 &&
         packable(images...);
}

// What conv2d_forward of ops/conv2d.h does; `result` is that of group 0.
template <class T>
void forward(const T* x, const T* weight, const ImageResult<T>& result, const Conv2dShape& s,
             Precision precision, Stream stream);

template <class T>
void backward_input(const T* dy, const T* weight, T* dx, const Conv2dShape& s, Precision precision,
                    Stream stream);

template <class T>
void backward_weight(const T* dy, const T* x, T* dw, T* db, const Conv2dShape& s, Precision precision,
                     Stream stream);

}  // namespace fastarch::cuda::pointwise
