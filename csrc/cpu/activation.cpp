// Elementwise activations.
#include "ops/activation.h"

#include "core/thread_pool.h"
#include "cpu/kernels.h"

namespace fastarch::cpu {
namespace {

constexpr int64_t kGrain = 16384;  // elements worth a thread

}  // namespace

template <class T>
void activation_forward(const T* x, T* y, int64_t n, Activation kind, Stream) {
  parallel_for(n, kGrain, [=](int64_t begin, int64_t end) {
    kernels<T>().activate(x + begin, y + begin, end - begin, kind);
  });
}

template <class T>
void activation_backward(const T* dy, const T* y, T* dx, int64_t n, Activation kind, Stream) {
  parallel_for(n, kGrain, [=](int64_t begin, int64_t end) {
    kernels<T>().activate_backward(dy + begin, y + begin, dx + begin, end - begin, kind);
  });
}

template void activation_forward(const float*, float*, int64_t, Activation, Stream);
template void activation_forward(const double*, double*, int64_t, Activation, Stream);
template void activation_backward(const float*, const float*, float*, int64_t, Activation, Stream);
template void activation_backward(const double*, const double*, double*, int64_t, Activation, Stream);

}  // namespace fastarch::cpu
