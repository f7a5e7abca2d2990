// Scalar functions that kernels and epilogues share.
#pragma once
#include <cuda_runtime.h>

#include "core/types.h"

namespace fastarch::cuda {

template <class T>
__device__ __forceinline__ T activate(T x, Activation kind) {
  switch (kind) {
    case Activation::relu: return x > T(0) ? x : (x != x ? x : T(0));  // NaN passes through, as in PyTorch
    case Activation::tanh: return tanh(x);
    case Activation::sigmoid: return T(1) / (T(1) + exp(-x));
    default: return x;
  }
}

// dy * f'(x), from y = f(x). Where relu is flat the gradient is 0 whatever dy is; a NaN in y lets dy through.
template <class T>
__device__ __forceinline__ T activation_gradient(T dy, T y, Activation kind) {
  switch (kind) {
    case Activation::relu: return y <= T(0) ? T(0) : dy;
    case Activation::tanh: return dy * (T(1) - y * y);
    case Activation::sigmoid: return dy * (y * (T(1) - y));
    default: return dy;
  }
}

}  // namespace fastarch::cuda
