// Activations, softmax rows, sums, a step of learning and dropout. Part of kernels.cpp.
#pragma once
#include "core/philox_fill.h"
#include "cpu/kernels.h"
#include "cpu/simd.h"

namespace fastarch::cpu {
namespace {

template <class T>
T sum(const T* x, int64_t n) {
  constexpr int L = kLanes<T>;
  Vector<T> parts[4] = {};
  int64_t i = 0;
  for (; i + 4 * L <= n; i += 4 * L)
    for (int j = 0; j < 4; ++j) parts[j] += load(x + i + j * L);
  for (; i + L <= n; i += L) parts[0] += load(x + i);
  if (i < n) parts[1] += load_part(x + i, n - i, T(0));
  return lanes_sum<T>((parts[0] + parts[1]) + (parts[2] + parts[3]));
}

// Calls f(vector of x, offset) for every vector of n values, and stores what it returns; the last may be
// partial.
template <class T, class F>
FASTARCH_INLINE void map(const T* x, T* y, int64_t n, const F& f) {
  constexpr int L = kLanes<T>;
  int64_t i = 0;
  for (; i + L <= n; i += L) store<T>(y + i, f(load(x + i)));
  if (i < n) store_part<T>(y + i, f(load_part(x + i, n - i, T(0))), n - i);
}

template <class T>
void activate_array(const T* x, T* y, int64_t n, Activation kind) {
  switch (kind) {
    case Activation::relu: return map(x, y, n, [](Vector<T> v) { return activate<T>(v, Activation::relu); });
    case Activation::tanh: return map(x, y, n, [](Vector<T> v) { return activate<T>(v, Activation::tanh); });
    case Activation::sigmoid:
      return map(x, y, n, [](Vector<T> v) { return activate<T>(v, Activation::sigmoid); });
    case Activation::none: return map(x, y, n, [](Vector<T> v) { return v; });
  }
}

template <class T>
void activate_backward_array(const T* dy, const T* y, T* dx, int64_t n, Activation kind) {
  constexpr int L = kLanes<T>;
  int64_t i = 0;
  for (; i + L <= n; i += L) store<T>(dx + i, activation_gradient<T>(load(dy + i), load(y + i), kind));
  if (i < n) {
    const int64_t rest = n - i;
    const Vector<T> v =
        activation_gradient<T>(load_part(dy + i, rest, T(0)), load_part(y + i, rest, T(0)), kind);
    store_part<T>(dx + i, v, rest);
  }
}

template <class T>
void softmax_row(const T* x, T* y, int64_t n, T* maximum, T* total) {
  constexpr int L = kLanes<T>;
  const T lowest = -__builtin_inf();
  const int64_t whole = n - n % L, rest = n - whole;
  Vector<T> most = broadcast(lowest);
  for (int64_t i = 0; i < whole; i += L) {
    const Vector<T> v = load(x + i);
    most = v > most ? v : most;
  }
  if (rest) {
    const Vector<T> v = load_part(x + whole, rest, lowest);
    most = v > most ? v : most;
  }
  *maximum = lanes_max<T>(most);  // of the numbers: a NaN makes the total NaN, and so the row
  Vector<T> parts = {};
  for (int64_t i = 0; i < whole; i += L) {
    const Vector<T> e = exponential<T>(load(x + i) - *maximum);
    parts += e;
    store<T>(y + i, e);
  }
  Vector<T> last = {};
  if (rest) {
    last = exponential<T>(load_part(x + whole, rest, lowest) - *maximum);
    parts += last;
  }
  *total = lanes_sum<T>(parts);
  for (int64_t i = 0; i < whole; i += L) store<T>(y + i, load(y + i) / *total);
  if (rest) store_part<T>(y + whole, last / *total, rest);
}

template <class T>
void softmax_backward_row(const T* dy, const T* y, T* dx, int64_t n) {
  constexpr int L = kLanes<T>;
  const int64_t whole = n - n % L, rest = n - whole;
  Vector<T> parts = {};
  for (int64_t i = 0; i < whole; i += L) parts += load(dy + i) * load(y + i);
  const Vector<T> last_dy = load_part(dy + whole, rest, T(0)), last_y = load_part(y + whole, rest, T(0));
  const T dot = lanes_sum<T>(parts + last_dy * last_y);
  for (int64_t i = 0; i < whole; i += L) store<T>(dx + i, load(y + i) * (load(dy + i) - dot));
  if (rest) store_part<T>(dx + whole, last_y * (last_dy - dot), rest);
}

template <class T>
void learn(T* w, T* velocity, const T* gradient, int64_t n, T rate, T momentum, T decay) {
  constexpr int L = kLanes<T>;
  const auto next = [&](Vector<T> g, Vector<T> v, Vector<T> old) {
    return momentum * v + rate * (g - decay * old);
  };
  int64_t i = 0;
  for (; i + L <= n; i += L) {
    const Vector<T> old = load(w + i), v = next(load(gradient + i), load(velocity + i), old);
    store<T>(velocity + i, v);
    store<T>(w + i, old + v);
  }
  if (i < n) {
    const int64_t rest = n - i;
    const Vector<T> old = load_part(w + i, rest, T(0));
    const Vector<T> v = next(load_part(gradient + i, rest, T(0)), load_part(velocity + i, rest, T(0)), old);
    store_part<T>(velocity + i, v, rest);
    store_part<T>(w + i, old + v, rest);
  }
}

template <class T>
void dropout(const T* x, T* y, int64_t begin, int64_t end, int64_t n, T scale, uint32_t threshold,
             uint64_t seed, uint64_t offset) {
  constexpr int64_t kPositions = 256;
  uint32_t words[4 * kPositions];
  for (int64_t position = begin; position < end; position += kPositions) {
    const int64_t drawn = end - position < kPositions ? end - position : kPositions;
    philox_fill(seed, offset, static_cast<uint64_t>(position), drawn, words);
    const int64_t first = 4 * position, last = 4 * end < n ? 4 * end : n;
    const int64_t count = last - first < 4 * kPositions ? last - first : 4 * kPositions;
    for (int64_t i = 0; i < count; ++i) y[first + i] = words[i] >= threshold ? x[first + i] * scale : T(0);
  }
}

}  // namespace
}  // namespace fastarch::cpu
