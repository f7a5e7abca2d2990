// The weight gradient of a depthwise convolution: few sums, each over every pixel of a channel. A block takes
// one filter and a slice of the pixels of all images; a thread keeps a sum for each tap in registers, so that
// dy is read once and x comes from the first-level cache after its first tap. Slices are added up in order by
// a second kernel: the same call gives the same bits.
#pragma once
#include "core/buffer.h"
#include "core/reduce.h"
#include "depthwise/planes.h"

namespace fastarch::cuda::depthwise {

template <class T>
struct Weights {
  const T* dy;          // [N, K, P, Q]
  const T* x;           // [N, C, H, W]
  Compute<T>* partial;  // [slices, K, taps + 1]; the last one is the bias gradient's
  int64_t filters, channels;
  int64_t pixels, slice;  // N*P*Q, and how many of them a block takes
  Axis rows, columns;
  FastDivider plane, row;         // P*Q, Q
  FastDivider multiplier, parts;  // filters of a channel; parts that the taps are worked on in
};

// WINDOW: a square window of that size; 0: any window, kTaps taps at a time.
template <class T, int WINDOW>
__global__ void __launch_bounds__(kThreads) depthwise_weight_kernel(Weights<T> d) {
  using C = Compute<T>;
  constexpr int kTaps = WINDOW > 0 ? WINDOW * WINDOW : 16, kWarps = kThreads / kWarpThreads;
  FASTARCH_SHARED(C, warp_sums, [kWarps][kTaps + 1]);
  FASTARCH_SHARED(int, tap_rows, [kTaps]);  // where the taps are, relative to a window's first
  FASTARCH_SHARED(int, tap_columns, [kTaps]);
  const int thread = threadIdx.x;
  uint32_t part, unused;
  const uint32_t filter = d.parts.split(blockIdx.x, &part);
  const int64_t channel = d.multiplier.split(filter, &unused);
  const int taps = d.rows.taps * d.columns.taps, first = part * kTaps, count = min(kTaps, taps - first);
  if constexpr (WINDOW == 0) {
    if (thread < kTaps) {
      const int tap = first + thread, r = tap / d.columns.taps;
      // Those behind the last one lie outside of every image.
      tap_rows[thread] = thread < count ? r * d.rows.dilation : -(1 << 30);
      tap_columns[thread] = thread < count ? (tap - r * d.columns.taps) * d.columns.dilation : 0;
    }
    __syncthreads();
  }

  C sum[kTaps + 1] = {};
  const int64_t begin = blockIdx.y * d.slice, end = min(begin + d.slice, d.pixels);
  for (int64_t i = begin + thread; i < end; i += kThreads) {
    uint32_t within, q;
    const int64_t n = d.plane.split_wide(i, &within);
    const int p = d.row.split(within, &q);
    const C dy = widen(d.dy[(n * d.filters + filter) * d.plane.divisor() + within]);
    const int h = p * d.rows.stride - d.rows.padding;
    const int w = static_cast<int>(q) * d.columns.stride - d.columns.padding;
    const T* x = d.x + (n * d.channels + channel) * d.rows.source * d.columns.source;
    const auto add = [&](C& to, int row, int column) {
      if (static_cast<unsigned>(row) < static_cast<unsigned>(d.rows.source) &&
          static_cast<unsigned>(column) < static_cast<unsigned>(d.columns.source))
        to += dy * widen(x[int64_t{row} * d.columns.source + column]);
    };
#pragma unroll
    for (int t = 0; t < kTaps; ++t) {
      if constexpr (WINDOW > 0) {
        add(sum[t], h + t / WINDOW * d.rows.dilation, w + t % WINDOW * d.columns.dilation);
      } else {
        add(sum[t], h + tap_rows[t], w + tap_columns[t]);
      }
    }
    sum[kTaps] += dy;
  }

#pragma unroll
  for (int t = 0; t <= kTaps; ++t) {
    const C total = warp_sum(sum[t]);
    if (thread % kWarpThreads == 0) warp_sums[thread / kWarpThreads][t] = total;
  }
  __syncthreads();
  if (thread <= kTaps) {
    C total = 0;
    for (int warp = 0; warp < kWarps; ++warp) total += warp_sums[warp][thread];
    C* to = d.partial + (blockIdx.y * d.filters + filter) * (taps + 1);
    if (thread < count) to[first + thread] = total;
    if (thread == kTaps && part == 0) to[taps] = total;
  }
}

// dw [K, taps] and db [K] or null, overwritten, from the sums of the slices.
template <class T>
__global__ void __launch_bounds__(kThreads)
    depthwise_weight_sum_kernel(const Compute<T>* partial, T* dw, T* db, int64_t filters, int64_t taps,
                                int64_t slices) {
  const int64_t size = filters * (taps + 1);
  for (int64_t i = global_thread(); i < size; i += grid_threads()) {
    Compute<T> total = 0;
    for (int64_t slice = 0; slice < slices; ++slice) total += partial[slice * size + i];
    const int64_t filter = i / (taps + 1), tap = i - filter * (taps + 1);
    if (tap < taps)
      dw[filter * taps + tap] = narrow<T>(total);
    else if (db)
      db[filter] = narrow<T>(total);
  }
}

// dw, overwritten, and db, overwritten, or null; zeros where the batch is empty.
template <class T>
void backward_weight(const T* dy, const T* x, T* dw, T* db, const Conv2dShape& s, Stream stream) {
  const Axes axes = axes_of(s, false);
  const bool square = s.r == s.s;
  const int window = square && (s.r == 3 || s.r == 5) ? static_cast<int>(s.r) : 0;
  if (s.k == 0) return;
  const int64_t taps = s.r * s.s, parts = window > 0 ? 1 : std::max<int64_t>(1, (taps + 15) / 16),
                blocks = s.k * parts, pixels = s.n * s.p * s.q;
  check(blocks < (int64_t{1} << 31), "conv2d_backward_weight", blocks, " blocks, expected less than 2^31");
  // Enough blocks to fill the device several times over, none with less than a few turns of its loop.
  constexpr int64_t kBlocksEach = 16, kFewestPixels = 8 * kThreads, kMostSlices = 65535;
  const int64_t wanted = std::min((kBlocksEach * multiprocessors() + blocks - 1) / blocks, kMostSlices);
  const int64_t slices = std::clamp<int64_t>(pixels / kFewestPixels, 1, wanted);
  const Buffer<Compute<T>> partial(slices * s.k * (taps + 1), stream);
  const Weights<T> d{dy,
                     x,
                     partial.data(),
                     s.k,
                     s.c,
                     pixels,
                     (pixels + slices - 1) / slices,
                     axes.rows,
                     axes.columns,
                     FastDivider(s.p * s.q),
                     FastDivider(s.q),
                     FastDivider(s.k / s.c),
                     FastDivider(parts)};
  const auto kernel = window == 3   ? depthwise_weight_kernel<T, 3>
                      : window == 5 ? depthwise_weight_kernel<T, 5>
                                    : depthwise_weight_kernel<T, 0>;
  launch("conv2d_backward_weight", kernel, dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(slices)),
         dim3(kThreads), 0, stream, d);
  const int64_t size = s.k * (taps + 1);
  launch("conv2d_backward_weight", depthwise_weight_sum_kernel<T>, grid_for(size, kThreads), dim3(kThreads),
         0, stream, static_cast<const Compute<T>*>(partial.data()), dw, db, s.k, taps, slices);
}

}  // namespace fastarch::cuda::depthwise
