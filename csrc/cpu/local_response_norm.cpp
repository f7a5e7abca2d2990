// Local response normalisation on the CPU: a block of pixels at a time, through whose channels the sums of
// squares are taken plane by plane; where channels are neighbours in memory, a pixel at a time.
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

// sum[c] = the sum over d in [-before, after] of f(c + d), of the channels that exist.
template <class T, class F>
void sum_neighbours(int64_t channels, int64_t before, int64_t after, T* sum, const F& f) {
  std::fill(sum, sum + channels, T(0));
  for (int64_t d = -std::min(before, channels - 1); d <= std::min(after, channels - 1); ++d) {
    const int64_t end = std::min(channels, channels - d);
    for (int64_t c = std::max<int64_t>(0, -d); c < end; ++c) sum[c] += f(c + d);
  }
}

// Calls body(first element, scratch [2, channels]) for every pixel of [pixels, channels], in parallel.
template <class T, class Body>
void for_rows(const ResponseNorm& norm, const Body& body) {
  parallel_for(norm.outer, 1 + 4096 / norm.channels, [&](int64_t begin, int64_t end) {
    std::vector<T> scratch(static_cast<size_t>(2 * norm.channels));
    for (int64_t i = begin; i < end; ++i) body(i * norm.channels, scratch.data());
  });
}

}  // namespace

template <class T>
void local_response_norm_forward(const T* x, T* y, const ResponseNorm& norm, Stream) {
  const int64_t before = norm.size / 2, after = (norm.size - 1) / 2;
  const T alpha = static_cast<T>(norm.alpha), beta = static_cast<T>(norm.beta), k = static_cast<T>(norm.k);
  if (norm.outer * norm.channels * norm.inner == 0) return;
  if (norm.inner == 1)
    return for_rows<T>(norm, [&](int64_t first, T* sum) {
      const T* row = x + first;
      sum_neighbours(norm.channels, before, after, sum, [&](int64_t c) { return row[c] * row[c]; });
      for (int64_t c = 0; c < norm.channels; ++c)
        y[first + c] = row[c] * falling_power(k + alpha * sum[c], beta);
    });
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
  if (norm.outer * norm.channels * norm.inner == 0) return;
  if (norm.inner == 1)
    return for_rows<T>(norm, [&](int64_t first, T* sum) {
      const T *row = x + first, *slope = dy + first;
      T *to = dx + first, *share = sum + norm.channels;  // dy x / scale^(beta + 1)
      sum_neighbours(norm.channels, before, after, sum, [&](int64_t c) { return row[c] * row[c]; });
      for (int64_t c = 0; c < norm.channels; ++c) {
        const T scale = k + alpha * sum[c];
        to[c] = slope[c] * falling_power(scale, beta);
        share[c] = to[c] * row[c] / scale;
      }
      sum_neighbours(norm.channels, after, before, sum, [&](int64_t c) { return share[c]; });
      for (int64_t c = 0; c < norm.channels; ++c) to[c] -= factor * row[c] * sum[c];
    });
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
