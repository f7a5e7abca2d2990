// What convolution adds to the blocked multiply: images rearranged so that the pixels of one filter tap lie
// in a row, the reader that takes such rows as B, and the writer that puts the products where pixels belong.
// The matrix of patches (im2col) is never stored.
#pragma once
#include <map>
#include <vector>

#include "cpu/gemm.h"

namespace fastarch::cpu {

// One axis of a rearranged image. A filter tap looks at a line of positions: first, first + stride, ... The
// axis holds phases of `size` entries, such that every line lies in one of them without gaps: entry i of
// phase f is position starts[f] + i*stride, or zero where that is outside [0, input). A convolution of stride
// s thus becomes one of stride 1 on s*s smaller planes.
struct PhaseAxis {
  struct Line {
    int64_t first, count;
  };
  struct Place {
    int64_t phase, entry;  // where a line begins
  };

  int64_t input, stride, size = 0;
  std::vector<int64_t> starts;  // [phases]
  std::vector<Place> places;    // [lines]

  PhaseAxis(int64_t input, int64_t stride, const std::vector<Line>& lines) : input(input), stride(stride) {
    // Lines that differ by multiples of the stride share a phase,
    struct Shared {
      int64_t index, first;
    };
    std::map<int64_t, Shared> phases;
    int64_t longest = 0;
    for (const Line& line : lines) {
      Shared& shared = phases.try_emplace(residue(line.first), Shared{0, line.first}).first->second;
      shared.first = std::min(shared.first, line.first);
      longest = std::max(longest, line.count);
    }
    for (auto& [key, shared] : phases) {
      shared.index = static_cast<int64_t>(starts.size());
      starts.push_back(shared.first);
    }
    for (const Line& line : lines) {
      const Shared& shared = phases.at(residue(line.first));
      places.push_back({shared.index, (line.first - shared.first) / stride});
      size = std::max(size, places.back().entry + line.count);
    }
    // unless they are so far apart (dilation) that one phase for each is less.
    const int64_t count = static_cast<int64_t>(lines.size());
    if (count * longest >= static_cast<int64_t>(starts.size()) * size) return;
    size = longest;
    starts.clear();
    places.clear();
    for (const Line& line : lines) {
      places.push_back({static_cast<int64_t>(starts.size()), 0});
      starts.push_back(line.first);
    }
  }

  // Of the windows of a convolution: a line for each of `taps`.
  static PhaseAxis of_windows(int64_t input, int64_t output, int64_t taps, int64_t stride, int64_t padding,
                              int64_t dilation) {
    std::vector<Line> lines;
    lines.reserve(static_cast<size_t>(taps));
    for (int64_t r = 0; r < taps; ++r) lines.push_back({r * dilation - padding, output});
    return {input, stride, lines};
  }

  bool as_it_is() const { return stride == 1 && starts.size() == 1 && starts[0] == 0 && size <= input; }

 private:
  int64_t residue(int64_t position) const { return (position % stride + stride) % stride; }
};

// A rearranged image [channels, row phases, column phases, rows.size, columns.size], or the image as it is.
struct PhaseLayout {
  PhaseAxis rows, columns;
  bool in_place;
  int64_t pitch, phase_step, channel_step;

  PhaseLayout(const PhaseAxis& rows, const PhaseAxis& columns)
      : rows(rows),
        columns(columns),
        in_place(rows.as_it_is() && columns.as_it_is()),
        pitch(in_place ? columns.input : columns.size),
        phase_step((in_place ? rows.input : rows.size) * pitch),
        channel_step(static_cast<int64_t>(rows.starts.size() * columns.starts.size()) * phase_step) {}

  // Where in a channel a line of rows and a line of columns meet.
  int64_t offset(const PhaseAxis::Place& row, const PhaseAxis::Place& column) const {
    const int64_t phase = row.phase * static_cast<int64_t>(columns.starts.size()) + column.phase;
    return phase * phase_step + row.entry * pitch + column.entry;
  }

  // The offsets of all pairs of lines, a row's together.
  std::vector<int64_t> offsets() const {
    std::vector<int64_t> all;
    for (const auto& row : rows.places)
      for (const auto& column : columns.places) all.push_back(offset(row, column));
    return all;
  }

  // Rearranges also where the image could be read as it is.
  void copy_always() {
    in_place = false;
    pitch = columns.size;
    phase_step = rows.size * pitch;
    channel_step = static_cast<int64_t>(rows.starts.size() * columns.starts.size()) * phase_step;
  }

  // Rearranges one channel.
  template <class T>
  void fill(const T* from, T* to) const {
    std::fill(to, to + channel_step, T(0));
    copy_inside(from, to);
  }

  // The same, where what lies outside of the image is zero already.
  template <class T>
  void copy_inside(const T* from, T* to) const {
    for (const int64_t top : rows.starts)
      for (const int64_t left : columns.starts) {
        const Range line = inside(rows, top), entry = inside(columns, left);
        for (int64_t i = line.begin; i < line.end; ++i)
          copy(from + (top + i * rows.stride) * columns.input + left, to + i * columns.size, entry);
        to += phase_step;
      }
  }

 private:
  // The entries of a phase that are inside the image.
  static Range inside(const PhaseAxis& axis, int64_t start) {
    const int64_t begin = std::min(axis.size, start < 0 ? ceil_div(-start, axis.stride) : 0);
    const int64_t end = start < axis.input ? ceil_div(axis.input - start, axis.stride) : 0;
    return {begin, std::clamp(end, begin, axis.size)};
  }

  template <class T>
  void copy(const T* line, T* to, Range entry) const {
    kernels<T>().pick(line + entry.begin * columns.stride, columns.stride, to + entry.begin, entry.size());
  }
};

// The columns of a product are the pixels of [images, height, width], in one of two orders. Flat: all of
// them, row after row. Wide (one image): pixel (p, q) is column p*pitch + q with the pitch of the source, so
// that B is read where it lies; the columns between the rows are computed and thrown away.
struct PixelOrder {
  int64_t images, height, width;
  int64_t pitch;  // of the source
  bool wide;

  int64_t columns() const { return wide ? (height - 1) * pitch + width : images * height * width; }

  // Calls f(column - j, image, p, q, length) for the runs of pixels of one row in columns [j, end).
  template <class F>
  void runs(int64_t j, int64_t end, const F& f) const {
    const int64_t step = wide ? pitch : width;
    const int64_t row = j / step;
    int64_t q = j - row * step, image = row / height, p = row - image * height;
    for (int64_t at = j; at < end;) {
      const int64_t length = std::min(end - at, step - q);
      if (q < width) f(at - j, image, p, q, std::min(length, width - q));
      at += length;
      q = 0;
      if (++p == height) {
        p = 0;
        ++image;
      }
    }
  }
};

constexpr int kMostColumns = 64;  // of a tile: 3 vectors of 16 at most

// Reads B[k][column] = source[offset[k] + image*image_step + p*pitch + q].
template <class T>
struct PatchReader {
  const T* source;
  const T* end;  // of the memory that may be read
  const int64_t* offset;
  int64_t largest_offset;
  int64_t image_step;
  PixelOrder order;

  bool direct(int64_t k, int64_t j, int64_t width, int64_t, Tile<T>* tile) const {
    if (!order.wide || end - source < largest_offset + j + width) return false;
    tile->b = source + j;
    tile->b_offset = offset + k;
    return true;
  }

  void pack(int64_t k, int64_t depth, int64_t j, int64_t columns, T* panel, int64_t width) const {
    Run runs[kMostColumns];
    int count = 0;
    order.runs(j, j + columns, [&](int64_t to, int64_t image, int64_t p, int64_t q, int64_t length) {
      runs[count++] = {image * image_step + p * order.pitch + q, to, length};
    });
    kernels<T>().gather(source, end, offset + k, depth, runs, count, panel, width, width);
  }
};

// Writes C[i][column] to to[image*image_step + i*row_step + p*pitch + q*step]; it is added to what `residual`
// has at the same place.
template <class T>
struct PixelWriter {
  T* to;
  const T* residual;  // or null
  int64_t image_step, row_step, pitch, step;
  PixelOrder order;

  T* place(int64_t i, int64_t j, int64_t* tile_step) const {
    const bool contiguous =
        step == 1 && order.images == 1 && (order.height == 1 || (pitch == order.width && !order.wide));
    *tile_step = row_step;
    return contiguous ? to + i * row_step + j : nullptr;
  }

  bool begin(int64_t i, int64_t rows, int64_t j, int64_t columns, T* tile, int64_t tile_step) const {
    if (!residual) return false;
    order.runs(j, j + columns, [&](int64_t first, int64_t image, int64_t p, int64_t q, int64_t length) {
      const T* from = residual + image * image_step + i * row_step + p * pitch + q * step;
      T* values = tile + first;
      for (int64_t r = 0; r < rows; ++r, from += row_step, values += tile_step)
        for (int64_t x = 0; x < length; ++x) values[x] = from[x * step];
    });
    return true;
  }

  void write(int64_t i, int64_t rows, int64_t j, int64_t columns, const T* tile, int64_t tile_step) const {
    // The tile's pixels of a row follow one another.
    if (step == 1 && order.images == 1 && pitch == order.width)
      return write_together(i, rows, j, columns, tile, tile_step);
    order.runs(j, j + columns, [&](int64_t from, int64_t image, int64_t p, int64_t q, int64_t length) {
      T* at = to + image * image_step + i * row_step + p * pitch + q * step;
      const T* values = tile + from;
      for (int64_t r = 0; r < rows; ++r, at += row_step, values += tile_step) {
        if (step == 1) {
          for (int64_t x = 0; x < length; ++x) at[x] = values[x];
        } else {
          for (int64_t x = 0; x < length; ++x) at[x * step] = values[x];
        }
      }
    });
  }

 private:
  void write_together(int64_t i, int64_t rows, int64_t j, int64_t columns, const T* tile,
                      int64_t tile_step) const {
    Run runs[kMostColumns];
    int count = 0;
    int64_t first = 0, width = 0;
    order.runs(j, j + columns, [&](int64_t from, int64_t, int64_t p, int64_t q, int64_t length) {
      if (count == 0) first = p * pitch + q;
      runs[count++] = {from, width, length};
      width += length;
    });
    int64_t offsets[kMaxTileRows];
    for (int64_t r = 0; r < rows; ++r) offsets[r] = r * tile_step;
    kernels<T>().gather(tile, tile + (rows - 1) * tile_step + columns, offsets, rows, runs, count,
                        to + i * row_step + first, row_step, width);
  }
};

}  // namespace fastarch::cpu
