// Elementwise activations: 128-bit moves where the pointers are aligned, in a grid-stride loop; memory-bound.
#include "core/half.h"
#include "core/launch.h"
#include "core/math.h"
#include "core/vector.h"
#include "ops/activation.h"

namespace fastarch::cuda {
namespace {

constexpr int kThreads = 256;

// The first `packs` Packs by Packs, the rest of the n elements one by one. The output may be an input.
template <class T>
__global__ void activation_forward_kernel(const T* x, T* y, int64_t packs, int64_t n, Activation kind) {
  for (int64_t i = global_thread(); i < packs; i += grid_threads()) {
    Pack<T> pack = load_pack(x, i);
    for (T& value : pack.value) value = narrow<T>(activate(widen(value), kind));
    store_pack(y, i, pack);
  }
  for (int64_t i = packs * Pack<T>::size + global_thread(); i < n; i += grid_threads())
    y[i] = narrow<T>(activate(widen(x[i]), kind));
}

template <class T>
__global__ void activation_backward_kernel(const T* dy, const T* y, T* dx, int64_t packs, int64_t n,
                                           Activation kind) {
  for (int64_t i = global_thread(); i < packs; i += grid_threads()) {
    Pack<T> pack = load_pack(dy, i);
    const Pack<T> out = load_pack(y, i);
    for (int k = 0; k < Pack<T>::size; ++k)
      pack.value[k] = narrow<T>(activation_gradient(widen(pack.value[k]), widen(out.value[k]), kind));
    store_pack(dx, i, pack);
  }
  for (int64_t i = packs * Pack<T>::size + global_thread(); i < n; i += grid_threads())
    dx[i] = narrow<T>(activation_gradient(widen(dy[i]), widen(y[i]), kind));
}

}  // namespace

template <class T>
void activation_forward(const T* x, T* y, int64_t n, Activation kind, Stream stream) {
  if (n == 0) return;
  const int64_t packs = packable(x, y) ? n / Pack<T>::size : 0;
  launch("activation_forward", activation_forward_kernel<T>, grid_for(packs ? packs : n, kThreads), kThreads,
         0, stream, x, y, packs, n, kind);
}

template <class T>
void activation_backward(const T* dy, const T* y, T* dx, int64_t n, Activation kind, Stream stream) {
  if (n == 0) return;
  const int64_t packs = packable(dy, y, dx) ? n / Pack<T>::size : 0;
  launch("activation_backward", activation_backward_kernel<T>, grid_for(packs ? packs : n, kThreads),
         kThreads, 0, stream, dy, y, dx, packs, n, kind);
}

#define INSTANTIATE(T)                                                         \
  template void activation_forward(const T*, T*, int64_t, Activation, Stream); \
  template void activation_backward(const T*, const T*, T*, int64_t, Activation, Stream);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(float16)
INSTANTIATE(bfloat16)

}  // namespace fastarch::cuda
