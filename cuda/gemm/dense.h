// Products of dense row-major matrices as functions, for kernels that go on from their results. They are
// compiled once, by linear.cu, whose contract describes them.
#pragma once
#include "core/half.h"
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

// The same of 16-bit operands, with the sums as they are: not rounded, without bias and activation.
template <class T>
void linear_forward_wide(const T* x, const T* weight, float* y, int64_t m, int64_t in, int64_t out,
                         Stream stream);
template <class T>
void linear_backward_input_wide(const T* dy, const T* weight, float* dx, int64_t m, int64_t in, int64_t out,
                                Stream stream);

// dw [out, in] = dy [m, out]^T * x [m, in]; db [out] (or null) = the sum of dy's rows.
template <class T>
void linear_backward_weight(const T* dy, const T* x, T* dw, T* db, int64_t m, int64_t in, int64_t out,
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

// For every float type: the product in the type of its sums.
template <class T>
void product_forward(const T* x, const T* weight, Compute<T>* y, int64_t m, int64_t in, int64_t out,
                     Stream stream) {
  if constexpr (kIsHalf<T>)
    linear_forward_wide(x, weight, y, m, in, out, stream);
  else
    linear_forward<T>(x, weight, nullptr, y, m, in, out, Activation::none, stream);
}
template <class T>
void product_backward_input(const T* dy, const T* weight, Compute<T>* dx, int64_t m, int64_t in, int64_t out,
                            Stream stream) {
  if constexpr (kIsHalf<T>)
    linear_backward_input_wide(dy, weight, dx, m, in, out, stream);
  else
    linear_backward_input(dy, weight, dx, m, in, out, stream);
}

}  // namespace fastarch::cuda
