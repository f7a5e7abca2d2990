// Which tile, and how many slices of k, for a multiply of a given shape: a model of the time, and its
// minimum.
#pragma once
#include <algorithm>
#include <cmath>
#include <optional>
#include <string>

#include "gemm/tile.h"

namespace fastarch::cuda {

// The tiles, largest first. A tile must be cut for the shape: 6 filters in a tile of 128 rows are 95 % waste.
template <class T>
struct Tiles;

template <>
struct Tiles<float> {
  template <class Visit>
  static void each(Visit&& visit) {
    visit.template operator()<Tile<float, 128, 128, 8, 8, 8, 2>>();
    visit.template operator()<Tile<float, 64, 128, 8, 8, 8, 3>>();
    visit.template operator()<Tile<float, 64, 64, 8, 8, 4, 4>>();
    visit.template operator()<Tile<float, 32, 32, 16, 4, 4, 8>>();
    visit.template operator()<Tile<float, 16, 64, 16, 4, 4, 8>>();
    visit.template operator()<Tile<float, 8, 32, 16, 2, 4, 16>>();
  }
};

// A double takes two registers, so the large micro-tiles would not fit.
template <>
struct Tiles<double> {
  template <class Visit>
  static void each(Visit&& visit) {
    visit.template operator()<Tile<double, 64, 64, 8, 8, 4, 2>>();
    visit.template operator()<Tile<double, 32, 32, 16, 4, 4, 4>>();
    visit.template operator()<Tile<double, 16, 64, 16, 4, 4, 4>>();
    visit.template operator()<Tile<double, 8, 32, 16, 2, 4, 8>>();
  }
};

// 16-bit floats where there are no tensor cores, widened on their way to shared memory: a plain path, so two
// tiles only. A thread brings eight elements at a time, which a step of 16 values of k has for all.
template <>
struct Tiles<float16> {
  template <class Visit>
  static void each(Visit&& visit) {
    visit.template operator()<Tile<float, 64, 64, 16, 8, 4, 4>>();
    visit.template operator()<Tile<float, 32, 32, 16, 4, 4, 8>>();
  }
};

template <>
struct Tiles<bfloat16> : Tiles<float16> {};

struct Shape {
  int64_t batches, m, n, k;
};

struct Plan {
  int tile = 0;                                  // index into Tiles
  int64_t tiles_m = 1, tiles_n = 1, blocks = 1;  // blocks: without splitting k
  int64_t splits = 1, slice = 0;  // k is cut into `splits` slices of `slice`, the last one shorter
  double cycles = INFINITY;
};

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The estimate counts issue slots, of which a multiprocessor has 128 a cycle: those of the arithmetic, which
// the tile knows, and about sixteen for each element brought in from global memory (where it lies, whether it
// is inside, load, store). Against the wait for global memory only other blocks on the same multiprocessor
// help, so a step never takes less than kLatency. Splitting k costs another launch, and the partial sums' way
// to memory and back at some 16 bytes a cycle and multiprocessor.
template <class Tile>
Plan estimate(const Shape& shape, const Plan& tiling, int64_t splits, int multiprocessors) {
  constexpr double kSlots = 128, kLatency = 700, kLaunch = 4000, kBytes = 16;
  constexpr int kSize = sizeof(typename Tile::Value), kSumSize = sizeof(typename Tile::Sum);
  constexpr double kStepSlots =
      Tile::kSlots + 16.0 * Tile::kDepth * (Tile::kRows + Tile::kColumns) * (kSize > 4 ? 2 : 1);
  Plan plan = tiling;
  const int64_t k = std::max<int64_t>(shape.k, 1);
  plan.slice = divide_up(divide_up(k, splits), Tile::kDepth) * Tile::kDepth;
  plan.splits = divide_up(k, plan.slice);

  const int64_t waves = divide_up(plan.blocks * plan.splits, multiprocessors);
  const double step = static_cast<double>(waves) * kStepSlots / kSlots;
  plan.cycles = static_cast<double>(plan.slice / Tile::kDepth + 2) * std::max(kLatency, step);
  if (plan.splits > 1) {
    const double partials = static_cast<double>(shape.batches * shape.m * shape.n * plan.splits);
    plan.cycles += kLaunch + kLatency * static_cast<double>(plan.splits) / 32 +
                   2 * partials * kSumSize / (kBytes * multiprocessors);
  }
  return plan;
}

// The fewest slices: within one, indices of k are 32-bit.
inline int64_t least_splits(const Shape& shape) {
  constexpr int64_t kMostDepth = int64_t{1} << 30;
  return std::max<int64_t>(1, divide_up(shape.k, kMostDepth));
}

// Calls visit<Tile>(tiling) for each tile, where tiling is a plan that says nothing of k yet.
template <class TileList, class Visit>
void each_tiling(const Shape& shape, Visit&& visit) {
  Plan tiling;
  TileList::each([&]<class Tile>() {
    tiling.tiles_m = divide_up(shape.m, Tile::kRows);
    tiling.tiles_n = std::max<int64_t>(1, divide_up(shape.n, Tile::kColumns));
    tiling.blocks = shape.batches * tiling.tiles_m * tiling.tiles_n;
    visit.template operator()<Tile>(tiling);
    ++tiling.tile;
  });
}

// Calls visit(plan) for each plan worth a thought: every tile, with k whole and, where it may be split, in
// slices that just fill one to eight waves of blocks.
template <class TileList, class Visit>
void each_plan(const Shape& shape, int multiprocessors, bool may_split, Visit&& visit) {
  constexpr int64_t kMostWaves = 8;
  const int64_t least = least_splits(shape);
  each_tiling<TileList>(shape, [&]<class Tile>(const Plan& tiling) {
    int64_t visited = 0;
    const auto consider = [&](int64_t splits) {
      const Plan plan = estimate<Tile>(shape, tiling, splits, multiprocessors);
      if (plan.splits != visited) visit(plan);
      visited = plan.splits;
    };
    consider(least);
    for (int64_t waves = 1; may_split && waves <= kMostWaves; ++waves) {
      const int64_t splits = waves * multiprocessors / tiling.blocks;
      if (splits > least) consider(splits);
    }
  });
}

// The fastest of them by the estimate. It follows from the shape and the device alone: the same call, the
// same sums.
template <class TileList>
Plan plan_multiply(const Shape& shape, int multiprocessors, bool may_split = true) {
  Plan best;
  each_plan<TileList>(shape, multiprocessors, may_split, [&](const Plan& plan) {
    if (plan.cycles < best.cycles) best = plan;
  });
  return best;
}

// "64x128x8": rows, columns and depth, which no other tile of its list shares.
template <class Tile>
std::string tile_name() {
  return std::to_string(Tile::kRows) + "x" + std::to_string(Tile::kColumns) + "x" +
         std::to_string(Tile::kDepth);
}

// The plan with the tile of that name and about so many slices (the last may be left empty, and drops out);
// no value where the list has no such tile.
template <class TileList>
std::optional<Plan> plan_named(const Shape& shape, int multiprocessors, const std::string& tile,
                               int64_t slices) {
  std::optional<Plan> found;
  each_tiling<TileList>(shape, [&]<class Tile>(const Plan& tiling) {
    const int64_t most = std::max<int64_t>(1, divide_up(shape.k, Tile::kDepth));
    if (tile_name<Tile>() == tile)
      found = estimate<Tile>(shape, tiling, std::max(least_splits(shape), std::min(slices, most)),
                             multiprocessors);
  });
  return found;
}

// Calls run<Tile>() for the plan's tile.
template <class TileList, class Run>
void with_tile(const Plan& plan, Run&& run) {
  int tile = 0;
  TileList::each([&]<class Tile>() {
    if (tile++ == plan.tile) run.template operator()<Tile>();
  });
}

}  // namespace fastarch::cuda
