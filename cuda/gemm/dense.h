// Products of dense row-major matrices as functions, for kernels that go on from their results. They are
// compiled once, by linear.cu, whose contract describes them.
#pragma once
#include "core/types.h"

namespace fastarch::cuda {

// y [m, out] = x [m, in] * weight [out, in]^T + bias [out] (or null), activated.
template <class T>
void linear_forward(const T* x, const T* weight, const T* bias, T* y, int64_t m, int64_t in, int64_t out,
                    Activation kind, Precision precision, Stream stream);

// dx [m, in] = dy [m, out] * weight [out, in].
template <class T>
void linear_backward_input(const T* dy, const T* weight, T* dx, int64_t m, int64_t in, int64_t out,
                           Precision precision, Stream stream);

// In float32 or float64 throughout.
template <class T>
void linear_forward(const T* x, const T* weight, const T* bias, T* y, int64_t m, int64_t in, int64_t out,
                    Activation kind, Stream stream) {
  linear_forward(x, weight, bias, y, m, in, out, kind, Precision::float32, stream);
}
template <class T>
void linear_backward_input(const T* dy, const T* weight, T* dx, int64_t m, int64_t in, int64_t out,
                           Stream stream) {
  linear_backward_input(dy, weight, dx, m, in, out, Precision::float32, stream);
}

}  // namespace fastarch::cuda
