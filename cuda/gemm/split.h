// Splitting along k: the scratch memory of the slices' partial sums, and the kernel that adds them and stores
// the results.
#pragma once
#include "core/buffer.h"
#include "gemm/block.h"
#include "gemm/tune.h"

namespace fastarch::cuda {

// How many sums a result takes: one, or the columns that it wants together.
template <class Result>
constexpr int kSumsAtOnce = 1;
template <TakesColumns Result>
  requires(!requires(const Result& result) { result.column(0); })
constexpr int kSumsAtOnce<Result> = Result::kTogether;

// Adds the slices' partial sums, always in the same order, and stores the results. A block takes 32 results
// at a time; its 8 rows of threads take every 8th slice each, then the first row adds the 8 sums.
constexpr int kCombineColumns = 32, kCombineRows = 8;

template <class Problem, class T = Compute<typename Problem::Value>>
__global__ void __launch_bounds__(kCombineColumns* kCombineRows)
    combine_kernel(const Problem problem, const T* partials, const T* row_partials, int slices,
                   int64_t batches, int64_t m, int64_t n) {
  FASTARCH_SHARED(T, shared, [kCombineRows][kCombineColumns]);
  const int x = threadIdx.x % kCombineColumns, y = threadIdx.x / kCombineColumns;

  // Over parts [batch, slice, area]: calls store(batch, index within area, sums) for each `width` of them
  // side by side, a power of two that divides area.
  const auto combine = [&](const T* parts, int64_t area, int width, auto&& store) {
    const int64_t count = batches * area;
    for (int64_t first = int64_t{blockIdx.x} * kCombineColumns; first < count;
         first += int64_t{gridDim.x} * kCombineColumns) {
      const bool inside = first + x < count;
      const int64_t at = inside ? first + x : 0, batch = at / area, within = at - batch * area;
      T sum = 0;
      if (inside) {
#pragma unroll 4
        for (int slice = y; slice < slices; slice += kCombineRows)
          sum += parts[(batch * slices + slice) * area + within];
      }
      shared[y][x] = sum;
      __syncthreads();
      if (y == 0) {
        for (int i = 1; i < kCombineRows; ++i) sum += shared[i][x];
        shared[0][x] = sum;
        __syncwarp();
        if (inside && x % width == 0) store(static_cast<int>(batch), within, &shared[0][x]);
      }
      __syncthreads();
    }
  };

  using Result = decltype(Problem::Parts::result);
  constexpr int kAtOnce = kSumsAtOnce<Result>;
  if (n > 0)
    combine(partials, m * n, kAtOnce, [&](int batch, int64_t index, const T* sums) {
      const auto operands = problem.at(batch);
      const int64_t row = index / n, column = index - row * n;
      if (row >= operands.m || column >= operands.n) return;
      if constexpr (kAtOnce == 1) {
        operands.result.store(row, operands.result.column(column), *sums);
      } else {
        T values[kAtOnce];
#pragma unroll
        for (int v = 0; v < kAtOnce; ++v) values[v] = sums[v];
        operands.result.store(row, operands.result.columns(column), values);
      }
    });
  if constexpr (Problem::kRowSums)
    if (row_partials)
      combine(row_partials, m, 1, [&](int batch, int64_t row, const T* sums) {
        problem.at(batch).row_sums[row] = narrow<typename Problem::Value>(*sums);
      });
}

// Plans for `shape` among TileList's tiles, has launch_tile<Tile>(grid, block, shared bytes, stream, kernel
// arguments...) launched, and adds up the slices.
template <class TileList, class Problem, class LaunchTile>
void multiply_planned(const CallSite& name, const Problem& problem, const Shape& shape, bool row_sums,
                      Stream stream, LaunchTile&& launch_tile) {
  using T = Compute<typename Problem::Value>;
  if (shape.batches == 0 || shape.m == 0 || (shape.n == 0 && !row_sums)) return;
  const auto run = [&](const Plan& plan) {
    const int64_t blocks = plan.blocks * plan.splits;
    check(blocks < (int64_t{1} << 31), name.name, "needs ", blocks, " blocks, expected fewer than 2^31");

    const int64_t parts = plan.splits > 1 ? shape.batches * plan.splits * shape.m : 0;
    const Buffer<T> partials(parts * shape.n, stream), row_partials(row_sums ? parts : 0, stream);
    const Schedule schedule{FastDivider(plan.tiles_m),
                            FastDivider(plan.tiles_n),
                            FastDivider(plan.splits),
                            plan.slice,
                            shape.m,
                            shape.n};
    with_tile<TileList>(plan, [&]<class Tile>() {
      launch_tile.template operator()<Tile>(dim3(static_cast<unsigned>(blocks)), dim3(Tile::kThreads),
                                            Tile::template shared_bytes<Problem>(), stream, problem, schedule,
                                            partials.data(), row_partials.data());
    });
    if constexpr (!kTakesTiles<Problem>) {
      if (plan.splits == 1) return;
      const int64_t groups =
          divide_up(shape.batches * std::max(shape.m * shape.n, row_sums ? shape.m : 0), kCombineColumns);
      constexpr int kThreads = kCombineColumns * kCombineRows;
      launch(name, combine_kernel<Problem>, grid_for(groups * kThreads, kThreads), dim3(kThreads), 0, stream,
             problem, static_cast<const T*>(partials.data()), static_cast<const T*>(row_partials.data()),
             static_cast<int>(plan.splits), shape.batches, shape.m, shape.n);
    }
  };
  run(choose_plan<TileList>(name, problem, shape, row_sums, stream, run));
}

}  // namespace fastarch::cuda
