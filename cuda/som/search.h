// Best-matching units: the multiply of gemm/simt.h with an arg-min for an epilogue.
//
// The score of a unit is |w|^2 / 2 - x.w, with x and w taken from the codebook's centre. A block's scores
// never leave its registers: what is stored is, for each row and each warp's columns, the best score, its
// unit and the second best. A second kernel merges them, measures the winner's distance from differences in
// float64, and where the second best is so close that rounding may have decided, compares all units that way.
#pragma once
#include "core/buffer.h"
#include "core/reduce.h"
#include "gemm/matrix.h"
#include "gemm/simt.h"
#include "ops/som.h"

namespace fastarch::cuda {

// Element (line, k) is data[line * pitch + k] - center[k], zero outside.
template <class T>
struct CenteredRows {
  static constexpr bool kAlongK = true, kDecodes = false;
  static constexpr int kWidth = kVector<T>;
  using Line = typename Matrix<T, true>::Line;
  using Step = typename Matrix<T, true>::Step;

  Matrix<T, true> rows;
  const T* center;  // [k]

  __device__ __forceinline__ void start(int64_t) {}  // k is never split here
  __device__ __forceinline__ Line line(int64_t index) const { return rows.line(index); }
  __device__ __forceinline__ Step step(int k, int left) const { return rows.step(k, left); }
  __device__ __forceinline__ void load(const Line& line, const Step& step, T (&values)[kWidth]) const {
    const int valid = line.valid > 0 ? step.left : 0;
    const T* const from = global(line.from) + step.k;
    const T* const middle = center + step.k;
    if (rows.aligned) {  // all or none are valid, and the centre lies aligned as every buffer
      Pack<T> row{}, mid{};
      if (valid > 0) {
        row = *reinterpret_cast<const Pack<T>*>(from);
        mid = *reinterpret_cast<const Pack<T>*>(middle);
      }
#pragma unroll
      for (int v = 0; v < kWidth; ++v) values[v] = row.value[v] - mid.value[v];
    } else {
#pragma unroll
      for (int v = 0; v < kWidth; ++v) values[v] = v < valid ? from[v] - middle[v] : T(0);
    }
  }
};

// The two lowest scores seen, and the unit of the lowest; the lower unit on ties. NaN is never lowest.
template <class T>
struct Lowest {
  T best = T(INFINITY), second = T(INFINITY);
  int unit = -1;

  __device__ __forceinline__ void consider(T score, int of) {
    const bool lower = score < best;
    const T rest = lower ? best : score;
    second = rest < second ? rest : second;
    best = lower ? score : best;
    unit = lower ? of : unit;
  }
  __device__ __forceinline__ void merge(const Lowest& other) {
    const bool lower = other.best < best || (other.best == best && other.unit < unit);
    const T rest = lower ? best : other.best;
    second = rest < second ? rest : second;
    second = other.second < second ? other.second : second;
    best = lower ? other.best : best;
    unit = lower ? other.unit : unit;
  }
  // Over groups of `lanes` neighbouring lanes, all of which get the result.
  __device__ __forceinline__ void merge_lanes(int lanes) {
    for (int distance = lanes / 2; distance > 0; distance /= 2)
      merge({__shfl_xor_sync(kFullWarp, best, distance), __shfl_xor_sync(kFullWarp, second, distance),
             __shfl_xor_sync(kFullWarp, unit, distance)});
  }
};

// What becomes of the products x.w: the lowest scores of each row and slot, a slot being a warp's columns.
template <class T>
struct LowestResult {
  static constexpr bool kTakesTiles = true;

  const T* half;      // [n]: |w|^2 / 2
  Lowest<T>* lowest;  // [m, slots], overwritten
  int64_t m, n;
  int slots;

  template <class Tile>
  __device__ __forceinline__ void take(int64_t first_m, int64_t first_n,
                                       const T (&sum)[Tile::kMicroRows][Tile::kMicroColumns]) const {
    constexpr int kWarpsAcross = Tile::kThreadsAcross / Tile::kLanesAcross;
    const int slot = static_cast<int>(first_n / Tile::kColumns) * kWarpsAcross +
                     Tile::thread_column() / Tile::kLanesAcross;
    T halves[Tile::kMicroColumns];
    int columns[Tile::kMicroColumns];
#pragma unroll
    for (int j = 0; j < Tile::kMicroColumns; ++j) {
      const int within = (j / Tile::kRunB * Tile::kThreadsAcross + Tile::thread_column()) * Tile::kRunB;
      const int64_t column = first_n + within + j % Tile::kRunB;
      columns[j] = static_cast<int>(column);
      halves[j] = column < n ? half[column] : T(INFINITY);
    }
#pragma unroll
    for (int i = 0; i < Tile::kMicroRows; ++i) {
      Lowest<T> row;
#pragma unroll
      for (int j = 0; j < Tile::kMicroColumns; ++j) row.consider(halves[j] - sum[i][j], columns[j]);
      row.merge_lanes(Tile::kLanesAcross);
      const int within = (i / Tile::kRunA * Tile::kThreadsDown + Tile::thread_row()) * Tile::kRunA;
      const int64_t at = first_m + within + i % Tile::kRunA;
      if (at < m && threadIdx.x % Tile::kLanesAcross == 0) lowest[at * slots + slot] = row;
    }
  }
};

template <class T>
struct Search {
  using Value = T;
  static constexpr bool kRowSums = false;

  using Parts = Operands<CenteredRows<T>, CenteredRows<T>, LowestResult<T>, T>;

  Parts operands;

  __device__ __forceinline__ const Parts& at(int) const { return operands; }
};

constexpr int kSearchThreads = 256, kSearchWarps = kSearchThreads / kWarpThreads;

// center[k] = the mean of the units, or 0 where that is not finite. A block takes 32 columns at a time, its
// rows of threads every 8th unit each.
template <class T>
__global__ void __launch_bounds__(kSearchThreads)
    center_kernel(const T* codebook, T* center, int64_t m, int64_t d) {
  FASTARCH_SHARED(T, partial, [kSearchWarps][kWarpThreads]);
  const int x = threadIdx.x % kWarpThreads, y = threadIdx.x / kWarpThreads;
  for (int64_t first = int64_t{blockIdx.x} * kWarpThreads; first < d;
       first += int64_t{gridDim.x} * kWarpThreads) {
    T sum = 0;
    if (first + x < d)
      for (int64_t i = y; i < m; i += kSearchWarps) sum += codebook[i * d + first + x];
    partial[y][x] = sum;
    __syncthreads();
    if (y == 0 && first + x < d) {
      for (int i = 1; i < kSearchWarps; ++i) sum += partial[i][x];
      const T mean = sum / static_cast<T>(m);
      center[first + x] = mean - mean == T(0) ? mean : T(0);
    }
    __syncthreads();
  }
}

// half[i] = |w_i - center|^2 / 2, a warp for each unit.
template <class T>
__global__ void __launch_bounds__(kSearchThreads)
    half_kernel(const T* codebook, const T* center, T* half, int64_t m, int64_t d) {
  const int lane = threadIdx.x % kWarpThreads;
  for (int64_t i = global_thread() / kWarpThreads; i < m; i += grid_threads() / kWarpThreads) {
    T sum = 0;
    for (int64_t k = lane; k < d; k += kWarpThreads) {
      const T w = codebook[i * d + k] - center[k];
      sum += w * w;
    }
    sum = warp_sum(sum);
    if (lane == 0) half[i] = sum / T(2);
  }
}

// largest[0] = the greatest length of a unit; NaN does not count. One block.
template <class T>
__global__ void __launch_bounds__(kSearchThreads) largest_kernel(const T* half, double* largest, int64_t m) {
  T most = 0;
  for (int64_t i = threadIdx.x; i < m; i += kSearchThreads) most = half[i] > most ? half[i] : most;
  most = block_max(most);
  if (threadIdx.x == 0) largest[0] = sqrt(2 * static_cast<double>(most));
}

// |x - w|^2 in float64; every lane of the warp gets it.
template <class T>
__device__ __forceinline__ double exact_square(const T* x, const T* w, int64_t d) {
  double sum = 0;
  for (int64_t k = threadIdx.x % kWarpThreads; k < d; k += kWarpThreads) {
    const double difference = static_cast<double>(x[k]) - static_cast<double>(w[k]);
    sum += difference * difference;
  }
  return warp_sum(sum);
}

// Merges the slots of each row and settles what is doubtful; a warp for each row.
template <class T>
__global__ void __launch_bounds__(kSearchThreads)
    settle_kernel(const T* x, const T* codebook, const Lowest<T>* lowest, const double* largest, int slots,
                  int64_t* index, T* distance, int64_t n, int64_t m, int64_t d) {
  const int lane = threadIdx.x % kWarpThreads;
  for (int64_t row = global_thread() / kWarpThreads; row < n; row += grid_threads() / kWarpThreads) {
    Lowest<T> found;
    for (int slot = lane; slot < slots; slot += kWarpThreads) found.merge(lowest[row * slots + slot]);
    found.merge_lanes(kWarpThreads);
    const T* const here = x + row * d;
    int64_t unit = found.unit;
    double square = unit < 0 ? static_cast<double>(NAN) : exact_square(here, codebook + unit * d, d);
    const double gap = static_cast<double>(found.second) - static_cast<double>(found.best);
    if (!(gap > score_bound<T>(d, sqrt(square), largest[0]))) {
      unit = -1;
      for (int64_t i = 0; i < m; ++i) {
        const double other = exact_square(here, codebook + i * d, d);
        if (other < square || (unit < 0 && other == other)) {
          unit = i;
          square = other;
        }
      }
    }
    if (lane == 0) {
      index[row] = unit;
      distance[row] = unit < 0 ? static_cast<T>(NAN) : static_cast<T>(sqrt(square));
    }
  }
}

}  // namespace fastarch::cuda
