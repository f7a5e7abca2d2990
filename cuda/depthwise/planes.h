// Depthwise convolution, forward and input gradient: every output plane comes from one input plane (or, in
// the gradient of a channel multiplier, from a few), so there is no matrix to multiply and memory is the
// limit. A block keeps a tile of the source in shared memory, which is read once for all its taps and all
// filters of the channel; a thread owns a strip of output rows in one column, in registers.
#pragma once
#include <algorithm>
#include <numeric>

#include "core/divide.h"
#include "core/half.h"
#include "core/launch.h"
#include "core/math.h"
#include "ops/conv2d.h"

namespace fastarch::cuda::depthwise {

constexpr int kThreads = 128;
constexpr int kStrip = 4;  // output rows of a thread

// How outputs see the source along one axis. Forward: output i reads i*stride - padding + r*dilation through
// tap r. Gradient: output i reads (i + padding - r*dilation) / stride, through the taps for which that is
// whole: every tap_step-th from the first such one on, so that no product with a structural zero is formed.
struct Axis {
  int source, output, taps, stride, padding, dilation;
  int tap_step = 1;

  // The first source element that outputs from `begin` on may see, which may lie before the source.
  template <bool GRADIENT>
  __device__ __forceinline__ int first_source(int begin) const {
    if (!GRADIENT) return begin * stride - padding;
    const int reach = begin + padding - (taps - 1) * dilation;
    return reach >= 0 ? reach / stride : -((-reach + stride - 1) / stride);
  }
  // The first tap through which output i reads, or `taps` where none does; and what it reads there.
  template <bool GRADIENT>
  __device__ __forceinline__ int first_tap(int i, int* source_element) const {
    if constexpr (!GRADIENT) {
      *source_element = i * stride - padding;
      return 0;
    } else {
      int r = 0, position = i + padding;
      for (; r < tap_step && r < taps; ++r, position -= dilation)
        if (position % stride == 0) break;
      *source_element = position / stride;
      return r < tap_step ? r : taps;
    }
  }
  // From one tap that is read through to the next.
  template <bool GRADIENT>
  __device__ __forceinline__ int source_step() const {
    return GRADIENT ? -(dilation * tap_step / stride) : dilation;
  }
};

template <class T>
struct Planes {
  const T* source;    // [tasks * sums, rows.source, columns.source]
  const T* weight;    // [channels * max(sums, outputs), R, S]
  const T* bias;      // [channels * outputs] or null
  const T* residual;  // as out, or null
  T* out;             // [tasks * outputs, rows.output, columns.output]
  int64_t tasks;      // N * C
  int channels;
  int sums, outputs;  // source planes that are added up, and output planes, of a task; one of them is 1
  Axis rows, columns;
  int tile_rows, tile_columns;  // of the source, what a block's outputs see
  FastDivider row_tiles, column_tiles;
  Activation kind;
};

// The source's tile of one plane, zeros outside of the image.
template <class T>
__device__ __forceinline__ void load_tile(const Planes<T>& d, const T* plane, int first_row, int first_column,
                                          Compute<T>* tile) {
  for (int i = threadIdx.y; i < d.tile_rows; i += blockDim.y) {
    const int h = first_row + i;
    const bool row_inside = plane && static_cast<unsigned>(h) < static_cast<unsigned>(d.rows.source);
    const T* line = row_inside ? plane + int64_t{h} * d.columns.source : nullptr;
    for (int j = threadIdx.x; j < d.tile_columns; j += blockDim.x) {
      const int w = first_column + j;
      const bool inside = line && static_cast<unsigned>(w) < static_cast<unsigned>(d.columns.source);
      tile[i * d.tile_columns + j] = inside ? widen(line[w]) : Compute<T>(0);
    }
  }
}

// Adds what one filter makes of a tile to a thread's strip. WINDOW: a square window of that size with stride
// and dilation 1, whose filter and tile rows stay in registers; 0: any window.
template <class T, int WINDOW, bool GRADIENT>
__device__ __forceinline__ void accumulate(const Planes<T>& d, const T* filter, const Compute<T>* tile,
                                           int row, int column, int first_row, int first_column,
                                           Compute<T> (&sum)[kStrip]) {
  using C = Compute<T>;
  if constexpr (WINDOW > 0) {
    C w[WINDOW * WINDOW];
#pragma unroll
    for (int i = 0; i < WINDOW * WINDOW; ++i)
      w[i] = widen(filter[GRADIENT ? WINDOW * WINDOW - 1 - i : i]);  // turned by half a turn
    const C* at = tile + threadIdx.y * kStrip * d.tile_columns + threadIdx.x;
#pragma unroll
    for (int u = 0; u < kStrip + WINDOW - 1; ++u) {
#pragma unroll
      for (int s = 0; s < WINDOW; ++s) {
        const C x = at[u * d.tile_columns + s];
#pragma unroll
        for (int i = 0; i < kStrip; ++i)
          if (u - i >= 0 && u - i < WINDOW) sum[i] += x * w[(u - i) * WINDOW + s];
      }
    }
  } else {
    if (column >= d.columns.output) return;
    int w0;
    const int s0 = d.columns.template first_tap<GRADIENT>(column, &w0);
    const int step_h = d.rows.template source_step<GRADIENT>() * d.tile_columns;
    const int step_w = d.columns.template source_step<GRADIENT>();
#pragma unroll
    for (int i = 0; i < kStrip; ++i) {
      if (row + i >= d.rows.output) break;
      int h;
      int r = d.rows.template first_tap<GRADIENT>(row + i, &h);
      const C* line = tile + (h - first_row) * d.tile_columns + (w0 - first_column);
      for (; r < d.rows.taps; r += d.rows.tap_step, line += step_h) {
        const C* x = line;
        for (int s = s0; s < d.columns.taps; s += d.columns.tap_step, x += step_w)
          sum[i] += *x * widen(filter[r * d.columns.taps + s]);
      }
    }
  }
}

// A block: blockDim.z tasks, of each a tile of blockDim.y strips times blockDim.x columns.
template <class T, int WINDOW, bool GRADIENT>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 8 ? 6 : 8) depthwise_kernel(Planes<T> d) {
  using C = Compute<T>;
  FASTARCH_DYNAMIC_SHARED(C, tiles);
  uint32_t row_tile, column_tile;
  const int64_t rest = d.column_tiles.split_wide(blockIdx.x, &column_tile);
  const int64_t task = d.row_tiles.split_wide(rest, &row_tile) * blockDim.z + threadIdx.z;
  const int row0 = row_tile * blockDim.y * kStrip, column0 = column_tile * blockDim.x;
  const int first_row = d.rows.template first_source<GRADIENT>(row0);
  const int first_column = d.columns.template first_source<GRADIENT>(column0);
  const int row = row0 + threadIdx.y * kStrip, column = column0 + threadIdx.x;
  const bool busy = task < d.tasks;  // the others still take part in barriers
  const int64_t channel = busy ? task % d.channels : 0;
  C* tile = tiles + threadIdx.z * d.tile_rows * d.tile_columns;

  for (int o = 0; o < d.outputs; ++o) {
    C sum[kStrip] = {};
    for (int j = 0; j < d.sums; ++j) {
      if (o == 0) {
        if (j > 0) __syncthreads();
        const int64_t plane = (task * d.sums + j) * d.rows.source * d.columns.source;
        load_tile(d, busy ? d.source + plane : nullptr, first_row, first_column, tile);
        __syncthreads();
      }
      const int64_t filter = channel * max(d.sums, d.outputs) + o + j;
      accumulate<T, WINDOW, GRADIENT>(d, d.weight + filter * d.rows.taps * d.columns.taps, tile, row, column,
                                      first_row, first_column, sum);
    }
    if (!busy || column >= d.columns.output) continue;
    const C bias = d.bias ? widen(d.bias[channel * d.outputs + o]) : C(0);
    int64_t at = ((task * d.outputs + o) * d.rows.output + row) * d.columns.output + column;
#pragma unroll
    for (int i = 0; i < kStrip; ++i, at += d.columns.output) {
      if (row + i >= d.rows.output) break;
      if (d.bias) sum[i] += bias;
      if (d.residual) sum[i] += widen(d.residual[at]);
      d.out[at] = narrow<T>(activate(sum[i], d.kind));
    }
  }
}

// The threads of a block, cut for the outputs: small planes share a block.
struct Block {
  int columns, strips, planes;

  Block(int64_t rows_out, int64_t columns_out) {
    columns = columns_out > 16 ? 32 : columns_out > 8 ? 16 : 8;
    strips = 1;
    while (strips * kStrip < rows_out && strips * columns < kThreads) strips *= 2;
    planes = kThreads / (columns * strips);
  }
};

inline int64_t seen(const Axis& axis, bool gradient, int64_t outputs) {
  const int64_t reach = int64_t{axis.taps - 1} * axis.dilation;
  return gradient ? (outputs - 1 + reach) / axis.stride + 2 : (outputs - 1) * axis.stride + reach + 1;
}

constexpr size_t kMostShared = 48 * 1024;

// The bytes of shared memory that a block needs.
template <class T>
size_t shared_bytes(const Axis& rows, const Axis& columns, bool gradient) {
  const Block block(rows.output, columns.output);
  const int64_t tile = seen(rows, gradient, block.strips * kStrip) * seen(columns, gradient, block.columns);
  return static_cast<size_t>(block.planes * tile) * sizeof(Compute<T>);
}

template <class T, bool GRADIENT>
void launch_planes(const char* name, Planes<T> d, Stream stream) {
  const Block block(d.rows.output, d.columns.output);
  d.tile_rows = static_cast<int>(seen(d.rows, GRADIENT, block.strips * kStrip));
  d.tile_columns = static_cast<int>(seen(d.columns, GRADIENT, block.columns));
  const auto tiles = [](int64_t n, int64_t size) { return (n + size - 1) / size; };
  const int64_t row_tiles = tiles(d.rows.output, block.strips * kStrip),
                column_tiles = tiles(d.columns.output, block.columns),
                blocks = row_tiles * column_tiles * tiles(d.tasks, block.planes);
  check(blocks < (int64_t{1} << 31), name, blocks, " blocks, expected less than 2^31");
  d.row_tiles = FastDivider(row_tiles);
  d.column_tiles = FastDivider(column_tiles);
  const bool plain = d.rows.stride == 1 && d.columns.stride == 1 && d.rows.dilation == 1 &&
                     d.columns.dilation == 1 && d.rows.taps == d.columns.taps;
  const auto kernel = plain && d.rows.taps == 3   ? depthwise_kernel<T, 3, GRADIENT>
                      : plain && d.rows.taps == 5 ? depthwise_kernel<T, 5, GRADIENT>
                                                  : depthwise_kernel<T, 0, GRADIENT>;
  launch(name, kernel, dim3(static_cast<unsigned>(blocks)), dim3(block.columns, block.strips, block.planes),
         shared_bytes<T>(d.rows, d.columns, GRADIENT), stream, d);
}

struct Axes {
  Axis rows, columns;
};

// The axes of a convolution, checked by the launchers of conv2d.cu to fit an int.
inline Axes axes_of(const Conv2dShape& s, bool gradient) {
  const auto axis = [gradient](int64_t in, int64_t out, int64_t taps, int64_t stride, int64_t padding,
                               int64_t dilation) {
    Axis made{static_cast<int>(gradient ? out : in),
              static_cast<int>(gradient ? in : out),
              static_cast<int>(taps),
              static_cast<int>(stride),
              static_cast<int>(padding),
              static_cast<int>(dilation)};
    if (gradient) made.tap_step = static_cast<int>(stride / std::gcd(stride, dilation));
    return made;
  };
  return {axis(s.h, s.p, s.r, s.stride_h, s.padding_h, s.dilation_h),
          axis(s.w, s.q, s.s, s.stride_w, s.padding_w, s.dilation_w)};
}

// Whether a group is one channel and few filters. With more of them the multiply fills its tiles, the
// smallest of which has eight rows.
inline bool is_depthwise(const Conv2dShape& s) {
  constexpr int64_t kMostFilters = 4;
  return s.groups > 1 && s.c == s.groups && s.k <= kMostFilters * s.c;
}

// Whether forward(), or backward_input(), takes a convolution: one whose tiles fit in shared memory.
template <class T>
bool takes(const Conv2dShape& s, bool gradient) {
  if (!is_depthwise(s)) return false;
  const Axes axes = axes_of(s, gradient);
  return shared_bytes<T>(axes.rows, axes.columns, gradient) <= kMostShared;
}

// y = activation(convolution + bias + residual), overwritten.
template <class T>
void forward(const T* x, const T* weight, const T* bias, const T* residual, T* y, const Conv2dShape& s,
             Activation kind, Stream stream) {
  if (s.n * s.k * s.p * s.q == 0) return;
  const Axes axes = axes_of(s, false);
  Planes<T> d{};
  d.source = x, d.weight = weight, d.bias = bias, d.residual = residual, d.out = y;
  d.tasks = s.n * s.c, d.channels = static_cast<int>(s.c);
  d.sums = 1, d.outputs = static_cast<int>(s.k / s.c);
  d.rows = axes.rows, d.columns = axes.columns;
  d.kind = kind;
  launch_planes<T, false>("conv2d_forward", d, stream);
}

// dx, overwritten: pixels that no window covers get zero like any other sum.
template <class T>
void backward_input(const T* dy, const T* weight, T* dx, const Conv2dShape& s, Stream stream) {
  if (s.n * s.c * s.h * s.w == 0) return;
  const Axes axes = axes_of(s, true);
  Planes<T> d{};
  d.source = dy, d.weight = weight, d.out = dx;
  d.tasks = s.n * s.c, d.channels = static_cast<int>(s.c);
  d.sums = static_cast<int>(s.k / s.c), d.outputs = 1;
  d.rows = axes.rows, d.columns = axes.columns;
  launch_planes<T, true>("conv2d_backward_input", d, stream);
}

}  // namespace fastarch::cuda::depthwise
