// Convolution: the blocked multiply over rearranged images (patches.h).
//   forward          y [K, pixels]   = weight [K, C*R*S] * patches of x
//   input gradient   dx [C, pixels]  = weight, transposed and flipped, * patches of dy; for each stride phase
//   weight gradient  dw^T [C*R*S, K] = patches of x * dy^T, summed over fixed chunks of the batch
// Images with the channels last are turned into planes first, and results back (layouts.h); 1x1 filters make
// dense products of them as they lie, and depthwise ones have kernels of their own (depthwise_channels.h).
#include "ops/conv2d.h"

#include "cpu/correlation.h"
#include "cpu/dense.h"
#include "cpu/depthwise.h"
#include "cpu/depthwise_channels.h"
#include "cpu/layouts.h"
#include "cpu/weight_gradient.h"
#include "cpu/winograd_choice.h"

namespace fastarch::cpu {
namespace {

// Depthwise, whether planes are so small that it is less to turn them into images with the channels last than to
// rearrange each.
template <class T>
bool better_by_channels(const Conv2dShape& a) {
  constexpr int64_t kSmall = 64;  // pixels
  return depthwise::is_by_channels<T>(a) && a.h * a.w <= kSmall && a.p * a.q <= kSmall;
}

template <class T>
void forward_turned(const T* x, const T* weight, const T* bias, const T* residual, T* y, const Conv2dShape& a,
                    Activation kind) {
  const int64_t in = a.c * a.h * a.w, out = a.k * a.p * a.q, step = images_at_once(a.n, in + 2 * out);
  Conv2dShape some = a;
  for (int64_t n = 0; n < a.n; n += step) {
    some.n = std::min(step, a.n - n);
    const ReadPlanes<T> from(x + n * in, some.n, a.c, a.h * a.w);
    const ReadPlanes<T> added(residual ? residual + n * out : nullptr, some.n, a.k, a.p * a.q);
    const WrittenPlanes<T> to(y + n * out, some.n, a.k, a.p * a.q);
    depthwise::forward_channels(from.get(), weight, bias, added.get(), to.get(), some, kind);
    to.store();
  }
}

template <class T>
void backward_input_turned(const T* dy, const T* weight, T* dx, const Conv2dShape& a) {
  const int64_t in = a.c * a.h * a.w, out = a.k * a.p * a.q, step = images_at_once(a.n, in + out);
  Conv2dShape some = a;
  for (int64_t n = 0; n < a.n; n += step) {
    some.n = std::min(step, a.n - n);
    const ReadPlanes<T> from(dy + n * out, some.n, a.k, a.p * a.q);
    const WrittenPlanes<T> to(dx + n * in, some.n, a.c, a.h * a.w);
    depthwise::backward_input_channels(from.get(), weight, to.get(), some);
    to.store();
  }
}

template <class T>
void forward_directly(const T* x, const T* weight, const T* bias, const T* residual, T* y,
                      const Conv2dShape& a, Activation kind) {
  if (better_by_channels<T>(a)) return forward_turned(x, weight, bias, residual, y, a, kind);
  if (depthwise::is_depthwise(a)) return depthwise::forward(x, weight, bias, residual, y, a, kind);
  Correlation<T> correlation{x,
                             a.n,
                             a.groups,
                             a.c / a.groups,
                             a.h * a.w,
                             {PhaseAxis::of_windows(a.h, a.p, a.r, a.stride_h, a.padding_h, a.dilation_h),
                              PhaseAxis::of_windows(a.w, a.q, a.s, a.stride_w, a.padding_w, a.dilation_w)},
                             y,
                             a.k / a.groups,
                             a.p * a.q,
                             bias,
                             residual,
                             kind};
  Part<T> part{weight, {}, a.p, a.q, 0, a.q, 1};
  const std::vector<int64_t> taps = correlation.layout.offsets();
  part.offsets.reserve(static_cast<size_t>(a.c / a.groups) * taps.size());
  for (int64_t c = 0; c < a.c / a.groups; ++c)
    for (const int64_t tap : taps) part.offsets.push_back(c * correlation.layout.channel_step + tap);
  correlation.add(std::move(part));
  correlation.run();
}

// The phases of one plane, their taps in descending order: that of ascending offsets.
template <class T>
void depthwise_input_gradient(const T* dy, const T* weight, T* dx, const Conv2dShape& a,
                              const GradientAxis& down, const GradientAxis& right, PhaseLayout layout) {
  if (layout.in_place && right.phases.back().count < kernels<T>().lanes) layout.copy_always();
  std::vector<depthwise::Phase> phases;
  for (const GradientPhase& i : down.phases)
    for (const GradientPhase& j : right.phases) {
      depthwise::Phase phase{{}, {}, i.count, j.count, i.first * a.w + j.first};
      for (size_t r = i.taps.size(); r-- > 0;)
        for (size_t s = j.taps.size(); s-- > 0;) {
          phase.taps.push_back(i.taps[r] * a.s + j.taps[s]);
          phase.offsets.push_back(
              layout.offset(layout.rows.places[i.lines[r]], layout.columns.places[j.lines[s]]));
        }
      phases.push_back(std::move(phase));
    }
  depthwise::backward_input(dy, weight, dx, a, layout, phases);
}

// The taps of a filter that a part of the input gradient sees, and where they go: [C, (K/groups) * seen].
template <class T>
struct TurnedFilters {
  T* to;
  std::vector<int64_t> seen;
};

// Those of all parts in one pass over the filters, [K, C/groups, R*S], for a cache line has several parts' taps.
template <class T>
void turn_filters(const T* weight, const std::vector<TurnedFilters<T>>& parts, const Conv2dShape& a) {
  const int64_t filters = a.k / a.groups, rows = a.c / a.groups, taps = a.r * a.s;
  parallel_for(a.c, 1 + 16384 / (filters * taps + 1), [&](int64_t begin, int64_t end) {
    std::vector<T*> to(parts.size());
    for (int64_t c = begin; c < end; ++c) {
      for (size_t i = 0; i < parts.size(); ++i)
        to[i] = parts[i].to + c * filters * static_cast<int64_t>(parts[i].seen.size());
      const T* filter = weight + (c / rows * filters * rows + c % rows) * taps;
      for (int64_t k = 0; k < filters; ++k, filter += rows * taps)
        for (size_t i = 0; i < parts.size(); ++i) {
          T* row = to[i];
          for (const int64_t tap : parts[i].seen) *row++ = filter[tap];
          to[i] = row;
        }
    }
  });
}

template <class T>
void backward_input_directly(const T* dy, const T* weight, T* dx, const Conv2dShape& a) {
  if (better_by_channels<T>(a)) return backward_input_turned(dy, weight, dx, a);
  const int64_t channels = a.k / a.groups, rows = a.c / a.groups, taps = a.r * a.s;
  const GradientAxis down(a.h, a.r, a.stride_h, a.padding_h, a.dilation_h);
  const GradientAxis right(a.w, a.s, a.stride_w, a.padding_w, a.dilation_w);
  Correlation<T> correlation{dy,       a.n,       a.groups,
                             channels, a.p * a.q, {{a.p, 1, down.lines}, {a.q, 1, right.lines}},
                             dx,       rows,      a.h * a.w};
  const PhaseLayout& layout = correlation.layout;
  if (depthwise::is_depthwise(a)) return depthwise_input_gradient(dy, weight, dx, a, down, right, layout);
  const Scratch<T> turned(taps == 1 ? 0 : a.c * channels * taps);  // of every part: [groups][rows, depth]
  T* to = turned.get();
  std::vector<TurnedFilters<T>> filters;
  for (const GradientPhase& i : down.phases)
    for (const GradientPhase& j : right.phases) {
      Part<T> part{to, {}, i.count, j.count, i.first * a.w + j.first, a.stride_h * a.w, a.stride_w};
      std::vector<int64_t> seen;  // taps of the filter
      std::vector<int64_t> offsets;
      for (size_t r = 0; r < i.taps.size(); ++r)
        for (size_t s = 0; s < j.taps.size(); ++s) {
          seen.push_back(i.taps[r] * a.s + j.taps[s]);
          offsets.push_back(layout.offset(layout.rows.places[i.lines[r]], layout.columns.places[j.lines[s]]));
        }
      part.offsets.reserve(static_cast<size_t>(channels) * offsets.size());
      for (int64_t k = 0; k < channels; ++k)
        for (const int64_t offset : offsets) part.offsets.push_back(k * layout.channel_step + offset);
      if (taps == 1) {  // the multiply reads them as they lie
        part.weight = weight;
        part.row_step = 1;
        part.k_step = rows;
      } else {
        const int64_t size = a.c * channels * static_cast<int64_t>(seen.size());
        filters.push_back({to, std::move(seen)});
        to += size;
      }
      correlation.add(std::move(part));
    }
  if (!filters.empty()) turn_filters(weight, filters, a);
  correlation.run();
}

// By Winograd's transforms where the algorithm says so, or leaves the choice and it is worth it; directly(n,
// count) computes images [n, n + count) otherwise.
template <class T, class Directly>
void correlate(WinogradProblem<T> problem, int64_t n, ConvAlgorithm algorithm, const Directly& directly) {
  if (algorithm == ConvAlgorithm::automatic) {
    problem.images = winograd::images_in_range(problem, n);
  } else {
    for (int64_t i = 0; i < n; ++i) problem.images.push_back(i);
  }
  if (!problem.images.empty()) {
    if (algorithm == ConvAlgorithm::winograd4) {
      winograd::Convolution<T, 4>(problem).run();
    } else {
      winograd::Convolution<T, 2>(problem).run();
    }
  }
  int64_t done = 0;
  problem.images.push_back(n);
  for (const int64_t image : problem.images) {
    if (image > done) directly(done, image - done);
    done = image + 1;
  }
}

bool by_winograd(const Conv2dShape& a, int64_t channels, int64_t filters, int64_t p, int64_t q,
                 bool float32) {
  switch (a.algorithm) {
    case ConvAlgorithm::direct: return false;
    case ConvAlgorithm::automatic:
      return winograd::applies(a) && float32 && winograd::pays(a.n, channels, filters, p, q);
    default: return winograd::applies(a);
  }
}

// Of all images: a part of them is computed as the whole would be.
template <class T>
bool forward_by_winograd(const Conv2dShape& a) {
  return by_winograd(a, a.c, a.k, a.p, a.q, sizeof(T) == 4);
}
template <class T>
bool backward_by_winograd(const Conv2dShape& a) {
  return by_winograd(a, a.k, a.c, a.h, a.w, sizeof(T) == 4);
}

template <class T>
void forward_planes(const T* x, const T* weight, const T* bias, const T* residual, T* y, const Conv2dShape& a,
                    Activation kind, bool winograd) {
  if (a.n * a.k * a.p * a.q == 0) return;
  if (!winograd) return forward_directly(x, weight, bias, residual, y, a, kind);
  const WinogradProblem<T> problem{x, {},    a.c, a.h, a.w, -a.padding_h, -a.padding_w, weight,   a.c * 9,
                                   9, false, y,   a.k, a.p, a.q,          bias,         residual, kind};
  correlate(problem, a.n, a.algorithm, [&](int64_t n, int64_t count) {
    Conv2dShape some = a;
    some.n = count;
    const int64_t first = n * a.k * a.p * a.q;
    forward_directly(x + n * a.c * a.h * a.w, weight, bias, residual ? residual + first : nullptr, y + first,
                     some, kind);
  });
}

template <class T>
void backward_input_planes(const T* dy, const T* weight, T* dx, const Conv2dShape& a, bool winograd) {
  if (a.n * a.c * a.h * a.w == 0) return;
  if (!winograd) return backward_input_directly(dy, weight, dx, a);
  // dx is the correlation of dy with the filters turned and transposed.
  const WinogradProblem<T> problem{
      dy,   {}, a.k, a.p, a.q, a.padding_h - 2, a.padding_w - 2, weight,          9, a.c * 9,
      true, dx, a.c, a.h, a.w, nullptr,         nullptr,         Activation::none};
  correlate(problem, a.n, a.algorithm, [&](int64_t n, int64_t count) {
    Conv2dShape some = a;
    some.n = count;
    backward_input_directly(dy + n * a.k * a.p * a.q, weight, dx + n * a.c * a.h * a.w, some);
  });
}

Conv2dShape planar(const Conv2dShape& shape, int64_t images) {
  Conv2dShape a = shape;
  a.n = images;
  a.layout = Layout::nchw;
  return a;
}

// Whether channels-last images make it a product of dense matrices, a row for each pixel.
bool is_dense(const Conv2dShape& a) {
  const bool same = a.h == a.p && a.w == a.q && a.padding_h == 0 && a.padding_w == 0;
  return a.groups == 1 && a.r == 1 && a.s == 1 && a.stride_h == 1 && a.stride_w == 1 && same;
}

template <class T>
void forward_channels_last(const T* x, const T* weight, const T* bias, const T* residual, T* y,
                           const Conv2dShape& a, Activation kind, Precision precision, Stream stream) {
  if (is_dense(a) && !residual)
    return linear_forward(x, weight, bias, y, a.n * a.h * a.w, a.c, a.k, kind, precision, stream);
  if (a.n * a.p * a.q == 0) return;
  if (depthwise::is_by_channels<T>(a))
    return depthwise::forward_channels(x, weight, bias, residual, y, a, kind);
  const int64_t in = a.h * a.w * a.c, pixels = a.p * a.q, out = pixels * a.k,
                step = images_at_once(a.n, in + out + (residual ? out : 0));
  const bool winograd = forward_by_winograd<T>(a);
  for (int64_t n = 0; n < a.n; n += step) {
    const int64_t images = std::min(step, a.n - n);
    const ReadPlanes<T> from(x + n * in, images, a.h * a.w, a.c);
    const ReadPlanes<T> added(residual ? residual + n * out : nullptr, images, pixels, a.k);
    const WrittenPlanes<T> to(y + n * out, images, pixels, a.k);
    forward_planes(from.get(), weight, bias, added.get(), to.get(), planar(a, images), kind, winograd);
    to.store();
  }
}

template <class T>
void backward_input_channels_last(const T* dy, const T* weight, T* dx, const Conv2dShape& a,
                                  Precision precision, Stream stream) {
  if (is_dense(a)) return linear_backward_input(dy, weight, dx, a.n * a.h * a.w, a.c, a.k, precision, stream);
  if (a.n * a.h * a.w == 0) return;
  if (depthwise::is_by_channels<T>(a)) return depthwise::backward_input_channels(dy, weight, dx, a);
  const int64_t in = a.h * a.w * a.c, out = a.p * a.q * a.k, step = images_at_once(a.n, in + out);
  const bool winograd = backward_by_winograd<T>(a);
  for (int64_t n = 0; n < a.n; n += step) {
    const int64_t images = std::min(step, a.n - n);
    const ReadPlanes<T> from(dy + n * out, images, a.p * a.q, a.k);
    const WrittenPlanes<T> to(dx + n * in, images, a.h * a.w, a.c);
    backward_input_planes(from.get(), weight, to.get(), planar(a, images), winograd);
    to.store();
  }
}

template <class T>
void backward_weight_channels_last(const T* dy, const T* x, T* dw, T* db, const Conv2dShape& a,
                                   Precision precision, Stream stream) {
  if (is_dense(a)) return linear_backward_weight(dy, x, dw, db, a.n * a.h * a.w, a.c, a.k, precision, stream);
  if (depthwise::is_by_channels<T>(a) && a.n * a.p * a.q * a.r * a.s > 0) {
    if (db) column_sums(dy, db, a.n * a.p * a.q, a.k);
    return depthwise::backward_weight_channels(dy, x, dw, a);
  }
  const ReadPlanes<T> gradients(dy, a.n, a.p * a.q, a.k), images(x, a.n, a.h * a.w, a.c);
  conv2d_backward_weight(gradients.get(), images.get(), dw, db, planar(a, a.n), precision, stream);
}

}  // namespace

template <class T>
void conv2d_forward(const T* x, const T* weight, const T* bias, const T* residual, T* y,
                    const Conv2dShape& shape, Activation kind, Precision precision, Stream stream) {
  const Conv2dShape& a = shape;
  if (a.layout == Layout::nhwc)
    return forward_channels_last(x, weight, bias, residual, y, a, kind, precision, stream);
  forward_planes(x, weight, bias, residual, y, a, kind, forward_by_winograd<T>(a));
}

template <class T>
void conv2d_backward_input(const T* dy, const T* weight, T* dx, const Conv2dShape& shape, Precision precision,
                           Stream stream) {
  const Conv2dShape& a = shape;
  if (a.layout == Layout::nhwc) return backward_input_channels_last(dy, weight, dx, a, precision, stream);
  backward_input_planes(dy, weight, dx, a, backward_by_winograd<T>(a));
}

namespace {

template <class T>
void bias_gradient(const T* dy, T* db, const Conv2dShape& a) {
  const int64_t plane = a.p * a.q;
  parallel_for(a.k, 1 + 32768 / (a.n * plane + 1), [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      T sum = 0;
      for (int64_t n = 0; n < a.n; ++n) sum += kernels<T>().sum(dy + (n * a.k + k) * plane, plane);
      db[k] = sum;
    }
  });
}

}  // namespace

template <class T>
void conv2d_backward_weight(const T* dy, const T* x, T* dw, T* db, const Conv2dShape& shape,
                            Precision precision, Stream stream) {
  const Conv2dShape& a = shape;
  if (a.layout == Layout::nhwc) return backward_weight_channels_last(dy, x, dw, db, a, precision, stream);
  if (db) bias_gradient(dy, db, a);
  const int64_t filter = a.c / a.groups * a.r * a.s;
  if (a.k * filter == 0) return;
  if (a.n * a.p * a.q == 0) {
    std::fill(dw, dw + a.k * filter, T(0));
    return;
  }
  if (better_by_channels<T>(a)) {
    const ReadPlanes<T> gradients(dy, a.n, a.k, a.p * a.q), images(x, a.n, a.c, a.h * a.w);
    return depthwise::backward_weight_channels(gradients.get(), images.get(), dw, a);
  }
  if (depthwise::is_depthwise(a)) return depthwise::backward_weight(dy, x, dw, a);
  weight_gradient(dy, x, dw, a);
}

#define INSTANTIATE(T)                                                                                     \
  template void conv2d_forward(const T*, const T*, const T*, const T*, T*, const Conv2dShape&, Activation, \
                               Precision, Stream);                                                         \
  template void conv2d_backward_input(const T*, const T*, T*, const Conv2dShape&, Precision, Stream);      \
  template void conv2d_backward_weight(const T*, const T*, T*, T*, const Conv2dShape&, Precision, Stream);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace fastarch::cpu
