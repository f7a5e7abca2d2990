// Convolution and 2x2 max pooling with stride 2 in one pass, and its gradients without the unpooled ones.
//
// Forward: the four pixels of a window are neighbours among the columns of the multiply, so that they meet in
// neighbouring lanes on the way out of shared memory. Three shuffles take the maximum; one of four lanes
// stores it. The convolution's own output is never in memory.
//
// Gradients: of the four pixels of a window one has a gradient, that of the window, and none where the ReLU
// is flat. Readers of the output gradient make it up from this: the full-size one is never in memory either.
#include "conv2d/products.h"
#include "core/reduce.h"

namespace fastarch::cuda {
namespace max_pool {

// Pixels window by window: (n, p / 2, q / 2, p % 2, q % 2). P and Q are even.
struct WindowGrid {
  FastDivider plane, row;

  WindowGrid() = default;
  WindowGrid(int64_t rows, int64_t columns) : plane(rows * columns), row(columns / 2) {}

  __device__ __forceinline__ uint32_t row_of(uint32_t within, uint32_t* column) const {
    uint32_t q;
    const uint32_t p = row.split(within / 4, &q);
    *column = 2 * q + within % 2;
    return 2 * p + within / 2 % 2;
  }
};

// Four neighbouring columns of the product are a window: bias by channel, the maximum, then the activation.
template <class T>
struct PooledResult {
  static constexpr bool kOverwrites = true;
  static constexpr int kTogether = 4;

  T* out;           // [N, C, H, W]
  uint8_t* argmax;  // the same, or null
  int64_t image_pitch, channel_pitch;
  FastDivider plane;  // pixels of a channel before pooling
  const T* bias;      // by channel, or null
  Activation kind;

  using Columns = int64_t;  // where their window goes
  __device__ __forceinline__ void skip_channels(int64_t count) {
    out += count * channel_pitch;
    if (argmax) argmax += count * channel_pitch;
    if (bias) bias += count;
  }
  __device__ __forceinline__ Columns columns(int64_t n) const {
    uint32_t within;
    const int64_t image = plane.split_wide(n, &within);
    return image * image_pitch + within / 4;
  }
  __device__ __forceinline__ void store(int64_t m, Columns window, const Compute<T> (&pixels)[4]) const {
    Compute<T> largest = 0;
    int place = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const Compute<T> value = bias ? pixels[i] + widen(bias[m]) : pixels[i];
      if (i > 0 && !(value > largest || value != value))
        continue;  // the first of equal ones, and the last NaN
      largest = value;
      place = i;
    }
    const int64_t at = window + m * channel_pitch;
    out[at] = narrow<T>(activate(largest, kind));
    if (argmax) argmax[at] = static_cast<uint8_t>(place);
  }
};

// Where the gradient of the pooled output lies: dy, argmax and, for a ReLU, y [N, K, P/2, Q/2].
template <class T>
struct Pooled {
  const T* dy;
  const T* y;  // null: no ReLU
  const uint8_t* argmax;

  // Whether the window's gradient is that of its pixel `place`. A NaN of the ReLU lets it pass.
  __device__ __forceinline__ bool reaches(int64_t window, uint32_t place) const {
    return argmax[window] == place && !(y && widen(y[window]) <= 0);
  }
};

// The unpooled gradient [N, K, P, Q] as an image; of Patches, offsets count windows, and of a pixel and a tap
// only those of image and channel: halves of positions do not add up.
template <class T>
struct UnpooledPatches : Patches<T> {
  Pooled<T> pooled;
  int64_t first = 0;  // window of the group
  int row_windows;    // Q/2

  __device__ __forceinline__ void skip_channels(int64_t count) { first += count * this->channel_pitch; }
  __device__ __forceinline__ Point pixel(int64_t image, uint32_t within) const {
    Point point = Patches<T>::pixel(image, within);
    point.offset = image * this->image_pitch;
    return point;
  }
  __device__ __forceinline__ Point tap(uint32_t index) const {
    uint32_t within;
    Point point = Patches<T>::tap(index);
    point.offset = int64_t{this->window.plane.split(index, &within)} * this->channel_pitch;
    return point;
  }
  // The window's place in memory where its gradient is that of the pixel, else -1.
  __device__ __forceinline__ int64_t source(const Point& pixel, const Point& tap) const {
    if (!this->inside(pixel, tap)) return -1;
    const uint32_t h = pixel.h + tap.h, w = pixel.w + tap.w;
    const int64_t window = first + pixel.offset + tap.offset + (h / 2 * row_windows + w / 2);
    return pooled.reaches(window, h % 2 * 2 + w % 2) ? window : -1;
  }
  __device__ __forceinline__ T at(const Point& pixel, const Point& tap) const {
    const int64_t from = source(pixel, tap);
    return from >= 0 ? pooled.dy[from] : T{};
  }
  __device__ __forceinline__ void copy(const Point& pixel, const Point& tap, T* to) const {
    const int64_t from = source(pixel, tap);
    copy_one(to, pooled.dy + (from >= 0 ? from : 0), from >= 0);
  }
};

// The unpooled gradient as A[m = channel, k = pixel], pixels window by window: one window a load.
template <class T>
struct UnpooledRows {
  static constexpr bool kAlongK = true, kDecodes = false;
  static constexpr int kWidth = 4;
  using Line = int64_t;  // offsets in windows, -1: outside
  using Step = int64_t;

  Pooled<T> pooled;
  int64_t channels, image_pitch;
  FastDivider plane;  // windows of a channel
  int64_t before = 0;
  uint32_t first = 0;

  __device__ __forceinline__ void skip_channels(int64_t count) { before += count * plane.divisor(); }
  __device__ __forceinline__ void start(int64_t first_k) {
    before += plane.split_wide(first_k / 4, &first) * image_pitch;
  }
  __device__ __forceinline__ Line line(int64_t m) const {
    return m < channels ? before + m * plane.divisor() : -1;
  }
  __device__ __forceinline__ Step step(int k, int left) const {
    if (left <= 0) return -1;
    uint32_t within;
    const uint32_t image = plane.split(first + k / 4, &within);
    return image * image_pitch + within;
  }
  __device__ __forceinline__ void load(Line channel, Step step, T (&values)[kWidth]) const {
    T value{};
    int place = -1;
    if (channel >= 0 && step >= 0) {
      const int64_t window = channel + step;
      value = pooled.dy[window];
      place = pooled.argmax[window];
      if (!pooled.reaches(window, place)) place = -1;
    }
#pragma unroll
    for (int v = 0; v < kWidth; ++v) values[v] = v == place ? value : T{};
  }
  __device__ __forceinline__ void copy(Line channel, Step step, T* to) const {
    const bool inside = channel >= 0 && step >= 0;
    const int64_t window = inside ? channel + step : 0;
#pragma unroll
    for (int v = 0; v < kWidth; ++v)
      copy_one(to + v, pooled.dy + window, inside && pooled.reaches(window, v));
  }
};

}  // namespace max_pool

using namespace max_pool;

template <class T>
void conv2d_max_pool_forward(const T* x, const T* weight, const T* bias, T* y, uint8_t* argmax,
                             const Conv2dShape& s, Activation kind, Precision precision, Stream stream) {
  check_limits(s, "conv2d_max_pool_forward");
  const int64_t windows = s.p / 2 * (s.q / 2);
  const PooledResult<T> result{y, argmax, s.k * windows, windows, FastDivider(4 * windows), bias, kind};
  multiply_forward("conv2d_max_pool_forward", weight, input_patches<WindowGrid>(x, s), result, s, precision,
                   stream);
}

template <class T>
void conv2d_max_pool_backward(const T* dy, const T* y, const uint8_t* argmax, const T* x, const T* weight,
                              T* dx, T* dw, T* db, const Conv2dShape& s, Precision precision, Stream stream) {
  const char* const name = "conv2d_max_pool_backward";
  check_limits(s, name);
  const int64_t windows = s.p / 2 * (s.q / 2);
  const Pooled<T> pooled{dy, y, argmax};
  if (dx) {
    UnpooledPatches<T> source{};
    source.image_pitch = s.k * windows;
    source.channel_pitch = static_cast<int>(windows);
    source.height = static_cast<int>(s.p);
    source.width = static_cast<int>(s.q);
    source.pooled = pooled;
    source.row_windows = static_cast<int>(s.q / 2);
    multiply_backward_input(name, source, weight, dx, s, precision, stream);
  }
  if (dw) {
    const UnpooledRows<T> rows{pooled, s.k / s.groups, s.k * windows, FastDivider(windows)};
    multiply_backward_weight(name, rows, input_patches<WindowGrid>(x, s), dw, db, s, precision, stream);
  }
}

#define INSTANTIATE(T)                                                                                       \
  template void conv2d_max_pool_forward(const T*, const T*, const T*, T*, uint8_t*, const Conv2dShape&,      \
                                        Activation, Precision, Stream);                                      \
  template void conv2d_max_pool_backward(const T*, const T*, const uint8_t*, const T*, const T*, T*, T*, T*, \
                                         const Conv2dShape&, Precision, Stream);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(float16)
INSTANTIATE(bfloat16)
#undef INSTANTIATE

}  // namespace fastarch::cuda
