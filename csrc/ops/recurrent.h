// Contract: one direction of one recurrent layer, over the steps of sequences whose inputs' share is known.
#pragma once
#include <type_traits>

#include "core/types.h"

namespace fastarch {

// How a step makes the next state from the inputs' share a and the product p = w_hh h. Gates: RNN 1, LSTM 4
// (i, f, g, o), GRU 3 (r, z, n).
enum class Cell { rnn_tanh = 0, rnn_relu = 1, lstm = 2, gru = 3, gru_reset_before = 4 };

constexpr int64_t gates_of(Cell cell) {
  return cell == Cell::lstm ? 4 : cell == Cell::gru || cell == Cell::gru_reset_before ? 3 : 1;
}

// The type of sums, of what is computed within a step, and of what steps hand on beside h: float for the
// 16-bit floats.
template <class T>
using Wide = std::conditional_t<sizeof(T) == 2, float, T>;

// G gates, H units, N sequences, R packed rows: step after step, sizes[t] rows of step t, never more than of
// the step before, at most N. Row b of every step belongs to sequence b. `reverse` visits the last step
// first.
struct Recurrence {
  Cell cell;
  int64_t sequences, units;
  const int64_t* sizes;  // [steps], on the host
  int64_t steps;
  bool reverse;
};

// Step by step; or all steps in one cooperative kernel that keeps w_hh in the shared memory of all blocks; or
// in clusters, each with a copy of w_hh in its shared memory and sequences of its own. `automatic` chooses
// between the first two. The latter two take what fits; gru_reset_before, with two products a step, clusters
// do not, and `persistent` does in float and double. Asked for where it cannot run, it throws
// std::invalid_argument.
enum class Algorithm { automatic = 0, step = 1, persistent = 2, cluster = 3 };

// One whole step, from its inputs on, for loops of the caller's own: N sequences, D features, H units. Any
// cell but gru_reset_before, whose second product waits for the gates of the first.
template <class T>
struct CellStep {
  Cell cell;
  int64_t sequences, features, units;
  const T* x;            // [N, D]
  const T *h, *c;        // [N, H] before the step, or null: zeros; c of LSTM alone
  const T *w_ih, *w_hh;  // [GH, D], [GH, H]
  const T *b_ih, *b_hh;  // [GH] or null
};

// One declaration per device, in the namespaces below. T is float or double, where recurrent_takes_halves()
// float16 or bfloat16 too. S = Wide<T> is the type of sums, of what is computed within a step, and
// of what steps hand on beside h: c, dh and dc. With 16 bits, h is rounded at every step, so that it equals
// y, and that is what the next product takes; so are da and da_h on the way back. c is rounded only where it
// is kept for the way back, in extra. GRU with the reset before its product has two passes a step, and takes
// r and z in the second one as they were kept.
//
// recurrent_forward: w_hh [GH, H]; b_n [H], the bias inside GRU's reset product, or null; gates [R, GH]:
// comes in as the inputs' share with its biases, goes out activated (RNN: undefined); h [N, H] and c [N, H]
// in S (LSTM): comes in as the first state, goes out as the last. Overwritten: y [R, H], every h; extra
// [R, H], LSTM: every c, GRU: w_hn h + b_n of every step; null for the others.
//
// recurrent_backward: w_hh, gates (RNN: y) and extra as above; dy [R, H] or null, which stands for zeros;
// previous [R, H]: the c (LSTM) or h (GRU) that each row started from, null for RNN; dh [N, H] and dc [N, H]
// (LSTM), in S: comes in as the gradient of the last state, goes out as that of the first. Overwritten: da
// [R, GH], gradient of the inputs' share; da_h [R, GH] (gru): gradient of w_hh h, null for the others, where
// it is the same.
//
// recurrent_gates_forward: one step of N sequences whose product is known, for steps that do more than these
// on the way to it or from it, T = float or double: product [N, GH]; b_n and gates [N, GH] as above; h
// [N, H], the state before, or null where the cell is not gru; c [N, H] (LSTM): before -> after.
// Overwritten: y [N, H], the next h; extra [N, H] as above. No reset before the product.
//
// recurrent_gates_backward: gates, extra and previous as above; dh [N, H]: comes in as all of the gradient of
// y, goes out as the part that reaches h past the product; dc [N, H] (LSTM): of c after -> of c before.
// Overwritten: da, da_h [N, GH] as above.
//
// recurrent_cell_forward: overwritten: y [N, H], the next h; c_next [N, H] (LSTM, else null); where wanted,
// else null, for the way back gates [N, GH], activated (not RNN's, which are y), and extra [N, H] (gru), w_hn
// h + b_n.
//
// recurrent_cell_backward: from gates (RNN: y) and extra, or where gates is null, computing the step again.
// dh and dc [N, H]: gradients of y and c_next, or null: zeros; dc of LSTM alone. Overwritten: da [N, GH], the
// gradient of w_ih x; da_h [N, GH], that of w_hh h (gru; null for the others, where it is the same);
// dh_before [N, H]; dc_before [N, H] (LSTM); the latter two may be null where they are not wanted.
//
// Sums are in a fixed order: equal calls give equal bits.

namespace cuda {

bool recurrent_takes_halves();  // the current device has tensor cores for them

template <class T>
void recurrent_forward(const T* w_hh, const T* b_n, T* gates, T* h, Wide<T>* c, T* y, T* extra,
                       const Recurrence& recurrence, Algorithm algorithm, Stream stream);
template <class T>
void recurrent_backward(const T* w_hh, const T* gates, const T* dy, const T* extra, const T* previous,
                        Wide<T>* dh, Wide<T>* dc, T* da, T* da_h, const Recurrence& recurrence,
                        Algorithm algorithm, Stream stream);
template <class T>
void recurrent_gates_forward(const T* product, const T* b_n, const T* h, T* gates, T* c, T* y, T* extra,
                             Cell cell, int64_t sequences, int64_t units, Stream stream);
template <class T>
void recurrent_gates_backward(const T* gates, const T* extra, const T* previous, T* dh, T* dc, T* da, T* da_h,
                              Cell cell, int64_t sequences, int64_t units, Stream stream);
template <class T>
void recurrent_cell_forward(const CellStep<T>& step, T* y, T* c_next, T* gates, T* extra, Stream stream);
template <class T>
void recurrent_cell_backward(const CellStep<T>& step, const T* gates, const T* extra, const T* dh,
                             const T* dc, T* da, T* da_h, T* dh_before, T* dc_before, Stream stream);

}  // namespace cuda

// The same on the CPU, where there is one algorithm. Results do not depend on the number of threads.
namespace cpu {

inline bool recurrent_takes_halves() { return false; }

template <class T>
void recurrent_forward(const T* w_hh, const T* b_n, T* gates, T* h, T* c, T* y, T* extra,
                       const Recurrence& recurrence, Algorithm algorithm, Stream stream);
template <class T>
void recurrent_backward(const T* w_hh, const T* gates, const T* dy, const T* extra, const T* previous, T* dh,
                        T* dc, T* da, T* da_h, const Recurrence& recurrence, Algorithm algorithm,
                        Stream stream);
template <class T>
void recurrent_gates_forward(const T* product, const T* b_n, const T* h, T* gates, T* c, T* y, T* extra,
                             Cell cell, int64_t sequences, int64_t units, Stream stream);
template <class T>
void recurrent_gates_backward(const T* gates, const T* extra, const T* previous, T* dh, T* dc, T* da, T* da_h,
                              Cell cell, int64_t sequences, int64_t units, Stream stream);
template <class T>
void recurrent_cell_forward(const CellStep<T>& step, T* y, T* c_next, T* gates, T* extra, Stream stream);
template <class T>
void recurrent_cell_backward(const CellStep<T>& step, const T* gates, const T* extra, const T* dh,
                             const T* dc, T* da, T* da_h, T* dh_before, T* dc_before, Stream stream);

}  // namespace cpu
}  // namespace fastarch
