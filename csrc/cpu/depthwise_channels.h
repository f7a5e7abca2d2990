// Depthwise convolution of channels-last images with one filter a channel, as they lie: [N, H, W, C]. The
// outputs of an axis that see the same taps inside of the image are a segment; a segment of rows and one of
// columns make a grid of pixels that one inner loop computes, without a test for the border.
#pragma once
#include "cpu/correlation.h"
#include "cpu/dense.h"
#include "cpu/depthwise.h"

namespace fastarch::cpu::depthwise {

// With fewer channels than a vector has lanes the planes are better.
template <class T>
bool is_by_channels(const Conv2dShape& a) {
  return is_depthwise(a) && a.k == a.c && a.c >= kernels<T>().lanes;
}

// The channels in vectors: at multiples of the lanes, or shifted to where the source's are aligned, for a vector
// across two cache lines takes two loads. The first and the last one may have channels of their neighbours too.
template <class T>
struct ChannelVectors {
  int64_t channels, shift = 0;

  ChannelVectors(const T* source, int64_t channels) : channels(channels) {
    constexpr int64_t kMany = 8;  // vectors, to which one more is little
    const int64_t lanes = kernels<T>().lanes, bytes = lanes * static_cast<int64_t>(sizeof(T));
    if (channels % lanes == 0 && channels >= kMany * lanes)
      shift =
          static_cast<int64_t>(reinterpret_cast<uintptr_t>(source)) % bytes / static_cast<int64_t>(sizeof(T));
  }
  int64_t count() const { return ceil_div(channels + shift, kernels<T>().lanes); }
  int64_t first_channel(int64_t vector) const {
    const int64_t lanes = kernels<T>().lanes;
    return std::clamp<int64_t>(vector * lanes - shift, 0, channels - lanes);
  }
};

// Outputs first, first + step, ... of an axis, which see the same taps.
struct Segment {
  struct Tap {
    int64_t place, source;  // what the first output sees
  };
  int64_t first, count;
  std::vector<Tap> taps = {};
};

// Of an axis: output first + i*step sees, for each tap, entry source + i*source_step, if that is one of
// `extent`.
inline void add_segments(const Segment& all, int64_t step, int64_t source_step, int64_t extent,
                         std::vector<Segment>* segments) {
  const auto seen = [&](const Segment::Tap& tap) {
    const int64_t begin = tap.source < 0 ? ceil_div(-tap.source, source_step) : 0;
    const int64_t end = tap.source < extent ? ceil_div(extent - tap.source, source_step) : 0;
    return Range{begin, end};
  };
  std::vector<int64_t> ends = {0, all.count};
  for (const Segment::Tap& tap : all.taps)
    for (const int64_t i : {seen(tap).begin, seen(tap).end})
      if (i > 0 && i < all.count) ends.push_back(i);
  std::sort(ends.begin(), ends.end());
  ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
  for (size_t e = 0; e + 1 < ends.size(); ++e) {
    Segment segment{all.first + ends[e] * step, ends[e + 1] - ends[e]};
    for (const Segment::Tap& tap : all.taps)
      if (seen(tap).begin <= ends[e] && ends[e] < seen(tap).end)
        segment.taps.push_back({tap.place, tap.source + ends[e] * source_step});
    segments->push_back(std::move(segment));
  }
}

inline std::vector<Segment> segments_of_windows(int64_t input, int64_t output, int64_t kernel, int64_t stride,
                                                int64_t padding, int64_t dilation) {
  Segment all{0, output};
  for (int64_t r = 0; r < kernel; ++r) all.taps.push_back({r, r * dilation - padding});
  std::vector<Segment> segments;
  add_segments(all, 1, stride, input, &segments);
  return segments;
}

inline std::vector<Segment> segments_of_gradient(int64_t input, int64_t output, int64_t kernel,
                                                 int64_t stride, int64_t padding, int64_t dilation) {
  const GradientAxis axis(input, kernel, stride, padding, dilation);
  std::vector<Segment> segments;
  for (const GradientPhase& phase : axis.phases) {
    Segment all{phase.first, phase.count};
    for (size_t t = phase.taps.size(); t-- > 0;)  // in ascending order of what they see
      all.taps.push_back({phase.taps[t], axis.lines[phase.lines[t]].first});
    add_segments(all, stride, 1, output, &segments);
  }
  return segments;
}

// An axis in segments; from one output of a segment to the next.
struct SegmentedAxis {
  std::vector<Segment> segments;
  int64_t source_step, step;
};

// The grid of two segments, in images [.., source_width, channels] and [.., width, channels].
template <class T>
class Grid : public PixelGrid {
 public:
  Grid(const SegmentedAxis& down, const SegmentedAxis& right, int64_t source_width, int64_t width,
       const ChannelVectors<T>& vectors, const Conv2dShape& a)
      : line_(width * a.c),
        down_{source_width * a.c, down.source_step, down.step * line_, a.s},
        right_{a.c, right.source_step, right.step * a.c, 1} {
    taps.channels = a.c;
    filter_taps = a.r * a.s;
    channel_shift = vectors.shift;
    end = vectors.count();
  }

  // Returns where its first pixel lies. A narrow grid is turned: neighbours are worked on together.
  int64_t set(const Segment& down, const Segment& right) {
    const bool turned = right.count < 4 && right.count < down.count;
    const Segment &outer = turned ? right : down, &inner = turned ? down : right;
    const Steps outer_steps = turned ? right_ : down_, inner_steps = turned ? down_ : right_;
    offset_.clear();
    place_.clear();
    for (const Segment::Tap& i : outer.taps)
      for (const Segment::Tap& j : inner.taps) {
        offset_.push_back(i.source * outer_steps.source + j.source * inner_steps.source);
        place_.push_back(static_cast<int32_t>(i.place * outer_steps.place + j.place * inner_steps.place));
      }
    taps.offset = offset_.data();
    taps.place = place_.data();
    taps.count = static_cast<int64_t>(offset_.size());
    rows = outer.count;
    columns = inner.count;
    source_row = outer_steps.source * outer_steps.stride;
    source_column = inner_steps.source * inner_steps.stride;
    out_row = outer_steps.out;
    out_column = inner_steps.out;
    stride = inner_steps.stride;
    window = window_of(inner.taps);
    return down.first * line_ + right.first * taps.channels;
  }

 private:
  // From one tap, output or entry of the source to the next along an axis.
  struct Steps {
    int64_t source, stride, out, place;
  };

  static int window_of(const std::vector<Segment::Tap>& line) {
    const auto size = static_cast<int64_t>(line.size());
    if (size != 3 && size != 5 && size != 7) return 0;
    for (int64_t s = 1; s < size; ++s)
      if (line[static_cast<size_t>(s)].source != line[0].source + s) return 0;
    return static_cast<int>(size);
  }

  int64_t line_;
  Steps down_, right_;
  std::vector<int64_t> offset_;
  std::vector<int32_t> place_;
};

// The first `count` and the others of a segment.
inline std::pair<Segment, Segment> split(const Segment& segment, int64_t count, const SegmentedAxis& axis) {
  std::pair<Segment, Segment> parts{segment, segment};
  parts.first.count = count;
  parts.second.count -= count;
  parts.second.first += count * axis.step;
  for (Segment::Tap& tap : parts.second.taps) tap.source += count * axis.source_step;
  return parts;
}

// Cuts segments into such of at most `most` outputs.
inline void cut(SegmentedAxis* axis, int64_t most) {
  std::vector<Segment> pieces;
  for (Segment rest : axis->segments) {
    while (rest.count > most) {
      auto [piece, others] = split(rest, most, *axis);
      pieces.push_back(std::move(piece));
      rest = std::move(others);
    }
    pieces.push_back(std::move(rest));
  }
  axis->segments = std::move(pieces);
}

// out [N, height, width, C] = f(bias + residual + what filters, [C, R*S], see of source [N, source_height,
// source_width, C]).
template <class T>
void correlate_channels(const T* source, int64_t source_plane, int64_t source_width, const T* weight,
                        const T* bias, const T* residual, T* out, int64_t plane, int64_t width,
                        SegmentedAxis down, const SegmentedAxis& right, const Conv2dShape& a,
                        Activation kind) {
  const int64_t taps = a.r * a.s, lanes = kernels<T>().lanes;
  const ChannelVectors<T> vectors(source, a.c);
  const Scratch<T> filters(vectors.count() * taps * lanes);
  for (int64_t v = 0; v < vectors.count(); ++v)
    kernels<T>().transpose(weight + vectors.first_channel(v) * taps, taps, filters.get() + v * taps * lanes,
                           lanes, taps, lanes, lanes);
  constexpr int64_t kTask = 400000, kLeastRows = 8;  // of a task: multiplications
  cut(&down, std::max(kLeastRows, kTask / (taps * width * a.c + 1)));
  const int64_t bands = static_cast<int64_t>(down.segments.size());
  const int64_t work = taps * plane * a.c / bands;
  parallel_for(a.n * bands, 1 + kTask / (work + 1), [&](int64_t begin, int64_t end) {
    Grid<T> grid(down, right, source_width, width, vectors, a);
    for (int64_t task = begin; task < end; ++task) {
      const T* from = source + task / bands * source_plane * a.c;
      const Segment& rows = down.segments[static_cast<size_t>(task % bands)];
      for (const Segment& columns : right.segments) {
        const int64_t at = task / bands * plane * a.c + grid.set(rows, columns);
        kernels<T>().channel_taps(grid, from, filters.get(), bias, residual ? residual + at : nullptr,
                                  out + at, kind);
      }
    }
  });
}

template <class T>
void forward_channels(const T* x, const T* weight, const T* bias, const T* residual, T* y,
                      const Conv2dShape& a, Activation kind) {
  const SegmentedAxis down{segments_of_windows(a.h, a.p, a.r, a.stride_h, a.padding_h, a.dilation_h),
                           a.stride_h, 1};
  const SegmentedAxis right{segments_of_windows(a.w, a.q, a.s, a.stride_w, a.padding_w, a.dilation_w),
                            a.stride_w, 1};
  correlate_channels(x, a.h * a.w, a.w, weight, bias, residual, y, a.p * a.q, a.q, down, right, a, kind);
}

template <class T>
void backward_input_channels(const T* dy, const T* weight, T* dx, const Conv2dShape& a) {
  const SegmentedAxis down{segments_of_gradient(a.h, a.p, a.r, a.stride_h, a.padding_h, a.dilation_h), 1,
                           a.stride_h};
  const SegmentedAxis right{segments_of_gradient(a.w, a.q, a.s, a.stride_w, a.padding_w, a.dilation_w), 1,
                            a.stride_w};
  const T* const none = nullptr;
  correlate_channels(dy, a.p * a.q, a.q, weight, none, none, dx, a.h * a.w, a.w, down, right, a,
                     Activation::none);
}

// dw alone. Work is split over channels, and over chunks of the batch's rows that have sums of their own and
// follow from the shape alone: they decide the order of summation.
template <class T>
void backward_weight_channels(const T* dy, const T* x, T* dw, const Conv2dShape& a) {
  constexpr int64_t kPixels = 128, kTasks = 16, kLeastChannels = 64, kMostSums = 4'194'304;
  SegmentedAxis down{segments_of_windows(a.h, a.p, a.r, a.stride_h, a.padding_h, a.dilation_h), a.stride_h,
                     1};
  const SegmentedAxis right{segments_of_windows(a.w, a.q, a.s, a.stride_w, a.padding_w, a.dilation_w),
                            a.stride_w, 1};
  cut(&down, std::max<int64_t>(1, kPixels / a.q));  // enough for what a sum costs besides multiplying
  const int64_t taps = a.r * a.s, bands = static_cast<int64_t>(down.segments.size());
  const ChannelVectors<T> vectors(x, a.c);
  const int64_t lanes = kernels<T>().lanes, all = vectors.count(), size = all * taps * lanes;
  const int64_t pieces = std::clamp<int64_t>(a.c / kLeastChannels, 1, kTasks);
  const int64_t wanted = std::min(ceil_div(kTasks, pieces), kMostSums / (taps * a.c));
  const int64_t chunk = ceil_div(a.n * bands, std::clamp<int64_t>(wanted, 1, a.n * bands)),
                chunks = ceil_div(a.n * bands, chunk);
  const Scratch<T> sums(chunks * size);  // [chunks][vectors][taps, lanes]
  std::fill(sums.get(), sums.get() + chunks * size, T(0));
  const int64_t work = a.n * a.p * a.q * taps * a.c / (chunks * pieces);
  parallel_for(chunks * pieces, 1 + 400000 / (work + 1), [&](int64_t begin, int64_t end) {
    Grid<T> grid(down, right, a.w, a.q, vectors, a);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t part = task / pieces;
      grid.first = all * (task % pieces) / pieces;
      grid.end = all * (task % pieces + 1) / pieces;
      for (int64_t i = part * chunk; i < std::min(a.n * bands, (part + 1) * chunk); ++i)
        for (const Segment& columns : right.segments) {
          const int64_t at = grid.set(down.segments[static_cast<size_t>(i % bands)], columns);
          kernels<T>().channel_tap_dots(grid, x + i / bands * a.h * a.w * a.c,
                                        dy + i / bands * a.p * a.q * a.c + at, sums.get() + part * size);
        }
    }
  });
  for (int64_t part = 1; part < chunks; ++part)
    for (int64_t i = 0; i < size; ++i) sums[i] += sums[part * size + i];
  for (int64_t v = 0; v < all; ++v)
    kernels<T>().transpose(sums.get() + v * taps * lanes, lanes, dw + vectors.first_channel(v) * taps, taps,
                           lanes, taps, taps);
}

}  // namespace fastarch::cpu::depthwise
