// The inner loops of self-organizing maps. Part of kernels.cpp.
#pragma once
#include "cpu/kernels.h"
#include "cpu/simd.h"

namespace fastarch::cpu {
namespace {

// A column is a sample: vectors run over samples, and units follow one another in ascending order, so that a
// comparison decides ties for the lowest and no vector is ever searched. NaN is never lower.
template <class T>
void lowest_scores(const T* scores, int64_t step, int rows, int64_t columns, int64_t first, T* best,
                   T* second, LaneInteger<T>* unit) {
  for (int64_t c = 0; c < columns; c += kLanes<T>) {
    Vector<T> low = load(best + c), next = load(second + c);
    Integers<T> at;
    __builtin_memcpy(&at, unit + c, sizeof at);
    for (int r = 0; r < rows; ++r) {
      const Vector<T> score = load(scores + r * step + c);
      const Integers<T> number = static_cast<LaneInteger<T>>(first + r) - Integers<T>{};
      const auto lower = score < low;
      const Vector<T> rest = lower ? low : score;
      next = rest < next ? rest : next;
      low = lower ? score : low;
      at = lower ? number : at;
    }
    store(best + c, low);
    store(second + c, next);
    __builtin_memcpy(unit + c, &at, sizeof at);
  }
}

// A vector of doubles from as many T.
FASTARCH_INLINE Vector<double> load_wide(const double* from) { return load(from); }
FASTARCH_INLINE Vector<double> load_wide(const float* from) {
  typedef float Half __attribute__((vector_size(FASTARCH_VECTOR_BYTES / 2)));
  Half half;
  __builtin_memcpy(&half, from, sizeof half);
  return __builtin_convertvector(half, Vector<double>);
}

template <class T>
double square_distance(const T* x, const T* w, int64_t n) {
  constexpr int kSums = 4, kStep = kSums * kLanes<double>;
  Vector<double> sums[kSums] = {};
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep)
    for (int s = 0; s < kSums; ++s) {
      const int64_t at = i + s * kLanes<double>;
      const Vector<double> difference = load_wide(x + at) - load_wide(w + at);
      sums[s] += difference * difference;
    }
  double rest = 0;
  for (; i < n; ++i) {
    const double difference = static_cast<double>(x[i]) - static_cast<double>(w[i]);
    rest += difference * difference;
  }
  return lanes_sum<double>((sums[0] + sums[1]) + (sums[2] + sums[3])) + rest;
}

template <class T>
void move_towards(const T* x, T* y, int64_t n, T step) {
  int64_t i = 0;
  for (; i + kLanes<T> <= n; i += kLanes<T>) {
    const Vector<T> value = load(y + i);
    store(y + i, value + step * (load(x + i) - value));
  }
  for (; i < n; ++i) y[i] += step * (x[i] - y[i]);
}

}  // namespace
}  // namespace fastarch::cpu
