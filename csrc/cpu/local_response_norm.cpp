// Local response normalisation on the CPU: an image a thread, a block of pixels at a time, through whose
// channels the sums of squares are taken plane by plane.
#include "ops/local_response_norm.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/thread_pool.h"

namespace fastarch::cpu {
namespace {

constexpr int64_t kPixels = 512;  // worked on together: of some channels they stay in the first-level cache

// to[i] = sum over the channels [first, last] of f(element), for n pixels at `pixel` of image `image`.
template <class T, class F>
void sum_channels(const ResponseNorm& norm, int64_t image, int64_t pixel, int64_t n, int64_t first,
                  int64_t last, T* to, const F& f) {
  std::fill(to, to + n, T(0));
  for (int64_t c = std::max<int64_t>(first, 0); c <= std::min(last, norm.channels - 1); ++c) {
    const int64_t base = (image * norm.channels + c) * norm.inner + pixel;
    for (int64_t i = 0; i < n; ++i) to[i] += f(base + i);
  }
}

template <class T>
T falling_power(T scale, T beta) {
  if (beta == T(0.75)) {
    const T root = T(1) / std::sqrt(scale);
    return root * std::sqrt(root);
  }
  return std::pow(scale, -beta);
}

// Calls body(image, pixel, n) on blocks of pixels of all images, in parallel.
template <class Body>
void for_pixels(const ResponseNorm& norm, const Body& body) {
  const int64_t blocks = (norm.inner + kPixels - 1) / kPixels;
  parallel_for(norm.outer * blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t pixel = i % blocks * kPixels;
      body(i / blocks, pixel, std::min(kPixels, norm.inner - pixel));
    }
  });
}

}  // namespace

template <class T>
void local_response_norm_forward(const T* x, T* y, const ResponseNorm& norm, Stream) {
  const int64_t before = norm.size / 2, after = (norm.size - 1) / 2;
  const T alpha = static_cast<T>(norm.alpha), beta = static_cast<T>(norm.beta), k = static_cast<T>(norm.k);
  for_pixels(norm, [&](int64_t image, int64_t pixel, int64_t n) {
    T sum[kPixels];
    for (int64_t c = 0; c < norm.channels; ++c) {
      sum_channels(norm, image, pixel, n, c - before, c + after, sum, [&](int64_t e) { return x[e] * x[e]; });
      const int64_t base = (image * norm.channels + c) * norm.inner + pixel;
      for (int64_t i = 0; i < n; ++i) y[base + i] = x[base + i] * falling_power(k + alpha * sum[i], beta);
    }
  });
}

template <class T>
void local_response_norm_backward(const T* dy, const T* x, T* dx, const ResponseNorm& norm, Stream) {
  const int64_t before = norm.size / 2, after = (norm.size - 1) / 2;
  const T alpha = static_cast<T>(norm.alpha), beta = static_cast<T>(norm.beta), k = static_cast<T>(norm.k);
  const T factor = static_cast<T>(2 * norm.alpha * norm.beta);
  for_pixels(norm, [&](int64_t image, int64_t pixel, int64_t n) {
    T sum[kPixels];
    std::vector<T> shares(static_cast<size_t>(norm.channels * n));  // dy x / scale^(beta + 1)
    for (int64_t c = 0; c < norm.channels; ++c) {
      sum_channels(norm, image, pixel, n, c - before, c + after, sum, [&](int64_t e) { return x[e] * x[e]; });
      const int64_t base = (image * norm.channels + c) * norm.inner + pixel;
      for (int64_t i = 0; i < n; ++i) {
        const T scale = k + alpha * sum[i];
        dx[base + i] = dy[base + i] * falling_power(scale, beta);
        shares[c * n + i] = dx[base + i] * x[base + i] / scale;
      }
    }
    for (int64_t c = 0; c < norm.channels; ++c) {
      const int64_t base = (image * norm.channels + c) * norm.inner + pixel;
      std::fill(sum, sum + n, T(0));
      const int64_t last = std::min(c + before, norm.channels - 1);
      for (int64_t other = std::max<int64_t>(c - after, 0); other <= last; ++other)
        for (int64_t i = 0; i < n; ++i) sum[i] += shares[other * n + i];
      for (int64_t i = 0; i < n; ++i) dx[base + i] -= factor * x[base + i] * sum[i];
    }
  });
}

#define INSTANTIATE(T)                                                                  \
  template void local_response_norm_forward(const T*, T*, const ResponseNorm&, Stream); \
  template void local_response_norm_backward(const T*, const T*, T*, const ResponseNorm&, Stream);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace fastarch::cpu
