// The input gradient of a convolution of channels-last images: dx [pixel, channel] = patches of dy
// [pixel, tap] * filters [channel, tap], for each stride phase (products.h). The filters are turned and
// sorted by phase first, so that those of a phase are dense lines.
#include "conv2d/channels_last.h"
#include "conv2d/filters.h"
#include "conv2d/products.h"
#include "conv2d/windows.h"
#include "depthwise/channels.h"
#include "gemm/channels_last.h"
#include "gemm/dense.h"
#include "gemm/mma.h"

namespace fastarch::cuda::channels_last {
namespace {

template <class T, int Width>
struct InputGradient {
  using Value = T;
  using Parts = Operands<PixelRows<T, Width>, Matrix<T, true>, PixelResult<T>, T>;
  static constexpr bool kRowSums = false;

  PixelRows<T, Width> patches;  // of dy
  Matrix<T, true> lines;        // of phase 0
  PixelResult<T> result;
  int64_t channels, filters;  // of one group
  int phase_count;
  Phase phases[kMostPhases];

  std::string traits() const {  // the other phases are much like the first
    ChannelPatches<T, Width> first = patches.source;
    first.pixels = phases[0].pixels;
    first.window = phases[0].window;
    return concat(first.traits(), " ", lines.traits(), ", ", phase_count, " phases, ", result.traits());
  }

  __device__ __forceinline__ Parts at(int batch) const {
    const int group = batch / phase_count;
    const Phase& phase = phases[batch - group * phase_count];
    Parts one{patches, lines, result, phase.columns, channels, phase.taps};
    one.a.source.x += group * filters;
    one.a.source.columns = phase.columns;
    one.a.source.taps = phase.taps;
    one.a.source.pixels = phase.pixels;
    one.a.source.window = phase.window;
    one.a.source.origin_h = phase.origin_h;
    one.a.source.origin_w = phase.origin_w;
    one.b.data += phase.first_tap + group * channels * phase.taps;
    one.b.pitch = phase.taps;
    one.result.out += group * channels + phase.first_pixel;
    one.result.pixels = phase.pixels;
    return one;
  }
};

}  // namespace

template <class T>
void backward_input(const T* dy, const T* weight, T* dx, const Conv2dShape& s, Precision precision,
                    Stream stream) {
  const char* const name = "conv2d_backward_input";
  if (is_dense(s)) return linear_backward_input(dy, weight, dx, s.n * s.h * s.w, s.c, s.k, precision, stream);
  if (depthwise::is_depthwise(s)) return depthwise::channels_backward_input(dy, weight, dx, s, stream);
  const AxisPhases rows = input_gradient_axis(s.h, s.r, s.stride_h, s.padding_h, s.dilation_h);
  const AxisPhases columns = input_gradient_axis(s.w, s.s, s.stride_w, s.padding_w, s.dilation_w);
  const int64_t channels = s.c / s.groups, filters = s.k / s.groups, size = s.n * s.c * s.h * s.w;
  if (size == 0) return;
  if (!rows.complete || !columns.complete)
    check_cuda(cudaMemsetAsync(dx, 0, size * sizeof(T), static_cast<cudaStream_t>(stream)),
               "cudaMemsetAsync");

  const PhasedFilters sorted{s.c,
                             filters,
                             {static_cast<uint32_t>(s.r), static_cast<uint32_t>(rows.tap_step)},
                             {static_cast<uint32_t>(s.s), static_cast<uint32_t>(columns.tap_step)}};
  const Buffer<T> packed(s.c * filters * s.r * s.s, stream);
  turn_filters(name, weight, packed.data(), sorted, s.groups, stream);
  if (s.groups == 1 && s.stride_h == 1 && s.stride_w == 1 &&
      convolve_wgmma(name, gradient_windows_of(dy, s),
                     FilterLines<T>{packed.data(), channels, filters * s.r * s.s, s.r * s.s, filters},
                     ChannelResult<T>{dx, s.c, nullptr, nullptr, Activation::none}, precision, stream))
    return;
  with_width(dy, filters, [&]<int Width>() {
    const ChannelPatches<T, Width> patches{.x = dy,
                                           .image_pitch = s.p * s.q * s.k,
                                           .pixel_pitch = s.k,
                                           .height = static_cast<int>(s.p),
                                           .width = static_cast<int>(s.q),
                                           .channels = FastDivider(filters),
                                           .step_h = static_cast<int>(-rows.step),
                                           .step_w = static_cast<int>(-columns.step)};
    InputGradient<T, Width> problem{
        {patches},
        {packed.data(), channels, filters, filters},  // a phase's pitch is a multiple of this one
        {dx, s.h * s.w * s.c, s.stride_h * s.w * s.c, s.stride_w * s.c},
        channels,
        filters,
        0,
        {}};
    Shape shape{0, 0, channels, 0};
    const auto launch_phases = [&] {
      shape.batches = s.groups * problem.phase_count;
      multiply(name, problem, shape, false, stream, precision);
      problem.phase_count = 0;
      shape.m = shape.k = 0;
    };
    for (const AxisPhase& h : rows.phases) {
      for (const AxisPhase& w : columns.phases) {
        Phase& phase = problem.phases[problem.phase_count++];
        phase = {.pixels = Grid(h.pixels, w.pixels),
                 .window = Grid(h.taps, w.taps),
                 .columns = s.n * h.pixels * w.pixels,
                 .taps = filters * h.taps * w.taps,
                 .first_pixel = (h.first * s.w + w.first) * s.c,
                 .first_tap =
                     sorted.offset(static_cast<uint32_t>(h.tap_first), static_cast<uint32_t>(w.tap_first)),
                 .origin_h = static_cast<int>(h.origin),
                 .origin_w = static_cast<int>(w.origin)};
        shape.m = std::max(shape.m, phase.columns);
        shape.k = std::max(shape.k, phase.taps);
        if (problem.phase_count == kMostPhases) launch_phases();
      }
    }
    if (problem.phase_count > 0) launch_phases();
  });
}

#define INSTANTIATE(T) \
  template void backward_input(const T*, const T*, T*, const Conv2dShape&, Precision, Stream);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(float16)
INSTANTIATE(bfloat16)
#undef INSTANTIATE

}  // namespace fastarch::cuda::channels_last
