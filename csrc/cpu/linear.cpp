// Fully connected layers: three calls of the blocked multiply.
#include "ops/linear.h"

#include "cpu/gemm.h"

namespace fastarch::cpu {
namespace {

// Whether rows of B, [depth] of them and `step` apart, are better copied into panels before `rows` products
// read them: when they do not stay in the second cache, or fall on the same lines of the first.
template <class T>
bool worth_packing(int64_t rows, int64_t depth, int64_t step) {
  constexpr int64_t kNear = 524'288, kAliased = 4096;  // bytes
  const int64_t bytes = step * static_cast<int64_t>(sizeof(T));
  return rows >= 16 && (depth * bytes > kNear || bytes % kAliased == 0);
}

// db[o] = sum of column o of dy [m, out], from the first row to the last.
template <class T>
void column_sums(const T* dy, T* db, int64_t m, int64_t out) {
  std::fill(db, db + out, T(0));
  for (int64_t i = 0; i < m; ++i)
    for (int64_t o = 0; o < out; ++o) db[o] += dy[i * out + o];
}

}  // namespace

// The transpose of y is multiplied: weights are read as they lie, x, the smaller operand as a rule, is
// packed.
template <class T>
void linear_forward(const T* x, const T* weight, const T* bias, T* y, int64_t m, int64_t in, int64_t out,
                    Activation kind, Precision, Stream) {
  if (m == 0 || out == 0) return;
  Product<T, TransposedReader<T>, TransposedWriter<T>>{out,     m,        in,   {weight, in, 1},
                                                       {x, in}, {y, out}, bias, kind}
      .run_parallel();
}

template <class T>
void linear_backward_input(const T* dy, const T* weight, T* dx, int64_t m, int64_t in, int64_t out, Precision,
                           Stream) {
  if (m == 0 || in == 0) return;
  Product<T, DenseReader<T>, DenseWriter<T>>{
      m, in, out, {dy, out, 1}, {weight, in, worth_packing<T>(m, out, in)}, {dx, in}}
      .run_parallel();
}

template <class T>
void linear_backward_weight(const T* dy, const T* x, T* dw, T* db, int64_t m, int64_t in, int64_t out,
                            Precision, Stream) {
  if (out == 0) return;
  if (db) column_sums(dy, db, m, out);
  if (in == 0) return;
  Product<T, DenseReader<T>, DenseWriter<T>>{
      out, in, m, {dy, 1, out}, {x, in, worth_packing<T>(out, m, in)}, {dw, in}}
      .run_parallel();
}

#define INSTANTIATE(T)                                                                                       \
  template void linear_forward(const T*, const T*, const T*, T*, int64_t, int64_t, int64_t, Activation,      \
                               Precision, Stream);                                                           \
  template void linear_backward_input(const T*, const T*, T*, int64_t, int64_t, int64_t, Precision, Stream); \
  template void linear_backward_weight(const T*, const T*, T*, T*, int64_t, int64_t, int64_t, Precision,     \
                                       Stream);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace fastarch::cpu
