// Contract: elementwise activations.
#pragma once
#include "core/types.h"

namespace fastarch {

// One declaration per device, in the namespaces below.
//
// activation_forward: x: [n]; y: [n], overwritten; y may be x.
// activation_backward, from the *output* y: dx = dy * f'(x), where relu' is 0 where y <= 0 and else 1, tanh'
// = 1 - y*y, sigmoid' = y*(1 - y). dy, y: [n]; dx: [n], overwritten; dx may be dy.

namespace cpu {

template <class T>
void activation_forward(const T* x, T* y, int64_t n, Activation kind, Stream stream);
template <class T>
void activation_backward(const T* dy, const T* y, T* dx, int64_t n, Activation kind, Stream stream);

}  // namespace cpu

namespace cuda {

template <class T>
void activation_forward(const T* x, T* y, int64_t n, Activation kind, Stream stream);
template <class T>
void activation_backward(const T* dy, const T* y, T* dx, int64_t n, Activation kind, Stream stream);

}  // namespace cuda
}  // namespace fastarch
