// All steps in one cooperative launch. A block owns a few units; their share of w_hh stays in its shared
// memory from the first step to the last, and a barrier of the whole grid parts the steps. What a step still
// reads from global memory is the state of all units, [N, H], or on the way back the gradients of all gates,
// [N, GH].
//
// A warp computes the products of one unit (or, on the way back, two) with a few rows of the batch: its lanes
// split the sum, so that shared memory is read without bank conflicts, and add their parts by shuffles.
#pragma once
#include "core/cooperative.h"
#include "recurrent/resident.h"

namespace fastarch::cuda {

constexpr int kPersistentThreads = 512;
constexpr int kPersistentWarps = kPersistentThreads / kWarpThreads;
constexpr int kMostStaged = 32;  // rows of the batch in shared memory at a time

// How a layer is spread over the device. Unit u of block b is unit b * units + u of the layer.
struct Spread {
  int blocks = 0, units = 0;  // units a block
  int staged = 0;             // rows of the batch in shared memory at a time
  size_t shared = 0;          // bytes
};

// Brings rows [first, first + count) to shared memory, zeros up to a multiple of Rows: of `from` [known,
// length], and from row `known` on of `others`.
template <int Rows, class T>
__device__ __forceinline__ void stage(T* staged, const T* from, int known, const T* others, int64_t first,
                                      int count, int length) {
  const int inside = count * length, padded = (count + Rows - 1) / Rows * Rows * length;
  const int64_t begin = first * length, border = int64_t{known} * length - begin;
  __syncthreads();  // the rows before these have been used
  for (int i = threadIdx.x; i < padded; i += kPersistentThreads)
    staged[i] = i >= inside ? T(0) : (i < border ? from : others)[begin + i];
  __syncthreads();
}

template <class Cell, int Rows, class T>
__global__ void __launch_bounds__(kPersistentThreads, 1)
    persistent_forward_kernel(const T* w_hh, const T* b_n, T* gates, T* h, T* c, T* y, T* extra,
                              const Steps steps, const int units, const Spread spread) {
  constexpr int kGates = Cell::kGates;
  FASTARCH_DYNAMIC_SHARED(T, resident);  // [units, G, H], then the staged rows [staged, H]
  const int first_unit = blockIdx.x * spread.units, mine = min(spread.units, units - first_unit);
  T* const staged = resident + spread.units * kGates * units;
  for (int v = 0; v < mine * kGates; ++v) {
    const T* const from = w_hh + (int64_t{v % kGates} * units + first_unit + v / kGates) * units;
    for (int k = threadIdx.x; k < units; k += kPersistentThreads) resident[v * units + k] = from[k];
  }
  const int warp = threadIdx.x / kWarpThreads, lane = threadIdx.x % kWarpThreads;
  // The states before a step: of the step before, and of the sequences that begin with this one the first.
  const T* before = h;
  int known = 0;
  for (int k = 0; k < steps.steps; ++k) {
    const int t = steps.visited(k), n = steps.rows(t);
    const int64_t first_row = steps.first(t);
    for (int first = 0; first < n; first += spread.staged) {
      const int rows = min(spread.staged, n - first);
      stage<Rows>(staged, before, known, h, first, rows, units);
      const int tiles = (rows + Rows - 1) / Rows;
      for (int item = warp; item < tiles * mine; item += kPersistentWarps) {
        const int u = item % mine, row = item / mine * Rows + lane, unit = first_unit + u;
        const bool active = lane < Rows && row < rows;
        const int64_t at = (first_row + first + row) * kGates * units + unit;
        T a[kGates] = {}, p[kGates];
        if (active) {  // on their way while the products are summed
#pragma unroll
          for (int g = 0; g < kGates; ++g) a[g] = gates[at + g * units];
        }
        warp_products<Rows, kGates>(resident + u * kGates * units, staged + item / mine * Rows * units, units,
                                    p);
        if (active) {
          const int64_t i = int64_t{first + row} * units + unit, step = first_row * units + i;
          T more = c ? c[i] : T(0);
          y[step] = Cell::forward(a, p, b_n ? b_n[unit] : T(0), staged[row * units + unit], more);
#pragma unroll
          for (int g = 0; g < kGates; ++g) gates[at + g * units] = a[g];
          if (c) c[i] = more;
          if (extra) extra[step] = more;
        }
      }
    }
    before = y + first_row * units;
    known = n;
    grid_sync();
  }
  keep_last_states(steps, units, y, h);
}

template <class Cell, int Rows, class T>
__global__ void __launch_bounds__(kPersistentThreads, 1)
    persistent_backward_kernel(const T* w_hh, const T* gates, const T* dy, const T* extra, const T* previous,
                               T* dh, T* dc, T* da, T* da_h, const Steps steps, const int units,
                               const Spread spread) {
  constexpr int kGates = Cell::kGates;
  FASTARCH_DYNAMIC_SHARED(T, resident);  // [units, GH]: columns of w_hh; then the staged rows [staged, GH]
  const int width = kGates * units;
  const int first_unit = blockIdx.x * spread.units, mine = min(spread.units, units - first_unit);
  T* const staged = resident + spread.units * width;
  // Of the units past the last one zeros, which warps with fewer units than they could take multiply.
  for (int i = threadIdx.x; i < spread.units * width; i += kPersistentThreads) {
    const int u = i % spread.units, k = i / spread.units;
    resident[u * width + k] = u < mine ? w_hh[int64_t{k} * units + first_unit + u] : T(0);
  }
  const int warp = threadIdx.x / kWarpThreads, lane = threadIdx.x % kWarpThreads;
  T* const products_of = Cell::kOwnProductGradient ? da_h : da;
  for (int k = 0; k < steps.steps; ++k) {
    const int t = steps.visited(k, true), n = steps.rows(t);
    const int64_t first_row = steps.first(t);
    for (int item = threadIdx.x; item < n * mine; item += kPersistentThreads) {
      const int row = item / mine, unit = first_unit + item % mine;
      const int64_t i = int64_t{row} * units + unit, step = first_row * units + i;
      const int64_t at = (first_row + row) * width + unit;
      T a[kGates], d[kGates], d_h[kGates];
#pragma unroll
      for (int g = 0; g < kGates; ++g) a[g] = gates[at + g * units];
      T more = dc ? dc[i] : T(0);
      dh[i] = Cell::backward(a, extra ? extra[step] : T(0), previous ? previous[step] : T(0),
                             dh[i] + (dy ? dy[step] : T(0)), more, d, d_h);
      if (dc) dc[i] = more;
#pragma unroll
      for (int g = 0; g < kGates; ++g) {
        da[at + g * units] = d[g];
        if (Cell::kOwnProductGradient) da_h[at + g * units] = d_h[g];
      }
    }
    grid_sync();
    for (int first = 0; first < n; first += spread.staged) {
      const int rows = min(spread.staged, n - first);
      stage<Rows>(staged, products_of + first_row * width, n, static_cast<const T*>(nullptr), first, rows,
                  width);
      const int tiles = (rows + Rows - 1) / Rows, groups = (mine + kBackwardUnits - 1) / kBackwardUnits;
      for (int item = warp; item < tiles * groups; item += kPersistentWarps) {
        const int u = item % groups * kBackwardUnits, row = item / groups * Rows + lane;
        T p[kBackwardUnits];
        warp_products<Rows, kBackwardUnits>(resident + u * width, staged + item / groups * Rows * width,
                                            width, p);
        if (lane < Rows && row < rows) {
#pragma unroll
          for (int v = 0; v < kBackwardUnits; ++v)
            if (u + v < mine) dh[int64_t{first + row} * units + first_unit + u + v] += p[v];
        }
      }
    }
    __syncthreads();  // other warps go on from this dh
  }
}

// One block a multiprocessor, units by the number that a warp takes together, and as many rows staged as fit
// beside the weights; blocks 0 where none do.
template <class T>
Spread spread_over_device(const Recurrence& recurrence, int64_t row_length, int rows, int together) {
  Spread spread;
  const int64_t units = recurrence.units, width = gates_of(recurrence.cell) * units;
  const int64_t most = device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin) / int64_t{sizeof(T)};
  int64_t a_block = (units + multiprocessors() - 1) / multiprocessors();
  a_block = (a_block + together - 1) / together * together;
  const int64_t weights = a_block * width, left = most - weights;
  const int64_t wanted = std::min<int64_t>(kMostStaged, (recurrence.sequences + rows - 1) / rows * rows);
  const int64_t staged = std::min(wanted, left / row_length / rows * rows);
  if (left < 0 || staged < rows) return spread;
  spread.units = static_cast<int>(a_block);
  spread.blocks = static_cast<int>((units + a_block - 1) / a_block);
  spread.staged = static_cast<int>(staged);
  spread.shared = static_cast<size_t>(weights + staged * row_length) * sizeof(T);
  return spread;
}

// Launches kernel(args..., recurrence, spread) and returns true, or false where the layer does not fit the
// device.
template <class T, class Kernel, class... Args>
bool launch_persistent(const CallSite& name, Kernel kernel, const Recurrence& recurrence, int64_t row_length,
                       int rows, int together, Stream stream, Args... args) {
  const Spread spread = spread_over_device<T>(recurrence, row_length, rows, together);
  if (spread.blocks == 0 || !device_attribute(cudaDevAttrCooperativeLaunch) ||
      cooperative_blocks(name, kernel, kPersistentThreads, spread.shared) < spread.blocks)
    return false;
  const StepsOnDevice steps(name, recurrence, stream);
  launch_cooperative(name, kernel, dim3(spread.blocks), dim3(kPersistentThreads), spread.shared, stream,
                     args..., static_cast<Steps>(steps), static_cast<int>(recurrence.units), spread);
  return true;
}

template <class T>
bool forward_persistent(const T* w_hh, const T* b_n, T* gates, T* h, T* c, T* y, T* extra,
                        const Recurrence& recurrence, Stream stream) {
  return with_rows(recurrence, [&]<class Cell, int ROWS>() {
    return launch_persistent<T>("recurrent_forward", persistent_forward_kernel<Cell, ROWS, T>, recurrence,
                                recurrence.units, ROWS, 1, stream, w_hh, b_n, gates, h, c, y, extra);
  });
}

template <class T>
bool backward_persistent(const T* w_hh, const T* gates, const T* dy, const T* extra, const T* previous, T* dh,
                         T* dc, T* da, T* da_h, const Recurrence& recurrence, Stream stream) {
  return with_rows(recurrence, [&]<class Cell, int ROWS>() {
    return launch_persistent<T>("recurrent_backward", persistent_backward_kernel<Cell, ROWS, T>, recurrence,
                                Cell::kGates * recurrence.units, ROWS, kBackwardUnits, stream, w_hh, gates,
                                dy, extra, previous, dh, dc, da, da_h);
  });
}

}  // namespace fastarch::cuda
