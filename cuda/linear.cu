// Fully connected layer: three matrix products on the multiply of gemm/simt.h, gemm/mma.h and gemm/wgmma.h.
//
//   y  [m, out]  = x    [m, in]  * weight^T [in, out], then bias and activation
//   dx [m, in]   = dy   [m, out] * weight   [out, in]
//   dw [out, in] = dy^T [out, m] * x        [m, in];  db = the row sums of dy^T, in the same pass
#include "gemm/dense.h"
#include "gemm/matrix.h"
#include "gemm/mma.h"
#include "gemm/wgmma.h"
#include "ops/linear.h"

namespace fastarch::cuda {
namespace {

// A result whose sums are stored as they are, wider than the operands.
struct Sums {
  static constexpr bool kOverwrites = true;

  float* out;  // [M, N], overwritten
  int64_t pitch;

  __device__ __forceinline__ float* column(int64_t n) const { return out + n; }
  __device__ __forceinline__ void store(int64_t m, float* column, float sum) const {
    column[m * pitch] = sum;
  }
};

// One product of dense operands; AAlongK: A's rows, BAlongK: B's columns are contiguous in memory.
template <class T, bool AAlongK, bool BAlongK, bool RowSums, class Result = MatrixResult<T>>
struct Product {
  using Value = T;
  static constexpr bool kRowSums = RowSums;

  using Parts = Operands<Matrix<T, AAlongK>, Matrix<T, BAlongK>, Result, T>;

  Parts operands;

  std::string traits() const { return traits_of(operands.a) + " " + traits_of(operands.b); }

  __device__ __forceinline__ const Parts& at(int) const { return operands; }
};

template <class T, class Result = MatrixResult<T>>
using Forward = Product<T, true, true, false, Result>;
template <class T, class Result = MatrixResult<T>>
using InputGradient = Product<T, true, false, false, Result>;
template <class T>
using WeightGradient = Product<T, false, false, true>;

template <class Problem>
void product(const CallSite& name, const Problem& problem, const Shape& shape, bool row_sums, Stream stream,
             Precision precision) {
  if (!multiply_wgmma(name, problem, shape, row_sums, stream, precision))
    multiply(name, problem, shape, row_sums, stream, precision);
}

}  // namespace

bool set_wgmma(bool on) { return wgmma_switch().exchange(on); }
int64_t wgmma_products() { return wgmma_count(); }

template <class T>
void linear_forward(const T* x, const T* weight, const T* bias, T* y, int64_t m, int64_t in, int64_t out,
                    Activation kind, Precision precision, Stream stream) {
  const Forward<T> problem{{{x, m, in, in}, {weight, out, in, in}, {y, out, bias, kind}, m, out, in}};
  product("linear_forward", problem, {1, m, out, in}, false, stream, precision);
}

template <class T>
void linear_backward_input(const T* dy, const T* weight, T* dx, int64_t m, int64_t in, int64_t out,
                           Precision precision, Stream stream) {
  const InputGradient<T> problem{
      {{dy, m, out, out}, {weight, in, out, in}, {dx, in, nullptr, Activation::none}, m, in, out}};
  product("linear_backward_input", problem, {1, m, in, out}, false, stream, precision);
}

template <class T>
void linear_backward_weight(const T* dy, const T* x, T* dw, T* db, int64_t m, int64_t in, int64_t out,
                            Precision precision, Stream stream) {
  const WeightGradient<T> problem{
      {{dy, out, m, out}, {x, in, m, in}, {dw, in, nullptr, Activation::none}, out, in, m, db}};
  product("linear_backward_weight", problem, {1, out, in, m}, db != nullptr, stream, precision);
}

template <class T>
void linear_forward_wide(const T* x, const T* weight, float* y, int64_t m, int64_t in, int64_t out,
                         Stream stream) {
  const Forward<T, Sums> problem{{{x, m, in, in}, {weight, out, in, in}, {y, out}, m, out, in}};
  multiply("linear_forward", problem, {1, m, out, in}, false, stream, Precision::float32);
}

template <class T>
void linear_backward_input_wide(const T* dy, const T* weight, float* dx, int64_t m, int64_t in, int64_t out,
                                Stream stream) {
  const InputGradient<T, Sums> problem{{{dy, m, out, out}, {weight, in, out, in}, {dx, in}, m, in, out}};
  multiply("linear_backward_input", problem, {1, m, in, out}, false, stream, Precision::float32);
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

#define INSTANTIATE_WIDE(T)                                                                         \
  template void linear_forward_wide(const T*, const T*, float*, int64_t, int64_t, int64_t, Stream); \
  template void linear_backward_input_wide(const T*, const T*, float*, int64_t, int64_t, int64_t, Stream);
INSTANTIATE_WIDE(float16)
INSTANTIATE_WIDE(bfloat16)
#undef INSTANTIATE_WIDE

}  // namespace fastarch::cuda
