// Two-dimensional convolution and its gradients: three matrix products (conv2d/products.h) on the multiply of
// gemm/simt.h and gemm/mma.h. Images with the channels last have products of their own
// (conv2d/channels_last.h).
//
// Depthwise convolution has kernels of its own (depthwise/), 1x1 filters have readers of theirs
// (conv2d/pointwise.h), and 3x3 filters transforms (conv2d/winograd.h).
#include "conv2d/channels_last.h"
#include "conv2d/pointwise.h"
#include "conv2d/products.h"
#include "conv2d/winograd.h"
#include "depthwise/weights.h"
#include "ops/conv2d.h"

namespace fastarch::cuda {

template <class T>
void conv2d_forward(const T* x, const T* weight, const T* bias, const T* residual, T* y, const Conv2dShape& s,
                    Activation kind, Precision precision, Stream stream) {
  check_limits(s, "conv2d_forward");
  if (s.layout == Layout::nhwc)
    return channels_last::forward(x, weight, bias, residual, y, s, kind, precision, stream);
  if (depthwise::takes<T>(s, false)) return depthwise::forward(x, weight, bias, residual, y, s, kind, stream);
  if constexpr (!kIsHalf<T>) {
    if (winograd::takes(s))
      return winograd::forward(x, weight, bias, residual, y, s, kind, precision, stream);
  }
  const ImageResult<T> result{y, s.k * s.p * s.q, s.p * s.q, Grid(s.p, s.q), s.q, 1, bias, residual, kind};
  if (pointwise::takes(s, x)) return pointwise::forward(x, weight, result, s, precision, stream);
  multiply_forward("conv2d_forward", weight, input_patches<Grid>(x, s), result, s, precision, stream);
}

template <class T>
void conv2d_backward_input(const T* dy, const T* weight, T* dx, const Conv2dShape& s, Precision precision,
                           Stream stream) {
  check_limits(s, "conv2d_backward_input");
  if (s.layout == Layout::nhwc) return channels_last::backward_input(dy, weight, dx, s, precision, stream);
  if (depthwise::takes<T>(s, true)) return depthwise::backward_input(dy, weight, dx, s, stream);
  if constexpr (!kIsHalf<T>) {
    if (winograd::takes(s)) return winograd::backward_input(dy, weight, dx, s, precision, stream);
  }
  if (pointwise::takes(s, dy)) return pointwise::backward_input(dy, weight, dx, s, precision, stream);
  const Patches<T> patches{.x = dy,
                           .image_pitch = s.k * s.p * s.q,
                           .channel_pitch = static_cast<int>(s.p * s.q),
                           .height = static_cast<int>(s.p),
                           .width = static_cast<int>(s.q)};
  multiply_backward_input("conv2d_backward_input", patches, weight, dx, s, precision, stream);
}

template <class T>
void conv2d_backward_weight(const T* dy, const T* x, T* dw, T* db, const Conv2dShape& s, Precision precision,
                            Stream stream) {
  check_limits(s, "conv2d_backward_weight");
  if (s.layout == Layout::nhwc) return channels_last::backward_weight(dy, x, dw, db, s, precision, stream);
  if (depthwise::is_depthwise(s)) return depthwise::backward_weight(dy, x, dw, db, s, stream);
  if (pointwise::takes(s, dy, x)) return pointwise::backward_weight(dy, x, dw, db, s, precision, stream);
  const ChannelRows<T> rows(dy, s.k / s.groups, s.k * s.p * s.q, s.p * s.q);
  multiply_backward_weight("conv2d_backward_weight", rows, input_patches<Grid>(x, s), dw, db, s, precision,
                           stream);
}

#define INSTANTIATE(T)                                                                                     \
  template void conv2d_forward(const T*, const T*, const T*, const T*, T*, const Conv2dShape&, Activation, \
                               Precision, Stream);                                                         \
  template void conv2d_backward_input(const T*, const T*, T*, const Conv2dShape&, Precision, Stream);      \
  template void conv2d_backward_weight(const T*, const T*, T*, T*, const Conv2dShape&, Precision, Stream);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(float16)
INSTANTIATE(bfloat16)
#undef INSTANTIATE

}  // namespace fastarch::cuda
