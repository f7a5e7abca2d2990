// Fully connected layer: three matrix products on the multiply of gemm/simt.h and gemm/mma.h.
//
//   y  [m, out]  = x    [m, in]  * weight^T [in, out], then bias and activation
//   dx [m, in]   = dy   [m, out] * weight   [out, in]
//   dw [out, in] = dy^T [out, m] * x        [m, in];  db = the row sums of dy^T, in the same pass
#include "gemm/matrix.h"
#include "gemm/mma.h"
#include "ops/linear.h"

namespace fastarch::cuda {
namespace {

// One product of dense operands; AAlongK: A's rows, BAlongK: B's columns are contiguous in memory.
template <class T, bool AAlongK, bool BAlongK, bool RowSums>
struct Product {
  using Value = T;
  static constexpr bool kRowSums = RowSums;

  using Parts = Operands<Matrix<T, AAlongK>, Matrix<T, BAlongK>, MatrixResult<T>, T>;

  Parts operands;

  __device__ __forceinline__ const Parts& at(int) const { return operands; }
};

template <class T>
using Forward = Product<T, true, true, false>;
template <class T>
using InputGradient = Product<T, true, false, false>;
template <class T>
using WeightGradient = Product<T, false, false, true>;

}  // namespace

template <class T>
void linear_forward(const T* x, const T* weight, const T* bias, T* y, int64_t m, int64_t in, int64_t out,
                    Activation kind, Precision precision, Stream stream) {
  const Forward<T> problem{{{x, m, in, in}, {weight, out, in, in}, {y, out, bias, kind}, m, out, in}};
  multiply("linear_forward", problem, {1, m, out, in}, false, stream, precision);
}

template <class T>
void linear_backward_input(const T* dy, const T* weight, T* dx, int64_t m, int64_t in, int64_t out,
                           Precision precision, Stream stream) {
  const InputGradient<T> problem{
      {{dy, m, out, out}, {weight, in, out, in}, {dx, in, nullptr, Activation::none}, m, in, out}};
  multiply("linear_backward_input", problem, {1, m, in, out}, false, stream, precision);
}

template <class T>
void linear_backward_weight(const T* dy, const T* x, T* dw, T* db, int64_t m, int64_t in, int64_t out,
                            Precision precision, Stream stream) {
  const WeightGradient<T> problem{
      {{dy, out, m, out}, {x, in, m, in}, {dw, in, nullptr, Activation::none}, out, in, m, db}};
  multiply("linear_backward_weight", problem, {1, out, in, m}, db != nullptr, stream, precision);
}

#define INSTANTIATE(T)                                                                                       \
  template void linear_forward(const T*, const T*, const T*, T*, int64_t, int64_t, int64_t, Activation,      \
                               Precision, Stream);                                                           \
  template void linear_backward_input(const T*, const T*, T*, int64_t, int64_t, int64_t, Precision, Stream); \
  template void linear_backward_weight(const T*, const T*, T*, T*, int64_t, int64_t, int64_t, Precision,     \
                                       Stream);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(float16)
INSTANTIATE(bfloat16)
#undef INSTANTIATE

}  // namespace fastarch::cuda
