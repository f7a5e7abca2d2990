// Dense operands and results of the multiply: plain row-major matrices.
//
// What a reader is. An operand is seen as a set of lines, one for each row of A or column of B, that run
// along k. A thread asks for the same few lines again and again while k moves on, so a reader splits the
// work:
//   line(index)           what depends on the line alone, done once;
//   step(k, left)         what depends on k alone; once a block where kDecodes says that it is costly;
//   load(line, step)      both joined: kWidth elements that are neighbours in memory, along k where kAlongK,
//                         else across lines, and zeros outside of the matrix;
//   copy(line, step, to)  the same, straight to shared memory, by asynchronous copies where elements are
//                         large enough.
// There can be more than 2^31 lines, and values of k: start(first_k) moves the reader to the first k of a
// slice, and what follows counts from there with an int. `left` is what the slice still has, <= 0 past its
// end.
#pragma once
#include <string>

#include "core/async_copy.h"
#include "core/half.h"
#include "core/launch.h"
#include "core/math.h"
#include "gemm/tile.h"

namespace fastarch::cuda {

// The first `valid` elements at `from`, then zeros. Where `aligned`, all or none are valid, and one
// instruction loads them.
template <class T>
__device__ __forceinline__ void load_some(const T* from, int valid, bool aligned, T (&values)[kVector<T>]) {
  from = global(from);
  if (aligned) {
    Pack<T> pack{};
    if (valid > 0) pack = *reinterpret_cast<const Pack<T>*>(from);
#pragma unroll
    for (int v = 0; v < kVector<T>; ++v) values[v] = pack.value[v];
  } else {
#pragma unroll
    for (int v = 0; v < kVector<T>; ++v) values[v] = v < valid ? from[v] : T{};
  }
}

// One element, or zero, to shared memory. A 16-bit one is too small for an asynchronous copy.
template <class T>
__device__ __forceinline__ void copy_one(T* to, const T* from, bool valid) {
  from = global(from);
  if constexpr (sizeof(T) >= 4)
    copy_async<sizeof(T)>(to, from, valid ? sizeof(T) : 0);
  else
    *to = valid ? *from : T{};
}

// What load_some() gives, to shared memory.
template <class T>
__device__ __forceinline__ void copy_some(const T* from, int valid, bool aligned, T* to) {
  if (aligned) {
    copy_async<16>(to, from, valid > 0 ? 16 : 0);
  } else {
#pragma unroll
    for (int v = 0; v < kVector<T>; ++v) copy_one(to + v, from + v, v < valid);
  }
}

// Element (line, k) is data[line * pitch + k] where AlongK, else data[k * pitch + line].
template <class T, bool AlongK>
struct Matrix {
  static constexpr bool kAlongK = AlongK, kDecodes = false;
  static constexpr int kWidth = kVector<T>;
  struct Line {
    const T* from;
    int valid;  // elements from this line on, at most kWidth
  };
  struct Step {
    int k, left;
  };

  const T* data;
  int64_t lines, pitch;
  bool aligned;

  Matrix(const T* data, int64_t lines, int64_t k, int64_t pitch)
      : data(data),
        lines(lines),
        pitch(pitch),
        aligned(packable(data) && pitch % kWidth == 0 && (AlongK ? k : lines) % kWidth == 0) {}

  std::string traits() const { return aligned ? "aligned" : "loose"; }  // see gemm/tune.h

  __device__ __forceinline__ void start(int64_t first_k) { data += AlongK ? first_k : first_k * pitch; }
  __device__ __forceinline__ Line line(int64_t index) const {
    const int64_t left = lines - index;
    return {data + (AlongK ? index * pitch : index), left < kWidth ? static_cast<int>(left) : kWidth};
  }
  __device__ __forceinline__ Step step(int k, int left) const { return {k, left}; }

  __device__ __forceinline__ void load(const Line& line, const Step& step, T (&values)[kWidth]) const {
    if constexpr (AlongK)
      load_some(line.from + step.k, line.valid > 0 ? step.left : 0, aligned, values);
    else
      load_some(line.from + step.k * pitch, step.left > 0 ? line.valid : 0, aligned, values);
  }
  __device__ __forceinline__ void copy(const Line& line, const Step& step, T* to) const {
    if constexpr (AlongK)
      copy_some(line.from + step.k, line.valid > 0 ? step.left : 0, aligned, to);
    else
      copy_some(line.from + step.k * pitch, step.left > 0 ? line.valid : 0, aligned, to);
  }
};

// A result: column(n) is what depends on the column alone, store(m, column, value) takes the sum, in
// Compute<T>. Here out[m, n]: bias by column, then the activation, stored row-major.
template <class T>
struct MatrixResult {
  static constexpr bool kOverwrites = true;

  T* out;  // [M, N], overwritten
  int64_t pitch;
  const T* bias;  // [N] or null
  Activation kind;

  struct Column {
    T* first;
    Compute<T> bias;
  };
  __device__ __forceinline__ Column column(int64_t n) const {
    return {out + n, bias ? widen(bias[n]) : Compute<T>(0)};
  }
  __device__ __forceinline__ void store(int64_t m, const Column& column, Compute<T> value) const {
    column.first[m * pitch] = narrow<T>(activate(value + column.bias, kind));
  }
};

}  // namespace fastarch::cuda
