// Step by step: a multiply that goes on to the gates, or a multiply and one or two passes over the gates.
// Works for every cell and size.
#pragma once
#include "core/buffer.h"
#include "core/divide.h"
#include "core/half.h"
#include "gemm/dense.h"
#include "ops/recurrent.h"
#include "recurrent/cells.h"

namespace fastarch::cuda {

constexpr int kStepThreads = 256;

// Step by step means many small launches: element i is unit i % H of row i / H.
template <class Cell, class T>
__global__ void forward_cell_kernel(T* gates, const Wide<T>* product, const T* b_n, const T* before, T* h,
                                    Wide<T>* c, T* y, T* extra, int64_t size, int64_t units,
                                    Divider by_units) {
  using S = Wide<T>;
  for (int64_t i = global_thread(); i < size; i += grid_threads()) {
    const int64_t row = by_units.quotient(i), unit = i - row * units;
    const int64_t first = row * Cell::kGates * units + unit;
    S a[Cell::kGates], p[Cell::kGates];
#pragma unroll
    for (int g = 0; g < Cell::kGates; ++g) {
      a[g] = widen(gates[first + g * units]);
      p[g] = product[first + g * units];
    }
    S more = c ? c[i] : S(0);
    const T next = narrow<T>(Cell::forward(a, p, widen_or_zero(b_n, unit), widen_or_zero(before, i), more));
#pragma unroll
    for (int g = 0; g < Cell::kGates; ++g) gates[first + g * units] = narrow<T>(a[g]);
    if (c) c[i] = more;
    if (extra) extra[i] = narrow<T>(more);
    if (h) h[i] = next;
    y[i] = next;
  }
}

// One unit of one row on the way back: element i of [N, H], `first` of [N, GH]; dh: all of the state's
// gradient.
template <class Cell, class T>
__device__ __forceinline__ void backward_cell(const T* gates, const T* extra, const T* previous, Wide<T> dh,
                                              Wide<T>* dh_past, Wide<T>* dc, T* da, T* da_h, int64_t i,
                                              int64_t first, int64_t units) {
  using S = Wide<T>;
  S a[Cell::kGates], d[Cell::kGates], d_h[Cell::kGates];
#pragma unroll
  for (int g = 0; g < Cell::kGates; ++g) a[g] = widen(gates[first + g * units]);
  S more = dc ? dc[i] : S(0);
  dh_past[i] = Cell::backward(a, widen_or_zero(extra, i), widen_or_zero(previous, i), dh, more, d, d_h);
  if (dc) dc[i] = more;
#pragma unroll
  for (int g = 0; g < Cell::kGates; ++g) {
    da[first + g * units] = narrow<T>(d[g]);
    if (Cell::kOwnProductGradient) da_h[first + g * units] = narrow<T>(d_h[g]);
  }
}

template <class Cell, class T>
__global__ void backward_cell_kernel(const T* gates, const T* dy, const T* extra, const T* previous,
                                     Wide<T>* dh, Wide<T>* dc, T* da, T* da_h, int64_t size, int64_t units,
                                     Divider by_units) {
  for (int64_t i = global_thread(); i < size; i += grid_threads()) {
    const int64_t row = by_units.quotient(i), unit = i - row * units;
    backward_cell<Cell>(gates, extra, previous, dh[i] + widen_or_zero(dy, i), dh, dc, da, da_h, i,
                        row * Cell::kGates * units + unit, units);
  }
}

template <class T>
__global__ void copy_kernel(const T* from, T* to, int64_t size) {
  for (int64_t i = global_thread(); i < size; i += grid_threads()) to[i] = from[i];
}

// to = sum + more, rounded where to's type is narrower.
template <class S, class T>
__global__ void add_kernel(const S* sum, const S* more, T* to, int64_t size) {
  for (int64_t i = global_thread(); i < size; i += grid_threads()) to[i] = narrow<T>(sum[i] + more[i]);
}

template <class S, class T>
void add(const CallSite& name, const S* sum, const S* more, T* to, int64_t size, Stream stream) {
  launch(name, add_kernel<S, T>, grid_for(size, kStepThreads), kStepThreads, 0, stream, sum, more, to, size);
}

// GRU with the reset before the product takes two products a step, and so two passes each way.

// r and z, and r h for the second product.
template <class T>
__global__ void forward_reset_kernel(T* gates, const Wide<T>* product, const T* h, T* reset_h, int64_t size,
                                     int64_t units, Divider by_units) {
  for (int64_t i = global_thread(); i < size; i += grid_threads()) {
    const int64_t row = by_units.quotient(i), unit = i - row * units;
    T* const a = gates + row * 3 * units + unit;
    const Wide<T>* const p = product + row * 2 * units + unit;
    a[0] = narrow<T>(sigmoid(widen(a[0]) + p[0]));
    a[units] = narrow<T>(sigmoid(widen(a[units]) + p[units]));
    reset_h[i] = narrow<T>(widen(a[0]) * widen(h[i]));  // r as the weight gradient will have it
  }
}

// n, and the next h; product = w_hn (r h).
template <class T>
__global__ void forward_new_kernel(T* gates, const Wide<T>* product, T* h, T* y, int64_t size, int64_t units,
                                   Divider by_units) {
  for (int64_t i = global_thread(); i < size; i += grid_threads()) {
    const int64_t row = by_units.quotient(i), unit = i - row * units;
    T* const a = gates + row * 3 * units + unit;
    const Wide<T> n = tanh(widen(a[2 * units]) + product[i]);
    const T next = narrow<T>(n + widen(a[units]) * (widen(h[i]) - n));
    a[2 * units] = narrow<T>(n);
    h[i] = next;
    y[i] = next;
  }
}

// The gradients of n and z; d_new: that of n once more, dense, for the product with w_hn.
template <class T>
__global__ void backward_new_kernel(const T* gates, const T* dy, const T* previous, Wide<T>* dh, T* da,
                                    T* d_new, int64_t size, int64_t units, Divider by_units) {
  using S = Wide<T>;
  for (int64_t i = global_thread(); i < size; i += grid_threads()) {
    const int64_t row = by_units.quotient(i), unit = i - row * units;
    const int64_t first = row * 3 * units + unit;
    const S z = widen(gates[first + units]), n = widen(gates[first + 2 * units]);
    const S d = dh[i] + widen_or_zero(dy, i);
    const T dn = narrow<T>(d * (S(1) - z) * (S(1) - n * n));
    da[first + 2 * units] = dn;
    d_new[i] = dn;
    da[first + units] = narrow<T>(d * (widen(previous[i]) - n) * z * (S(1) - z));
    dh[i] = d * z;
  }
}

// The gradient of r from that of r h; d_both: r's and z's once more, dense, for the product with their
// weights.
template <class T>
__global__ void backward_reset_kernel(const T* gates, const T* previous, const Wide<T>* d_reset_h,
                                      Wide<T>* dh, T* da, T* d_both, int64_t size, int64_t units,
                                      Divider by_units) {
  for (int64_t i = global_thread(); i < size; i += grid_threads()) {
    const int64_t row = by_units.quotient(i), unit = i - row * units;
    const int64_t first = row * 3 * units + unit;
    const Wide<T> r = widen(gates[first]);
    const T dr = narrow<T>(d_reset_h[i] * widen(previous[i]) * r * (Wide<T>(1) - r));
    da[first] = dr;
    d_both[row * 2 * units + unit] = dr;
    d_both[row * 2 * units + units + unit] = da[first + units];
    dh[i] += d_reset_h[i] * r;
  }
}

// Calls body(rows, first packed row) for every step, in the order of the recurrence or against it.
template <class Body>
void each_step(const Recurrence& recurrence, bool last_first, Body&& body) {
  int64_t first = 0;
  if (last_first)
    for (int64_t t = 0; t < recurrence.steps; ++t) first += recurrence.sizes[t];
  for (int64_t k = 0; k < recurrence.steps; ++k) {
    const int64_t rows = recurrence.sizes[last_first ? recurrence.steps - 1 - k : k];
    if (last_first) first -= rows;
    if (rows) body(rows, first);
    if (!last_first) first += rows;
  }
}

// launch() over the elements of a step's rows.
template <class Kernel, class... Args>
void launch_rows(const CallSite& name, Kernel kernel, int64_t rows, int64_t units, Stream stream,
                 Args&&... args) {
  const int64_t size = rows * units;
  launch(name, kernel, grid_for(size, kStepThreads), kStepThreads, 0, stream, args..., size, units,
         Divider(units, size));
}

// A pointer moved to a packed row, null staying null.
template <class T>
T* at_row(T* array, int64_t row, int64_t width) {
  return array ? array + row * width : nullptr;
}

// In one launch, of a cell that is not GRU: gates, c, y and extra of a step's `rows` rows. The states before
// are those of `before` [known, H], and from row `known` on those of `first` [N, H].
template <class T>
void forward_step(const T* w_hh, const T* before, int64_t known, const T* first, T* gates, Wide<T>* c, T* y,
                  T* extra, Cell cell, int64_t rows, int64_t units, Stream stream);

// In one launch: dh += da_next [product_rows, GH] * w_hh, the part of the step visited before, and then the
// gates' gradients of this step's `rows` rows, as backward_cell_kernel; rows past them have ended.
template <class T>
void backward_step(const T* w_hh, const T* da_next, int64_t product_rows, const T* gates, const T* dy,
                   const T* extra, const T* previous, Wide<T>* dh, Wide<T>* dc, T* da, T* da_h, Cell cell,
                   int64_t rows, int64_t units, Stream stream);

template <class T>
void forward_steps(const T* w_hh, T* gates, T* h, Wide<T>* c, T* y, T* extra, const Recurrence& recurrence,
                   Stream stream) {
  const int64_t units = recurrence.units, width = gates_of(recurrence.cell) * units;
  const T* before = h;
  int64_t known = 0;
  const auto keep = [&](int64_t from, int64_t to) {  // last states, of sequences that ended
    if (from < to)
      launch("recurrent_forward", copy_kernel<T>, grid_for((to - from) * units, kStepThreads), kStepThreads,
             0, stream, before + from * units, h + from * units, (to - from) * units);
  };
  each_step(recurrence, recurrence.reverse, [&](int64_t rows, int64_t first) {
    keep(rows, known);
    forward_step(w_hh, before, known, static_cast<const T*>(h), gates + first * width, c, y + first * units,
                 at_row(extra, first, units), recurrence.cell, rows, units, stream);
    before = y + first * units;
    known = rows;
  });
  keep(0, known);
}

// The product by itself, then a pass over the gates.
template <class T>
void forward_steps_gru(const T* w_hh, const T* b_n, T* gates, T* h, T* y, T* extra,
                       const Recurrence& recurrence, Stream stream) {
  const int64_t units = recurrence.units, width = 3 * units;
  const Buffer<Wide<T>> product(recurrence.sequences * width, stream);
  each_step(recurrence, recurrence.reverse, [&](int64_t rows, int64_t first) {
    product_forward(static_cast<const T*>(h), w_hh, product.data(), rows, units, width, stream);
    launch_rows("recurrent_forward", forward_cell_kernel<GruCell, T>, rows, units, stream,
                gates + first * width, static_cast<const Wide<T>*>(product.data()), b_n,
                static_cast<const T*>(h), h, static_cast<Wide<T>*>(nullptr), y + first * units,
                extra + first * units);
  });
}

template <class T>
void forward_steps_reset_before(const T* w_hh, T* gates, T* h, T* y, const Recurrence& recurrence,
                                Stream stream) {
  const int64_t units = recurrence.units, both = 2 * units, n = recurrence.sequences;
  const T* const w_n = w_hh + both * units;
  const Buffer<Wide<T>> product(n * both, stream);
  const Buffer<T> reset_h(n * units, stream);
  each_step(recurrence, recurrence.reverse, [&](int64_t rows, int64_t first) {
    T* const a = gates + first * 3 * units;
    product_forward(static_cast<const T*>(h), w_hh, product.data(), rows, units, both, stream);
    launch_rows("recurrent_forward", forward_reset_kernel<T>, rows, units, stream, a,
                static_cast<const Wide<T>*>(product.data()), static_cast<const T*>(h), reset_h.data());
    product_forward(static_cast<const T*>(reset_h.data()), w_n, product.data(), rows, units, units, stream);
    launch_rows("recurrent_forward", forward_new_kernel<T>, rows, units, stream, a,
                static_cast<const Wide<T>*>(product.data()), h, y + first * units);
  });
}

template <class T>
void backward_steps(const T* w_hh, const T* gates, const T* dy, const T* extra, const T* previous,
                    Wide<T>* dh, Wide<T>* dc, T* da, T* da_h, const Recurrence& recurrence, Stream stream) {
  const int64_t units = recurrence.units, width = gates_of(recurrence.cell) * units;
  const T* da_next = nullptr;  // of the step that was visited before
  int64_t product_rows = 0;
  each_step(recurrence, !recurrence.reverse, [&](int64_t rows, int64_t first) {
    T* const d = da + first * width;
    T* const d_h = at_row(da_h, first, width);
    const auto of_step = [&](auto&& go) {
      go(gates + first * width, at_row(dy, first, units), at_row(extra, first, units),
         at_row(previous, first, units), dh, dc, d, d_h);
    };
    if (product_rows == 0) {
      with_cell(recurrence.cell, [&]<class Cell>() {
        of_step([&](auto*... arrays) {
          launch_rows("recurrent_backward", backward_cell_kernel<Cell, T>, rows, units, stream, arrays...);
        });
      });
    } else {
      of_step([&](auto*... arrays) {
        backward_step(w_hh, da_next, product_rows, arrays..., recurrence.cell, rows, units, stream);
      });
    }
    da_next = d_h ? d_h : d;
    product_rows = rows;
  });
  if (product_rows) {
    T* const none = nullptr;
    backward_step<T>(w_hh, da_next, product_rows, none, none, none, none, dh, dc, none, none, recurrence.cell,
                     0, units, stream);
  }
}

template <class T>
void backward_steps_reset_before(const T* w_hh, const T* gates, const T* dy, const T* previous, Wide<T>* dh,
                                 T* da, const Recurrence& recurrence, Stream stream) {
  const int64_t units = recurrence.units, n = recurrence.sequences;
  const T* const w_n = w_hh + 2 * units * units;
  const Buffer<Wide<T>> product(n * units, stream);
  const Buffer<T> d_new(n * units, stream), d_both(n * 2 * units, stream);
  each_step(recurrence, !recurrence.reverse, [&](int64_t rows, int64_t first) {
    const T* const a = gates + first * 3 * units;
    const T* const before = previous + first * units;
    T* const d = da + first * 3 * units;
    launch_rows("recurrent_backward", backward_new_kernel<T>, rows, units, stream, a,
                at_row(dy, first, units), before, dh, d, d_new.data());
    product_backward_input(static_cast<const T*>(d_new.data()), w_n, product.data(), rows, units, units,
                           stream);
    launch_rows("recurrent_backward", backward_reset_kernel<T>, rows, units, stream, a, before,
                static_cast<const Wide<T>*>(product.data()), dh, d, d_both.data());
    product_backward_input(static_cast<const T*>(d_both.data()), w_hh, product.data(), rows, units, 2 * units,
                           stream);
    add("recurrent_backward", static_cast<const Wide<T>*>(dh), static_cast<const Wide<T>*>(product.data()),
        dh, rows * units, stream);
  });
}

}  // namespace fastarch::cuda
