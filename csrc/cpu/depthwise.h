// Depthwise convolution: a plane of the image against one filter at a time, where the blocked multiply would
// use one row of its tile. Planes are rearranged as for the multiply (patches.h), so that a tap is an offset.
#pragma once
#include "cpu/patches.h"
#include "ops/conv2d.h"

namespace fastarch::cpu::depthwise {

// Whether a group is one channel and few filters; with more of them the multiply fills its tiles.
inline bool is_depthwise(const Conv2dShape& a) {
  constexpr int64_t kMostFilters = 4;
  return a.groups > 1 && a.c == a.groups && a.k <= kMostFilters * a.c;
}

// A thread's copies of planes in one layout, one at a time; vectors may reach behind the last pixel.
template <class T>
class Planes {
 public:
  explicit Planes(const PhaseLayout& layout)
      : layout_(layout), size_(layout.channel_step + kSlack), copy_(layout.in_place ? 0 : size_) {
    if (!layout.in_place) std::fill(copy_.get(), copy_.get() + size_, T(0));  // what a copy leaves is padding
  }
  const T* of(const T* plane) {
    if (layout_.in_place) return plane;
    layout_.copy_inside(plane, copy_.get());
    return copy_.get();
  }

 private:
  static constexpr int64_t kSlack = 64;
  const PhaseLayout& layout_;
  int64_t size_;
  Scratch<T> copy_;
};

// Rows shorter than a vector are read beyond their end, so they need a copy.
template <class T>
PhaseLayout layout_for(const PhaseAxis& rows, const PhaseAxis& columns, int64_t shortest_row) {
  PhaseLayout layout(rows, columns);
  if (layout.in_place && shortest_row < kernels<T>().lanes) layout.copy_always();
  return layout;
}

// How many planes make a task that is worth handing to a thread; work: the multiplications of one.
inline int64_t planes_a_task(int64_t work) { return 1 + 400000 / (work + 1); }

// The size of a square window whose taps lie as in a filter, or 0.
inline int window_of(const std::vector<int64_t>& offsets, int64_t pitch) {
  for (const int64_t size : {3, 5}) {
    if (static_cast<int64_t>(offsets.size()) != size * size) continue;
    bool square = true;
    for (int64_t i = 0; i < size * size; ++i)
      square = square && offsets[static_cast<size_t>(i)] == offsets[0] + i / size * pitch + i % size;
    if (square) return static_cast<int>(size);
  }
  return 0;
}

template <class T>
void forward(const T* x, const T* weight, const T* bias, const T* residual, T* y, const Conv2dShape& a,
             Activation kind) {
  const PhaseLayout layout =
      layout_for<T>(PhaseAxis::of_windows(a.h, a.p, a.r, a.stride_h, a.padding_h, a.dilation_h),
                    PhaseAxis::of_windows(a.w, a.q, a.s, a.stride_w, a.padding_w, a.dilation_w), a.q);
  const std::vector<int64_t> offsets = layout.offsets();
  const int64_t taps = a.r * a.s, filters = a.k / a.c;
  const int window = window_of(offsets, layout.pitch);
  parallel_for(a.n * a.c, planes_a_task(filters * taps * a.p * a.q), [&](int64_t begin, int64_t end) {
    Planes<T> planes(layout);
    for (int64_t plane = begin; plane < end; ++plane) {
      const T* source = planes.of(x + plane * a.h * a.w);
      for (int64_t m = 0; m < filters; ++m) {
        const int64_t filter = plane % a.c * filters + m;
        Stencil<T> stencil;
        stencil.source = window > 0 ? source + offsets[0] : source;
        stencil.pitch = layout.pitch;
        stencil.offset = offsets.data();
        stencil.weight = weight + filter * taps;
        stencil.taps = taps;
        stencil.window = window;
        const int64_t pixels = a.p * a.q, first = (plane * filters + m) * pixels;
        stencil.out = y + first;
        stencil.rows = a.p;
        stencil.columns = a.q;
        stencil.bias = bias ? bias[filter] : T(0);
        stencil.kind = residual ? Activation::none : kind;
        kernels<T>().stencil(stencil);
        if (!residual) continue;
        for (int64_t i = first; i < first + pixels; ++i) y[i] += residual[i];
        if (kind != Activation::none) kernels<T>().activate(y + first, y + first, pixels, kind);
      }
    }
  });
}

// Some pixels of every dx plane, those that see the same taps: from source + offsets, to every step-th pixel.
struct Phase {
  std::vector<int64_t> taps, offsets;  // of the filter; into dy's plane
  int64_t rows, columns, to;
};

template <class T>
void backward_input(const T* dy, const T* weight, T* dx, const Conv2dShape& a, const PhaseLayout& layout,
                    const std::vector<Phase>& phases) {
  const int64_t taps = a.r * a.s, filters = a.k / a.c, pixels = a.h * a.w;
  const bool whole = a.stride_h == 1 && a.stride_w == 1;  // the one phase is all of dx
  parallel_for(a.n * a.c, planes_a_task(filters * taps * pixels), [&](int64_t begin, int64_t end) {
    Planes<T> planes(layout);
    const Scratch<T> turned(taps), part(whole && filters == 1 ? 0 : pixels);
    for (int64_t plane = begin; plane < end; ++plane)
      for (int64_t m = 0; m < filters; ++m) {
        const T* source = planes.of(dy + (plane * filters + m) * a.p * a.q);
        const T* filter = weight + (plane % a.c * filters + m) * taps;
        T* const to = dx + plane * pixels;
        for (const Phase& phase : phases) {
          // In ascending order of offsets, which is that of a filter turned by half a turn.
          for (size_t t = 0; t < phase.taps.size(); ++t)
            turned[static_cast<int64_t>(t)] = filter[phase.taps[t]];
          const int window = window_of(phase.offsets, layout.pitch);
          Stencil<T> stencil;
          stencil.source = window > 0 ? source + phase.offsets[0] : source;
          stencil.pitch = layout.pitch;
          stencil.offset = phase.offsets.data();
          stencil.weight = turned.get();
          stencil.taps = static_cast<int64_t>(phase.taps.size());
          stencil.window = window;
          const bool direct = whole && m == 0;
          stencil.out = direct ? to : part.get();
          stencil.rows = phase.rows;
          stencil.columns = phase.columns;
          kernels<T>().stencil(stencil);
          if (direct) continue;
          const T* from = part.get();
          for (int64_t i = 0; i < phase.rows; ++i, from += phase.columns) {
            T* line = to + phase.to + i * a.stride_h * a.w;
            for (int64_t j = 0; j < phase.columns; ++j)
              line[j * a.stride_w] = m > 0 ? line[j * a.stride_w] + from[j] : from[j];
          }
        }
      }
  });
}

// dw alone. dy is laid out in rows of x's pitch, with zeros between them, so that every tap is one dot
// product of two runs of memory.
template <class T>
void backward_weight(const T* dy, const T* x, T* dw, const Conv2dShape& a) {
  const PhaseLayout layout =
      layout_for<T>(PhaseAxis::of_windows(a.h, a.p, a.r, a.stride_h, a.padding_h, a.dilation_h),
                    PhaseAxis::of_windows(a.w, a.q, a.s, a.stride_w, a.padding_w, a.dilation_w), 0);
  const std::vector<int64_t> offsets = layout.offsets();
  const int64_t taps = a.r * a.s, filters = a.k / a.c, lanes = kernels<T>().lanes;
  const int64_t run = ceil_div((a.p - 1) * layout.pitch + a.q, lanes) * lanes;
  parallel_for(a.c, planes_a_task(a.n * filters * taps * a.p * a.q), [&](int64_t begin, int64_t end) {
    Planes<T> planes(layout);
    const Scratch<T> spread(run);
    std::fill(spread.get(), spread.get() + run, T(0));
    for (int64_t c = begin; c < end; ++c) {
      T* const sums = dw + c * filters * taps;
      std::fill(sums, sums + filters * taps, T(0));
      for (int64_t n = 0; n < a.n; ++n) {
        const T* source = planes.of(x + (n * a.c + c) * a.h * a.w);
        for (int64_t m = 0; m < filters; ++m) {
          const T* from = dy + ((n * a.c + c) * filters + m) * a.p * a.q;
          for (int64_t p = 0; p < a.p; ++p)
            std::memcpy(spread.get() + p * layout.pitch, from + p * a.q,
                        static_cast<size_t>(a.q) * sizeof(T));
          kernels<T>().dots(spread.get(), source, offsets.data(), taps, run, sums + m * taps);
        }
      }
    }
  });
}

}  // namespace fastarch::cpu::depthwise
