// One step of a recurrent cell: two products of the linear layer, then the gates.
#include <algorithm>

#include "cpu/dense.h"
#include "cpu/scratch.h"
#include "ops/recurrent.h"

namespace fastarch::cpu {
namespace {

// `from`, or zeros.
template <class T>
void copy_or_zeros(const T* from, T* to, int64_t size) {
  if (from)
    std::copy_n(from, size, to);
  else
    std::fill_n(to, size, T(0));
}

bool is_lstm(Cell cell) { return cell == Cell::lstm; }
bool is_gru(Cell cell) { return cell == Cell::gru; }

// The state before a step, which may be zeros.
template <class T>
class State {
 public:
  explicit State(const CellStep<T>& step) : zeros_(step.h ? 0 : step.sequences * step.units), h_(step.h) {
    if (h_) return;
    std::fill_n(zeros_.get(), step.sequences * step.units, T(0));
    h_ = zeros_.get();
  }
  const T* get() const { return h_; }

 private:
  Scratch<T> zeros_;
  const T* h_;
};

// A whole step: gates [N, GH] activated (RNN: scratch), y, c before -> after, extra [N, H] (LSTM, GRU) as of
// recurrent_gates_forward.
template <class T>
void run_step(const CellStep<T>& step, const T* h, T* gates, T* y, T* c, T* extra) {
  const int64_t n = step.sequences, units = step.units, width = gates_of(step.cell) * units;
  const Scratch<T> bias(width), product(n * width);
  // The bias inside GRU's reset product stays apart.
  const int64_t joined = step.b_hh ? is_gru(step.cell) ? 2 * units : width : 0;
  for (int64_t i = 0; i < width; ++i)
    bias[i] = (step.b_ih ? step.b_ih[i] : T(0)) + (i < joined ? step.b_hh[i] : T(0));
  linear_forward<T>(step.x, step.w_ih, bias.get(), gates, n, step.features, width, Activation::none,
                    Precision::float32, nullptr);
  if (step.h)
    linear_forward<T>(h, step.w_hh, nullptr, product.get(), n, units, width, Activation::none,
                      Precision::float32, nullptr);
  else
    std::fill_n(product.get(), n * width, T(0));
  const T* const b_n = is_gru(step.cell) && step.b_hh ? step.b_hh + 2 * units : nullptr;
  recurrent_gates_forward<T>(product.get(), b_n, is_gru(step.cell) ? h : nullptr, gates, c, y, extra,
                             step.cell, n, units, nullptr);
}

}  // namespace

template <class T>
void recurrent_cell_forward(const CellStep<T>& step, T* y, T* c_next, T* gates, T* extra, Stream) {
  const int64_t size = step.sequences * step.units;
  if (size == 0) return;
  const State<T> h(step);
  const bool gated = is_lstm(step.cell) || is_gru(step.cell);
  const Scratch<T> own_gates(gates ? 0 : gates_of(step.cell) * size), own_extra(extra || !gated ? 0 : size);
  if (c_next) copy_or_zeros(step.c, c_next, size);
  run_step(step, h.get(), gates ? gates : own_gates.get(), y, c_next,
           !gated  ? nullptr
           : extra ? extra
                   : own_extra.get());
}

template <class T>
void recurrent_cell_backward(const CellStep<T>& step, const T* gates, const T* extra, const T* dh,
                             const T* dc, T* da, T* da_h, T* dh_before, T* dc_before, Stream) {
  const int64_t n = step.sequences, units = step.units, size = n * units;
  if (size == 0) return;
  const bool lstm = is_lstm(step.cell), gru = is_gru(step.cell), again = !gates;
  const int64_t width = gates_of(step.cell) * units;
  const State<T> h(step);
  const Scratch<T> own_gates(again ? n * width : 0), y(again ? size : 0), c(lstm ? size : 0),
      c_before(lstm ? size : 0), own_extra(again && gru ? size : 0), d(size), d_c(lstm ? size : 0);
  if (lstm) {
    copy_or_zeros(step.c, c_before.get(), size);
    copy_or_zeros(dc, d_c.get(), size);
  }
  if (again) {
    const Scratch<T> c_state(lstm ? size : 0);
    if (lstm) std::copy_n(c_before.get(), size, c_state.get());
    run_step(step, h.get(), own_gates.get(), y.get(), lstm ? c_state.get() : nullptr,
             lstm  ? c.get()
             : gru ? own_extra.get()
                   : nullptr);
    gates = lstm || gru ? own_gates.get() : y.get();
    extra = own_extra.get();
  } else if (lstm) {
    for (int64_t row = 0; row < n; ++row) {
      const T* const a = gates + row * width;
      for (int64_t u = 0; u < units; ++u)
        c[row * units + u] = a[units + u] * c_before[row * units + u] + a[u] * a[2 * units + u];
    }
  }
  copy_or_zeros(dh, d.get(), size);
  recurrent_gates_backward<T>(gates,
                              lstm  ? c.get()
                              : gru ? extra
                                    : nullptr,
                              lstm  ? c_before.get()
                              : gru ? h.get()
                                    : nullptr,
                              d.get(), lstm ? d_c.get() : nullptr, da, da_h, step.cell, n, units, nullptr);
  if (dc_before) std::copy_n(d_c.get(), size, dc_before);
  if (!dh_before) return;
  linear_backward_input<T>(gru ? da_h : da, step.w_hh, dh_before, n, units, width, Precision::float32,
                           nullptr);
  if (gru)  // a part of dh goes past the product
    for (int64_t i = 0; i < size; ++i) dh_before[i] += d[i];
}

#define INSTANTIATE(T)                                                                                      \
  template void recurrent_cell_forward(const CellStep<T>&, T*, T*, T*, T*, Stream);                         \
  template void recurrent_cell_backward(const CellStep<T>&, const T*, const T*, const T*, const T*, T*, T*, \
                                        T*, T*, Stream);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace fastarch::cpu
