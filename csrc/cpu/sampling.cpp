// Samples of random units for one instruction set: compiled once for each, with FASTARCH_ISA naming it, and
// without fused multiply-adds, so that every set and every device gives the same bits. As in kernels.cpp,
// nothing here may be emitted as a shared inline function.
#include "core/sampling.h"

#include "core/philox_fill.h"
#include "cpu/kernels.h"
#include "cpu/simd.h"

#define FASTARCH_JOIN_(a, b) a##b
#define FASTARCH_JOIN(a, b) FASTARCH_JOIN_(a, b)

namespace fastarch::cpu {
namespace {

constexpr int kBlock = 64;    // elements that pass through the operations together
constexpr int kChunk = 1024;  // words drawn at a time

// What follows is written as short loops over blocks, which the compiler turns into vectors.

// x + bias, zeros from n on.
template <class T>
FASTARCH_INLINE void biased(const T* x, const T* bias, int64_t n, T* out) {
  if (n >= kBlock) {
    for (int i = 0; i < kBlock; ++i) out[i] = sampling::add(x[i], bias[i]);
  } else {
    for (int i = 0; i < kBlock; ++i) out[i] = i < n ? sampling::add(x[i], bias[i]) : T(0);
  }
}

// The words of elements i .. i + kBlock - 1 of n; i is a multiple of kBlock and ascends from 0.
FASTARCH_INLINE const uint32_t* draw(const Words& words, int64_t i, int64_t n, uint32_t (&chunk)[kChunk]) {
  if (i % kChunk == 0) {
    const int64_t left = n - i < kChunk ? n - i : kChunk;
    philox_fill(words.seed, words.offset, words.position + static_cast<uint64_t>(i / 4), (left + 3) / 4,
                chunk);
  }
  return chunk + i % kChunk;
}

template <class T>
FASTARCH_INLINE void put(const T* from, int64_t n, T* to) {
  const int64_t count = n < kBlock ? n : kBlock;
  for (int64_t i = 0; i < count; ++i) to[i] = from[i];
}

template <class T>
void bernoulli(const T* x, const T* bias, T* mean, T* sample, int64_t n, Words words) {
  T p[kBlock];
  uint32_t chunk[kChunk] = {};
  for (int64_t i = 0; i < n; i += kBlock) {
    biased(x + i, bias + i, n - i, p);
    for (int j = 0; j < kBlock; ++j) p[j] = sampling::sigmoid(p[j]);
    if (mean) put(p, n - i, mean + i);
    if (!sample) continue;
    const uint32_t* word = draw(words, i, n, chunk);
    for (int j = 0; j < kBlock; ++j) p[j] = sampling::bernoulli(word[j], p[j]);
    put(p, n - i, sample + i);
  }
}

template <class T>
void normal(T* out, int64_t n, Words words) {
  uint32_t chunk[kChunk] = {}, radius[kBlock / 2], angle[kBlock / 2];
  T even[kBlock / 2], odd[kBlock / 2], both[kBlock];
  for (int64_t i = 0; i < n; i += kBlock) {
    const uint32_t* word = draw(words, i, n, chunk);
    for (int j = 0; j < kBlock / 2; ++j) {
      radius[j] = word[2 * j];
      angle[j] = word[2 * j + 1];
    }
    for (int j = 0; j < kBlock / 2; ++j) sampling::normal_pair(radius[j], angle[j], &even[j], &odd[j]);
    for (int j = 0; j < kBlock / 2; ++j) {
      both[2 * j] = even[j];
      both[2 * j + 1] = odd[j];
    }
    put(both, n - i, out + i);
  }
}

// ln of a product of factors between 1 and 2, 64 at a time: one logarithm where there would be 64.
template <class T>
double softplus_sum(const T* x, const T* bias, int64_t n) {
  static_assert(kBlock <= 256, "the product must stay finite");
  constexpr int kChains = 8;
  T values[kBlock], factor[kBlock];
  double sum = 0;
  for (int64_t i = 0; i < n; i += kBlock) {
    const int64_t count = n - i < kBlock ? n - i : kBlock;
    biased(x + i, bias + i, n - i, values);
    for (int j = 0; j < kBlock; ++j)
      factor[j] = T(1) + sampling::exponential(values[j] > 0 ? -values[j] : values[j]);
    T positive = 0;
    for (int64_t j = 0; j < count; ++j) positive += values[j] > 0 ? values[j] : T(0);
    double product[kChains];
    for (int c = 0; c < kChains; ++c) product[c] = 1;
    for (int64_t j = 0; j < count; ++j) product[j % kChains] *= factor[j];
    for (int c = 1; c < kChains; ++c) product[0] *= product[c];
    sum += positive + __builtin_log(product[0]);
  }
  return sum;
}

template <class T>
constexpr Samplers<T> kSamplers = {bernoulli<T>, normal<T>, softplus_sum<T>};

}  // namespace

extern const Samplers<float>* const FASTARCH_JOIN(float_samplers_, FASTARCH_ISA) = &kSamplers<float>;
extern const Samplers<double>* const FASTARCH_JOIN(double_samplers_, FASTARCH_ISA) = &kSamplers<double>;

}  // namespace fastarch::cpu
