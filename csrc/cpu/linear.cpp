// Fully connected layers: three calls of the blocked multiply.
#include "ops/linear.h"

#include <array>

#include "cpu/dense.h"
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

// One row x [in]: the batch would fill one lane of a vector, so vectors lie along `in`, where weights are
// read as they lie and once.
template <class T>
void one_row(const T* x, const T* weight, const T* bias, T* y, int64_t in, int64_t out, Activation kind) {
  constexpr int64_t kTogether = 64;
  const int64_t whole = in - in % kernels<T>().lanes;
  parallel_for(ceil_div(out, kTogether), 1 + 200000 / (kTogether * in), [&](int64_t begin, int64_t end) {
    std::array<int64_t, kTogether> offsets;
    for (int64_t o = 0; o < kTogether; ++o) offsets[static_cast<size_t>(o)] = o * in;
    for (int64_t first = begin * kTogether; first < std::min(out, end * kTogether); first += kTogether) {
      const int64_t count = std::min(kTogether, out - first);
      T* const to = y + first;
      std::fill(to, to + count, T(0));
      kernels<T>().dots(x, weight + first * in, offsets.data(), count, whole, to);
      for (int64_t o = 0; o < count; ++o) {
        const T* row = weight + (first + o) * in;
        for (int64_t i = whole; i < in; ++i) to[o] += x[i] * row[i];
        if (bias) to[o] += bias[first + o];
      }
      kernels<T>().activate(to, to, count, kind);
    }
  });
}

}  // namespace

template <class T>
void column_sums(const T* dy, T* db, int64_t m, int64_t out) {
  // Columns whose sums stay in the first cache, and rows that are summed apart, against rounding.
  constexpr int64_t kColumns = 256, kRows = 512;
  parallel_for(ceil_div(out, kColumns), 1 + 65536 / (kColumns * (m + 1)), [&](int64_t begin, int64_t end) {
    const int64_t last = std::min(out, end * kColumns);
    for (int64_t first = begin * kColumns; first < last; first += kColumns) {
      const int64_t count = std::min(kColumns, last - first);
      std::fill(db + first, db + first + count, T(0));
      for (int64_t i = 0; i < m;) {
        const int64_t stop = std::min(m, i + kRows);
        T sum[kColumns] = {};
        for (; i + 4 <= stop; i += 4) {
          const T* row = dy + i * out + first;
          for (int64_t o = 0; o < count; ++o)
            sum[o] = (((sum[o] + row[o]) + row[out + o]) + row[2 * out + o]) + row[3 * out + o];
        }
        for (; i < stop; ++i)
          for (int64_t o = 0; o < count; ++o) sum[o] += dy[i * out + first + o];
        for (int64_t o = 0; o < count; ++o) db[first + o] += sum[o];
      }
    }
  });
}

// Few rows: the transpose of y is multiplied, weights are read as they lie, and x, the smaller operand then,
// is packed. Many: the weights are.
template <class T>
void linear_forward(const T* x, const T* weight, const T* bias, T* y, int64_t m, int64_t in, int64_t out,
                    Activation kind, Precision, Stream) {
  if (m == 0 || out == 0) return;
  if (m == 1 && in >= 2 * kernels<T>().lanes) return one_row(x, weight, bias, y, in, out, kind);
  if (m * (in + out) > 2 * in * out) {
    // A tile reads the bias of whole vectors.
    const int64_t most = kernels<T>().lanes * kernels<T>().tile_vectors;
    const Scratch<T> padded(bias ? out + most : 0);
    if (bias) std::fill(std::copy_n(bias, out, padded.get()), padded.get() + out + most, T(0));
    Product<T, TransposedReader<T>, DenseWriter<T>>{
        m, out, in, {x, in, 1}, {weight, in}, {y, out}, nullptr, kind, bias ? padded.get() : nullptr}
        .run_parallel();
    return;
  }
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
  if (in < out) {  // the transpose of dw: the smaller operand's columns are brought together
    Product<T, DenseReader<T>, TransposedWriter<T>>{
        in, out, m, {x, 1, in}, {dy, out, worth_packing<T>(in, m, out)}, {dw, in}}
        .run_parallel();
    return;
  }
  Product<T, DenseReader<T>, DenseWriter<T>>{
      out, in, m, {dy, 1, out}, {x, in, worth_packing<T>(out, m, in)}, {dw, in}}
      .run_parallel();
}

#define INSTANTIATE(T)                                                                                       \
  template void column_sums(const T*, T*, int64_t, int64_t);                                                 \
  template void linear_forward(const T*, const T*, const T*, T*, int64_t, int64_t, int64_t, Activation,      \
                               Precision, Stream);                                                           \
  template void linear_backward_input(const T*, const T*, T*, int64_t, int64_t, int64_t, Precision, Stream); \
  template void linear_backward_weight(const T*, const T*, T*, T*, int64_t, int64_t, int64_t, Precision,     \
                                       Stream);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace fastarch::cpu
