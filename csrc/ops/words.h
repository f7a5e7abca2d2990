// Contract: words of memory that launches read: numbers that the host sets, and a random stream's words.
#pragma once
#include "core/types.h"

namespace fastarch {

// One declaration per device.
// store_words: words: [n], overwritten with values: [n], in host memory, which has been read when the call
// returns: it may be changed at once, whatever the stream still has to do.
// random_words: words: [n], overwritten: word i is word start + i of the Philox stream (seed, offset). word:
// null, or where words lie: the offset, read when the kernel runs in place of `offset`.

namespace cpu {

void store_words(uint64_t* words, const uint64_t* values, int64_t n, Stream stream);
void random_words(uint32_t* words, int64_t n, int64_t start, uint64_t seed, uint64_t offset,
                  const uint64_t* word, Stream stream);

}  // namespace cpu

namespace cuda {

void store_words(uint64_t* words, const uint64_t* values, int64_t n, Stream stream);
void random_words(uint32_t* words, int64_t n, int64_t start, uint64_t seed, uint64_t offset,
                  const uint64_t* word, Stream stream);

}  // namespace cuda
}  // namespace fastarch
