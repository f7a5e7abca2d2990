// What every main loop of the multiply shares: where a block is, how its threads bring in the operands'
// pieces, and where its sums go.
#pragma once
#include "core/divide.h"
#include "core/half.h"
#include "gemm/plan.h"

namespace fastarch::cuda {

template <class A, class B, class Result, class T>
struct Operands {
  A a;
  B b;
  Result result;
  int64_t m, n, k;
  T* row_sums = nullptr;  // [m], or null
};

struct Schedule {
  FastDivider tiles_m, tiles_n, splits;
  int64_t slice, m, n;  // values of k in a slice; the largest m and n of the batch, which shape the partials
};

// Where a block is. The grid is flat, so that no extent meets the limit of 65,535 of its other dimensions.
// Neighbouring blocks share their columns, which are the costlier to read.
struct Place {
  uint32_t batch, split, tile_m, tile_n;

  __device__ static __forceinline__ Place of_block(const Schedule& schedule) {
    Place place;
    const uint32_t columns = schedule.tiles_m.split(blockIdx.x, &place.tile_m);
    place.batch = schedule.splits.split(schedule.tiles_n.split(columns, &place.tile_n), &place.split);
    return place;
  }
};

// Moves both readers to the block's slice of k; how much of k that is.
template <class Operands>
__device__ __forceinline__ int start_slice(Operands& operands, const Schedule& schedule, const Place& place) {
  const int64_t first_k = place.split * schedule.slice;
  const int64_t end_k = first_k + schedule.slice < operands.k ? first_k + schedule.slice : operands.k;
  operands.a.start(first_k);
  operands.b.start(first_k);
  return static_cast<int>(end_k - first_k);
}

// One thread's share of bringing a step's piece of an operand from global to shared memory. The reader's
// elements are of type T; where the tile's are wider, they are widened on the way.
template <class Tile, int Lines, int Pitch, class Reader, class T = typename Tile::Value>
struct Carrier {
  using Wide = typename Tile::Value;
  using Line = typename Reader::Line;
  using Step = typename Reader::Step;
  static constexpr int kWidth = Reader::kWidth;
  static constexpr int kWide = Reader::kAlongK ? Tile::kDepth : Lines, kHigh = Tile::kDepth * Lines / kWide;
  static constexpr int kAcross = kWide / kWidth;          // threads side by side in memory
  static constexpr int kDown = Tile::kThreads / kAcross;  // rows of threads
  static constexpr int kLoads = kHigh / kDown;            // of each thread
  static_assert(kAcross * kDown == Tile::kThreads && kLoads * kDown == kHigh);

  // What many threads need alike, or a thread many of, lies in shared memory: steps that take divisions to
  // decode, for the step that is being fetched and the one after it, and lines that registers have no room
  // for.
  static constexpr bool kStepTable = Reader::kDecodes, kLineTable = Reader::kAlongK && kLoads > 1;
  struct Tables {
    Step steps[2][kStepTable ? Tile::kDepth : 1];
    Line lines[kLineTable ? Lines : 1];
  };

  Tables* tables;
  Line lines[Reader::kAlongK && !kLineTable ? kLoads : 1];
  T values[kLoads][kWidth];

  __device__ __forceinline__ static int across() { return threadIdx.x % kAcross * kWidth; }
  __device__ __forceinline__ static int down() { return threadIdx.x / kAcross; }

  __device__ __forceinline__ Carrier(const Reader& reader, int64_t first_line, Tables* shared)
      : tables(shared) {
    if constexpr (kLineTable) {
      for (int i = threadIdx.x; i < Lines; i += Tile::kThreads)
        tables->lines[i] = reader.line(first_line + i);
    } else if constexpr (Reader::kAlongK) {
#pragma unroll
      for (int i = 0; i < kLoads; ++i) lines[i] = reader.line(first_line + down() + i * kDown);
    } else {
      lines[0] = reader.line(first_line + across());
    }
  }

  // Decodes the step at k into one half of the table, for a fetch behind the next barrier.
  __device__ __forceinline__ void prepare(const Reader& reader, int half, int k, int left) const {
    const int i = threadIdx.x;
    if constexpr (kStepTable)
      if (i < Tile::kDepth) tables->steps[half][i] = reader.step(k + i, left - i);
  }

  __device__ __forceinline__ void fetch(const Reader& reader, int half, int k, int left) {
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int line = Reader::kAlongK ? down() + i * kDown : 0;
      const int within = Reader::kAlongK ? across() : down() + i * kDown;
      reader.load(kLineTable ? tables->lines[line] : lines[Reader::kAlongK ? i : 0],
                  kStepTable ? tables->steps[half][within] : reader.step(k + within, left - within),
                  values[i]);
    }
  }

  // The other way to bring a step's piece, to `tile` as it lies in memory: [lines][Pitch] along k, else
  // [depth][Pitch]. Between start and finish it is under way: in asynchronous copies, or in registers where
  // its elements are too small for those.
  static constexpr bool kCopies = sizeof(T) * kWidth >= 4;

  __device__ __forceinline__ void start(const Reader& reader, int half, int k, int left, T* tile) {
    if constexpr (!kCopies) {
      fetch(reader, half, k, left);
    } else {
#pragma unroll
      for (int i = 0; i < kLoads; ++i) {
        const int line = Reader::kAlongK ? down() + i * kDown : 0;
        const int within = Reader::kAlongK ? across() : down() + i * kDown;
        reader.copy(kLineTable ? tables->lines[line] : lines[Reader::kAlongK ? i : 0],
                    kStepTable ? tables->steps[half][within] : reader.step(k + within, left - within),
                    tile + (down() + i * kDown) * Pitch + across());
      }
    }
  }
  __device__ __forceinline__ void finish(T* tile) const {
    if constexpr (!kCopies) {
#pragma unroll
      for (int i = 0; i < kLoads; ++i) tile[(down() + i * kDown) * Pitch + across()] = values[i][0];
    }
  }

  __device__ __forceinline__ void commit(Wide (&tile)[Tile::kDepth][Pitch]) const {
    constexpr int kRun = kWidth < kVector<Wide> ? kWidth : kVector<Wide>;
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      if constexpr (Reader::kAlongK) {
#pragma unroll
        for (int v = 0; v < kWidth; ++v) tile[across() + v][down() + i * kDown] = widen(values[i][v]);
      } else {
#pragma unroll
        for (int first = 0; first < kWidth; first += kRun) {
          Pack<Wide, kRun> pack;
#pragma unroll
          for (int v = 0; v < kRun; ++v) pack.value[v] = widen(values[i][first + v]);
          *reinterpret_cast<Pack<Wide, kRun>*>(&tile[down() + i * kDown][across() + first]) = pack;
        }
      }
    }
  }
};

// A result that takes a block's sums as they lie in registers, rather than one at a time, has kTakesTiles and
//   template <class Tile> void take(int64_t first_m, int64_t first_n, const T (&sum)[...][...]) const
// which every thread of the block calls with its micro-tile, rows and columns outside of the matrix included.
// Its k is never split.
template <class Result>
concept TakesTiles = requires { Result::kTakesTiles; };

template <class Problem>
constexpr bool kTakesTiles = TakesTiles<decltype(Problem::Parts::result)>;

// A result that saves work on neighbouring columns of a row, or wants them at once, has kTogether, a divisor
// of every tile's columns, and
//   Columns columns(int64_t n) const;  of columns n ... n + kTogether - 1; it minds those past the last one
//   void store(int64_t m, const Columns& columns, const T (&values)[kTogether]) const
// beside column() and store() of one, which only the sums of slices then go to. Without these two n is a
// multiple of kTogether.
template <class Result>
concept TakesColumns = Result::kTogether > 1;

// Stores a block's sums where they belong, by store_tile(Tile(), shared, sums, store), or
// store_tile<kTogether> where the result takes so many columns.
template <class Tile, class Problem, class Sums, class T = Compute<typename Problem::Value>>
__device__ __forceinline__ void store_sums(const Problem& problem, const Schedule& schedule,
                                           const Place& place, T* shared, const Sums& sum, bool sum_rows,
                                           T row_sum, T* partials, T* row_partials) {
  using Result = decltype(Problem::Parts::result);
  const auto operands = problem.at(place.batch);
  const int64_t first_m = int64_t{place.tile_m} * Tile::kRows, m = operands.m, n = operands.n;
  const int64_t first_n = int64_t{place.tile_n} * Tile::kColumns;
  const int64_t column_n = first_n + threadIdx.x % Tile::kColumns;
  if constexpr (kTakesTiles<Problem>) {
    operands.result.template take<Tile>(first_m, first_n, sum);
  } else if (schedule.splits.divisor() == 1) {
    if constexpr (TakesColumns<Result>) {
      constexpr int kTogether = Result::kTogether;
      const int64_t columns_n = first_n + threadIdx.x % (Tile::kColumns / kTogether) * kTogether;
      const auto columns = operands.result.columns(columns_n);
      store_tile<kTogether>(Tile(), shared, sum, [&](int row, const T(&values)[kTogether]) {
        if (first_m + row < m && columns_n < n) operands.result.store(first_m + row, columns, values);
      });
    } else {
      const auto column = operands.result.column(column_n < n ? column_n : 0);
      store_tile(Tile(), shared, sum, [&](int row, T value) {
        if (first_m + row < m && column_n < n) operands.result.store(first_m + row, column, value);
      });
    }
    if (sum_rows && first_m + threadIdx.x < m)
      operands.row_sums[first_m + threadIdx.x] = narrow<typename Problem::Value>(row_sum);
  } else {
    const int64_t first = (int64_t{place.batch} * schedule.splits.divisor() + place.split) * schedule.m;
    T* const out = partials + first * schedule.n + column_n;
    store_tile(Tile(), shared, sum, [&](int row, T value) {
      const bool wanted = first_m + row < schedule.m && column_n < schedule.n;  // also past a smaller member
      if (wanted) out[(first_m + row) * schedule.n] = value;
    });
    if (sum_rows && first_m + threadIdx.x < m) row_partials[first + first_m + threadIdx.x] = row_sum;
  }
}

}  // namespace fastarch::cuda
