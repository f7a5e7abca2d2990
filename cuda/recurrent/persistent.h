// All steps in one cooperative launch. A block owns a few units; their share of w_hh stays in its shared
// memory from the first step to the last, and a barrier of the whole grid parts the steps. What a step still
// reads from global memory is the state of all units, [N, H], or on the way back the gradients of all gates,
// [N, GH].
//
// A warp computes the products of one unit (or, on the way back, two) with a few rows of the batch: its lanes
// split the sum, so that shared memory is read without bank conflicts, and add their parts by shuffles.
#pragma once
#include <algorithm>

#include "core/cooperative.h"
#include "core/reduce.h"
#include "ops/recurrent.h"
#include "recurrent/cells.h"

namespace fastarch::cuda {

constexpr int kPersistentThreads = 512;
constexpr int kPersistentWarps = kPersistentThreads / kWarpThreads;
constexpr int kBackwardUnits = 2;  // of a warp at a time: their products share the rows read
constexpr int kMostStaged = 32;    // rows of the batch in shared memory at a time
constexpr int kMostSequences = 128;

// How a layer is spread over the device. Unit u of block b is unit b * units + u of the layer.
struct Spread {
  int blocks = 0, units = 0;  // units a block
  int staged = 0;             // rows of the batch in shared memory at a time
  size_t shared = 0;          // bytes
};

// Adds up 2 * Left values over the lanes: half of them go to the lanes on the other side, half of theirs
// come, and so on with half as many at half the distance, until value v is with the lanes from v * 32 /
// values on.
template <int Left, int Distance, int Values, class T>
__device__ __forceinline__ void halve_over_lanes(T (&sum)[Values], int lane) {
  if constexpr (Left > 0) {
    const bool upper = lane & Distance;
#pragma unroll
    for (int i = 0; i < Left; ++i) {
      const T away = upper ? sum[i] : sum[i + Left], kept = upper ? sum[i + Left] : sum[i];
      sum[i] = kept + __shfl_xor_sync(kFullWarp, away, Distance);
    }
  } else {
    sum[0] += __shfl_xor_sync(kFullWarp, sum[0], Distance);
  }
  if constexpr (Distance > 1) halve_over_lanes<Left / 2, Distance / 2>(sum, lane);
}

// The products of Columns resident vectors with Rows rows, all `length` long, summed over the lanes: lane l <
// Rows gets row l's in `mine`.
template <int Rows, int Columns, class T>
__device__ __forceinline__ void warp_products(const T* vectors, const T* rows, int length,
                                              T (&mine)[Columns]) {
  constexpr int kColumns = Columns == 3 ? 4 : Columns;  // powers of two halve evenly
  constexpr int kValues = Rows * kColumns;
  const int lane = threadIdx.x % kWarpThreads;
  T sum[kValues] = {};
  for (int k = lane; k < length; k += kWarpThreads) {
    T row[Rows];
#pragma unroll
    for (int r = 0; r < Rows; ++r) row[r] = rows[r * length + k];
#pragma unroll
    for (int c = 0; c < Columns; ++c) {
      const T weight = vectors[c * length + k];
#pragma unroll
      for (int r = 0; r < Rows; ++r) sum[r * kColumns + c] += weight * row[r];
    }
  }
  halve_over_lanes<kValues / 2, kWarpThreads / 2>(sum, lane);
  const int row = lane % Rows;
#pragma unroll
  for (int c = 0; c < Columns; ++c)
    mine[c] = __shfl_sync(kFullWarp, sum[0], (row * kColumns + c) * (kWarpThreads / kValues));
}

// Brings rows [first, first + count) of from [., length] to shared memory, zeros up to a multiple of Rows.
template <int Rows, class T>
__device__ __forceinline__ void stage(T* staged, const T* from, int64_t first, int count, int length) {
  const int inside = count * length, padded = (count + Rows - 1) / Rows * Rows * length;
  from += first * length;
  __syncthreads();  // the rows before these have been used
  for (int i = threadIdx.x; i < padded; i += kPersistentThreads) staged[i] = i < inside ? from[i] : T(0);
  __syncthreads();
}

template <class Cell, int Rows, class T>
__global__ void __launch_bounds__(kPersistentThreads, 1)
    persistent_forward_kernel(const T* w_hh, const T* b_n, T* gates, T* h, T* c, T* y, T* extra,
                              const Recurrence recurrence, const Spread spread) {
  constexpr int kGates = Cell::kGates;
  FASTARCH_DYNAMIC_SHARED(T, resident);  // [units, G, H], then the staged rows [staged, H]
  const int n = static_cast<int>(recurrence.sequences), units = static_cast<int>(recurrence.units);
  const int first_unit = blockIdx.x * spread.units, mine = min(spread.units, units - first_unit);
  T* const staged = resident + spread.units * kGates * units;
  for (int v = 0; v < mine * kGates; ++v) {
    const T* const from = w_hh + (int64_t{v % kGates} * units + first_unit + v / kGates) * units;
    for (int k = threadIdx.x; k < units; k += kPersistentThreads) resident[v * units + k] = from[k];
  }
  const int warp = threadIdx.x / kWarpThreads, lane = threadIdx.x % kWarpThreads;
  const T* before = h;
  for (int64_t k = 0; k < recurrence.steps; ++k) {
    const int64_t t = recurrence.reverse ? recurrence.steps - 1 - k : k;
    for (int first = 0; first < n; first += spread.staged) {
      const int rows = min(spread.staged, n - first);
      stage<Rows>(staged, before, first, rows, units);
      const int tiles = (rows + Rows - 1) / Rows;
      for (int item = warp; item < tiles * mine; item += kPersistentWarps) {
        const int u = item % mine, row = item / mine * Rows + lane, unit = first_unit + u;
        const bool active = lane < Rows && row < rows;
        const int64_t at = (t * n + first + row) * kGates * units + unit;
        T a[kGates] = {}, p[kGates];
        if (active) {  // on their way while the products are summed
#pragma unroll
          for (int g = 0; g < kGates; ++g) a[g] = gates[at + g * units];
        }
        warp_products<Rows, kGates>(resident + u * kGates * units, staged + item / mine * Rows * units, units,
                                    p);
        if (active) {
          const int64_t i = int64_t{first + row} * units + unit, step = t * n * units + i;
          T more = c ? c[i] : T(0);
          y[step] = Cell::forward(a, p, b_n ? b_n[unit] : T(0), staged[row * units + unit], more);
#pragma unroll
          for (int g = 0; g < kGates; ++g) gates[at + g * units] = a[g];
          if (c) c[i] = more;
          if (extra) extra[step] = more;
        }
      }
    }
    before = y + t * n * units;
    grid_sync();
  }
  for (int64_t i = global_thread(); i < int64_t{n} * units; i += grid_threads()) h[i] = before[i];
}

template <class Cell, int Rows, class T>
__global__ void __launch_bounds__(kPersistentThreads, 1)
    persistent_backward_kernel(const T* w_hh, const T* gates, const T* dy, const T* extra, const T* previous,
                               T* dh, T* dc, T* da, T* da_h, const Recurrence recurrence,
                               const Spread spread) {
  constexpr int kGates = Cell::kGates;
  FASTARCH_DYNAMIC_SHARED(T, resident);  // [units, GH]: columns of w_hh; then the staged rows [staged, GH]
  const int n = static_cast<int>(recurrence.sequences), units = static_cast<int>(recurrence.units);
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
  for (int64_t k = 0; k < recurrence.steps; ++k) {
    const int64_t t = recurrence.reverse ? k : recurrence.steps - 1 - k;
    for (int item = threadIdx.x; item < n * mine; item += kPersistentThreads) {
      const int row = item / mine, unit = first_unit + item % mine;
      const int64_t i = int64_t{row} * units + unit, step = t * n * units + i;
      const int64_t at = (t * n + row) * width + unit;
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
      stage<Rows>(staged, products_of + t * n * width, first, rows, width);
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

// Why the persistent kernel cannot take this layer, or null when it can.
inline const char* persistent_refusal(const Recurrence& recurrence) {
  if (recurrence.cell == Cell::gru_reset_before)
    return "the reset gate before the product needs two products a step, which the persistent kernel lacks";
  for (int64_t t = 0; t < recurrence.steps; ++t)
    if (recurrence.sizes[t] != recurrence.sequences)
      return "the persistent kernel takes sequences of one length, expected lengths=None";
  if (!device_attribute(cudaDevAttrCooperativeLaunch)) return "the device has no cooperative launches";
  return nullptr;
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
  if (spread.blocks == 0 ||
      cooperative_blocks(name, kernel, kPersistentThreads, spread.shared) < spread.blocks)
    return false;
  launch_cooperative(name, kernel, dim3(spread.blocks), dim3(kPersistentThreads), spread.shared, stream,
                     args..., recurrence, spread);
  return true;
}

template <class T>
bool forward_persistent(const T* w_hh, const T* b_n, T* gates, T* h, T* c, T* y, T* extra,
                        const Recurrence& recurrence, Stream stream) {
  bool taken = false;
  with_cell(recurrence.cell, [&]<class Cell>() {
    const auto run = [&]<int ROWS>() {
      taken = launch_persistent<T>("recurrent_forward", persistent_forward_kernel<Cell, ROWS, T>, recurrence,
                                   recurrence.units, ROWS, 1, stream, w_hh, b_n, gates, h, c, y, extra);
    };
    recurrence.sequences == 1 ? run.template operator()<1>() : run.template operator()<4>();
  });
  return taken;
}

template <class T>
bool backward_persistent(const T* w_hh, const T* gates, const T* dy, const T* extra, const T* previous, T* dh,
                         T* dc, T* da, T* da_h, const Recurrence& recurrence, Stream stream) {
  bool taken = false;
  with_cell(recurrence.cell, [&]<class Cell>() {
    const auto run = [&]<int ROWS>() {
      taken = launch_persistent<T>("recurrent_backward", persistent_backward_kernel<Cell, ROWS, T>,
                                   recurrence, Cell::kGates * recurrence.units, ROWS, kBackwardUnits, stream,
                                   w_hh, gates, dy, extra, previous, dh, dc, da, da_h);
    };
    recurrence.sequences == 1 ? run.template operator()<1>() : run.template operator()<4>();
  });
  return taken;
}

}  // namespace fastarch::cuda
