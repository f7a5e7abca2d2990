// Sums per channel, and elementwise passes with numbers per channel, over data of either layout.
#pragma once
#include "core/divide.h"
#include "core/half.h"
#include "core/launch.h"
#include "core/vector.h"
#include "ops/batch_norm.h"

namespace fastarch::cuda {

constexpr int kChannelThreads = 256;
constexpr int kRowLanes = 32, kRowGroups = kChannelThreads / kRowLanes;  // of a block over rows [M, C]

// Combines the totals of a block's threads in a fixed order; thread 0 gets the result.
template <class Total>
__device__ void merge_block(Total& total) {
  FASTARCH_SHARED(Total, totals, [kChannelThreads]);
  totals[threadIdx.x] = total;
  for (int half = kChannelThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < half) totals[threadIdx.x].merge(totals[threadIdx.x + half]);
  }
  if (threadIdx.x == 0) total = totals[0];
}

// What a body adds to the V totals of V elements at `first`: of one channel (planes) or of V (rows).
// Body::Total has merge(); Body::add<V>(totals, first, channel, channel_step).

// inner > 1: block (channel, split) takes every gridDim.y-th part of the channel's elements, V at a time.
// partial: [splits, C].
template <class Body, int V>
__global__ void __launch_bounds__(kChannelThreads, 4)
    channel_totals_planes_kernel(Body body, typename Body::Total* partial, int64_t chunks, int64_t inner,
                                 int64_t channels, Divider by_inner_chunks) {
  const int64_t channel = blockIdx.x, inner_chunks = inner / V;
  typename Body::Total totals[V];
  const int64_t step = int64_t{gridDim.y} * kChannelThreads;
  for (int64_t j = int64_t{blockIdx.y} * kChannelThreads + threadIdx.x; j < chunks; j += step) {
    const int64_t outer = by_inner_chunks.quotient(j), chunk = j - outer * inner_chunks;
    body.template add<V>(totals, (outer * channels + channel) * inner + chunk * V, channel, 0);
  }
#pragma unroll
  for (int k = 1; k < V; ++k) totals[0].merge(totals[k]);
  merge_block(totals[0]);
  if (threadIdx.x == 0) partial[blockIdx.y * channels + channel] = totals[0];
}

// inner = 1: block (group of channels, split) takes every gridDim.y-th group of rows; a lane has V channels.
template <class Body, int V>
__global__ void __launch_bounds__(kChannelThreads, 4)
    channel_totals_rows_kernel(Body body, typename Body::Total* partial, int64_t rows, int64_t channels) {
  FASTARCH_SHARED(typename Body::Total, shared, [kRowGroups][kRowLanes]);
  const int lane = threadIdx.x % kRowLanes, group = threadIdx.x / kRowLanes;
  const int64_t channel = (int64_t{blockIdx.x} * kRowLanes + lane) * V;
  typename Body::Total totals[V];
  if (channel < channels)
    for (int64_t row = int64_t{blockIdx.y} * kRowGroups + group; row < rows;
         row += int64_t{gridDim.y} * kRowGroups)
      body.template add<V>(totals, row * channels + channel, channel, 1);
#pragma unroll
  for (int k = 0; k < V; ++k) {
    shared[group][lane] = totals[k];
    __syncthreads();
    if (group == 0 && channel < channels) {
      for (int other = 1; other < kRowGroups; ++other) totals[k].merge(shared[other][lane]);
      partial[blockIdx.y * channels + channel + k] = totals[k];
    }
    __syncthreads();
  }
}

// How a launch divides the work; the order of sums follows from it, and so from the device.
struct ChannelSplits {
  bool planes, packed;
  int64_t blocks, splits;  // blocks: channels, or groups of them

  ChannelSplits(const ChannelLayout& layout, int pack, bool aligned) : planes(layout.inner > 1) {
    packed = aligned && (planes ? layout.inner : layout.channels) % pack == 0;
    const int64_t lanes = int64_t{kRowLanes} * (packed ? pack : 1);
    blocks = planes ? layout.channels : (layout.channels + lanes - 1) / lanes;
    const int64_t each = kChannelThreads * (packed ? pack : 1);  // elements a block reads at once
    const int64_t work = planes ? layout.per_channel() : layout.outer * lanes;
    constexpr int64_t kMost = 128, kTurns = 4;  // splits that one thread still sums up; turns worth a block
    const int64_t wanted = multiprocessors() * (2048 / kChannelThreads) / blocks,
                  sensible = work / (each * kTurns);
    splits = wanted < sensible ? wanted : sensible;
    splits = splits < 1 ? 1 : splits > kMost ? kMost : splits;
  }
};

// partial [splits, C] of the body's totals over data of `layout`, read V = one Pack<T> at a time if
// `aligned`.
template <class T, class Body>
void channel_totals(const CallSite& name, const Body& body, typename Body::Total* partial,
                    const ChannelLayout& layout, const ChannelSplits& splits, Stream stream) {
  constexpr int kPack = Pack<T>::size;
  const dim3 grid(static_cast<unsigned>(splits.blocks), static_cast<unsigned>(splits.splits));
  if (splits.planes) {
    const int64_t pack = splits.packed ? kPack : 1, chunks = layout.per_channel() / pack;
    const Divider by_inner_chunks(layout.inner / pack, chunks);
    launch(name,
           splits.packed ? channel_totals_planes_kernel<Body, kPack> : channel_totals_planes_kernel<Body, 1>,
           grid, kChannelThreads, 0, stream, body, partial, chunks, layout.inner, layout.channels,
           by_inner_chunks);
  } else {
    launch(name,
           splits.packed ? channel_totals_rows_kernel<Body, kPack> : channel_totals_rows_kernel<Body, 1>,
           grid, kChannelThreads, 0, stream, body, partial, layout.outer, layout.channels);
  }
}

// The channel of consecutive elements.
struct ChannelWalk {
  int64_t inner, channels;
  Divider by_inner, by_channels;
  int64_t channel = 0, rest = 0;  // rest: elements until the next one

  explicit ChannelWalk(const ChannelLayout& layout)
      : inner(layout.inner),
        channels(layout.channels),
        by_inner(layout.inner, layout.size()),
        by_channels(layout.channels, layout.size()) {}

  __device__ __forceinline__ void start(int64_t i) {
    const int64_t line = by_inner.quotient(i);
    channel = line - by_channels.quotient(line) * channels;
    rest = inner - (i - line * inner);
  }
  // Steps to the next element; whether its channel is another one.
  __device__ __forceinline__ bool next() {
    if (--rest > 0) return false;
    rest = inner;
    if (++channel == channels) channel = 0;
    return true;
  }
};

// body.at<V>(first, walk) for the first `packs` Packs and for the elements after them one by one.
template <class T, class Body>
__global__ void __launch_bounds__(kChannelThreads, 4)
    channel_map_kernel(Body body, int64_t packs, int64_t n, ChannelWalk walk) {
  constexpr int kPack = Pack<T>::size;
  for (int64_t i = global_thread(); i < packs; i += grid_threads()) {
    walk.start(i * kPack);
    body.template at<kPack>(i * kPack, walk);
  }
  for (int64_t i = packs * kPack + global_thread(); i < n; i += grid_threads()) {
    walk.start(i);
    body.template at<1>(i, walk);
  }
}

template <class T, class Body>
void channel_map(const CallSite& name, const Body& body, const ChannelLayout& layout, bool aligned,
                 Stream stream) {
  const int64_t n = layout.size(), packs = aligned ? n / Pack<T>::size : 0;
  launch(name, channel_map_kernel<T, Body>, grid_for(packs ? packs : n, kChannelThreads), kChannelThreads, 0,
         stream, body, packs, n, ChannelWalk(layout));
}

}  // namespace fastarch::cuda
