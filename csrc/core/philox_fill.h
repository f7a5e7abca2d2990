// Random words of many positions at once, with the widest vectors this processor has.
#pragma once
#include <cstdint>

namespace fastarch {

// words[4 * i + j] = word j of position + i of the stream (seed, offset), for i < count.
void philox_fill(uint64_t seed, uint64_t offset, uint64_t position, int64_t count, uint32_t* words);

// words[i] = word start + i of the stream, for i < n, wherever in a position these begin; on the threads'
// pool.
void philox_range(uint64_t seed, uint64_t offset, int64_t start, int64_t n, uint32_t* words);

}  // namespace fastarch
