// Functions of free energies and means, on any device. No sample depends on them.
#pragma once
#include <cmath>

#include "core/types.h"

namespace fastarch {

// ln(1 + exp(x)); NaN stays NaN.
template <class T>
FASTARCH_HOST_DEVICE T softplus(T x) {
  return (x < T(0) ? T(0) : x) + std::log1p(std::exp(x > T(0) ? -x : x));
}

// The integral of softplus from -infinity to x, which is -Li2(-exp(x)): a series in -ln(1 + exp(-|x|)), which
// is at most ln 2, with the coefficients B_n / (n + 1)! of even n; for x > 0 the inversion of the
// dilogarithm. Lewin, "Polylogarithms and Associated Functions" (1981).
template <class T>
FASTARCH_HOST_DEVICE T integral_of_softplus(T x) {
  const T u = -softplus(x > T(0) ? -x : x), u2 = u * u;
  T series = T(-1.9939295860721076e-14);
  series = series * u2 + T(8.9216910204564526e-13);
  series = series * u2 - T(4.0647616451442255e-11);
  series = series * u2 + T(1.8978869988970999e-09);
  series = series * u2 - T(9.1857730746619636e-08);
  series = series * u2 + T(4.7241118669690098e-06);
  series = series * u2 - T(2.7777777777777778e-04);
  series = series * u2 + T(2.7777777777777778e-02);
  const T li2 = u - T(0.25) * u2 + u * u2 * series;
  constexpr T kSixthOfPiSquared = T(1.6449340668482264);
  return x > T(0) ? x * x / 2 + kSixthOfPiSquared + li2 : -li2;
}

}  // namespace fastarch
