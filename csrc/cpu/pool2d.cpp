// Pooling. Gradients are scattered, by one thread a plane (or some channels of channels-last images) and in
// the order of the windows, so that sums have the order that the contract names.
#include "ops/pool2d.h"

#include <algorithm>
#include <array>
#include <limits>

#include "core/thread_pool.h"
#include "cpu/kernels.h"
#include "cpu/pool_pixels.h"
#include "cpu/pool_windows.h"

namespace fastarch::cpu {
namespace {

// Planes worth a thread.
int64_t grain(int64_t plane) { return 1 + 16384 / (plane + 1); }

int64_t in_plane(const Pool2d& pool) { return int64_t{pool.rows.input} * pool.columns.input; }
int64_t out_plane(const Pool2d& pool) { return int64_t{pool.rows.output} * pool.columns.output; }

bool no_window_leaves(const PoolAxis& axis) {
  return axis.padding == 0 &&
         int64_t{axis.output - 1} * axis.stride + int64_t{axis.kernel - 1} * axis.dilation < axis.input;
}

// Where the elements of a window lie from its corner: looked up where offsets are bytes, which saves a
// division.
class WindowElements {
 public:
  struct Place {
    int64_t down, right, distance;
  };

  explicit WindowElements(const Pool2d& pool)
      : pool_(pool), size_(int64_t{pool.rows.kernel} * pool.columns.kernel) {
    for (int64_t offset = 0; offset < std::min<int64_t>(size_, 256); ++offset)
      places_[static_cast<size_t>(offset)] = compute(offset);
  }

  int64_t size() const { return size_; }
  Place operator[](uint8_t offset) const { return places_[offset]; }
  Place operator[](int32_t offset) const { return compute(offset); }

 private:
  Place compute(int64_t offset) const {
    const int64_t down = offset / pool_.columns.kernel * pool_.rows.dilation;
    const int64_t right = offset % pool_.columns.kernel * pool_.columns.dilation;
    return {down, right, down * pool_.columns.input + right};
  }

  const Pool2d& pool_;
  int64_t size_;
  std::array<Place, 256> places_;
};

template <class T, class A>
void max_pool_plane_backward(const T* dy, const A* argmax, T* dx, const Pool2d& pool,
                             const WindowElements& elements) {
  const PoolAxis &rows = pool.rows, &columns = pool.columns;
  const bool all_inside = no_window_leaves(rows) && no_window_leaves(columns);
  for (int64_t p = 0; p < rows.output; ++p)
    for (int64_t q = 0; q < columns.output; ++q, ++dy, ++argmax) {
      if (*argmax < 0 || *argmax >= elements.size()) continue;  // not an argmax of such windows
      const WindowElements::Place place = elements[*argmax];
      const int64_t top = p * rows.stride - rows.padding, left = q * columns.stride - columns.padding;
      const int64_t h = top + place.down, w = left + place.right;
      // A window of nothing but padding has its maximum outside.
      if (all_inside || (h >= 0 && h < rows.input && w >= 0 && w < columns.input))
        dx[top * columns.input + left + place.distance] += *dy;
    }
}

template <class T, class Bins>
void average_plane_backward(const T* dy, T* dx, const Bins& rows, const Bins& columns, int64_t width) {
  for (int p = 0; p < rows.outputs(); ++p) {
    const Span h_in = rows.inputs(p);
    const int64_t height = rows.count(p);
    for (int q = 0; q < columns.outputs(); ++q, ++dy) {
      const Span w_in = columns.inputs(q);
      const T share = *dy / static_cast<T>(height * columns.count(q));
      for (int h = h_in.begin; h < h_in.end; ++h)
        for (int w = w_in.begin; w < w_in.end; ++w) dx[h * width + w] += share;
    }
  }
}

// Runs f on every plane of a gradient, which is zero before.
template <class T, class F>
void scatter_planes(T* dx, int64_t planes, int64_t plane, const F& f) {
  if (planes * plane == 0) return;
  parallel_for(planes, grain(plane), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      std::fill(dx + i * plane, dx + (i + 1) * plane, T(0));
      f(i, dx + i * plane);
    }
  });
}

}  // namespace

template <class T, class A>
void max_pool2d_forward(const T* x, T* y, A* argmax, const Pool2d& pool, Stream) {
  if (pool.inner != 1)
    return max_pixels_forward(x, y, argmax, pool.planes, pool.rows.input, pool.columns.input, pool.inner,
                              SlidingBins{pool.rows}, SlidingBins{pool.columns});
  const int64_t in = in_plane(pool), out = out_plane(pool);
  if (pool.planes * out == 0) return;
  parallel_for(pool.planes, grain(in), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      kernels<T>().max_pool(x + i * in, x + pool.planes * in, y + i * out,
                            argmax ? argmax + i * out : nullptr, pool.rows, pool.columns);
  });
}

template <class T, class A>
void max_pool2d_backward(const T* dy, const A* argmax, T* dx, const Pool2d& pool, Stream) {
  if (pool.inner != 1)
    return max_pixels_backward(dy, argmax, dx, pool.planes, pool.rows.input, pool.columns.input, pool.inner,
                               SlidingBins{pool.rows}, SlidingBins{pool.columns});
  const int64_t out = out_plane(pool);
  const WindowElements elements(pool);
  scatter_planes(dx, pool.planes, in_plane(pool), [&](int64_t i, T* plane) {
    max_pool_plane_backward(dy + i * out, argmax + i * out, plane, pool, elements);
  });
}

template <class T, class A>
void adaptive_max_pool2d_forward(const T* x, T* y, A* argmax, const AdaptivePool2d& pool, Stream) {
  if (pool.inner != 1)
    return max_pixels_forward(x, y, argmax, pool.planes, pool.height, pool.width, pool.inner,
                              AdaptiveBins{pool.height, pool.out_height},
                              AdaptiveBins{pool.width, pool.out_width});
  const int64_t in = int64_t{pool.height} * pool.width, out = int64_t{pool.out_height} * pool.out_width;
  if (pool.planes * out == 0) return;
  const AdaptiveBins rows{pool.height, pool.out_height}, columns{pool.width, pool.out_width};
  parallel_for(pool.planes, grain(in), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * out; i < end * out; ++i) {
      const Span h_in = rows.inputs(static_cast<int>(i % out / pool.out_width));
      const Span w_in = columns.inputs(static_cast<int>(i % pool.out_width));
      const T* plane = x + i / out * in;
      T best = -std::numeric_limits<T>::infinity();
      int64_t best_offset = 0, offset = 0;
      for (int h = h_in.begin; h < h_in.end; ++h)
        for (int w = w_in.begin; w < w_in.end; ++w, ++offset) {
          const T value = plane[int64_t{h} * pool.width + w];
          if (value > best || value != value) best = value, best_offset = offset;
        }
      y[i] = best;
      if (argmax) argmax[i] = static_cast<A>(best_offset);
    }
  });
}

template <class T, class A>
void adaptive_max_pool2d_backward(const T* dy, const A* argmax, T* dx, const AdaptivePool2d& pool, Stream) {
  if (pool.inner != 1)
    return max_pixels_backward(dy, argmax, dx, pool.planes, pool.height, pool.width, pool.inner,
                               AdaptiveBins{pool.height, pool.out_height},
                               AdaptiveBins{pool.width, pool.out_width});
  const AdaptiveBins rows{pool.height, pool.out_height}, columns{pool.width, pool.out_width};
  const int64_t out = int64_t{pool.out_height} * pool.out_width;
  scatter_planes(dx, pool.planes, int64_t{pool.height} * pool.width, [&](int64_t i, T* plane) {
    for (int64_t j = 0; j < out; ++j) {
      const Span h_in = rows.inputs(static_cast<int>(j / pool.out_width));
      const Span w_in = columns.inputs(static_cast<int>(j % pool.out_width));
      const int64_t width = w_in.end - w_in.begin, offset = argmax[i * out + j];
      if (offset < 0 || offset >= width * (h_in.end - h_in.begin)) continue;  // not an argmax of such bins
      plane[(h_in.begin + offset / width) * pool.width + w_in.begin + offset % width] += dy[i * out + j];
    }
  });
}

template <class T>
void avg_pool2d_forward(const T* x, T* y, const Pool2d& pool, bool count_include_pad, Stream) {
  if (pool.inner != 1)
    return mean_pixels_forward(x, y, pool.planes, pool.rows.input, pool.columns.input, pool.inner,
                               SlidingBins{pool.rows, count_include_pad},
                               SlidingBins{pool.columns, count_include_pad});
  const int64_t in = in_plane(pool), out = out_plane(pool);
  if (pool.planes * out == 0) return;
  parallel_for(pool.planes, grain(in), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      kernels<T>().avg_pool(x + i * in, x + pool.planes * in, y + i * out, pool.rows, pool.columns,
                            count_include_pad);
  });
}

template <class T>
void avg_pool2d_backward(const T* dy, T* dx, const Pool2d& pool, bool count_include_pad, Stream) {
  if (pool.inner != 1)
    return mean_pixels_backward(dy, dx, pool.planes, pool.rows.input, pool.columns.input, pool.inner,
                                SlidingBins{pool.rows, count_include_pad},
                                SlidingBins{pool.columns, count_include_pad});
  const SlidingBins rows{pool.rows, count_include_pad}, columns{pool.columns, count_include_pad};
  scatter_planes(dx, pool.planes, in_plane(pool), [&](int64_t i, T* plane) {
    average_plane_backward(dy + i * out_plane(pool), plane, rows, columns, pool.columns.input);
  });
}

template <class T>
void adaptive_avg_pool2d_forward(const T* x, T* y, const AdaptivePool2d& pool, Stream) {
  if (pool.inner != 1)
    return mean_pixels_forward(x, y, pool.planes, pool.height, pool.width, pool.inner,
                               AdaptiveBins{pool.height, pool.out_height},
                               AdaptiveBins{pool.width, pool.out_width});
  const int64_t in = int64_t{pool.height} * pool.width, out = int64_t{pool.out_height} * pool.out_width;
  if (pool.planes * out == 0) return;
  const AdaptiveBins rows{pool.height, pool.out_height}, columns{pool.width, pool.out_width};
  parallel_for(pool.planes, grain(in), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const T* plane = x + i * in;
      T* to = y + i * out;
      if (out == 1) {
        *to = kernels<T>().sum(plane, in) / static_cast<T>(in);
        continue;
      }
      for (int p = 0; p < pool.out_height; ++p) {
        const Span h_in = rows.inputs(p);
        for (int q = 0; q < pool.out_width; ++q, ++to) {
          const Span w_in = columns.inputs(q);
          T sum = 0;
          for (int h = h_in.begin; h < h_in.end; ++h)
            for (int w = w_in.begin; w < w_in.end; ++w) sum += plane[int64_t{h} * pool.width + w];
          *to = sum / static_cast<T>(int64_t{rows.count(p)} * columns.count(q));
        }
      }
    }
  });
}

template <class T>
void adaptive_avg_pool2d_backward(const T* dy, T* dx, const AdaptivePool2d& pool, Stream) {
  if (pool.inner != 1)
    return mean_pixels_backward(dy, dx, pool.planes, pool.height, pool.width, pool.inner,
                                AdaptiveBins{pool.height, pool.out_height},
                                AdaptiveBins{pool.width, pool.out_width});
  const AdaptiveBins rows{pool.height, pool.out_height}, columns{pool.width, pool.out_width};
  const int64_t out = int64_t{pool.out_height} * pool.out_width;
  scatter_planes(dx, pool.planes, int64_t{pool.height} * pool.width, [&](int64_t i, T* plane) {
    average_plane_backward(dy + i * out, plane, rows, columns, pool.width);
  });
}

FASTARCH_INSTANTIATE_POOL2D(float)
FASTARCH_INSTANTIATE_POOL2D(double)

}  // namespace fastarch::cpu
