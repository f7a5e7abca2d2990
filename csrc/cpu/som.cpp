// Self-organizing maps: the search on the blocked multiply with an arg-min where its tiles end, totals, batch
// and online steps, the U-matrix.
#include "ops/som.h"

#include <limits>
#include <vector>

#include "cpu/gemm.h"

namespace fastarch::cpu {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// B[k, j] = feature k of sample j, from the codebook's centre.
template <class T>
struct CenteredReader {
  const T* x;  // [n, d]
  const T* center;
  int64_t d;

  bool direct(int64_t, int64_t, int64_t, int64_t, Tile<T>*) const { return false; }
  void pack(int64_t k, int64_t depth, int64_t j, int64_t columns, T* panel, int64_t width) const {
    kernels<T>().transpose(x + j * d + k, d, panel, width, depth, columns, width);
    for (int64_t i = 0; i < depth; ++i)
      for (int64_t c = 0; c < columns; ++c) panel[i * width + c] -= center[k + i];
  }
};

// Keeps of the scores [unit, sample] the two lowest of each sample.
template <class T>
struct LowestWriter {
  T *best, *second;  // [samples, and room for a vector], from sample `first` on
  LaneInteger<T>* unit;
  int64_t first;

  T* place(int64_t, int64_t, int64_t*) const { return nullptr; }
  void write(int64_t i, int64_t rows, int64_t j, int64_t columns, const T* tile, int64_t step) const {
    const int64_t at = j - first;
    kernels<T>().lowest_scores(tile, step, static_cast<int>(rows), columns, i, best + at, second + at,
                               unit + at);
  }
};

// The codebook as the search reads it.
template <class T>
struct Prepared {
  std::vector<T> center, turned, half;  // [d], [m, d] the centre minus the unit, [m] |w|^2 / 2
  double largest = 0;

  Prepared(const T* codebook, int64_t m, int64_t d)
      : center(static_cast<size_t>(d)), turned(static_cast<size_t>(m * d)), half(static_cast<size_t>(m)) {
    for (int64_t i = 0; i < m; ++i)
      for (int64_t k = 0; k < d; ++k) center[k] += codebook[i * d + k];
    for (T& value : center) {
      value /= static_cast<T>(m);
      if (!std::isfinite(value)) value = 0;
    }
    const std::vector<T> origin(static_cast<size_t>(d));
    T most = 0;
    for (int64_t i = 0; i < m; ++i) {
      T* const row = turned.data() + i * d;
      for (int64_t k = 0; k < d; ++k) row[k] = center[k] - codebook[i * d + k];
      half[i] = static_cast<T>(kernels<T>().square_distance(row, origin.data(), d) / 2);
      if (half[i] > most) most = half[i];
    }
    largest = std::sqrt(2 * static_cast<double>(most));
  }
};

// Settles one row: `unit` and the gap to the second best score, if they can be believed, else all units.
template <class T>
void settle(const T* x, const T* codebook, int64_t m, int64_t d, int64_t unit, double gap, double largest,
            int64_t* index, T* distance) {
  const Kernels<T>& kernel = kernels<T>();
  double square = unit < 0 ? kNaN : kernel.square_distance(x, codebook + unit * d, d);
  if (!(gap > score_bound<T>(d, std::sqrt(square), largest))) {
    unit = -1;
    for (int64_t i = 0; i < m; ++i) {
      const double other = kernel.square_distance(x, codebook + i * d, d);
      if (other < square || (unit < 0 && other == other)) {
        unit = i;
        square = other;
      }
    }
  }
  *index = unit;
  *distance = static_cast<T>(unit < 0 ? kNaN : std::sqrt(square));
}

}  // namespace

template <class T>
void som_bmu_forward(const T* x, const T* codebook, int64_t* index, T* distance, int64_t n, int64_t m,
                     int64_t d, Stream) {
  const Prepared<T> map(codebook, m, d);
  constexpr int64_t kBlock = 192, kSmall = 200'000;  // samples at a time; multiplications worth a thread
  const int64_t blocks = ceil_div(n, kBlock), padded = kBlock + 64;
  parallel_for(blocks, std::max<int64_t>(1, kSmall / (kBlock * m * d)), [&](int64_t begin, int64_t end) {
    const Scratch<T> best(padded), second(padded);
    const Scratch<LaneInteger<T>> unit(padded);
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kBlock, last = std::min(n, first + kBlock);
      std::fill(best.get(), best.get() + padded, std::numeric_limits<T>::infinity());
      std::fill(second.get(), second.get() + padded, std::numeric_limits<T>::infinity());
      std::fill(unit.get(), unit.get() + padded, LaneInteger<T>(-1));
      Product<T, CenteredReader<T>, LowestWriter<T>>{m,
                                                     last,
                                                     d,
                                                     {map.turned.data(), d, 1},
                                                     {x, map.center.data(), d},
                                                     {best.get(), second.get(), unit.get(), first},
                                                     map.half.data()}
          .run_block({0, m}, {first, last});
      for (int64_t i = first; i < last; ++i) {
        const int64_t at = i - first;
        const double gap = static_cast<double>(second[at]) - static_cast<double>(best[at]);
        settle(x + i * d, codebook, m, d, static_cast<int64_t>(unit[at]), gap, map.largest, index + i,
               distance + i);
      }
    }
  });
}

template <class T>
void som_totals_forward(const T* x, const int64_t* index, T* totals, int64_t n, int64_t m, int64_t d,
                        Stream) {
  // Samples sorted by unit, each unit's in ascending order.
  std::vector<int64_t> ends(static_cast<size_t>(m + 1)), order(static_cast<size_t>(n));
  const auto known = [&](int64_t i) { return index[i] >= 0 && index[i] < m; };
  for (int64_t i = 0; i < n; ++i)
    if (known(i)) ++ends[index[i] + 1];
  for (int64_t unit = 0; unit < m; ++unit) ends[unit + 1] += ends[unit];
  std::vector<int64_t> next(ends.begin(), ends.end() - 1);
  for (int64_t i = 0; i < n; ++i)
    if (known(i)) order[next[index[i]]++] = i;
  constexpr int64_t kSmall = 100'000;
  parallel_for(m, std::max<int64_t>(1, kSmall * m / (n * d + 1)), [&](int64_t begin, int64_t end) {
    const Scratch<double> sums(d);
    for (int64_t unit = begin; unit < end; ++unit) {
      std::fill(sums.get(), sums.get() + d, 0.0);
      for (int64_t at = ends[unit]; at < ends[unit + 1]; ++at) {
        const T* const row = x + order[at] * d;
        for (int64_t k = 0; k < d; ++k) sums[k] += static_cast<double>(row[k]);
      }
      T* const out = totals + unit * (d + 1);
      for (int64_t k = 0; k < d; ++k) out[k] = static_cast<T>(sums[k]);
      out[d] = static_cast<T>(ends[unit + 1] - ends[unit]);
    }
  });
}

namespace {

// C [rows, columns] = A * B, dense, on the calling thread.
template <class T>
void multiply(int64_t rows, int64_t columns, int64_t depth, const T* a, int64_t a_step, const T* b,
              int64_t b_step, T* c, int64_t c_step) {
  Product<T, DenseReader<T>, DenseWriter<T>>{
      rows, columns, depth, {a, a_step, 1}, {b, b_step, rows >= 16}, {c, c_step}}
      .run();
}

// Row `from` of the codebook after the step, from its neighbourhood's totals [d + 1]. reach: the sum of
// |h| n, where some weights are negative; else that is the last of the totals.
template <class T>
void step(const T* w, const T* smoothed, T* y, int64_t d, bool is_signed, T reach) {
  const T count = smoothed[d];
  if (!(reach > T(0))) {
    std::copy(w, w + d, y);
  } else if (is_signed) {
    for (int64_t k = 0; k < d; ++k) y[k] = w[k] + (smoothed[k] - count * w[k]) / reach;
  } else {
    for (int64_t k = 0; k < d; ++k) y[k] = smoothed[k] / count;
  }
}

// Rows first, those of each parity apart, then columns; see the CUDA kernels, which do the same.
template <class T>
void gaussian_step(const T* codebook, const T* totals, T* y, int64_t d, const UnitGrid& grid, T radius) {
  constexpr auto kGaussian = Neighborhood::gaussian;
  const int64_t width = d + 1, row = grid.columns * width, parities = grid.hexagonal && grid.rows > 1 ? 2 : 1;
  const int64_t depth = parities * grid.columns;
  std::vector<T> sums(static_cast<size_t>(grid.rows * parities * row));
  for (int64_t parity = 0; parity < parities; ++parity) {
    const int64_t count = (grid.rows - parity + parities - 1) / parities;
    const Scratch<T> along(grid.rows * count);
    for (int64_t r = 0; r < grid.rows; ++r)
      for (int64_t q = 0; q < count; ++q)
        along[r * count + q] =
            neighborhood_weight(kGaussian, square_down<T>(grid, r, parity + q * parities), radius);
    Product<T, DenseReader<T>, DenseWriter<T>>{grid.rows,
                                               row,
                                               count,
                                               {along.get(), count, 1},
                                               {totals + parity * row, parities * row, true},
                                               {sums.data() + parity * row, parities * row}}
        .run_parallel();
  }
  // Weights across depend on a row's parity alone.
  std::vector<T> across(static_cast<size_t>(parities * grid.columns * depth));
  for (int64_t r = 0; r < parities; ++r)
    for (int64_t c = 0; c < grid.columns; ++c)
      for (int64_t p = 0; p < parities; ++p)
        for (int64_t b = 0; b < grid.columns; ++b)
          across[((r * grid.columns + c) * parities + p) * grid.columns + b] = neighborhood_weight(
              kGaussian, square_across<T>(grid, half_columns(grid, r, c), half_columns(grid, p, b)), radius);
  parallel_for(grid.rows, std::max<int64_t>(1, 100'000 / (depth * row)), [&](int64_t begin, int64_t end) {
    const Scratch<T> smoothed(row);
    for (int64_t r = begin; r < end; ++r) {
      multiply(grid.columns, width, depth, across.data() + r % parities * grid.columns * depth, depth,
               sums.data() + r * parities * row, width, smoothed.get(), width);
      for (int64_t c = 0; c < grid.columns; ++c) {
        const int64_t unit = r * grid.columns + c;
        const T* const here = smoothed.get() + c * width;
        step(codebook + unit * d, here, y + unit * d, d, false, here[d]);
      }
    }
  });
}

}  // namespace

template <class T>
void som_batch_forward(const T* codebook, const T* totals, T* y, int64_t d, const UnitGrid& grid,
                       Neighborhood kind, double radius, Stream) {
  const T reach = radius_in<T>(radius);
  if (kind == Neighborhood::gaussian) return gaussian_step(codebook, totals, y, d, grid, reach);
  // Two units' weight follows from how far apart their rows and their half columns are.
  const int64_t units = grid.units(), width = d + 1, across = 2 * grid.columns;
  std::vector<T> weights(static_cast<size_t>(grid.rows * across));
  for (int64_t down = 0; down < grid.rows; ++down)
    for (int64_t half = 0; half < across; ++half)
      weights[down * across + half] =
          neighborhood_weight(kind, square_down<T>(grid, 0, down) + square_across<T>(grid, 0, half), reach);
  const bool is_signed = kind == Neighborhood::mexican_hat;
  constexpr int64_t kRows = 48;  // units at a time
  parallel_for(ceil_div(units, kRows), 1, [&](int64_t begin, int64_t end) {
    const Scratch<T> h(kRows * units), smoothed(kRows * width), magnitude(kRows);
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kRows, count = std::min(kRows, units - first);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t row = (first + i) / grid.columns;
        const int64_t here = half_columns(grid, row, (first + i) % grid.columns);
        T sum = 0;
        for (int64_t other = 0, j = 0; other < grid.rows; ++other) {
          const T* const along = weights.data() + std::abs(row - other) * across;
          for (int64_t column = 0; column < grid.columns; ++column, ++j) {
            const T weight = along[std::abs(here - half_columns(grid, other, column))];
            h[i * units + j] = weight;
            sum += std::abs(weight) * totals[j * width + d];
          }
        }
        magnitude[i] = sum;
      }
      multiply(count, width, units, h.get(), units, totals, width, smoothed.get(), width);
      for (int64_t i = 0; i < count; ++i) {
        const T* const here = smoothed.get() + i * width;
        const int64_t unit = first + i;
        step(codebook + unit * d, here, y + unit * d, d, is_signed, is_signed ? magnitude[i] : here[d]);
      }
    }
  });
}

template <class T>
void som_online_forward(const T* x, const T* rate, const T* radius, T* y, int64_t* index, int64_t n,
                        int64_t d, const UnitGrid& grid, Neighborhood kind, Stream) {
  const Kernels<T>& kernel = kernels<T>();
  const int64_t units = grid.units();
  const bool separable = kind == Neighborhood::gaussian;
  // Squared distances, or factors of the weight, from the nearest unit to each row, and to each half column.
  const Scratch<T> down(grid.rows), across(2 * grid.columns);
  for (int64_t i = 0; i < n; ++i) {
    const T* const here = x + i * d;
    int64_t nearest = -1;
    double square = kNaN;
    for (int64_t unit = 0; unit < units; ++unit) {
      const double other = kernel.square_distance(here, y + unit * d, d);
      if (other < square || (nearest < 0 && other == other)) {
        nearest = unit;
        square = other;
      }
    }
    index[i] = nearest;
    if (nearest < 0) continue;
    const T reach = radius[i];
    if (!(reach > T(0))) {
      kernel.move_towards(here, y + nearest * d, d, rate[i]);
      continue;
    }
    const int64_t row = nearest / grid.columns, column = half_columns(grid, row, nearest % grid.columns);
    for (int64_t r = 0; r < grid.rows; ++r) {
      const T value = square_down<T>(grid, row, r);
      down[r] = separable ? neighborhood_weight(kind, value, reach) : value;
    }
    for (int64_t half = 0; half < 2 * grid.columns; ++half) {
      const T value = square_across<T>(grid, column, half);
      across[half] = separable ? neighborhood_weight(kind, value, reach) : value;
    }
    for (int64_t r = 0, unit = 0; r < grid.rows; ++r)
      for (int64_t c = 0; c < grid.columns; ++c, ++unit) {
        const T a = down[r], b = across[half_columns(grid, r, c)];
        const T step = rate[i] * (separable ? a * b : neighborhood_weight(kind, a + b, reach));
        if (step != T(0)) kernel.move_towards(here, y + unit * d, d, step);
      }
  }
}

template <class T>
void som_u_matrix_forward(const T* codebook, T* y, int64_t d, const UnitGrid& grid, Stream) {
  parallel_for(grid.units(), std::max<int64_t>(1, 20'000 / d), [&](int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit) {
      double sum = 0;
      int count = 0;
      for (int which = 0; which < 8; ++which) {
        const int64_t other = neighbor(grid, unit, which);
        if (other < 0) continue;
        sum += std::sqrt(kernels<T>().square_distance(codebook + unit * d, codebook + other * d, d));
        ++count;
      }
      y[unit] = static_cast<T>(count ? sum / count : 0.0);
    }
  });
}

#define INSTANTIATE(T)                                                                                    \
  template void som_bmu_forward(const T*, const T*, int64_t*, T*, int64_t, int64_t, int64_t, Stream);     \
  template void som_totals_forward(const T*, const int64_t*, T*, int64_t, int64_t, int64_t, Stream);      \
  template void som_batch_forward(const T*, const T*, T*, int64_t, const UnitGrid&, Neighborhood, double, \
                                  Stream);                                                                \
  template void som_online_forward(const T*, const T*, const T*, T*, int64_t*, int64_t, int64_t,          \
                                   const UnitGrid&, Neighborhood, Stream);                                \
  template void som_u_matrix_forward(const T*, T*, int64_t, const UnitGrid&, Stream);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace fastarch::cpu
