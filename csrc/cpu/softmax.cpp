// Softmax and cross-entropy, a row at a time.
#include "ops/softmax.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/thread_pool.h"
#include "cpu/kernels.h"

namespace fastarch::cpu {
namespace {

// Rows worth a thread.
int64_t grain(int64_t classes) { return 1 + 8192 / (classes + 8); }

}  // namespace

template <class T>
void softmax_forward(const T* x, T* y, int64_t rows, int64_t classes, Stream) {
  if (rows * classes == 0) return;
  parallel_for(rows, grain(classes), [=](int64_t begin, int64_t end) {
    T maximum, total;
    for (int64_t i = begin; i < end; ++i)
      kernels<T>().softmax(x + i * classes, y + i * classes, classes, &maximum, &total);
  });
}

template <class T>
void softmax_backward(const T* dy, const T* y, T* dx, int64_t rows, int64_t classes, Stream) {
  if (rows * classes == 0) return;
  parallel_for(rows, grain(classes), [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      kernels<T>().softmax_backward(dy + i * classes, y + i * classes, dx + i * classes, classes);
  });
}

template <class T>
void cross_entropy_forward(const T* x, const int64_t* target, T* loss, T* probs, int64_t rows,
                           int64_t classes, int64_t ignore_index, Stream) {
  parallel_for(rows, grain(classes), [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const T* row = x + i * classes;
      const bool known = target[i] != ignore_index && target[i] >= 0 && target[i] < classes;
      const T at_target = known ? row[target[i]] : T(0);  // before probs, which may be x, is written
      T maximum = 0, total = 1;
      if (classes > 0) kernels<T>().softmax(row, probs + i * classes, classes, &maximum, &total);
      loss[i] = known                       ? std::log(total) - (at_target - maximum)
                : target[i] == ignore_index ? T(0)
                                            : std::numeric_limits<T>::quiet_NaN();
    }
  });
}

template <class T>
void cross_entropy_backward(const T* dloss, const T* probs, const int64_t* target, T* dx, int64_t rows,
                            int64_t classes, int64_t ignore_index, Stream) {
  if (rows * classes == 0) return;
  parallel_for(rows, grain(classes), [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const T* p = probs + i * classes;
      T* row = dx + i * classes;
      const bool ignored = target[i] == ignore_index;
      if (ignored || target[i] < 0 || target[i] >= classes) {
        std::fill(row, row + classes, ignored ? T(0) : std::numeric_limits<T>::quiet_NaN());
      } else {
        const T slope = (p[target[i]] - T(1)) * dloss[i];
        for (int64_t c = 0; c < classes; ++c) row[c] = p[c] * dloss[i];
        row[target[i]] = slope;
      }
    }
  });
}

#define INSTANTIATE(T)                                                                                      \
  template void softmax_forward(const T*, T*, int64_t, int64_t, Stream);                                    \
  template void softmax_backward(const T*, const T*, T*, int64_t, int64_t, Stream);                         \
  template void cross_entropy_forward(const T*, const int64_t*, T*, T*, int64_t, int64_t, int64_t, Stream); \
  template void cross_entropy_backward(const T*, const T*, const int64_t*, T*, int64_t, int64_t, int64_t,   \
                                       Stream);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace fastarch::cpu
