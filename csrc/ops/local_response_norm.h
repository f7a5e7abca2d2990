// Contract: local response normalisation across channels.
#pragma once
#include "core/types.h"

namespace fastarch {

// Data [outer, channels, inner]: images [N, C, H, W] with inner = H * W, channels-last ones with outer =
// N * H * W and inner = 1. Channel c sees the channels c - size / 2 to c + (size - 1) / 2 that exist:
// scale = k + alpha * (sum of their x^2), y = x / scale^beta. (An alpha that is meant for the mean of the
// squares comes divided by size.)
struct ResponseNorm {
  int64_t outer, channels, inner, size;
  double alpha, beta, k;
};

// One declaration per device, in the namespaces below.
// local_response_norm_forward: x; y overwritten.
// local_response_norm_backward: dy, x; dx overwritten = dy / scale^beta - 2 alpha beta x * (sum over the
// channels that see this one of dy x / scale^(beta + 1)).

namespace cpu {

template <class T>
void local_response_norm_forward(const T* x, T* y, const ResponseNorm& norm, Stream stream);
template <class T>
void local_response_norm_backward(const T* dy, const T* x, T* dx, const ResponseNorm& norm, Stream stream);

}  // namespace cpu

namespace cuda {

template <class T>
void local_response_norm_forward(const T* x, T* y, const ResponseNorm& norm, Stream stream);
template <class T>
void local_response_norm_backward(const T* dy, const T* x, T* dx, const ResponseNorm& norm, Stream stream);

}  // namespace cuda
}  // namespace fastarch
