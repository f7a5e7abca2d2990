// The three matrix products of a convolution as problems of the multiply. Their readers of images are
// parameters: a source may be an image as it lies in memory or one that is made up while it is read.
//
// Each group is one product of a batch. Pixels run along the columns, because an [N, C, H, W] tensor stores
// the pixels of a channel side by side.
//   y  [filter, pixel]  = weight [filter, tap]  * patches of x [tap, pixel], then what the result makes of it
//   dx [channel, pixel] = weight [channel, tap] * patches of dy [tap, pixel]
//   dw [filter, tap]    = dy [filter, pixel]    * patches of x [pixel, tap];  db = the row sums of dy
//
// The input gradient gathers. With a stride, a pixel is reached only by the taps r with h + padding equal to
// r * dilation modulo the stride. So the pixels of one residue, a phase, see the same few taps, and are by
// themselves a convolution of dy with stride 1: no multiplication by a structural zero, and no two threads
// that add to the same pixel.
#pragma once
#include <algorithm>
#include <numeric>
#include <vector>

#include "gemm/matrix.h"
#include "gemm/mma.h"
#include "gemm/patches.h"
#include "ops/conv2d.h"

namespace fastarch::cuda {

template <class T, class Source, class Result>
struct Forward {
  using Value = T;
  using Parts = Operands<Matrix<T, true>, PixelColumns<T, Source>, Result, T>;
  static constexpr bool kRowSums = false;

  Matrix<T, true> weight;
  PixelColumns<T, Source> patches;
  Result result;
  int64_t filters, channels, taps;  // of one group

  std::string traits() const { return traits_of(weight) + " " + traits_of(patches.source); }

  __device__ __forceinline__ Parts at(int group) const {
    Parts one{weight, patches, result, filters, patches.source.columns, taps};
    one.a.data += group * filters * taps;
    one.b.source.skip_channels(group * channels);
    one.result.skip_channels(group * filters);
    return one;
  }
};

// The phases are members of the batch, so that one launch computes them all; they travel as kernel arguments.
constexpr int kMostPhases = 16;

struct Phase {
  Grid pixels, window;
  int64_t columns, taps;
  int64_t first_pixel, first_tap;  // offsets
  int origin_h, origin_w;
};

template <class T, class Source>
struct InputGradient {
  using Value = T;
  using Parts = Operands<FilterRows<T>, PixelColumns<T, Source>, ImageResult<T>, T>;
  static constexpr bool kRowSums = false;

  FilterRows<T> weight;
  PixelColumns<T, Source> patches;  // of dy
  ImageResult<T> result;
  int64_t filters, channels, weight_pitch;  // of one group
  int phase_count;
  Phase phases[kMostPhases];

  std::string traits() const { return concat(traits_of(patches.source), ", ", phase_count, " phases"); }

  __device__ __forceinline__ Parts at(int batch) const {
    const int group = batch / phase_count;
    const Phase& phase = phases[batch - group * phase_count];
    Parts one{weight, patches, result, channels, phase.columns, phase.taps};
    one.a.w += group * weight_pitch + phase.first_tap;
    one.a.window = phase.window;
    one.b.source.skip_channels(group * filters);
    one.b.source.columns = phase.columns;
    one.b.source.pixels = phase.pixels;
    one.b.source.window = phase.window;
    one.b.source.origin_h = phase.origin_h;
    one.b.source.origin_w = phase.origin_w;
    one.result.skip_channels(group * channels);
    one.result.out += phase.first_pixel;
    one.result.pixels = phase.pixels;
    return one;
  }
};

template <class T, class Rows, class Source>
struct WeightGradient {
  using Value = T;
  using Parts = Operands<Rows, TapColumns<T, Source>, MatrixResult<T>, T>;
  static constexpr bool kRowSums = true;

  Rows dy;
  TapColumns<T, Source> patches;
  MatrixResult<T> result;
  T* db;
  int64_t filters, channels, taps;  // of one group

  std::string traits() const { return traits_of(dy) + " " + traits_of(patches.source); }

  __device__ __forceinline__ Parts at(int group) const {
    Parts one{dy, patches, result, filters, taps, patches.source.columns};
    one.a.skip_channels(group * filters);
    one.b.source.skip_channels(group * channels);
    one.result.out += group * filters * taps;
    if (db) one.row_sums = db + group * filters;
    return one;
  }
};

inline void check_limits(const Conv2dShape& s, const char* op) {
  check(s.h * s.w <= kMostPixels && s.p * s.q <= kMostPixels, op, "a channel has ",
        std::max(s.h * s.w, s.p * s.q), " pixels, expected at most ", kMostPixels);
  const int64_t taps = std::max(s.c, s.k) / s.groups * s.r * s.s;
  check(taps <= kMostTaps, op, "a filter has ", taps, " taps, expected at most ", kMostTaps);
  const auto last = [](int64_t count, int64_t step) { return std::max<int64_t>(count - 1, 0) * step; };
  const int64_t farthest =
      std::max({s.h + s.padding_h, s.w + s.padding_w, last(s.p, s.stride_h) + last(s.r, s.dilation_h),
                last(s.q, s.stride_w) + last(s.s, s.dilation_w)});
  check(farthest < kMostPosition, op, "the padded image has an extent of ", farthest, ", expected less than ",
        kMostPosition);
}

// The patches of x, their pixels in the order of a Pixels (Grid, or one like it).
template <class Pixels, class T>
Patches<T, Pixels> input_patches(const T* x, const Conv2dShape& s) {
  return {.x = x,
          .image_pitch = s.c * s.h * s.w,
          .channel_pitch = static_cast<int>(s.h * s.w),
          .height = static_cast<int>(s.h),
          .width = static_cast<int>(s.w),
          .columns = s.n * s.p * s.q,
          .taps = s.c / s.groups * s.r * s.s,
          .pixels = Pixels(s.p, s.q),
          .window = Grid(s.r, s.s),
          .stride_h = static_cast<int>(s.stride_h),
          .stride_w = static_cast<int>(s.stride_w),
          .origin_h = static_cast<int>(-s.padding_h),
          .origin_w = static_cast<int>(-s.padding_w),
          .step_h = static_cast<int>(s.dilation_h),
          .step_w = static_cast<int>(s.dilation_w)};
}

// result's pixels are in the order of the patches'.
template <class T, class Source, class Result>
void multiply_forward(const CallSite& name, const T* weight, const Source& patches, const Result& result,
                      const Conv2dShape& s, Precision precision, Stream stream) {
  const int64_t filters = s.k / s.groups, taps = patches.taps;
  const Forward<T, Source, Result> problem{
      {weight, filters, taps, taps}, {patches}, result, filters, s.c / s.groups, taps};
  multiply(name, problem, {s.groups, filters, patches.columns, taps}, false, stream, precision);
}

// dy's pixels are in the order of the patches'.
template <class T, class Rows, class Source>
void multiply_backward_weight(const CallSite& name, const Rows& dy, const Source& patches, T* dw, T* db,
                              const Conv2dShape& s, Precision precision, Stream stream) {
  const int64_t filters = s.k / s.groups, taps = patches.taps;
  const WeightGradient<T, Rows, Source> problem{
      dy, {patches}, {dw, taps, nullptr, Activation::none}, db, filters, s.c / s.groups, taps};
  multiply(name, problem, {s.groups, filters, taps, patches.columns}, db != nullptr, stream, precision);
}

// The pixels h = first + stride * i of one axis, and what reaches them: dy at origin + i - step * j through
// tap tap_first + tap_step * j.
struct AxisPhase {
  int64_t first, pixels, origin, tap_first, taps;
};

struct AxisPhases {
  std::vector<AxisPhase> phases;  // those that some tap reaches
  bool complete;                  // they are all
  int64_t tap_step, step;
};

inline AxisPhases input_gradient_axis(int64_t extent, int64_t window, int64_t stride, int64_t padding,
                                      int64_t dilation) {
  const int64_t common = std::gcd(stride, dilation);
  AxisPhases axis{{}, false, stride / common, dilation / common};
  // Taps tap_step apart meet the same pixels, nearer ones never do.
  for (int64_t tap = 0; tap < std::min(window, axis.tap_step); ++tap) {
    const int64_t first = ((tap * dilation - padding) % stride + stride) % stride;
    if (first >= extent) continue;
    axis.phases.push_back({first, divide_up(extent - first, stride),
                           (first + padding - tap * dilation) / stride, tap,
                           divide_up(window - tap, axis.tap_step)});
  }
  axis.complete = static_cast<int64_t>(axis.phases.size()) == std::min(stride, extent);
  return axis;
}

// dy: the source of output gradients [N, K, P, Q]; its steps, pixels and window are set here.
template <class T, class Source>
void multiply_backward_input(const CallSite& name, const Source& dy, const T* weight, T* dx,
                             const Conv2dShape& s, Precision precision, Stream stream) {
  const AxisPhases rows = input_gradient_axis(s.h, s.r, s.stride_h, s.padding_h, s.dilation_h);
  const AxisPhases columns = input_gradient_axis(s.w, s.s, s.stride_w, s.padding_w, s.dilation_w);
  const int64_t channels = s.c / s.groups, filters = s.k / s.groups, size = s.n * s.c * s.h * s.w;
  if (size == 0) return;
  if (!rows.complete || !columns.complete)
    check_cuda(cudaMemsetAsync(dx, 0, size * sizeof(T), static_cast<cudaStream_t>(stream)),
               "cudaMemsetAsync");

  InputGradient<T, Source> problem{};
  problem.weight = FilterRows<T>{.w = weight,
                                 .channels = channels,
                                 .filter_pitch = channels * s.r * s.s,
                                 .channel_pitch = static_cast<int>(s.r * s.s),
                                 .tap_pitch_h = static_cast<int>(rows.tap_step * s.s),
                                 .tap_pitch_w = static_cast<int>(columns.tap_step)};
  problem.patches.source = dy;
  problem.patches.source.step_h = static_cast<int>(-rows.step);
  problem.patches.source.step_w = static_cast<int>(-columns.step);
  problem.result = ImageResult<T>{.out = dx,
                                  .image_pitch = s.c * s.h * s.w,
                                  .channel_pitch = s.h * s.w,
                                  .pitch_h = s.stride_h * s.w,
                                  .pitch_w = static_cast<int>(s.stride_w),
                                  .bias = nullptr,
                                  .residual = nullptr,
                                  .kind = Activation::none};
  problem.filters = filters;
  problem.channels = channels;
  problem.weight_pitch = filters * channels * s.r * s.s;

  Shape shape{0, channels, 0, 0};
  const auto launch_phases = [&] {
    shape.batches = s.groups * problem.phase_count;
    multiply(name, problem, shape, false, stream, precision);
    problem.phase_count = 0;
    shape.n = shape.k = 0;
  };
  for (const AxisPhase& h : rows.phases) {
    for (const AxisPhase& w : columns.phases) {
      Phase& phase = problem.phases[problem.phase_count++];
      phase = {.pixels = Grid(h.pixels, w.pixels),
               .window = Grid(h.taps, w.taps),
               .columns = s.n * h.pixels * w.pixels,
               .taps = filters * h.taps * w.taps,
               .first_pixel = h.first * s.w + w.first,
               .first_tap = h.tap_first * s.s + w.tap_first,
               .origin_h = static_cast<int>(h.origin),
               .origin_w = static_cast<int>(w.origin)};
      shape.n = std::max(shape.n, phase.columns);
      shape.k = std::max(shape.k, phase.taps);
      if (problem.phase_count == kMostPhases) launch_phases();
    }
  }
  if (problem.phase_count > 0) launch_phases();
}

}  // namespace fastarch::cuda
