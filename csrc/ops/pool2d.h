// Contract: max and average pooling, by sliding and by adaptive windows. Data lie as [planes, H, W, inner]:
// images [N, C, H, W] with planes = N * C and inner = 1, channels-last ones [N, H, W, C] with planes = N and
// inner = C.
#pragma once
#include "core/types.h"

namespace fastarch {

// One axis of sliding windows: window p covers the inputs p*stride - padding + r*dilation, 0 <= r < kernel,
// of which those outside [0, input) are padding. The output extent is given, so ceil_mode needs no argument.
struct PoolAxis {
  int input, output, kernel, stride, padding, dilation = 1;
};

struct Pool2d {
  int64_t planes;
  PoolAxis rows, columns;
  int64_t inner = 1;
};

// Extents of adaptive pooling: bin p covers [floor(p*H/P), ceil((p+1)*H/P)); bins may overlap.
struct AdaptivePool2d {
  int64_t planes;
  int height, width, out_height, out_width;
  int64_t inner = 1;
};

// One declaration per device, in the namespaces below. Every output is overwritten.
//
// max_pool2d_forward: x [planes, H, W, inner]; y [planes, P, Q, inner]; argmax null or of y's shape, the
// offset r*S + s of the maximum inside its window, as uint8_t (windows of at most 256) or int32_t. Padding
// counts as -inf; the first of equal maxima wins; NaN wins over numbers, and the last of several NaNs, as in
// PyTorch.
//
// max_pool2d_backward: dy, argmax [planes, P, Q, inner]; dx [planes, H, W, inner] gathers the dy of the
// windows it was the maximum of.
//
// adaptive_max_pool2d_*: the same with the bins of AdaptivePool2d for windows; the offset of row r and column
// s of a bin is r * (the bin's width) + s.
//
// avg_pool2d_*: the divisor of a window is its area clipped to the padded input (count_include_pad) or to the
// input. Sums run over rows, then columns, in ascending order; those over a whole plane in another fixed one.

namespace cpu {

template <class T, class A>
void max_pool2d_forward(const T* x, T* y, A* argmax, const Pool2d& pool, Stream stream);
template <class T, class A>
void max_pool2d_backward(const T* dy, const A* argmax, T* dx, const Pool2d& pool, Stream stream);

template <class T, class A>
void adaptive_max_pool2d_forward(const T* x, T* y, A* argmax, const AdaptivePool2d& pool, Stream stream);
template <class T, class A>
void adaptive_max_pool2d_backward(const T* dy, const A* argmax, T* dx, const AdaptivePool2d& pool,
                                  Stream stream);

template <class T>
void avg_pool2d_forward(const T* x, T* y, const Pool2d& pool, bool count_include_pad, Stream stream);
template <class T>
void avg_pool2d_backward(const T* dy, T* dx, const Pool2d& pool, bool count_include_pad, Stream stream);

template <class T>
void adaptive_avg_pool2d_forward(const T* x, T* y, const AdaptivePool2d& pool, Stream stream);
template <class T>
void adaptive_avg_pool2d_backward(const T* dy, T* dx, const AdaptivePool2d& pool, Stream stream);

}  // namespace cpu

namespace cuda {

template <class T, class A>
void max_pool2d_forward(const T* x, T* y, A* argmax, const Pool2d& pool, Stream stream);
template <class T, class A>
void max_pool2d_backward(const T* dy, const A* argmax, T* dx, const Pool2d& pool, Stream stream);

template <class T, class A>
void adaptive_max_pool2d_forward(const T* x, T* y, A* argmax, const AdaptivePool2d& pool, Stream stream);
template <class T, class A>
void adaptive_max_pool2d_backward(const T* dy, const A* argmax, T* dx, const AdaptivePool2d& pool,
                                  Stream stream);

template <class T>
void avg_pool2d_forward(const T* x, T* y, const Pool2d& pool, bool count_include_pad, Stream stream);
template <class T>
void avg_pool2d_backward(const T* dy, T* dx, const Pool2d& pool, bool count_include_pad, Stream stream);

template <class T>
void adaptive_avg_pool2d_forward(const T* x, T* y, const AdaptivePool2d& pool, Stream stream);
template <class T>
void adaptive_avg_pool2d_backward(const T* dy, T* dx, const AdaptivePool2d& pool, Stream stream);

}  // namespace cuda

// The instances that a device compiles for elements of type T, inside its namespace.
#define FASTARCH_INSTANTIATE_MAX_POOL2D(T, A)                                                 \
  template void max_pool2d_forward(const T*, T*, A*, const Pool2d&, Stream);                  \
  template void max_pool2d_backward(const T*, const A*, T*, const Pool2d&, Stream);           \
  template void adaptive_max_pool2d_forward(const T*, T*, A*, const AdaptivePool2d&, Stream); \
  template void adaptive_max_pool2d_backward(const T*, const A*, T*, const AdaptivePool2d&, Stream);
#define FASTARCH_INSTANTIATE_POOL2D(T)                                                    \
  FASTARCH_INSTANTIATE_MAX_POOL2D(T, uint8_t)                                             \
  FASTARCH_INSTANTIATE_MAX_POOL2D(T, int32_t)                                             \
  template void avg_pool2d_forward(const T*, T*, const Pool2d&, bool, Stream);            \
  template void avg_pool2d_backward(const T*, T*, const Pool2d&, bool, Stream);           \
  template void adaptive_avg_pool2d_forward(const T*, T*, const AdaptivePool2d&, Stream); \
  template void adaptive_avg_pool2d_backward(const T*, T*, const AdaptivePool2d&, Stream);

}  // namespace fastarch
