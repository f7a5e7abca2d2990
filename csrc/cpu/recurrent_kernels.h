// The gates of recurrent cells, a vector of units at a time. Part of kernels.cpp.
#pragma once
#include "cpu/kernels.h"
#include "cpu/simd.h"

namespace fastarch::cpu {
namespace {

// Where one vector of units lies: whole, or the first `count` of its lanes.
template <class T>
struct Lane {
  int64_t count;

  FASTARCH_INLINE Vector<T> get(const T* from) const {
    return count >= kLanes<T> ? load(from) : load_part(from, count, T(0));
  }
  FASTARCH_INLINE void put(T* to, Vector<T> v) const {
    count >= kLanes<T> ? store<T>(to, v) : store_part<T>(to, v, count);
  }
};

template <class T>
FASTARCH_INLINE Vector<T> logistic(Vector<T> x) {
  return activate<T>(x, Activation::sigmoid);
}

template <class T, RecurrentPart Part>
FASTARCH_INLINE void forward_vector(const RecurrentRows<T>& s, int64_t row, int64_t unit, const T* p,
                                    Lane<T> at) {
  const int64_t i = row * s.units + unit;
  T* const a = s.gates + row * s.width + unit;
  const auto sum = [&](int gate) { return at.get(a + gate * s.units) + at.get(p + gate * s.p_gate); };
  if constexpr (Part == RecurrentPart::rnn_tanh || Part == RecurrentPart::rnn_relu) {
    constexpr Activation kKind = Part == RecurrentPart::rnn_tanh ? Activation::tanh : Activation::relu;
    at.put(s.y + i, activate<T>(sum(0), kKind));
  } else if constexpr (Part == RecurrentPart::lstm) {
    const Vector<T> in = logistic<T>(sum(0)), forget = logistic<T>(sum(1));
    const Vector<T> new_c = hyperbolic_tangent<T>(sum(2)), out = logistic<T>(sum(3));
    const Vector<T> c = forget * at.get(s.c + i) + in * new_c;
    at.put(a, in);
    at.put(a + s.units, forget);
    at.put(a + 2 * s.units, new_c);
    at.put(a + 3 * s.units, out);
    at.put(s.c + i, c);
    at.put(s.extra + i, c);
    at.put(s.y + i, out * hyperbolic_tangent<T>(c));
  } else if constexpr (Part == RecurrentPart::gru) {
    const Vector<T> r = logistic<T>(sum(0)), z = logistic<T>(sum(1));
    Vector<T> inner = at.get(p + 2 * s.p_gate);
    if (s.b_n) inner += at.get(s.b_n + unit);
    const Vector<T> n = hyperbolic_tangent<T>(at.get(a + 2 * s.units) + r * inner);
    at.put(a, r);
    at.put(a + s.units, z);
    at.put(a + 2 * s.units, n);
    at.put(s.extra + i, inner);
    at.put(s.y + i, n + z * (at.get(s.before[row] + unit) - n));
  } else if constexpr (Part == RecurrentPart::reset_gates) {
    const Vector<T> r = logistic<T>(sum(0));
    at.put(a, r);
    at.put(a + s.units, logistic<T>(sum(1)));
    at.put(s.y + i, r * at.get(s.before[row] + unit));
  } else {
    const Vector<T> n = hyperbolic_tangent<T>(at.get(a + 2 * s.units) + at.get(p));
    at.put(a + 2 * s.units, n);
    at.put(s.y + i, n + at.get(a + s.units) * (at.get(s.before[row] + unit) - n));
  }
}

// d: all of the gradient of h. Returns the part that goes past the product.
template <class T, RecurrentPart Part>
FASTARCH_INLINE Vector<T> backward_vector(const RecurrentRows<T>& s, int64_t row, int64_t unit, Vector<T> d,
                                          Lane<T> at) {
  const int64_t i = row * s.units + unit, first = row * s.width + unit;
  const T* const a = s.activated + first;
  T* const da = s.da + first;
  if constexpr (Part == RecurrentPart::rnn_tanh || Part == RecurrentPart::rnn_relu) {
    constexpr Activation kKind = Part == RecurrentPart::rnn_tanh ? Activation::tanh : Activation::relu;
    at.put(da, activation_gradient<T>(d, at.get(a), kKind));
    return Vector<T>{};
  } else if constexpr (Part == RecurrentPart::lstm) {
    const Vector<T> in = at.get(a), forget = at.get(a + s.units);
    const Vector<T> new_c = at.get(a + 2 * s.units), out = at.get(a + 3 * s.units);
    const Vector<T> t = hyperbolic_tangent<T>(at.get(s.kept + i));
    const Vector<T> dc = at.get(s.c + i) + d * out * (T(1) - t * t);
    at.put(da, dc * new_c * (in * (T(1) - in)));
    at.put(da + s.units, dc * at.get(s.previous + i) * (forget * (T(1) - forget)));
    at.put(da + 2 * s.units, dc * in * (T(1) - new_c * new_c));
    at.put(da + 3 * s.units, d * t * (out * (T(1) - out)));
    at.put(s.c + i, dc * forget);
    return Vector<T>{};
  } else {
    const Vector<T> z = at.get(a + s.units), n = at.get(a + 2 * s.units);
    const Vector<T> share = d * (T(1) - z), dn = share * (T(1) - n * n);
    const Vector<T> dz = share * (at.get(s.previous + i) - n) * z;
    at.put(da + s.units, dz);
    at.put(da + 2 * s.units, dn);
    if constexpr (Part == RecurrentPart::gru) {
      const Vector<T> r = at.get(a), dr = dn * at.get(s.kept + i) * (r * (T(1) - r));
      T* const da_h = s.da_h + first;
      at.put(da, dr);
      at.put(da_h, dr);
      at.put(da_h + s.units, dz);
      at.put(da_h + 2 * s.units, dn * r);
    }
    return d * z;
  }
}

// The gradient of r from that of r h, the product; what reaches h through it is added.
template <class T>
FASTARCH_INLINE void backward_reset_vector(const RecurrentRows<T>& s, int64_t row, int64_t unit, const T* p,
                                           Lane<T> at) {
  const int64_t i = row * s.units + unit, first = row * s.width + unit;
  const Vector<T> r = at.get(s.activated + first), d = at.get(p);
  at.put(s.da + first, d * at.get(s.previous + i) * (r * (T(1) - r)));
  at.put(s.dh + i, at.get(s.dh + i) + d * r);
}

template <class T, class Body>
FASTARCH_INLINE void each_vector(const RecurrentRows<T>& s, int64_t begin, int64_t end, const Body& body) {
  constexpr int L = kLanes<T>;
  for (int64_t row = begin; row < end; ++row) {
    const T* p = s.p ? s.p + (row - s.row) * s.p_row : nullptr;
    for (int64_t v = 0; v * L < s.count; ++v)
      body(row, s.unit + v * L, p ? p + v * s.p_vector : nullptr, Lane<T>{s.count - v * L});
  }
}

template <class T, RecurrentPart Part>
void forward_part(const RecurrentRows<T>& s) {
  each_vector(s, s.row, s.row + s.rows, [&](int64_t row, int64_t unit, const T* p, Lane<T> at) {
    forward_vector<T, Part>(s, row, unit, p, at);
  });
}

template <class T, RecurrentPart Part>
void backward_part(const RecurrentRows<T>& s) {
  each_vector(s, s.row, s.row + s.rows, [&](int64_t row, int64_t unit, const T* p, Lane<T> at) {
    if constexpr (Part == RecurrentPart::reset_gates) {
      backward_reset_vector<T>(s, row, unit, p, at);
    } else {
      const int64_t i = row * s.units + unit;
      Vector<T> d = at.get(s.dh + i);
      if (row < s.product_rows) d += at.get(p);
      if (row < s.gate_rows) {
        if (s.dy) d += at.get(s.dy + i);
        d = backward_vector<T, Part>(s, row, unit, d, at);
      }
      at.put(s.dh + i, d);
    }
  });
}

#define FASTARCH_EACH_PART(function)                                                    \
  switch (s.part) {                                                                     \
    case RecurrentPart::rnn_tanh: return function<T, RecurrentPart::rnn_tanh>(s);       \
    case RecurrentPart::rnn_relu: return function<T, RecurrentPart::rnn_relu>(s);       \
    case RecurrentPart::lstm: return function<T, RecurrentPart::lstm>(s);               \
    case RecurrentPart::gru: return function<T, RecurrentPart::gru>(s);                 \
    case RecurrentPart::reset_gates: return function<T, RecurrentPart::reset_gates>(s); \
    case RecurrentPart::reset_new: return function<T, RecurrentPart::reset_new>(s);     \
  }

template <class T>
void recurrent_gates(const RecurrentRows<T>& s) {
  FASTARCH_EACH_PART(forward_part)
}

template <class T>
void recurrent_gates_gradient(const RecurrentRows<T>& s) {
  FASTARCH_EACH_PART(backward_part)
}
#undef FASTARCH_EACH_PART

}  // namespace
}  // namespace fastarch::cpu
