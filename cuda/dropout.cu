// Dropout: one thread a Philox position, which is four elements, in a grid-stride loop; memory-bound.
#include "core/half.h"
#include "core/launch.h"
#include "core/philox.h"
#include "core/vector.h"
#include "ops/dropout.h"

namespace fastarch::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWords = 4;  // elements a Philox position serves

// packed: both pointers are aligned for Packs. y may be x.
template <class T>
__global__ void dropout_kernel(const T* x, T* y, int64_t n, bool packed, Compute<T> scale, uint32_t threshold,
                               uint64_t seed, uint64_t offset, const uint64_t* word) {
  if (word) offset = *word;
  constexpr int kPack = sizeof(T) == 8 ? 2 : kWords;  // at most 128 bits
  constexpr int kPacks = kWords / kPack;
  for (int64_t position = global_thread(); position * kWords < n; position += grid_threads()) {
    const PhiloxWords words = philox(seed, offset, static_cast<uint64_t>(position));
    const int64_t first = position * kWords;
    if (packed && first + kWords <= n) {
      for (int part = 0; part < kPacks; ++part) {
        Pack<T, kPack> pack = load_pack<T, kPack>(x, position * kPacks + part);
        for (int k = 0; k < kPack; ++k) {
          const bool kept = words.word[part * kPack + k] >= threshold;
          pack.value[k] = narrow<T>(kept ? widen(pack.value[k]) * scale : 0);
        }
        store_pack(y, position * kPacks + part, pack);
      }
    } else {
      for (int k = 0; k < kWords && first + k < n; ++k)
        y[first + k] = narrow<T>(words.word[k] >= threshold ? widen(x[first + k]) * scale : 0);
    }
  }
}

template <class T>
__global__ void zero_kernel(T* y, int64_t n) {
  for (int64_t i = global_thread(); i < n; i += grid_threads()) y[i] = narrow<T>(0);
}

}  // namespace

template <class T>
void dropout_forward(const T* x, T* y, int64_t n, double p, uint64_t seed, uint64_t offset,
                     const uint64_t* word, Stream stream) {
  if (n == 0) return;
  if (p >= 1) {  // no threshold of 32 bits drops every word
    launch("dropout_forward", zero_kernel<T>, grid_for(n, kThreads), kThreads, 0, stream, y, n);
    return;
  }
  const dim3 grid = grid_for((n + kWords - 1) / kWords, kThreads);
  const auto scale = static_cast<Compute<T>>(1 / (1 - p));
  launch("dropout_forward", dropout_kernel<T>, grid, kThreads, 0, stream, x, y, n, packable(x, y), scale,
         dropout_threshold(p), seed, offset, word);
}

#define INSTANTIATE(T) \
  template void dropout_forward(const T*, T*, int64_t, double, uint64_t, uint64_t, const uint64_t*, Stream);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(float16)
INSTANTIATE(bfloat16)

}  // namespace fastarch::cuda
