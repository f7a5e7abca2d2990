// Reductions over a warp and a block, always in the same order: the same input gives the same bits.
#pragma once
#include "core/launch.h"

namespace fastarch::cuda {

constexpr unsigned kFullWarp = 0xffffffffu;
constexpr int kWarpThreads = 32;

struct Sum {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a + b;
  }
};

// NaN wins, so that every lane gets the same result whatever the order.
struct Max {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return (a > b || a != a) ? a : b;
  }
};

// Combines `value` over the 32 lanes of the warp; every lane gets the result. All lanes must call.
template <class T, class Op>
__device__ __forceinline__ T warp_reduce(T value, Op op) {
#pragma unroll
  for (int distance = kWarpThreads / 2; distance > 0; distance /= 2)
    value = op(value, __shfl_xor_sync(kFullWarp, value, distance));
  return value;
}

// Combines `value` over the block; every thread gets the result. All threads must call; the block is
// one-dimensional and a multiple of 32 threads.
template <class T, class Op>
__device__ __forceinline__ T block_reduce(T value, Op op) {
  FASTARCH_SHARED(T, partial, [32]);
  const int warp = threadIdx.x / kWarpThreads, warps = blockDim.x / kWarpThreads;
  value = warp_reduce(value, op);
  if (warps == 1) return value;
  if (threadIdx.x % kWarpThreads == 0) partial[warp] = value;
  __syncthreads();
  value = partial[0];
  for (int i = 1; i < warps; ++i) value = op(value, partial[i]);
  __syncthreads();  // the next call writes `partial` again
  return value;
}

template <class T>
__device__ __forceinline__ T warp_sum(T value) {
  return warp_reduce(value, Sum());
}

template <class T>
__device__ __forceinline__ T warp_max(T value) {
  return warp_reduce(value, Max());
}

template <class T>
__device__ __forceinline__ T block_sum(T value) {
  return block_reduce(value, Sum());
}

template <class T>
__device__ __forceinline__ T block_max(T value) {
  return block_reduce(value, Max());
}

}  // namespace fastarch::cuda
