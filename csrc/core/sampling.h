// Samples of random units that are the same on every device: where pre-activations are equal, so is every
// bit. Only additions, multiplications, divisions and square roots are used, each rounded once and none
// fused; what includes this for the host is compiled with -ffp-contract=off. fastarch/ops/_sampling.py is
// the same in NumPy.
#pragma once
#include "core/philox.h"

#if defined(__CUDACC__)
#define FASTARCH_ARITHMETIC __host__ __device__ __forceinline__
#else
// Also where the optimizer is off: no copy may be kept that another instruction set's code would call.
#define FASTARCH_ARITHMETIC inline __attribute__((always_inline))
#endif

namespace fastarch {
namespace sampling {

#if defined(__CUDA_ARCH__)
FASTARCH_ARITHMETIC float add(float a, float b) { return __fadd_rn(a, b); }
FASTARCH_ARITHMETIC float multiply(float a, float b) { return __fmul_rn(a, b); }
FASTARCH_ARITHMETIC float divide(float a, float b) { return __fdiv_rn(a, b); }
FASTARCH_ARITHMETIC float root(float a) { return __fsqrt_rn(a); }
FASTARCH_ARITHMETIC double add(double a, double b) { return __dadd_rn(a, b); }
FASTARCH_ARITHMETIC double multiply(double a, double b) { return __dmul_rn(a, b); }
FASTARCH_ARITHMETIC double divide(double a, double b) { return __ddiv_rn(a, b); }
FASTARCH_ARITHMETIC double root(double a) { return __dsqrt_rn(a); }
#else
template <class T>
FASTARCH_ARITHMETIC T add(T a, T b) {
  return a + b;
}
template <class T>
FASTARCH_ARITHMETIC T multiply(T a, T b) {
  return a * b;
}
template <class T>
FASTARCH_ARITHMETIC T divide(T a, T b) {
  return a / b;
}
FASTARCH_ARITHMETIC float root(float a) { return __builtin_sqrtf(a); }
FASTARCH_ARITHMETIC double root(double a) { return __builtin_sqrt(a); }
#endif

template <class To, class From>
FASTARCH_ARITHMETIC To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

// ((last x + ...) x + second) x + first.
template <class T>
FASTARCH_ARITHMETIC T polynomial(T, T last) {
  return last;
}
template <class T, class... Rest>
FASTARCH_ARITHMETIC T polynomial(T x, T first, Rest... rest) {
  return add(multiply(polynomial(x, rest...), x), first);
}

// What the arithmetic needs to know of a float type, and its Chebyshev fits: exp2: (2^f - 1) / f for |f| <=
// 1/2; log: ln((1 + s) / (1 - s)) / s in s^2; sine, cosine: sin(pi/2 g) / g and (cos(pi/2 g) - 1) / g^2 in
// g^2, for |g| <= 1/2.
template <class T>
struct Format;

template <>
struct Format<float> {
  using Integer = int32_t;
  using Unsigned = uint32_t;
  static constexpr Unsigned kMantissa = 23;
  static constexpr int kBias = 127;
  // 1.5 * 2^23 + kBias: adding it rounds to an integer, which the lowest bits then hold as an exponent.
  static constexpr float kRound = 12583039.0f;
  static constexpr Unsigned kRootHalf = 0x3F3504F3;
  static constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

  FASTARCH_ARITHMETIC static float exp2(float f) {
    return polynomial(f, 0.6931471824645996f, 0.2402234971523285f, 0.055503811687231064f,
                      0.00966636836528778f, 0.0013381302123889327f);
  }
  FASTARCH_ARITHMETIC static float log(float s2) {
    return polynomial(s2, 2.0f, 0.666668176651001f, 0.3997485041618347f, 0.29924389719963074f);
  }
  FASTARCH_ARITHMETIC static float sine(float g2) {
    return polynomial(g2, 1.5707963705062866f, -0.6459634900093079f, 0.07968021929264069f,
                      -0.004602149128913879f);
  }
  FASTARCH_ARITHMETIC static float cosine(float g2) {
    return polynomial(g2, -1.2337005138397217f, 0.253669410943985f, -0.02086152881383896f,
                      0.0009067399078048766f);
  }
};

template <>
struct Format<double> {
  using Integer = int64_t;
  using Unsigned = uint64_t;
  static constexpr Unsigned kMantissa = 52;
  static constexpr int kBias = 1023;
  static constexpr double kRound = 6755399441056767.0;  // 1.5 * 2^52 + kBias
  static constexpr Unsigned kRootHalf = 0x3FE6A09E667F3BCD;
  static constexpr double kLog2E = 1.4426950408889634, kLn2 = 0.6931471805599453;

  FASTARCH_ARITHMETIC static double exp2(double f) {
    return polynomial(f, 0.6931471805599453, 0.24022650695910097, 0.0555041086648216, 0.009618129107606888,
                      0.0013333558146416936, 0.0001540353044173605, 1.525273382983612e-05,
                      1.321544258792169e-06, 1.0178062445845774e-07, 7.072585949269223e-09,
                      4.4549605981865186e-10);
  }
  FASTARCH_ARITHMETIC static double log(double s2) {
    return polynomial(s2, 2.0, 0.6666666666666666, 0.40000000000007496, 0.2857142856881913,
                      0.2222222267692954, 0.18181773738016305, 0.1538716092613408, 0.13248763083460116,
                      0.13262103674021808);
  }
  FASTARCH_ARITHMETIC static double sine(double g2) {
    return polynomial(g2, 1.5707963267948966, -0.6459640975062443, 0.07969262624604301, -0.004681754132340976,
                      0.0001604411407509421, -3.59864335298231e-06, 5.633933781537854e-08);
  }
  FASTARCH_ARITHMETIC static double cosine(double g2) {
    return polynomial(g2, -1.2337005501361697, 0.2536695079010478, -0.020863480763340773,
                      0.0009192602745468447, -2.5202039028029178e-05, 4.710678405505227e-07,
                      -6.329396344967424e-09);
  }
};

// 2^x, x held within the exponents of normal numbers. NaN stays NaN.
template <class T>
FASTARCH_ARITHMETIC T power_of_two(T x) {
  using F = Format<T>;
  constexpr T kMost = F::kBias - 2;
  x = x > kMost ? kMost : x;
  x = x < -kMost ? -kMost : x;
  const T shifted = add(x, F::kRound);
  const T f = add(x, -add(shifted, -F::kRound));
  const T mantissa = add(multiply(F::exp2(f), f), T(1));
  using U = typename F::Unsigned;
  const U bits = bits_as<U>(shifted) << F::kMantissa;  // all else falls out on the left
  return multiply(mantissa, bits_as<T>(bits));
}

template <class T>
FASTARCH_ARITHMETIC T sigmoid(T x) {
  return divide(T(1), add(power_of_two(multiply(x, -Format<T>::kLog2E)), T(1)));
}

// exp(x) for x <= 0; below the smallest normal number it is about that one.
template <class T>
FASTARCH_ARITHMETIC T exponential(T x) {
  return power_of_two(multiply(x, Format<T>::kLog2E));
}

// A word as a number in [0, kWords<T>): its upper 24 bits where T has no room for more.
template <class T>
constexpr T kWords = T(sizeof(T) == 4 ? 16777216.0 : 4294967296.0);

FASTARCH_ARITHMETIC float number_of(uint32_t word, float) {
  return static_cast<float>(static_cast<int32_t>(word >> 8));
}
FASTARCH_ARITHMETIC double number_of(uint32_t word, double) { return static_cast<double>(word); }

// 1 with probability p, which is rounded up to a multiple of 1 / kWords<T>; 0 where p is NaN.
template <class T>
FASTARCH_ARITHMETIC T bernoulli(uint32_t word, T p) {
  return number_of(word, T()) < multiply(p, kWords<T>) ? T(1) : T(0);
}

// Two standard normal numbers, Box and Muller (1958).
template <class T>
FASTARCH_ARITHMETIC void normal_pair(uint32_t of_radius, uint32_t of_angle, T* first, T* second) {
  using F = Format<T>;
  using I = typename F::Integer;
  using U = typename F::Unsigned;
  const T x = add(static_cast<T>(of_radius), T(0.5));  // ln(x / 2^32) is of (0, 1]
  const U bits = bits_as<U>(x);
  // x is at least 1/2, so that two more make its exponent positive.
  const I exponent = static_cast<I>((bits - F::kRootHalf + (U(2) << F::kMantissa)) >> F::kMantissa) - 2;
  const T m = bits_as<T>(static_cast<U>(bits - (static_cast<U>(exponent) << F::kMantissa)));
  const T s = divide(add(m, T(-1)), add(m, T(1)));
  const T log = add(multiply(static_cast<T>(exponent - 32), F::kLn2), multiply(F::log(multiply(s, s)), s));
  T radius = root(multiply(log, T(-2)));
  if (of_angle >> 31) radius = -radius;

  const T g = multiply(static_cast<T>(static_cast<int32_t>(of_angle << 2)), T(1.0 / 4294967296.0));
  const T g2 = multiply(g, g);
  const T sine = multiply(multiply(F::sine(g2), g), radius);
  const T cosine = multiply(add(multiply(F::cosine(g2), g2), T(1)), radius);
  const bool swapped = of_angle >> 30 & 1;
  *first = swapped ? sine : cosine;
  *second = swapped ? cosine : sine;
}

}  // namespace sampling

// Where the random words of a layer of `columns` units lie: row's first Philox position at this step. Unit c
// takes word c % 4 of the position c / 4 after it.
FASTARCH_ARITHMETIC uint64_t first_position(int64_t step, int64_t row, int64_t columns) {
  return (static_cast<uint64_t>(step) << 40) + static_cast<uint64_t>(row * ((columns + 3) / 4));
}

}  // namespace fastarch
