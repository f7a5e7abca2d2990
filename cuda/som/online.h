// Kohonen's rule in one launch: rows are taken one after the other, each unit belongs to one block.
//
// A step changes the codebook by the row before and measures the distance to the row at hand in one pass over
// it; the blocks' best units then meet in global memory, behind the one barrier of the grid that a row costs.
// Two halves of that memory take turns: a block that runs ahead cannot write what another still reads, since
// the next barrier waits for all.
#pragma once
#include "core/buffer.h"
#include "core/cooperative.h"
#include "core/reduce.h"
#include "ops/som.h"

namespace fastarch::cuda {

constexpr int kOnlineThreads = 256, kOnlineWarps = kOnlineThreads / kWarpThreads;

// The nearest unit seen, the lower one on ties; none while unit < 0. Infinitely far is still a distance.
template <class T>
struct Nearest {
  T square;
  int unit;

  __device__ __forceinline__ void consider(const Nearest& other) {
    const bool nearer = other.square < square || (other.square == square && other.unit < unit);
    if (other.unit >= 0 && (unit < 0 || nearer)) *this = other;
  }
};

template <class T>
__global__ void __launch_bounds__(kOnlineThreads)
    online_kernel(const T* x, const T* rate, const T* radius, T* y, int64_t* index, Nearest<T>* met,
                  int64_t n, int64_t d, UnitGrid grid, Neighborhood kind) {
  FASTARCH_SHARED(Nearest<T>, warps, [kOnlineWarps]);
  FASTARCH_SHARED(int, chosen, [1]);
  const int lane = threadIdx.x % kWarpThreads, warp = threadIdx.x / kWarpThreads;
  const int64_t units = grid.units();
  int winner = -1;  // of the row before
  for (int64_t row = 0; row <= n; ++row) {
    const T* const here = x + row * d;
    const T* const before = here - d;
    Nearest<T> nearest{T(0), -1};
    for (int64_t unit = int64_t{warp} * gridDim.x + blockIdx.x; unit < units;
         unit += int64_t{kOnlineWarps} * gridDim.x) {
      T step = 0;
      if (winner >= 0) {
        const T reach = radius[row - 1];
        const T h = reach > T(0) ? neighborhood_weight(kind, square_distance<T>(grid, unit, winner), reach)
                                 : (unit == winner ? T(1) : T(0));
        step = rate[row - 1] * h;
      }
      T* const w = y + unit * d;
      T square = 0;
      for (int64_t k = lane; k < d; k += kWarpThreads) {
        T value = w[k];
        if (step != T(0)) {
          value += step * (before[k] - value);
          w[k] = value;
        }
        if (row < n) {
          const T difference = here[k] - value;
          square += difference * difference;
        }
      }
      square = warp_sum(square);
      nearest.consider({square, square == square ? static_cast<int>(unit) : -1});
    }
    if (row == n) break;

    if (lane == 0) warps[warp] = nearest;
    __syncthreads();
    Nearest<T>* const half = met + row % 2 * gridDim.x;
    if (threadIdx.x == 0) {
      for (int i = 1; i < kOnlineWarps; ++i) nearest.consider(warps[i]);
      half[blockIdx.x] = nearest;
    }
    grid_sync();
    if (warp == 0) {
      Nearest<T> best{T(0), -1};
      for (unsigned i = lane; i < gridDim.x; i += kWarpThreads) best.consider(half[i]);
#pragma unroll
      for (int distance = kWarpThreads / 2; distance > 0; distance /= 2)
        best.consider({__shfl_xor_sync(kFullWarp, best.square, distance),
                       __shfl_xor_sync(kFullWarp, best.unit, distance)});
      if (lane == 0) {
        chosen[0] = best.unit;
        if (blockIdx.x == 0) index[row] = best.unit;
      }
    }
    __syncthreads();
    winner = chosen[0];
  }
}

}  // namespace fastarch::cuda
