// Contract: softmax and softmax with cross-entropy over the rows of a matrix.
#pragma once
#include "core/types.h"

namespace fastarch {

// One declaration per device, in the namespaces below. Every output is overwritten. The maximum of a row is
// subtracted before exponentials are taken; a row that holds NaN or +inf, or nothing but -inf, becomes NaN,
// as in PyTorch.
//
// softmax_forward: x [M, C]; y [M, C] = exp(x) / sum over the row; y may be x.
// softmax_backward: dy, y [M, C]; dx [M, C] = y * (dy - sum over the row of dy*y); dx may be dy.
//
// cross_entropy_forward: x [M, C]; target [M] in [0, C) or ignore_index; loss [M] = -log(softmax(x)[target]),
// 0 where ignored, NaN where the target is out of range; probs [M, C] = softmax(x), in ignored rows too;
// probs may be x.
// cross_entropy_backward: dloss [M]; probs [M, C]; target [M]; dx [M, C] = (probs - onehot(target)) * dloss,
// 0 in ignored rows, NaN in rows whose target is out of range; dx may be probs.

namespace cpu {

template <class T>
void softmax_forward(const T* x, T* y, int64_t rows, int64_t classes, Stream stream);
template <class T>
void softmax_backward(const T* dy, const T* y, T* dx, int64_t rows, int64_t classes, Stream stream);

template <class T>
void cross_entropy_forward(const T* x, const int64_t* target, T* loss, T* probs, int64_t rows,
                           int64_t classes, int64_t ignore_index, Stream stream);
template <class T>
void cross_entropy_backward(const T* dloss, const T* probs, const int64_t* target, T* dx, int64_t rows,
                            int64_t classes, int64_t ignore_index, Stream stream);

}  // namespace cpu

namespace cuda {

template <class T>
void softmax_forward(const T* x, T* y, int64_t rows, int64_t classes, Stream stream);
template <class T>
void softmax_backward(const T* dy, const T* y, T* dx, int64_t rows, int64_t classes, Stream stream);

template <class T>
void cross_entropy_forward(const T* x, const int64_t* target, T* loss, T* probs, int64_t rows,
                           int64_t classes, int64_t ignore_index, Stream stream);
template <class T>
void cross_entropy_backward(const T* dloss, const T* probs, const int64_t* target, T* dx, int64_t rows,
                            int64_t classes, int64_t ignore_index, Stream stream);

}  // namespace cuda
}  // namespace fastarch
