// Convolution of channels-last images on the multiply of wgmma.h, in three products whose k or lines are
// pixels:
//
//   forward          y  [pixel, filter]  = patches of x  [pixel, tap]    * filters [filter, tap]
//   input gradient   dx [pixel, channel] = patches of dy [pixel, tap]    * filters [channel, tap], stride 1
//   weight gradient  dw [filter, tap]    = dy^T          [filter, pixel] * patches of x [pixel, tap]
//
// A tap is (r, s, c), the channel fastest. Patches are never stored: bulk copies of consecutive pixels, each
// read r and s further on, bring a tap's 128 bytes of channels, and zeros outside of the image (im2col).
#pragma once
#include "gemm/wgmma.h"

namespace fastarch::cuda {

// The windows of one axis: tap r of output pixel p lies at stride * p + origin + offset(r). Offsets count up
// from 0; where `flipped`, the last tap has it.
struct WindowAxis {
  int64_t extent, count;  // of the images read, and of the pixels computed
  int taps, stride, dilation, origin;
  bool flipped = false;

  FASTARCH_HOST_DEVICE int offset(int r) const { return (flipped ? taps - 1 - r : r) * dilation; }
  PixelAxis base() const { return {extent, origin, origin + static_cast<int>(count - 1) * stride, stride}; }
};

// Images [images, h.extent, w.extent, channels], read through windows.
template <class T>
struct WindowSource {
  static constexpr int kChannels = kBoxRowBytes / sizeof(T);  // that one copy brings
  const T* x;
  int64_t images, channels;
  WindowAxis h, w;

  bool mappable() const {
    constexpr int kMostOffset = 255;
    return cuda::mappable(x, channels * static_cast<int64_t>(sizeof(T))) &&
           cuda::mappable(h.base(), w.base()) && (h.taps - 1) * h.dilation <= kMostOffset &&
           (w.taps - 1) * w.dilation <= kMostOffset;
  }
  int64_t pixels() const { return images * h.count * w.count; }
  int64_t channel_blocks() const { return divide_up(channels, kChannels); }
  int64_t steps() const { return h.taps * w.taps * channel_blocks(); }  // through all taps
};

// What both ways to read windows share, in kernels.
template <class T>
struct WindowBoxes {
  TensorMap map;
  FastDivider plane, row, window_row, blocks;  // P*Q, Q, S, blocks of channels
  WindowAxis h, w;

  WindowBoxes(const CallSite& name, const WindowSource<T>& source, int pixels)
      : map(make_pixel_map(name, source.x, source.images, source.h.base(), source.w.base(), source.channels,
                           pixels)),
        plane(source.h.count * source.w.count),
        row(source.w.count),
        window_row(source.w.taps),
        blocks(source.channel_blocks()),
        h(source.h),
        w(source.w) {}

  // Pixels from number `pixel` on, block of channels number `block` of all taps'.
  __device__ __forceinline__ void load(char* to, uint64_t* full, int pixel, uint32_t block) const {
    uint32_t within, q, s, channels;
    const uint32_t image = plane.split(static_cast<uint32_t>(pixel), &within), p = row.split(within, &q);
    uint32_t r = window_row.split(blocks.split(block, &channels), &s);
    if (r >= static_cast<uint32_t>(h.taps))
      r = s = 0;  // past the last tap, whatever: nobody wants its column
    load_pixels(to, map, full, static_cast<int>(channels) * WindowSource<T>::kChannels,
                static_cast<int>(q) * w.stride + w.origin, static_cast<int>(p) * h.stride + h.origin,
                static_cast<int>(image), w.offset(static_cast<int>(s)), h.offset(static_cast<int>(r)));
  }
};

// Lines are pixels, k runs along the taps; a step is one block of channels of a tap.
template <class T>
struct PixelLines {
  template <int Lines>
  struct Boxes : WindowBoxes<T> {
    using Panel = WgmmaPanel<T, true>;
    __device__ __forceinline__ void load(char* panel, uint64_t* full, int line, int step) const {
      WindowBoxes<T>::load(panel, full, line, static_cast<uint32_t>(step));
    }
  };

  WindowSource<T> source;

  template <int Lines>
  Boxes<Lines> boxes(const CallSite& name) const {
    return {{name, source, Lines}};
  }
};

// Lines are taps, whole blocks of channels each; k runs along the pixels.
template <class T>
struct TapBlocks {
  template <int Lines>
  struct Boxes : WindowBoxes<T> {
    using Panel = WgmmaPanel<T, false>;
    __device__ __forceinline__ void load(char* panel, uint64_t* full, int line, int step) const {
#pragma unroll
      for (int i = 0; i < Lines / Panel::kAcross; ++i)
        WindowBoxes<T>::load(panel + i * Panel::kBlock, full, step * Panel::kDepth,
                             static_cast<uint32_t>(line / Panel::kAcross + i));
    }
  };

  WindowSource<T> source;

  template <int Lines>
  Boxes<Lines> boxes(const CallSite& name) const {
    return {{name, source, WgmmaPanel<T, false>::kDepth}};
  }
};

// Filters [lines, pitch >= window * channels] in the order of PixelLines' steps.
template <class T>
struct FilterLines {
  template <int Lines>
  struct Boxes {
    using Panel = WgmmaPanel<T, true>;
    TensorMap map;
    FastDivider blocks;

    __device__ __forceinline__ void load(char* panel, uint64_t* full, int line, int step) const {
      uint32_t block;
      const uint32_t tap = blocks.split(static_cast<uint32_t>(step), &block);
      load_box(panel, map, full, static_cast<int>(block) * Panel::kDepth, static_cast<int>(tap), line);
    }
  };

  const T* filters;
  int64_t lines, pitch, window, channels;

  bool mappable() const {
    const auto size = static_cast<int64_t>(sizeof(T));
    return cuda::mappable(filters, pitch * size) && channels * size % 16 == 0;
  }
  template <int Lines>
  Boxes<Lines> boxes(const CallSite& name) const {
    constexpr int kRow = kBoxRowBytes / sizeof(T), kSize = sizeof(T);
    return {make_tensor_map(
                name, filters,
                {{channels, kSize, kRow}, {window, channels * kSize, 1}, {lines, pitch * kSize, Lines}}),
            FastDivider(divide_up(channels, kRow))};
  }
};

// What launch_wgmma() and combine_kernel ask of a problem whose operands are brought by sources.
template <class T, class Result, bool RowSums>
struct SourceProblem {
  struct None {};
  using Value = T;
  static constexpr bool kRowSums = RowSums;
  using Parts = Operands<None, None, Result, T>;

  Parts operands;

  __device__ __forceinline__ const Parts& at(int) const { return operands; }
};

// The forward pass or the input gradient: `result` takes [pixel, line]. Whether it took it. Left to mma.sync
// is also what fills less than half of a tap's copies.
template <class Result, class T>
bool convolve_wgmma(const CallSite& name, const WindowSource<T>& images, const FilterLines<T>& filters,
                    const Result& result, Precision precision, Stream stream) {
  if constexpr (kWgmmaTakes<T, true, true, false>) {
    const int64_t pixels = images.pixels();
    if (images.channels < WindowSource<T>::kChannels / 2 || !images.mappable() || !filters.mappable() ||
        !wants_wgmma<T>({1, pixels, filters.lines, filters.window * filters.channels}, precision))
      return false;
    const SourceProblem<T, Result, false> problem{{{}, {}, result, pixels, filters.lines, 0}};
    launch_wgmma(name, problem, PixelLines<T>{images}, filters, pixels, filters.lines, images.steps(), false,
                 stream);
    return true;
  } else {
    return false;
  }
}

// The weight gradient: `result` takes [filter, tap]; db [filter] = dy's sums over the pixels, or null. dy
// [pixel, filter]. Whether it took it: channels have to be whole copies.
template <class Result, class T>
bool convolve_weights_wgmma(const CallSite& name, const T* dy, int64_t filters, const WindowSource<T>& images,
                            const Result& result, T* db, Precision precision, Stream stream) {
  if constexpr (kWgmmaTakes<T, false, false, true>) {
    const int64_t pixels = images.pixels(), taps = images.h.taps * images.w.taps * images.channels;
    const MatrixSource<T, false> gradients{{dy, filters, pixels, filters}, pixels};
    if (images.channels % WindowSource<T>::kChannels != 0 || !images.mappable() || !gradients.mappable() ||
        !wants_wgmma<T>({1, filters, taps, pixels}, precision))
      return false;
    const SourceProblem<T, Result, true> problem{{{}, {}, result, filters, taps, pixels, db}};
    launch_wgmma(name, problem, gradients, TapBlocks<T>{images}, filters, taps,
                 divide_up(pixels, WgmmaPanel<T, false>::kDepth), db != nullptr, stream);
    return true;
  } else {
    return false;
  }
}

}  // namespace fastarch::cuda
