// Pooling of channels-last images, one window of all channels at a time. Part of kernels.cpp.
#pragma once
#include "cpu/kernels.h"
#include "cpu/simd.h"

namespace fastarch::cpu {
namespace {

// Calls body(c) for vectors of channels that cover [0, n), the last of them overlapping the one before;
// body_of_one(c) where there is no whole vector.
template <class T, class Body, class One>
FASTARCH_INLINE void cover_channels(int64_t n, const Body& body, const One& body_of_one) {
  constexpr int L = kLanes<T>;
  if (n < L) {
    for (int64_t c = 0; c < n; ++c) body_of_one(c);
    return;
  }
  int64_t c = 0;
  for (; c + L <= n; c += L) body(c);
  if (c < n) body(n - L);
}

template <class T, class A>
void max_pixel(const T* x, const WindowTaps& taps, T* y, A* argmax) {
  typedef A Places __attribute__((vector_size(kLanes<T> * sizeof(A))));
  const int first = taps.count ? taps.place[0] : 0;
  cover_channels<T>(
      taps.channels,
      [&](int64_t c) {
        Vector<T> best = broadcast<T>(-__builtin_inf());
        Integers<T> place = Integers<T>{} + first;
        for (int64_t t = 0; t < taps.count; ++t) {
          const Vector<T> value = load(x + taps.offset[t] + c);
          const auto wins = (value > best) | (value != value);
          best = wins ? value : best;
          place = wins ? Integers<T>{} + taps.place[t] : place;
        }
        store(y + c, best);
        const Places places = __builtin_convertvector(place, Places);
        if (argmax) __builtin_memcpy(argmax + c, &places, sizeof places);
      },
      [&](int64_t c) {
        T best = -__builtin_inf();
        int place = first;
        for (int64_t t = 0; t < taps.count; ++t) {
          const T value = x[taps.offset[t] + c];
          if (value > best || value != value) best = value, place = taps.place[t];
        }
        y[c] = best;
        if (argmax) argmax[c] = static_cast<A>(place);
      });
}

template <class T, class A>
void max_pixel_backward(const T* dy, const A* argmax, const WindowTaps& taps, T* dx) {
  for (int64_t t = 0; t < taps.count; ++t) {
    T* to = dx + taps.offset[t];
    const int place = taps.place[t];
    for (int64_t c = 0; c < taps.channels; ++c) to[c] += argmax[c] == place ? dy[c] : T(0);
  }
}

template <class T>
void mean_pixel(const T* x, const WindowTaps& taps, T divisor, T* y) {
  cover_channels<T>(
      taps.channels,
      [&](int64_t c) {
        Vector<T> sum = {};
        for (int64_t t = 0; t < taps.count; ++t) sum += load(x + taps.offset[t] + c);
        store(y + c, sum / divisor);
      },
      [&](int64_t c) {
        T sum = 0;
        for (int64_t t = 0; t < taps.count; ++t) sum += x[taps.offset[t] + c];
        y[c] = sum / divisor;
      });
}

template <class T>
void mean_pixel_backward(const T* dy, const WindowTaps& taps, T divisor, T* dx) {
  for (int64_t t = 0; t < taps.count; ++t) {
    T* to = dx + taps.offset[t];
    for (int64_t c = 0; c < taps.channels; ++c) to[c] += dy[c] / divisor;
  }
}

}  // namespace
}  // namespace fastarch::cpu
