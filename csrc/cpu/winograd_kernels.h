// Inner loops of Winograd convolution: the transforms, a vector of tiles (or of channels) at a time. Part of
// kernels.cpp.
#pragma once
#include <utility>

#include "core/winograd.h"
#include "cpu/kernels.h"
#include "cpu/simd.h"

namespace fastarch::cpu {
namespace {

#if defined(__clang__) || __GNUC__ >= 12
template <class T, int... I>
FASTARCH_INLINE Vector<T> pick_lanes(Vector<T> a, Vector<T> b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, I...);
}
#else
template <class T, int... I>
FASTARCH_INLINE Vector<T> pick_lanes(Vector<T> a, Vector<T> b, std::integer_sequence<int, I...>) {
  return __builtin_shuffle(a, b, Integers<T>{I...});
}
#endif

// Of the lanes of a and b, one after the other, every second one from `First` on.
template <class T, int First, int... I>
FASTARCH_INLINE Vector<T> every_second(Vector<T> a, Vector<T> b, std::integer_sequence<int, I...>) {
  return pick_lanes<T>(a, b, std::integer_sequence<int, (2 * I + First)...>());
}
template <class T, int First>
FASTARCH_INLINE Vector<T> every_second(Vector<T> a, Vector<T> b) {
  return every_second<T, First>(a, b, std::make_integer_sequence<int, kLanes<T>>());
}

// The lanes of a and b by turns, from lane `First` of both on.
template <class T, int First, int... I>
FASTARCH_INLINE Vector<T> by_turns(Vector<T> a, Vector<T> b, std::integer_sequence<int, I...>) {
  return pick_lanes<T>(a, b, std::integer_sequence<int, (First + I / 2 + I % 2 * kLanes<T>)...>());
}
template <class T, int First>
FASTARCH_INLINE Vector<T> by_turns(Vector<T> a, Vector<T> b) {
  return by_turns<T, First>(a, b, std::make_integer_sequence<int, kLanes<T>>());
}

// values[v], lane i = line[M*i + v].
template <class T>
FASTARCH_INLINE void part_line(const T* line, Vector<T> (&values)[4]) {
  constexpr int L = kLanes<T>;
  for (int v = 0; v < 4; v += 2) {
    const Vector<T> a = load(line + v), b = load(line + v + L);
    values[v] = every_second<T, 0>(a, b);
    values[v + 1] = every_second<T, 1>(a, b);
  }
}
template <class T>
FASTARCH_INLINE void part_line(const T* line, Vector<T> (&values)[6]) {
  constexpr int L = kLanes<T>;
  for (int v = 0; v < 6; v += 4) {
    const Vector<T> a = load(line + v), b = load(line + v + L);
    const Vector<T> c = load(line + v + 2 * L), d = load(line + v + 3 * L);
    const Vector<T> even_low = every_second<T, 0>(a, b), even_high = every_second<T, 0>(c, d);
    const Vector<T> odd_low = every_second<T, 1>(a, b), odd_high = every_second<T, 1>(c, d);
    values[v] = every_second<T, 0>(even_low, even_high);
    values[v + 1] = every_second<T, 0>(odd_low, odd_high);
    if (v == 4) break;
    values[v + 2] = every_second<T, 1>(even_low, even_high);
    values[v + 3] = every_second<T, 1>(odd_low, odd_high);
  }
}

// to[M*i + q] = lane i of values[q].
template <class T>
FASTARCH_INLINE void join_line(const Vector<T> (&values)[2], T* to) {
  store<T>(to, by_turns<T, 0>(values[0], values[1]));
  store<T>(to + kLanes<T>, by_turns<T, kLanes<T> / 2>(values[0], values[1]));
}
template <class T>
FASTARCH_INLINE void join_line(const Vector<T> (&values)[4], T* to) {
  constexpr int L = kLanes<T>;
  const Vector<T> even[2] = {by_turns<T, 0>(values[0], values[2]), by_turns<T, L / 2>(values[0], values[2])};
  const Vector<T> odd[2] = {by_turns<T, 0>(values[1], values[3]), by_turns<T, L / 2>(values[1], values[3])};
  for (int i = 0; i < 2; ++i) {
    const Vector<T> both[2] = {even[i], odd[i]};
    join_line<T>(both, to + 2 * L * i);
  }
}

template <class T, int M>
void winograd_rows(const T* lines, int64_t line_step, int64_t rows, int64_t tiles, T* to, int64_t plane,
                   int64_t to_step) {
  constexpr int64_t L = kLanes<T>;
  constexpr int kSide = M + 2;
  for (int64_t i = 0; i < rows; ++i, lines += line_step) {
    T* at = to + i % M * plane + i / M * tiles;
    for (int64_t j = 0; j < tiles; j += L) {
      Vector<T> d[kSide], t[kSide];
      part_line<T>(lines + M * j, d);
      Winograd<T, M>::input(d, t);
      for (int v = 0; v < kSide; ++v) store<T>(at + v * to_step + j, t[v]);
    }
  }
}

template <class T, int M>
void winograd_columns(const T* const* rows, int64_t from_step, int64_t tiles, T* to, int64_t to_step) {
  constexpr int64_t L = kLanes<T>;
  constexpr int kSide = M + 2;
  for (int v = 0; v < kSide; ++v)
    for (int64_t j = 0; j < tiles; j += L) {
      Vector<T> d[kSide], t[kSide];
      for (int u = 0; u < kSide; ++u) d[u] = load(rows[u] + v * from_step + j);
      Winograd<T, M>::input(d, t);
      for (int u = 0; u < kSide; ++u) store<T>(to + (u * kSide + v) * to_step + j, t[u]);
    }
}

// Eight lanes, whatever the set: the rows of a register tile.
template <class T>
struct EightOf {
  typedef T type __attribute__((vector_size(8 * sizeof(T))));
};

template <class T, int M>
void winograd_filters(const T* taps, bool turned, int64_t channels, int64_t rows, T* to, int64_t to_step) {
  using V = typename EightOf<T>::type;
  constexpr int kSide = M + 2;
  for (int64_t c = 0; c < channels; ++c, taps += 72, to += rows) {
    V half[3][kSide];
    for (int s = 0; s < 3; ++s) {
      V g[3];
      for (int r = 0; r < 3; ++r) {
        const int tap = r * 3 + s;
        __builtin_memcpy(&g[r], taps + 8 * (turned ? 8 - tap : tap), sizeof(V));
      }
      Winograd<T, M>::filter(g, half[s]);
    }
    for (int u = 0; u < kSide; ++u) {
      const V g[3] = {half[0][u], half[1][u], half[2][u]};
      V t[kSide];
      Winograd<T, M>::filter(g, t);
      for (int v = 0; v < kSide; ++v) {
        T* at = to + (u * kSide + v) * to_step;
        if (rows == 8) {
          __builtin_memcpy(at, &t[v], sizeof(V));
        } else {
          for (int64_t i = 0; i < rows; ++i) at[i] = t[v][i];
        }
      }
    }
  }
}

template <class T, int M>
void winograd_output(const T* from, int64_t from_step, int64_t tiles, T* to, int64_t to_step, T bias,
                     Activation kind) {
  constexpr int64_t L = kLanes<T>;
  constexpr int kSide = M + 2;
  for (int64_t j = 0; j < tiles; j += L) {
    Vector<T> half[kSide][M];
    for (int v = 0; v < kSide; ++v) {
      Vector<T> m[kSide];
      for (int u = 0; u < kSide; ++u) m[u] = load(from + (u * kSide + v) * from_step + j);
      Winograd<T, M>::output(m, half[v]);
    }
    for (int p = 0; p < M; ++p) {
      Vector<T> m[kSide], y[M];
      for (int v = 0; v < kSide; ++v) m[v] = half[v][p];
      Winograd<T, M>::output(m, y);
      for (int q = 0; q < M; ++q) y[q] = activate<T>(y[q] + bias, kind);
      join_line<T>(y, to + p * to_step + M * j);
    }
  }
}

template <class T>
void largest_magnitudes(const T* x, int64_t n, LaneInteger<T>* largest) {
  constexpr int64_t L = kLanes<T>;
  constexpr LaneInteger<T> kAbsolute =
      sizeof(T) == 4 ? LaneInteger<T>(0x7fffffff) : LaneInteger<T>(0x7fffffffffffffff);
  int64_t i = 0;
  for (; i + L <= n; i += L) {
    Integers<T> bits, most;
    __builtin_memcpy(&bits, x + i, sizeof bits);
    __builtin_memcpy(&most, largest + i, sizeof most);
    bits &= kAbsolute;
    most = bits > most ? bits : most;
    __builtin_memcpy(largest + i, &most, sizeof most);
  }
  for (; i < n; ++i) {
    LaneInteger<T> bits;
    __builtin_memcpy(&bits, x + i, sizeof bits);
    bits &= kAbsolute;  // NOLINT(bugprone-signed-bitwise): without the sign
    if (bits > largest[i]) largest[i] = bits;
  }
}

template <class T, int M>
constexpr WinogradKernels<T> kWinograd = {winograd_rows<T, M>, winograd_columns<T, M>, winograd_filters<T, M>,
                                          winograd_output<T, M>};

}  // namespace
}  // namespace fastarch::cpu
