// Contract: self-organizing maps. A map of M = rows * columns units, row-major, has a codebook [M, D].
#pragma once
#include <cmath>

#include "core/types.h"

namespace fastarch {

// In a hexagonal grid odd rows are shifted by half a column, and rows are sqrt(3)/2 apart. A toroidal one has
// no edges; with both, `rows` is even.
struct UnitGrid {
  int64_t rows, columns;
  bool hexagonal, toroidal;

  FASTARCH_HOST_DEVICE int64_t units() const { return rows * columns; }
};

// The weight h of two units a distance d apart, r the radius.
enum class Neighborhood {
  gaussian = 0,     // exp(-d^2 / 2r^2)
  bubble = 1,       // 1 up to d = r, then 0
  triangle = 2,     // max(0, 1 - d / r)
  mexican_hat = 3,  // (1 - d^2 / 2r^2) exp(-d^2 / 2r^2)
};

// Squared distances are multiples of a quarter, and exact: what is at distance r lies within the radius r.
template <class T>
FASTARCH_HOST_DEVICE T square_down(const UnitGrid& grid, int64_t from, int64_t to) {
  int64_t offset = from < to ? to - from : from - to;
  if (grid.toroidal && grid.rows - offset < offset) offset = grid.rows - offset;
  const T down = static_cast<T>(offset);
  return grid.hexagonal ? T(0.75) * down * down : down * down;
}

// Twice a column plus one where the row is shifted: positions across in half columns.
FASTARCH_HOST_DEVICE int64_t half_columns(const UnitGrid& grid, int64_t row, int64_t column) {
  return 2 * column + (grid.hexagonal ? row % 2 : 0);
}

template <class T>
FASTARCH_HOST_DEVICE T square_across(const UnitGrid& grid, int64_t from, int64_t to) {
  int64_t offset = from < to ? to - from : from - to;
  if (grid.toroidal && 2 * grid.columns - offset < offset) offset = 2 * grid.columns - offset;
  const T across = T(0.5) * static_cast<T>(offset);
  return across * across;
}

template <class T>
FASTARCH_HOST_DEVICE T square_distance(const UnitGrid& grid, int64_t a, int64_t b) {
  const int64_t row_a = a / grid.columns, row_b = b / grid.columns;
  return square_down<T>(grid, row_a, row_b) +
         square_across<T>(grid, half_columns(grid, row_a, a - row_a * grid.columns),
                          half_columns(grid, row_b, b - row_b * grid.columns));
}

template <class T>
FASTARCH_HOST_DEVICE T neighborhood_weight(Neighborhood kind, T square, T radius) {
  using std::exp;
  using std::sqrt;
  switch (kind) {
    case Neighborhood::bubble: return sqrt(square) <= radius ? T(1) : T(0);
    case Neighborhood::triangle: {
      const T weight = T(1) - sqrt(square) / radius;
      return weight > T(0) ? weight : T(0);
    }
    default: {
      // Divided twice, as the square of a small radius is no number.
      const T exponent = square / radius / (T(2) * radius);
      const T weight = exp(-exponent);
      return kind == Neighborhood::gaussian ? weight : (weight > T(0) ? (T(1) - exponent) * weight : T(0));
    }
  }
}

// A radius in another precision, but never 0.
template <class T>
FASTARCH_HOST_DEVICE T radius_in(double radius) {
  constexpr double kTiny = sizeof(T) == 4 ? 0x1p-126 : 0x1p-1022;
  return static_cast<T>(radius > kTiny ? radius : kTiny);
}

// Neighbour number 0 <= which < 8 of a unit, or -1 where there is none.
FASTARCH_HOST_DEVICE int64_t neighbor(const UnitGrid& grid, int64_t unit, int which) {
  const int64_t row = unit / grid.columns, column = unit - row * grid.columns;
  const int place = which < 4 ? which : which + 1, down = place / 3 - 1, across = place % 3 - 1;
  // Of the units above and below, a hexagonal row reaches two: to the left, or to the right where shifted.
  if (grid.hexagonal && down != 0 && across == (row % 2 ? -1 : 1)) return -1;
  int64_t to_row = row + down, to_column = column + across;
  if (grid.toroidal) {
    to_row = (to_row + grid.rows) % grid.rows;
    to_column = (to_column + grid.columns) % grid.columns;
    if (to_row == row && to_column == column) return -1;
  }
  const bool inside = to_row >= 0 && to_row < grid.rows && to_column >= 0 && to_column < grid.columns;
  return inside ? to_row * grid.columns + to_column : -1;
}

// How far a score |w|^2 / 2 - x.w can be from the truth, twice: two scores that differ by more are in the
// right order. Both x and w are taken from the codebook's centre; `largest` is the greatest |w|, `distance`
// that of x to one of the units, so that |x| <= distance + largest.
template <class T>
FASTARCH_HOST_DEVICE double score_bound(int64_t features, double distance, double largest) {
  constexpr double kEps = sizeof(T) == 4 ? 0x1p-23 : 0x1p-52, kTiny = sizeof(T) == 4 ? 0x1p-126 : 0x1p-1022;
  return static_cast<double>(features + 6) * (kEps * largest * (distance + 1.5 * largest) + kTiny);
}

namespace cuda {

// The nearest unit by Euclidean distance, the lowest on ties; distances are compared in float64, from
// differences. x: [n, d]; codebook: [m, d], m, d >= 1; index: [n], overwritten, -1 where x has a NaN;
// distance: [n], overwritten, NaN there.
template <class T>
void som_bmu_forward(const T* x, const T* codebook, int64_t* index, T* distance, int64_t n, int64_t m,
                     int64_t d, Stream stream);

// Sums and counts by unit, in a fixed order. x: [n, d]; index: [n], what is no unit is left out; totals:
// [m, d + 1], overwritten: the sum of the rows of x with that index, and their number.
template <class T>
void som_totals_forward(const T* x, const int64_t* index, T* totals, int64_t n, int64_t m, int64_t d,
                        Stream stream);

// A batch step. codebook: [m, d]; totals: [m, d + 1]; y: [m, d], overwritten with w_i + (sum_j h_ij s_j -
// w_i sum_j h_ij n_j) / sum_j |h_ij| n_j, or with w_i where the divisor is 0. radius > 0.
template <class T>
void som_batch_forward(const T* codebook, const T* totals, T* y, int64_t d, const UnitGrid& grid,
                       Neighborhood kind, double radius, Stream stream);

// One row after the other: y_i += rate h(i, b) (x - y_i), b the unit of y nearest to x. x: [n, d]; rate,
// radius: [n]; y: [m, d], updated in place; index: [n], overwritten with b, or with -1 where x has a NaN,
// which changes nothing. Where a radius is not above 0 only b learns.
template <class T>
void som_online_forward(const T* x, const T* rate, const T* radius, T* y, int64_t* index, int64_t n,
                        int64_t d, const UnitGrid& grid, Neighborhood kind, Stream stream);

// codebook: [m, d]; y: [m], overwritten with the mean distance to the 8 (hexagonal: 6) neighbours.
template <class T>
void som_u_matrix_forward(const T* codebook, T* y, int64_t d, const UnitGrid& grid, Stream stream);

}  // namespace cuda

// The same on the CPU. Results do not depend on the number of threads.
namespace cpu {

template <class T>
void som_bmu_forward(const T* x, const T* codebook, int64_t* index, T* distance, int64_t n, int64_t m,
                     int64_t d, Stream stream);
template <class T>
void som_totals_forward(const T* x, const int64_t* index, T* totals, int64_t n, int64_t m, int64_t d,
                        Stream stream);
template <class T>
void som_batch_forward(const T* codebook, const T* totals, T* y, int64_t d, const UnitGrid& grid,
                       Neighborhood kind, double radius, Stream stream);
template <class T>
void som_online_forward(const T* x, const T* rate, const T* radius, T* y, int64_t* index, int64_t n,
                        int64_t d, const UnitGrid& grid, Neighborhood kind, Stream stream);
template <class T>
void som_u_matrix_forward(const T* codebook, T* y, int64_t d, const UnitGrid& grid, Stream stream);

}  // namespace cpu
}  // namespace fastarch
