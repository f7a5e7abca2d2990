// Depthwise convolution of images with the channels last, [N, H, W, C]: a thread owns a vector of channels in
// a strip of neighbouring outputs of one row. Threads that are neighbours read neighbouring channels, 16
// bytes each; what windows share comes from the first-level cache. There is no tile in shared memory, and no
// barrier.
#pragma once
#include "core/vector.h"
#include "depthwise/weights.h"

namespace fastarch::cuda::depthwise {

template <class T>
struct Channels {
  const T* source;    // [N, rows.source, columns.source, sources]
  const T* weight;    // [R*S, K]: packed
  const T* bias;      // [K] or null
  const T* residual;  // as out, or null
  T* out;             // [N, rows.output, columns.output, outputs]
  int64_t strips;     // N * rows.output * strips of a row
  int sources, outputs, filters;
  int sums;                                      // source channels that are added up for an output
  FastDivider sharing;                           // outputs that share a source channel; this or sums is 1
  FastDivider vectors, row_strips, rows_output;  // vectors of channels
  Axis rows, columns;
  Activation kind;
};

template <class T, int V>
__device__ __forceinline__ void load_channels(const T* from, Compute<T> (&values)[V]) {
  const Pack<T, V> pack = *reinterpret_cast<const Pack<T, V>*>(from);
#pragma unroll
  for (int v = 0; v < V; ++v) values[v] = widen(pack.value[v]);
}

// Adds one filter's products to a strip; source and weight are at the thread's channels. WINDOW: a square
// window of that size with stride and dilation 1, of which a row of pixels and one of the filter are in
// registers; 0: any window.
template <class T, int V, int WINDOW, bool GRADIENT>
__device__ __forceinline__ void add_window(const Channels<T>& d, const T* source, const T* weight, int row,
                                           int column, Compute<T> (&sum)[kStrip][V]) {
  using C = Compute<T>;
  const auto at = [&](int h, int w) { return source + (int64_t{h} * d.columns.source + w) * d.sources; };
  if constexpr (WINDOW > 0) {
    const int left = GRADIENT ? column + d.columns.padding - (WINDOW - 1) : column - d.columns.padding;
#pragma unroll 1
    for (int r = 0; r < WINDOW; ++r) {
      const int h = GRADIENT ? row + d.rows.padding - r : row - d.rows.padding + r;
      if (static_cast<unsigned>(h) >= static_cast<unsigned>(d.rows.source)) continue;
      C taps[WINDOW][V];
#pragma unroll
      for (int s = 0; s < WINDOW; ++s)
        load_channels<T, V>(weight + (r * WINDOW + (GRADIENT ? WINDOW - 1 - s : s)) * int64_t{d.filters},
                            taps[s]);
#pragma unroll
      for (int u = 0; u < kStrip + WINDOW - 1; ++u) {
        if (static_cast<unsigned>(left + u) >= static_cast<unsigned>(d.columns.source)) continue;
        C x[V];
        load_channels<T, V>(at(h, left + u), x);
#pragma unroll
        for (int i = 0; i < kStrip; ++i)
          if (u - i >= 0 && u - i < WINDOW)
#pragma unroll
            for (int v = 0; v < V; ++v) sum[i][v] += x[v] * taps[u - i][v];
      }
    }
  } else {
    int h;
    int r = d.rows.template first_tap<GRADIENT>(row, &h);
    for (; r < d.rows.taps; r += d.rows.tap_step, h += d.rows.template source_step<GRADIENT>()) {
      if (static_cast<unsigned>(h) >= static_cast<unsigned>(d.rows.source)) continue;
#pragma unroll
      for (int i = 0; i < kStrip; ++i) {
        int w;
        int s = d.columns.template first_tap<GRADIENT>(column + i, &w);
        for (; s < d.columns.taps; s += d.columns.tap_step, w += d.columns.template source_step<GRADIENT>()) {
          if (static_cast<unsigned>(w) >= static_cast<unsigned>(d.columns.source)) continue;
          C x[V], tap[V];
          load_channels<T, V>(at(h, w), x);
          load_channels<T, V>(weight + (int64_t{r} * d.columns.taps + s) * d.filters, tap);
#pragma unroll
          for (int v = 0; v < V; ++v) sum[i][v] += x[v] * tap[v];
        }
      }
    }
  }
}

template <class T, int V, int WINDOW, bool GRADIENT>
__global__ void __launch_bounds__(kThreads, V == 1 ? 6 : 4) depthwise_channels_kernel(Channels<T> d) {
  using C = Compute<T>;
  const int64_t count = d.strips * d.vectors.divisor();
  for (int64_t i = global_thread(); i < count; i += grid_threads()) {
    uint32_t vector, strip, row;
    const int64_t line = d.row_strips.split_wide(d.vectors.split_wide(i, &vector), &strip);
    const int64_t n = d.rows_output.split_wide(line, &row);
    const int column = static_cast<int>(strip) * kStrip, first = static_cast<int>(vector) * V;
    const int source = V > 1 ? first : GRADIENT ? first * d.sums : d.sharing.quotient(first);
    const T* const image = d.source + n * d.rows.source * d.columns.source * d.sources + source;
    const T* const weight = d.weight + (V > 1 || !GRADIENT ? first : source);

    C sum[kStrip][V] = {};
    if constexpr (V > 1 || !GRADIENT) {
      add_window<T, V, WINDOW, GRADIENT>(d, image, weight, row, column, sum);
    } else {
      for (int j = 0; j < d.sums; ++j)
        add_window<T, V, WINDOW, GRADIENT>(d, image + j, weight + j, row, column, sum);
    }

    C bias[V] = {};
    if (d.bias) load_channels<T, V>(d.bias + first, bias);
    const int64_t at = (line * d.columns.output + column) * d.outputs + first;
#pragma unroll
    for (int k = 0; k < kStrip; ++k) {
      if (column + k >= d.columns.output) continue;
      C added[V] = {};
      if (d.residual) load_channels<T, V>(d.residual + at + int64_t{k} * d.outputs, added);
      Pack<T, V> pack;
#pragma unroll
      for (int v = 0; v < V; ++v) pack.value[v] = narrow<T>(activate(sum[k][v] + bias[v] + added[v], d.kind));
      *reinterpret_cast<Pack<T, V>*>(d.out + at + int64_t{k} * d.outputs) = pack;
    }
  }
}

// packed [taps, K] from weight [K, taps].
template <class T>
__global__ void __launch_bounds__(kThreads)
    depthwise_pack_kernel(const T* weight, T* packed, int64_t size, int64_t taps, FastDivider filters) {
  for (int64_t i = global_thread(); i < size; i += grid_threads()) {
    uint32_t filter;
    const int64_t tap = filters.split_wide(i, &filter);
    packed[i] = weight[filter * taps + tap];
  }
}

template <class T, bool GRADIENT>
void launch_channels(const char* name, Channels<T> d, const T* weight, const Conv2dShape& s, Stream stream) {
  const Axes axes = axes_of(s, GRADIENT);
  const int64_t taps = s.r * s.s, row_strips = (axes.columns.output + kStrip - 1) / kStrip;
  const Buffer<T> packed(s.k * taps, stream);
  launch(name, depthwise_pack_kernel<T>, grid_for(s.k * taps, kThreads), dim3(kThreads), 0, stream, weight,
         packed.data(), s.k * taps, taps, FastDivider(s.k));
  d.weight = packed.data();
  d.sources = static_cast<int>(GRADIENT ? s.k : s.c);
  d.outputs = static_cast<int>(GRADIENT ? s.c : s.k);
  d.filters = static_cast<int>(s.k);
  d.sums = static_cast<int>(GRADIENT ? s.k / s.c : 1);
  d.sharing = FastDivider(GRADIENT ? 1 : s.k / s.c);
  d.rows = axes.rows, d.columns = axes.columns;
  d.row_strips = FastDivider(row_strips);
  d.rows_output = FastDivider(d.rows.output);
  d.strips = s.n * d.rows.output * row_strips;

  constexpr int V = Pack<T>::size;
  const bool wide = s.k == s.c && s.c % V == 0 && packable(d.source, d.bias, d.residual, d.out);
  d.vectors = FastDivider(wide ? d.outputs / V : d.outputs);
  const bool plain =
      s.stride_h == 1 && s.stride_w == 1 && s.dilation_h == 1 && s.dilation_w == 1 && s.r == s.s;
  const auto kernel = !wide               ? depthwise_channels_kernel<T, 1, 0, GRADIENT>
                      : plain && s.r == 3 ? depthwise_channels_kernel<T, V, 3, GRADIENT>
                      : plain && s.r == 5 ? depthwise_channels_kernel<T, V, 5, GRADIENT>
                                          : depthwise_channels_kernel<T, V, 0, GRADIENT>;
  launch(name, kernel, grid_for(d.strips * d.vectors.divisor(), kThreads), dim3(kThreads), 0, stream, d);
}

// y = activation(convolution + bias + residual), overwritten.
template <class T>
void channels_forward(const T* x, const T* weight, const T* bias, const T* residual, T* y,
                      const Conv2dShape& s, Activation kind, Stream stream) {
  if (s.n * s.k * s.p * s.q == 0) return;
  Channels<T> d{};
  d.source = x, d.bias = bias, d.residual = residual, d.out = y, d.kind = kind;
  launch_channels<T, false>("conv2d_forward", d, weight, s, stream);
}

// dx, overwritten: pixels that no window covers get zero like any other sum.
template <class T>
void channels_backward_input(const T* dy, const T* weight, T* dx, const Conv2dShape& s, Stream stream) {
  if (s.n * s.c * s.h * s.w == 0) return;
  Channels<T> d{};
  d.source = dy, d.out = dx;
  launch_channels<T, true>("conv2d_backward_input", d, weight, s, stream);
}

// The weight gradient: a block takes a few vectors of filters, kTaps taps and a slice of the pixels, of which
// every row of threads takes one at a time; sums are in registers, then added up over the rows, in order.
template <class T>
struct ChannelWeights {
  const T* dy;          // [N, P, Q, K]
  const T* x;           // [N, H, W, C]
  Compute<T>* partial;  // [slices, K, taps + 1]; the last one is the bias gradient's
  int64_t pixels, slice;
  int filters, channels;
  Axis rows, columns;
  FastDivider plane, row;         // P*Q, Q
  FastDivider multiplier, parts;  // filters of a channel; parts that the taps are worked on in
};

constexpr int kTapsAtOnce = 9;

// How many filters a thread takes.
template <class T>
constexpr int kWeightVector = sizeof(T) == 8 ? 2 : 4;

template <class T, int V>
__global__ void __launch_bounds__(kThreads) depthwise_channel_weights_kernel(ChannelWeights<T> d) {
  using C = Compute<T>;
  FASTARCH_SHARED(C, totals, [kThreads][V]);
  FASTARCH_SHARED(int, tap_rows, [kTapsAtOnce]);  // where the taps are, relative to a window's first
  FASTARCH_SHARED(int, tap_columns, [kTapsAtOnce]);
  const int thread = threadIdx.y * blockDim.x + threadIdx.x;
  uint32_t part;
  const int64_t block = d.parts.split(blockIdx.x, &part);
  const int64_t filter = (block * blockDim.x + threadIdx.x) * V;
  const int taps = d.rows.taps * d.columns.taps, first = part * kTapsAtOnce,
            count = min(kTapsAtOnce, taps - first);
  if (thread < kTapsAtOnce) {
    const int tap = first + thread, r = tap / d.columns.taps;
    // Those behind the last one lie outside of every image.
    tap_rows[thread] = thread < count ? r * d.rows.dilation : -(1 << 30);
    tap_columns[thread] = thread < count ? (tap - r * d.columns.taps) * d.columns.dilation : 0;
  }
  __syncthreads();

  C sum[kTapsAtOnce + 1][V] = {};
  if (filter < d.filters) {
    const int64_t channel = V > 1 ? filter : d.multiplier.quotient(static_cast<uint32_t>(filter));
    const int64_t begin = blockIdx.y * d.slice, end = min(begin + d.slice, d.pixels);
    for (int64_t i = begin + threadIdx.y; i < end; i += blockDim.y) {
      uint32_t within, q;
      const int64_t n = d.plane.split_wide(i, &within);
      const int p = d.row.split(within, &q);
      const int h = p * d.rows.stride - d.rows.padding;
      const int w = static_cast<int>(q) * d.columns.stride - d.columns.padding;
      const T* const image = d.x + n * d.rows.source * d.columns.source * d.channels + channel;
      C dy[V];
      load_channels<T, V>(d.dy + i * d.filters + filter, dy);
#pragma unroll
      for (int v = 0; v < V; ++v) sum[kTapsAtOnce][v] += dy[v];
#pragma unroll
      for (int t = 0; t < kTapsAtOnce; ++t) {
        const int row = h + tap_rows[t], column = w + tap_columns[t];
        if (static_cast<unsigned>(row) >= static_cast<unsigned>(d.rows.source) ||
            static_cast<unsigned>(column) >= static_cast<unsigned>(d.columns.source))
          continue;
        C x[V];
        load_channels<T, V>(image + (int64_t{row} * d.columns.source + column) * d.channels, x);
#pragma unroll
        for (int v = 0; v < V; ++v) sum[t][v] += dy[v] * x[v];
      }
    }
  }

#pragma unroll
  for (int t = 0; t <= kTapsAtOnce; ++t) {
    __syncthreads();
#pragma unroll
    for (int v = 0; v < V; ++v) totals[thread][v] = sum[t][v];
    __syncthreads();
    const bool wanted = t < kTapsAtOnce ? t < count : part == 0;
    if (threadIdx.y > 0 || filter >= d.filters || !wanted) continue;
#pragma unroll
    for (int v = 0; v < V; ++v) {
      C total = 0;
      for (unsigned y = 0; y < blockDim.y; ++y) total += totals[y * blockDim.x + threadIdx.x][v];
      d.partial[(blockIdx.y * int64_t{d.filters} + filter + v) * (taps + 1) +
                (t < kTapsAtOnce ? first + t : taps)] = total;
    }
  }
}

// dw, overwritten, and db, overwritten, or null; zeros where the batch is empty.
template <class T>
void channels_backward_weight(const T* dy, const T* x, T* dw, T* db, const Conv2dShape& s, Stream stream) {
  if (s.k == 0) return;
  const char* const name = "conv2d_backward_weight";
  const Axes axes = axes_of(s, false);
  constexpr int V = kWeightVector<T>;
  const bool wide = s.k == s.c && s.c % V == 0 && packable(dy, x);
  const int64_t vectors = wide ? s.k / V : s.k, taps = s.r * s.s, pixels = s.n * s.p * s.q;
  const int64_t parts = std::max<int64_t>(1, (taps + kTapsAtOnce - 1) / kTapsAtOnce);
  int across = 8;
  while (across < vectors && across < kWarpThreads) across *= 2;
  const int down = kThreads / across;
  const int64_t blocks = (vectors + across - 1) / across * parts;
  check(blocks < (int64_t{1} << 31), name, blocks, " blocks, expected less than 2^31");
  // As for planes: enough blocks to fill the device, none with less than a few turns of its loop.
  constexpr int64_t kBlocksEach = 16, kFewestTurns = 8, kMostSlices = 65535;
  const int64_t wanted = std::min((kBlocksEach * multiprocessors() + blocks - 1) / blocks, kMostSlices);
  const int64_t slices = std::clamp<int64_t>(pixels / (kFewestTurns * down), 1, wanted);
  const int64_t size = s.k * (taps + 1);
  const Buffer<Compute<T>> partial(slices * size, stream);
  const ChannelWeights<T> d{dy,
                            x,
                            partial.data(),
                            pixels,
                            (pixels + slices - 1) / slices,
                            static_cast<int>(s.k),
                            static_cast<int>(s.c),
                            axes.rows,
                            axes.columns,
                            FastDivider(s.p * s.q),
                            FastDivider(s.q),
                            FastDivider(s.k / s.c),
                            FastDivider(parts)};
  launch(name, wide ? depthwise_channel_weights_kernel<T, V> : depthwise_channel_weights_kernel<T, 1>,
         dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(slices)), dim3(across, down), 0, stream,
         d);
  launch(name, depthwise_weight_sum_kernel<T>, grid_for(size, kThreads), dim3(kThreads), 0, stream,
         static_cast<const Compute<T>*>(partial.data()), dw, db, s.k, taps, slices);
}

}  // namespace fastarch::cuda::depthwise
