// Operands and results of the multiply that are images: convolution as a matrix product, "implicit im2col".
//
// The patch matrix of an image x [N, C, H, W] has a row for each tap (c, r, s) of the window and a column for
// each output pixel (n, p, q); its element is the pixel of x that the tap falls on, zero outside of the
// image. It is R*S times as large as x, so it is never stored: readers compute where each element lies. What
// a pixel and a tap contribute to that simply adds up, and each is needed many times; so both are decoded
// once, and an element costs two additions, two comparisons whether it is inside, and its address.
#pragma once
#include "core/divide.h"
#include "gemm/matrix.h"

namespace fastarch::cuda {

// What launchers must check: within these limits a position fits an int, and so does an index in an image.
constexpr int64_t kMostPixels = int64_t{1} << 30;    // of one channel of one image
constexpr int64_t kMostTaps = int64_t{1} << 30;      // C * R * S
constexpr int64_t kMostPosition = int64_t{1} << 29;  // of a coordinate, padding and dilation included

// Flat index -> (image, p, q), or -> (channel, r, s): both are [count, rows, columns] in C order.
struct Grid {
  FastDivider plane, row;

  Grid() = default;
  Grid(int64_t rows, int64_t columns) : plane(rows * columns), row(columns) {}

  // What lies at `within` a plane: its row, returned, and column.
  __device__ __forceinline__ uint32_t row_of(uint32_t within, uint32_t* column) const {
    return row.split(within, column);
  }
};

// A pixel (of its window's first tap) or a tap (relative to that): where in memory, and where in the image.
struct alignas(16) Point {
  int64_t offset;
  int h, w;
};

// A position that stays outside of every image whatever is added to it.
__device__ __forceinline__ Point outside() { return {0, -(1 << 30), -(1 << 30)}; }

// Pixels: a Grid, or another order of the output's pixels.
template <class T, class Pixels = Grid>
struct Patches {
  const T* x;  // [N, C, H, W]; C counts the channels of this group
  int64_t image_pitch;
  int channel_pitch, height, width;
  int64_t columns = 0, taps = 0;   // N*P*Q, C*R*S
  Pixels pixels{};                 // (n, p, q)
  Grid window{};                   // (c, r, s)
  int stride_h = 1, stride_w = 1;  // position = stride * p + origin + step * r
  int origin_h = 0, origin_w = 0;  // minus the padding
  int step_h = 1, step_w = 1;      // the dilation; negative where the window is flipped

  std::string traits() const {  // see gemm/tune.h
    return concat(height, " x ", width, " to ", pixels.plane.divisor(), " pixels, window ",
                  window.plane.divisor(), ", stride ", stride_h, " ", stride_w, ", step ", step_h, " ",
                  step_w);
  }

  __device__ __forceinline__ void skip_channels(int64_t count) { x += count * channel_pitch; }
  __device__ __forceinline__ Point pixel(int64_t image, uint32_t within) const {
    uint32_t q;
    const uint32_t p = pixels.row_of(within, &q);
    const int h = static_cast<int>(p) * stride_h + origin_h, w = static_cast<int>(q) * stride_w + origin_w;
    return {image * image_pitch + int64_t{h} * width + w, h, w};
  }
  __device__ __forceinline__ Point tap(uint32_t index) const {
    uint32_t within, s;
    const uint32_t c = window.plane.split(index, &within), r = window.row.split(within, &s);
    const int h = static_cast<int>(r) * step_h, w = static_cast<int>(s) * step_w;
    return {int64_t{c} * channel_pitch + int64_t{h} * width + w, h, w};
  }
  __device__ __forceinline__ bool inside(const Point& pixel, const Point& tap) const {
    return static_cast<unsigned>(pixel.h + tap.h) < static_cast<unsigned>(height) &&
           static_cast<unsigned>(pixel.w + tap.w) < static_cast<unsigned>(width);
  }
  __device__ __forceinline__ T at(const Point& pixel, const Point& tap) const {
    return inside(pixel, tap) ? x[pixel.offset + tap.offset] : T{};
  }
  __device__ __forceinline__ void copy(const Point& pixel, const Point& tap, T* to) const {
    const bool valid = inside(pixel, tap);
    copy_one(to, x + (valid ? pixel.offset + tap.offset : 0), valid);
  }
};

// The patch matrix as B[k = tap, n = pixel]: neighbours in memory are pixels, so threads walk across columns.
template <class T, class Source = Patches<T>>
struct PixelColumns {
  static constexpr bool kAlongK = false, kDecodes = true;
  static constexpr int kWidth = 1;
  using Line = Point;
  using Step = Point;

  Source source;
  int first = 0;

  __device__ __forceinline__ void start(int64_t first_k) { first = static_cast<int>(first_k); }
  __device__ __forceinline__ Line line(int64_t n) const {
    if (n >= source.columns) return outside();
    uint32_t within;
    const int64_t image = source.pixels.plane.split_wide(n, &within);
    return source.pixel(image, within);
  }
  __device__ __forceinline__ Step step(int k, int left) const {
    return left > 0 ? source.tap(first + k) : outside();
  }
  __device__ __forceinline__ void load(const Line& pixel, const Step& tap, T (&value)[1]) const {
    value[0] = source.at(pixel, tap);
  }
  __device__ __forceinline__ void copy(const Line& line, const Step& step, T* to) const {
    source.copy(line, step, to);
  }
};

// The patch matrix transposed, B[k = pixel, n = tap]: threads walk along k.
template <class T, class Source = Patches<T>>
struct TapColumns {
  static constexpr bool kAlongK = true, kDecodes = false;
  static constexpr int kWidth = 1;
  using Line = Point;
  using Step = Point;

  Source source;
  uint32_t first = 0;

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
  __device__ __forceinline__ void load(const Line& tap, const Step& pixel, T (&value)[1]) const {
    value[0] = source.at(pixel, tap);
  }
  __device__ __forceinline__ void copy(const Line& line, const Step& step, T* to) const {
    source.copy(line, step, to);
  }
};

// An output gradient dy [N, K, P, Q] as A[m = channel, k = pixel].
template <class T>
struct ChannelRows {
  static constexpr bool kAlongK = true, kDecodes = false;
  static constexpr int kWidth = kVector<T>;
  using Line = const T*;  // null: outside
  struct Step {
    uint32_t pixel;
    int left;
  };

  const T* dy;
  int64_t channels, image_pitch;
  FastDivider plane;  // P*Q
  bool aligned;       // kWidth pixels never straddle two images, and their addresses are aligned
  uint32_t first = 0;

  ChannelRows(const T* dy, int64_t channels, int64_t image_pitch, int64_t pixels)
      : dy(dy),
        channels(channels),
        image_pitch(image_pitch),
        plane(pixels),
        aligned(packable(dy) && pixels % kWidth == 0) {}

  std::string traits() const { return aligned ? "aligned" : "loose"; }

  __device__ __forceinline__ void skip_channels(int64_t count) { dy += count * plane.divisor(); }
  __device__ __forceinline__ void start(int64_t first_k) {
    dy += plane.split_wide(first_k, &first) * image_pitch;
  }
  __device__ __forceinline__ Line line(int64_t m) const {
    return m < channels ? dy + m * plane.divisor() : nullptr;
  }
  __device__ __forceinline__ Step step(int k, int left) const { return {first + k, left}; }

  __device__ __forceinline__ void load(Line channel, const Step& step, T (&values)[kWidth]) const {
    const int valid = channel ? step.left : 0;
    if (aligned) {
      load_some(channel + offset(step.pixel), valid, true, values);
    } else {
#pragma unroll
      for (int v = 0; v < kWidth; ++v) values[v] = v < valid ? global(channel)[offset(step.pixel + v)] : T{};
    }
  }
  __device__ __forceinline__ void copy(Line channel, const Step& step, T* to) const {
    const int valid = channel ? step.left : 0;
    if (aligned) {
      copy_async<16>(to, valid > 0 ? channel + offset(step.pixel) : dy, valid > 0 ? 16 : 0);
    } else {
#pragma unroll
      for (int v = 0; v < kWidth; ++v)
        copy_one(to + v, v < valid ? channel + offset(step.pixel + v) : dy, v < valid);
    }
  }

 private:
  __device__ __forceinline__ int64_t offset(uint32_t pixel) const {
    uint32_t within;
    const uint32_t image = plane.split(pixel, &within);
    return image * image_pitch + within;
  }
};

// Images x [N, C, pixels] as B[k = channel, n = pixel], for products without a window. A channel's pixels
// must be a multiple of kWidth and addresses aligned, so that kWidth pixels never straddle two images.
template <class T>
struct PlaneColumns {
  static constexpr bool kAlongK = false, kDecodes = false;
  static constexpr int kWidth = kVector<T>;
  using Line = int64_t;  // offsets, -1: outside
  using Step = int64_t;

  const T* x;
  int64_t columns, image_pitch;  // N * pixels
  FastDivider plane;             // pixels

  __device__ __forceinline__ void start(int64_t first_k) { x += first_k * plane.divisor(); }
  __device__ __forceinline__ Line line(int64_t n) const {
    if (n >= columns) return -1;
    uint32_t within;
    const int64_t image = plane.split_wide(n, &within);
    return image * image_pitch + within;
  }
  __device__ __forceinline__ Step step(int k, int left) const {
    return left > 0 ? int64_t{k} * plane.divisor() : -1;
  }
  __device__ __forceinline__ void load(Line pixel, Step channel, T (&values)[kWidth]) const {
    const bool valid = pixel >= 0 && channel >= 0;
    load_some(x + (valid ? pixel + channel : 0), valid ? kWidth : 0, true, values);
  }
  __device__ __forceinline__ void copy(Line pixel, Step channel, T* to) const {
    const bool valid = pixel >= 0 && channel >= 0;
    copy_async<16>(to, x + (valid ? pixel + channel : 0), valid ? 16 : 0);
  }
};

// Filters w [K, C, R, S] as A[m = c, k = (filter, i, j)], where (i, j) counts some of the window's taps only:
// those of one phase of the input gradient.
template <class T>
struct FilterRows {
  static constexpr bool kAlongK = true, kDecodes = false;
  static constexpr int kWidth = 1;
  using Line = int;  // offset of the channel, -1: outside
  using Step = int64_t;

  const T* w;  // at the first tap
  int64_t channels, filter_pitch;
  int channel_pitch, tap_pitch_h, tap_pitch_w;
  Grid window{};  // (filter, i, j)
  int first = 0;

  __device__ __forceinline__ void start(int64_t first_k) { first = static_cast<int>(first_k); }
  __device__ __forceinline__ Line line(int64_t m) const {
    return m < channels ? static_cast<int>(m) * channel_pitch : -1;
  }
  __device__ __forceinline__ Step step(int k, int left) const {
    if (left <= 0) return -1;
    uint32_t within, j;
    const uint32_t filter = window.plane.split(static_cast<uint32_t>(first + k), &within);
    const uint32_t i = window.row.split(within, &j);
    return filter * filter_pitch + static_cast<int>(i) * tap_pitch_h + static_cast<int>(j) * tap_pitch_w;
  }
  __device__ __forceinline__ void load(Line channel, Step tap, T (&value)[1]) const {
    value[0] = channel >= 0 && tap >= 0 ? w[channel + tap] : T{};
  }
  __device__ __forceinline__ void copy(Line channel, Step tap, T* to) const {
    const bool valid = channel >= 0 && tap >= 0;
    copy_one(to, w + (valid ? channel + tap : 0), valid);
  }
};

// What becomes of out[m = channel, n = pixel]: bias by channel and a residual are added, then the activation,
// stored as [N, C, H, W].
template <class T>
struct ImageResult {
  static constexpr bool kOverwrites = true;

  T* out;  // at the first pixel of this grid
  int64_t image_pitch, channel_pitch;
  Grid pixels{};
  int64_t pitch_h;    // elements between the grid's rows: the image's width, where the grid is all of it
  int pitch_w;        // and between its columns: 1
  const T* bias;      // by channel, or null
  const T* residual;  // as out, or null
  Activation kind;

  using Column = int64_t;
  __device__ __forceinline__ void skip_channels(int64_t count) {
    out += count * channel_pitch;
    if (residual) residual += count * channel_pitch;
    if (bias) bias += count;
  }
  __device__ __forceinline__ Column column(int64_t n) const {
    uint32_t within, q;
    const int64_t image = pixels.plane.split_wide(n, &within);
    const uint32_t p = pixels.row.split(within, &q);
    return image * image_pitch + p * pitch_h + int64_t{q} * pitch_w;
  }
  __device__ __forceinline__ void store(int64_t m, Column column, Compute<T> value) const {
    const int64_t at = column + m * channel_pitch;
    if (bias) value += widen(bias[m]);
    if (residual) value += widen(residual[at]);
    out[at] = narrow<T>(activate(value, kind));
  }
};

}  // namespace fastarch::cuda
