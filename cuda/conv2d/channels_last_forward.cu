// Convolution of channels-last images: y [pixel, filter] = patches of x [pixel, tap] * filters [filter, tap],
// then bias, residual and activation. The filters are copied into the patches' order first.
#include "conv2d/channels_last.h"
#include "conv2d/filters.h"
#include "conv2d/windows.h"
#include "depthwise/channels.h"
#include "gemm/channels_last.h"
#include "gemm/dense.h"
#include "gemm/mma.h"

namespace fastarch::cuda::channels_last {
namespace {

template <class T, int Width>
struct Forward {
  using Value = T;
  using Parts = Operands<PixelRows<T, Width>, Matrix<T, true>, ChannelResult<T>, T>;
  static constexpr bool kRowSums = false;

  Parts group0;
  int64_t channels;  // of one group

  std::string traits() const { return traits_of(group0.a) + " " + traits_of(group0.b); }

  __device__ __forceinline__ Parts at(int group) const {
    Parts one = group0;
    one.a.source.x += group * channels;
    one.b.data += group * one.n * one.b.pitch;
    one.result.out += group * one.n;
    if (one.result.bias) one.result.bias += group * one.n;
    if (one.result.residual) one.result.residual += group * one.n;
    return one;
  }
};

}  // namespace

template <class T>
void forward(const T* x, const T* weight, const T* bias, const T* residual, T* y, const Conv2dShape& s,
             Activation kind, Precision precision, Stream stream) {
  const char* const name = "conv2d_forward";
  if (is_dense(s) && !residual)
    return linear_forward(x, weight, bias, y, s.n * s.h * s.w, s.c, s.k, kind, precision, stream);
  if (depthwise::is_depthwise(s))
    return depthwise::channels_forward(x, weight, bias, residual, y, s, kind, stream);

  const int64_t channels = s.c / s.groups, filters = s.k / s.groups, window = s.r * s.s;
  const int64_t taps = channels * window, pixels = s.n * s.p * s.q;
  // Lines that are whole vectors may be read as such; 1x1 filters lie as wanted.
  const int64_t pitch = window == 1 ? taps : divide_up(taps, kVector<T>) * kVector<T>;
  const Buffer<T> packed(window == 1 ? 0 : s.k * pitch, stream);
  if (window > 1) pack_filters(name, weight, packed.data(), s.k, channels, window, pitch, stream);
  const T* const lines = window == 1 ? weight : packed.data();
  if (s.groups == 1 &&
      convolve_wgmma(name, windows_of(x, s), FilterLines<T>{lines, filters, pitch, window, channels},
                     ChannelResult<T>{y, s.k, bias, residual, kind}, precision, stream))
    return;
  with_width(x, channels, [&]<int Width>() {
    const Forward<T, Width> problem{{{patches_of<T, Width>(x, s)},
                                     {lines, filters, pitch, pitch},
                                     {y, s.k, bias, residual, kind},
                                     pixels,
                                     filters,
                                     taps},
                                    channels};
    multiply(name, problem, {s.groups, pixels, filters, taps}, false, stream, precision);
  });
}

#define INSTANTIATE(T)                                                                              \
  template void forward(const T*, const T*, const T*, const T*, T*, const Conv2dShape&, Activation, \
                        Precision, Stream);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(float16)
INSTANTIATE(bfloat16)
#undef INSTANTIATE

}  // namespace fastarch::cuda::channels_last
