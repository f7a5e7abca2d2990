// Inner loops of depthwise convolution of channels-last images: vectors lie across channels, and several
// pixels share what is loaded of a filter, and of the image where their windows overlap. Part of kernels.cpp.
#pragma once
#include "cpu/kernels.h"
#include "cpu/simd.h"

namespace fastarch::cpu {
namespace {

template <class T>
FASTARCH_INLINE int64_t channel_of(const PixelGrid& grid, int64_t vector) {
  const int64_t at = vector * kLanes<T> - grid.channel_shift, last = grid.taps.channels - kLanes<T>;
  return at < 0 ? 0 : at < last ? at : last;
}

// The sums of neighbouring pixels, STRIDE apart in the source, for one vector of channels. WINDOW: taps come in
// rows of as many neighbours.
template <class T, int PIXELS, int WINDOW, int STRIDE>
FASTARCH_INLINE void tap_sums(const PixelGrid& grid, const T* source, const T* filters, Vector<T>* sum) {
  constexpr int L = kLanes<T>;
  const WindowTaps& taps = grid.taps;
  const int64_t step = grid.source_column;
  if constexpr (WINDOW > 0) {
    for (int64_t t = 0; t < taps.count; t += WINDOW) {
      const T* from = source + taps.offset[t];
      Vector<T> weight[WINDOW];
      for (int s = 0; s < WINDOW; ++s) weight[s] = load(filters + taps.place[t + s] * L);
#pragma GCC unroll 32
      for (int j = 0; j < (PIXELS - 1) * STRIDE + WINDOW; ++j) {
        const Vector<T> x = load(from + j * (step / STRIDE));
#pragma GCC unroll 16
        for (int s = 0; s < WINDOW; ++s) {
          const int i = (j - s) / STRIDE;
          if (j >= s && i * STRIDE == j - s && i < PIXELS) sum[i] += weight[s] * x;
        }
      }
    }
  } else {
    for (int64_t t = 0; t < taps.count; ++t) {
      const Vector<T> weight = load(filters + taps.place[t] * L);
      const T* from = source + taps.offset[t];
      for (int i = 0; i < PIXELS; ++i) sum[i] += weight * load(from + i * step);
    }
  }
}

// Neighbouring pixels, vectors [first, end) of channels.
template <class T, int PIXELS, int WINDOW, int STRIDE>
void tap_pixels(const PixelGrid& grid, int pixels, int64_t first, int64_t end, const T* source,
                const T* filters, const T* bias, const T* residual, T* out, Activation kind) {
  if constexpr (PIXELS > 1) {
    if (pixels < PIXELS)
      return tap_pixels<T, PIXELS - 1, WINDOW, STRIDE>(grid, pixels, first, end, source, filters, bias,
                                                       residual, out, kind);
  }
  constexpr int64_t L = kLanes<T>;
  for (int64_t vector = first; vector < end; ++vector) {
    const int64_t at = channel_of<T>(grid, vector);
    Vector<T> sum[PIXELS] = {};
    tap_sums<T, PIXELS, WINDOW, STRIDE>(grid, source + at, filters + vector * grid.filter_taps * L, sum);
    const Vector<T> added = bias ? load(bias + at) : Vector<T>{};
    for (int i = 0; i < PIXELS; ++i) {
      sum[i] += added;
      if (residual) sum[i] += load(residual + at + i * grid.out_column);
      if (kind == Activation::relu) sum[i] = activate<T>(sum[i], Activation::relu);
      store<T>(out + at + i * grid.out_column, sum[i]);
    }
    if (kind == Activation::none || kind == Activation::relu) continue;
    for (int i = 0; i < PIXELS; ++i) {
      T* to = out + at + i * grid.out_column;
      store<T>(to, activate<T>(load(to), kind));
    }
  }
}

template <class T, int WINDOW, int STRIDE>
void channel_taps_of(const PixelGrid& grid, const T* source, const T* filters, const T* bias,
                     const T* residual, T* out, Activation kind) {
  constexpr int64_t kPixels = 8;                        // together
  constexpr int64_t kNear = 16384 / sizeof(Vector<T>);  // of filters, in the first cache beside the pixels
  const int64_t several = kNear / grid.filter_taps, piece = several > 1 ? several : 1;
  const int64_t blocks = (grid.columns + kPixels - 1) / kPixels;
  for (int64_t first = grid.first; first < grid.end; first += piece) {
    const int64_t end = first + piece < grid.end ? first + piece : grid.end;
    for (int64_t p = 0; p < grid.rows; ++p)
      for (int64_t block = 0, q = 0; block < blocks; ++block) {
        const int64_t next = grid.columns * (block + 1) / blocks;  // as even as can be
        const int64_t to = p * grid.out_row + q * grid.out_column;
        tap_pixels<T, kPixels, WINDOW, STRIDE>(grid, static_cast<int>(next - q), first, end,
                                               source + p * grid.source_row + q * grid.source_column, filters,
                                               bias, residual ? residual + to : nullptr, out + to, kind);
        q = next;
      }
  }
}

template <class T>
void channel_taps(const PixelGrid& grid, const T* source, const T* filters, const T* bias, const T* residual,
                  T* out, Activation kind) {
  const auto run = [&](auto* of) { of(grid, source, filters, bias, residual, out, kind); };
  if (grid.stride == 1) {
    if (grid.window == 3) return run(channel_taps_of<T, 3, 1>);
    if (grid.window == 5) return run(channel_taps_of<T, 5, 1>);
    if (grid.window == 7) return run(channel_taps_of<T, 7, 1>);
  }
  if (grid.stride == 2 && grid.window == 3) return run(channel_taps_of<T, 3, 2>);
  if (grid.stride == 2 && grid.window == 5) return run(channel_taps_of<T, 5, 2>);
  run(channel_taps_of<T, 0, 1>);
}

// ROWS rows of WINDOW neighbouring taps and PIXELS pixels: sum[r][s] += y[i] * x[r][i + s].
template <class T, int ROWS, int WINDOW, int PIXELS>
FASTARCH_INLINE void tap_dots_of(const int64_t* offset, const T* x, int64_t x_step, const T* y,
                                 int64_t y_step, Vector<T> (&sum)[ROWS][WINDOW]) {
  Vector<T> value[PIXELS];
  for (int i = 0; i < PIXELS; ++i) value[i] = load(y + i * y_step);
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; ++r) {
    const T* from = x + offset[r * WINDOW];
#pragma GCC unroll 16
    for (int j = 0; j < PIXELS + WINDOW - 1; ++j) {
      const Vector<T> seen = load(from + j * x_step);
#pragma GCC unroll 16
      for (int s = 0; s < WINDOW; ++s)
        if (j - s >= 0 && j - s < PIXELS) sum[r][s] += value[j - s] * seen;
    }
  }
}

// ROWS * WINDOW taps from tap t on, of all pixels and the grid's channels.
template <class T, int ROWS, int WINDOW>
void tap_dots(const PixelGrid& grid, int64_t t, const T* source, const T* out, T* sums) {
  constexpr int64_t L = kLanes<T>, kPixels = 4;
  const int64_t* const offset = grid.taps.offset + t;
  const int64_t x_step = grid.source_column, y_step = grid.out_column;
  for (int64_t vector = grid.first; vector < grid.end; ++vector) {
    const int64_t at = channel_of<T>(grid, vector);
    Vector<T> sum[ROWS][WINDOW] = {};
    for (int64_t p = 0; p < grid.rows; ++p) {
      const T *x = source + p * grid.source_row + at, *y = out + p * grid.out_row + at;
      int64_t q = 0;
      if constexpr (WINDOW > 1)
        for (; q + kPixels <= grid.columns; q += kPixels, x += kPixels * x_step, y += kPixels * y_step)
          tap_dots_of<T, ROWS, WINDOW, kPixels>(offset, x, x_step, y, y_step, sum);
      for (; q < grid.columns; ++q, x += x_step, y += y_step)
        tap_dots_of<T, ROWS, WINDOW, 1>(offset, x, x_step, y, y_step, sum);
    }
    for (int i = 0; i < ROWS * WINDOW; ++i) {
      T* to = sums + (vector * grid.filter_taps + grid.taps.place[t + i]) * L;
      store<T>(to, load(to) + sum[i / WINDOW][i % WINDOW]);
    }
  }
}

// All taps, at most ROWS rows of WINDOW at a time, for those many sums stay in registers.
template <class T, int ROWS, int WINDOW>
void channel_tap_dots_of(const PixelGrid& grid, int64_t t, const T* source, const T* out, T* sums) {
  for (; t + ROWS * WINDOW <= grid.taps.count; t += ROWS * WINDOW)
    tap_dots<T, ROWS, WINDOW>(grid, t, source, out, sums);
  if constexpr (ROWS > 1) channel_tap_dots_of<T, ROWS - 1, WINDOW>(grid, t, source, out, sums);
}

template <class T>
void channel_tap_dots(const PixelGrid& grid, const T* source, const T* out, T* sums) {
  switch (grid.stride == 1 ? grid.window : 0) {
    case 3: return channel_tap_dots_of<T, 3, 3>(grid, 0, source, out, sums);
    case 5: return channel_tap_dots_of<T, 2, 5>(grid, 0, source, out, sums);
    case 7: return channel_tap_dots_of<T, 1, 7>(grid, 0, source, out, sums);
    default: return channel_tap_dots_of<T, 9, 1>(grid, 0, source, out, sums);
  }
}

}  // namespace
}  // namespace fastarch::cpu
