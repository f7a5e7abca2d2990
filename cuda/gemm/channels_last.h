// Operands and results of the multiply that are images with the channels last, x [N, H, W, C].
//
// As in patches.h a pixel and a tap are each an offset and a position, and simply add up. Here the taps are
// counted (r, s, c), the channel fastest, as they lie side by side in memory: one instruction brings Width
// channels of one pixel, straight to shared memory where copies are asynchronous. Width is 16 bytes where the
// channels of a group are a multiple of that, else 1.
#pragma once
#include "gemm/patches.h"

namespace fastarch::cuda {

template <class T, int Width>
struct ChannelPatches {
  const T* x;  // at the first channel of this group
  int64_t image_pitch, pixel_pitch;
  int height, width;
  int64_t columns = 0, taps = 0;   // N*P*Q, R*S*C; C counts the channels of this group
  Grid pixels{}, window{};         // (n, p, q), (unused, r, s)
  FastDivider channels{};          // C
  int stride_h = 1, stride_w = 1;  // position = stride * p + origin + step * r
  int origin_h = 0, origin_w = 0;  // minus the padding
  int step_h, step_w;              // the dilation; negative where the window is flipped

  std::string traits() const {  // see gemm/tune.h
    return concat(height, " x ", width, " to ", pixels.plane.divisor(), " pixels, window ",
                  window.plane.divisor() / window.row.divisor(), " x ", window.row.divisor(), " x ",
                  channels.divisor(), ", stride ", stride_h, " ", stride_w, ", step ", step_h, " ", step_w);
  }

  __device__ __forceinline__ Point pixel(int64_t image, uint32_t within) const {
    uint32_t q;
    const uint32_t p = pixels.row.split(within, &q);
    const int h = static_cast<int>(p) * stride_h + origin_h, w = static_cast<int>(q) * stride_w + origin_w;
    return {image * image_pitch + (int64_t{h} * width + w) * pixel_pitch, h, w};
  }
  __device__ __forceinline__ Point tap(uint32_t index) const {
    uint32_t c, s;
    const uint32_t r = window.row.split(channels.split(index, &c), &s);
    const int h = static_cast<int>(r) * step_h, w = static_cast<int>(s) * step_w;
    return {(int64_t{h} * width + w) * pixel_pitch + c, h, w};
  }
  __device__ __forceinline__ bool inside(const Point& pixel, const Point& tap) const {
    return static_cast<unsigned>(pixel.h + tap.h) < static_cast<unsigned>(height) &&
           static_cast<unsigned>(pixel.w + tap.w) < static_cast<unsigned>(width);
  }
  __device__ __forceinline__ void load(const Point& pixel, const Point& tap, T (&values)[Width]) const {
    const bool valid = inside(pixel, tap);
    if constexpr (Width == 1)
      values[0] = valid ? x[pixel.offset + tap.offset] : T{};
    else
      load_some(x + (valid ? pixel.offset + tap.offset : 0), valid ? Width : 0, true, values);
  }
  __device__ __forceinline__ void copy(const Point& pixel, const Point& tap, T* to) const {
    const bool valid = inside(pixel, tap);
    const T* const from = x + (valid ? pixel.offset + tap.offset : 0);
    if constexpr (Width == 1)
      copy_one(to, from, valid);
    else
      copy_async<16>(to, from, valid ? 16 : 0);
  }
};

// The patches as A[m = pixel, k = tap].
template <class T, int Width>
struct PixelRows {
  static constexpr bool kAlongK = true, kDecodes = true;
  static constexpr int kWidth = Width;
  using Line = Point;
  using Step = Point;

  ChannelPatches<T, Width> source;
  int first = 0;

  std::string traits() const { return source.traits(); }

  __device__ __forceinline__ void start(int64_t first_k) { first = static_cast<int>(first_k); }
  __device__ __forceinline__ Line line(int64_t m) const {
    if (m >= source.columns) return outside();
    uint32_t within;
    const int64_t image = source.pixels.plane.split_wide(m, &within);
    return source.pixel(image, within);
  }
  __device__ __forceinline__ Step step(int k, int left) const {
    return left > 0 ? source.tap(static_cast<uint32_t>(first + k)) : outside();
  }
  __device__ __forceinline__ void load(const Line& pixel, const Step& tap, T (&values)[Width]) const {
    source.load(pixel, tap, values);
  }
  __device__ __forceinline__ void copy(const Line& pixel, const Step& tap, T* to) const {
    source.copy(pixel, tap, to);
  }
};

// The patches as B[k = pixel, n = tap]: threads walk across the taps.
template <class T, int Width>
struct TapLines {
  static constexpr bool kAlongK = false, kDecodes = true;
  static constexpr int kWidth = Width;
  using Line = Point;
  using Step = Point;

  ChannelPatches<T, Width> source;
  uint32_t first = 0;

  std::string traits() const { return source.traits(); }

  __device__ __forceinline__ void start(int64_t first_k) {
    source.x += source.pixels.plane.split_wide(first_k, &first) * source.image_pitch;
  }
  __device__ __forceinline__ Line line(int64_t n) const {
    return n < source.taps ? source.tap(static_cast<uint32_t>(n)) : outside();
  }
  __device__ __forceinline__ Step step(int k, int left) const {
    if (left <= 0) return outside();
    uint32_t within;
    const uint32_t image = source.pixels.plane.split(first + k, &within);
    return source.pixel(image, within);
  }
  __device__ __forceinline__ void load(const Line& tap, const Step& pixel, T (&values)[Width]) const {
    source.load(pixel, tap, values);
  }
  __device__ __forceinline__ void copy(const Line& tap, const Step& pixel, T* to) const {
    source.copy(pixel, tap, to);
  }
};

// What becomes of out[m = pixel, n = channel]: bias by channel, residual, then the activation.
template <class T>
struct ChannelResult {
  static constexpr bool kOverwrites = true;

  T* out;
  int64_t pitch;      // the channels of all groups
  const T* bias;      // by channel, or null
  const T* residual;  // as out, or null
  Activation kind;

  struct Column {
    int64_t n;
    Compute<T> bias;
  };
  __device__ __forceinline__ Column column(int64_t n) const {
    return {n, bias ? widen(bias[n]) : Compute<T>(0)};
  }
  __device__ __forceinline__ void store(int64_t m, const Column& column, Compute<T> value) const {
    const int64_t at = m * pitch + column.n;
    value += column.bias;
    if (residual) value += widen(residual[at]);
    out[at] = narrow<T>(activate(value, kind));
  }
};

// The same, without those, where the pixels are every few of an image [N, H, W, C].
template <class T>
struct PixelResult {
  static constexpr bool kOverwrites = true;

  T* out;                        // at the first pixel of this grid
  int64_t image_pitch, pitch_h;  // elements between images, and between the grid's rows
  int64_t pitch_w;               // and between its columns
  Grid pixels{};

  std::string traits() const { return concat("pitch ", pitch_h, " ", pitch_w); }

  using Column = int64_t;
  __device__ __forceinline__ Column column(int64_t n) const { return n; }
  __device__ __forceinline__ int64_t place(int64_t m) const {
    uint32_t within, q;
    const int64_t image = pixels.plane.split_wide(m, &within);
    const uint32_t p = pixels.row.split(within, &q);
    return image * image_pitch + p * pitch_h + q * pitch_w;
  }
  __device__ __forceinline__ void store(int64_t m, Column column, Compute<T> value) const {
    out[place(m) + column] = narrow<T>(value);
  }
};

// What becomes of out[m = filter, n = tap (r, s, c)]: stored as filters [K, C, R, S].
template <class T>
struct FilterResult {
  static constexpr bool kOverwrites = true;

  T* out;
  int64_t taps;
  FastDivider channels;  // C
  int window;            // R*S

  using Column = int64_t;
  __device__ __forceinline__ Column column(int64_t n) const {
    uint32_t c;
    const uint32_t tap = channels.split(static_cast<uint32_t>(n), &c);
    return int64_t{c} * window + tap;
  }
  __device__ __forceinline__ void store(int64_t m, Column column, Compute<T> value) const {
    out[m * taps + column] = narrow<T>(value);
  }
};

}  // namespace fastarch::cuda
