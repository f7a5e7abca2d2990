// Which inputs and outputs of pooling belong together, by sliding and by adaptive windows, and runs of
// channels that are moved at once.
#pragma once
#include "core/divide.h"
#include "core/half.h"
#include "core/launch.h"
#include "core/vector.h"
#include "ops/pool2d.h"

namespace fastarch::cuda::pool {

constexpr int kThreads = 256;

struct Span {
  int begin, end;  // [begin, end), empty when end <= begin
  __device__ __forceinline__ bool empty() const { return end <= begin; }
};

// The offsets of a window that fall on the input: the first at input `first`, the others `step` apart.
struct Taps {
  int begin, end, first, step;
  __device__ __forceinline__ bool empty() const { return end <= begin; }
};

// One axis of windows: taps(p), how many offsets window p has (extent) and counts in a mean (count), the
// windows that may cover input h (around), and at which offset p covers it, or -1.
class SlidingWindows {
 public:
  explicit SlidingWindows(const PoolAxis& axis, bool count_padding = false)
      : axis_(axis), by_stride_(axis.stride), by_dilation_(axis.dilation), count_padding_(count_padding) {}

  FASTARCH_HOST_DEVICE int inputs() const { return axis_.input; }
  FASTARCH_HOST_DEVICE int outputs() const { return axis_.output; }
  FASTARCH_HOST_DEVICE int padding() const { return axis_.padding; }
  __device__ __forceinline__ Taps taps(int p) const {
    const int start = p * axis_.stride - axis_.padding;
    const int begin = start < 0 ? by_dilation_.quotient(-start + axis_.dilation - 1) : 0;
    const int reach =
        start >= axis_.input ? 0 : by_dilation_.quotient(axis_.input - start + axis_.dilation - 1);
    return {begin, min(axis_.kernel, reach), start + begin * axis_.dilation, axis_.dilation};
  }
  __device__ __forceinline__ int extent(int) const { return axis_.kernel; }
  __device__ __forceinline__ int count(int p) const {
    const int start = p * axis_.stride - axis_.padding;
    if (count_padding_) return min(start + axis_.kernel, axis_.input + axis_.padding) - start;
    return min(start + axis_.kernel, axis_.input) - max(start, 0);
  }
  __device__ __forceinline__ Span around(int h) const {
    const int reach = h + axis_.padding - (axis_.kernel - 1) * axis_.dilation;
    return {reach > 0 ? static_cast<int>(by_stride_.quotient(reach + axis_.stride - 1)) : 0,
            min(axis_.output, static_cast<int>(by_stride_.quotient(h + axis_.padding)) + 1)};
  }
  __device__ __forceinline__ int offset(int p, int h) const {
    const int distance = h + axis_.padding - p * axis_.stride;
    const int offset = by_dilation_.quotient(distance);
    return offset * axis_.dilation == distance ? offset : -1;
  }

 private:
  PoolAxis axis_;
  FastDivider by_stride_, by_dilation_;
  bool count_padding_;
};

class AdaptiveWindows {
 public:
  AdaptiveWindows(int inputs, int outputs)
      : inputs_(inputs),
        outputs_(outputs),
        by_outputs_(outputs, (int64_t{outputs} + 1) * inputs + outputs),
        by_inputs_(inputs, (int64_t{inputs} + 1) * outputs + inputs) {}

  FASTARCH_HOST_DEVICE int inputs() const { return inputs_; }
  FASTARCH_HOST_DEVICE int outputs() const { return outputs_; }
  __device__ __forceinline__ Taps taps(int p) const {
    const int first = start(p);
    return {0, end(p) - first, first, 1};
  }
  __device__ __forceinline__ int extent(int p) const { return end(p) - start(p); }
  __device__ __forceinline__ int count(int p) const { return extent(p); }
  __device__ __forceinline__ Span around(int h) const {
    return {static_cast<int>(by_inputs_.quotient(int64_t{h} * outputs_)),
            static_cast<int>(by_inputs_.quotient(int64_t{h + 1} * outputs_ + inputs_ - 1))};
  }
  __device__ __forceinline__ int offset(int p, int h) const { return h - start(p); }

 private:
  __device__ __forceinline__ int start(int p) const {
    return static_cast<int>(by_outputs_.quotient(int64_t{p} * inputs_));
  }
  __device__ __forceinline__ int end(int p) const {
    return static_cast<int>(by_outputs_.quotient(int64_t{p + 1} * inputs_ + outputs_ - 1));
  }

  int inputs_, outputs_;
  Divider by_outputs_, by_inputs_;
};

// Splits a flat index over [planes, rows, columns, inner / V].
template <int V>
struct Pixels {
  int64_t size, inner;
  int rows, columns;
  Divider by_packs, by_columns, by_rows;

  Pixels(int64_t planes, int rows, int columns, int64_t inner)
      : size(planes * rows * columns * (inner / V)),
        inner(inner),
        rows(rows),
        columns(columns),
        by_packs(inner / V, size),
        by_columns(columns, size),
        by_rows(rows, size) {}

  struct Place {
    int64_t plane, channel;
    int row, column;
  };
  __device__ __forceinline__ Place place(int64_t i) const {
    const int64_t pixel = by_packs.quotient(i), line = by_columns.quotient(pixel),
                  plane = by_rows.quotient(line);
    return {plane, i * V - pixel * inner, static_cast<int>(line - plane * rows),
            static_cast<int>(pixel - line * columns)};
  }
};

__device__ __forceinline__ int widened(uint8_t x) { return x; }
__device__ __forceinline__ int widened(int32_t x) { return x; }
template <class T>
__device__ __forceinline__ Compute<T> widened(T x) {
  return widen(x);
}

// N values from an aligned place on, by moves of at most 128 bits.
template <int N, class T, class C>
__device__ __forceinline__ void load_run(const T* from, C* to) {
  constexpr int kMove = N * sizeof(T) < 16 ? N : 16 / sizeof(T);
#pragma unroll
  for (int i = 0; i < N / kMove; ++i) {
    const Pack<T, kMove> pack = load_pack<T, kMove>(from, i);
#pragma unroll
    for (int k = 0; k < kMove; ++k) to[i * kMove + k] = widened(pack.value[k]);
  }
}

template <int N, class T, class C>
__device__ __forceinline__ void store_run(T* to, const C* from) {
  constexpr int kMove = N * sizeof(T) < 16 ? N : 16 / sizeof(T);
#pragma unroll
  for (int i = 0; i < N / kMove; ++i) {
    Pack<T, kMove> pack;
#pragma unroll
    for (int k = 0; k < kMove; ++k) pack.value[k] = narrow<T>(static_cast<Compute<T>>(from[i * kMove + k]));
    store_pack(to, i, pack);
  }
}

}  // namespace fastarch::cuda::pool
