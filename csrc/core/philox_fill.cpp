// Philox in vectors of 64-bit lanes, a position each: the multiply of the lower 32 bits of two lanes is one
// instruction, and ignores what else a lane holds, so that a round is two of them, two shifts and four
// exclusive ors.
#include "core/philox_fill.h"

#include <algorithm>
#include <cstring>

#include "core/philox.h"
#include "core/thread_pool.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fastarch {
namespace {

using Fill = void(uint64_t seed, uint64_t offset, uint64_t position, int64_t count, uint32_t* words);

void fill_scalar(uint64_t seed, uint64_t offset, uint64_t position, int64_t count, uint32_t* words) {
  for (int64_t i = 0; i < count; ++i) {
    const PhiloxWords w = philox(seed, offset, position + static_cast<uint64_t>(i));
    std::memcpy(words + 4 * i, w.word, sizeof w.word);
  }
}

#if defined(__x86_64__)

// Two vectors at a time, so that one's multiply is waited for behind the other's. What does not fill them is
// computed there all the same and then copied.
#define FASTARCH_FILL(name, isa, bytes, multiply)                                                          \
  __attribute__((target(isa))) void name(uint64_t seed, uint64_t offset, uint64_t position, int64_t count, \
                                         uint32_t* words) {                                                \
    typedef uint64_t Lanes __attribute__((vector_size(bytes)));                                            \
    constexpr int kLanes = bytes / 8, kVectors = 2, kAtOnce = kVectors * kLanes;                           \
    Lanes index = {};                                                                                      \
    for (int i = 0; i < kLanes; ++i) index[i] = static_cast<uint64_t>(i);                                  \
    const Lanes m0 = uint64_t{0xD2511F53} - Lanes{}, m1 = uint64_t{0xCD9E8D57} - Lanes{};                  \
    for (int64_t first = 0; first < count; first += kAtOnce) {                                             \
      Lanes c0[kVectors], c1[kVectors], c2[kVectors], c3[kVectors];                                        \
      for (int v = 0; v < kVectors; ++v) {                                                                 \
        c0[v] = index + (position + static_cast<uint64_t>(first + v * kLanes));                            \
        c1[v] = c0[v] >> 32;                                                                               \
        c2[v] = offset - Lanes{};                                                                          \
        c3[v] = c2[v] >> 32;                                                                               \
      }                                                                                                    \
      uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);                   \
      for (int round = 0; round < 10; ++round) {                                                           \
        for (int v = 0; v < kVectors; ++v) {                                                               \
          const Lanes p0 = (Lanes)multiply(c0[v], m0), p1 = (Lanes)multiply(c2[v], m1);                    \
          c0[v] = (p1 >> 32) ^ c1[v] ^ uint64_t { k0 };                                                    \
          c1[v] = p1;                                                                                      \
          c2[v] = (p0 >> 32) ^ c3[v] ^ uint64_t { k1 };                                                    \
          c3[v] = p0;                                                                                      \
        }                                                                                                  \
        k0 += 0x9E3779B9u;                                                                                 \
        k1 += 0xBB67AE85u;                                                                                 \
      }                                                                                                    \
      uint64_t pairs[2 * kAtOnce];                                                                         \
      for (int v = 0; v < kVectors; ++v) {                                                                 \
        const Lanes low = (c0[v] & 0xFFFFFFFFu) | c1[v] << 32, high = (c2[v] & 0xFFFFFFFFu) | c3[v] << 32; \
        for (int i = 0; i < kLanes; ++i) {                                                                 \
          pairs[2 * (v * kLanes + i)] = low[i];                                                            \
          pairs[2 * (v * kLanes + i) + 1] = high[i];                                                       \
        }                                                                                                  \
      }                                                                                                    \
      const int64_t left = count - first < kAtOnce ? count - first : kAtOnce;                              \
      std::memcpy(words + 4 * first, pairs, static_cast<size_t>(left) * 16);                               \
    }                                                                                                      \
  }

#define FASTARCH_MULTIPLY_SSE2(a, b) _mm_mul_epu32((__m128i)(a), (__m128i)(b))
#define FASTARCH_MULTIPLY_AVX2(a, b) _mm256_mul_epu32((__m256i)(a), (__m256i)(b))
// With a mask of all lanes: without one GCC warns of its own header.
#define FASTARCH_MULTIPLY_AVX512(a, b) _mm512_maskz_mul_epu32(0xFF, (__m512i)(a), (__m512i)(b))
FASTARCH_FILL(fill_sse2, "sse2", 16, FASTARCH_MULTIPLY_SSE2)
FASTARCH_FILL(fill_avx2, "avx2", 32, FASTARCH_MULTIPLY_AVX2)
FASTARCH_FILL(fill_avx512, "avx512f", 64, FASTARCH_MULTIPLY_AVX512)

Fill* chosen() {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f")) return fill_avx512;
  return __builtin_cpu_supports("avx2") ? fill_avx2 : fill_sse2;
}

#else

Fill* chosen() { return fill_scalar; }

#endif

}  // namespace

void philox_fill(uint64_t seed, uint64_t offset, uint64_t position, int64_t count, uint32_t* words) {
  static Fill* const best = chosen();
  constexpr int64_t kFew = 4;  // positions that a vector would mostly waste
  (count < kFew ? fill_scalar : best)(seed, offset, position, count, words);
}

void philox_range(uint64_t seed, uint64_t offset, int64_t start, int64_t n, uint32_t* words) {
  const int64_t end = start + n, first = start / 4;
  parallel_for((end + 3) / 4 - first, 4096, [=](int64_t from, int64_t to) {
    // Whole positions at once; at the ends of the array, where some words are not wanted, one by one.
    const int64_t whole = std::max(first + from, (start + 3) / 4), stop = std::min(first + to, end / 4);
    if (whole < stop)
      philox_fill(seed, offset, static_cast<uint64_t>(whole), stop - whole, words + (4 * whole - start));
    for (const int64_t p : {first + from, first + to - 1}) {
      if (whole <= p && p < stop) continue;
      const PhiloxWords w = philox(seed, offset, static_cast<uint64_t>(p));
      for (int64_t i = std::max(4 * p, start); i < std::min(4 * p + 4, end); ++i)
        words[i - start] = w.word[i - 4 * p];
    }
  });
}

}  // namespace fastarch
