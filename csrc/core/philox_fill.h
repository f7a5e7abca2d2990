// Random words of many positions at once, with the widest vectors this processor has.
#pragma once
#include <cstdint>

namespace fastarch {

// words[4 * i + j] = word j of position + i of the stream (seed, offset), for i < count.
void philox_fill(uint64_t seed, uint64_t offset, uint64_t position, int64_t count, uint32_t* words);

}  // namespace fastarch
