// Optimizer steps on the CPU: one pass over each block of a parameter and what belongs to it.
#include "ops/optimizer.h"

#include <algorithm>
#include <cmath>

#include "core/thread_pool.h"

namespace fastarch::cpu {
namespace {

constexpr int64_t kBlock = 1 << 14;  // elements; a few blocks are worth a thread

// Plain arithmetic: this file is compiled so that nothing is fused.
struct Math {
  template <class T>
  static T add(T a, T b) {
    return a + b;
  }
  template <class T>
  static T sub(T a, T b) {
    return a - b;
  }
  template <class T>
  static T mul(T a, T b) {
    return a * b;
  }
  template <class T>
  static T div(T a, T b) {
    return a / b;
  }
  template <class T>
  static T sqrt(T a) {
    return std::sqrt(a);
  }
};

// Calls body(tensor, begin, end) on blocks of all tensors, in parallel.
template <class Body>
void for_blocks(const TensorList& tensors, const Body& body) {
  std::vector<int64_t> first(1, 0);  // block number at which each tensor begins
  for (const int64_t size : tensors.sizes) first.push_back(first.back() + (size + kBlock - 1) / kBlock);
  parallel_for(first.back(), 2, [&](int64_t from, int64_t to) {
    size_t tensor = std::upper_bound(first.begin(), first.end(), from) - first.begin() - 1;
    for (int64_t block = from; block < to; ++block) {
      while (block >= first[tensor + 1]) ++tensor;
      const int64_t begin = (block - first[tensor]) * kBlock;
      body(tensor, begin, std::min(begin + kBlock, tensors.sizes[tensor]));
    }
  });
}

}  // namespace

template <class T>
void sgd_update(const TensorList& tensors, const SgdStep& step, Stream) {
  SgdRule<T> rule(step);
  if (step.words) rule.read(step.words);
  for_blocks(tensors, [&](size_t tensor, int64_t begin, int64_t end) {
    T* w = static_cast<T*>(tensors.pointers[0][tensor]);
    const T* g = static_cast<const T*>(tensors.pointers[1][tensor]);
    T* b = tensors.pointers.size() > 2 ? static_cast<T*>(tensors.pointers[2][tensor]) : nullptr;
    for (int64_t i = begin; i < end; ++i) {
      T momentum = b ? b[i] : T(0);
      w[i] = rule.template operator()<Math>(w[i], g[i], &momentum);
      if (b) b[i] = momentum;
    }
  });
}

template <class T>
void adam_update(const TensorList& tensors, const AdamStep& step, Stream) {
  AdamRule<T> rule(step);
  if (step.words) rule.read(step.words);
  for_blocks(tensors, [&](size_t tensor, int64_t begin, int64_t end) {
    T* w = static_cast<T*>(tensors.pointers[0][tensor]);
    const T* g = static_cast<const T*>(tensors.pointers[1][tensor]);
    T *m = static_cast<T*>(tensors.pointers[2][tensor]), *v = static_cast<T*>(tensors.pointers[3][tensor]);
    T* u = step.amsgrad ? static_cast<T*>(tensors.pointers[4][tensor]) : nullptr;
    for (int64_t i = begin; i < end; ++i) {
      T first = m[i], second = v[i], largest = u ? u[i] : T(0);
      w[i] = rule.template operator()<Math>(w[i], g[i], &first, &second, &largest);
      m[i] = first;
      v[i] = second;
      if (u) u[i] = largest;
    }
  });
}

#define INSTANTIATE(T)                                                    \
  template void sgd_update<T>(const TensorList&, const SgdStep&, Stream); \
  template void adam_update<T>(const TensorList&, const AdamStep&, Stream);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace fastarch::cpu
