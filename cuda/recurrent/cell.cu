// One step of a recurrent cell in one kernel each way: a product whose epilogue is the cell.
//
//   sums [N, 4H or H] = [x | h] [N, D + H] * [w_ih | w_hh]^T
//
// The columns are ordered so that the four sums of a unit (RNN: of four units) lie side by side, and the
// multiply hands them over together: sums never pass through memory. The way back starts from gates that were
// kept, or makes the same product again and goes on from there in its epilogue.
#include "recurrent/cells.h"
#include "recurrent/joined.h"
#include "recurrent/step.h"

namespace fastarch::cuda {
namespace {

// One sum by itself.
template <class T>
__device__ __forceinline__ Compute<T> dot(const T* a, const T* b, int64_t length) {
  Compute<T> sum = 0;
#pragma unroll 1
  for (int64_t k = 0; k < length; ++k) sum += widen(a[k]) * widen(b[k]);
  return sum;
}

// What both ways make of a unit's sums: the biases, then the cell.
template <class T>
struct CellResult {
  static constexpr bool kOverwrites = true;
  static constexpr int kTogether = 4;
  using S = Compute<T>;
  struct Columns {
    int64_t unit;  // RNN: the first of four
    S bias[kTogether];
  };

  CellStep<T> step;

  __device__ __forceinline__ bool gated() const { return columns_of(step.cell) > 1; }
  __device__ __forceinline__ Activation activation() const {
    return step.cell == Cell::rnn_relu ? Activation::relu : Activation::tanh;
  }

  __device__ __forceinline__ Columns columns(int64_t n) const {
    Columns found{gated() ? n / kTogether : n, {}};
    const bool gru = step.cell == Cell::gru;
#pragma unroll
    for (int v = 0; v < kTogether; ++v) {
      const int64_t unit = gated() ? found.unit : found.unit + v;
      if (unit >= step.units) continue;
      const int64_t row = gated() ? (gru && v == 3 ? 2 : v) * step.units + unit : unit;
      if (!(gru && v == 3)) found.bias[v] += widen_or_zero(step.b_ih, row);
      if (!(gru && v == 2)) found.bias[v] += widen_or_zero(step.b_hh, row);
    }
    return found;
  }

  // The activated gates of a unit; c: before -> after.
  __device__ __forceinline__ S lstm(const Columns& columns, const S (&sums)[4], S (&a)[4], S& c) const {
#pragma unroll
    for (int g = 0; g < 4; ++g) a[g] = sums[g] + columns.bias[g];
    return LstmCell::forward(a, {}, S(0), S(0), c);
  }
  // inner: the recurrent share of n, before the reset.
  __device__ __forceinline__ S gru(int64_t m, const Columns& columns, const S (&sums)[4], S h, S (&a)[3],
                                   S& inner) const {
#pragma unroll
    for (int g = 0; g < 3; ++g) a[g] = sums[g] + columns.bias[g];
    S share = sums[3];
    // The new gate's two sums met zeros in place of the other operand's weights, and 0 * inf is NaN.
    const int64_t row = 2 * step.units + columns.unit;
    if (sums[2] != sums[2])
      a[2] =
          dot(step.x + m * step.features, step.w_ih + row * step.features, step.features) + columns.bias[2];
    if (share != share)
      share = step.h ? dot(step.h + m * step.units, step.w_hh + row * step.units, step.units) : S(0);
    return GruCell::forward(a, {S(0), S(0), share}, columns.bias[3], h, inner);
  }
};

template <class T, int Gates, class S>
__device__ __forceinline__ void keep(T* to, int64_t m, int64_t unit, int64_t units,
                                     const S (&values)[Gates]) {
#pragma unroll
  for (int g = 0; g < Gates; ++g) to[(m * Gates + g) * units + unit] = narrow<T>(values[g]);
}

template <class T>
struct ForwardResult : CellResult<T> {
  using typename CellResult<T>::S;
  using typename CellResult<T>::Columns;

  T *y, *c_next;     // [N, H]
  T *gates, *extra;  // [N, GH], [N, H], or null

  __device__ __forceinline__ void store(int64_t m, const Columns& columns, const S (&sums)[4]) const {
    const CellStep<T>& step = this->step;
    const int64_t unit = columns.unit, at = m * step.units + unit;
    if (!this->gated()) {
#pragma unroll
      for (int v = 0; v < 4; ++v)
        if (unit + v < step.units)
          y[at + v] = narrow<T>(activate(sums[v] + columns.bias[v], this->activation()));
    } else if (step.cell == Cell::lstm) {
      S a[4], c = widen_or_zero(step.c, at);
      y[at] = narrow<T>(this->lstm(columns, sums, a, c));
      c_next[at] = narrow<T>(c);
      if (gates) keep(gates, m, unit, step.units, a);
    } else {
      S a[3], inner;
      y[at] = narrow<T>(this->gru(m, columns, sums, widen_or_zero(step.h, at), a, inner));
      if (gates) keep(gates, m, unit, step.units, a);
      if (extra) extra[at] = narrow<T>(inner);
    }
  }
};

template <class T>
struct BackwardResult : CellResult<T> {
  using typename CellResult<T>::S;
  using typename CellResult<T>::Columns;

  const T *dh, *dc;  // [N, H] or null
  T *da, *da_h;      // [N, GH]
  S* past;           // [N, H], GRU: what reaches h before past the product; or null
  T* dc_before;      // [N, H], or null

  __device__ __forceinline__ void store(int64_t m, const Columns& columns, const S (&sums)[4]) const {
    const CellStep<T>& step = this->step;
    const int64_t at = m * step.units + columns.unit;
    if (!this->gated()) {
#pragma unroll
      for (int v = 0; v < 4; ++v)
        if (columns.unit + v < step.units)
          finish_rnn(at + v, activate(sums[v] + columns.bias[v], this->activation()));
    } else if (step.cell == Cell::lstm) {
      S a[4], c = widen_or_zero(step.c, at);
      const S before = c;
      this->lstm(columns, sums, a, c);
      finish_lstm(m, columns.unit, a, c, before);
    } else {
      S a[3], inner;
      const S h = widen_or_zero(step.h, at);
      this->gru(m, columns, sums, h, a, inner);
      finish_gru(m, columns.unit, a, inner, h);
    }
  }

  // From what the forward kept.
  __device__ __forceinline__ void store_kept(int64_t m, int64_t unit, const T* gates, const T* extra) const {
    const CellStep<T>& step = this->step;
    const int64_t at = m * step.units + unit;
    if (!this->gated()) {
      finish_rnn(at, widen(gates[at]));
    } else if (step.cell == Cell::lstm) {
      S a[4];
      read(gates, m, unit, a);
      const S before = widen_or_zero(step.c, at);
      finish_lstm(m, unit, a, a[1] * before + a[0] * a[2], before);
    } else {
      S a[3];
      read(gates, m, unit, a);
      finish_gru(m, unit, a, widen(extra[at]), widen_or_zero(step.h, at));
    }
  }

 private:
  template <int Gates>
  __device__ __forceinline__ void read(const T* from, int64_t m, int64_t unit, S (&values)[Gates]) const {
#pragma unroll
    for (int g = 0; g < Gates; ++g) values[g] = widen(from[(m * Gates + g) * this->step.units + unit]);
  }
  __device__ __forceinline__ void finish_rnn(int64_t at, S y) const {
    da[at] = narrow<T>(activation_gradient(widen_or_zero(dh, at), y, this->activation()));
  }
  __device__ __forceinline__ void finish_lstm(int64_t m, int64_t unit, const S (&a)[4], S c, S before) const {
    const int64_t at = m * this->step.units + unit;
    S d[4], d_h[4], d_c = widen_or_zero(dc, at);
    LstmCell::backward(a, c, before, widen_or_zero(dh, at), d_c, d, d_h);
    keep(da, m, unit, this->step.units, d);
    if (dc_before) dc_before[at] = narrow<T>(d_c);
  }
  __device__ __forceinline__ void finish_gru(int64_t m, int64_t unit, const S (&a)[3], S inner, S h) const {
    const int64_t at = m * this->step.units + unit;
    S d[3], d_h[3], none = 0;
    const S skips = GruCell::backward(a, inner, h, widen_or_zero(dh, at), none, d, d_h);
    keep(da, m, unit, this->step.units, d);
    keep(da_h, m, unit, this->step.units, d_h);
    if (past) past[at] = skips;
  }
};

template <class T>
__global__ void kept_backward_kernel(const BackwardResult<T> result, const T* gates, const T* extra,
                                     int64_t size, Divider by_units) {
  for (int64_t i = global_thread(); i < size; i += grid_threads()) {
    const int64_t row = by_units.quotient(i);
    result.store_kept(row, i - row * result.step.units, gates, extra);
  }
}

template <class T, class Result>
void run_step(const CallSite& name, const CellStep<T>& step, const Result& result, Stream stream) {
  constexpr int64_t kMost = int64_t{1} << 30;
  check(step.features < kMost && step.units < kMost, name.name, "D=", step.features, " and H=", step.units,
        ", expected fewer than 2^30 each");
  const int features = static_cast<int>(step.features), units = static_cast<int>(step.units);
  const Joined<T, SequenceLines<T>> states({step.x, step.h, step.sequences, step.features, step.units},
                                           step.x, step.h, features, units);
  const Joined<T, GateLines<T>> weights({step.cell, step.w_ih, step.w_hh, step.features, step.units},
                                        step.w_ih, step.w_hh, features, units);
  const int64_t n = (columns_of(step.cell) * step.units + 3) / 4 * 4;
  const int64_t k = states.first_h + (step.h ? step.units : 0);  // a state of zeros needs no product
  multiply_cells<T>(name, states, weights, result, step.sequences, n, k, stream);
}

}  // namespace

template <class T>
void recurrent_cell_forward(const CellStep<T>& step, T* y, T* c_next, T* gates, T* extra, Stream stream) {
  if (step.sequences == 0 || step.units == 0) return;
  run_step("recurrent_cell_forward", step, ForwardResult<T>{{step}, y, c_next, gates, extra}, stream);
}

template <class T>
void recurrent_cell_backward(const CellStep<T>& step, const T* gates, const T* extra, const T* dh,
                             const T* dc, T* da, T* da_h, T* dh_before, T* dc_before, Stream stream) {
  using S = Compute<T>;
  const int64_t n = step.sequences, units = step.units, width = gates_of(step.cell) * units, size = n * units;
  if (size == 0) return;
  const bool apart = step.cell == Cell::gru && dh_before;  // a part of dh goes past the product
  const Buffer<S> past(apart ? size : 0, stream);
  const BackwardResult<T> result{{step}, dh, dc, da, da_h, apart ? past.data() : nullptr, dc_before};
  if (gates)
    launch("recurrent_cell_backward", kept_backward_kernel<T>, grid_for(size, kStepThreads), kStepThreads, 0,
           stream, result, gates, extra, size, Divider(units, size));
  else
    run_step("recurrent_cell_backward", step, result, stream);
  if (apart) {
    const Buffer<S> product(size, stream);
    product_backward_input(static_cast<const T*>(da_h), step.w_hh, product.data(), n, units, width, stream);
    add("recurrent_cell_backward", static_cast<const S*>(past.data()), static_cast<const S*>(product.data()),
        dh_before, size, stream);
  } else if (dh_before) {
    linear_backward_input(static_cast<const T*>(da), step.w_hh, dh_before, n, units, width, stream);
  }
}

#define INSTANTIATE(T)                                                                                      \
  template void recurrent_cell_forward(const CellStep<T>&, T*, T*, T*, T*, Stream);                         \
  template void recurrent_cell_backward(const CellStep<T>&, const T*, const T*, const T*, const T*, T*, T*, \
                                        T*, T*, Stream);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(float16)
INSTANTIATE(bfloat16)
#undef INSTANTIATE

}  // namespace fastarch::cuda
