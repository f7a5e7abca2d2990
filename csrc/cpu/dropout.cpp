// Dropout.
#include "ops/dropout.h"

#include <algorithm>

#include "core/thread_pool.h"
#include "cpu/kernels.h"

namespace fastarch::cpu {

template <class T>
void dropout_forward(const T* x, T* y, int64_t n, double p, uint64_t seed, uint64_t offset,
                     const uint64_t* word, Stream) {
  if (word) offset = *word;
  if (p >= 1) {  // no threshold of 32 bits drops every word
    std::fill(y, y + n, T(0));
    return;
  }
  const T scale = static_cast<T>(1 / (1 - p));
  const uint32_t threshold = dropout_threshold(p);
  constexpr int64_t kGrain = 2048;  // positions, of four elements, worth a thread
  parallel_for((n + 3) / 4, kGrain, [=](int64_t begin, int64_t end) {
    kernels<T>().dropout(x, y, begin, end, n, scale, threshold, seed, offset);
  });
}

#define INSTANTIATE(T) \
  template void dropout_forward(const T*, T*, int64_t, double, uint64_t, uint64_t, const uint64_t*, Stream);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace fastarch::cpu
