// Convolution with 1x1 filters as plain products, one for each group, in [N, C, H, W]:
//   y  [filter, pixel]   = weight [filter, channel] * x [channel, pixel], then bias and activation
//   dx [channel, pixel]  = weight^T [channel, filter] * dy [filter, pixel]
//   dw [filter, channel] = dy [filter, pixel] * x^T [pixel, channel];  db = the row sums of dy
#include "conv2d/pointwise.h"
#include "gemm/mma.h"

namespace fastarch::cuda::pointwise {
namespace {

// y = W x with the filters' channels along k, or dx = W^T dy with them side by side.
template <class T, bool Transposed>
struct Images {
  using Value = T;
  using Parts = Operands<Matrix<T, !Transposed>, PlaneColumns<T>, ImageResult<T>, T>;
  static constexpr bool kRowSums = false;

  Parts group0;

  __device__ __forceinline__ Parts at(int group) const {
    Parts one = group0;
    one.a.data += group * one.m * one.k;
    one.b.x += group * one.k * one.b.plane.divisor();
    one.result.out += group * one.m * one.result.channel_pitch;
    if (one.result.bias) one.result.bias += group * one.m;
    if (one.result.residual) one.result.residual += group * one.m * one.result.channel_pitch;
    return one;
  }
};

template <class T>
struct Weights {
  using Value = T;
  using Parts = Operands<ChannelRows<T>, ChannelRows<T>, MatrixResult<T>, T>;
  static constexpr bool kRowSums = true;

  Parts group0;

  __device__ __forceinline__ Parts at(int group) const {
    Parts one = group0;
    one.a.dy += group * one.m * one.a.plane.divisor();
    one.b.dy += group * one.n * one.b.plane.divisor();
    one.result.out += group * one.m * one.n;
    if (one.row_sums) one.row_sums += group * one.m;
    return one;
  }
};

template <class T, bool Transposed>
void multiply_images(const char* name, const T* weight, const T* x, const ImageResult<T>& result,
                     const Conv2dShape& s, Precision precision, Stream stream) {
  const int64_t pixels = s.h * s.w, columns = s.n * pixels, filters = s.k / s.groups,
                channels = s.c / s.groups;
  const int64_t m = Transposed ? channels : filters, k = Transposed ? filters : channels;
  const Images<T, Transposed> problem{{{weight, m, k, channels},
                                       {x, columns, (Transposed ? s.k : s.c) * pixels, FastDivider(pixels)},
                                       result,
                                       m,
                                       columns,
                                       k}};
  multiply(name, problem, {s.groups, m, columns, k}, false, stream, precision);
}

}  // namespace

template <class T>
void forward(const T* x, const T* weight, const ImageResult<T>& result, const Conv2dShape& s,
             Precision precision, Stream stream) {
  multiply_images<T, false>("conv2d_forward", weight, x, result, s, precision, stream);
}

template <class T>
void backward_input(const T* dy, const T* weight, T* dx, const Conv2dShape& s, Precision precision,
                    Stream stream) {
  const int64_t pixels = s.h * s.w;
  const ImageResult<T> result{.out = dx,
                              .image_pitch = s.c * pixels,
                              .channel_pitch = pixels,
                              .pixels = Grid(s.h, s.w),
                              .pitch_h = s.w,
                              .pitch_w = 1,
                              .bias = nullptr,
                              .residual = nullptr,
                              .kind = Activation::none};
  multiply_images<T, true>("conv2d_backward_input", weight, dy, result, s, precision, stream);
}

template <class T>
void backward_weight(const T* dy, const T* x, T* dw, T* db, const Conv2dShape& s, Precision precision,
                     Stream stream) {
  const int64_t pixels = s.h * s.w, filters = s.k / s.groups, channels = s.c / s.groups;
  const Weights<T> problem{{{dy, filters, s.k * pixels, pixels},
                            {x, channels, s.c * pixels, pixels},
                            {dw, channels, nullptr, Activation::none},
                            filters,
                            channels,
                            s.n * pixels,
                            db}};
  multiply("conv2d_backward_weight", problem, {s.groups, filters, channels, s.n * pixels}, db != nullptr,
           stream, precision);
}

#define INSTANTIATE(T)                                                                                     \
  template void forward(const T*, const T*, const ImageResult<T>&, const Conv2dShape&, Precision, Stream); \
  template void backward_input(const T*, const T*, T*, const Conv2dShape&, Precision, Stream);             \
  template void backward_weight(const T*, const T*, T*, T*, const Conv2dShape&, Precision, Stream);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(float16)
INSTANTIATE(bfloat16)
#undef INSTANTIATE

}  // namespace fastarch::cuda::pointwise
