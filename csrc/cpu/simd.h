// Vectors of the instruction set this file is compiled for, written with the vector extensions of GCC and
// Clang. Everything here has internal linkage: the same names exist once for each set, and the linker may not
// mix them.
#pragma once
#include "core/types.h"

#if defined(__AVX512F__)
#define FASTARCH_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define FASTARCH_VECTOR_BYTES 32
#else
#define FASTARCH_VECTOR_BYTES 16
#endif
#define FASTARCH_INLINE inline __attribute__((always_inline))

namespace fastarch::cpu {
namespace {

template <class T>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(FASTARCH_VECTOR_BYTES)));
  typedef int32_t integer __attribute__((vector_size(FASTARCH_VECTOR_BYTES)));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(FASTARCH_VECTOR_BYTES)));
  typedef int64_t integer __attribute__((vector_size(FASTARCH_VECTOR_BYTES)));
};

template <class T>
using Vector = typename VectorOf<T>::type;
template <class T>
using Integers = typename VectorOf<T>::integer;  // as wide as T: lane masks and exponents

template <class T>
constexpr int kLanes = FASTARCH_VECTOR_BYTES / sizeof(T);

template <class T>
FASTARCH_INLINE Vector<T> load(const T* from) {
  Vector<T> v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

template <class T>
FASTARCH_INLINE void store(T* to, Vector<T> v) {
  __builtin_memcpy(to, &v, sizeof v);
}

template <class T>
FASTARCH_INLINE Vector<T> broadcast(T value) {
  return value - Vector<T>{};
}

// The first n < kLanes<T> lanes, the others `fill`.
template <class T>
FASTARCH_INLINE Vector<T> load_part(const T* from, int64_t n, T fill) {
  Vector<T> v = broadcast(fill);
  T lanes[kLanes<T>];
  __builtin_memcpy(lanes, &v, sizeof v);
  for (int64_t i = 0; i < n; ++i) lanes[i] = from[i];
  return load(lanes);
}

template <class T>
FASTARCH_INLINE void store_part(T* to, Vector<T> v, int64_t n) {
  T lanes[kLanes<T>];
  store(lanes, v);
  for (int64_t i = 0; i < n; ++i) to[i] = lanes[i];
}

// The sum of the lanes, as a tree: lane i with lane i + half.
template <class T>
FASTARCH_INLINE T lanes_sum(Vector<T> v) {
  T lanes[kLanes<T>];
  store(lanes, v);
  for (int half = kLanes<T> / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
}

template <class T>
FASTARCH_INLINE T lanes_max(Vector<T> v) {
  T lanes[kLanes<T>];
  store(lanes, v);
  for (int half = kLanes<T> / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] = lanes[i] > lanes[i + half] ? lanes[i] : lanes[i + half];
  return lanes[0];
}

// Constants of exp for a type: x = n*ln2 + r with |r| <= ln2/2, ln2 in two parts of which the first times n
// is exact; exp(r) = 1 + r + r*r*Q(r) with the Chebyshev fit Q, whose error is below a tenth of a rounding.
template <class T>
struct Exp;
template <>
struct Exp<float> {
  static constexpr float kLow = -104, kHigh = 89;  // beyond: 0 and infinity
  static constexpr float kLn2High = 0.693145751953125f, kLn2Low = 1.42860682031e-6f;
  static constexpr float kRound = 12582912;  // 1.5 * 2^23: adding it rounds to an integer
  static constexpr int kBias = 127, kMantissa = 23;
  static constexpr float kQ[] = {0.5f, 0.166665768459939763f, 0.0416665544376859389f, 0.00836320297157585495f,
                                 0.0013926213466332443f};
};
template <>
struct Exp<double> {
  static constexpr double kLow = -746, kHigh = 710;
  static constexpr double kLn2High = 0x1.62e42fefa2p-1, kLn2Low = 7.3710025651677989018e-13;
  static constexpr double kRound = 6755399441055744;  // 1.5 * 2^52
  static constexpr int kBias = 1023, kMantissa = 52;
  static constexpr double kQ[] = {0.5,
                                  0.166666666666666675,
                                  0.0416666666666239915,
                                  0.00833333333333005135,
                                  0.00138888889172817933,
                                  0.000198412698631059687,
                                  0.0000248015211902177277,
                                  2.75572683786841929e-6,
                                  2.76201387197339956e-7,
                                  2.51004241570050668e-8};
};

// 2^n for an integer n in the exponent's range.
template <class T>
FASTARCH_INLINE Vector<T> power_of_two(Integers<T> n) {
  const Integers<T> bits = (n + Exp<T>::kBias) << Exp<T>::kMantissa;
  Vector<T> v;
  __builtin_memcpy(&v, &bits, sizeof v);
  return v;
}

// x = n*ln2 + r; returns exp(r) - 1. NaN gives NaN.
template <class T>
FASTARCH_INLINE Vector<T> reduced_expm1(Vector<T> x, Integers<T>* n) {
  using E = Exp<T>;
  const Vector<T> shifted = x * T(1.442695040888963407) + E::kRound;
  const Vector<T> count = shifted - E::kRound;
  const Vector<T> magic = broadcast(E::kRound);
  Integers<T> bits, base;
  __builtin_memcpy(&bits, &shifted, sizeof bits);
  __builtin_memcpy(&base, &magic, sizeof base);
  *n = bits - base;
  const Vector<T> r = (x - count * E::kLn2High) - count * E::kLn2Low;
  constexpr int kTerms = sizeof(E::kQ) / sizeof(T);
  Vector<T> q = broadcast(E::kQ[kTerms - 1]);
  for (int i = kTerms - 2; i >= 0; --i) q = q * r + E::kQ[i];
  return r * r * q + r;
}

template <class T>
FASTARCH_INLINE Vector<T> exponential(Vector<T> x) {
  x = x < Exp<T>::kLow ? broadcast(Exp<T>::kLow) : x;
  x = x > Exp<T>::kHigh ? broadcast(Exp<T>::kHigh) : x;
  Integers<T> n;
  const Vector<T> mantissa = reduced_expm1<T>(x, &n) + T(1);
  const Integers<T> half = n >> 1;  // in two steps, so that the result may be subnormal or infinite
  return mantissa * power_of_two<T>(half) * power_of_two<T>(n - half);
}

// tanh(x) = e / (e + 2) with e = exp(2x) - 1, which keeps full precision near 0.
template <class T>
FASTARCH_INLINE Vector<T> hyperbolic_tangent(Vector<T> x) {
  constexpr T kSaturated = sizeof(T) == 4 ? T(10) : T(20);  // tanh rounds to 1
  Vector<T> magnitude = x < 0 ? -x : x;
  magnitude = magnitude > kSaturated ? broadcast(kSaturated) : magnitude;
  Integers<T> n;
  const Vector<T> m = reduced_expm1<T>(magnitude + magnitude, &n);
  const Vector<T> scale = power_of_two<T>(n);
  const Vector<T> e = m * scale + (scale - T(1));
  const Vector<T> y = e / (e + T(2));
  return x < 0 ? -y : y;
}

template <class T>
FASTARCH_INLINE Vector<T> activate(Vector<T> x, Activation kind) {
  switch (kind) {
    case Activation::relu: return x <= 0 ? Vector<T>{} : x;  // NaN passes through, as in PyTorch
    case Activation::tanh: return hyperbolic_tangent<T>(x);
    case Activation::sigmoid: return T(1) / (T(1) + exponential<T>(-x));
    default: return x;
  }
}

// dy * f'(x), from y = f(x). Where relu is flat the gradient is 0 whatever dy is; a NaN in y lets dy through.
template <class T>
FASTARCH_INLINE Vector<T> activation_gradient(Vector<T> dy, Vector<T> y, Activation kind) {
  switch (kind) {
    case Activation::relu: return y <= 0 ? Vector<T>{} : dy;
    case Activation::tanh: return dy * (T(1) - y * y);
    case Activation::sigmoid: return dy * (y * (T(1) - y));
    default: return dy;
  }
}

}  // namespace
}  // namespace fastarch::cpu
