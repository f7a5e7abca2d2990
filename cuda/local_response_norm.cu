// Local response normalisation. A thread walks up the channels of one pixel, so that neighbouring threads
// read neighbouring pixels and the window's other channels come from the L1 cache. The backward stores each
// element's share in its neighbours' gradients once rather than compute it for every neighbour.
#include "core/buffer.h"
#include "core/divide.h"
#include "core/half.h"
#include "core/launch.h"
#include "ops/local_response_norm.h"

namespace fastarch::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kChannels = 16;  // that a thread walks

struct Walk {
  int64_t channels, inner, pixels, groups;  // pixels: outer * inner; groups of kChannels channels
  Divider by_inner, by_pixels;
  int64_t before, after;  // channels of a window below and above its own
  double alpha, beta, k;

  explicit Walk(const ResponseNorm& norm)
      : channels(norm.channels),
        inner(norm.inner),
        pixels(norm.outer * norm.inner),
        groups((norm.channels + kChannels - 1) / kChannels),
        by_inner(norm.inner, pixels),
        by_pixels(pixels, pixels * groups),
        before(norm.size / 2),
        after((norm.size - 1) / 2),
        alpha(norm.alpha),
        beta(norm.beta),
        k(norm.k) {}
};

// Calls body(element, channel) for the channels of the group and pixel number i.
template <class Body>
__device__ __forceinline__ void walk_channels(const Walk& walk, int64_t i, const Body& body) {
  const int64_t group = walk.by_pixels.quotient(i), pixel = i - group * walk.pixels;
  const int64_t outer = walk.by_inner.quotient(pixel);
  const int64_t first = group * kChannels, last = min(first + kChannels, walk.channels);
  int64_t element = (outer * walk.channels + first) * walk.inner + (pixel - outer * walk.inner);
  for (int64_t c = first; c < last; ++c, element += walk.inner) body(element, c);
}

template <class T>
__device__ __forceinline__ Compute<T> scale_at(const Walk& walk, const T* x, int64_t element, int64_t c) {
  using C = Compute<T>;
  C sum = 0;
  for (int64_t d = -min(walk.before, c); d <= min(walk.after, walk.channels - 1 - c); ++d) {
    const C value = widen(x[element + d * walk.inner]);
    sum += value * value;
  }
  return static_cast<C>(walk.k) + static_cast<C>(walk.alpha) * sum;
}

// scale^-beta; the usual beta needs no power.
template <class C>
__device__ __forceinline__ C falling_power(C scale, C beta) {
  if (beta == C(0.75)) {
    const C root = C(1) / sqrt(scale);
    return root * sqrt(root);
  }
  return pow(scale, -beta);
}

template <class T>
__global__ void response_forward_kernel(const T* x, T* y, Walk walk) {
  using C = Compute<T>;
  for (int64_t i = global_thread(); i < walk.pixels * walk.groups; i += grid_threads())
    walk_channels(walk, i, [&](int64_t element, int64_t c) {
      const C power = falling_power(scale_at(walk, x, element, c), static_cast<C>(walk.beta));
      y[element] = narrow<T>(widen(x[element]) * power);
    });
}

// share = dy x / scale^(beta + 1), and direct = dy / scale^beta.
template <class T>
__global__ void response_shares_kernel(const T* dy, const T* x, Compute<T>* share, Compute<T>* direct,
                                       Walk walk) {
  using C = Compute<T>;
  for (int64_t i = global_thread(); i < walk.pixels * walk.groups; i += grid_threads())
    walk_channels(walk, i, [&](int64_t element, int64_t c) {
      const C scale = scale_at(walk, x, element, c);
      const C passed = widen(dy[element]) * falling_power(scale, static_cast<C>(walk.beta));
      direct[element] = passed;
      share[element] = passed * widen(x[element]) / scale;
    });
}

// The channels that see channel c lie the other way round.
template <class T>
__global__ void response_gather_kernel(const T* x, const Compute<T>* share, const Compute<T>* direct, T* dx,
                                       Walk walk) {
  using C = Compute<T>;
  const C factor = static_cast<C>(2 * walk.alpha * walk.beta);
  for (int64_t i = global_thread(); i < walk.pixels * walk.groups; i += grid_threads())
    walk_channels(walk, i, [&](int64_t element, int64_t c) {
      C sum = 0;
      for (int64_t d = -min(walk.after, c); d <= min(walk.before, walk.channels - 1 - c); ++d)
        sum += share[element + d * walk.inner];
      dx[element] = narrow<T>(direct[element] - factor * widen(x[element]) * sum);
    });
}

}  // namespace

template <class T>
void local_response_norm_forward(const T* x, T* y, const ResponseNorm& norm, Stream stream) {
  const Walk walk(norm);
  const int64_t work = walk.pixels * walk.groups;
  if (work == 0) return;
  launch("local_response_norm_forward", response_forward_kernel<T>, grid_for(work, kThreads), kThreads, 0,
         stream, x, y, walk);
}

template <class T>
void local_response_norm_backward(const T* dy, const T* x, T* dx, const ResponseNorm& norm, Stream stream) {
  const Walk walk(norm);
  const int64_t work = walk.pixels * walk.groups, size = walk.pixels * walk.channels;
  if (work == 0) return;
  const Buffer<Compute<T>> share(size, stream), direct(size, stream);
  launch("local_response_norm_backward", response_shares_kernel<T>, grid_for(work, kThreads), kThreads, 0,
         stream, dy, x, share.data(), direct.data(), walk);
  launch("local_response_norm_backward", response_gather_kernel<T>, grid_for(work, kThreads), kThreads, 0,
         stream, x, share.data(), direct.data(), dx, walk);
}

#define INSTANTIATE(T)                                                                  \
  template void local_response_norm_forward(const T*, T*, const ResponseNorm&, Stream); \
  template void local_response_norm_backward(const T*, const T*, T*, const ResponseNorm&, Stream);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(float16)
INSTANTIATE(bfloat16)

}  // namespace fastarch::cuda
