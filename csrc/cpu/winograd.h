// Winograd convolution: 3x3 filters, stride 1, one group.
//
// Every tile of MxM outputs becomes A*A values a channel (A = M + 2), every filter as many, and the
// convolution A*A independent products over the channels, with 9*M*M/(A*A) times fewer multiplications. Tiles
// are taken in groups, so small that a group's transformed pixels stay in the second cache; a block of
// filters is multiplied at all points and transformed back before the next one.
#pragma once
#include <vector>

#include "core/winograd.h"
#include "cpu/patches.h"

namespace fastarch::cpu {

// y[n, k, p, q] = f(bias[k] + residual[n, k, p, q]
//                   + sum over c, r, s of x[n, c, top + p + r, left + q + s] * g[k, c, r, s]),
// zeros outside of the image.
template <class T>
struct WinogradProblem {
  const T* x;                   // [N, C, H, W]
  std::vector<int64_t> images;  // those of x and y that are computed
  int64_t c, h, w, top, left;
  const T* weight;  // g[k, c, r, s] at k*filter_step + c*channel_step + r*3 + s,
  int64_t filter_step, channel_step;
  bool turned;  // or at ... + 8 - (r*3 + s)
  T* y;         // [N, K, P, Q]
  int64_t k, p, q;
  const T* bias;      // [K] or null
  const T* residual;  // as y, added before the activation, or null
  Activation kind;
};

namespace winograd {

// Values between points, whose lines would throw each other out of the nearest cache.
constexpr int64_t kApart = 16;
constexpr int64_t kNear = 786'432;      // bytes of transformed pixels that stay in the second cache,
constexpr int64_t kProducts = 262'144;  // and of products beside them

template <class T, int M>
class Convolution {
 public:
  explicit Convolution(const WinogradProblem<T>& problem)
      : a_(problem),
        down_(ceil_div(a_.p, M)),
        across_(ceil_div(a_.q, M)),
        row_tile_(even_piece(a_.k, kernels<T>().tile_rows)),
        row_tiles_(ceil_div(a_.k, row_tile_)),
        filter_step_(row_tiles_ * row_tile_ * a_.c + kApart) {}

  void run() const {
    const Scratch<T> filters(kPoints * filter_step_);
    parallel_for(row_tiles_, 1 + 16384 / a_.c, [&](int64_t begin, int64_t end) {
      for (int64_t tile = begin; tile < end; ++tile) transform_filters(tile, filters.get());
    });
    const int64_t tiles = static_cast<int64_t>(a_.images.size()) * down_ * across_;
    const int64_t size = group_size(tiles);
    parallel_for(ceil_div(tiles, size), 1, [&](int64_t begin, int64_t end) {
      for (int64_t group = begin; group < end; ++group)
        run_group({group * size, std::min(tiles, (group + 1) * size)}, filters.get());
    });
  }

 private:
  static constexpr int kSide = Winograd<T, M>::kSide, kPoints = Winograd<T, M>::kPoints;

  static const WinogradKernels<T>& transforms() {
    return M == 2 ? kernels<T>().winograd2 : kernels<T>().winograd4;
  }

  int64_t group_size(int64_t tiles) const {
    const int64_t lanes = kernels<T>().lanes, width = lanes * kernels<T>().tile_vectors;
    const int64_t near = kNear / (kPoints * a_.c * static_cast<int64_t>(sizeof(T)));
    const int64_t most = std::clamp<int64_t>(near / width, 1, 8) * width;
    return std::min(most, ceil_div(ceil_div(tiles, 2 * thread_count()), lanes) * lanes);
  }

  // to: [points][row_tiles][C, row_tile].
  void transform_filters(int64_t tile, T* to) const {
    constexpr int64_t kChannels = 64;  // at a time
    const Scratch<T> taps(kChannels * 9 * kMaxTileRows);
    const int64_t first = tile * row_tile_, rows = std::min(row_tile_, a_.k - first);
    for (int64_t c = 0; c < a_.c; c += kChannels) {
      const int64_t count = std::min(kChannels, a_.c - c);
      const T* from = a_.weight + first * a_.filter_step + c * a_.channel_step;
      if (a_.channel_step == 9) {
        kernels<T>().transpose(from, a_.filter_step, taps.get(), kMaxTileRows, count * 9, rows, kMaxTileRows);
      } else {
        for (int64_t i = 0; i < count; ++i)
          kernels<T>().transpose(from + i * a_.channel_step, a_.filter_step,
                                 taps.get() + i * 9 * kMaxTileRows, kMaxTileRows, 9, rows, kMaxTileRows);
      }
      transforms().filters(taps.get(), a_.turned, count, row_tile_, to + (tile * a_.c + c) * row_tile_,
                           filter_step_);
    }
  }

  // Tiles of one image, from the first of tile row `top` + `skip` on.
  struct Piece {
    int64_t image, top, rows, skip, count, to;
  };

  void run_group(Range tile, const T* filters) const {
    const Kernels<T>& kernel = kernels<T>();
    const int64_t lanes = kernel.lanes, vectors = ceil_div(tile.size(), lanes), width = vectors * lanes;
    const int64_t pixel_step = a_.c * width + kApart;  // vectors reach beyond the last tile
    const Scratch<T> pixels(kPoints * pixel_step);     // [points][C, width]
    transform_pixels(tile, width, pixel_step, pixels.get());

    const int64_t room = kProducts / (kPoints * width * static_cast<int64_t>(sizeof(T)));
    const int64_t block = std::max<int64_t>(1, room / row_tile_);  // row tiles at a time
    const int64_t product_step = std::min(block, row_tiles_) * row_tile_ * width + kApart;
    const Scratch<T> products(kPoints * product_step), lines(M * M * width);
    for (int64_t first = 0; first < row_tiles_; first += block) {
      const int64_t last = std::min(row_tiles_, first + block);
      for (int64_t point = 0; point < kPoints; ++point)
        multiply(filters + point * filter_step_, {first, last}, pixels.get() + point * pixel_step, vectors,
                 products.get() + point * product_step);
      const int64_t end = std::min(a_.k, last * row_tile_);
      for (int64_t k = first * row_tile_; k < end; ++k) {
        transforms().output(products.get() + (k - first * row_tile_) * width, product_step, tile.size(),
                            lines.get(), M * width, a_.bias ? a_.bias[k] : T(0),
                            a_.residual ? Activation::none : a_.kind);
        if (a_.residual) add_residual(tile, k, lines.get(), M * width);
        write(tile, k, lines.get(), M * width);
      }
    }
  }

  // to [rows of the tiles][vectors*lanes] = filters [rows, C] * pixels [C][vectors*lanes], at one point.
  void multiply(const T* filters, Range row_tiles, const T* pixels, int64_t vectors, T* to) const {
    const Kernels<T>& kernel = kernels<T>();
    const int64_t tile_vectors = even_piece(vectors, kernel.tile_vectors), width = vectors * kernel.lanes;
    Tile<T> tile;
    tile.a_step = row_tile_;
    tile.b_step = tile.c_step = width;
    for (int64_t c = 0; c < a_.c; c += kDepthBlock) {
      tile.length = std::min(kDepthBlock, a_.c - c);
      tile.accumulate = c > 0;
      for (int64_t v = 0; v < vectors; v += tile_vectors) {
        tile.vectors = static_cast<int>(std::min(tile_vectors, vectors - v));
        tile.b = pixels + c * width + v * kernel.lanes;
        for (int64_t i = row_tiles.begin; i < row_tiles.end; ++i) {
          const T* from = filters + (i * a_.c + c) * row_tile_;
          tile.rows = static_cast<int>(std::min(row_tile_, a_.k - i * row_tile_));
          for (int64_t r = 0; r < tile.rows; ++r) tile.a[r] = from + r;
          tile.c = to + (i - row_tiles.begin) * row_tile_ * width + v * kernel.lanes;
          kernel.multiply(tile);
        }
      }
    }
  }

  // to: [points][C, width], points `step` apart.
  void transform_pixels(Range tile, int64_t width, int64_t step, T* to) const {
    const int64_t lanes = kernels<T>().lanes, per_image = down_ * across_;
    std::vector<Piece> pieces;
    int64_t most_rows = 0;
    for (int64_t t = tile.begin; t < tile.end;) {
      const int64_t image = t / per_image, begin = t - image * per_image;
      const int64_t end = std::min(per_image, begin + tile.end - t);
      const int64_t top = begin / across_, rows = (end - 1) / across_ - top + 1;
      pieces.push_back({a_.images[static_cast<size_t>(image)], top, rows, begin - top * across_, end - begin,
                        t - tile.begin});
      most_rows = std::max(most_rows, rows);
      t += end - begin;
    }
    // One channel, transformed along its rows: value v of the rows i*M + m lies in a plane of its own, in
    // which the tiles of all rows follow one another, and so do their values of i + 1.
    const int64_t plane = (most_rows + 1) * across_ + 2 * lanes, value_step = M * plane;
    const Scratch<T> planes(kSide * value_step);
    std::fill(planes.get(), planes.get() + kSide * value_step, T(0));
    // The rows that a piece sees. What lies outside of the image is zero.
    const int64_t length = M * (across_ + lanes) + 2, most_lines = M * (most_rows - 1) + kSide;
    const Scratch<T> lines(most_lines * length);
    std::fill(lines.get(), lines.get() + most_lines * length, T(0));
    const int64_t left = std::max<int64_t>(0, -a_.left);
    const Run inside{0, left, std::max<int64_t>(0, std::min(M * across_ + 2, a_.w - a_.left) - left)};
    std::vector<int64_t> offsets(most_lines);
    for (int64_t i = 0; i < most_lines; ++i) offsets[i] = i * a_.w;
    const T* end = a_.x + (a_.images.back() + 1) * a_.c * a_.h * a_.w;
    for (int64_t c = 0; c < a_.c; ++c)
      for (const Piece& piece : pieces) {
        const int64_t rows = M * (piece.rows - 1) + kSide, top = a_.top + piece.top * M;
        const int64_t first = std::clamp<int64_t>(-top, 0, rows), last = std::clamp(a_.h - top, first, rows);
        std::fill(lines.get(), lines.get() + first * length, T(0));
        std::fill(lines.get() + last * length, lines.get() + rows * length, T(0));
        if (inside.length > 0)
          kernels<T>().gather(
              a_.x + (piece.image * a_.c + c) * a_.h * a_.w + (top + first) * a_.w + a_.left + left, end,
              offsets.data(), last - first, &inside, 1, lines.get() + first * length, length, length);
        transforms().rows(lines.get(), length, rows, across_, planes.get(), plane, value_step);
        const T* seen[kSide];
        for (int u = 0; u < kSide; ++u) seen[u] = planes.get() + u % M * plane + u / M * across_ + piece.skip;
        transforms().columns(seen, value_step, piece.count, to + c * width + piece.to, step);
      }
    if (tile.size() < width)
      for (int64_t point = 0; point < kPoints; ++point)
        for (int64_t c = 0; c < a_.c; ++c)
          std::fill(to + point * step + c * width + tile.size(), to + point * step + (c + 1) * width, T(0));
  }

  // Calls f(first, place, length) for the pieces of M lines of filter k's pixels that lie together in y.
  template <class F>
  void pieces_of(Range tile, int64_t k, int64_t line_step, const F& f) const {
    const PixelOrder order{static_cast<int64_t>(a_.images.size()), down_, across_, across_, false};
    order.runs(tile.begin, tile.end, [&](int64_t from, int64_t image, int64_t i, int64_t j, int64_t count) {
      const int64_t rows = std::min<int64_t>(M, a_.p - i * M), length = std::min(count * M, a_.q - j * M);
      const int64_t plane = a_.images[static_cast<size_t>(image)] * a_.k + k;
      for (int64_t row = 0; row < rows; ++row)
        f(row * line_step + from * M, (plane * a_.p + i * M + row) * a_.q + j * M, length);
    });
  }

  void write(Range tile, int64_t k, const T* lines, int64_t line_step) const {
    pieces_of(tile, k, line_step, [&](int64_t first, int64_t place, int64_t length) {
      std::memcpy(a_.y + place, lines + first, static_cast<size_t>(length) * sizeof(T));
    });
  }

  void add_residual(Range tile, int64_t k, T* lines, int64_t line_step) const {
    pieces_of(tile, k, line_step, [&](int64_t first, int64_t place, int64_t length) {
      for (int64_t i = 0; i < length; ++i) lines[first + i] += a_.residual[place + i];
      kernels<T>().activate(lines + first, lines + first, length, a_.kind);
    });
  }

  const WinogradProblem<T>& a_;
  int64_t down_, across_;  // tiles of an image
  int64_t row_tile_, row_tiles_, filter_step_;
};

}  // namespace winograd
}  // namespace fastarch::cpu
