// Recurrent layers: RNN, LSTM and GRU over the steps of a sequence. The inputs' share of the gates and the
// weight gradients are products over all steps, computed before and after; here is what goes step by step.
#include "ops/recurrent.h"
#include "recurrent/cluster.h"
#include "recurrent/cluster_mma.h"
#include "recurrent/persistent.h"
#include "recurrent/persistent_mma.h"
#include "recurrent/persistent_reset.h"
#include "recurrent/step.h"

namespace fastarch::cuda {
namespace {

// Whether a step is mostly waiting, of which a grid barrier costs less than a launch and weights read anew.
// Where it is arithmetic the blocked multiply does best: by count (docs/kernels-recurrent.md) beyond some
// thousand values of the state.
template <class T>
bool mostly_waits(const Recurrence& recurrence) {
  constexpr int64_t kMostSequences = 128, kMostState = kIsHalf<T> ? 32768 : 16384;
  const int64_t n = recurrence.sequences;
  return recurrence.steps > 1 && n <= kMostSequences && n * recurrence.units <= kMostState;
}

// Runs `persistent` where the caller wants it or it is the better choice, `clusters` where the caller wants
// them, else `steps`.
template <class T, class Persistent, class Clusters, class Steps>
void run(const char* name, const Recurrence& recurrence, Algorithm algorithm, Persistent&& persistent,
         Clusters&& clusters, Steps&& steps) {
  if (recurrence.sequences == 0 || recurrence.units == 0 || recurrence.steps == 0) return;
  const bool automatic = algorithm == Algorithm::automatic;
  if (algorithm == Algorithm::step || (automatic && !mostly_waits<T>(recurrence))) return steps();
  const bool in_clusters = algorithm == Algorithm::cluster;
  const char* const refusal = resident_refusal(recurrence, !in_clusters && !kIsHalf<T>);
  if (!refusal && (in_clusters ? clusters() : persistent())) return;
  check(automatic, name, "algorithm '", in_clusters ? "cluster" : "persistent", "': ",
        refusal ? refusal
        : in_clusters
            ? "the device has no clusters (sm_90 and later do), or the weights do not fit the shared "
              "memory of one, expected fewer units"
            : "the weights do not fit the device's shared memory, expected fewer units");
  steps();
}

}  // namespace

bool recurrent_takes_halves() { return tensor_cores(); }

template <class T>
void recurrent_forward(const T* w_hh, const T* b_n, T* gates, T* h, Wide<T>* c, T* y, T* extra,
                       const Recurrence& recurrence, Algorithm algorithm, Stream stream) {
  run<T>(
      "recurrent_forward", recurrence, algorithm,
      [&] {
        if constexpr (kIsHalf<T>)
          return forward_persistent_mma(w_hh, b_n, gates, h, c, y, extra, recurrence, stream);
        else if (recurrence.cell == Cell::gru_reset_before)
          return forward_persistent_reset(w_hh, gates, h, y, recurrence, stream);
        else
          return forward_persistent(w_hh, b_n, gates, h, c, y, extra, recurrence, stream);
      },
      [&] {
        if constexpr (kIsHalf<T>)
          return forward_clusters_mma(w_hh, b_n, gates, h, c, y, extra, recurrence, stream);
        else
          return forward_clusters(w_hh, b_n, gates, h, c, y, extra, recurrence, stream);
      },
      [&] {
        if (recurrence.cell == Cell::gru_reset_before)
          forward_steps_reset_before(w_hh, gates, h, y, recurrence, stream);
        else if (recurrence.cell == Cell::gru)
          forward_steps_gru(w_hh, b_n, gates, h, y, extra, recurrence, stream);
        else
          forward_steps(w_hh, gates, h, c, y, extra, recurrence, stream);
      });
}

template <class T>
void recurrent_backward(const T* w_hh, const T* gates, const T* dy, const T* extra, const T* previous,
                        Wide<T>* dh, Wide<T>* dc, T* da, T* da_h, const Recurrence& recurrence,
                        Algorithm algorithm, Stream stream) {
  const auto with = [&](auto&& backward) {
    return backward(w_hh, gates, dy, extra, previous, dh, dc, da, da_h, recurrence, stream);
  };
  run<T>(
      "recurrent_backward", recurrence, algorithm,
      [&] {
        if constexpr (kIsHalf<T>)
          return with(backward_persistent_mma<T>);
        else if (recurrence.cell == Cell::gru_reset_before)
          return backward_persistent_reset(w_hh, gates, dy, previous, dh, da, recurrence, stream);
        else
          return with(backward_persistent<T>);
      },
      [&] {
        if constexpr (kIsHalf<T>)
          return with(backward_clusters_mma<T>);
        else
          return with(backward_clusters<T>);
      },
      [&] {
        if (recurrence.cell == Cell::gru_reset_before)
          backward_steps_reset_before(w_hh, gates, dy, previous, dh, da, recurrence, stream);
        else
          with(backward_steps<T>);
      });
}

template <class T>
void recurrent_gates_forward(const T* product, const T* b_n, const T* h, T* gates, T* c, T* y, T* extra,
                             Cell cell, int64_t sequences, int64_t units, Stream stream) {
  if (sequences == 0 || units == 0) return;
  with_cell(cell, [&]<class Gates>() {
    launch_rows("recurrent_gates_forward", forward_cell_kernel<Gates, T>, sequences, units, stream, gates,
                product, b_n, h, static_cast<T*>(nullptr), c, y, extra);
  });
}

template <class T>
void recurrent_gates_backward(const T* gates, const T* extra, const T* previous, T* dh, T* dc, T* da, T* da_h,
                              Cell cell, int64_t sequences, int64_t units, Stream stream) {
  if (sequences == 0 || units == 0) return;
  with_cell(cell, [&]<class Gates>() {
    launch_rows("recurrent_gates_backward", backward_cell_kernel<Gates, T>, sequences, units, stream, gates,
                static_cast<const T*>(nullptr), extra, previous, dh, dc, da, da_h);
  });
}

#define INSTANTIATE(T)                                                                                       \
  template void recurrent_forward(const T*, const T*, T*, T*, Wide<T>*, T*, T*, const Recurrence&,           \
                                  Algorithm, Stream);                                                        \
  template void recurrent_backward(const T*, const T*, const T*, const T*, const T*, Wide<T>*, Wide<T>*, T*, \
                                   T*, const Recurrence&, Algorithm, Stream);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(float16)
INSTANTIATE(bfloat16)
#undef INSTANTIATE

#define INSTANTIATE_GATES(T)                                                                          \
  template void recurrent_gates_forward(const T*, const T*, const T*, T*, T*, T*, T*, Cell, int64_t,  \
                                        int64_t, Stream);                                             \
  template void recurrent_gates_backward(const T*, const T*, const T*, T*, T*, T*, T*, Cell, int64_t, \
                                         int64_t, Stream);
INSTANTIATE_GATES(float)
INSTANTIATE_GATES(double)
#undef INSTANTIATE_GATES

}  // namespace fastarch::cuda
