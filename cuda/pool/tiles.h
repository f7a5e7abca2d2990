// Max pooling by windows of 2 x 2 that tile the image, as most networks have them: a thread takes four
// windows of a line, two runs of eight inputs, in 128-bit moves.
#pragma once
#include "pool/windows.h"

namespace fastarch::cuda::pool {

constexpr int kWindows = 4, kRun = 2 * kWindows;

inline bool tiles_in_fours(const Pool2d& pool) {
  const auto tiles = [](const PoolAxis& a) {
    return a.kernel == 2 && a.stride == 2 && a.padding == 0 && a.dilation == 1 && a.input == 2 * a.output;
  };
  return pool.inner == 1 && tiles(pool.rows) && tiles(pool.columns) && pool.columns.output % kWindows == 0;
}

// fours: all outputs / 4. A line of outputs is `by_line`'s divisor of them.
template <class T>
__global__ void max_pool2d_tiles_forward_kernel(const T* __restrict__ x, T* __restrict__ y,
                                                uint8_t* __restrict__ argmax, int64_t fours, int width,
                                                Divider by_line) {
  for (int64_t i = global_thread(); i < fours; i += grid_threads()) {
    const int64_t line = by_line.quotient(i), column = (i - line * (width / kRun)) * kRun;
    const T* top = x + 2 * line * width + column;
    Compute<T> value[2][kRun], best[kWindows];
    load_run<kRun>(top, value[0]);
    load_run<kRun>(top + width, value[1]);
    Pack<uint8_t, kWindows> places;
#pragma unroll
    for (int k = 0; k < kWindows; ++k) {
      best[k] = value[0][2 * k];
      places.value[k] = 0;
#pragma unroll
      for (int place = 1; place < 4; ++place) {
        const Compute<T> other = value[place / 2][2 * k + place % 2];
        if (other > best[k] || other != other) {
          best[k] = other;
          places.value[k] = static_cast<uint8_t>(place);
        }
      }
    }
    store_run<kWindows>(y + i * kWindows, best);
    if (argmax) store_pack(argmax, i, places);
  }
}

template <class T>
__global__ void max_pool2d_tiles_backward_kernel(const T* __restrict__ dy, const uint8_t* __restrict__ argmax,
                                                 T* __restrict__ dx, int64_t fours, int width,
                                                 Divider by_line) {
  for (int64_t i = global_thread(); i < fours; i += grid_threads()) {
    const int64_t line = by_line.quotient(i), column = (i - line * (width / kRun)) * kRun;
    const Pack<uint8_t, kWindows> places = load_pack<uint8_t, kWindows>(argmax, i);
    Compute<T> slope[kWindows], value[2][kRun];
    load_run<kWindows>(dy + i * kWindows, slope);
#pragma unroll
    for (int k = 0; k < kWindows; ++k)
#pragma unroll
      for (int place = 0; place < 4; ++place)
        value[place / 2][2 * k + place % 2] = places.value[k] == place ? slope[k] : 0;
    T* top = dx + 2 * line * width + column;
    store_run<kRun>(top, value[0]);
    store_run<kRun>(top + width, value[1]);
  }
}

}  // namespace fastarch::cuda::pool
