// The transforms of Winograd's minimal filtering: tiles of MxM outputs of a 3x3 correlation, F(MxM, 3x3),
// with the matrices of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015).
// Along one axis
//   y = output(filter(g) * input(d)),   d: [M + 2], g: [3], y: [M]
// and along two, one axis after the other. Values may be numbers or vectors of numbers of type T.
#pragma once
#include "core/types.h"

#if defined(__CUDACC__)
#define FASTARCH_TRANSFORM __host__ __device__ __forceinline__
#else
#define FASTARCH_TRANSFORM inline __attribute__((always_inline))
#endif

namespace fastarch {

template <class T, int M>
struct Winograd;

template <class T>
struct Winograd<T, 2> {
  static constexpr int kSide = 4, kPoints = 16;

  template <class V>
  FASTARCH_TRANSFORM static void input(const V (&d)[4], V (&t)[4]) {
    t[0] = d[0] - d[2];
    t[1] = d[1] + d[2];
    t[2] = d[2] - d[1];
    t[3] = d[1] - d[3];
  }
  template <class V>
  FASTARCH_TRANSFORM static void filter(const V (&g)[3], V (&t)[4]) {
    const V ends = T(0.5) * (g[0] + g[2]), middle = T(0.5) * g[1];
    t[0] = g[0];
    t[1] = ends + middle;
    t[2] = ends - middle;
    t[3] = g[2];
  }
  template <class V>
  FASTARCH_TRANSFORM static void output(const V (&m)[4], V (&y)[2]) {
    y[0] = m[0] + m[1] + m[2];
    y[1] = m[1] - m[2] - m[3];
  }
};

template <class T>
struct Winograd<T, 4> {
  static constexpr int kSide = 6, kPoints = 36;

  template <class V>
  FASTARCH_TRANSFORM static void input(const V (&d)[6], V (&t)[6]) {
    const V near = d[4] - T(4) * d[2], far = d[3] - T(4) * d[1];
    const V even = d[4] - d[2], odd = T(2) * (d[3] - d[1]);
    t[0] = T(4) * d[0] - T(5) * d[2] + d[4];
    t[1] = near + far;
    t[2] = near - far;
    t[3] = even + odd;
    t[4] = even - odd;
    t[5] = T(4) * d[1] - T(5) * d[3] + d[5];
  }
  template <class V>
  FASTARCH_TRANSFORM static void filter(const V (&g)[3], V (&t)[6]) {
    const V sixth = T(-1.0 / 6) * (g[0] + g[2]), middle = T(-1.0 / 6) * g[1];
    const V ends = T(1.0 / 24) * g[0] + T(1.0 / 6) * g[2], twelfth = T(1.0 / 12) * g[1];
    t[0] = T(0.25) * g[0];
    t[1] = sixth + middle;
    t[2] = sixth - middle;
    t[3] = ends + twelfth;
    t[4] = ends - twelfth;
    t[5] = g[2];
  }
  template <class V>
  FASTARCH_TRANSFORM static void output(const V (&m)[6], V (&y)[4]) {
    const V near = m[1] + m[2], far = m[3] + m[4], across = m[1] - m[2], beyond = m[3] - m[4];
    y[0] = m[0] + near + far;
    y[1] = across + T(2) * beyond;
    y[2] = near + T(4) * far;
    y[3] = across + T(8) * beyond + m[5];
  }
};

}  // namespace fastarch
