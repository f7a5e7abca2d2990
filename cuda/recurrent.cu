// Recurrent layers: RNN, LSTM and GRU over the steps of a sequence. The inputs' share of the gates and the
// weight gradients are products over all steps, computed before and after; here is what goes step by step.
#include "ops/recurrent.h"
#include "recurrent/step.h"

namespace fastarch::cuda {

template <class T>
void recurrent_forward(const T* w_hh, const T* b_n, T* gates, T* h, T* c, T* y, T* extra,
                       const Recurrence& recurrence, Stream stream) {
  if (recurrence.sequences * recurrence.units == 0) return;
  if (recurrence.cell == Cell::gru_reset_before)
    forward_steps_reset_before(w_hh, gates, h, y, recurrence, stream);
  else
    forward_steps(w_hh, b_n, gates, h, c, y, extra, recurrence, stream);
}

template <class T>
void recurrent_backward(const T* w_hh, const T* gates, const T* dy, const T* extra, const T* previous, T* dh,
                        T* dc, T* da, T* da_h, const Recurrence& recurrence, Stream stream) {
  if (recurrence.sequences * recurrence.units == 0) return;
  if (recurrence.cell == Cell::gru_reset_before)
    backward_steps_reset_before(w_hh, gates, dy, previous, dh, da, recurrence, stream);
  else
    backward_steps(w_hh, gates, dy, extra, previous, dh, dc, da, da_h, recurrence, stream);
}

#define INSTANTIATE(T)                                                                                \
  template void recurrent_forward(const T*, const T*, T*, T*, T*, T*, T*, const Recurrence&, Stream); \
  template void recurrent_backward(const T*, const T*, const T*, const T*, const T*, T*, T*, T*, T*,  \
                                   const Recurrence&, Stream);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace fastarch::cuda
