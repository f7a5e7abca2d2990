// The blocked multiply behind convolution and linear layers: C = f(A * B + bias), [rows, depth] x [depth,
// columns].
//
// A row of A is read where it lies, one value at a time, broadcast; where its values lie apart, a tile's rows
// are brought together first, for their lines would throw each other out of the nearest cache. B is read a
// vector at a time, from a panel [depth, width] that its reader packs, or where it lies when the reader says
// that it can be. A writer takes finished tiles of C to where they belong. Each sum runs over the depth in
// ascending order, in blocks of a fixed size, so that results do not depend on how rows and columns are split
// over threads.
//
// A reader of B has
//   bool direct(int64_t k, int64_t j, int64_t width, int64_t columns, Tile<T>* tile)
//       sets tile->b and b_step or b_offset to rows k.. and columns [j, j + width), of which `columns` exist,
//       or says no
//   void pack(int64_t k, int64_t depth, int64_t j, int64_t columns, T* panel, int64_t width)
//       fills panel [depth, width], with 0 from `columns` on
// A writer of C has
//   T* place(int64_t i, int64_t j, int64_t* step)
//       where a tile from row i and column j on may be stored whole, or null
//   void write(int64_t i, int64_t rows, int64_t j, int64_t columns, const T* tile, int64_t step)
// and, if it has values that the product is added to,
//   bool begin(int64_t i, int64_t rows, int64_t j, int64_t columns, T* tile, int64_t step)
//       puts them into the tile, or says that there are none
#pragma once
#include <algorithm>
#include <cstring>

#include "core/thread_pool.h"
#include "cpu/kernels.h"
#include "cpu/scratch.h"

namespace fastarch::cpu {

constexpr int64_t kDepthBlock = 256;  // a panel of this depth stays in the nearest caches
constexpr int64_t kGroupTiles = 4;    // column tiles that share what is read of A

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// n split into the fewest pieces of at most `most`, as even as can be: the size of a piece.
inline int64_t even_piece(int64_t n, int64_t most) {
  return ceil_div(n, std::max<int64_t>(1, ceil_div(n, most)));
}

struct Range {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};

// A: element (i, k) at data[i*row_step + k*k_step].
template <class T>
struct Rows {
  const T* data;
  int64_t row_step, k_step;
};

// B row-major: element (k, j) at data[k*step + j].
template <class T>
struct DenseReader {
  const T* data;
  int64_t step;
  bool packed;  // always; else only where columns end inside a vector

  bool direct(int64_t k, int64_t j, int64_t width, int64_t columns, Tile<T>* tile) const {
    if (packed || columns < width) return false;
    tile->b = data + k * step + j;
    tile->b_step = step;
    return true;
  }
  void pack(int64_t k, int64_t depth, int64_t j, int64_t columns, T* panel, int64_t width) const {
    for (int64_t i = 0; i < depth; ++i, panel += width) {
      std::memcpy(panel, data + (k + i) * step + j, static_cast<size_t>(columns) * sizeof(T));
      std::fill(panel + columns, panel + width, T(0));
    }
  }
};

// B column-major: element (k, j) at data[j*step + k].
template <class T>
struct TransposedReader {
  const T* data;
  int64_t step;

  bool direct(int64_t, int64_t, int64_t, int64_t, Tile<T>*) const { return false; }
  void pack(int64_t k, int64_t depth, int64_t j, int64_t columns, T* panel, int64_t width) const {
    kernels<T>().transpose(data + j * step + k, step, panel, width, depth, columns, width);
  }
};

// C row-major: element (i, j) at data[i*step + j].
template <class T>
struct DenseWriter {
  T* data;
  int64_t step;

  T* place(int64_t i, int64_t j, int64_t* to_step) const {
    *to_step = step;
    return data + i * step + j;
  }
  void write(int64_t i, int64_t rows, int64_t j, int64_t columns, const T* tile, int64_t tile_step) const {
    for (int64_t r = 0; r < rows; ++r)
      std::memcpy(data + (i + r) * step + j, tile + r * tile_step, static_cast<size_t>(columns) * sizeof(T));
  }
};

// C column-major: element (i, j) at data[j*step + i].
template <class T>
struct TransposedWriter {
  T* data;
  int64_t step;

  T* place(int64_t, int64_t, int64_t*) const { return nullptr; }
  void write(int64_t i, int64_t rows, int64_t j, int64_t columns, const T* tile, int64_t tile_step) const {
    kernels<T>().transpose(tile, tile_step, data + j * step + i, step, columns, rows, rows);
  }
};

template <class T, class Reader, class Writer>
struct Product {
  int64_t rows, columns, depth;
  Rows<T> a;
  Reader b;
  Writer c;
  const T* bias = nullptr;  // [rows] or null
  Activation kind = Activation::none;
  const T* column_bias = nullptr;  // [columns, and readable a tile beyond], or null

  // Rows and columns of a tile, chosen so that the last one is not much smaller than the others.
  int64_t tile_rows() const { return even_piece(rows, kernels<T>().tile_rows); }
  int64_t tile_width() const {
    const Kernels<T>& k = kernels<T>();
    return k.lanes * even_piece(ceil_div(columns, k.lanes), k.tile_vectors);
  }

  // The whole product, on the calling thread.
  void run() const { run_block({0, rows}, {0, columns}); }

  // The whole product, on the pool.
  void run_parallel() const {
    constexpr int64_t kSmall = 200000;  // multiplications that are not worth a second thread
    const int64_t threads = rows * columns * depth < kSmall ? 1 : thread_count();
    const int64_t width = tile_width(), tiles = ceil_div(columns, width), row_tile = tile_rows();
    // Columns first: those who share them would pack the same panels.
    const int64_t group = std::clamp<int64_t>(tiles / (2 * threads), 1, kGroupTiles),
                  groups = ceil_div(tiles, group);
    const int64_t row_tiles = ceil_div(rows, row_tile);
    int64_t bands = groups >= threads ? 1 : std::min(ceil_div(2 * threads, groups), ceil_div(row_tiles, 4));
    const int64_t band = ceil_div(row_tiles, bands) * row_tile;
    bands = ceil_div(rows, band);
    parallel_for(threads == 1 ? 1 : groups * bands, 1, [&](int64_t begin, int64_t end) {
      if (threads == 1) return run();
      for (int64_t task = begin; task < end; ++task) {
        const int64_t i = task / groups * band, j = task % groups * group * width;
        run_block({i, std::min(rows, i + band)}, {j, std::min(columns, j + group * width)});
      }
    });
  }

  void run_block(Range row, Range column) const {
    const int64_t group_width = kGroupTiles * tile_width();
    for (int64_t j = column.begin; j < column.end; j += group_width)
      run_group(row, {j, std::min(column.end, j + group_width)});
  }

 private:
  // to[k][r] = from[r * row_step + k * k_step], rows `width` apart.
  void bring_together(const T* from, int64_t row_count, int64_t length, int64_t width, T* to) const {
    if (a.row_step == 1 && row_count == width) {  // copies of a length that the compiler knows
      if (width == 8) return bring_rows<8>(from, length, to);
      if (width == 6) return bring_rows<6>(from, length, to);
    }
    for (int64_t k = 0; k < length; ++k, from += a.k_step, to += width)
      for (int64_t r = 0; r < row_count; ++r) to[r] = from[r * a.row_step];
  }

  template <int N>
  void bring_rows(const T* from, int64_t length, T* to) const {
    for (int64_t k = 0; k < length; ++k, from += a.k_step, to += N) std::memcpy(to, from, N * sizeof(T));
  }

  // At most kGroupTiles column tiles: their panels are packed, then every row tile passes over them.
  void run_group(Range row, Range column) const {
    const Kernels<T>& kernel = kernels<T>();
    const int64_t row_tile = tile_rows(), width = tile_width(), tiles = ceil_div(column.size(), width);
    const int64_t blocks = std::max<int64_t>(1, ceil_div(depth, kDepthBlock));
    const int64_t panel_size = std::min(depth, kDepthBlock) * width;
    const Scratch<T> panels(tiles * panel_size);
    // Sums wait here for the next block of the depth, or finished tiles for the writer.
    const int64_t sum_step = blocks > 1 ? tiles * width : width;
    const Scratch<T> sums((blocks > 1 ? row.size() + row_tile : row_tile) * sum_step);
    const bool apart = a.k_step > 1 && tiles > 1;
    const Scratch<T> together(apart ? std::min(depth, kDepthBlock) * row_tile : 0);
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t k = block * kDepthBlock, length = std::min(depth - k, kDepthBlock);
      const bool last = block == blocks - 1;
      Tile<T> read[kGroupTiles];
      for (int64_t t = 0; t < tiles; ++t) {
        const int64_t j = column.begin + t * width, columns_here = std::min(width, column.end - j);
        const int64_t vectors = ceil_div(columns_here, kernel.lanes);
        read[t].vectors = static_cast<int>(vectors);
        if (b.direct(k, j, vectors * kernel.lanes, columns_here, &read[t])) continue;
        T* panel = panels.get() + t * panel_size;
        read[t].b_step = vectors * kernel.lanes;
        b.pack(k, length, j, columns_here, panel, read[t].b_step);
        read[t].b = panel;
      }
      for (int64_t i = row.begin; i < row.end; i += row_tile) {
        const int64_t rows_here = std::min(row_tile, row.end - i);
        const T* from = a.data + i * a.row_step + k * a.k_step;
        int64_t from_row = a.row_step, from_k = a.k_step;
        if (apart) {
          bring_together(from, rows_here, length, row_tile, together.get());
          from = together.get();
          from_row = 1;
          from_k = row_tile;
        }
        for (int64_t t = 0; t < tiles; ++t) {
          const int64_t j = column.begin + t * width, columns_here = std::min(width, column.end - j);
          Tile<T>& tile = read[t];
          tile.rows = static_cast<int>(rows_here);
          for (int64_t r = 0; r < rows_here; ++r) tile.a[r] = from + r * from_row;
          tile.a_step = from_k;
          tile.length = length;
          tile.accumulate = block > 0;
          tile.bias = last && bias ? bias + i : nullptr;
          tile.column_bias = last && column_bias ? column_bias + j : nullptr;
          tile.kind = last ? kind : Activation::none;
          const bool whole = columns_here == tile.vectors * kernel.lanes;
          T* place = blocks == 1 && whole ? c.place(i, j, &tile.c_step) : nullptr;
          tile.c = place;
          if (!place) {
            tile.c = blocks > 1 ? sums.get() + (i - row.begin) * sum_step + t * width : sums.get();
            tile.c_step = sum_step;
          }
          if constexpr (requires { &Writer::begin; }) {
            if (block == 0) tile.accumulate = c.begin(i, rows_here, j, columns_here, tile.c, tile.c_step);
          }
          kernel.multiply(tile);
          if (last && !place) c.write(i, rows_here, j, columns_here, tile.c, tile.c_step);
        }
      }
    }
  }
};

}  // namespace fastarch::cpu
