// The weight gradient of a convolution by the register tile: taps are its rows, read where they lie in the
// rearranged image (patches.h), and dy, transposed, is the vector operand.
#pragma once
#include "cpu/patches.h"
#include "ops/conv2d.h"

namespace fastarch::cpu {

// dw^T of one group over a range of images, for the taps of a range of channels.
template <class T>
struct WeightGradient {
  const T* dy;
  const T* x;
  const Conv2dShape& a;
  PhaseLayout layout;                // of x
  std::vector<int64_t> tap_offsets;  // [R*S]
  int64_t filters, width;            // of a group, and rounded up to vectors

  // sum: [channels of the range * R*S, width], overwritten.
  void run(Range image, int64_t group, Range channel, T* sum) const {
    const Kernels<T>& kernel = kernels<T>();
    const int64_t taps = a.r * a.s, rows = channel.size() * taps,
                  row_tile = even_piece(rows, kernel.tile_rows);
    const int64_t tile_width = kernel.lanes * even_piece(width / kernel.lanes, kernel.tile_vectors);
    const int64_t lines = std::clamp<int64_t>(kPixels / a.q, 1, a.p);  // of dy, that are packed at a time
    const int64_t group_channel = group * (a.c / a.groups) + channel.begin, plane = a.h * a.w;
    const Scratch<T> copy(layout.in_place ? 0 : channel.size() * layout.channel_step),
        packed(lines * a.q * width);
    bool first = true;
    for (int64_t n = image.begin; n < image.end; ++n) {
      const T* from = x + (n * a.c + group_channel) * plane;
      if (!layout.in_place) {
        for (int64_t c = 0; c < channel.size(); ++c)
          layout.fill(from + c * plane, copy.get() + c * layout.channel_step);
        from = copy.get();
      }
      for (int64_t p = 0; p < a.p; p += lines) {
        const int64_t count = std::min(lines, a.p - p);
        const T* line = dy + ((n * a.k + group * filters) * a.p + p) * a.q;
        kernel.transpose(line, a.p * a.q, packed.get(), width, count * a.q, filters, width);
        Tile<T> tile;
        tile.a_jump = layout.pitch - a.q;
        tile.length = a.q;
        tile.segments = count;
        tile.b_step = tile.c_step = width;
        tile.accumulate = !first;
        for (int64_t j = 0; j < width; j += tile_width) {
          tile.vectors = static_cast<int>(std::min(tile_width, width - j) / kernel.lanes);
          tile.b = packed.get() + j;
          for (int64_t i = 0; i < rows; i += row_tile) {
            tile.rows = static_cast<int>(std::min(row_tile, rows - i));
            for (int64_t t = 0; t < tile.rows; ++t) {
              const int64_t c = (i + t) / taps, tap = (i + t) % taps;
              tile.a[t] =
                  from + c * layout.channel_step + tap_offsets[static_cast<size_t>(tap)] + p * layout.pitch;
            }
            tile.c = sum + i * width + j;
            kernel.multiply(tile);
          }
        }
        first = false;
      }
    }
  }

 private:
  static constexpr int64_t kPixels = 192;  // of dy: a tile's columns of them stay in the nearest cache
};

// dw [K, C/groups, R, S], overwritten; nothing is empty.
template <class T>
void weight_gradient(const T* dy, const T* x, T* dw, const Conv2dShape& a) {
  const int64_t channels = a.c / a.groups, filters = a.k / a.groups, taps = a.r * a.s, rows = channels * taps;
  const Kernels<T>& kernel = kernels<T>();
  const int64_t width = ceil_div(filters, kernel.lanes) * kernel.lanes;
  // Work is split over bands of channels, each of which packs dy again, and over chunks of the batch, each of
  // which has sums of its own. Chunks follow from the shape alone: they decide the order of summation.
  constexpr int64_t kBandRows = 256, kTasks = 16, kMostSums = 4'194'304;
  const int64_t band = even_piece(channels, std::max<int64_t>(1, kBandRows / taps)),
                bands = ceil_div(channels, band);
  const int64_t size = rows * width;
  const int64_t wanted = std::min(ceil_div(kTasks, bands * a.groups), kMostSums / (a.groups * size));
  const int64_t chunk = ceil_div(a.n, std::clamp<int64_t>(wanted, 1, a.n)), chunks = ceil_div(a.n, chunk);
  const PhaseLayout layout(PhaseAxis::of_windows(a.h, a.p, a.r, a.stride_h, a.padding_h, a.dilation_h),
                           PhaseAxis::of_windows(a.w, a.q, a.s, a.stride_w, a.padding_w, a.dilation_w));
  const WeightGradient<T> gradient{dy, x, a, layout, layout.offsets(), filters, width};
  const Scratch<T> sums(chunks * a.groups * size);  // [chunks][groups][C/groups * R*S, width]
  parallel_for(chunks * a.groups * bands, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t c = task % bands * band, part = task / bands, n = part / a.groups * chunk;
      gradient.run({n, std::min(a.n, n + chunk)}, part % a.groups, {c, std::min(channels, c + band)},
                   sums.get() + part * size + c * taps * width);
    }
  });
  parallel_for(a.groups * rows, 1 + 16384 / (chunks * width), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t c = 1; c < chunks; ++c)
        for (int64_t k = 0; k < filters; ++k)
          sums[i * width + k] += sums[(c * a.groups * rows + i) * width + k];
  });
  for (int64_t g = 0; g < a.groups; ++g)
    parallel_for(filters, 1 + 32768 / rows, [&](int64_t begin, int64_t end) {
      kernel.transpose(sums.get() + g * size + begin, width, dw + (g * filters + begin) * rows, rows,
                       end - begin, rows, rows);
    });
}

}  // namespace fastarch::cpu
