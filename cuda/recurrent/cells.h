// One unit of one sequence, one step: what the cells compute once the products are known.
#pragma once
#include "core/half.h"
#include "core/math.h"
#include "ops/recurrent.h"

namespace fastarch::cuda {

// A cell is
//   kGates;
//   forward(a, p, b_n, h, extra):
//     a: the inputs' share -> the activated gates; p: w_hh h; h: the state before;
//     extra: LSTM: c before -> c, GRU: -> w_hn h + b_n. Returns the next h.
//   backward(a, extra, previous, dh, dc, d, d_h):
//     a, extra: as forward left them (RNN: a is y); previous: c or h before; dh: all of h's gradient;
//     dc: c's gradient -> that of c before; d, d_h: -> gradients of the inputs' share and of w_hh h.
//     Returns the part of dh that reaches h before without a product.

// Element i of an array that may be null: zero then.
template <class T>
__device__ __forceinline__ Wide<T> widen_or_zero(const T* array, int64_t i) {
  return array ? widen(array[i]) : Wide<T>(0);
}

template <class T>
__device__ __forceinline__ T sigmoid(T x) {
  return activate(x, Activation::sigmoid);
}

template <Activation Kind>
struct RnnCell {
  static constexpr int kGates = 1;
  static constexpr bool kOwnProductGradient = false;  // whether d_h differs from d

  template <class T>
  __device__ static __forceinline__ T forward(T (&a)[1], const T (&p)[1], T, T, T&) {
    return activate(a[0] + p[0], Kind);
  }
  template <class T>
  __device__ static __forceinline__ T backward(const T (&a)[1], T, T, T dh, T&, T (&d)[1], T (&d_h)[1]) {
    d[0] = d_h[0] = activation_gradient(dh, a[0], Kind);
    return 0;
  }
};

struct LstmCell {
  static constexpr int kGates = 4;
  static constexpr bool kOwnProductGradient = false;

  template <class T>
  __device__ static __forceinline__ T forward(T (&a)[4], const T (&p)[4], T, T, T& c) {
    a[0] = sigmoid(a[0] + p[0]);
    a[1] = sigmoid(a[1] + p[1]);
    a[2] = tanh(a[2] + p[2]);
    a[3] = sigmoid(a[3] + p[3]);
    c = a[1] * c + a[0] * a[2];
    return a[3] * tanh(c);
  }
  template <class T>
  __device__ static __forceinline__ T backward(const T (&a)[4], T c, T c_before, T dh, T& dc, T (&d)[4],
                                               T (&d_h)[4]) {
    const T t = tanh(c);
    dc += dh * a[3] * (T(1) - t * t);
    d[0] = dc * a[2] * a[0] * (T(1) - a[0]);
    d[1] = dc * c_before * a[1] * (T(1) - a[1]);
    d[2] = dc * a[0] * (T(1) - a[2] * a[2]);
    d[3] = dh * t * a[3] * (T(1) - a[3]);
    dc *= a[1];
#pragma unroll
    for (int g = 0; g < 4; ++g) d_h[g] = d[g];
    return 0;
  }
};

// The reset gate acts after the product: n = tanh(a_n + r (w_hn h + b_n)).
struct GruCell {
  static constexpr int kGates = 3;
  static constexpr bool kOwnProductGradient = true;

  template <class T>
  __device__ static __forceinline__ T forward(T (&a)[3], const T (&p)[3], T b_n, T h, T& inner) {
    a[0] = sigmoid(a[0] + p[0]);
    a[1] = sigmoid(a[1] + p[1]);
    inner = p[2] + b_n;
    a[2] = tanh(a[2] + a[0] * inner);
    return a[2] + a[1] * (h - a[2]);
  }
  template <class T>
  __device__ static __forceinline__ T backward(const T (&a)[3], T inner, T h_before, T dh, T&, T (&d)[3],
                                               T (&d_h)[3]) {
    d[2] = dh * (T(1) - a[1]) * (T(1) - a[2] * a[2]);
    d[1] = dh * (h_before - a[2]) * a[1] * (T(1) - a[1]);
    d[0] = d[2] * inner * a[0] * (T(1) - a[0]);
    d_h[0] = d[0];
    d_h[1] = d[1];
    d_h[2] = d[2] * a[0];
    return dh * a[1];
  }
};

// Calls body<Cell>() for a cell whose products depend on the state before alone.
template <class Body>
void with_cell(Cell cell, Body&& body) {
  switch (cell) {
    case Cell::rnn_tanh: return body.template operator()<RnnCell<Activation::tanh>>();
    case Cell::rnn_relu: return body.template operator()<RnnCell<Activation::relu>>();
    case Cell::lstm: return body.template operator()<LstmCell>();
    default: return body.template operator()<GruCell>();
  }
}

}  // namespace fastarch::cuda
