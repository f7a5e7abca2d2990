// Pooling: one thread an output element (forward) or an input element (backward), which gathers what it
// needs, so that sums have one fixed order and no atomics. Memory-bound; neighbouring threads share their
// loads through the L1 cache.
#include "core/divide.h"
#include "core/half.h"
#include "core/launch.h"
#include "core/reduce.h"
#include "core/vector.h"
#include "ops/pool2d.h"

namespace fastarch::cuda {
namespace {

constexpr int kThreads = 256;

struct Span {
  int begin, end;  // [begin, end), empty when end <= begin
  __device__ bool empty() const { return end <= begin; }
};

// Splits a flat index over [planes, rows, columns].
struct Grid {
  int64_t size;
  int rows, columns;
  Divider by_columns, by_rows;

  Grid(int64_t planes, int rows, int columns)
      : size(planes * rows * columns),
        rows(rows),
        columns(columns),
        by_columns(columns, size),
        by_rows(rows, size) {}

  struct Place {
    int64_t plane;
    int row, column;
  };
  __device__ Place place(int64_t i) const {
    const int64_t line = by_columns.quotient(i), plane = by_rows.quotient(line);
    return {plane, static_cast<int>(line - plane * rows), static_cast<int>(i - line * columns)};
  }
};

__device__ __forceinline__ int ceil_div(int a, int b) { return (a + b - 1) / b; }

// The offsets r inside window p that fall on the input.
__device__ __forceinline__ Span offsets_inside(const PoolAxis& axis, int p) {
  const int start = p * axis.stride - axis.padding;
  return {start < 0 ? ceil_div(-start, axis.dilation) : 0,
          start >= axis.input ? 0 : min(axis.kernel, ceil_div(axis.input - start, axis.dilation))};
}

// The windows that may cover input h: all of them when dilation is 1.
__device__ __forceinline__ Span windows_around(const PoolAxis& axis, int h) {
  const int reach = h + axis.padding - (axis.kernel - 1) * axis.dilation;
  return {reach > 0 ? ceil_div(reach, axis.stride) : 0,
          min(axis.output, (h + axis.padding) / axis.stride + 1)};
}

// The offset at which window p covers input h, or -1 where dilation steps over it.
__device__ __forceinline__ int offset_in_window(const PoolAxis& axis, int p, int h) {
  const int distance = h + axis.padding - p * axis.stride;
  if (axis.dilation == 1) return distance;
  const int offset = distance / axis.dilation;
  return offset * axis.dilation == distance ? offset : -1;
}

template <class T, class A>
__global__ void max_pool2d_forward_kernel(const T* __restrict__ x, T* __restrict__ y, A* __restrict__ argmax,
                                          Pool2d pool, Grid outputs) {
  const PoolAxis rows = pool.rows, columns = pool.columns;
  for (int64_t i = global_thread(); i < outputs.size; i += grid_threads()) {
    const auto at = outputs.place(i);
    const T* plane = x + at.plane * rows.input * columns.input;
    const Span r_in = offsets_inside(rows, at.row), s_in = offsets_inside(columns, at.column);
    const int top = at.row * rows.stride - rows.padding, left = at.column * columns.stride - columns.padding;
    Compute<T> best = -INFINITY;
    int best_offset = r_in.empty() || s_in.empty() ? 0 : r_in.begin * columns.kernel + s_in.begin;
    for (int r = r_in.begin; r < r_in.end; ++r) {
      const T* line = plane + static_cast<int64_t>(top + r * rows.dilation) * columns.input + left;
      for (int s = s_in.begin; s < s_in.end; ++s) {
        const Compute<T> value = widen(line[s * columns.dilation]);
        if (value > best || value != value) {
          best = value;
          best_offset = r * columns.kernel + s;
        }
      }
    }
    y[i] = narrow<T>(best);
    if (argmax) argmax[i] = static_cast<A>(best_offset);
  }
}

template <class T, class A>
__global__ void max_pool2d_backward_kernel(const T* __restrict__ dy, const A* __restrict__ argmax,
                                           T* __restrict__ dx, Pool2d pool, Grid inputs) {
  const PoolAxis rows = pool.rows, columns = pool.columns;
  for (int64_t i = global_thread(); i < inputs.size; i += grid_threads()) {
    const auto at = inputs.place(i);
    const int64_t plane = at.plane * rows.output * columns.output;
    const Span p_around = windows_around(rows, at.row), q_around = windows_around(columns, at.column);
    Compute<T> sum = 0;
    for (int p = p_around.begin; p < p_around.end; ++p) {
      const int r = offset_in_window(rows, p, at.row);
      if (r < 0) continue;
      const int64_t line = plane + static_cast<int64_t>(p) * columns.output;
      for (int q = q_around.begin; q < q_around.end; ++q) {
        const int s = offset_in_window(columns, q, at.column);
        if (s >= 0 && argmax[line + q] == static_cast<A>(r * columns.kernel + s)) sum += widen(dy[line + q]);
      }
    }
    dx[i] = narrow<T>(sum);
  }
}

// Windows of 2 x 2 that tile the image, as most networks have them: a thread takes four windows of a line,
// two runs of eight inputs, in 128-bit moves.
constexpr int kWindows = 4, kRun = 2 * kWindows;

bool tiles_in_fours(const Pool2d& pool) {
  const auto tiles = [](const PoolAxis& a) {
    return a.kernel == 2 && a.stride == 2 && a.padding == 0 && a.dilation == 1 && a.input == 2 * a.output;
  };
  return tiles(pool.rows) && tiles(pool.columns) && pool.columns.output % kWindows == 0;
}

// N values from an aligned place on, by moves of at most 128 bits.
template <int N, class T, class C>
__device__ __forceinline__ void load_run(const T* from, C* to) {
  constexpr int kMove = N * sizeof(T) < 16 ? N : 16 / sizeof(T);
#pragma unroll
  for (int i = 0; i < N / kMove; ++i) {
    const Pack<T, kMove> pack = load_pack<T, kMove>(from, i);
#pragma unroll
    for (int k = 0; k < kMove; ++k) to[i * kMove + k] = widen(pack.value[k]);
  }
}

template <int N, class T, class C>
__device__ __forceinline__ void store_run(T* to, const C* from) {
  constexpr int kMove = N * sizeof(T) < 16 ? N : 16 / sizeof(T);
#pragma unroll
  for (int i = 0; i < N / kMove; ++i) {
    Pack<T, kMove> pack;
#pragma unroll
    for (int k = 0; k < kMove; ++k) pack.value[k] = narrow<T>(from[i * kMove + k]);
    store_pack(to, i, pack);
  }
}

// fours: all outputs / 4. A line of outputs is `by_line`'s divisor of them.
template <class T>
__global__ void max_pool2d_tiles_forward_kernel(const T* __restrict__ x, T* __restrict__ y,
                                                uint8_t* __restrict__ argmax, int64_t fours, int width,
                                                Divider by_line) {
  for (int64_t i = global_thread(); i < fours; i += grid_threads()) {
    const int64_t line = by_line.quotient(i), column = (i - line * (width / kRun)) * kRun;
    const T* top = x + 2 * line * width + column;
    Compute<T> value[2][kRun], best[kWindows];
    load_run<kRun>(top, value[0]);
    load_run<kRun>(top + width, value[1]);
    Pack<uint8_t, kWindows> places;
#pragma unroll
    for (int k = 0; k < kWindows; ++k) {
      best[k] = value[0][2 * k];
      places.value[k] = 0;
#pragma unroll
      for (int place = 1; place < 4; ++place) {
        const Compute<T> other = value[place / 2][2 * k + place % 2];
        if (other > best[k] || other != other) {
          best[k] = other;
          places.value[k] = static_cast<uint8_t>(place);
        }
      }
    }
    store_run<kWindows>(y + i * kWindows, best);
    if (argmax) store_pack(argmax, i, places);
  }
}

template <class T>
__global__ void max_pool2d_tiles_backward_kernel(const T* __restrict__ dy, const uint8_t* __restrict__ argmax,
                                                 T* __restrict__ dx, int64_t fours, int width,
                                                 Divider by_line) {
  for (int64_t i = global_thread(); i < fours; i += grid_threads()) {
    const int64_t line = by_line.quotient(i), column = (i - line * (width / kRun)) * kRun;
    const Pack<uint8_t, kWindows> places = load_pack<uint8_t, kWindows>(argmax, i);
    Compute<T> slope[kWindows], value[2][kRun];
    load_run<kWindows>(dy + i * kWindows, slope);
#pragma unroll
    for (int k = 0; k < kWindows; ++k)
#pragma unroll
      for (int place = 0; place < 4; ++place)
        value[place / 2][2 * k + place % 2] = places.value[k] == place ? slope[k] : 0;
    T* top = dx + 2 * line * width + column;
    store_run<kRun>(top, value[0]);
    store_run<kRun>(top + width, value[1]);
  }
}

// One axis of averaging windows: which inputs bin p covers, how many it counts, and which bins cover input h.
struct SlidingBins {
  PoolAxis axis;
  bool count_padding;

  __device__ Span inputs(int p) const {
    const int start = p * axis.stride - axis.padding;
    return {max(start, 0), min(start + axis.kernel, axis.input)};
  }
  __device__ int count(int p) const {
    const int start = p * axis.stride - axis.padding;
    if (count_padding) return min(start + axis.kernel, axis.input + axis.padding) - start;
    return min(start + axis.kernel, axis.input) - max(start, 0);
  }
  __device__ Span bins(int h) const { return windows_around(axis, h); }
};

struct AdaptiveBins {
  int input, output;

  __device__ Span inputs(int p) const {
    return {static_cast<int>(int64_t{p} * input / output),
            static_cast<int>((int64_t{p + 1} * input + output - 1) / output)};
  }
  __device__ int count(int p) const {
    const Span span = inputs(p);
    return span.end - span.begin;
  }
  __device__ Span bins(int h) const {
    return {static_cast<int>(int64_t{h} * output / input),
            static_cast<int>((int64_t{h + 1} * output + input - 1) / input)};
  }
};

template <class T, class A>
__global__ void adaptive_max_forward_kernel(const T* __restrict__ x, T* __restrict__ y,
                                            A* __restrict__ argmax, AdaptiveBins rows, AdaptiveBins columns,
                                            Grid outputs) {
  for (int64_t i = global_thread(); i < outputs.size; i += grid_threads()) {
    const auto at = outputs.place(i);
    const T* plane = x + at.plane * rows.input * columns.input;
    const Span h_in = rows.inputs(at.row), w_in = columns.inputs(at.column);
    Compute<T> best = -INFINITY;
    int best_offset = 0, offset = 0;
    for (int h = h_in.begin; h < h_in.end; ++h)
      for (int w = w_in.begin; w < w_in.end; ++w, ++offset) {
        const Compute<T> value = widen(plane[static_cast<int64_t>(h) * columns.input + w]);
        if (value > best || value != value) {
          best = value;
          best_offset = offset;
        }
      }
    y[i] = narrow<T>(best);
    if (argmax) argmax[i] = static_cast<A>(best_offset);
  }
}

template <class T, class A>
__global__ void adaptive_max_backward_kernel(const T* __restrict__ dy, const A* __restrict__ argmax,
                                             T* __restrict__ dx, AdaptiveBins rows, AdaptiveBins columns,
                                             Grid inputs) {
  for (int64_t i = global_thread(); i < inputs.size; i += grid_threads()) {
    const auto at = inputs.place(i);
    const int64_t plane = at.plane * rows.output * columns.output;
    const Span p_around = rows.bins(at.row), q_around = columns.bins(at.column);
    Compute<T> sum = 0;
    for (int p = p_around.begin; p < p_around.end; ++p) {
      const int r = at.row - rows.inputs(p).begin;
      for (int q = q_around.begin; q < q_around.end; ++q) {
        const Span w_in = columns.inputs(q);
        const int64_t window = plane + static_cast<int64_t>(p) * columns.output + q;
        const int64_t offset = int64_t{r} * (w_in.end - w_in.begin) + at.column - w_in.begin;
        if (argmax[window] == static_cast<A>(offset)) sum += widen(dy[window]);
      }
    }
    dx[i] = narrow<T>(sum);
  }
}

template <class T, class Bins>
__global__ void average_forward_kernel(const T* __restrict__ x, T* __restrict__ y, Bins rows, Bins columns,
                                       int height, int width, Grid outputs) {
  for (int64_t i = global_thread(); i < outputs.size; i += grid_threads()) {
    const auto at = outputs.place(i);
    const T* plane = x + at.plane * height * width;
    const Span h_in = rows.inputs(at.row), w_in = columns.inputs(at.column);
    Compute<T> sum = 0;
    for (int h = h_in.begin; h < h_in.end; ++h)
      for (int w = w_in.begin; w < w_in.end; ++w) sum += widen(plane[static_cast<int64_t>(h) * width + w]);
    const auto divisor = static_cast<Compute<T>>(int64_t{rows.count(at.row)} * columns.count(at.column));
    y[i] = narrow<T>(h_in.empty() || w_in.empty() ? 0 : sum / divisor);  // a window of nothing but padding
  }
}

// One window, the whole plane: a warp reads it side by side.
template <class T>
__global__ void global_average_kernel(const T* __restrict__ x, T* __restrict__ y, int64_t planes,
                                      int64_t area) {
  const int lane = threadIdx.x % kWarpThreads;
  for (int64_t i = global_thread() / kWarpThreads; i < planes; i += grid_threads() / kWarpThreads) {
    Compute<T> sum = 0;
    for (int64_t j = lane; j < area; j += kWarpThreads) sum += widen(x[i * area + j]);
    sum = warp_sum(sum);
    if (lane == 0) y[i] = narrow<T>(sum / static_cast<Compute<T>>(area));
  }
}

template <class T, class Bins>
__global__ void average_backward_kernel(const T* __restrict__ dy, T* __restrict__ dx, Bins rows, Bins columns,
                                        int out_height, int out_width, Grid inputs) {
  for (int64_t i = global_thread(); i < inputs.size; i += grid_threads()) {
    const auto at = inputs.place(i);
    const T* plane = dy + at.plane * out_height * out_width;
    const Span p_around = rows.bins(at.row), q_around = columns.bins(at.column);
    Compute<T> sum = 0;
    for (int p = p_around.begin; p < p_around.end; ++p) {
      const int64_t lines = rows.count(p);
      for (int q = q_around.begin; q < q_around.end; ++q)
        sum += widen(plane[static_cast<int64_t>(p) * out_width + q]) /
               static_cast<Compute<T>>(lines * columns.count(q));
    }
    dx[i] = narrow<T>(sum);
  }
}

}  // namespace

template <class T, class A>
void max_pool2d_forward(const T* x, T* y, A* argmax, const Pool2d& pool, Stream stream) {
  const Grid outputs(pool.planes, pool.rows.output, pool.columns.output);
  if (outputs.size == 0) return;
  if constexpr (sizeof(A) == 1) {
    if (tiles_in_fours(pool) && packable(x, y, argmax)) {
      const int64_t fours = outputs.size / kWindows;
      launch("max_pool2d_forward", max_pool2d_tiles_forward_kernel<T>, grid_for(fours, kThreads), kThreads, 0,
             stream, x, y, argmax, fours, pool.columns.input, Divider(pool.columns.output / kWindows, fours));
      return;
    }
  }
  launch("max_pool2d_forward", max_pool2d_forward_kernel<T, A>, grid_for(outputs.size, kThreads), kThreads, 0,
         stream, x, y, argmax, pool, outputs);
}

template <class T, class A>
void max_pool2d_backward(const T* dy, const A* argmax, T* dx, const Pool2d& pool, Stream stream) {
  const Grid inputs(pool.planes, pool.rows.input, pool.columns.input);
  if (inputs.size == 0) return;
  if constexpr (sizeof(A) == 1) {
    if (tiles_in_fours(pool) && packable(dy, argmax, dx)) {
      const int64_t fours = inputs.size / (4 * kWindows);
      launch("max_pool2d_backward", max_pool2d_tiles_backward_kernel<T>, grid_for(fours, kThreads), kThreads,
             0, stream, dy, argmax, dx, fours, pool.columns.input,
             Divider(pool.columns.output / kWindows, fours));
      return;
    }
  }
  launch("max_pool2d_backward", max_pool2d_backward_kernel<T, A>, grid_for(inputs.size, kThreads), kThreads,
         0, stream, dy, argmax, dx, pool, inputs);
}

template <class T, class A>
void adaptive_max_pool2d_forward(const T* x, T* y, A* argmax, const AdaptivePool2d& pool, Stream stream) {
  const Grid outputs(pool.planes, pool.out_height, pool.out_width);
  if (outputs.size == 0) return;
  const AdaptiveBins rows{pool.height, pool.out_height}, columns{pool.width, pool.out_width};
  launch("adaptive_max_pool2d_forward", adaptive_max_forward_kernel<T, A>, grid_for(outputs.size, kThreads),
         kThreads, 0, stream, x, y, argmax, rows, columns, outputs);
}

template <class T, class A>
void adaptive_max_pool2d_backward(const T* dy, const A* argmax, T* dx, const AdaptivePool2d& pool,
                                  Stream stream) {
  const Grid inputs(pool.planes, pool.height, pool.width);
  if (inputs.size == 0) return;
  const AdaptiveBins rows{pool.height, pool.out_height}, columns{pool.width, pool.out_width};
  launch("adaptive_max_pool2d_backward", adaptive_max_backward_kernel<T, A>, grid_for(inputs.size, kThreads),
         kThreads, 0, stream, dy, argmax, dx, rows, columns, inputs);
}

template <class T>
void avg_pool2d_forward(const T* x, T* y, const Pool2d& pool, bool count_include_pad, Stream stream) {
  const Grid outputs(pool.planes, pool.rows.output, pool.columns.output);
  if (outputs.size == 0) return;
  const SlidingBins rows{pool.rows, count_include_pad}, columns{pool.columns, count_include_pad};
  launch("avg_pool2d_forward", average_forward_kernel<T, SlidingBins>, grid_for(outputs.size, kThreads),
         kThreads, 0, stream, x, y, rows, columns, pool.rows.input, pool.columns.input, outputs);
}

template <class T>
void avg_pool2d_backward(const T* dy, T* dx, const Pool2d& pool, bool count_include_pad, Stream stream) {
  const Grid inputs(pool.planes, pool.rows.input, pool.columns.input);
  if (inputs.size == 0) return;
  const SlidingBins rows{pool.rows, count_include_pad}, columns{pool.columns, count_include_pad};
  launch("avg_pool2d_backward", average_backward_kernel<T, SlidingBins>, grid_for(inputs.size, kThreads),
         kThreads, 0, stream, dy, dx, rows, columns, pool.rows.output, pool.columns.output, inputs);
}

template <class T>
void adaptive_avg_pool2d_forward(const T* x, T* y, const AdaptivePool2d& pool, Stream stream) {
  const Grid outputs(pool.planes, pool.out_height, pool.out_width);
  if (outputs.size == 0) return;
  if (pool.out_height == 1 && pool.out_width == 1) {
    const int64_t area = int64_t{pool.height} * pool.width;
    launch("adaptive_avg_pool2d_forward", global_average_kernel<T>,
           grid_for(pool.planes * kWarpThreads, kThreads), kThreads, 0, stream, x, y, pool.planes, area);
    return;
  }
  const AdaptiveBins rows{pool.height, pool.out_height}, columns{pool.width, pool.out_width};
  launch("adaptive_avg_pool2d_forward", average_forward_kernel<T, AdaptiveBins>,
         grid_for(outputs.size, kThreads), kThreads, 0, stream, x, y, rows, columns, pool.height, pool.width,
         outputs);
}

template <class T>
void adaptive_avg_pool2d_backward(const T* dy, T* dx, const AdaptivePool2d& pool, Stream stream) {
  const Grid inputs(pool.planes, pool.height, pool.width);
  if (inputs.size == 0) return;
  const AdaptiveBins rows{pool.height, pool.out_height}, columns{pool.width, pool.out_width};
  launch("adaptive_avg_pool2d_backward", average_backward_kernel<T, AdaptiveBins>,
         grid_for(inputs.size, kThreads), kThreads, 0, stream, dy, dx, rows, columns, pool.out_height,
         pool.out_width, inputs);
}

FASTARCH_INSTANTIATE_POOL2D(float)
FASTARCH_INSTANTIATE_POOL2D(double)
FASTARCH_INSTANTIATE_POOL2D(float16)
FASTARCH_INSTANTIATE_POOL2D(bfloat16)

}  // namespace fastarch::cuda
