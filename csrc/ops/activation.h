// Contract: elementwise activations.
#pragma once
#include "core/types.h"

namespace fastarch {

namespace cuda {

// x: [n]; y: [n], overwritten; y may be x.
template <class T>
void activation_forward(const T* x, T* y, int64_t n, Activation kind, Stream stream);

// From the *output* y: dx = dy * f'(x), where relu' = 0 where y <= 0, else 1, tanh' = 1 - y*y, sigmoid' =
// y*(1 - y). dy, y: [n]; dx: [n], overwritten; dx may be dy.
template <class T>
void activation_backward(const T* dy, const T* y, T* dx, int64_t n, Activation kind, Stream stream);

}  // namespace cuda
}  // namespace fastarch
