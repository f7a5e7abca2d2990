// The neighbourhood of a map times its totals [M, D + 1].
//
// A Gaussian splits into rows and columns. Rows first, those of each parity apart, since in a hexagonal grid
// the offset across depends on whether the two rows are shifted alike: T[r, p] = sum of along(r, q) S[q] over
// the rows q of parity p. Then columns, for each row: sum over p and b of across((r, c), (p, b)) T[r, p, b].
// A rectangular grid has one parity. The weights of both passes are small matrices. The other neighbourhoods
// are one product with all M^2 weights, which are computed when they are read and never stored.
#pragma once
#include "gemm/matrix.h"
#include "gemm/simt.h"
#include "ops/som.h"

namespace fastarch::cuda {

// The weights of the two passes. along: [parity][rows, rows of that parity]; across: [parity of the row]
// [columns, (parity, column)]; both overwritten.
template <class T>
__global__ void __launch_bounds__(256)
    weights_kernel(T* along, T* across, UnitGrid grid, int parities, T radius) {
  const auto weight = [&](T square) { return neighborhood_weight(Neighborhood::gaussian, square, radius); };
  const int64_t depth = parities * grid.columns;
  for (int64_t i = global_thread(); i < grid.rows * grid.rows; i += grid_threads()) {
    const int64_t first = grid.rows * ((grid.rows + parities - 1) / parities);  // weights to even rows
    const int parity = i < first ? 0 : 1;
    const int64_t count = (grid.rows - parity + parities - 1) / parities, within = parity ? i - first : i;
    const int64_t row = within / count, other = parity + (within - row * count) * parities;
    along[i] = weight(square_down<T>(grid, row, other));
  }
  for (int64_t i = global_thread(); i < parities * grid.columns * depth; i += grid_threads()) {
    const int64_t line = i / depth, to = i - line * depth;
    const int64_t row = line / grid.columns, other = to / grid.columns;
    across[i] = weight(square_across<T>(grid, half_columns(grid, row, line - row * grid.columns),
                                        half_columns(grid, other, to - other * grid.columns)));
  }
}

// Weights between all units: A[m = unit, k = unit].
template <class T>
struct GridWeights {
  static constexpr bool kAlongK = true, kDecodes = true;
  static constexpr int kWidth = 1;
  struct Line {
    int64_t row, half_column;  // row -1: outside
  };
  using Step = Line;

  UnitGrid grid;
  T radius;
  Neighborhood kind;
  int64_t first = 0;

  __device__ __forceinline__ void start(int64_t first_k) { first = first_k; }
  __device__ __forceinline__ Line line(int64_t unit) const {
    if (unit >= grid.units()) return {-1, 0};
    const int64_t row = unit / grid.columns;
    return {row, half_columns(grid, row, unit - row * grid.columns)};
  }
  __device__ __forceinline__ Step step(int k, int left) const {
    return left > 0 ? line(first + k) : Step{-1, 0};
  }
  __device__ __forceinline__ void load(const Line& a, const Step& b, T (&value)[1]) const {
    const bool inside = a.row >= 0 && b.row >= 0;
    const T square =
        square_down<T>(grid, a.row, b.row) + square_across<T>(grid, a.half_column, b.half_column);
    value[0] = inside ? neighborhood_weight(kind, square, radius) : T(0);
  }
};

template <class T, class Weights>
using SmoothOperands = Operands<Weights, Matrix<T, false>, MatrixResult<T>, T>;

// The first pass: a member of the batch for each parity.
template <class T>
struct AlongProblem {
  using Value = T;
  static constexpr bool kRowSums = false;

  using Parts = SmoothOperands<T, Matrix<T, true>>;

  Parts even, odd;

  __device__ __forceinline__ const Parts& at(int parity) const { return parity ? odd : even; }
};

// The second pass: a member of the batch for each row of the grid.
template <class T>
struct AcrossProblem {
  using Value = T;
  static constexpr bool kRowSums = false;

  using Parts = SmoothOperands<T, Matrix<T, true>>;

  Parts first;
  int64_t weights_pitch, in_pitch, out_pitch;  // elements between parities, and between rows of the grid
  int parities;

  __device__ __forceinline__ Parts at(int row) const {
    Parts operands = first;
    if (parities == 2 && row % 2) operands.a.data += weights_pitch;
    operands.b.data += row * in_pitch;
    operands.result.out += row * out_pitch;
    return operands;
  }
};

template <class T>
struct GridProblem {
  using Value = T;
  static constexpr bool kRowSums = false;

  using Parts = SmoothOperands<T, GridWeights<T>>;

  Parts operands;

  __device__ __forceinline__ const Parts& at(int) const { return operands; }
};

// out [M, width] = neighbourhood [M, M] * totals [M, width], overwritten.
template <class T>
void smooth(const T* totals, T* out, int64_t width, const UnitGrid& grid, Neighborhood kind, double radius,
            Stream stream) {
  const T reach = radius_in<T>(radius);
  const int64_t units = grid.units();
  if (kind != Neighborhood::gaussian) {
    const GridProblem<T> problem{{{grid, reach, kind},
                                  {totals, width, units, width},
                                  {out, width, nullptr, Activation::none},
                                  units,
                                  width,
                                  units}};
    multiply("som_batch", problem, {1, units, width, units}, false, stream);
    return;
  }
  const int64_t parities = grid.hexagonal && grid.rows > 1 ? 2 : 1, row = grid.columns * width;
  const int64_t depth = parities * grid.columns, even = (grid.rows + parities - 1) / parities;
  const Buffer<T> along(grid.rows * grid.rows, stream), across(depth * depth, stream);
  launch("som_batch", weights_kernel<T>, grid_for(std::max(along.size(), across.size()), 256), dim3(256), 0,
         stream, along.data(), across.data(), grid, static_cast<int>(parities), reach);

  const Buffer<T> sums(grid.rows * parities * row, stream);
  const auto part = [&](int64_t parity) -> SmoothOperands<T, Matrix<T, true>> {
    const int64_t count = parity ? grid.rows - even : even;
    return {{along.data() + parity * grid.rows * even, grid.rows, count, count},
            {totals + parity * row, row, count, parities * row},
            {sums.data() + parity * row, parities * row, nullptr, Activation::none},
            grid.rows,
            row,
            count};
  };
  const AlongProblem<T> rows{part(0), part(parities - 1)};
  multiply("som_batch", rows, {parities, grid.rows, row, even}, false, stream);
  const AcrossProblem<T> columns{{{across.data(), grid.columns, depth, depth},
                                  {sums.data(), width, depth, width},
                                  {out, width, nullptr, Activation::none},
                                  grid.columns,
                                  width,
                                  depth},
                                 grid.columns * depth,
                                 parities * row,
                                 row,
                                 static_cast<int>(parities)};
  multiply("som_batch", columns, {grid.rows, grid.columns, width, depth}, false, stream);
}

}  // namespace fastarch::cuda
