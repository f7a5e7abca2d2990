// Words that other launches read. Those of the host travel as a kernel's arguments, which are copied when it
// is launched: nothing waits, and no page-locked memory has to outlive the launch.
#include <algorithm>

#include "core/launch.h"
#include "core/philox.h"
#include "ops/words.h"

namespace fastarch::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kStored = 500;  // words at a time: a kernel has 4 KB of arguments

struct Values {
  uint64_t word[kStored];
};

__global__ void store_kernel(uint64_t* words, const __grid_constant__ Values values, int n) {
  for (int i = threadIdx.x; i < n; i += kThreads) words[i] = values.word[i];
}

// One thread a Philox position, in a grid-stride loop.
__global__ void random_kernel(uint32_t* words, int64_t n, int64_t start, uint64_t seed, uint64_t offset,
                              const uint64_t* word) {
  if (word) offset = *word;
  const int64_t first = start / 4, positions = (start + n + 3) / 4 - first;
  for (int64_t p = global_thread(); p < positions; p += grid_threads()) {
    const PhiloxWords drawn = philox(seed, offset, static_cast<uint64_t>(first + p));
    const int64_t begin = 4 * (first + p) - start;
    for (int k = 0; k < 4; ++k)
      if (begin + k >= 0 && begin + k < n) words[begin + k] = drawn.word[k];
  }
}

}  // namespace

void store_words(uint64_t* words, const uint64_t* values, int64_t n, Stream stream) {
  for (int64_t i = 0; i < n; i += kStored) {
    const int count = static_cast<int>(std::min<int64_t>(kStored, n - i));
    Values part{};
    std::copy_n(values + i, count, part.word);
    launch("store_words", store_kernel, dim3(1), kThreads, 0, stream, words + i, part, count);
  }
}

void random_words(uint32_t* words, int64_t n, int64_t start, uint64_t seed, uint64_t offset,
                  const uint64_t* word, Stream stream) {
  if (n == 0) return;
  launch("random_words", random_kernel, grid_for((n + 3) / 4 + 1, kThreads), kThreads, 0, stream, words, n,
         start, seed, offset, word);
}

}  // namespace fastarch::cuda
