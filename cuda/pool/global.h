// Pooling of whole planes. [planes, area]: a warp a plane, read side by side. [planes, area, inner]: a block
// takes 32 lanes of V channels, its eight warps every eighth pixel. The partial results merge in a fixed
// order.
#pragma once
#include <climits>

#include "core/reduce.h"
#include "pool/windows.h"

namespace fastarch::cuda::pool {

constexpr int kGroups = kThreads / kWarpThreads;  // of pixels in a block

template <class C>
struct RunningSum {
  C sum = 0;

  __device__ __forceinline__ void add(C value, int) { sum += value; }
  __device__ __forceinline__ void merge(const RunningSum& other) { sum += other.sum; }
  __device__ __forceinline__ RunningSum other_lane(int distance) const {
    return {__shfl_xor_sync(kFullWarp, sum, distance)};
  }
};

// The first of equal maxima, but the last NaN, whatever the order of merges.
template <class C>
struct RunningMax {
  C best = -INFINITY;
  int place = INT_MAX;  // of nothing yet

  __device__ __forceinline__ void add(C value, int at) {
    if (value > best || value != value || place == INT_MAX) {
      best = value;
      place = at;
    }
  }
  __device__ __forceinline__ void merge(const RunningMax& other) {
    const bool unknown = best != best, other_unknown = other.best != other.best;
    const bool wins = other.best > best || (other.best == best && other.place < place);
    if (other_unknown ? !unknown || other.place > place : !unknown && wins) *this = other;
  }
  __device__ __forceinline__ RunningMax other_lane(int distance) const {
    return {__shfl_xor_sync(kFullWarp, best, distance), __shfl_xor_sync(kFullWarp, place, distance)};
  }
};

template <class T>
struct Mean {
  using Total = RunningSum<Compute<T>>;
  T* y;
  Compute<T> area;

  __device__ __forceinline__ void store(int64_t i, const Total& total) const {
    y[i] = narrow<T>(total.sum / area);
  }
};

template <class T, class A>
struct Maximum {
  using Total = RunningMax<Compute<T>>;
  T* y;
  A* argmax;

  __device__ __forceinline__ void store(int64_t i, const Total& total) const {
    y[i] = narrow<T>(total.best);
    if (argmax) argmax[i] = static_cast<A>(total.place);
  }
};

template <class T, class Result>
__global__ void global_planes_kernel(const T* __restrict__ x, Result result, int64_t planes, int area) {
  const int lane = threadIdx.x % kWarpThreads;
  for (int64_t i = global_thread() / kWarpThreads; i < planes; i += grid_threads() / kWarpThreads) {
    typename Result::Total total;
    for (int64_t j = lane; j < area; j += kWarpThreads)
      total.add(widen(x[i * area + j]), static_cast<int>(j));
#pragma unroll
    for (int distance = kWarpThreads / 2; distance > 0; distance /= 2)
      total.merge(total.other_lane(distance));
    if (lane == 0) result.store(i, total);
  }
}

// blocks: planes * groups of 32 * V channels.
template <int V, class T, class Result>
__global__ void global_pixels_kernel(const T* __restrict__ x, Result result, int64_t blocks, int64_t groups,
                                     int area, int64_t inner) {
  using Total = typename Result::Total;
  FASTARCH_SHARED(Total, shared, [kGroups][kWarpThreads]);
  const int lane = threadIdx.x % kWarpThreads, group = threadIdx.x / kWarpThreads;
  for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    const int64_t plane = block / groups, channel = ((block - plane * groups) * kWarpThreads + lane) * V;
    Total totals[V];
    if (channel < inner)
      for (int j = group; j < area; j += kGroups) {
        Compute<T> value[V];
        load_run<V>(x + (plane * area + j) * inner + channel, value);
#pragma unroll
        for (int k = 0; k < V; ++k) totals[k].add(value[k], j);
      }
#pragma unroll
    for (int k = 0; k < V; ++k) {
      shared[group][lane] = totals[k];
      __syncthreads();
      if (group == 0 && channel < inner) {
        for (int other = 1; other < kGroups; ++other) totals[k].merge(shared[other][lane]);
        result.store(plane * inner + channel + k, totals[k]);
      }
      __syncthreads();
    }
  }
}

template <class T, class Result>
void pool_planes(const CallSite& name, const T* x, const Result& result, int64_t planes, int64_t area,
                 int64_t inner, Stream stream) {
  const int places = static_cast<int>(area);
  if (inner == 1) {
    launch(name, global_planes_kernel<T, Result>, grid_for(planes * kWarpThreads, kThreads), kThreads, 0,
           stream, x, result, planes, places);
    return;
  }
  constexpr int kPack = Pack<T>::size;
  const bool packed = inner % kPack == 0 && packable(x);
  const int64_t lanes = int64_t{kWarpThreads} * (packed ? kPack : 1), groups = (inner + lanes - 1) / lanes;
  launch(name, packed ? global_pixels_kernel<kPack, T, Result> : global_pixels_kernel<1, T, Result>,
         grid_for(planes * groups * kThreads, kThreads), kThreads, 0, stream, x, result, planes * groups,
         groups, places, inner);
}

}  // namespace fastarch::cuda::pool
