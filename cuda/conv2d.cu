// Two-dimensional convolution and its gradients: three matrix products on the multiply of gemm/simt.h and
// gemm/mma.h.
//
// Each group is one product of a batch. Pixels run along the columns, because an [N, C, H, W] tensor stores
// the pixels of a channel side by side.
//   y  [filter, pixel]  = weight [filter, tap]  * patches of x [tap, pixel], then bias, residual and
//   activation dx [channel, pixel] = weight [channel, tap] * patches of dy [tap, pixel] dw [filter, tap]    =
//   dy [filter, pixel]    * patches of x [pixel, tap];  db = the row sums of dy
//
// The input gradient gathers. With a stride, a pixel is reached only by the taps r with h + padding equal to
// r * dilation modulo the stride. So the pixels of one residue, a phase, see the same few taps, and are by
// themselves a convolution of dy with stride 1: no multiplication by a structural zero, and no two threads
// that add to the same pixel.
//
// Depthwise convolution has kernels of its own (depthwise/), 1x1 filters have readers of theirs
// (conv2d/pointwise.h).
#include <algorithm>
#include <numeric>
#include <vector>

#include "conv2d/pointwise.h"
#include "depthwise/weights.h"
#include "gemm/matrix.h"
#include "gemm/mma.h"
#include "gemm/patches.h"
#include "ops/conv2d.h"

namespace fastarch::cuda {
namespace {

template <class T>
struct Forward {
  using Value = T;
  using Parts = Operands<Matrix<T, true>, PixelColumns<T>, ImageResult<T>, T>;
  static constexpr bool kRowSums = false;

  Matrix<T, true> weight;
  PixelColumns<T> patches;
  ImageResult<T> result;
  int64_t filters, taps, channels_pitch;  // of one group

  __device__ __forceinline__ Parts at(int group) const {
    Parts one{weight, patches, result, filters, patches.source.columns, taps};
    one.a.data += group * filters * taps;
    one.b.source.x += group * channels_pitch;
    one.result.out += group * filters * result.channel_pitch;
    if (result.residual) one.result.residual += group * filters * result.channel_pitch;
    if (result.bias) one.result.bias += group * filters;
    return one;
  }
};

// The pixels h = first + stride * i of one axis, and what reaches them: dy at origin + i - step * j through
// tap tap_first + tap_step * j.
struct AxisPhase {
  int64_t first, pixels, origin, tap_first, taps;
};

struct Axis {
  std::vector<AxisPhase> phases;  // those that some tap reaches
  bool complete;                  // they are all
  int64_t tap_step, step;
};

Axis input_gradient_axis(int64_t extent, int64_t window, int64_t stride, int64_t padding, int64_t dilation) {
  const int64_t common = std::gcd(stride, dilation);
  Axis axis{{}, false, stride / common, dilation / common};
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

// The phases are members of the batch, so that one launch computes them all; they travel as kernel arguments.
constexpr int kMostPhases = 16;

struct Phase {
  Grid pixels, window;
  int64_t columns, taps;
  int64_t first_pixel, first_tap;  // offsets
  int origin_h, origin_w;
};

template <class T>
struct InputGradient {
  using Value = T;
  using Parts = Operands<FilterRows<T>, PixelColumns<T>, ImageResult<T>, T>;
  static constexpr bool kRowSums = false;

  FilterRows<T> weight;
  PixelColumns<T> patches;  // of dy
  ImageResult<T> result;
  int64_t channels, weight_pitch, filters_pitch;  // of one group
  int phase_count;
  Phase phases[kMostPhases];

  __device__ __forceinline__ Parts at(int batch) const {
    const int group = batch / phase_count;
    const Phase& phase = phases[batch - group * phase_count];
    Parts one{weight, patches, result, channels, phase.columns, phase.taps};
    one.a.w += group * weight_pitch + phase.first_tap;
    one.a.window = phase.window;
    one.b.source.x += group * filters_pitch;
    one.b.source.columns = phase.columns;
    one.b.source.pixels = phase.pixels;
    one.b.source.window = phase.window;
    one.b.source.origin_h = phase.origin_h;
    one.b.source.origin_w = phase.origin_w;
    one.result.out += group * channels * result.channel_pitch + phase.first_pixel;
    one.result.pixels = phase.pixels;
    return one;
  }
};

template <class T>
struct WeightGradient {
  using Value = T;
  using Parts = Operands<ChannelRows<T>, TapColumns<T>, MatrixResult<T>, T>;
  static constexpr bool kRowSums = true;

  ChannelRows<T> dy;
  TapColumns<T> patches;
  MatrixResult<T> result;
  T* db;
  int64_t pixels, taps, channels_pitch;  // N*P*Q; of one group

  __device__ __forceinline__ Parts at(int group) const {
    const int64_t filters = dy.channels;
    Parts one{dy, patches, result, filters, taps, pixels};
    one.a.dy += group * filters * dy.plane.divisor();
    one.b.source.x += group * channels_pitch;
    one.result.out += group * filters * taps;
    if (db) one.row_sums = db + group * filters;
    return one;
  }
};

void check_limits(const Conv2dShape& s, const char* op) {
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

template <class T>
Patches<T> input_patches(const T* x, const Conv2dShape& s) {
  return {.x = x,
          .image_pitch = s.c * s.h * s.w,
          .channel_pitch = static_cast<int>(s.h * s.w),
          .height = static_cast<int>(s.h),
          .width = static_cast<int>(s.w),
          .columns = s.n * s.p * s.q,
          .taps = s.c / s.groups * s.r * s.s,
          .pixels = Grid(s.p, s.q),
          .window = Grid(s.r, s.s),
          .stride_h = static_cast<int>(s.stride_h),
          .stride_w = static_cast<int>(s.stride_w),
          .origin_h = static_cast<int>(-s.padding_h),
          .origin_w = static_cast<int>(-s.padding_w),
          .step_h = static_cast<int>(s.dilation_h),
          .step_w = static_cast<int>(s.dilation_w)};
}

}  // namespace

template <class T>
void conv2d_forward(const T* x, const T* weight, const T* bias, const T* residual, T* y, const Conv2dShape& s,
                    Activation kind, Precision precision, Stream stream) {
  check_limits(s, "conv2d_forward");
  if (depthwise::takes<T>(s, false)) return depthwise::forward(x, weight, bias, residual, y, s, kind, stream);
  const ImageResult<T> result{y, s.k * s.p * s.q, s.p * s.q, Grid(s.p, s.q), s.q, 1, bias, residual, kind};
  if (pointwise::takes(s, x)) return pointwise::forward(x, weight, result, s, precision, stream);
  const PixelColumns<T> patches{input_patches(x, s)};
  const int64_t filters = s.k / s.groups, taps = patches.source.taps;
  const Forward<T> problem{{weight, filters, taps, taps}, patches, result, filters, taps,
                           s.c / s.groups * s.h * s.w};
  multiply("conv2d_forward", problem, {s.groups, filters, patches.source.columns, taps}, false, stream,
           precision);
}

template <class T>
void conv2d_backward_input(const T* dy, const T* weight, T* dx, const Conv2dShape& s, Precision precision,
                           Stream stream) {
  check_limits(s, "conv2d_backward_input");
  if (depthwise::takes<T>(s, true)) return depthwise::backward_input(dy, weight, dx, s, stream);
  if (pointwise::takes(s, dy)) return pointwise::backward_input(dy, weight, dx, s, precision, stream);
  const Axis rows = input_gradient_axis(s.h, s.r, s.stride_h, s.padding_h, s.dilation_h);
  const Axis columns = input_gradient_axis(s.w, s.s, s.stride_w, s.padding_w, s.dilation_w);
  const int64_t channels = s.c / s.groups, filters = s.k / s.groups, size = s.n * s.c * s.h * s.w;
  if (size == 0) return;
  if (!rows.complete || !columns.complete)
    check_cuda(cudaMemsetAsync(dx, 0, size * sizeof(T), static_cast<cudaStream_t>(stream)),
               "cudaMemsetAsync");

  InputGradient<T> problem{};
  problem.weight = FilterRows<T>{.w = weight,
                                 .channels = channels,
                                 .filter_pitch = channels * s.r * s.s,
                                 .channel_pitch = static_cast<int>(s.r * s.s),
                                 .tap_pitch_h = static_cast<int>(rows.tap_step * s.s),
                                 .tap_pitch_w = static_cast<int>(columns.tap_step)};
  problem.patches.source = Patches<T>{.x = dy,
                                      .image_pitch = s.k * s.p * s.q,
                                      .channel_pitch = static_cast<int>(s.p * s.q),
                                      .height = static_cast<int>(s.p),
                                      .width = static_cast<int>(s.q),
                                      .step_h = static_cast<int>(-rows.step),
                                      .step_w = static_cast<int>(-columns.step)};
  problem.result = ImageResult<T>{.out = dx,
                                  .image_pitch = s.c * s.h * s.w,
                                  .channel_pitch = s.h * s.w,
                                  .pitch_h = s.stride_h * s.w,
                                  .pitch_w = static_cast<int>(s.stride_w),
                                  .bias = nullptr,
                                  .residual = nullptr,
                                  .kind = Activation::none};
  problem.channels = channels;
  problem.weight_pitch = filters * channels * s.r * s.s;
  problem.filters_pitch = filters * s.p * s.q;

  Shape shape{0, channels, 0, 0};
  const auto launch_phases = [&] {
    shape.batches = s.groups * problem.phase_count;
    multiply("conv2d_backward_input", problem, shape, false, stream, precision);
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

template <class T>
void conv2d_backward_weight(const T* dy, const T* x, T* dw, T* db, const Conv2dShape& s, Precision precision,
                            Stream stream) {
  check_limits(s, "conv2d_backward_weight");
  if (depthwise::is_depthwise(s)) return depthwise::backward_weight(dy, x, dw, db, s, stream);
  if (pointwise::takes(s, dy, x)) return pointwise::backward_weight(dy, x, dw, db, s, precision, stream);
  const TapColumns<T> patches{input_patches(x, s)};
  const int64_t filters = s.k / s.groups, taps = patches.source.taps, pixels = patches.source.columns;
  const WeightGradient<T> problem{{dy, filters, s.k * s.p * s.q, s.p * s.q},
                                  patches,
                                  {dw, taps, nullptr, Activation::none},
                                  db,
                                  pixels,
                                  taps,
                                  s.c / s.groups * s.h * s.w};
  multiply("conv2d_backward_weight", problem, {s.groups, filters, taps, pixels}, db != nullptr, stream,
           precision);
}

#define INSTANTIATE(T)                                                                                     \
  template void conv2d_forward(const T*, const T*, const T*, const T*, T*, const Conv2dShape&, Activation, \
                               Precision, Stream);                                                         \
  template void conv2d_backward_input(const T*, const T*, T*, const Conv2dShape&, Precision, Stream);      \
  template void conv2d_backward_weight(const T*, const T*, T*, T*, const Conv2dShape&, Precision, Stream);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(float16)
INSTANTIATE(bfloat16)
#undef INSTANTIATE

}  // namespace fastarch::cuda
