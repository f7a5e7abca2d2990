// The weight gradient of a convolution of channels-last images: dw [filter, tap] = dy^T [filter, pixel] *
// patches of x [pixel, tap], stored as filters [K, C, R, S]; db = the row sums of dy^T, in the same pass.
#include "conv2d/channels_last.h"
#include "conv2d/windows.h"
#include "depthwise/channels.h"
#include "gemm/channels_last.h"
#include "gemm/dense.h"
#include "gemm/mma.h"

namespace fastarch::cuda::channels_last {
namespace {

template <class T, int Width>
struct WeightGradient {
  using Value = T;
  using Parts = Operands<Matrix<T, false>, TapLines<T, Width>, FilterResult<T>, T>;
  static constexpr bool kRowSums = true;

  Parts group0;
  int64_t channels;  // of one group

  std::string traits() const { return traits_of(group0.a) + " " + traits_of(group0.b); }

  __device__ __forceinline__ Parts at(int group) const {
    Parts one = group0;
    one.a.data += group * one.m;
    one.b.source.x += group * channels;
    one.result.out += group * one.m * one.n;
    if (one.row_sums) one.row_sums += group * one.m;
    return one;
  }
};

}  // namespace

template <class T>
void backward_weight(const T* dy, const T* x, T* dw, T* db, const Conv2dShape& s, Precision precision,
                     Stream stream) {
  if (is_dense(s)) return linear_backward_weight(dy, x, dw, db, s.n * s.h * s.w, s.c, s.k, precision, stream);
  if (depthwise::is_depthwise(s)) return depthwise::channels_backward_weight(dy, x, dw, db, s, stream);
  const int64_t channels = s.c / s.groups, filters = s.k / s.groups, taps = channels * s.r * s.s,
                pixels = s.n * s.p * s.q;
  const FilterResult<T> result{dw, taps, FastDivider(channels), static_cast<int>(s.r * s.s)};
  if (s.groups == 1 && convolve_weights_wgmma("conv2d_backward_weight", dy, filters, windows_of(x, s), result,
                                              db, precision, stream))
    return;
  with_width(x, channels, [&]<int Width>() {
    const WeightGradient<T, Width> problem{
        {{dy, filters, pixels, s.k}, {patches_of<T, Width>(x, s)}, result, filters, taps, pixels, db},
        channels};
    multiply("conv2d_backward_weight", problem, {s.groups, filters, taps, pixels}, db != nullptr, stream,
             precision);
  });
}

#define INSTANTIATE(T) \
  template void backward_weight(const T*, const T*, T*, T*, const Conv2dShape&, Precision, Stream);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(float16)
INSTANTIATE(bfloat16)
#undef INSTANTIATE

}  // namespace fastarch::cuda::channels_last
