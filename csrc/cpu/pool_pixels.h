// Pooling of channels-last images [planes, H, W, channels]: a window at a time, vectors of channels.
#pragma once
#include <algorithm>
#include <vector>

#include "core/thread_pool.h"
#include "cpu/kernels.h"

namespace fastarch::cpu {

// The elements of the windows of one line of outputs.
template <class Bins>
class LineOfWindows {
 public:
  LineOfWindows(const Bins& rows, const Bins& columns, int width, int64_t inner)
      : rows_(rows), columns_(columns), width_(width), inner_(inner) {}

  // Calls body(q, taps of window (p, q)), whose offsets are from the plane's first element.
  template <class Body>
  void for_windows(int p, int64_t channels, const Body& body) {
    for (int q = 0; q < columns_.outputs(); ++q) {
      offset_.clear();
      place_.clear();
      rows_.for_places(p, [&](int h, int r) {
        columns_.for_places(q, [&](int w, int s) {
          offset_.push_back((int64_t{h} * width_ + w) * inner_);
          place_.push_back(r * columns_.extent(q) + s);
        });
      });
      body(q, WindowTaps{offset_.data(), place_.data(), static_cast<int64_t>(offset_.size()), channels});
    }
  }

 private:
  Bins rows_, columns_;
  int64_t width_, inner_;
  std::vector<int64_t> offset_;
  std::vector<int32_t> place_;
};

// Calls body(first element of the plane, first element of the output, p, q, taps) for all windows, in
// parallel over lines.
template <class Bins, class Body>
void for_all_windows(int64_t planes, int64_t height, int width, int64_t inner, const Bins& rows,
                     const Bins& columns, const Body& body) {
  const int64_t lines = rows.outputs(), pixels = columns.outputs();
  if (planes * lines * pixels * inner == 0) return;
  const int64_t work = height * width * inner / lines;  // of a line
  parallel_for(planes * lines, 1 + 16384 / (work + 1), [&](int64_t begin, int64_t end) {
    LineOfWindows<Bins> line(rows, columns, width, inner);
    for (int64_t i = begin; i < end; ++i)
      line.for_windows(static_cast<int>(i % lines), inner, [&](int q, const WindowTaps& taps) {
        body(i / lines * height * width * inner, (i * pixels + q) * inner, static_cast<int>(i % lines), q,
             taps);
      });
  });
}

// The same for gradients, in parallel over images and groups of channels: all windows in ascending order,
// after dx was set to zero.
template <class T, class Bins, class Body>
void scatter_all_windows(T* dx, int64_t planes, int64_t height, int width, int64_t inner, const Bins& rows,
                         const Bins& columns, const Body& body) {
  constexpr int64_t kChannels = 256;
  const int64_t groups = (inner + kChannels - 1) / kChannels, plane = height * width * inner;
  if (planes * plane == 0) return;
  parallel_for(planes * groups, 1 + 16384 / (plane / groups + 1), [&](int64_t begin, int64_t end) {
    LineOfWindows<Bins> line(rows, columns, width, inner);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i % groups * kChannels, channels = std::min(kChannels, inner - first);
      T* to = dx + i / groups * plane + first;
      for (int64_t pixel = 0; pixel < height * width; ++pixel)
        std::fill(to + pixel * inner, to + pixel * inner + channels, T(0));
      for (int p = 0; p < rows.outputs(); ++p)
        line.for_windows(p, channels, [&](int q, const WindowTaps& taps) {
          const int64_t window = (i / groups * rows.outputs() + p) * columns.outputs() + q;
          body(window * inner + first, p, q, taps, to);
        });
    }
  });
}

template <class T, class A, class Bins>
void max_pixels_forward(const T* x, T* y, A* argmax, int64_t planes, int height, int width, int64_t inner,
                        const Bins& rows, const Bins& columns) {
  for_all_windows(planes, height, width, inner, rows, columns,
                  [&](int64_t in, int64_t out, int, int, const WindowTaps& taps) {
                    kernels<T>().max_pixel(x + in, taps, y + out, argmax ? argmax + out : nullptr);
                  });
}

template <class T, class A, class Bins>
void max_pixels_backward(const T* dy, const A* argmax, T* dx, int64_t planes, int height, int width,
                         int64_t inner, const Bins& rows, const Bins& columns) {
  scatter_all_windows(dx, planes, height, width, inner, rows, columns,
                      [&](int64_t out, int, int, const WindowTaps& taps, T* to) {
                        kernels<T>().max_pixel_backward(dy + out, argmax + out, taps, to);
                      });
}

template <class T, class Bins>
void mean_pixels_forward(const T* x, T* y, int64_t planes, int height, int width, int64_t inner,
                         const Bins& rows, const Bins& columns) {
  for_all_windows(planes, height, width, inner, rows, columns,
                  [&](int64_t in, int64_t out, int p, int q, const WindowTaps& taps) {
                    // A window of nothing but padding is 0, whatever it counts.
                    const int64_t count = taps.count ? int64_t{rows.count(p)} * columns.count(q) : 1;
                    kernels<T>().mean_pixel(x + in, taps, static_cast<T>(count), y + out);
                  });
}

template <class T, class Bins>
void mean_pixels_backward(const T* dy, T* dx, int64_t planes, int height, int width, int64_t inner,
                          const Bins& rows, const Bins& columns) {
  scatter_all_windows(dx, planes, height, width, inner, rows, columns,
                      [&](int64_t out, int p, int q, const WindowTaps& taps, T* to) {
                        const T count = static_cast<T>(int64_t{rows.count(p)} * columns.count(q));
                        kernels<T>().mean_pixel_backward(dy + out, taps, count, to);
                      });
}

}  // namespace fastarch::cpu
