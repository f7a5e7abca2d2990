// Contract: two-dimensional convolution (cross-correlation, as everywhere in deep learning).
#pragma once
#include "core/types.h"

namespace fastarch {

// How a convolution may be computed where there is a choice (3x3 filters, stride and dilation 1, one group,
// on CUDA in Layout::nchw); elsewhere, and in 16-bit floats, it is computed directly.
//   automatic  on a GPU directly; on the CPU by winograd2 where it is faster and its error bounded as
//              float32's (cpu/winograd_choice.h), else directly
//   direct     as the sum below
//   winograd2  by F(2x2, 3x3): 2.25 times fewer multiplications
//   winograd4  by F(4x4, 3x3): 4 times fewer, with about a digit less of accuracy
enum class ConvAlgorithm { automatic = 0, direct = 1, winograd2 = 2, winograd4 = 3 };

// y[n, k, p, q] = sum over c, r, s of
//   x[n, group(k) * C/groups + c, p * stride_h + r * dilation_h - padding_h,
//     q * stride_w + s * dilation_w - padding_w] * weight[k, c, r, s], with zeros outside of the image.
// Padding is what comes before the first row and column. What comes after the last ones follows from P and Q,
// which may have any size.
// With Layout::nhwc the images are [N, H, W, C] and [N, P, Q, K]; weights are the same in both.
struct Conv2dShape {
  int64_t n, c, h, w;  // x, dx: [N, C, H, W]
  int64_t k, r, s;     // weight, dw: [K, C/groups, R, S]; bias, db: [K]
  int64_t p, q;        // y, dy: [N, K, P, Q]
  int64_t groups = 1;
  int64_t stride_h = 1, stride_w = 1;
  int64_t padding_h = 0, padding_w = 0;
  int64_t dilation_h = 1, dilation_w = 1;
  ConvAlgorithm algorithm = ConvAlgorithm::automatic;
  Layout layout = Layout::nchw;
};

// The functions below throw std::invalid_argument where one channel of an image has more than 2^30 pixels, a
// filter more than 2^30 taps, or a padded extent reaches 2^29; the tensors may have any size.
namespace cuda {

// y = activation(convolution + bias + residual), overwritten; bias: [K] or null, residual: as y or null, not
// y's memory.
template <class T>
void conv2d_forward(const T* x, const T* weight, const T* bias, const T* residual, T* y,
                    const Conv2dShape& shape, Activation kind, Precision precision, Stream stream);

// dx, overwritten, from dy, the gradient before the activation. A pixel that no window covers gets zero.
template <class T>
void conv2d_backward_input(const T* dy, const T* weight, T* dx, const Conv2dShape& shape, Precision precision,
                           Stream stream);

// dw, overwritten, and db [K], overwritten, or null. Zeros where the batch is empty. The same call gives the
// same bits.
template <class T>
void conv2d_backward_weight(const T* dy, const T* x, T* dw, T* db, const Conv2dShape& shape,
                            Precision precision, Stream stream);

// Convolution, then max pooling over windows of 2x2 with stride 2, in one pass: y and argmax [N, K, P/2,
// Q/2], overwritten, where the shape's P and Q are even, those of the pixels that some window has. y =
// activation(maximum of convolution + bias); argmax, or null, has the place 0..3, row by row, of the maximum
// before the activation, as max_pool2d_forward of ops/pool2d.h has it.
template <class T>
void conv2d_max_pool_forward(const T* x, const T* weight, const T* bias, T* y, uint8_t* argmax,
                             const Conv2dShape& shape, Activation kind, Precision precision, Stream stream);

// Its gradients dx, dw and db, overwritten, each null where it is not wanted (no db without dw), from that of
// the maximum: dy [N, K, P/2, Q/2]; argmax as above, places beyond 3 have no gradient; y: null, or the output
// of a ReLU, which lets nothing through where y <= 0.
template <class T>
void conv2d_max_pool_backward(const T* dy, const T* y, const uint8_t* argmax, const T* x, const T* weight,
                              T* dx, T* dw, T* db, const Conv2dShape& shape, Precision precision,
                              Stream stream);

}  // namespace cuda

// The same on the CPU. Results do not depend on the number of threads.
namespace cpu {

template <class T>
void conv2d_forward(const T* x, const T* weight, const T* bias, const T* residual, T* y,
                    const Conv2dShape& shape, Activation kind, Precision precision, Stream stream);
template <class T>
void conv2d_backward_input(const T* dy, const T* weight, T* dx, const Conv2dShape& shape, Precision precision,
                           Stream stream);
template <class T>
void conv2d_backward_weight(const T* dy, const T* x, T* dw, T* db, const Conv2dShape& shape,
                            Precision precision, Stream stream);

template <class T>
void conv2d_max_pool_forward(const T* x, const T* weight, const T* bias, T* y, uint8_t* argmax,
                             const Conv2dShape& shape, Activation kind, Precision precision, Stream stream);
template <class T>
void conv2d_max_pool_backward(const T* dy, const T* y, const uint8_t* argmax, const T* x, const T* weight,
                              T* dx, T* dw, T* db, const Conv2dShape& shape, Precision precision,
                              Stream stream);

}  // namespace cpu
}  // namespace fastarch
