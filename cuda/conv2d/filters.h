// Filters [K, C, R, S] copied into the order in which products of channels-last images read them: a line for
// each column of the product, along the taps, the channel fastest.
#pragma once
#include "core/buffer.h"
#include "core/divide.h"
#include "core/launch.h"

namespace fastarch::cuda {

constexpr int kPackThreads = 256;

// packed [K, pitch], overwritten: (r, s, c) for each filter, then zeros up to the pitch.
template <class T>
__global__ void __launch_bounds__(kPackThreads)
    pack_filters_kernel(const T* weight, T* packed, int64_t size, int64_t taps, int window,
                        FastDivider channels, FastDivider pitch) {
  for (int64_t i = global_thread(); i < size; i += grid_threads()) {
    uint32_t within, c;
    const int64_t filter = pitch.split_wide(i, &within);
    const uint32_t tap = channels.split(within, &c);
    packed[i] = within < taps ? weight[filter * taps + int64_t{c} * window + tap] : T{};
  }
}

template <class T>
void pack_filters(const char* name, const T* weight, T* packed, int64_t filters, int64_t channels,
                  int64_t window, int64_t pitch, Stream stream) {
  const int64_t size = filters * pitch;
  if (size == 0) return;
  launch(name, pack_filters_kernel<T>, grid_for(size, kPackThreads), dim3(kPackThreads), 0, stream, weight,
         packed, size, channels * window, static_cast<int>(window), FastDivider(channels),
         FastDivider(pitch));
}

// The taps of one axis by stride phase: phase a has those equal to a modulo the step.
struct TapPhases {
  uint32_t taps, step;

  FASTARCH_HOST_DEVICE uint32_t count(uint32_t a) const { return taps / step + (a < taps % step ? 1 : 0); }
  FASTARCH_HOST_DEVICE uint32_t before(uint32_t a) const {  // taps of earlier phases
    const uint32_t longer = taps % step;
    return a * (taps / step) + (a < longer ? a : longer);
  }
};

// Filters by phase: [phase (a, b)][groups * C][i, j, K], where tap (i, j) of phase (a, b) is
// (a + i * rows.step, b + j * columns.step).
struct PhasedFilters {
  int64_t channels, filters;  // of all groups; of one group
  TapPhases rows, columns;

  FASTARCH_HOST_DEVICE int64_t offset(uint32_t a, uint32_t b) const {
    return channels * filters *
           (int64_t{rows.before(a)} * columns.taps + int64_t{rows.count(a)} * columns.before(b));
  }
  FASTARCH_HOST_DEVICE int64_t place(int64_t channel, uint32_t r, uint32_t s) const {
    const uint32_t a = r % rows.step, b = s % columns.step, wide = columns.count(b);
    const int64_t tap = int64_t{r / rows.step} * wide + s / columns.step;
    return offset(a, b) + (channel * rows.count(a) * wide + tap) * filters;
  }
};

constexpr int kTurnSide = 32, kTurnRows = 8;

// A transposition, through shared memory, of the groups' matrices [K, C * R * S].
template <class T>
__global__ void __launch_bounds__(kTurnSide* kTurnRows)
    turn_filters_kernel(const T* weight, T* packed, PhasedFilters to, int64_t taps, FastDivider window,
                        FastDivider tiles_taps, FastDivider tiles_filters) {
  FASTARCH_SHARED(T, tile, [kTurnSide][kTurnSide + 1]);
  uint32_t tile_taps, tile_filters;
  const int64_t group = tiles_filters.split(tiles_taps.split(blockIdx.x, &tile_taps), &tile_filters);
  const int x = threadIdx.x % kTurnSide, y = threadIdx.x / kTurnSide;
  const int64_t first_tap = int64_t{tile_taps} * kTurnSide, first_filter = int64_t{tile_filters} * kTurnSide;
#pragma unroll
  for (int i = y; i < kTurnSide; i += kTurnRows)
    if (first_filter + i < to.filters && first_tap + x < taps)
      tile[i][x] = weight[(group * to.filters + first_filter + i) * taps + first_tap + x];
  __syncthreads();
#pragma unroll
  for (int i = y; i < kTurnSide; i += kTurnRows) {
    if (first_tap + i >= taps || first_filter + x >= to.filters) continue;
    uint32_t within;
    const uint32_t c = window.split(static_cast<uint32_t>(first_tap + i), &within);
    const uint32_t r = within / to.columns.taps;
    const int64_t channel = group * (taps / window.divisor()) + c;
    packed[to.place(channel, r, within - r * to.columns.taps) + first_filter + x] = tile[x][i];
  }
}

template <class T>
void turn_filters(const char* name, const T* weight, T* packed, const PhasedFilters& to, int64_t groups,
                  Stream stream) {
  const int64_t window = int64_t{to.rows.taps} * to.columns.taps, taps = to.channels / groups * window;
  const auto tiles = [](int64_t n) { return (n + kTurnSide - 1) / kTurnSide; };
  const int64_t blocks = groups * tiles(taps) * tiles(to.filters);
  if (blocks == 0) return;
  check(blocks < (int64_t{1} << 31), name, "needs ", blocks, " blocks, expected fewer than 2^31");
  launch(name, turn_filters_kernel<T>, dim3(static_cast<unsigned>(blocks)), dim3(kTurnSide * kTurnRows), 0,
         stream, weight, packed, to, taps, FastDivider(window), FastDivider(tiles(taps)),
         FastDivider(tiles(to.filters)));
}

}  // namespace fastarch::cuda
