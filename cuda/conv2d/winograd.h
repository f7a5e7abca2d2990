// 3x3 convolution, stride 1, one group, by Winograd's transforms (core/winograd.h): where the caller asks for
// it. Compiled by winograd.cu.
#pragma once
#include "ops/conv2d.h"

namespace fastarch::cuda::winograd {

// Whether the functions below take a convolution, in float32 or float64: the larger of its images has fewer
// than 2^31 pixels in all.
inline bool takes(const Conv2dShape& s) {
  const bool asked = s.algorithm == ConvAlgorithm::winograd2 || s.algorithm == ConvAlgorithm::winograd4;
  const bool plain = s.r == 3 && s.s == 3 && s.stride_h == 1 && s.stride_w == 1 && s.dilation_h == 1 &&
                     s.dilation_w == 1 && s.groups == 1;
  constexpr int64_t kMost = int64_t{1} << 31;
  return asked && plain && s.n * s.h * s.w < kMost && s.n * s.p * s.q < kMost;
}

// What the functions of ops/conv2d.h do.
template <class T>
void forward(const T* x, const T* weight, const T* bias, const T* residual, T* y, const Conv2dShape& s,
             Activation kind, Precision precision, Stream stream);

template <class T>
void backward_input(const T* dy, const T* weight, T* dx, const Conv2dShape& s, Precision precision,
                    Stream stream);

}  // namespace fastarch::cuda::winograd
