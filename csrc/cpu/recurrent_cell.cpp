// One step of a recurrent cell: two products of the linear layer, then the gates.
#include <algorithm>

#include "cpu/dense.h"
#include "cpu/scratch.h"
#include "ops/recurrent.h"

namespace fastarch::cpu {
namespace {

// A step's gates [N, GH], activated, its next h and c, and what GRU keeps of its recurrent share.
template <class T>
class Gates {
 public:
  explicit Gates(const CellStep<T>& step)
      : step_(step),
        gates_(step.sequences * width()),
        product_(step.sequences * width()),
        extra_(step.sequences * step.units),
        zeros_(step.h ? 0 : step.sequences * step.units),
        h_(step.h) {
    const int64_t n = step.sequences, units = step.units, size = n * units;
    const bool gru = step.cell == Cell::gru;
    const Scratch<T> bias(width());
    // The bias inside GRU's reset product stays apart.
    const int64_t joined = step.b_hh ? gru ? 2 * units : width() : 0;
    for (int64_t i = 0; i < width(); ++i)
      bias[i] = (step.b_ih ? step.b_ih[i] : T(0)) + (i < joined ? step.b_hh[i] : T(0));
    product(step.x, step.w_ih, bias.get(), gates_.get(), step.features);
    if (step.h) {
      product(step.h, step.w_hh, nullptr, product_.get(), units);
    } else {
      std::fill_n(product_.get(), n * width(), T(0));
      std::fill_n(zeros_.get(), size, T(0));
      h_ = zeros_.get();
    }
  }

  // c: before -> after (LSTM).
  void finish(T* c, T* y) const {
    const bool gru = step_.cell == Cell::gru;
    recurrent_gates_forward<T>(product_.get(), gru && step_.b_hh ? step_.b_hh + 2 * step_.units : nullptr,
                               gru ? h_ : nullptr, gates_.get(), c, y,
                               gru || step_.cell == Cell::lstm ? extra_.get() : nullptr, step_.cell,
                               step_.sequences, step_.units, nullptr);
  }

  const T* gates() const { return gates_.get(); }
  const T* extra() const { return extra_.get(); }
  const T* h() const { return h_; }

  // c before, or zeros.
  void copy_c(T* to) const { copy_or_zeros(step_.c, to); }
  void copy_or_zeros(const T* from, T* to) const {
    const int64_t size = step_.sequences * step_.units;
    if (from)
      std::copy_n(from, size, to);
    else
      std::fill_n(to, size, T(0));
  }

 private:
  int64_t width() const { return gates_of(step_.cell) * step_.units; }

  void product(const T* x, const T* weight, const T* bias, T* y, int64_t depth) const {
    linear_forward(x, weight, bias, y, step_.sequences, depth, width(), Activation::none, Precision::float32,
                   nullptr);
  }

  const CellStep<T>& step_;
  Scratch<T> gates_, product_, extra_, zeros_;
  const T* h_;
};

}  // namespace

template <class T>
void recurrent_cell_forward(const CellStep<T>& step, T* y, T* c_next, Stream) {
  if (step.sequences == 0 || step.units == 0) return;
  const Gates<T> gates(step);
  if (c_next) gates.copy_c(c_next);
  gates.finish(c_next, y);
}

template <class T>
void recurrent_cell_backward(const CellStep<T>& step, const T* dh, const T* dc, T* da, T* da_h, T* dh_before,
                             T* dc_before, Stream) {
  const int64_t n = step.sequences, units = step.units, size = n * units;
  if (size == 0) return;
  const bool lstm = step.cell == Cell::lstm, gru = step.cell == Cell::gru;
  const Gates<T> gates(step);
  const Scratch<T> y(size), c(lstm ? size : 0), c_before(lstm ? size : 0), d(size), d_c(lstm ? size : 0);
  if (lstm) {
    gates.copy_c(c_before.get());
    gates.copy_c(c.get());
    gates.copy_or_zeros(dc, d_c.get());
  }
  gates.finish(lstm ? c.get() : nullptr, y.get());
  gates.copy_or_zeros(dh, d.get());
  recurrent_gates_backward<T>(lstm || gru ? gates.gates() : y.get(), lstm || gru ? gates.extra() : nullptr,
                              lstm  ? c_before.get()
                              : gru ? gates.h()
                                    : nullptr,
                              d.get(), lstm ? d_c.get() : nullptr, da, da_h, step.cell, n, units, nullptr);
  if (dc_before) std::copy_n(d_c.get(), size, dc_before);
  if (!dh_before) return;
  linear_backward_input(static_cast<const T*>(gru ? da_h : da), step.w_hh, dh_before, n, units,
                        gates_of(step.cell) * units, Precision::float32, nullptr);
  if (gru)  // a part of dh goes past the product
    for (int64_t i = 0; i < size; ++i) dh_before[i] += d[i];
}

#define INSTANTIATE(T)                                                      \
  template void recurrent_cell_forward(const CellStep<T>&, T*, T*, Stream); \
  template void recurrent_cell_backward(const CellStep<T>&, const T*, const T*, T*, T*, T*, T*, Stream);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace fastarch::cpu
