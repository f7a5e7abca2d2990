// Words of a random stream, and words that are set for others to read.
#include "ops/words.h"

#include <algorithm>

#include "core/philox_fill.h"

namespace fastarch::cpu {

void store_words(uint64_t* words, const uint64_t* values, int64_t n, Stream) {
  std::copy_n(values, n, words);
}

void random_words(uint32_t* words, int64_t n, int64_t start, uint64_t seed, uint64_t offset,
                  const uint64_t* word, Stream) {
  if (word) offset = *word;
  philox_range(seed, offset, start, n, words);
}

}  // namespace fastarch::cpu
