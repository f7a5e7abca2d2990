// Contract: one step of SGD or Adam on many parameters at once, in place. Every array of parameter i has
// size[i] elements. What is computed, and in which order, is what fastarch.optim computes with NumPy. A
// step's `words`, where not null, lie where the arrays do and are read when the step runs, in place of the
// numbers they stand for: a captured step is replayed with other numbers.
#pragma once
#include <vector>

#include "core/types.h"

namespace fastarch {

// The arrays of many tensors: array a of tensor i is pointers[a][i].
struct TensorList {
  std::vector<std::vector<void*>> pointers;
  std::vector<int64_t> sizes;
};

// Arrays w (updated), g (read) and, unless momentum is 0, b (updated): g += decay * w (not in place);
// b = momentum * b + keep * g, or g at the first step; step g + momentum * b with nesterov, else b, or g
// without momentum; w -= lr * step. words: [1], lr.
struct SgdStep {
  double lr, momentum, keep, decay;
  bool nesterov, first;
  const double* words;
};

// Arrays w, g, m, v and, with amsgrad, u: w *= kept (decoupled decay) or g += decay * w (not in place);
// m += (1 - beta1) * (g - m); v = beta2 * v + (1 - beta2) * g^2; u = max(u, v);
// w -= step_size * (m / (sqrt(v or u) / correction + eps)). words: [3], step_size, correction, kept.
struct AdamStep {
  double step_size, correction, beta1, beta2, eps, decay, kept;
  bool amsgrad;
  const double* words;
};

namespace cpu {

template <class T>
void sgd_update(const TensorList& tensors, const SgdStep& step, Stream stream);
template <class T>
void adam_update(const TensorList& tensors, const AdamStep& step, Stream stream);

}  // namespace cpu

namespace cuda {

template <class T>
void sgd_update(const TensorList& tensors, const SgdStep& step, Stream stream);
template <class T>
void adam_update(const TensorList& tensors, const AdamStep& step, Stream stream);

}  // namespace cuda

// The arithmetic of one element, rounded as NumPy rounds it: no product is fused into a sum.
template <class T>
struct SgdRule {
  T lr, momentum, keep, decay;
  bool nesterov, first;

  explicit SgdRule(const SgdStep& step)
      : lr(static_cast<T>(step.lr)),
        momentum(static_cast<T>(step.momentum)),
        keep(static_cast<T>(step.keep)),
        decay(static_cast<T>(step.decay)),
        nesterov(step.nesterov),
        first(step.first) {}

  FASTARCH_HOST_DEVICE void read(const double* words) { lr = static_cast<T>(words[0]); }

  // The new w; b is updated where there is a momentum.
  template <class Math>
  FASTARCH_HOST_DEVICE T operator()(T w, T g, T* b) const {
    if (decay != T(0)) g = Math::add(Math::mul(w, decay), g);
    if (momentum != T(0)) {
      *b = first ? g : Math::add(Math::mul(*b, momentum), keep == T(1) ? g : Math::mul(g, keep));
      g = nesterov ? Math::add(Math::mul(*b, momentum), g) : *b;
    }
    return Math::sub(w, Math::mul(g, lr));
  }
};

template <class T>
struct AdamRule {
  T step_size, correction, rest1, beta2, rest2, eps, decay, kept;
  bool amsgrad;

  explicit AdamRule(const AdamStep& step)
      : step_size(static_cast<T>(step.step_size)),
        correction(static_cast<T>(step.correction)),
        rest1(static_cast<T>(1 - step.beta1)),
        beta2(static_cast<T>(step.beta2)),
        rest2(static_cast<T>(1 - step.beta2)),
        eps(static_cast<T>(step.eps)),
        decay(static_cast<T>(step.decay)),
        kept(static_cast<T>(step.kept)),
        amsgrad(step.amsgrad) {}

  FASTARCH_HOST_DEVICE void read(const double* words) {
    step_size = static_cast<T>(words[0]);
    correction = static_cast<T>(words[1]);
    kept = static_cast<T>(words[2]);
  }

  template <class Math>
  FASTARCH_HOST_DEVICE T operator()(T w, T g, T* m, T* v, T* u) const {
    if (kept != T(1)) w = Math::mul(w, kept);
    if (decay != T(0)) g = Math::add(Math::mul(w, decay), g);
    *m = Math::add(*m, Math::mul(Math::sub(g, *m), rest1));
    *v = Math::add(Math::mul(*v, beta2), Math::mul(Math::mul(g, g), rest2));
    T second = *v;
    if (amsgrad) second = *u = *u > second || *u != *u ? *u : second;  // a NaN stays, as in NumPy's maximum
    const T size = Math::add(Math::div(Math::sqrt(second), correction), eps);
    return Math::sub(w, Math::mul(Math::div(*m, size), step_size));
  }
};

}  // namespace fastarch
