// Contract: fully connected layer.
#pragma once
#include "core/types.h"

namespace fastarch {

namespace cuda {

// y = activation(x weight^T + bias). x: [m, in]; weight: [out, in]; bias: [out] or null; y: [m, out],
// overwritten.
template <class T>
void linear_forward(const T* x, const T* weight, const T* bias, T* y, int64_t m, int64_t in, int64_t out,
                    Activation kind, Precision precision, Stream stream);

// dx = dy weight, with dy the gradient before the activation. dy: [m, out]; weight: [out, in]; dx: [m, in],
// overwritten.
template <class T>
void linear_backward_input(const T* dy, const T* weight, T* dx, int64_t m, int64_t in, int64_t out,
                           Precision precision, Stream stream);

// dw = dy^T x, db = the sum of dy's rows. dy: [m, out]; x: [m, in]; dw: [out, in], overwritten; db: [out],
// overwritten, or null. Zeros where m is 0. The same call gives the same bits.
template <class T>
void linear_backward_weight(const T* dy, const T* x, T* dw, T* db, int64_t m, int64_t in, int64_t out,
                            Precision precision, Stream stream);

// Whether products may take the multiply that only sm_90a has (gemm/wgmma.h), which is not the default: what
// the environment variable FASTARCH_WGMMA said at first. Returns what was so before.
bool set_wgmma(bool on);
// How many products have taken it in this process.
int64_t wgmma_products();

}  // namespace cuda

// The same on the CPU. Results do not depend on the number of threads.
namespace cpu {

template <class T>
void linear_forward(const T* x, const T* weight, const T* bias, T* y, int64_t m, int64_t in, int64_t out,
                    Activation kind, Precision precision, Stream stream);
template <class T>
void linear_backward_input(const T* dy, const T* weight, T* dx, int64_t m, int64_t in, int64_t out,
                           Precision precision, Stream stream);
template <class T>
void linear_backward_weight(const T* dy, const T* x, T* dw, T* db, int64_t m, int64_t in, int64_t out,
                            Precision precision, Stream stream);

}  // namespace cpu
}  // namespace fastarch
