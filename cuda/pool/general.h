// Pooling by windows of any kind: a thread an output pixel (forward) or an input pixel (backward) of V
// neighbouring channels. The backward gathers what it needs, so that sums have one fixed order and no
// atomics. Neighbouring threads share their loads through the L1 cache.
#pragma once
#include "pool/windows.h"

namespace fastarch::cuda::pool {

template <int V, class T, class A, class Windows>
__global__ void max_forward_kernel(const T* __restrict__ x, T* __restrict__ y, A* __restrict__ argmax,
                                   Windows rows, Windows columns, Pixels<V> outputs) {
  const int64_t inner = outputs.inner;
  for (int64_t i = global_thread(); i < outputs.size; i += grid_threads()) {
    const auto at = outputs.place(i);
    const Taps r_in = rows.taps(at.row), s_in = columns.taps(at.column);
    const int64_t corner = (at.plane * rows.inputs() + r_in.first) * columns.inputs() + s_in.first;
    const int64_t down = int64_t{r_in.step} * columns.inputs() * inner, right = s_in.step * inner;
    const int extent = columns.extent(at.column);
    Compute<T> best[V];
    int place[V];
#pragma unroll
    for (int k = 0; k < V; ++k) {
      best[k] = -INFINITY;
      place[k] = r_in.empty() || s_in.empty() ? 0 : r_in.begin * extent + s_in.begin;
    }
    const T* line = x + corner * inner + at.channel;
    for (int r = r_in.begin; r < r_in.end; ++r, line += down) {
      const T* from = line;
      for (int s = s_in.begin; s < s_in.end; ++s, from += right) {
        Compute<T> value[V];
        load_run<V>(from, value);
#pragma unroll
        for (int k = 0; k < V; ++k)
          if (value[k] > best[k] || value[k] != value[k]) {
            best[k] = value[k];
            place[k] = r * extent + s;
          }
      }
    }
    store_run<V>(y + i * V, best);
    if (argmax) store_run<V>(argmax + i * V, place);
  }
}

template <int V, class T, class A, class Windows>
__global__ void max_backward_kernel(const T* __restrict__ dy, const A* __restrict__ argmax,
                                    T* __restrict__ dx, Windows rows, Windows columns, Pixels<V> inputs) {
  const int64_t inner = inputs.inner;
  for (int64_t i = global_thread(); i < inputs.size; i += grid_threads()) {
    const auto at = inputs.place(i);
    const Span p_around = rows.around(at.row), q_around = columns.around(at.column);
    Compute<T> sum[V] = {};
    for (int p = p_around.begin; p < p_around.end; ++p) {
      const int r = rows.offset(p, at.row);
      if (r < 0) continue;
      const int64_t line = (at.plane * rows.outputs() + p) * columns.outputs();
      for (int q = q_around.begin; q < q_around.end; ++q) {
        const int s = columns.offset(q, at.column), place = r * columns.extent(q) + s;
        if (s < 0) continue;
        const int64_t window = (line + q) * inner + at.channel;
        int places[V];
        Compute<T> slope[V];
        load_run<V>(argmax + window, places);
        load_run<V>(dy + window, slope);
#pragma unroll
        for (int k = 0; k < V; ++k)
          if (places[k] == place) sum[k] += slope[k];
      }
    }
    store_run<V>(dx + i * V, sum);
  }
}

template <int V, class T, class Windows>
__global__ void average_forward_kernel(const T* __restrict__ x, T* __restrict__ y, Windows rows,
                                       Windows columns, Pixels<V> outputs) {
  const int64_t inner = outputs.inner;
  for (int64_t i = global_thread(); i < outputs.size; i += grid_threads()) {
    const auto at = outputs.place(i);
    const Taps r_in = rows.taps(at.row), s_in = columns.taps(at.column);
    const int64_t corner = (at.plane * rows.inputs() + r_in.first) * columns.inputs() + s_in.first;
    const T* line = x + corner * inner + at.channel;
    Compute<T> sum[V] = {};
    for (int r = r_in.begin; r < r_in.end; ++r, line += columns.inputs() * inner) {
      const T* from = line;
      for (int s = s_in.begin; s < s_in.end; ++s, from += inner) {
        Compute<T> value[V];
        load_run<V>(from, value);
#pragma unroll
        for (int k = 0; k < V; ++k) sum[k] += value[k];
      }
    }
    const bool empty = r_in.empty() || s_in.empty();  // a window of nothing but padding
    const auto divisor = static_cast<Compute<T>>(int64_t{rows.count(at.row)} * columns.count(at.column));
#pragma unroll
    for (int k = 0; k < V; ++k) sum[k] = empty ? 0 : sum[k] / divisor;
    store_run<V>(y + i * V, sum);
  }
}

template <int V, class T, class Windows>
__global__ void average_backward_kernel(const T* __restrict__ dy, T* __restrict__ dx, Windows rows,
                                        Windows columns, Pixels<V> inputs) {
  const int64_t inner = inputs.inner;
  for (int64_t i = global_thread(); i < inputs.size; i += grid_threads()) {
    const auto at = inputs.place(i);
    const Span p_around = rows.around(at.row), q_around = columns.around(at.column);
    Compute<T> sum[V] = {};
    for (int p = p_around.begin; p < p_around.end; ++p) {
      const int64_t line = (at.plane * rows.outputs() + p) * columns.outputs(), height = rows.count(p);
      for (int q = q_around.begin; q < q_around.end; ++q) {
        const auto divisor = static_cast<Compute<T>>(height * columns.count(q));
        Compute<T> slope[V];
        load_run<V>(dy + (line + q) * inner + at.channel, slope);
#pragma unroll
        for (int k = 0; k < V; ++k) sum[k] += slope[k] / divisor;
      }
    }
    store_run<V>(dx + i * V, sum);
  }
}

}  // namespace fastarch::cuda::pool
