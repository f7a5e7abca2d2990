// Recurrent layers step by step. The recurrent weights are packed once a sequence, so that the columns of all
// gates of a unit lie side by side: a tile of the product is turned into states while it is in the nearest
// cache. On the way back the product of one step and the gates of the next are one pass likewise.
#include "ops/recurrent.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <vector>

#include "cpu/gemm.h"

namespace fastarch::cpu {
namespace {

constexpr int64_t kSmallStep = 200000;  // multiplications of a step that are not worth a second thread
constexpr int64_t kRowTiles = 4;        // that pass over a tile's columns while these are near

RecurrentPart part_of(Cell cell) {
  switch (cell) {
    case Cell::rnn_tanh: return RecurrentPart::rnn_tanh;
    case Cell::rnn_relu: return RecurrentPart::rnn_relu;
    case Cell::lstm: return RecurrentPart::lstm;
    case Cell::gru: return RecurrentPart::gru;
    default: return RecurrentPart::reset_gates;
  }
}

// Asks for what the gates of some rows and units read, ahead of the product that comes before them: rows are
// a page or more apart, where nothing else foresees them.
template <class T>
void fetch_gates(const RecurrentRows<T>& part) {
  constexpr int64_t kLine = 64 / sizeof(T);
  const int64_t last = part.unit + part.count;
  const auto fetch = [&](const T* array, int64_t row, int64_t width) {
    if (!array) return;
    for (int64_t first = row * width; first < (row + 1) * width; first += part.units)
      for (int64_t unit = part.unit; unit < last; unit += kLine) __builtin_prefetch(array + first + unit);
  };
  for (int64_t row = part.row; row < part.row + part.rows; ++row) {
    fetch(part.gates, row, part.width);
    if (row >= part.gate_rows) continue;
    fetch(part.activated, row, part.width);
    fetch(part.kept, row, part.units);
    fetch(part.previous, row, part.units);
    fetch(part.dy, row, part.units);
  }
}

// B of a step's product: for each group of units, the vectors of all their gates, in tiles [depth, width] of
// the multiply.
template <class T>
class Panels {
 public:
  // Rows of w [gates * units, depth] as columns: of a group of units gate after gate, vector after vector.
  static Panels of_rows(const T* w, int64_t gates, int64_t units, int64_t depth) {
    const Kernels<T>& k = kernels<T>();
    Panels panels(gates, units, depth, std::max<int64_t>(1, k.tile_vectors / gates));
    panels.each([&](int64_t group, int64_t unit, int64_t vector, int64_t count) {
      for (int64_t g = 0; g < gates; ++g)
        k.transpose(w + (g * units + unit) * depth, depth, panels.column(group, vector * gates + g),
                    panels.width_ * k.lanes, depth, count, k.lanes);
    });
    return panels;
  }

  // Columns of w [depth, units].
  static Panels of_columns(const T* w, int64_t units, int64_t depth) {
    const Kernels<T>& k = kernels<T>();
    Panels panels(1, units, depth, k.tile_vectors);
    panels.each([&](int64_t group, int64_t unit, int64_t vector, int64_t count) {
      T* at = panels.column(group, vector);
      for (int64_t i = 0; i < depth; ++i, at += panels.width_ * k.lanes) {
        std::memcpy(at, w + i * units + unit, static_cast<size_t>(count) * sizeof(T));
        std::fill(at + count, at + k.lanes, T(0));
      }
    });
    return panels;
  }

  // For every group of units and some rows of [0, rows) at a time: their product with the rows' operands,
  // each [depth], then after(state) with p, rows and units filled in. Rows from `product_rows` on have no
  // operand.
  template <class After>
  void multiply(const T* const* operands, int64_t rows, int64_t product_rows, const RecurrentRows<T>& state,
                const After& after) const {
    const Kernels<T>& k = kernels<T>();
    const int64_t row_tile = even_piece(rows, k.tile_rows), row_tiles = ceil_div(rows, row_tile);
    const bool small = product_rows * depth_ * gates_ * units_ < kSmallStep;
    const int64_t threads = small ? 1 : thread_count();
    const int64_t bands = std::clamp<int64_t>(ceil_div(2 * threads, groups_), 1, row_tiles);
    const int64_t band = ceil_div(row_tiles, bands) * row_tile, tasks = groups_ * ceil_div(rows, band);
    parallel_for(tasks, small ? tasks : 1, [&](int64_t begin, int64_t end) {
      const Scratch<T> p(kRowTiles * row_tile * row_width_);
      for (int64_t task = begin; task < end; ++task) {
        const int64_t group = task % groups_, first = task / groups_ * band;
        RecurrentRows<T> part = state;
        part.unit = group * group_units();
        part.count = std::min(group_units(), units_ - part.unit);
        part.p = p.get();
        part.p_row = row_width_;
        part.p_vector = gates_ * k.lanes;
        part.p_gate = k.lanes;
        const int64_t end_row = std::min(rows, first + band);
        for (int64_t row = first; row < end_row; row += kRowTiles * row_tile) {
          part.row = row;
          part.rows = std::min(kRowTiles * row_tile, end_row - row);
          const int64_t here = std::clamp<int64_t>(product_rows - row, 0, part.rows);
          fetch_gates(part);
          product(group, operands + row, here, row_tile, p.get());
          after(part);
        }
      }
    });
  }

 private:
  Panels(int64_t gates, int64_t units, int64_t depth, int64_t vectors)
      : gates_(gates), units_(units), depth_(depth) {
    const int64_t lanes = kernels<T>().lanes, all = ceil_div(units, lanes);
    group_ = even_piece(all, vectors);
    groups_ = ceil_div(all, group_);
    width_ = even_piece(group_ * gates, kernels<T>().tile_vectors);
    tiles_ = ceil_div(group_ * gates, width_);
    row_width_ = tiles_ * width_ * lanes;
    data_.reset(new Scratch<T>(groups_ * depth * row_width_));
  }

  int64_t group_units() const { return group_ * kernels<T>().lanes; }

  template <class Body>
  void each(const Body& body) {
    const int64_t lanes = kernels<T>().lanes;
    for (int64_t group = 0; group < groups_; ++group)
      for (int64_t v = 0; v < group_; ++v) {
        const int64_t unit = group * group_units() + v * lanes;
        body(group, std::min(unit, units_), v, std::clamp<int64_t>(units_ - unit, 0, lanes));
      }
  }

  // The first value of a group's vector v; the next ones lie width_ vectors apart.
  T* column(int64_t group, int64_t v) const {
    const int64_t tile = group * tiles_ + v / width_;
    return data_->get() + (tile * depth_ * width_ + v % width_) * kernels<T>().lanes;
  }

  // p [rows, row_width] = the rows' operands times a group's columns.
  void product(int64_t group, const T* const* operands, int64_t rows, int64_t row_tile, T* p) const {
    const Kernels<T>& k = kernels<T>();
    Tile<T> tile;
    tile.length = depth_;
    tile.b_step = width_ * k.lanes;
    tile.c_step = row_width_;
    for (int64_t t = 0; t < tiles_; ++t) {
      tile.vectors = static_cast<int>(std::min(width_, group_ * gates_ - t * width_));
      tile.b = column(group, t * width_);
      for (int64_t row = 0; row < rows; row += row_tile) {
        tile.rows = static_cast<int>(std::min(row_tile, rows - row));
        for (int r = 0; r < tile.rows; ++r) tile.a[r] = operands[row + r];
        tile.c = p + row * row_width_ + t * width_ * k.lanes;
        k.multiply(tile);
      }
    }
  }

  // A group is group_ vectors of units, whose group_ * gates_ vectors of columns lie in tiles_ of width_.
  int64_t gates_, units_, depth_, group_ = 0, groups_ = 0, width_ = 0, tiles_ = 0, row_width_ = 0;
  std::unique_ptr<Scratch<T>> data_;
};

// The same for a sequence of one step, which would read packed weights once: the product first, then the
// gates.
template <class T>
class OneProduct {
 public:
  static OneProduct of_rows(const T* w, int64_t gates, int64_t units, int64_t depth) {
    return {w, gates, units, depth, true};
  }
  static OneProduct of_columns(const T* w, int64_t units, int64_t depth) {
    return {w, 1, units, depth, false};
  }

  template <class After>
  void multiply(const T* const* operands, int64_t rows, int64_t product_rows, const RecurrentRows<T>& state,
                const After& after) const {
    const int64_t width = gates * units, m = product_rows;
    const Scratch<T> p(m * width);
    if (m) {  // the rows of a step lie evenly
      const T* const x = operands[0];
      const int64_t step = m > 1 ? operands[1] - x : depth;
      if (transposed) {
        Product<T, TransposedReader<T>, TransposedWriter<T>>{width,         m,         depth,
                                                             {w, depth, 1}, {x, step}, {p.get(), width}}
            .run_parallel();
      } else {
        Product<T, DenseReader<T>, DenseWriter<T>>{
            m, width, depth, {x, step, 1}, {w, width, false}, {p.get(), width}}
            .run_parallel();
      }
    }
    gates_of_product(p.get(), width, rows, state, after);
  }

  // After(state) for rows of a product [rows, gates * units] as it lies.
  template <class After>
  static void gates_of_product(const T* p, int64_t width, int64_t rows, const RecurrentRows<T>& state,
                               const After& after) {
    constexpr int64_t kFew = 8192;  // values that are not worth a second thread
    parallel_for(rows, ceil_div(kFew, state.width), [&](int64_t begin, int64_t end) {
      RecurrentRows<T> part = state;
      part.row = begin;
      part.rows = end - begin;
      part.count = state.units;
      part.p = p + begin * width;
      part.p_row = width;
      part.p_vector = kernels<T>().lanes;
      part.p_gate = state.units;
      after(part);
    });
  }

  const T* w;
  int64_t gates, units, depth;
  bool transposed;
};

// Calls body(rows, first packed row) for every step, in the order of the recurrence or against it.
template <class Body>
void each_step(const Recurrence& recurrence, bool last_first, const Body& body) {
  int64_t first = 0;
  if (last_first)
    for (int64_t t = 0; t < recurrence.steps; ++t) first += recurrence.sizes[t];
  for (int64_t k = 0; k < recurrence.steps; ++k) {
    const int64_t rows = recurrence.sizes[last_first ? recurrence.steps - 1 - k : k];
    if (last_first) first -= rows;
    if (rows) body(rows, first);
    if (!last_first) first += rows;
  }
}

template <class T>
T* at_row(T* array, int64_t row, int64_t width) {
  return array ? array + row * width : nullptr;
}

template <class T>
void gates_forward(const RecurrentRows<T>& part) {
  kernels<T>().recurrent_gates(part);
}

template <class T>
void gates_backward(const RecurrentRows<T>& part) {
  kernels<T>().recurrent_gates_gradient(part);
}

template <class Product, class T>
void forward_steps(const T* w_hh, const T* b_n, T* gates, T* h, T* c, T* y, T* extra,
                   const Recurrence& recurrence) {
  const int64_t units = recurrence.units, n = recurrence.sequences;
  const bool reset_before = recurrence.cell == Cell::gru_reset_before;
  const int64_t all = gates_of(recurrence.cell), first_gates = reset_before ? 2 : all;
  const Product product = Product::of_rows(w_hh, first_gates, units, units);
  std::optional<Product> product_new;
  if (reset_before) product_new.emplace(Product::of_rows(w_hh + 2 * units * units, 1, units, units));
  const Scratch<T> reset_h(reset_before ? n * units : 0);
  // Where each sequence's state lies: among the first ones, then in y.
  std::vector<const T*> before(static_cast<size_t>(n)), reset_rows(static_cast<size_t>(n));
  for (int64_t b = 0; b < n; ++b) {
    before[b] = h + b * units;
    reset_rows[b] = reset_h.get() + b * units;
  }
  each_step(recurrence, recurrence.reverse, [&](int64_t rows, int64_t first) {
    RecurrentRows<T> state;
    state.part = part_of(recurrence.cell);
    state.units = units;
    state.width = all * units;
    state.before = before.data();
    state.b_n = b_n;
    state.gates = gates + first * state.width;
    state.c = c;
    state.y = reset_before ? reset_h.get() : y + first * units;
    state.extra = at_row(extra, first, units);
    product.multiply(before.data(), rows, rows, state, gates_forward<T>);
    if (reset_before) {
      state.part = RecurrentPart::reset_new;
      state.y = y + first * units;
      product_new->multiply(reset_rows.data(), rows, rows, state, gates_forward<T>);
    }
    for (int64_t b = 0; b < rows; ++b) before[b] = y + (first + b) * units;
  });
  for (int64_t b = 0; b < n; ++b)
    if (before[b] != h + b * units) std::copy_n(before[b], units, h + b * units);
}

template <class Product, class T>
void backward_steps(const T* w_hh, const T* gates, const T* dy, const T* extra, const T* previous, T* dh,
                    T* dc, T* da, T* da_h, const Recurrence& recurrence) {
  const int64_t units = recurrence.units, n = recurrence.sequences;
  const bool reset_before = recurrence.cell == Cell::gru_reset_before;
  const int64_t width = gates_of(recurrence.cell) * units;
  const Product product = Product::of_columns(w_hh, units, reset_before ? 2 * units : width);
  std::optional<Product> product_new;
  if (reset_before) product_new.emplace(Product::of_columns(w_hh + 2 * units * units, units, units));
  const T* const outer = da_h ? da_h : da;
  std::vector<const T*> operands(static_cast<size_t>(n)), operands_new(static_cast<size_t>(n));
  int64_t product_rows = 0;  // of the step that was visited last: its gradients have yet to be multiplied
  const auto visit = [&](int64_t rows, int64_t first) {
    RecurrentRows<T> state;
    state.part = reset_before ? RecurrentPart::reset_new : part_of(recurrence.cell);
    state.units = units;
    state.width = width;
    state.product_rows = product_rows;
    state.gate_rows = rows;
    state.c = dc;
    state.dh = dh;
    if (rows) {
      state.activated = gates + first * width;
      state.kept = at_row(extra, first, units);
      state.previous = at_row(previous, first, units);
      state.dy = at_row(dy, first, units);
      state.da = da + first * width;
      state.da_h = at_row(da_h, first, width);
    }
    product.multiply(operands.data(), std::max(rows, product_rows), product_rows, state, gates_backward<T>);
    for (int64_t b = 0; b < rows; ++b) {
      operands[b] = outer + (first + b) * width;
      if (reset_before) operands_new[b] = operands[b] + 2 * units;
    }
    if (reset_before && rows) {
      state.part = RecurrentPart::reset_gates;
      product_new->multiply(operands_new.data(), rows, rows, state, gates_backward<T>);
    }
    product_rows = rows;
  };
  each_step(recurrence, !recurrence.reverse, visit);
  if (product_rows) visit(0, 0);
}

}  // namespace

template <class T>
void recurrent_forward(const T* w_hh, const T* b_n, T* gates, T* h, T* c, T* y, T* extra,
                       const Recurrence& recurrence, Algorithm, Stream) {
  if (recurrence.sequences == 0 || recurrence.units == 0) return;
  if (recurrence.steps > 1) {
    forward_steps<Panels<T>>(w_hh, b_n, gates, h, c, y, extra, recurrence);
  } else {
    forward_steps<OneProduct<T>>(w_hh, b_n, gates, h, c, y, extra, recurrence);
  }
}

template <class T>
void recurrent_backward(const T* w_hh, const T* gates, const T* dy, const T* extra, const T* previous, T* dh,
                        T* dc, T* da, T* da_h, const Recurrence& recurrence, Algorithm, Stream) {
  if (recurrence.sequences == 0 || recurrence.units == 0) return;
  if (recurrence.steps > 1) {
    backward_steps<Panels<T>>(w_hh, gates, dy, extra, previous, dh, dc, da, da_h, recurrence);
  } else {
    backward_steps<OneProduct<T>>(w_hh, gates, dy, extra, previous, dh, dc, da, da_h, recurrence);
  }
}

template <class T>
void recurrent_gates_forward(const T* product, const T* b_n, const T* h, T* gates, T* c, T* y, T* extra,
                             Cell cell, int64_t sequences, int64_t units, Stream) {
  if (sequences == 0 || units == 0) return;
  std::vector<const T*> before;  // stays empty where there is no h
  for (int64_t b = 0; h && b < sequences; ++b) before.push_back(h + b * units);
  RecurrentRows<T> state;
  state.part = part_of(cell);
  state.units = units;
  state.width = gates_of(cell) * units;
  state.before = before.data();
  state.b_n = b_n;
  state.gates = gates;
  state.c = c;
  state.y = y;
  state.extra = extra;
  OneProduct<T>::gates_of_product(product, state.width, sequences, state, gates_forward<T>);
}

template <class T>
void recurrent_gates_backward(const T* gates, const T* extra, const T* previous, T* dh, T* dc, T* da, T* da_h,
                              Cell cell, int64_t sequences, int64_t units, Stream) {
  if (sequences == 0 || units == 0) return;
  RecurrentRows<T> state;
  state.part = part_of(cell);
  state.units = units;
  state.width = gates_of(cell) * units;
  state.gate_rows = sequences;
  state.activated = gates;
  state.kept = extra;
  state.previous = previous;
  state.dh = dh;
  state.c = dc;
  state.da = da;
  state.da_h = da_h;
  OneProduct<T>::gates_of_product(nullptr, 0, sequences, state, gates_backward<T>);
}

#define INSTANTIATE(T)                                                                                  \
  template void recurrent_forward(const T*, const T*, T*, T*, T*, T*, T*, const Recurrence&, Algorithm, \
                                  Stream);                                                              \
  template void recurrent_backward(const T*, const T*, const T*, const T*, const T*, T*, T*, T*, T*,    \
                                   const Recurrence&, Algorithm, Stream);                               \
  template void recurrent_gates_forward(const T*, const T*, const T*, T*, T*, T*, T*, Cell, int64_t,    \
                                        int64_t, Stream);                                               \
  template void recurrent_gates_backward(const T*, const T*, const T*, T*, T*, T*, T*, Cell, int64_t,   \
                                         int64_t, Stream);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace fastarch::cpu
