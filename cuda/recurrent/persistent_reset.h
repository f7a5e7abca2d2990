// GRU with the reset before its product, all steps in one cooperative launch, as persistent.h has the others.
// A step has two products, the second of which takes what the first made of all units: two barriers of the
// grid.
//
//   forward   [r z] = sigmoid(. + [w_r w_z] h);   n = tanh(. + w_n (r h)),  h = n + z (h - n)
//   backward  dn, dz of a block's own units;  d(r h) = dn w_n, hence dr;    dh += [dr dz] [w_r w_z]
#pragma once
#include "recurrent/persistent.h"

namespace fastarch::cuda {

// Brings `length` values of rows [first, first + count) of `from`, `pitch` apart, to shared memory; zeros up
// to a multiple of Rows.
template <int Rows, class T>
__device__ __forceinline__ void stage_part(T* staged, const T* from, int64_t pitch, int first, int count,
                                           int length) {
  const int warp = threadIdx.x / kWarpThreads, lane = threadIdx.x % kWarpThreads;
  const int padded = (count + Rows - 1) / Rows * Rows;
  __syncthreads();  // the rows before these have been used
  for (int row = warp; row < padded; row += kPersistentWarps)
    for (int k = lane; k < length; k += kWarpThreads)
      staged[row * length + k] = row < count ? from[(first + row) * pitch + k] : T(0);
  __syncthreads();
}

// Calls finish(row, unit of the block, products) for rows [first, first + count), which are staged: the
// products of Columns vectors of each of a block's units, `length` long, one behind the other.
template <int Rows, int Columns, class T, class Finish>
__device__ __forceinline__ void unit_products(const T* vectors, const T* staged, int count, int units,
                                              int length, const Finish& finish) {
  const int warp = threadIdx.x / kWarpThreads, lane = threadIdx.x % kWarpThreads;
  const int tiles = (count + Rows - 1) / Rows;
  for (int item = warp; item < tiles * units; item += kPersistentWarps) {
    const int unit = item % units, first = item / units * Rows;
    T p[Columns];
    warp_products<Rows, Columns>(vectors + unit * Columns * length, staged + first * length, length, p);
    if (lane < Rows && first + lane < count) finish(first + lane, unit, p);
  }
}

// reset_h: [N, H], scratch.
template <int Rows, class T>
__global__ void __launch_bounds__(kPersistentThreads, 1)
    persistent_reset_forward_kernel(const T* w_hh, T* gates, T* h, T* y, T* reset_h, const Steps steps,
                                    const int units, const Spread spread) {
  FASTARCH_DYNAMIC_SHARED(
      T, both);  // [units, 2, H] of r and z, [units, H] of n, then the staged rows [staged, H]
  T* const new_gate = both + spread.units * 2 * units;
  T* const staged = new_gate + spread.units * units;
  const int first_unit = blockIdx.x * spread.units, mine = min(spread.units, units - first_unit);
  for (int v = 0; v < mine * 3; ++v) {
    const int u = v / 3, gate = v % 3;
    const T* const from = w_hh + (int64_t{gate} * units + first_unit + u) * units;
    T* const to = gate < 2 ? both + (u * 2 + gate) * units : new_gate + u * units;
    for (int k = threadIdx.x; k < units; k += kPersistentThreads) to[k] = from[k];
  }
  // The states before a step, as in persistent_forward_kernel.
  const T* before = h;
  int known = 0;
  for (int k = 0; k < steps.steps; ++k) {
    const int t = steps.visited(k), n = steps.rows(t);
    const int64_t first_row = steps.first(t);
    for (int first = 0; first < n; first += spread.staged) {
      const int rows = min(spread.staged, n - first);
      stage<Rows>(staged, before, known, h, first, rows, units);
      unit_products<Rows, 2>(both, staged, rows, mine, units, [&](int row, int u, const T(&p)[2]) {
        const int unit = first_unit + u;
        T* const a = gates + (first_row + first + row) * 3 * units + unit;
        a[0] = sigmoid(a[0] + p[0]);
        a[units] = sigmoid(a[units] + p[1]);
        reset_h[int64_t{first + row} * units + unit] = a[0] * staged[row * units + unit];
      });
    }
    grid_sync();
    for (int first = 0; first < n; first += spread.staged) {
      const int rows = min(spread.staged, n - first);
      stage<Rows>(staged, reset_h, n, static_cast<const T*>(nullptr), first, rows, units);
      unit_products<Rows, 1>(new_gate, staged, rows, mine, units, [&](int row, int u, const T(&p)[1]) {
        const int unit = first_unit + u, sequence = first + row;
        T* const a = gates + (first_row + sequence) * 3 * units + unit;
        const T made = tanh(a[2 * units] + p[0]);
        const T state = (sequence < known ? before : h)[int64_t{sequence} * units + unit];
        a[2 * units] = made;
        y[(first_row + sequence) * units + unit] = made + a[units] * (state - made);
      });
    }
    before = y + first_row * units;
    known = n;
    grid_sync();
  }
  keep_last_states(steps, units, y, h);
}

template <int Rows, class T>
__global__ void __launch_bounds__(kPersistentThreads, 1)
    persistent_reset_backward_kernel(const T* w_hh, const T* gates, const T* dy, const T* previous, T* dh,
                                     T* da, const Steps steps, const int units, const Spread spread) {
  FASTARCH_DYNAMIC_SHARED(
      T, both);  // columns: [units, 2H] of r and z, [units, H] of n; the staged rows [staged, 2H]
  const int pair = 2 * units, width = 3 * units;
  T* const new_gate = both + spread.units * pair;
  T* const staged = new_gate + spread.units * units;
  const int first_unit = blockIdx.x * spread.units, mine = min(spread.units, units - first_unit);
  for (int i = threadIdx.x; i < mine * width; i += kPersistentThreads) {
    const int u = i % mine, k = i / mine;
    (k < pair ? both + u * pair + k : new_gate + u * units + k - pair)[0] =
        w_hh[int64_t{k} * units + first_unit + u];
  }
  for (int k = 0; k < steps.steps; ++k) {
    const int t = steps.visited(k, true), n = steps.rows(t);
    const int64_t first_row = steps.first(t);
    for (int item = threadIdx.x; item < n * mine; item += kPersistentThreads) {
      const int row = item / mine, unit = first_unit + item % mine;
      const int64_t i = int64_t{row} * units + unit, step = first_row * units + i;
      const int64_t at = (first_row + row) * width + unit;
      const T z = gates[at + units], made = gates[at + pair], d = dh[i] + (dy ? dy[step] : T(0));
      da[at + pair] = d * (T(1) - z) * (T(1) - made * made);
      da[at + units] = d * (previous[step] - made) * z * (T(1) - z);
      dh[i] = d * z;
    }
    grid_sync();
    for (int first = 0; first < n; first += spread.staged) {
      const int rows = min(spread.staged, n - first);
      stage_part<Rows>(staged, da + first_row * width + pair, width, first, rows, units);
      unit_products<Rows, 1>(new_gate, staged, rows, mine, units, [&](int row, int u, const T(&p)[1]) {
        const int unit = first_unit + u;
        const int64_t i = int64_t{first + row} * units + unit, at = (first_row + first + row) * width + unit;
        const T r = gates[at];
        da[at] = p[0] * previous[first_row * units + i] * r * (T(1) - r);
        dh[i] += p[0] * r;
      });
    }
    grid_sync();
    for (int first = 0; first < n; first += spread.staged) {
      const int rows = min(spread.staged, n - first);
      stage_part<Rows>(staged, da + first_row * width, width, first, rows, pair);
      unit_products<Rows, 1>(both, staged, rows, mine, pair, [&](int row, int u, const T(&p)[1]) {
        dh[int64_t{first + row} * units + first_unit + u] += p[0];
      });
    }
    __syncthreads();  // other warps go on from this dh
  }
}

// body<rows of the batch that a warp takes together>().
template <class Body>
bool with_rows_alone(const Recurrence& recurrence, Body&& body) {
  return recurrence.sequences == 1 ? body.template operator()<1>() : body.template operator()<4>();
}

template <class T>
bool forward_persistent_reset(const T* w_hh, T* gates, T* h, T* y, const Recurrence& recurrence,
                              Stream stream) {
  const Buffer<T> reset_h(recurrence.sequences * recurrence.units, stream);
  return with_rows_alone(recurrence, [&]<int ROWS>() {
    return launch_persistent<T>("recurrent_forward", persistent_reset_forward_kernel<ROWS, T>, recurrence,
                                recurrence.units, ROWS, 1, stream, w_hh, gates, h, y, reset_h.data());
  });
}

template <class T>
bool backward_persistent_reset(const T* w_hh, const T* gates, const T* dy, const T* previous, T* dh, T* da,
                               const Recurrence& recurrence, Stream stream) {
  return with_rows_alone(recurrence, [&]<int ROWS>() {
    return launch_persistent<T>("recurrent_backward", persistent_reset_backward_kernel<ROWS, T>, recurrence,
                                2 * recurrence.units, ROWS, 1, stream, w_hh, gates, dy, previous, dh, da);
  });
}

}  // namespace fastarch::cuda
