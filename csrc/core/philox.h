// Philox4x32-10, a counter-based generator: the words of a position need no state, so every backend and
// every launch shape draws the same numbers. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3"
// (2011).
#pragma once
#include "core/types.h"

namespace fastarch {

struct PhiloxWords {
  uint32_t word[4];
};

// The four words at `position` of the stream (seed, offset): counter = (position, offset), key = seed.
FASTARCH_HOST_DEVICE PhiloxWords philox(uint64_t seed, uint64_t offset, uint64_t position) {
  uint32_t c0 = static_cast<uint32_t>(position), c1 = static_cast<uint32_t>(position >> 32);
  uint32_t c2 = static_cast<uint32_t>(offset), c3 = static_cast<uint32_t>(offset >> 32);
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c0;
    const uint64_t p1 = uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(p1);
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

}  // namespace fastarch
