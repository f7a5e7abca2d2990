// Scalar functions that kernels and epilogues share.
#pragma once
#include "core/types.h"

namespace fastarch::cuda {

template <class T>
__device__ __forceinline__ T activate(T x, Activation kind) {
  switch (kind) {
    case Activation::relu:
      return x > T(0) ? x : (x != x ? x : T(0));  // NaN passes through, as in PyTorch
    case Activation::tanh:
      return tanh(x);
    case Activation::sigmoid:
      return T(1) / (T(1) + exp(-x));
    default:
      return x;
  }
}

// f'(x) from y = f(x).
template <class T>
__device__ __forceinline__ T activation_slope(T y, Activation kind) {
  switch (kind) {
    case Activation::relu:
      return y > T(0) ? T(1) : T(0);
    case Activation::tanh:
      return T(1) - y * y;
    case Activation::sigmoid:
      return y * (T(1) - y);
    default:
      return T(1);
  }
}

}  // namespace fastarch::cuda
