// Convolution of images with the channels last, x [N, H, W, C], and its gradients: what ops/conv2d.h says of
// Layout::nhwc. Each function is compiled by a file of its own, channels_last_*.cu.
#pragma once
#include "core/vector.h"
#include "ops/conv2d.h"

namespace fastarch::cuda::channels_last {

template <class T>
void forward(const T* x, const T* weight, const T* bias, const T* residual, T* y, const Conv2dShape& s,
             Activation kind, Precision precision, Stream stream);

template <class T>
void backward_input(const T* dy, const T* weight, T* dx, const Conv2dShape& s, Precision precision,
                    Stream stream);

template <class T>
void backward_weight(const T* dy, const T* x, T* dw, T* db, const Conv2dShape& s, Precision precision,
                     Stream stream);

// Whether it is a product of dense matrices, a row for each pixel.
inline bool is_dense(const Conv2dShape& s) {
  const bool same = s.h == s.p && s.w == s.q && s.padding_h == 0 && s.padding_w == 0;
  return s.groups == 1 && s.r == 1 && s.s == 1 && s.stride_h == 1 && s.stride_w == 1 && same;
}

// Calls run<Width>() with the channels of a group of `images` that one load brings: 16 bytes of them, or one.
// (Of double only one: it has no tensor cores to feed.)
template <class T, class Run>
void with_width(const T* images, int64_t channels, Run&& run) {
  constexpr int kWide = sizeof(T) == 8 ? 1 : Pack<T>::size;
  if (channels % kWide == 0 && packable(images))
    run.template operator()<kWide>();
  else
    run.template operator()<1>();
}

}  // namespace fastarch::cuda::channels_last
