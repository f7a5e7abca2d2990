// Inner loops of depthwise convolution: one plane against one filter. Part of kernels.cpp.
#pragma once
#include "cpu/kernels.h"
#include "cpu/simd.h"

namespace fastarch::cpu {
namespace {

constexpr int kStencilRows = 4;  // worked on together: they share what is loaded of the source

template <class T>
FASTARCH_INLINE void finish(const Stencil<T>& s, Vector<T> sum, T* to, int64_t room) {
  sum = activate<T>(sum + s.bias, s.kind);
  if (room >= kLanes<T>) {
    store<T>(to, sum);
  } else {
    store_part<T>(to, sum, room);
  }
}

// ROWS rows of one vector. WINDOW: taps of a square window, a source row of which serves several outputs.
template <class T, int ROWS, int WINDOW>
FASTARCH_INLINE void stencil_block(const Stencil<T>& s, const T* from, T* to, int64_t room) {
  Vector<T> sum[ROWS] = {};
  if constexpr (WINDOW > 0) {
    Vector<T> weight[WINDOW * WINDOW];
    for (int i = 0; i < WINDOW * WINDOW; ++i) weight[i] = broadcast(s.weight[i]);
#pragma GCC unroll 16
    for (int u = 0; u < ROWS + WINDOW - 1; ++u)
#pragma GCC unroll 16
      for (int j = 0; j < WINDOW; ++j) {
        const Vector<T> x = load(from + u * s.pitch + j);
#pragma GCC unroll 16
        for (int i = 0; i < ROWS; ++i)
          if (u - i >= 0 && u - i < WINDOW) sum[i] += x * weight[(u - i) * WINDOW + j];
      }
  } else {
    for (int64_t t = 0; t < s.taps; ++t)
      for (int i = 0; i < ROWS; ++i) sum[i] += s.weight[t] * load(from + s.offset[t] + i * s.pitch);
  }
  // In ascending order: what a vector writes behind its row's end is the next row's, still to come.
  for (int i = 0; i < ROWS; ++i) finish<T>(s, sum[i], to + i * s.columns, room - i * s.columns);
}

template <class T, int WINDOW>
void stencil_plane(const Stencil<T>& s) {
  constexpr int64_t L = kLanes<T>;
  const T* from = s.source;
  T* to = s.out;
  for (int64_t p = 0; p < s.rows;) {
    const bool several = s.rows - p >= kStencilRows;
    // The last vector of a long row ends with the row, over columns that were done before. Of a short one it
    // reaches beyond, as far as the plane does.
    const int64_t last = s.columns >= L ? s.columns - L : 0;
    for (int64_t q = 0;; q = q + L < last ? q + L : last) {
      const int64_t room = (s.rows - p) * s.columns - q;
      if (several) {
        stencil_block<T, kStencilRows, WINDOW>(s, from + q, to + q, room);
      } else {
        stencil_block<T, 1, WINDOW>(s, from + q, to + q, room);
      }
      if (q == last) break;
    }
    const int64_t done = several ? kStencilRows : 1;
    p += done;
    from += done * s.pitch;
    to += done * s.columns;
  }
}

template <class T>
void stencil(const Stencil<T>& s) {
  switch (s.window) {
    case 3: return stencil_plane<T, 3>(s);
    case 5: return stencil_plane<T, 5>(s);
    default: return stencil_plane<T, 0>(s);
  }
}

// COUNT dot products of y with x at as many offsets.
template <class T, int COUNT>
FASTARCH_INLINE void dots_of(const T* y, const T* x, const int64_t* offset, int64_t n, T* sums) {
  constexpr int64_t L = kLanes<T>;
  Vector<T> sum[COUNT] = {};
  for (int64_t i = 0; i < n; i += L) {
    const Vector<T> v = load(y + i);
    for (int t = 0; t < COUNT; ++t) sum[t] += v * load(x + i + offset[t]);
  }
  for (int t = 0; t < COUNT; ++t) sums[t] += lanes_sum<T>(sum[t]);
}

template <class T>
void dots(const T* y, const T* x, const int64_t* offset, int64_t count, int64_t n, T* sums) {
  for (; count >= 8; count -= 8, offset += 8, sums += 8) dots_of<T, 8>(y, x, offset, n, sums);
  if (count >= 4) dots_of<T, 4>(y, x, offset, n, sums), count -= 4, offset += 4, sums += 4;
  for (; count > 0; --count, ++offset, ++sums) dots_of<T, 1>(y, x, offset, n, sums);
}

}  // namespace
}  // namespace fastarch::cpu
