// Contract: inverted dropout. The mask is a function of (seed, offset, element), so it is never stored and
// the backward pass is the same call on dy.
#pragma once
#include "core/types.h"

namespace fastarch {

// An element is dropped when its random word is below this; p in [0, 1).
inline uint32_t dropout_threshold(double p) { return static_cast<uint32_t>(p * 4294967296.0); }

// dropout_forward, one declaration per device: x: [n]; y: [n], overwritten: x / (1 - p) where kept, 0 where
// dropped (whatever x is); y may be x. p in [0, 1]; p = 1 drops everything. Element i takes word i % 4 of
// Philox position i / 4 of the stream (seed, offset). word: null, or where the arrays lie: the offset, read
// when the kernel runs in place of `offset`, so that a captured launch draws anew at each replay.

namespace cpu {

template <class T>
void dropout_forward(const T* x, T* y, int64_t n, double p, uint64_t seed, uint64_t offset,
                     const uint64_t* word, Stream stream);

}  // namespace cpu

namespace cuda {

template <class T>
void dropout_forward(const T* x, T* y, int64_t n, double p, uint64_t seed, uint64_t offset,
                     const uint64_t* word, Stream stream);

}  // namespace cuda
}  // namespace fastarch
