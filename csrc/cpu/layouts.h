// Images with the channels last as planes and back: what the planar kernels need where their arguments are
// [N, H, W, C].
#pragma once
#include "cpu/gemm.h"

namespace fastarch::cpu {

// to [images, columns, rows] from [images, rows, columns], a band of the rows at a time so that it stays in a
// near cache.
template <class T>
void transpose_images(const T* from, T* to, int64_t images, int64_t rows, int64_t columns) {
  constexpr int64_t kBand = 64, kSmall = 16384;
  const int64_t bands = ceil_div(rows, kBand);
  parallel_for(images * bands, 1 + kSmall / (kBand * columns + 1), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i % bands * kBand, count = std::min(kBand, rows - first);
      const int64_t image = i / bands * rows * columns;
      kernels<T>().transpose(from + image + first * columns, columns, to + image + first, rows, columns,
                             count, count);
    }
  });
}

// Images [N, pixels, channels] that are read as planes [N, channels, pixels].
template <class T>
class ReadPlanes {
 public:
  ReadPlanes(const T* images, int64_t n, int64_t pixels, int64_t channels)
      : same_(pixels == 1 || channels == 1 || !images),
        copy_(same_ ? 0 : n * pixels * channels),
        data_(same_ ? images : copy_.get()) {
    if (!same_) transpose_images(images, copy_.get(), n, pixels, channels);
  }
  const T* get() const { return data_; }

 private:
  bool same_;
  Scratch<T> copy_;
  const T* data_;
};

// The same where they are written: store() brings them to where they belong.
template <class T>
class WrittenPlanes {
 public:
  WrittenPlanes(T* images, int64_t n, int64_t pixels, int64_t channels)
      : images_(images),
        n_(n),
        pixels_(pixels),
        channels_(channels),
        same_(pixels == 1 || channels == 1),
        copy_(same_ ? 0 : n * pixels * channels) {}
  T* get() const { return same_ ? images_ : copy_.get(); }
  void store() const {
    if (!same_) transpose_images(copy_.get(), images_, n_, channels_, pixels_);
  }

 private:
  T* images_;
  int64_t n_, pixels_, channels_;
  bool same_;
  Scratch<T> copy_;
};

// How many images of `size` elements, copies included, are worked on at a time: what the second cache holds,
// or one.
inline int64_t images_at_once(int64_t n, int64_t size) {
  constexpr int64_t kElements = 524'288;
  return std::clamp<int64_t>(kElements / (size + 1), 1, std::max<int64_t>(n, 1));
}

}  // namespace fastarch::cpu
