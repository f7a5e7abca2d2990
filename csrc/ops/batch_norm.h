// Contract: batch normalisation, with an optional residual and ReLU in the same pass.
#pragma once
#include "core/types.h"

namespace fastarch {

// Element (o, c, i) of [outer, channels, inner] lies at (o * channels + c) * inner + i: images [N, C, H, W]
// with inner = H * W, rows [M, C] and channels-last images with inner = 1.
struct ChannelLayout {
  int64_t outer, channels, inner;
  FASTARCH_HOST_DEVICE int64_t size() const { return outer * channels * inner; }
  FASTARCH_HOST_DEVICE int64_t per_channel() const { return outer * inner; }
};

// T is the type of the data; parameters, statistics and their gradients [C] are P: float where T has 16 bits,
// else T. weight null is 1, bias null 0, residual null 0. Variances are biased (divided by their count).
//
// batch_norm_forward, training: mean, var: the batch's, overwritten. y = f((x - mean) / sqrt(var + eps) *
// weight + bias + residual), overwritten, f: none or relu. running_mean, running_var, null or updated:
// r += momentum * (new - r), where the new variance is unbiased. Every channel has at least two values.
//
// batch_norm_inference: the same y from a given mean and var.
//
// batch_norm_backward: dy, x, and y where f is relu; mean, var as in the forward. With g = dy where f passed
// it, else 0: dbias = sum of g, dweight = sum of g * (x - mean) / sqrt(var + eps), dresidual (null or
// overwritten) = g, and dx, all overwritten. training: mean and var depend on x; else they are constants.
template <class T, class P>
struct BatchNormForward {
  const T *x, *residual;
  const P *weight, *bias;
  P *running_mean, *running_var;
  T* y;
  P *mean, *var;
  ChannelLayout layout;
  double momentum, eps;
  bool relu;
};

template <class T, class P>
struct BatchNormInference {
  const T *x, *residual;
  const P *weight, *bias, *mean, *var;
  T* y;
  ChannelLayout layout;
  double eps;
  bool relu;
};

template <class T, class P>
struct BatchNormBackward {
  const T *dy, *x, *y;  // y null: f is none
  const P *weight, *mean, *var;
  T *dx, *dresidual;
  P *dweight, *dbias;
  ChannelLayout layout;
  double eps;
  bool training;
};

namespace cpu {

template <class T, class P>
void batch_norm_forward(const BatchNormForward<T, P>& call, Stream stream);
template <class T, class P>
void batch_norm_inference(const BatchNormInference<T, P>& call, Stream stream);
template <class T, class P>
void batch_norm_backward(const BatchNormBackward<T, P>& call, Stream stream);

}  // namespace cpu

namespace cuda {

template <class T, class P>
void batch_norm_forward(const BatchNormForward<T, P>& call, Stream stream);
template <class T, class P>
void batch_norm_inference(const BatchNormInference<T, P>& call, Stream stream);
template <class T, class P>
void batch_norm_backward(const BatchNormBackward<T, P>& call, Stream stream);

}  // namespace cuda
}  // namespace fastarch
