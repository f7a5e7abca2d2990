// Max and average pooling of one plane. Windows that lie inside the rows' ends go a vector of them at a time,
// the others one by one. Part of kernels.cpp.
#pragma once
#include "cpu/kernels.h"
#include "cpu/simd.h"

namespace fastarch::cpu {
namespace {

template <class T>
FASTARCH_INLINE Vector<T> even_lanes(Vector<T> a, Vector<T> b) {
  constexpr int L = kLanes<T>;
  T from[2 * L], to[L];
  store(from, a);
  store(from + L, b);
  for (int i = 0; i < L; ++i) to[i] = from[2 * i];
  return load(to);
}

// from[0], from[stride], ...: reads up to kLanes * (stride <= 2 ? stride : 0) values in a row, else what it
// needs.
template <class T>
FASTARCH_INLINE Vector<T> load_strided(const T* from, int64_t stride) {
  constexpr int L = kLanes<T>;
  if (stride == 1) return load(from);
  if (stride == 2) return even_lanes<T>(load(from), load(from + L));
  T lanes[L];
  for (int i = 0; i < L; ++i) lanes[i] = from[i * stride];
  return load(lanes);
}

struct Span {
  int begin, end;
};

// The offsets r inside window p that fall on the input.
FASTARCH_INLINE Span offsets_inside(const PoolAxis& axis, int p) {
  const int start = p * axis.stride - axis.padding;
  const int end = start >= axis.input ? 0 : (axis.input - start + axis.dilation - 1) / axis.dilation;
  return {start < 0 ? (-start + axis.dilation - 1) / axis.dilation : 0,
          end < axis.kernel ? end : axis.kernel};
}

// The windows all of whose offsets fall on the input: [begin, end) of them.
FASTARCH_INLINE Span windows_inside(const PoolAxis& axis) {
  const int room =
      axis.input - (axis.kernel - 1) * axis.dilation - 1 + axis.padding;  // of the last such start
  int begin = (axis.padding + axis.stride - 1) / axis.stride, end = room < 0 ? 0 : room / axis.stride + 1;
  begin = begin < axis.output ? begin : axis.output;
  end = end < axis.output ? end : axis.output;
  return {begin, end > begin ? end : begin};
}

// Stores the first n lanes. Where memory up to `end` is this plane's, the others may be written too: rows
// ascend, and what is spoilt is written later.
template <class V, class T>
FASTARCH_INLINE void store_first(T* to, const T* end, V v, int64_t n) {
  if (end - to >= static_cast<int64_t>(sizeof(V) / sizeof(T))) {
    __builtin_memcpy(to, &v, sizeof v);
  } else {
    T lanes[sizeof(V) / sizeof(T)];
    __builtin_memcpy(lanes, &v, sizeof v);
    for (int64_t i = 0; i < n; ++i) to[i] = lanes[i];
  }
}

template <class T, class A>
void max_pool_window(const T* x, T* y, A* argmax, const PoolAxis& rows, const PoolAxis& columns, int p,
                     int q) {
  const Span r_in = offsets_inside(rows, p), s_in = offsets_inside(columns, q);
  const int64_t top = int64_t{p} * rows.stride - rows.padding,
                left = int64_t{q} * columns.stride - columns.padding;
  T best = -__builtin_inf();
  int best_offset =
      r_in.end <= r_in.begin || s_in.end <= s_in.begin ? 0 : r_in.begin * columns.kernel + s_in.begin;
  for (int r = r_in.begin; r < r_in.end; ++r)
    for (int s = s_in.begin; s < s_in.end; ++s) {
      const T value = x[(top + r * rows.dilation) * columns.input + left + s * columns.dilation];
      if (value > best || value != value) {
        best = value;
        best_offset = r * columns.kernel + s;
      }
    }
  *y = best;
  if (argmax) *argmax = static_cast<A>(best_offset);
}

// x: [H, W], of memory that ends at x_end; y: [P, Q]; argmax: [P, Q] or null.
template <class T, class A>
void max_pool_plane(const T* x, const T* x_end, T* y, A* argmax, const PoolAxis& rows,
                    const PoolAxis& columns) {
  constexpr int L = kLanes<T>;
  typedef A Offsets __attribute__((vector_size(L * sizeof(A))));
  const Span inside = windows_inside(columns);
  const int64_t reach = columns.stride <= 2 ? L * columns.stride : (L - 1) * int64_t{columns.stride} + 1;
  const int P = rows.output, Q = columns.output;
  const T* y_end = y + int64_t{P} * Q;
  const A* argmax_end = argmax + (argmax ? int64_t{P} * Q : 0);
  for (int p = 0; p < P; ++p) {
    const Span r_in = offsets_inside(rows, p);
    const int64_t top = int64_t{p} * rows.stride - rows.padding, line = int64_t{p} * Q;
    for (int q = 0; q < Q;) {
      const int64_t corner = top * columns.input + int64_t{q} * columns.stride - columns.padding;
      const int64_t farthest = corner + int64_t{r_in.end - 1} * rows.dilation * columns.input +
                               int64_t{columns.kernel - 1} * columns.dilation;
      if (q < inside.begin || q >= inside.end || r_in.end <= r_in.begin || x_end - x - farthest < reach) {
        max_pool_window(x, y + line + q, argmax ? argmax + line + q : nullptr, rows, columns, p, q);
        ++q;
        continue;
      }
      Vector<T> best = broadcast<T>(-__builtin_inf());
      Integers<T> offset = Integers<T>{} + r_in.begin * columns.kernel;
      for (int r = r_in.begin; r < r_in.end; ++r)
        for (int s = 0; s < columns.kernel; ++s) {
          const int64_t from = corner + int64_t{r} * rows.dilation * columns.input + s * columns.dilation;
          const Vector<T> value = load_strided<T>(x + from, columns.stride);
          const auto wins = (value > best) | (value != value);
          best = wins ? value : best;
          offset = wins ? Integers<T>{} + (r * columns.kernel + s) : offset;
        }
      const int n = inside.end - q < L ? inside.end - q : L;
      store_first(y + line + q, y_end, best, n);
      if (argmax) store_first(argmax + line + q, argmax_end, __builtin_convertvector(offset, Offsets), n);
      q += n;
    }
  }
}

// The window's element count: clipped to the padded input, or to the input.
FASTARCH_INLINE int window_count(const PoolAxis& axis, int p, bool count_padding) {
  const int start = p * axis.stride - axis.padding, end = start + axis.kernel;
  const int last = axis.input + (count_padding ? axis.padding : 0);
  return (end < last ? end : last) - (count_padding || start > 0 ? start : 0);
}

// x: [H, W], of memory that ends at x_end; y: [P, Q].
template <class T>
void avg_pool_plane(const T* x, const T* x_end, T* y, const PoolAxis& rows, const PoolAxis& columns,
                    bool count_padding) {
  constexpr int L = kLanes<T>;
  const Span inside = windows_inside(columns);
  const int64_t reach = columns.stride <= 2 ? L * columns.stride : (L - 1) * int64_t{columns.stride} + 1;
  const int P = rows.output, Q = columns.output;
  const T* y_end = y + int64_t{P} * Q;
  for (int p = 0; p < P; ++p) {
    const Span r_in = offsets_inside(rows, p);
    const int64_t top = int64_t{p} * rows.stride - rows.padding, line = int64_t{p} * Q;
    const int64_t height = window_count(rows, p, count_padding);
    for (int q = 0; q < Q;) {
      const int64_t corner = top * columns.input + int64_t{q} * columns.stride - columns.padding;
      const int64_t farthest = corner + int64_t{r_in.end - 1} * columns.input + columns.kernel - 1;
      const T divisor = static_cast<T>(height * window_count(columns, q, count_padding));
      if (q < inside.begin || q >= inside.end || r_in.end <= r_in.begin || x_end - x - farthest < reach) {
        const Span s_in = offsets_inside(columns, q);
        T sum = 0;
        for (int r = r_in.begin; r < r_in.end; ++r)
          for (int s = s_in.begin; s < s_in.end; ++s) sum += x[corner + int64_t{r} * columns.input + s];
        // A window of nothing but padding is 0, whatever it counts.
        y[line + q] = r_in.end <= r_in.begin || s_in.end <= s_in.begin ? T(0) : sum / divisor;
        ++q;
        continue;
      }
      Vector<T> sum = {};
      for (int r = r_in.begin; r < r_in.end; ++r)
        for (int s = 0; s < columns.kernel; ++s)
          sum += load_strided<T>(x + corner + int64_t{r} * columns.input + s, columns.stride);
      const int n = inside.end - q < L ? inside.end - q : L;
      store_first(y + line + q, y_end, sum / divisor, n);
      q += n;
    }
  }
}

}  // namespace
}  // namespace fastarch::cpu
