// The operands of a whole step's product: [x | h] [N, D + H] and [w_ih | w_hh], each two arrays that are read
// as one, side by side along k.
#pragma once
#include "gemm/matrix.h"
#include "gemm/mma.h"
#include "ops/recurrent.h"

namespace fastarch::cuda {

// Columns of the product for each unit. A cell with gates has four: GRU's new gate has two sums, as its reset
// acts on one of them alone.
FASTARCH_HOST_DEVICE constexpr int columns_of(Cell cell) {
  return cell == Cell::rnn_tanh || cell == Cell::rnn_relu ? 1 : 4;
}

// A line of x or w_ih, and the one of h or w_hh beside it. Null: zeros.
template <class T>
struct JoinedLine {
  const T *x, *h;
};

// Row m: a sequence.
template <class T>
struct SequenceLines {
  const T *x, *h;
  int64_t sequences, features, units;

  __device__ __forceinline__ JoinedLine<T> line(int64_t m) const {
    if (m >= sequences) return {};
    return {x + m * features, h ? h + m * units : nullptr};
  }
};

// Column n: a gate of a unit.
template <class T>
struct GateLines {
  Cell cell;
  const T *w_ih, *w_hh;
  int64_t features, units;

  __device__ __forceinline__ JoinedLine<T> line(int64_t n) const {
    const int columns = columns_of(cell);
    const int64_t unit = columns == 1 ? n : n / 4;
    if (unit >= units) return {};
    const int column = columns == 1 ? 0 : static_cast<int>(n % 4);
    const bool gru = cell == Cell::gru;
    const int64_t gate = gru && column == 3 ? 2 : column, row = gate * units + unit;
    return {gru && column == 3 ? nullptr : w_ih + row * features,
            gru && column == 2 ? nullptr : w_hh + row * units};
  }
};

// A reader (gemm/matrix.h) of both arrays; with no features, of h and w_hh alone. The part of x is filled up
// with zeros to whole vectors, so that none has values of both.
template <class T, class Lines>
struct Joined {
  static constexpr bool kAlongK = true, kDecodes = false;
  static constexpr int kWidth = kVector<T>;
  using Line = JoinedLine<T>;
  struct Step {
    int k, valid;
    bool of_h;
  };

  Lines lines;
  int features, first_h, units;
  bool aligned;
  int first = 0;

  Joined(const Lines& lines, const T* x, const T* h, int features, int units)
      : lines(lines),
        features(features),
        first_h(width_of(features)),
        units(units),
        aligned(features % kWidth == 0 && units % kWidth == 0 && packable(x, h)) {}

  static int width_of(int features) { return (features + kWidth - 1) / kWidth * kWidth; }

  std::string traits() const { return aligned ? "aligned" : "loose"; }

  __device__ __forceinline__ void start(int64_t first_k) { first += static_cast<int>(first_k); }
  __device__ __forceinline__ Line line(int64_t index) const { return lines.line(index); }
  __device__ __forceinline__ Step step(int k, int left) const {
    const int at = first + k;
    if (at < first_h) return {at, min(left, features - at), false};
    return {at - first_h, min(left, units - (at - first_h)), true};
  }

  __device__ __forceinline__ void load(const Line& line, const Step& step, T (&values)[kWidth]) const {
    const T* const from = step.of_h ? line.h : line.x;
    load_some(from ? from + step.k : from, from ? step.valid : 0, aligned, values);
  }
  __device__ __forceinline__ void copy(const Line& line, const Step& step, T* to) const {
    const T* const from = step.of_h ? line.h : line.x;
    copy_some(from ? from + step.k : from, from ? step.valid : 0, aligned, to);
  }
};

// A product whose result is a cell.
template <class T, class A, class B, class Result>
struct CellProduct {
  using Value = T;
  static constexpr bool kRowSums = false;
  using Parts = Operands<A, B, Result, T>;

  Parts operands;

  std::string traits() const { return traits_of(operands.a) + " " + traits_of(operands.b); }

  __device__ __forceinline__ const Parts& at(int) const { return operands; }
};

// Products of recurrences are float32 to the caller's word; 16-bit ones are the tensor cores'.
template <class T, class A, class B, class Result>
void multiply_cells(const CallSite& name, const A& a, const B& b, const Result& result, int64_t m, int64_t n,
                    int64_t k, Stream stream) {
  const CellProduct<T, A, B, Result> problem{{a, b, result, m, n, k}};
  const Shape shape{1, m, n, k};
  if constexpr (kIsHalf<T>)
    multiply(name, problem, shape, false, stream, Precision::float32);
  else
    multiply(name, problem, shape, false, stream);
}

}  // namespace fastarch::cuda
