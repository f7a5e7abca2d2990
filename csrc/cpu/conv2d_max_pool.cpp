// Convolution and 2x2 max pooling: forward, a few images at a time, so that the convolution's output is
// pooled while it is in cache; the gradients are those of the convolution, from the unpooled gradient.
#include <algorithm>

#include "core/thread_pool.h"
#include "cpu/kernels.h"
#include "cpu/scratch.h"
#include "ops/conv2d.h"

namespace fastarch::cpu {
namespace {

PoolAxis halved(int64_t size) { return {static_cast<int>(size), static_cast<int>(size / 2), 2, 2, 0}; }

// Planes [pixels] worth a thread.
int64_t grain(int64_t pixels) { return 1 + 16384 / (pixels + 1); }

}  // namespace

template <class T>
void conv2d_max_pool_forward(const T* x, const T* weight, const T* bias, T* y, uint8_t* argmax,
                             const Conv2dShape& a, Activation kind, Precision precision, Stream stream) {
  const int64_t pixels = a.p * a.q, windows = pixels / 4, image = a.k * pixels;
  if (a.n * image == 0) return;
  const auto run = [&](int64_t begin, int64_t end) {
    Conv2dShape part = a;
    part.n = end - begin;
    const Scratch<T> full(part.n * image);
    conv2d_forward(x + begin * a.c * a.h * a.w, weight, bias, static_cast<const T*>(nullptr), full.get(),
                   part, Activation::none, precision, stream);
    const T* const last = full.get() + part.n * image;
    parallel_for(part.n * a.k, grain(pixels), [&](int64_t plane, int64_t planes) {
      const int64_t first = (begin * a.k + plane) * windows, count = (planes - plane) * windows;
      for (int64_t i = plane, to = first; i < planes; ++i, to += windows)
        kernels<T>().max_pool(full.get() + i * pixels, last, y + to, argmax ? argmax + to : nullptr,
                              halved(a.p), halved(a.q));
      if (kind != Activation::none) kernels<T>().activate(y + first, y + first, count, kind);
    });
  };
  // In cache; multiplications that are worth a thread; those of a pixel beside which moving it does not
  // count: then the convolution, which may have faster ways for many pixels, gets them all.
  constexpr int64_t kBytes = 262144, kSmall = 200000, kMany = 256;
  const int64_t depth = a.c / a.groups * a.r * a.s, bytes = image * static_cast<int64_t>(sizeof(T));
  const int64_t images = depth >= kMany ? a.n : std::clamp<int64_t>(kBytes / bytes, 1, a.n);
  const int64_t tasks = (a.n + images - 1) / images;
  const int64_t work = images * image * depth;
  // Few tasks are done one after the other, each on all threads.
  const bool apart = tasks >= 2 * thread_count();
  const auto each = [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) run(task * images, std::min(a.n, (task + 1) * images));
  };
  if (apart) {
    parallel_for(tasks, 1 + kSmall / (work + 1), each);
  } else {
    each(0, tasks);
  }
}

template <class T>
void conv2d_max_pool_backward(const T* dy, const T* y, const uint8_t* argmax, const T* x, const T* weight,
                              T* dx, T* dw, T* db, const Conv2dShape& a, Precision precision, Stream stream) {
  const int64_t pixels = a.p * a.q, width = a.q / 2;
  const Scratch<T> full(a.n * a.k * pixels);
  parallel_for(a.n * a.k, grain(pixels), [&](int64_t begin, int64_t end) {
    for (int64_t line = begin * (a.p / 2); line < end * (a.p / 2); ++line) {
      const T* const slope = dy + line * width;
      const T* const out = y ? y + line * width : nullptr;
      const uint8_t* const place = argmax + line * width;
      T* const top = full.get() + line * 2 * a.q;
      for (int64_t j = 0; j < width; ++j) {
        const T value = out && out[j] <= T(0) ? T(0) : slope[j];
        for (int i = 0; i < 4; ++i) top[i / 2 * a.q + 2 * j + i % 2] = place[j] == i ? value : T(0);
      }
    }
  });
  if (dx) conv2d_backward_input(full.get(), weight, dx, a, precision, stream);
  if (dw) conv2d_backward_weight(full.get(), x, dw, db, a, precision, stream);
}

#define INSTANTIATE(T)                                                                                       \
  template void conv2d_max_pool_forward(const T*, const T*, const T*, T*, uint8_t*, const Conv2dShape&,      \
                                        Activation, Precision, Stream);                                      \
  template void conv2d_max_pool_backward(const T*, const T*, const uint8_t*, const T*, const T*, T*, T*, T*, \
                                         const Conv2dShape&, Precision, Stream);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace fastarch::cpu
