// Convolution: the blocked multiply over rearranged images (patches.h).
//   forward          y [K, pixels]   = weight [K, C*R*S] * patches of x
//   input gradient   dx [C, pixels]  = weight, transposed and flipped, * patches of dy; for each stride phase
//   weight gradient  dw^T [C*R*S, K] = patches of x * dy^T, summed over fixed chunks of the batch
// Images with the channels last are turned into planes first, and results back (layouts.h); 1x1 filters make
// dense products of them as they lie.
#include "ops/conv2d.h"

#include "cpu/dense.h"
#include "cpu/depthwise.h"
#include "cpu/layouts.h"
#include "cpu/patches.h"
#include "cpu/winograd_choice.h"

namespace fastarch::cpu {
namespace {

// A product of a correlation: some output pixels of every image, from all channels of the source.
template <class T>
struct Part {
  const T* weight;               // [groups][rows, depth]
  std::vector<int64_t> offsets;  // [depth], into a group's source
  int64_t height, width;         // output pixels
  int64_t to, pitch, step;       // where they belong: to + p*pitch + q*step of a channel's plane
  int64_t largest_offset = 0;
};

// y[n, row] = f(sum over source channels and taps + bias), with stride 1 over the rearranged source.
template <class T>
struct Correlation {
  const T* source;  // [images, groups * channels, plane]
  int64_t images, groups, channels, plane;
  PhaseLayout layout;  // of a plane
  T* target;           // [images, groups * rows, target_plane]
  int64_t rows, target_plane;
  const T* bias = nullptr;      // [groups * rows] or null
  const T* residual = nullptr;  // as target, added before the activation, or null
  Activation kind = Activation::none;
  std::vector<Part<T>> parts = {};

  void add(Part<T> part) {
    for (const int64_t offset : part.offsets) part.largest_offset = std::max(part.largest_offset, offset);
    parts.push_back(std::move(part));
  }

  void run() const {
    if (images == 0 || groups == 0 || rows == 0) return;
    int64_t work = 0, chunk = 1;
    for (const Part<T>& part : parts) {
      const int64_t pixels = part.height * part.width;
      work += pixels * rows * static_cast<int64_t>(part.offsets.size());
      if (is_flat(part)) chunk = std::max(chunk, ceil_div(kFlatColumns, pixels));
    }
    chunk = std::min(chunk, images);
    const int64_t tasks = ceil_div(images, chunk) * groups, threads = thread_count();
    constexpr int64_t kSmall = 200000;  // multiplications that are not worth a second thread
    const bool by_image = work * images * groups < kSmall || tasks >= 4 * threads || tasks % threads == 0;
    const auto each = [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t n = task / groups * chunk;
        run_images({n, std::min(images, n + chunk)}, task % groups, by_image);
      }
    };
    if (by_image && work * images * groups >= kSmall) {
      parallel_for(tasks, 1, each);
    } else {
      each(0, tasks);  // on this thread, or on all threads for one task after the other
    }
  }

 private:
  // Of a product in flat order: enough for the last tile not to matter.
  static constexpr int64_t kFlatColumns = 768;

  // Rows of pixels that follow one another on both sides are one row.
  PixelOrder order_of(const Part<T>& part, int64_t count) const {
    // Pixels that see no tap read nothing: they may be more than the source has.
    const int64_t pitch = part.offsets.empty() ? part.width : layout.pitch;
    if (pitch != part.width || part.pitch != part.width || part.step != 1)
      return {count, part.height, part.width, pitch, false};
    return {count, 1, part.height * part.width, part.height * part.width, false};
  }

  // Whether pixels in flat order, packed, take less time than in wide order, read where they lie: copying,
  // against the columns that wide order computes in vain. In cycles for one k and one image.
  bool is_flat(const Part<T>& part) const {
    const PixelOrder order = order_of(part, 1);
    const int lanes = kernels<T>().lanes;
    const double vectors = static_cast<double>(order.height * order.width) / lanes;
    const double per_vector = 0.5 * static_cast<double>(rows), per_run = 2.5;
    const double wide =
        static_cast<double>(ceil_div((order.height - 1) * order.pitch + order.width, lanes)) * per_vector;
    const double runs = static_cast<double>(order.height * ceil_div(order.width, lanes)) + vectors / 3;
    return images > 1 && vectors * per_vector + runs * per_run < wide;
  }

  void run_images(Range image, int64_t group, bool this_thread) const {
    const int64_t step = groups * channels * plane;
    const T* from = source + image.begin * step + group * channels * plane;
    if (layout.in_place) return multiply(image, group, from, step, source + images * step, this_thread);
    const int64_t copied = channels * layout.channel_step;
    constexpr int64_t kSlack = 64;  // so that vectors may reach behind the last pixel
    const Scratch<T> copy(image.size() * copied + kSlack);
    const auto fill = [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        layout.fill(from + i / channels * step + i % channels * plane, copy.get() + i * layout.channel_step);
    };
    if (this_thread) {
      fill(0, image.size() * channels);
    } else {
      parallel_for(image.size() * channels, 1, fill);
    }
    std::fill(copy.get() + image.size() * copied, copy.get() + image.size() * copied + kSlack, T(0));
    multiply(image, group, copy.get(), copied, copy.get() + image.size() * copied + kSlack, this_thread);
  }

  void multiply(Range image, int64_t group, const T* from, int64_t step, const T* end,
                bool this_thread) const {
    for (const Part<T>& part : parts) {
      PixelOrder order = order_of(part, image.size());
      order.wide = !is_flat(part);
      const int64_t depth = static_cast<int64_t>(part.offsets.size());
      // In wide order an image is a product of its own.
      const int64_t products = order.wide ? image.size() : 1;
      if (order.wide) order.images = 1;
      for (int64_t i = 0; i < products; ++i) {
        const int64_t first = ((image.begin + i) * groups + group) * rows;  // row of the target
        const Product<T, PatchReader<T>, PixelWriter<T>> product{
            rows,
            order.columns(),
            depth,
            {part.weight + group * rows * depth, depth, 1},
            {from + i * step, end, part.offsets.data(), part.largest_offset, step, order},
            {target + first * target_plane + part.to,
             residual ? residual + first * target_plane + part.to : nullptr, groups * rows * target_plane,
             target_plane, part.pitch, part.step, order},
            bias ? bias + group * rows : nullptr,
            kind};
        if (this_thread) {
          product.run();
        } else {
          product.run_parallel();
        }
      }
    }
  }
};

template <class T>
void forward_directly(const T* x, const T* weight, const T* bias, const T* residual, T* y,
                      const Conv2dShape& a, Activation kind) {
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

// One axis of the input gradient: the inputs first, first + stride, ... see the same taps, those r for which
// first + padding - r*dilation is a multiple of the stride, and each tap a line of outputs.
struct GradientPhase {
  int64_t first, count;
  std::vector<int64_t> taps = {};
  std::vector<size_t> lines = {};  // of the axis, for each tap
};

struct GradientAxis {
  std::vector<GradientPhase> phases;
  std::vector<PhaseAxis::Line> lines;

  GradientAxis(int64_t input, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation) {
    for (int64_t first = 0; first < std::min(stride, input); ++first) {
      GradientPhase phase{first, ceil_div(input - first, stride)};
      for (int64_t r = 0; r < kernel; ++r) {
        const int64_t position = first + padding - r * dilation;
        if (position % stride != 0) continue;
        phase.taps.push_back(r);
        phase.lines.push_back(lines.size());
        lines.push_back({position / stride, phase.count});
      }
      phases.push_back(std::move(phase));
    }
  }
};

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

template <class T>
void backward_input_directly(const T* dy, const T* weight, T* dx, const Conv2dShape& a) {
  const int64_t channels = a.k / a.groups, rows = a.c / a.groups, taps = a.r * a.s;
  const GradientAxis down(a.h, a.r, a.stride_h, a.padding_h, a.dilation_h);
  const GradientAxis right(a.w, a.s, a.stride_w, a.padding_w, a.dilation_w);
  Correlation<T> correlation{dy,       a.n,       a.groups,
                             channels, a.p * a.q, {{a.p, 1, down.lines}, {a.q, 1, right.lines}},
                             dx,       rows,      a.h * a.w};
  const PhaseLayout& layout = correlation.layout;
  if (depthwise::is_depthwise(a)) return depthwise_input_gradient(dy, weight, dx, a, down, right, layout);
  const Scratch<T> turned(a.c * channels * taps);  // of every part: [groups][rows, depth]
  T* to = turned.get();
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
      const int64_t depth = channels * static_cast<int64_t>(seen.size());
      parallel_for(a.c, 1 + 16384 / (depth + 1), [&](int64_t begin, int64_t end) {
        for (int64_t c = begin; c < end; ++c) {
          T* row = to + c * depth;
          const T* filter = weight + (c / rows * channels * rows + c % rows) * taps;
          for (int64_t k = 0; k < channels; ++k, filter += rows * taps)
            for (const int64_t tap : seen) *row++ = filter[tap];
        }
      });
      to += a.c * depth;
      correlation.add(std::move(part));
    }
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

// dw^T of one group over a range of images, for the taps of a range of channels.
template <class T>
struct WeightGradient {
  const T* dy;
  const T* x;
  const Conv2dShape& a;
  PhaseLayout layout;                // of x
  std::vector<int64_t> tap_offsets;  // [R*S]
  int64_t filters, width;            // of a group, and rounded up to vectors

  // sum: [channels of the range * R*S, width], overwritten.
  void run(Range image, int64_t group, Range channel, T* sum) const {
    const Kernels<T>& kernel = kernels<T>();
    const int64_t taps = a.r * a.s, rows = channel.size() * taps,
                  row_tile = even_piece(rows, kernel.tile_rows);
    const int64_t tile_width = kernel.lanes * even_piece(width / kernel.lanes, kernel.tile_vectors);
    const int64_t lines = std::clamp<int64_t>(kPixels / a.q, 1, a.p);  // of dy, that are packed at a time
    const int64_t group_channel = group * (a.c / a.groups) + channel.begin, plane = a.h * a.w;
    const Scratch<T> copy(layout.in_place ? 0 : channel.size() * layout.channel_step),
        packed(lines * a.q * width);
    bool first = true;
    for (int64_t n = image.begin; n < image.end; ++n) {
      const T* from = x + (n * a.c + group_channel) * plane;
      if (!layout.in_place) {
        for (int64_t c = 0; c < channel.size(); ++c)
          layout.fill(from + c * plane, copy.get() + c * layout.channel_step);
        from = copy.get();
      }
      for (int64_t p = 0; p < a.p; p += lines) {
        const int64_t count = std::min(lines, a.p - p);
        const T* line = dy + ((n * a.k + group * filters) * a.p + p) * a.q;
        kernel.transpose(line, a.p * a.q, packed.get(), width, count * a.q, filters, width);
        Tile<T> tile;
        tile.a_jump = layout.pitch - a.q;
        tile.length = a.q;
        tile.segments = count;
        tile.b_step = tile.c_step = width;
        tile.accumulate = !first;
        for (int64_t j = 0; j < width; j += tile_width) {
          tile.vectors = static_cast<int>(std::min(tile_width, width - j) / kernel.lanes);
          tile.b = packed.get() + j;
          for (int64_t i = 0; i < rows; i += row_tile) {
            tile.rows = static_cast<int>(std::min(row_tile, rows - i));
            for (int64_t t = 0; t < tile.rows; ++t) {
              const int64_t c = (i + t) / taps, tap = (i + t) % taps;
              tile.a[t] =
                  from + c * layout.channel_step + tap_offsets[static_cast<size_t>(tap)] + p * layout.pitch;
            }
            tile.c = sum + i * width + j;
            kernel.multiply(tile);
          }
        }
        first = false;
      }
    }
  }

 private:
  static constexpr int64_t kPixels = 192;  // of dy: a tile's columns of them stay in the nearest cache
};

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
  const int64_t channels = a.c / a.groups, filters = a.k / a.groups, taps = a.r * a.s, rows = channels * taps;
  if (a.k * rows == 0) return;
  if (a.n * a.p * a.q == 0) {
    std::fill(dw, dw + a.k * rows, T(0));
    return;
  }
  if (depthwise::is_depthwise(a)) return depthwise::backward_weight(dy, x, dw, a);
  const Kernels<T>& kernel = kernels<T>();
  const int64_t width = ceil_div(filters, kernel.lanes) * kernel.lanes;
  // Work is split over bands of channels, each of which packs dy again, and over chunks of the batch, each of
  // which has sums of its own. Chunks follow from the shape alone: they decide the order of summation.
  constexpr int64_t kBandRows = 256, kTasks = 16, kMostSums = 4'194'304;
  const int64_t band = even_piece(channels, std::max<int64_t>(1, kBandRows / taps)),
                bands = ceil_div(channels, band);
  const int64_t size = rows * width;
  const int64_t wanted = std::min(ceil_div(kTasks, bands * a.groups), kMostSums / (a.groups * size));
  const int64_t chunk = ceil_div(a.n, std::clamp<int64_t>(wanted, 1, a.n)), chunks = ceil_div(a.n, chunk);
  const PhaseLayout layout(PhaseAxis::of_windows(a.h, a.p, a.r, a.stride_h, a.padding_h, a.dilation_h),
                           PhaseAxis::of_windows(a.w, a.q, a.s, a.stride_w, a.padding_w, a.dilation_w));
  const WeightGradient<T> gradient{dy, x, a, layout, layout.offsets(), filters, width};
  const Scratch<T> sums(chunks * a.groups * size);  // [chunks][groups][C/groups * R*S, width]
  parallel_for(chunks * a.groups * bands, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t c = task % bands * band, part = task / bands, n = part / a.groups * chunk;
      gradient.run({n, std::min(a.n, n + chunk)}, part % a.groups, {c, std::min(channels, c + band)},
                   sums.get() + part * size + c * taps * width);
    }
  });
  parallel_for(a.groups * rows, 1 + 16384 / (chunks * width), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t c = 1; c < chunks; ++c)
        for (int64_t k = 0; k < filters; ++k)
          sums[i * width + k] += sums[(c * a.groups * rows + i) * width + k];
  });
  for (int64_t g = 0; g < a.groups; ++g)
    parallel_for(filters, 1 + 32768 / rows, [&](int64_t begin, int64_t end) {
      kernel.transpose(sums.get() + g * size + begin, width, dw + (g * filters + begin) * rows, rows,
                       end - begin, rows, rows);
    });
}

#define INSTANTIATE(T)                                                                                     \
  template void conv2d_forward(const T*, const T*, const T*, const T*, T*, const Conv2dShape&, Activation, \
                               Precision, Stream);                                                         \
  template void conv2d_backward_input(const T*, const T*, T*, const Conv2dShape&, Precision, Stream);      \
  template void conv2d_backward_weight(const T*, const T*, T*, T*, const Conv2dShape&, Precision, Stream);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace fastarch::cpu
