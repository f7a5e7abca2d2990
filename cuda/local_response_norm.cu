// Local response normalisation. Where pixels are neighbours in memory a thread walks up the channels of one,
// so that neighbouring threads read neighbouring pixels and the window's other channels come from the L1
// cache; where channels are, a thread takes one element, or eight with the window of five that networks have.
// The backward stores each element's share in its neighbours' gradients once rather than compute it for every
// neighbour; the window of five computes twelve shares for eight gradients and stores none.
#include "core/buffer.h"
#include "core/divide.h"
#include "core/half.h"
#include "core/launch.h"
#include "core/vector.h"
#include "ops/local_response_norm.h"

namespace fastarch::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kChannels = 16;  // that a thread walks

struct Walk {
  int64_t channels, inner, pixels, groups;  // pixels: outer * inner; groups of kChannels channels
  Divider by_inner, by_pixels, by_channels;
  int64_t before, after;  // channels of a window below and above its own
  double alpha, beta, k;

  explicit Walk(const ResponseNorm& norm)
      : channels(norm.channels),
        inner(norm.inner),
        pixels(norm.outer * norm.inner),
        groups((norm.channels + kChannels - 1) / kChannels),
        by_inner(norm.inner, pixels),
        by_pixels(pixels, pixels * groups),
        by_channels(norm.channels, pixels * norm.channels),
        before(norm.size / 2),
        after((norm.size - 1) / 2),
        alpha(norm.alpha),
        beta(norm.beta),
        k(norm.k) {}

  FASTARCH_HOST_DEVICE int64_t work() const { return pixels * (inner == 1 ? channels : groups); }
};

// Calls body(element, channel) for the channels of the group and pixel number i, or for element i.
template <class Body>
__device__ __forceinline__ void walk_channels(const Walk& walk, int64_t i, const Body& body) {
  if (walk.inner == 1) return body(i, i - walk.by_channels.quotient(i) * walk.channels);
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
  for (int64_t i = global_thread(); i < walk.work(); i += grid_threads())
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
  for (int64_t i = global_thread(); i < walk.work(); i += grid_threads())
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
  for (int64_t i = global_thread(); i < walk.work(); i += grid_threads())
    walk_channels(walk, i, [&](int64_t element, int64_t c) {
      C sum = 0;
      for (int64_t d = -min(walk.after, c); d <= min(walk.before, walk.channels - 1 - c); ++d)
        sum += share[element + d * walk.inner];
      dx[element] = narrow<T>(direct[element] - factor * widen(x[element]) * sum);
    });
}

// Eight channels of a pixel and four on either side, for windows of five: gradients see four channels away.
// Channels that do not exist are zeros, which no sum minds.
constexpr int kRun = 8, kSide = 4, kSeen = kRun + 2 * kSide, kFive = 5;

template <int N, class T>
__device__ __forceinline__ void load_or_zero(const T* from, bool exists, Compute<T>* to) {
  constexpr int kMove = N * sizeof(T) < 16 ? N : 16 / sizeof(T);
#pragma unroll
  for (int i = 0; i < N / kMove; ++i) {
    Pack<T, kMove> pack;
    if (exists) pack = load_pack<T, kMove>(from, i);
#pragma unroll
    for (int k = 0; k < kMove; ++k) to[i * kMove + k] = exists ? widen(pack.value[k]) : 0;
  }
}

template <class T>
__device__ __forceinline__ void load_seen(const T* array, int64_t element, int64_t channel, int64_t channels,
                                          Compute<T> (&to)[kSeen]) {
  load_or_zero<kSide>(array + element - kSide, channel > 0, to);
  load_or_zero<kRun>(array + element, true, to + kSide);
  load_or_zero<kSide>(array + element + kRun, channel + kRun < channels, to + kSide + kRun);
}

template <class T>
__device__ __forceinline__ void store_eight(T* to, const Compute<T>* from) {
  constexpr int kMove = 16 / sizeof(T);
#pragma unroll
  for (int i = 0; i < kRun / kMove; ++i) {
    Pack<T> pack;
#pragma unroll
    for (int k = 0; k < kMove; ++k) pack.value[k] = narrow<T>(from[i * kMove + k]);
    store_pack(to, i, pack);
  }
}

template <class C>
__device__ __forceinline__ C sum_of_five(const C* middle) {
  C sum = 0;
#pragma unroll
  for (int d = -(kFive / 2); d <= kFive / 2; ++d) sum += middle[d];
  return sum;
}

template <class C>
__device__ __forceinline__ void square_all(const C (&x)[kSeen], C (&squares)[kSeen]) {
#pragma unroll
  for (int j = 0; j < kSeen; ++j) squares[j] = x[j] * x[j];
}

// runs: all elements / 8; by_runs divides by those of a pixel.
template <class T>
__global__ void response_of_five_forward_kernel(const T* x, T* y, Walk walk, int64_t runs, Divider by_runs) {
  using C = Compute<T>;
  for (int64_t i = global_thread(); i < runs; i += grid_threads()) {
    const int64_t channel = i * kRun - by_runs.quotient(i) * walk.channels;
    C seen[kSeen], squares[kSeen], result[kRun];
    load_seen(x, i * kRun, channel, walk.channels, seen);
    square_all(seen, squares);
#pragma unroll
    for (int k = 0; k < kRun; ++k) {
      const C scale = static_cast<C>(walk.k) + static_cast<C>(walk.alpha) * sum_of_five(squares + kSide + k);
      result[k] = seen[kSide + k] * falling_power(scale, static_cast<C>(walk.beta));
    }
    store_eight(y + i * kRun, result);
  }
}

template <class T>
__global__ void response_of_five_backward_kernel(const T* dy, const T* x, T* dx, Walk walk, int64_t runs,
                                                 Divider by_runs) {
  using C = Compute<T>;
  const C factor = static_cast<C>(2 * walk.alpha * walk.beta);
  for (int64_t i = global_thread(); i < runs; i += grid_threads()) {
    const int64_t channel = i * kRun - by_runs.quotient(i) * walk.channels;
    C seen[kSeen], squares[kSeen], slope[kSeen], direct[kSeen], share[kSeen], result[kRun];
    load_seen(x, i * kRun, channel, walk.channels, seen);
    load_seen(dy, i * kRun, channel, walk.channels, slope);
    square_all(seen, squares);
#pragma unroll
    for (int j = kSide - kFive / 2; j < kSide + kRun + kFive / 2; ++j) {
      const C scale = static_cast<C>(walk.k) + static_cast<C>(walk.alpha) * sum_of_five(squares + j);
      direct[j] = slope[j] * falling_power(scale, static_cast<C>(walk.beta));
      share[j] = direct[j] * seen[j] / scale;
    }
#pragma unroll
    for (int k = 0; k < kRun; ++k)
      result[k] = direct[kSide + k] - factor * seen[kSide + k] * sum_of_five(share + kSide + k);
    store_eight(dx + i * kRun, result);
  }
}

bool has_runs_of_five(const ResponseNorm& norm) {
  return norm.inner == 1 && norm.size == kFive && norm.channels % kRun == 0;
}

}  // namespace

template <class T>
void local_response_norm_forward(const T* x, T* y, const ResponseNorm& norm, Stream stream) {
  const Walk walk(norm);
  const int64_t work = walk.work();
  if (work == 0) return;
  if (has_runs_of_five(norm) && packable(x, y)) {
    const int64_t runs = work / kRun;
    launch("local_response_norm_forward", response_of_five_forward_kernel<T>, grid_for(runs, kThreads),
           kThreads, 0, stream, x, y, walk, runs, Divider(norm.channels / kRun, runs));
    return;
  }
  launch("local_response_norm_forward", response_forward_kernel<T>, grid_for(work, kThreads), kThreads, 0,
         stream, x, y, walk);
}

template <class T>
void local_response_norm_backward(const T* dy, const T* x, T* dx, const ResponseNorm& norm, Stream stream) {
  const Walk walk(norm);
  const int64_t work = walk.work(), size = walk.pixels * walk.channels;
  if (work == 0) return;
  if (has_runs_of_five(norm) && packable(dy, x, dx)) {
    const int64_t runs = work / kRun;
    launch("local_response_norm_backward", response_of_five_backward_kernel<T>, grid_for(runs, kThreads),
           kThreads, 0, stream, dy, x, dx, walk, runs, Divider(norm.channels / kRun, runs));
    return;
  }
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
