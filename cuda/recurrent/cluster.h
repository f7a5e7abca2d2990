// All steps in one launch, without a barrier of the grid: each cluster of blocks keeps a whole copy of w_hh
// in its blocks' shared memory and runs some of the sequences on its own. What a step hands to the next, the
// states or on the way back the gradients of the gates, blocks write into each other's shared memory.
#pragma once
#include <limits>

#include "core/cluster.h"
#include "recurrent/resident.h"

namespace fastarch::cuda {

constexpr int kClusterBlocks = 8;  // the most that every device with clusters takes
constexpr int kClusterThreads = 256;
constexpr int kClusterWarps = kClusterThreads / kWarpThreads;

// Unit u of block b of a cluster is unit b * units + u of the layer; cluster k has sequences [k * rows, ...).
struct ClusterSpread {
  int clusters = 0, units = 0, rows = 0;
  size_t shared = 0;  // bytes of a block
};

__device__ __forceinline__ int clamp_rows(int rows, int most) { return max(0, min(rows, most)); }

template <class Cell, int Rows, class T>
__global__ void __launch_bounds__(kClusterThreads, 1)
    cluster_forward_kernel(const T* w_hh, const T* b_n, T* gates, T* h, T* c, T* y, T* extra,
                           const Steps steps, const int units, const ClusterSpread spread) {
  constexpr int kGates = Cell::kGates;
  // [units, G, H], then the states before and after a step [2, rows, H].
  FASTARCH_DYNAMIC_SHARED(T, resident);
  const int first_unit = cluster_rank() * spread.units, mine = clamp_rows(units - first_unit, spread.units);
  const int first = static_cast<int>(blockIdx.x) / kClusterBlocks * spread.rows;
  const int band = min(spread.rows, steps.sequences - first), half = spread.rows * units;
  T* const states = resident + spread.units * kGates * units;
  for (int v = 0; v < mine * kGates; ++v) {
    const T* const from = w_hh + (int64_t{v % kGates} * units + first_unit + v / kGates) * units;
    for (int k = threadIdx.x; k < units; k += kClusterThreads) resident[v * units + k] = from[k];
  }
  // In both halves: a sequence that begins later finds its first state in either.
  for (int i = threadIdx.x; i < half; i += kClusterThreads)
    states[i] = states[half + i] = i < band * units ? h[int64_t{first} * units + i] : T(0);
  const int warp = threadIdx.x / kWarpThreads, lane = threadIdx.x % kWarpThreads;
  cluster_sync();
  for (int k = 0; k < steps.steps; ++k) {
    const int t = steps.visited(k), rows = clamp_rows(steps.rows(t) - first, band);
    const int next_rows =
        k + 1 < steps.steps ? clamp_rows(steps.rows(steps.visited(k + 1)) - first, band) : 0;
    const int64_t packed = steps.first(t) + first;
    const T* const before = states + k % 2 * half;
    T* const after = states + (k + 1) % 2 * half;
    const int tiles = (rows + Rows - 1) / Rows;
    for (int item = warp; item < tiles * mine; item += kClusterWarps) {
      const int u = item % mine, row = item / mine * Rows + lane % Rows, unit = first_unit + u;
      const bool inside = row < rows, active = inside && lane < Rows;
      const int64_t at = (packed + row) * kGates * units + unit;
      T a[kGates] = {}, p[kGates], next = 0;
      if (active) {  // on their way while the products are summed
#pragma unroll
        for (int g = 0; g < kGates; ++g) a[g] = gates[at + g * units];
      }
      warp_products<Rows, kGates>(resident + u * kGates * units, before + item / mine * Rows * units, units,
                                  p);
      if (active) {
        const int64_t i = int64_t{first + row} * units + unit, step = (packed + row) * units + unit;
        T more = c ? c[i] : T(0);
        next = Cell::forward(a, p, b_n ? b_n[unit] : T(0), before[row * units + unit], more);
        y[step] = next;
        if (row >= next_rows) h[i] = next;  // its last
#pragma unroll
        for (int g = 0; g < kGates; ++g) gates[at + g * units] = a[g];
        if (c) c[i] = more;
        if (extra) extra[step] = more;
      }
      // Every lane takes a row to a block.
      const T sent = __shfl_sync(kFullWarp, next, lane % Rows);
      for (int rank = lane / Rows; inside && rank < kClusterBlocks; rank += kWarpThreads / Rows)
        *map_shared_rank(after + row * units + unit, rank) = sent;
    }
    cluster_sync();
  }
}

template <class Cell, int Rows, class T>
__global__ void __launch_bounds__(kClusterThreads, 1)
    cluster_backward_kernel(const T* w_hh, const T* gates, const T* dy, const T* extra, const T* previous,
                            T* dh, T* dc, T* da, T* da_h, const Steps steps, const int units,
                            const ClusterSpread spread) {
  constexpr int kGates = Cell::kGates;
  // [units, GH]: columns of w_hh; then the gradients of this and of the last step's products [2, rows, GH].
  FASTARCH_DYNAMIC_SHARED(T, resident);
  const int width = kGates * units;
  const int first_unit = cluster_rank() * spread.units, mine = clamp_rows(units - first_unit, spread.units);
  const int first = static_cast<int>(blockIdx.x) / kClusterBlocks * spread.rows;
  const int band = min(spread.rows, steps.sequences - first), half = spread.rows * width;
  T* const gradients = resident + spread.units * width;
  // Of the units past the last one zeros, which warps with fewer units than they could take multiply.
  for (int i = threadIdx.x; i < spread.units * width; i += kClusterThreads) {
    const int u = i % spread.units, k = i / spread.units;
    resident[u * width + k] = u < mine ? w_hh[int64_t{k} * units + first_unit + u] : T(0);
  }
  for (int i = threadIdx.x; i < 2 * half; i += kClusterThreads) gradients[i] = T(0);
  const int warp = threadIdx.x / kWarpThreads, lane = threadIdx.x % kWarpThreads;
  cluster_sync();
  for (int k = 0; k < steps.steps; ++k) {
    const int t = steps.visited(k, true), rows = clamp_rows(steps.rows(t) - first, band);
    const int64_t packed = steps.first(t) + first;
    T* const shared = gradients + k % 2 * half;
    for (int item = threadIdx.x; item < rows * mine; item += kClusterThreads) {
      const int row = item / mine, unit = first_unit + item % mine;
      const int64_t i = int64_t{first + row} * units + unit, step = (packed + row) * units + unit;
      const int64_t at = (packed + row) * width + unit;
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
      for (int rank = 0; rank < kClusterBlocks; ++rank) {
        T* const there = map_shared_rank(shared + row * width + unit, rank);
#pragma unroll
        for (int g = 0; g < kGates; ++g) there[g * units] = d_h[g];
      }
    }
    cluster_sync();
    const int tiles = (rows + Rows - 1) / Rows, groups = (mine + kBackwardUnits - 1) / kBackwardUnits;
    for (int item = warp; item < tiles * groups; item += kClusterWarps) {
      const int u = item % groups * kBackwardUnits, row = item / groups * Rows + lane;
      T p[kBackwardUnits];
      warp_products<Rows, kBackwardUnits>(resident + u * width, shared + item / groups * Rows * width, width,
                                          p);
      if (lane < Rows && row < rows) {
#pragma unroll
        for (int v = 0; v < kBackwardUnits; ++v)
          if (u + v < mine) dh[int64_t{first + row} * units + first_unit + u + v] += p[v];
      }
    }
    __syncthreads();  // other warps go on from this dh
  }
}

// As many clusters as the device runs `at_once`, if so many rows of each fit; clusters 0 where none do.
template <class T>
ClusterSpread spread_over_clusters(const Recurrence& recurrence, int64_t row_length, int rows, int together,
                                   int at_once) {
  ClusterSpread spread;
  const int64_t units = recurrence.units, width = gates_of(recurrence.cell) * units, n = recurrence.sequences;
  const int64_t most = device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin) / int64_t{sizeof(T)};
  int64_t a_block = (units + kClusterBlocks - 1) / kClusterBlocks;
  a_block = (a_block + together - 1) / together * together;
  const int64_t weights = a_block * width, left = most - weights;
  const int64_t wanted = ((n + at_once - 1) / at_once + rows - 1) / rows * rows;
  const int64_t band = left < 0 ? 0 : std::min(wanted, left / (2 * row_length) / rows * rows);
  if (band < rows) return spread;
  spread.units = static_cast<int>(a_block);
  spread.rows = static_cast<int>(band);
  spread.clusters = static_cast<int>((n + band - 1) / band);
  spread.shared = static_cast<size_t>(weights + 2 * band * row_length) * sizeof(T);
  return spread;
}

template <class T, class Kernel, class... Args>
bool launch_in_clusters(const CallSite& name, Kernel kernel, const Recurrence& recurrence, int64_t row_length,
                        int rows, int together, Stream stream, Args... args) {
  // Each block with a multiprocessor to itself.
  const auto whole = static_cast<size_t>(device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin));
  const int at_once = active_clusters(name, kernel, kClusterBlocks, kClusterThreads, whole);
  if (at_once == 0) return false;
  const ClusterSpread spread = spread_over_clusters<T>(recurrence, row_length, rows, together, at_once);
  if (spread.clusters == 0) return false;
  const StepsOnDevice steps(name, recurrence, stream);
  launch_clusters(name, kernel, spread.clusters, kClusterBlocks, dim3(kClusterThreads), spread.shared, stream,
                  args..., static_cast<Steps>(steps), static_cast<int>(recurrence.units), spread);
  return true;
}

template <class T>
bool forward_clusters(const T* w_hh, const T* b_n, T* gates, T* h, T* c, T* y, T* extra,
                      const Recurrence& recurrence, Stream stream) {
  return with_rows(recurrence, [&]<class Cell, int ROWS>() {
    return launch_in_clusters<T>("recurrent_forward", cluster_forward_kernel<Cell, ROWS, T>, recurrence,
                                 recurrence.units, ROWS, 1, stream, w_hh, b_n, gates, h, c, y, extra);
  });
}

template <class T>
bool backward_clusters(const T* w_hh, const T* gates, const T* dy, const T* extra, const T* previous, T* dh,
                       T* dc, T* da, T* da_h, const Recurrence& recurrence, Stream stream) {
  return with_rows(recurrence, [&]<class Cell, int ROWS>() {
    return launch_in_clusters<T>("recurrent_backward", cluster_backward_kernel<Cell, ROWS, T>, recurrence,
                                 Cell::kGates * recurrence.units, ROWS, kBackwardUnits, stream, w_hh, gates,
                                 dy, extra, previous, dh, dc, da, da_h);
  });
}

}  // namespace fastarch::cuda
