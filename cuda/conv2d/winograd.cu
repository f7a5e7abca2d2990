// Winograd convolution, not fused: pixels and filters are transformed, multiplied point by point, and the
// products transformed back. The points are the groups of one 1x1 convolution (pointwise.h):
//   products [point][filter, tile] = filters [point][filter, channel] * pixels [point][channel, tile]
// The input gradient is the same with the filters turned and their two sides exchanged.
#include <algorithm>

#include "conv2d/pointwise.h"
#include "conv2d/winograd.h"
#include "core/buffer.h"
#include "core/math.h"
#include "core/winograd.h"
#include "gemm/plan.h"

namespace fastarch::cuda::winograd {
namespace {

// y[n, k, p, q] = f(bias[k] + residual[n, k, p, q]
//                   + sum over c, r, s of x[n, c, top + p + r, left + q + s] * g[k, c, r, s]),
// zeros outside of the image.
template <class T>
struct Problem {
  const T* x;       // [N, C, H, W]
  const T* weight;  // g[k, c, r, s] at k*filter_pitch + c*channel_pitch + r*3 + s, + 8 - (r*3 + s) if turned
  int64_t filter_pitch, channel_pitch;
  bool turned;
  const T* bias;      // [K] or null
  const T* residual;  // as y, or null
  T* y;               // [N, K, P, Q]
  int64_t n, c, h, w, k, p, q;
  int top, left;
  Activation kind;
};

// Tiles of MxM outputs of some images, side by side; `pitch` of them, a multiple of four, at each point.
struct Tiles {
  Grid grid;  // of an image
  int64_t count, pitch;
};

constexpr int kThreads = 128;

// The loop over tiles is the inner one, so that what depends on a tile (where its pixels lie, which of them
// are inside) is not kept in registers from one channel to the next.

// to: [points][C, pitch], zeros behind the last tile. Threads along x take tiles, blocks along y channels.
template <class T, int M>
__global__ void __launch_bounds__(kThreads) transform_pixels(const Problem<T> a, const Tiles tiles, T* to) {
  constexpr int kSide = Winograd<T, M>::kSide;
  for (int64_t c = blockIdx.y; c < a.c; c += gridDim.y) {
    for (int64_t t = global_thread(); t < tiles.pitch; t += grid_threads()) {
      uint32_t within, j;
      const uint32_t image = tiles.grid.plane.split(static_cast<uint32_t>(t), &within);
      const uint32_t i = tiles.grid.row.split(within, &j);
      const int row = a.top + static_cast<int>(i) * M, column = a.left + static_cast<int>(j) * M;
      const T* const plane = a.x + (image * a.c + c) * a.h * a.w;
      T half[kSide][kSide];  // transformed along the columns
#pragma unroll
      for (int v = 0; v < kSide; ++v) {
        T d[kSide], out[kSide];
#pragma unroll
        for (int u = 0; u < kSide; ++u) {
          const int h = row + u, w = column + v;
          const bool inside = t < tiles.count && h >= 0 && h < a.h && w >= 0 && w < a.w;
          d[u] = inside ? plane[int64_t{h} * a.w + w] : T(0);
        }
        Winograd<T, M>::input(d, out);
#pragma unroll
        for (int u = 0; u < kSide; ++u) half[u][v] = out[u];
      }
#pragma unroll
      for (int u = 0; u < kSide; ++u) {
        T out[kSide];
        Winograd<T, M>::input(half[u], out);
#pragma unroll
        for (int v = 0; v < kSide; ++v) to[((u * kSide + v) * a.c + c) * tiles.pitch + t] = out[v];
      }
    }
  }
}

// to: [points][K, C]. Threads along x take channels, blocks along y filters.
template <class T, int M>
__global__ void __launch_bounds__(kThreads) transform_filters(const Problem<T> a, T* to) {
  constexpr int kSide = Winograd<T, M>::kSide;
  for (int64_t k = blockIdx.y; k < a.k; k += gridDim.y) {
    for (int64_t c = global_thread(); c < a.c; c += grid_threads()) {
      const T* const taps = a.weight + k * a.filter_pitch + c * a.channel_pitch;
      T half[kSide][3];
#pragma unroll
      for (int s = 0; s < 3; ++s) {
        T g[3], out[kSide];
#pragma unroll
        for (int r = 0; r < 3; ++r) g[r] = taps[a.turned ? 8 - (r * 3 + s) : r * 3 + s];
        Winograd<T, M>::filter(g, out);
#pragma unroll
        for (int u = 0; u < kSide; ++u) half[u][s] = out[u];
      }
#pragma unroll
      for (int u = 0; u < kSide; ++u) {
        T out[kSide];
        Winograd<T, M>::filter(half[u], out);
#pragma unroll
        for (int v = 0; v < kSide; ++v) to[((u * kSide + v) * a.k + k) * a.c + c] = out[v];
      }
    }
  }
}

// from: [points][K, pitch]. Threads along x take tiles, blocks along y filters.
template <class T, int M>
__global__ void __launch_bounds__(kThreads)
    transform_back(const Problem<T> a, const Tiles tiles, const T* from) {
  constexpr int kSide = Winograd<T, M>::kSide;
  for (int64_t k = blockIdx.y; k < a.k; k += gridDim.y) {
    for (int64_t t = global_thread(); t < tiles.count; t += grid_threads()) {
      uint32_t within, j;
      const uint32_t image = tiles.grid.plane.split(static_cast<uint32_t>(t), &within);
      const uint32_t i = tiles.grid.row.split(within, &j);
      T half[M][kSide];  // transformed along the columns
#pragma unroll
      for (int v = 0; v < kSide; ++v) {
        T m[kSide], out[M];
#pragma unroll
        for (int u = 0; u < kSide; ++u) m[u] = from[((u * kSide + v) * a.k + k) * tiles.pitch + t];
        Winograd<T, M>::output(m, out);
#pragma unroll
        for (int u = 0; u < M; ++u) half[u][v] = out[u];
      }
      const T bias = a.bias ? a.bias[k] : T(0);
      const int64_t first = (image * a.k + k) * a.p * a.q;
#pragma unroll
      for (int u = 0; u < M; ++u) {
        T out[M];
        Winograd<T, M>::output(half[u], out);
        const int64_t p = int64_t{i} * M + u;
#pragma unroll
        for (int v = 0; v < M; ++v) {
          const int64_t q = int64_t{j} * M + v, at = first + p * a.q + q;
          if (p < a.p && q < a.q) {
            const T sum = out[v] + bias;
            a.y[at] = activate(a.residual ? sum + a.residual[at] : sum, a.kind);
          }
        }
      }
    }
  }
}

dim3 grid_over(int64_t across, int64_t down) {
  dim3 grid = grid_for(across, kThreads);
  grid.y = static_cast<unsigned>(std::min<int64_t>(down, 65535));
  return grid;
}

template <class T, int M>
void convolve(const CallSite& name, Problem<T> a, Precision precision, Stream stream) {
  constexpr int64_t kPoints = Winograd<T, M>::kPoints, kMostBytes = int64_t{1} << 28;
  const Buffer<T> filters(kPoints * a.k * a.c, stream);
  launch(name, transform_filters<T, M>, grid_over(a.c, a.k), dim3(kThreads), 0, stream, a, filters.data());

  // As many images at a time as keep the transformed values of both sides within kMostBytes, but at least
  // one.
  const int64_t down = divide_up(a.p, M), across = divide_up(a.q, M), per_image = down * across;
  const int64_t bytes = kPoints * per_image * (a.c + a.k) * static_cast<int64_t>(sizeof(T));
  const int64_t chunk = std::clamp<int64_t>(kMostBytes / bytes, 1, a.n);
  const auto pitch_of = [&](int64_t images) { return divide_up(images * per_image, 4) * 4; };
  const Buffer<T> pixels(kPoints * a.c * pitch_of(chunk), stream),
      products(kPoints * a.k * pitch_of(chunk), stream);
  for (int64_t images = a.n; images > 0; images -= chunk) {
    const int64_t here = std::min(chunk, images), pitch = pitch_of(here);
    const Tiles tiles{Grid(down, across), here * per_image, pitch};
    launch(name, transform_pixels<T, M>, grid_over(pitch, a.c), dim3(kThreads), 0, stream, a, tiles,
           pixels.data());
    Conv2dShape points{.n = 1,
                       .c = kPoints * a.c,
                       .h = 1,
                       .w = pitch,
                       .k = kPoints * a.k,
                       .r = 1,
                       .s = 1,
                       .p = 1,
                       .q = pitch};
    points.groups = kPoints;
    const ImageResult<T> result{
        products.data(), kPoints * a.k * pitch, pitch, Grid(1, pitch), pitch, 1, nullptr,
        nullptr,         Activation::none};
    pointwise::forward(pixels.data(), filters.data(), result, points, precision, stream);
    launch(name, transform_back<T, M>, grid_over(tiles.count, a.k), dim3(kThreads), 0, stream, a, tiles,
           products.data());
    a.x += here * a.c * a.h * a.w;
    a.y += here * a.k * a.p * a.q;
    if (a.residual) a.residual += here * a.k * a.p * a.q;
  }
}

template <class T>
void convolve(const CallSite& name, const Problem<T>& problem, ConvAlgorithm algorithm, Precision precision,
              Stream stream) {
  if (problem.n * problem.k * problem.p * problem.q == 0) return;
  if (algorithm == ConvAlgorithm::winograd4) {
    convolve<T, 4>(name, problem, precision, stream);
  } else {
    convolve<T, 2>(name, problem, precision, stream);
  }
}

}  // namespace

template <class T>
void forward(const T* x, const T* weight, const T* bias, const T* residual, T* y, const Conv2dShape& s,
             Activation kind, Precision precision, Stream stream) {
  const Problem<T> problem{.x = x,
                           .weight = weight,
                           .filter_pitch = s.c * 9,
                           .channel_pitch = 9,
                           .turned = false,
                           .bias = bias,
                           .residual = residual,
                           .y = y,
                           .n = s.n,
                           .c = s.c,
                           .h = s.h,
                           .w = s.w,
                           .k = s.k,
                           .p = s.p,
                           .q = s.q,
                           .top = static_cast<int>(-s.padding_h),
                           .left = static_cast<int>(-s.padding_w),
                           .kind = kind};
  convolve("conv2d_forward", problem, s.algorithm, precision, stream);
}

template <class T>
void backward_input(const T* dy, const T* weight, T* dx, const Conv2dShape& s, Precision precision,
                    Stream stream) {
  const Problem<T> problem{.x = dy,
                           .weight = weight,
                           .filter_pitch = 9,
                           .channel_pitch = s.c * 9,
                           .turned = true,
                           .bias = nullptr,
                           .residual = nullptr,
                           .y = dx,
                           .n = s.n,
                           .c = s.k,
                           .h = s.p,
                           .w = s.q,
                           .k = s.c,
                           .p = s.h,
                           .q = s.w,
                           .top = static_cast<int>(s.padding_h - 2),
                           .left = static_cast<int>(s.padding_w - 2),
                           .kind = Activation::none};
  convolve("conv2d_backward_input", problem, s.algorithm, precision, stream);
}

#define INSTANTIATE(T)                                                                              \
  template void forward(const T*, const T*, const T*, const T*, T*, const Conv2dShape&, Activation, \
                        Precision, Stream);                                                         \
  template void backward_input(const T*, const T*, T*, const Conv2dShape&, Precision, Stream);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace fastarch::cuda::winograd
