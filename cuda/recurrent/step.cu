// A step of a sequence in one launch each way: a product whose epilogue is the cell.
//
//   forward   sums [N, 4H or H] = h [N, H] * w_hh^T, four columns a unit side by side as in cell.cu; then the
//             gates
//   backward  sums [N, H] = the gradients of the gates [N, GH], of the step visited before, * w_hh; then the
//             gradients of this step's gates
//
// GRU's three sums a unit would leave a quarter of the forward's columns empty: it keeps two passes there.
#include "recurrent/joined.h"
#include "recurrent/step.h"

namespace fastarch::cuda {
namespace {

// Rows of the states before a step: of the step before, and of the sequences that begin with this one the
// first.
template <class T>
struct StateLines {
  const T *before, *first;  // [known, H], [N, H]
  int64_t known, sequences, units;

  __device__ __forceinline__ JoinedLine<T> line(int64_t m) const {
    if (m >= sequences) return {};
    return {nullptr, (m < known ? before : first) + m * units};
  }
};

template <class T>
struct StepGates {
  static constexpr int kTogether = 4;
  using S = Wide<T>;
  using Columns = int64_t;  // the unit; RNN: the first of four

  Cell cell;
  int64_t units;
  T* gates;      // [n, GH]: the inputs' share -> activated
  S* c;          // [n, H] (LSTM)
  T *y, *extra;  // [n, H]

  __device__ __forceinline__ bool gated() const { return columns_of(cell) > 1; }
  __device__ __forceinline__ Columns columns(int64_t n) const { return gated() ? n / kTogether : n; }
  __device__ __forceinline__ void store(int64_t m, Columns unit, const S (&sums)[4]) const {
    const int64_t at = m * units + unit;
    if (!gated()) {
      const Activation kind = cell == Cell::rnn_relu ? Activation::relu : Activation::tanh;
#pragma unroll
      for (int v = 0; v < 4; ++v)
        if (unit + v < units) y[at + v] = narrow<T>(activate(widen(gates[at + v]) + sums[v], kind));
      return;
    }
    T* const of_unit = gates + m * 4 * units + unit;
    S a[4], more = c[at];
#pragma unroll
    for (int g = 0; g < 4; ++g) a[g] = widen(of_unit[g * units]);
    y[at] = narrow<T>(LstmCell::forward(a, sums, S(0), S(0), more));
#pragma unroll
    for (int g = 0; g < 4; ++g) of_unit[g * units] = narrow<T>(a[g]);
    c[at] = more;
    extra[at] = narrow<T>(more);
  }
};

// Rows from `rows` on have ended: their sum is the last part of their dh. Rows from `product_rows` on begin,
// and have none, whatever the weights (zeros times infinity are not zero).
template <class T>
struct StepGradients {
  using S = Wide<T>;

  Cell cell;
  int64_t rows, product_rows, units;
  const T *gates, *dy, *extra, *previous;
  S *dh, *dc;  // dh: what reached the state without a product -> the same of the state before
  T *da, *da_h;

  __device__ __forceinline__ int64_t column(int64_t n) const { return n; }
  __device__ __forceinline__ void store(int64_t m, int64_t unit, S sum) const {
    const int64_t at = m * units + unit;
    S total = m < product_rows ? dh[at] + sum : dh[at];
    if (m >= rows) {
      dh[at] = total;
      return;
    }
    total += widen_or_zero(dy, at);
    switch (cell) {
      case Cell::lstm: return finish<LstmCell>(m, unit, total);
      case Cell::gru: return finish<GruCell>(m, unit, total);
      case Cell::rnn_relu: return finish<RnnCell<Activation::relu>>(m, unit, total);
      default: return finish<RnnCell<Activation::tanh>>(m, unit, total);
    }
  }

 private:
  template <class Kind>
  __device__ __forceinline__ void finish(int64_t m, int64_t unit, S total) const {
    backward_cell<Kind>(gates, extra, previous, total, dh, dc, da, da_h, m * units + unit,
                        m * Kind::kGates * units + unit, units);
  }
};

}  // namespace

template <class T>
void forward_step(const T* w_hh, const T* before, int64_t known, const T* first, T* gates, Wide<T>* c, T* y,
                  T* extra, Cell cell, int64_t rows, int64_t units, Stream stream) {
  const int depth = static_cast<int>(units);
  const Joined<T, StateLines<T>> states({before, first, known, rows, units}, before, first, 0, depth);
  const Joined<T, GateLines<T>> weights({cell, nullptr, w_hh, 0, units}, w_hh, w_hh, 0, depth);
  const StepGates<T> result{cell, units, gates, c, y, extra};
  const int64_t n = (columns_of(cell) * units + 3) / 4 * 4;
  multiply_cells<T>("recurrent_forward", states, weights, result, rows, n, units, stream);
}

template <class T>
void backward_step(const T* w_hh, const T* da_next, int64_t product_rows, const T* gates, const T* dy,
                   const T* extra, const T* previous, Wide<T>* dh, Wide<T>* dc, T* da, T* da_h, Cell cell,
                   int64_t rows, int64_t units, Stream stream) {
  const int64_t width = gates_of(cell) * units;
  const Matrix<T, true> gradients(da_next, product_rows, width, width);
  const Matrix<T, false> weights(w_hh, units, width, units);
  const StepGradients<T> result{cell,  rows,     product_rows, units, gates, dy,
                                extra, previous, dh,           dc,    da,    da_h};
  multiply_cells<T>("recurrent_backward", gradients, weights, result, std::max(rows, product_rows), units,
                    width, stream);
}

#define INSTANTIATE(T)                                                                                       \
  template void forward_step(const T*, const T*, int64_t, const T*, T*, Wide<T>*, T*, T*, Cell, int64_t,     \
                             int64_t, Stream);                                                               \
  template void backward_step(const T*, const T*, int64_t, const T*, const T*, const T*, const T*, Wide<T>*, \
                              Wide<T>*, T*, T*, Cell, int64_t, int64_t, Stream);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(float16)
INSTANTIATE(bfloat16)
#undef INSTANTIATE

}  // namespace fastarch::cuda
