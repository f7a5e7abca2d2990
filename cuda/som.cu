// Self-organizing maps: search (som/search.h), totals by unit, smoothing over the grid (som/smooth.h), the
// online rule (som/online.h) and the U-matrix.
#include "ops/som.h"
#include "som/online.h"
#include "som/search.h"
#include "som/smooth.h"

namespace fastarch::cuda {
namespace {

constexpr int kTotalsThreads = 128, kTotalsWarps = kTotalsThreads / kWarpThreads, kTotalsColumns = 4;

// Sums of one unit, kTotalsColumns * kTotalsThreads columns and one slice of the rows for each block. The
// rows' indices are looked through 128 at a time; those of the unit are listed in ascending order, and each
// thread adds up its columns of the rows listed.
template <class T>
__global__ void __launch_bounds__(kTotalsThreads)
    totals_kernel(const T* x, const int64_t* index, double* partials, int64_t n, int64_t m, int64_t d,
                  int64_t slice, int chunks) {
  FASTARCH_SHARED(int64_t, listed, [kTotalsThreads]);
  FASTARCH_SHARED(int, counts, [kTotalsWarps]);
  const int lane = threadIdx.x % kWarpThreads, warp = threadIdx.x / kWarpThreads;
  const int64_t chunk = blockIdx.x % chunks, task = blockIdx.x / chunks;
  const int64_t unit = task % m, part = task / m;
  const int64_t first = chunk * kTotalsColumns * kTotalsThreads + threadIdx.x;
  const int64_t end = (part + 1) * slice < n ? (part + 1) * slice : n;
  double sums[kTotalsColumns] = {};
  int64_t total = 0;
  for (int64_t base = part * slice; base < end; base += kTotalsThreads) {
    const int64_t row = base + threadIdx.x;
    const bool mine = row < end && index[row] == unit;
    const unsigned votes = __ballot_sync(kFullWarp, mine);
    if (lane == 0) counts[warp] = __popc(votes);
    __syncthreads();
    int before = __popc(votes & ((1u << lane) - 1)), count = 0;
#pragma unroll
    for (int i = 0; i < kTotalsWarps; ++i) {
      if (i < warp) before += counts[i];
      count += counts[i];
    }
    if (mine) listed[before] = row;
    __syncthreads();
    for (int i = 0; i < count; ++i) {
      const T* const from = x + listed[i] * d;
#pragma unroll
      for (int c = 0; c < kTotalsColumns; ++c) {
        const int64_t column = first + c * kTotalsThreads;
        if (column < d) sums[c] += static_cast<double>(from[column]);
      }
    }
    total += count;
    __syncthreads();  // the next turn writes `counts` and `listed` again
  }
  double* const out = partials + (part * m + unit) * (d + 1);
#pragma unroll
  for (int c = 0; c < kTotalsColumns; ++c) {
    const int64_t column = first + c * kTotalsThreads;
    if (column < d) out[column] = sums[c];
  }
  if (chunk == 0 && threadIdx.x == 0) out[d] = static_cast<double>(total);
}

// totals [size] = the sum of `parts` arrays, first to last.
template <class T>
__global__ void __launch_bounds__(256)
    add_parts_kernel(const double* partials, T* totals, int64_t size, int parts) {
  for (int64_t i = global_thread(); i < size; i += grid_threads()) {
    double sum = 0;
    for (int part = 0; part < parts; ++part) sum += partials[part * size + i];
    totals[i] = static_cast<T>(sum);
  }
}

// reach[i] = sum over j of |h_ij| n_j, a warp for each unit: what divides where weights are of both signs.
template <class T>
__global__ void __launch_bounds__(256)
    reach_kernel(const T* totals, T* reach, int64_t width, UnitGrid grid, Neighborhood kind, T radius) {
  const int lane = threadIdx.x % kWarpThreads;
  const int64_t units = grid.units();
  for (int64_t i = global_thread() / kWarpThreads; i < units; i += grid_threads() / kWarpThreads) {
    T sum = 0;
    for (int64_t j = lane; j < units; j += kWarpThreads) {
      const T weight = neighborhood_weight(kind, square_distance<T>(grid, i, j), radius);
      sum += (weight < T(0) ? -weight : weight) * totals[j * width + width - 1];
    }
    sum = warp_sum(sum);
    if (lane == 0) reach[i] = sum;
  }
}

// y [M, d] from the smoothed totals [M, d + 1], a warp for each unit; reach [M], or null where no weight is
// negative.
template <class T>
__global__ void __launch_bounds__(256)
    step_kernel(const T* codebook, const T* smoothed, const T* reach, T* y, int64_t units, int64_t d) {
  const int lane = threadIdx.x % kWarpThreads;
  for (int64_t unit = global_thread() / kWarpThreads; unit < units; unit += grid_threads() / kWarpThreads) {
    const T* const sums = smoothed + unit * (d + 1);
    const T* const w = codebook + unit * d;
    const T count = sums[d], divisor = reach ? reach[unit] : count;
    for (int64_t k = lane; k < d; k += kWarpThreads) {
      T value = w[k];
      if (divisor > T(0)) value = reach ? value + (sums[k] - count * value) / divisor : sums[k] / count;
      y[unit * d + k] = value;
    }
  }
}

// y[unit] = the mean distance to the neighbours, a warp for each unit.
template <class T>
__global__ void __launch_bounds__(256) u_matrix_kernel(const T* codebook, T* y, int64_t d, UnitGrid grid) {
  const int64_t units = grid.units();
  for (int64_t unit = global_thread() / kWarpThreads; unit < units; unit += grid_threads() / kWarpThreads) {
    double sum = 0;
    int count = 0;
    for (int which = 0; which < 8; ++which) {
      const int64_t other = neighbor(grid, unit, which);
      if (other < 0) continue;
      sum += sqrt(exact_square(codebook + unit * d, codebook + other * d, d));
      ++count;
    }
    if (threadIdx.x % kWarpThreads == 0) y[unit] = static_cast<T>(count ? sum / count : 0.0);
  }
}

}  // namespace

template <class T>
void som_bmu_forward(const T* x, const T* codebook, int64_t* index, T* distance, int64_t n, int64_t m,
                     int64_t d, Stream stream) {
  if (n == 0) return;
  check(d < (int64_t{1} << 30), "som_bmu", "x has ", d, " features, expected fewer than 2^30");
  check(m < (int64_t{1} << 31), "som_bmu", "codebook has ", m, " units, expected fewer than 2^31");
  const dim3 threads(kSearchThreads);
  const Buffer<T> center(d, stream), half(m, stream);
  const Buffer<double> largest(1, stream);
  launch("som_bmu", center_kernel<T>, grid_for(d * kSearchWarps, kSearchThreads), threads, 0, stream,
         codebook, center.data(), m, d);
  launch("som_bmu", half_kernel<T>, grid_for(m * kWarpThreads, kSearchThreads), threads, 0, stream, codebook,
         static_cast<const T*>(center.data()), half.data(), m, d);
  launch("som_bmu", largest_kernel<T>, dim3(1), threads, 0, stream, static_cast<const T*>(half.data()),
         largest.data(), m);

  const Shape shape{1, n, m, d};
  const Plan plan = plan_multiply<Tiles<T>>(shape, multiprocessors(), false);
  int64_t slots = 0;
  with_tile<Tiles<T>>(
      plan, [&]<class Tile>() { slots = plan.tiles_n * (Tile::kThreadsAcross / Tile::kLanesAcross); });
  const Buffer<Lowest<T>> lowest(n * slots, stream);
  const Search<T> problem{{{{x, n, d, d}, center.data()},
                           {{codebook, m, d, d}, center.data()},
                           {half.data(), lowest.data(), n, m, static_cast<int>(slots)},
                           n,
                           m,
                           d}};
  multiply("som_bmu", problem, shape, false, stream);
  launch("som_bmu", settle_kernel<T>, grid_for(n * kWarpThreads, kSearchThreads), threads, 0, stream, x,
         codebook, static_cast<const Lowest<T>*>(lowest.data()), static_cast<const double*>(largest.data()),
         static_cast<int>(slots), index, distance, n, m, d);
}

template <class T>
void som_totals_forward(const T* x, const int64_t* index, T* totals, int64_t n, int64_t m, int64_t d,
                        Stream stream) {
  // Slices of the rows, so that a unit with most of them is not one block's work.
  constexpr int64_t kSlice = 4096, kMostParts = 16;
  const int64_t wanted = std::max<int64_t>(1, std::min(kMostParts, n / kSlice));
  const int64_t slice =
      std::max<int64_t>(1, divide_up(divide_up(n, wanted), kTotalsThreads)) * kTotalsThreads;
  const int64_t parts = std::max<int64_t>(1, divide_up(n, slice));
  const int64_t chunks = std::max<int64_t>(1, divide_up(d, int64_t{kTotalsColumns} * kTotalsThreads));
  const int64_t blocks = m * parts * chunks, size = m * (d + 1);
  check(blocks < (int64_t{1} << 31), "som_totals", "needs ", blocks, " blocks, expected fewer than 2^31");
  if (size == 0) return;
  const Buffer<double> partials(parts * size, stream);
  launch("som_totals", totals_kernel<T>, dim3(static_cast<unsigned>(blocks)), dim3(kTotalsThreads), 0, stream,
         x, index, partials.data(), n, m, d, slice, static_cast<int>(chunks));
  launch("som_totals", add_parts_kernel<T>, grid_for(size, 256), dim3(256), 0, stream,
         static_cast<const double*>(partials.data()), totals, size, static_cast<int>(parts));
}

template <class T>
void som_batch_forward(const T* codebook, const T* totals, T* y, int64_t d, const UnitGrid& grid,
                       Neighborhood kind, double radius, Stream stream) {
  const int64_t units = grid.units(), width = d + 1;
  if (units == 0 || d == 0) return;
  const Buffer<T> smoothed(units * width, stream);
  smooth(totals, smoothed.data(), width, grid, kind, radius, stream);
  const bool is_signed = kind == Neighborhood::mexican_hat;
  const Buffer<T> reach(is_signed ? units : 0, stream);
  if (is_signed)
    launch("som_batch", reach_kernel<T>, grid_for(units * kWarpThreads, 256), dim3(256), 0, stream, totals,
           reach.data(), width, grid, kind, radius_in<T>(radius));
  launch("som_batch", step_kernel<T>, grid_for(units * kWarpThreads, 256), dim3(256), 0, stream, codebook,
         static_cast<const T*>(smoothed.data()), static_cast<const T*>(reach.data()), y, units, d);
}

template <class T>
void som_online_forward(const T* x, const T* rate, const T* radius, T* y, int64_t* index, int64_t n,
                        int64_t d, const UnitGrid& grid, Neighborhood kind, Stream stream) {
  if (n == 0 || grid.units() == 0) return;
  const int64_t wanted = divide_up(grid.units(), kOnlineWarps);
  const int64_t most = cooperative_blocks("som_online", online_kernel<T>, kOnlineThreads, 0);
  const auto blocks = static_cast<unsigned>(std::min(wanted, most));
  const Buffer<Nearest<T>> met(2 * int64_t{blocks}, stream);
  launch_cooperative("som_online", online_kernel<T>, dim3(blocks), dim3(kOnlineThreads), 0, stream, x, rate,
                     radius, y, index, met.data(), n, d, grid, kind);
}

template <class T>
void som_u_matrix_forward(const T* codebook, T* y, int64_t d, const UnitGrid& grid, Stream stream) {
  if (grid.units() == 0) return;
  launch("som_u_matrix", u_matrix_kernel<T>, grid_for(grid.units() * kWarpThreads, 256), dim3(256), 0, stream,
         codebook, y, d, grid);
}

#define INSTANTIATE(T)                                                                                    \
  template void som_bmu_forward(const T*, const T*, int64_t*, T*, int64_t, int64_t, int64_t, Stream);     \
  template void som_totals_forward(const T*, const int64_t*, T*, int64_t, int64_t, int64_t, Stream);      \
  template void som_batch_forward(const T*, const T*, T*, int64_t, const UnitGrid&, Neighborhood, double, \
                                  Stream);                                                                \
  template void som_online_forward(const T*, const T*, const T*, T*, int64_t*, int64_t, int64_t,          \
                                   const UnitGrid&, Neighborhood, Stream);                                \
  template void som_u_matrix_forward(const T*, T*, int64_t, const UnitGrid&, Stream);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace fastarch::cuda
