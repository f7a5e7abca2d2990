// The inner loops that gain from an instruction set. kernels.cpp is compiled once for each set, and
// kernels<T>() is the table of the best one this processor runs. How an operator is split into such loops,
// and over threads, is said in gemm.h and <op>.cpp.
#pragma once
#include <type_traits>

#include "core/types.h"
#include "ops/pool2d.h"

namespace fastarch::cpu {

constexpr int kMaxTileRows = 8;

// One register tile of the multiply: c[i][j] = f(sum over k of a[i][k] * b[k][j] + bias[i] + column_bias[j]).
// The k run over `segments` segments of `length`. In a row of A, a_step leads from one k to the next and
// a_jump, in addition, from the end of a segment to the next segment.
template <class T>
struct Tile {
  const T* a[kMaxTileRows] = {};  // each row at its first k
  int64_t a_step = 1, a_jump = 0;
  int64_t length = 0, segments = 1;
  const T* b = nullptr;               // row k is [vectors * lanes] at b + k*b_step,
  int64_t b_step = 0;                 // or, where b_offset is given, at b + b_offset[k] (one segment only)
  const int64_t* b_offset = nullptr;  // [length] or null
  T* c = nullptr;                     // [rows][vectors * lanes], rows c_step apart
  int64_t c_step = 0;
  const T* bias = nullptr;         // [rows] or null
  const T* column_bias = nullptr;  // [vectors * lanes] or null
  int rows = 0, vectors = 0;
  Activation kind = Activation::none;
  bool accumulate = false;  // add what c holds before bias and activation
};

// One plane and one filter: out[p][q] = f(sum over t of weight[t] * source[offset[t] + p*pitch + q] + bias).
template <class T>
struct Stencil {
  const T* source = nullptr;  // a vector may be read behind what the last pixel of a short row sees
  int64_t pitch = 0;
  const int64_t* offset = nullptr;  // [taps]
  const T* weight = nullptr;        // [taps]
  int64_t taps = 0;
  int window = 0;    // 3 or 5: a square window, tap i*window + j at i*pitch + j; offset is not read
  T* out = nullptr;  // [rows, columns]
  int64_t rows = 0, columns = 0;
  T bias = 0;
  Activation kind = Activation::none;
};

// Consecutive values that are moved together.
struct Run {
  int64_t from, to, length;
};

// What follows a product in a step of a recurrent layer: the cells, and the two halves of GRU with the reset
// before its second product (its r and z, its n).
enum class RecurrentPart { rnn_tanh, rnn_relu, lstm, gru, reset_gates, reset_new };

// Rows [row, row + rows) and units [unit, unit + count) of one step. Arrays begin at the step's first row and
// at unit 0; H units, `width` values in a row of gates. Of ops/recurrent.h, where not said otherwise.
template <class T>
struct RecurrentRows {
  RecurrentPart part = RecurrentPart::lstm;
  int64_t row = 0, rows = 0, unit = 0, count = 0, units = 0, width = 0;

  // The product, from row `row` and unit `unit` on: vector v of gate g at v*p_vector + g*p_gate.
  const T* p = nullptr;
  int64_t p_row = 0, p_vector = 0, p_gate = 0;

  // Forward. before: each row's state before [H]; y: reset_gates: r h.
  const T* const* before = nullptr;
  const T* b_n = nullptr;
  T *gates = nullptr, *c = nullptr, *y = nullptr, *extra = nullptr;

  // Backward. c: its gradient. The product is added to dh in rows below product_rows; rows below gate_rows go
  // through the gates, dy added.
  int64_t product_rows = 0, gate_rows = 0;
  const T *activated = nullptr, *kept = nullptr, *previous = nullptr, *dy = nullptr;
  T *dh = nullptr, *da = nullptr, *da_h = nullptr;
};

// The elements of one window of a channels-last image that lie inside: where their channels begin, and their
// places in the window.
struct WindowTaps {
  const int64_t* offset;
  const int32_t* place;
  int64_t count, channels;
};

// Pixels [rows, columns] of a channels-last image that see the same taps: pixel (p, q) lies at out + p*out_row
// + q*out_column and sees, for each tap, source + offset + p*source_row + q*source_column. Vectors [first,
// end) of its channels, of which vector v begins at channel v*lanes - channel_shift, or where the channels
// begin, or such that it ends where they do. Filters are [vectors][filter_taps][lanes].
struct PixelGrid {
  WindowTaps taps;
  int64_t filter_taps = 0;
  int64_t stride = 1;
  int window = 0;  // 3, 5, 7: taps come in rows of that many, source_column / stride apart; 0: anyhow
  int64_t rows = 0, columns = 0;
  int64_t source_row = 0, source_column = 0, out_row = 0, out_column = 0;
  int64_t first = 0, end = 0, channel_shift = 0;
};

// Integers as wide as T, which take part in its vectors.
template <class T>
using LaneInteger = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;

// The transforms of F(MxM, 3x3), with A = M + 2 (core/winograd.h). Of tiles, whole vectors are read and
// written.
template <class T>
struct WinogradKernels {
  // Rows of an image, along their columns: value v < A of line[M*j], line[M*j + 1], ... of row i goes to
  // to[v*to_step + i%M*plane + i/M*tiles + j].
  void (*rows)(const T* lines, int64_t line_step, int64_t rows, int64_t tiles, T* to, int64_t plane,
               int64_t to_step);

  // The other axis: to[(u*A + v)*to_step + j] = value u of rows[0][v*from_step + j], ..., rows[A - 1][...].
  void (*columns)(const T* const* rows, int64_t from_step, int64_t tiles, T* to, int64_t to_step);

  // Filters, taps: [channels, 9, 8], turned by half a circle or not: to[(u*A + v)*to_step + c*rows + i], i <
  // rows.
  void (*filters)(const T* taps, bool turned, int64_t channels, int64_t rows, T* to, int64_t to_step);

  // Back, from [(u*A + v)*from_step + j]: to[p*to_step + M*j + q] = f(pixel (p, q) of tile j + bias).
  void (*output)(const T* from, int64_t from_step, int64_t tiles, T* to, int64_t to_step, T bias,
                 Activation kind);
};

template <class T>
struct Kernels {
  int lanes;                    // values in a vector
  int tile_rows, tile_vectors;  // the largest tile that stays in registers

  void (*multiply)(const Tile<T>& tile);

  void (*stencil)(const Stencil<T>& stencil);

  // sums[t] += sum over i < n of y[i] * x[offset[t] + i]; n is a multiple of the lanes.
  void (*dots)(const T* y, const T* x, const int64_t* offset, int64_t count, int64_t n, T* sums);

  // to[k][j] = from[j][k] for k < depth and j < columns, 0 for columns <= j < width.
  void (*transpose)(const T* from, int64_t from_step, T* to, int64_t to_step, int64_t depth, int64_t columns,
                    int64_t width);

  // For each of `rows` rows k, to + k*to_step becomes: to[run.to + x] = source[offset[k] + run.from + x] for
  // x < run.length, and 0 from the last run's end to `width`. Runs ascend in `to`; what lies between them is
  // undefined. Nothing at or behind `end` is read.
  void (*gather)(const T* source, const T* end, const int64_t* offset, int64_t rows, const Run* runs,
                 int count, T* to, int64_t to_step, int64_t width);

  // to[i] = from[i * stride] for i < n; nothing else is read.
  void (*pick)(const T* from, int64_t stride, T* to, int64_t n);

  T (*sum)(const T* x, int64_t n);

  // y[n] = f(x); dx[n] = dy * f'(x), from y. An output may be an input.
  void (*activate)(const T* x, T* y, int64_t n, Activation kind);
  void (*activate_backward)(const T* dy, const T* y, T* dx, int64_t n, Activation kind);

  // One row: y = exp(x - maximum) / total, where total is the sum of the exponentials. y may be x.
  void (*softmax)(const T* x, T* y, int64_t n, T* maximum, T* total);
  // dx = y * (dy - sum of dy*y). dx may be dy.
  void (*softmax_backward)(const T* dy, const T* y, T* dx, int64_t n);

  // velocity = momentum * velocity + rate * (gradient - decay * w); w += velocity. [n] each.
  void (*learn)(T* w, T* velocity, const T* gradient, int64_t n, T rate, T momentum, T decay);

  // Elements [4*begin, min(4*end, n)) of dropout: Philox positions [begin, end).
  void (*dropout)(const T* x, T* y, int64_t begin, int64_t end, int64_t n, T scale, uint32_t threshold,
                  uint64_t seed, uint64_t offset);

  // One plane. x: [H, W], of memory that ends at x_end; y: [P, Q], overwritten; argmax: [P, Q],
  // overwritten, or null.
  void (*max_pool_bytes)(const T* x, const T* x_end, T* y, uint8_t* argmax, const PoolAxis& rows,
                         const PoolAxis& columns);
  void (*max_pool_words)(const T* x, const T* x_end, T* y, int32_t* argmax, const PoolAxis& rows,
                         const PoolAxis& columns);
  void (*avg_pool)(const T* x, const T* x_end, T* y, const PoolAxis& rows, const PoolAxis& columns,
                   bool count_padding);

  // One window, all channels. max: y, argmax (or null) [channels] overwritten; -inf and the first place where
  // nothing is larger. mean: y overwritten = sum / divisor. Backwards: dx += what dy sends to each element.
  void (*max_pixel_bytes)(const T* x, const WindowTaps& taps, T* y, uint8_t* argmax);
  void (*max_pixel_words)(const T* x, const WindowTaps& taps, T* y, int32_t* argmax);
  void (*max_pixel_backward_bytes)(const T* dy, const uint8_t* argmax, const WindowTaps& taps, T* dx);
  void (*max_pixel_backward_words)(const T* dy, const int32_t* argmax, const WindowTaps& taps, T* dx);
  void (*mean_pixel)(const T* x, const WindowTaps& taps, T divisor, T* y);
  void (*mean_pixel_backward)(const T* dy, const WindowTaps& taps, T divisor, T* dx);

  // Depthwise. out = f(sum over taps of filters[place] * source + bias + residual), overwritten; bias:
  // [channels] or null; residual: as out, or null.
  void (*channel_taps)(const PixelGrid& grid, const T* source, const T* filters, const T* bias,
                       const T* residual, T* out, Activation kind);
  // sums[place] += sum over pixels of out * source; sums as filters.
  void (*channel_tap_dots)(const PixelGrid& grid, const T* source, const T* out, T* sums);

  void (*recurrent_gates)(const RecurrentRows<T>& rows);
  void (*recurrent_gates_gradient)(const RecurrentRows<T>& rows);

  // For each column c of scores [rows, columns], step apart: best[c] and second[c] become the two lowest of
  // themselves and the column, unit[c] the best one's: its row plus `first`, or as it was. The lowest row on
  // ties. Reads and writes whole vectors.
  void (*lowest_scores)(const T* scores, int64_t step, int rows, int64_t columns, int64_t first, T* best,
                        T* second, LaneInteger<T>* unit);
  // |x - w|^2 in float64.
  double (*square_distance)(const T* x, const T* w, int64_t n);
  // y += step * (x - y).
  void (*move_towards)(const T* x, T* y, int64_t n, T step);

  WinogradKernels<T> winograd2, winograd4;  // of M = 2 and 4
  // largest[i] = max(largest[i], |x[i]|), magnitudes as their bits: those of infinity and NaN are the
  // largest.
  void (*largest_magnitudes)(const T* x, int64_t n, LaneInteger<T>* largest);

  void max_pool(const T* x, const T* x_end, T* y, uint8_t* argmax, const PoolAxis& rows,
                const PoolAxis& columns) const {
    max_pool_bytes(x, x_end, y, argmax, rows, columns);
  }
  void max_pool(const T* x, const T* x_end, T* y, int32_t* argmax, const PoolAxis& rows,
                const PoolAxis& columns) const {
    max_pool_words(x, x_end, y, argmax, rows, columns);
  }
  void max_pixel(const T* x, const WindowTaps& taps, T* y, uint8_t* argmax) const {
    max_pixel_bytes(x, taps, y, argmax);
  }
  void max_pixel(const T* x, const WindowTaps& taps, T* y, int32_t* argmax) const {
    max_pixel_words(x, taps, y, argmax);
  }
  void max_pixel_backward(const T* dy, const uint8_t* argmax, const WindowTaps& taps, T* dx) const {
    max_pixel_backward_bytes(dy, argmax, taps, dx);
  }
  void max_pixel_backward(const T* dy, const int32_t* argmax, const WindowTaps& taps, T* dx) const {
    max_pixel_backward_words(dy, argmax, taps, dx);
  }
};

template <class T>
const Kernels<T>& kernels();

// A part of the Philox stream (seed, offset): from a position on.
struct Words {
  uint64_t seed, offset, position;
};

// Samples of random units, the same bits whatever the instruction set: sampling.cpp, compiled without fused
// multiply-adds.
template <class T>
struct Samplers {
  // mean = sigmoid(x + bias), sample = 1 with that probability; [n] each. Either output may be null or x.
  void (*bernoulli)(const T* x, const T* bias, T* mean, T* sample, int64_t n, Words words);

  // Standard normal numbers.
  void (*normal)(T* out, int64_t n, Words words);

  // The sum of ln(1 + exp(x + bias)), which no sample depends on.
  double (*softplus_sum)(const T* x, const T* bias, int64_t n);
};

template <class T>
const Samplers<T>& samplers();

}  // namespace fastarch::cpu
