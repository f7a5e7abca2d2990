// Elementwise activations: one thread an element in a grid-stride loop; memory-bound.
#include "core/launch.h"
#include "core/math.h"
#include "ops/activation.h"

namespace fastarch::cuda {
namespace {

constexpr int kThreads = 256;

template <class T>
__global__ void activation_forward_kernel(const T* __restrict__ x, T* __restrict__ y, int64_t n,
                                          Activation kind) {
  for (int64_t i = global_thread(); i < n; i += grid_threads()) y[i] = activate(x[i], kind);
}

template <class T>
__global__ void activation_backward_kernel(const T* dy, const T* y, T* dx, int64_t n, Activation kind) {
  for (int64_t i = global_thread(); i < n; i += grid_threads()) dx[i] = dy[i] * activation_slope(y[i], kind);
}

}  // namespace

template <class T>
void activation_forward(const T* x, T* y, int64_t n, Activation kind, Stream stream) {
  launch("activation_forward", activation_forward_kernel<T>, grid_for(n, kThreads), kThreads, 0, stream, x, y,
         n, kind);
}

template <class T>
void activation_backward(const T* dy, const T* y, T* dx, int64_t n, Activation kind, Stream stream) {
  launch("activation_backward", activation_backward_kernel<T>, grid_for(n, kThreads), kThreads, 0, stream, dy,
         y, dx, n, kind);
}

template void activation_forward(const float*, float*, int64_t, Activation, Stream);
template void activation_forward(const double*, double*, int64_t, Activation, Stream);
template void activation_backward(const float*, const float*, float*, int64_t, Activation, Stream);
template void activation_backward(const double*, const double*, double*, int64_t, Activation, Stream);

}  // namespace fastarch::cuda
