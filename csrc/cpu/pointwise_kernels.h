// Activations, softmax rows, sums and dropout. Part of kernels.cpp.
#pragma once
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

constexpr int kPositions = 16;

FASTARCH_INLINE void philox_words(uint64_t seed, uint64_t offset, uint64_t position, uint32_t* words) {
  uint32_t c0[kPositions], c1[kPositions], c2[kPositions], c3[kPositions];
  for (int i = 0; i < kPositions; ++i) {
    c0[i] = static_cast<uint32_t>(position + i);
    c1[i] = static_cast<uint32_t>((position + i) >> 32);
    c2[i] = static_cast<uint32_t>(offset);
    c3[i] = static_cast<uint32_t>(offset >> 32);
  }
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < kPositions; ++i) {
      const uint64_t p0 = uint64_t{0xD2511F53u} * c0[i], p1 = uint64_t{0xCD9E8D57u} * c2[i];
      c0[i] = static_cast<uint32_t>(p1 >> 32) ^ c1[i] ^ k0;
      c1[i] = static_cast<uint32_t>(p1);
      c2[i] = static_cast<uint32_t>(p0 >> 32) ^ c3[i] ^ k1;
      c3[i] = static_cast<uint32_t>(p0);
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  for (int i = 0; i < kPositions; ++i) {
    words[4 * i] = c0[i];
    words[4 * i + 1] = c1[i];
    words[4 * i + 2] = c2[i];
    words[4 * i + 3] = c3[i];
  }
}

template <class T>
void dropout(const T* x, T* y, int64_t begin, int64_t end, int64_t n, T scale, uint32_t threshold,
             uint64_t seed, uint64_t offset) {
  uint32_t words[4 * kPositions];
  for (int64_t position = begin; position < end; position += kPositions) {
    philox_words(seed, offset, static_cast<uint64_t>(position), words);
    const int64_t first = 4 * position, last = 4 * end < n ? 4 * end : n;
    const int64_t count = last - first < 4 * kPositions ? last - first : 4 * kPositions;
    for (int64_t i = 0; i < count; ++i) y[first + i] = words[i] >= threshold ? x[first + i] * scale : T(0);
  }
}

}  // namespace
}  // namespace fastarch::cpu
