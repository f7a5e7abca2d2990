// Mean and variance in one pass without cancellation: Welford, "Note on a method for calculating corrected
// sums of squares and products" (1962); merging: Chan, Golub and LeVeque (1983).
#pragma once
#include <cuda_runtime.h>

#include "core/types.h"

namespace fastarch::cuda {

// Of some values: how many, their mean, and the sum of their squared distances from it.
template <class T>
struct Moments {
  T count = 0, mean = 0, squares = 0;

  __device__ __forceinline__ void add(T value) {
    count += 1;
    const T distance = value - mean;
    mean += distance / count;
    squares += distance * (value - mean);
  }

  __device__ __forceinline__ void merge(const Moments& other) {
    const T total = count + other.count;
    if (total == 0) return;
    const T distance = other.mean - mean, share = other.count / total;
    squares += other.squares + distance * distance * count * share;
    mean += distance * share;
    count = total;
  }
};

}  // namespace fastarch::cuda
