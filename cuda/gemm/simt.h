// The blocked matrix multiply result[m, n] = sum over k of A[m, k] * B[k, n], on the ordinary (SIMT) units.
//
// A block owns one tile of the result and walks along k. The piece of A and of B that a step needs lies in
// shared memory, so that each element fetched from global memory is used by a whole tile row or column; each
// thread keeps a micro-tile of sums in registers, so that each value read from shared memory is used several
// times as well. While one step is multiplied, the next one's elements are on their way into registers; they
// go to the other half of a double buffer. So the wait for memory hides behind arithmetic, and a step costs
// one barrier.
//
// What A, B and the result are is the problem's business: a type with
//   using Value = float or double;
//   Operands<...> at(int batch) const;  readers (matrix.h) and result of one member of the batch
//   static constexpr bool kRowSums;     whether row_sums[m] = sum over k of A[m, k] may be wanted as well
#pragma once
#include "core/buffer.h"
#include "core/divide.h"
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
};

// One thread's share of bringing a step's piece of an operand from global to shared memory.
template <class Tile, int Lines, int Pitch, class Reader>
struct Carrier {
  using T = typename Tile::Value;
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
  __device__ __forceinline__ void prepare(const Reader& reader, int half, int k, int left) {
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

  __device__ __forceinline__ void commit(T (&tile)[Tile::kDepth][Pitch]) const {
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      if constexpr (Reader::kAlongK) {
#pragma unroll
        for (int v = 0; v < kWidth; ++v) tile[across() + v][down() + i * kDown] = values[i][v];
      } else {
        Pack<T, kWidth> pack;
#pragma unroll
        for (int v = 0; v < kWidth; ++v) pack.value[v] = values[i][v];
        *reinterpret_cast<Pack<T, kWidth>*>(&tile[down() + i * kDown][across()]) = pack;
      }
    }
  }
};

// This thread's values of one k row: runs of Run elements, Stride apart.
template <int Count, int Run, int Stride, class T>
__device__ __forceinline__ void read_runs(const T* row, T (&values)[Count]) {
#pragma unroll
  for (int i = 0; i < Count; i += Run) {
    const Pack<T, Run> pack = *reinterpret_cast<const Pack<T, Run>*>(row + i / Run * Stride);
#pragma unroll
    for (int j = 0; j < Run; ++j) values[i + j] = pack.value[j];
  }
}

// sum += the product of a step's pieces.
template <class Tile, class T>
__device__ __forceinline__ void multiply_step(const T (&a)[Tile::kDepth][Tile::kPitchA],
                                              const T (&b)[Tile::kDepth][Tile::kPitchB],
                                              T (&sum)[Tile::kMicroRows][Tile::kMicroColumns]) {
  const int row = Tile::thread_row() * Tile::kRunA, column = Tile::thread_column() * Tile::kRunB;
#pragma unroll Tile::kAhead
  for (int k = 0; k < Tile::kDepth; ++k) {
    T x[Tile::kMicroRows], y[Tile::kMicroColumns];
    read_runs<Tile::kMicroRows, Tile::kRunA, Tile::kThreadsDown * Tile::kRunA>(&a[k][row], x);
    read_runs<Tile::kMicroColumns, Tile::kRunB, Tile::kThreadsAcross * Tile::kRunB>(&b[k][column], y);
#pragma unroll
    for (int i = 0; i < Tile::kMicroRows; ++i)
#pragma unroll
      for (int j = 0; j < Tile::kMicroColumns; ++j) sum[i][j] += x[i] * y[j];
  }
}

// Hands the tile's sums to store(row, value). All of a thread's are of one column, and neighbouring threads
// have neighbouring columns: stores to global memory are then coalesced, whatever the extents. The sums pass
// through shared memory for that, one row of each micro-tile at a time. That loop is not unrolled, for want
// of registers; and as registers cannot be indexed, the row is picked by comparison.
template <class Tile, class T, class Store>
__device__ __forceinline__ void store_tile(T* shared, const T (&sum)[Tile::kMicroRows][Tile::kMicroColumns],
                                           Store&& store) {
  constexpr int kRowsAtOnce = Tile::kThreads / Tile::kColumns;
  const int column = threadIdx.x % Tile::kColumns, first_row = threadIdx.x / Tile::kColumns;
#pragma unroll 1
  for (int i = 0; i < Tile::kMicroRows; ++i) {
    __syncthreads();
#pragma unroll
    for (int picked = 0; picked < Tile::kMicroRows; ++picked) {
      if (picked != i) continue;
#pragma unroll
      for (int j = 0; j < Tile::kMicroColumns; j += Tile::kRunB) {
        Pack<T, Tile::kRunB> pack;
#pragma unroll
        for (int v = 0; v < Tile::kRunB; ++v) pack.value[v] = sum[picked][j + v];
        const int at = (j / Tile::kRunB * Tile::kThreadsAcross + Tile::thread_column()) * Tile::kRunB;
        *reinterpret_cast<Pack<T, Tile::kRunB>*>(&shared[Tile::thread_row() * Tile::kColumns + at]) = pack;
      }
    }
    __syncthreads();
#pragma unroll 4
    for (int down = first_row; down < Tile::kThreadsDown; down += kRowsAtOnce) {
      const int row = (i / Tile::kRunA * Tile::kThreadsDown + down) * Tile::kRunA + i % Tile::kRunA;
      store(row, shared[down * Tile::kColumns + column]);
    }
  }
}

// Stores a block's sums where they belong. `shared` has room for kThreadsDown * kColumns of them.
template <class Tile, class Problem, class T>
__device__ __forceinline__ void store_sums(const Problem& problem, const Schedule& schedule,
                                           const Place& place, T* shared,
                                           const T (&sum)[Tile::kMicroRows][Tile::kMicroColumns],
                                           bool sum_rows, T row_sum, T* partials, T* row_partials) {
  const auto operands = problem.at(place.batch);
  const int64_t first_m = int64_t{place.tile_m} * Tile::kRows, m = operands.m, n = operands.n;
  const int64_t column_n = int64_t{place.tile_n} * Tile::kColumns + threadIdx.x % Tile::kColumns;
  if (schedule.splits.divisor() == 1) {
    const auto column = operands.result.column(column_n < n ? column_n : 0);
    store_tile<Tile>(shared, sum, [&](int row, T value) {
      if (first_m + row < m && column_n < n) operands.result.store(first_m + row, column, value);
    });
    if (sum_rows && first_m + threadIdx.x < m) operands.row_sums[first_m + threadIdx.x] = row_sum;
  } else {
    const int64_t first = (int64_t{place.batch} * schedule.splits.divisor() + place.split) * schedule.m;
    T* const out = partials + first * schedule.n + column_n;
    store_tile<Tile>(shared, sum, [&](int row, T value) {
      const bool wanted = first_m + row < schedule.m && column_n < schedule.n;  // also past a smaller member
      if (wanted) out[(first_m + row) * schedule.n] = value;
    });
    if (sum_rows && first_m + threadIdx.x < m) row_partials[first + first_m + threadIdx.x] = row_sum;
  }
}

// Grid: one block for each (batch, slice of k, tile column, tile row), the last one fastest. With several
// slices the sums go to partials [batch, slice, m, n] and row_partials [batch, slice, m], for combine_kernel.
template <class Tile, class Problem, class T = typename Problem::Value>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kResident)
    multiply_kernel(const Problem problem, const Schedule schedule, T* partials, T* row_partials) {
  FASTARCH_SHARED(T, a_tile, [2][Tile::kDepth][Tile::kPitchA]);
  FASTARCH_SHARED(T, b_tile, [2][Tile::kDepth][Tile::kPitchB]);
  static_assert(Tile::kThreadsDown * Tile::kColumns <= 2 * Tile::kDepth * Tile::kPitchB);  // see store_sums

  Place place;
  place.batch = schedule.splits.split(
      schedule.tiles_n.split(schedule.tiles_m.split(blockIdx.x, &place.tile_m), &place.tile_n), &place.split);
  FASTARCH_SHARED(Place, kept, [1]);  // until the sums are stored: meanwhile registers are scarce
  if (threadIdx.x == 0) kept[0] = place;

  auto operands = problem.at(place.batch);
  const int64_t first_k = place.split * schedule.slice;
  const int64_t end_k = first_k + schedule.slice < operands.k ? first_k + schedule.slice : operands.k;
  const int depth = static_cast<int>(end_k - first_k);
  operands.a.start(first_k);
  operands.b.start(first_k);

  using CarrierA = Carrier<Tile, Tile::kRows, Tile::kPitchA, decltype(operands.a)>;
  using CarrierB = Carrier<Tile, Tile::kColumns, Tile::kPitchB, decltype(operands.b)>;
  FASTARCH_SHARED(typename CarrierA::Tables, a_tables, [1]);
  FASTARCH_SHARED(typename CarrierB::Tables, b_tables, [1]);
  CarrierA a(operands.a, int64_t{place.tile_m} * Tile::kRows, a_tables);
  CarrierB b(operands.b, int64_t{place.tile_n} * Tile::kColumns, b_tables);
  const auto prepare = [&](int half, int k) {
    a.prepare(operands.a, half, k, depth - k);
    b.prepare(operands.b, half, k, depth - k);
  };
  const auto fetch = [&](int half, int k) {  // past the end readers give zeros, without touching memory
    a.fetch(operands.a, half, k, depth - k);
    b.fetch(operands.b, half, k, depth - k);
  };
  const auto commit = [&](int half) {
    a.commit(a_tile[half]);
    b.commit(b_tile[half]);
  };

  T sum[Tile::kMicroRows][Tile::kMicroColumns] = {};
  T row_sum = 0;
  const bool sum_rows =
      Problem::kRowSums && operands.row_sums && place.tile_n == 0 && threadIdx.x < Tile::kRows;
  prepare(0, 0);
  prepare(1, Tile::kDepth);
  __syncthreads();
  fetch(0, 0);
  commit(0);
  __syncthreads();
  int half = 0;
#pragma unroll 1
  for (int k = 0; k < depth; k += Tile::kDepth) {
    fetch(half ^ 1, k + Tile::kDepth);
    prepare(half, k + 2 * Tile::kDepth);
    multiply_step<Tile>(a_tile[half], b_tile[half], sum);
    if constexpr (Problem::kRowSums) {
      if (sum_rows)
        for (int i = 0; i < Tile::kDepth; ++i) row_sum += a_tile[half][i][threadIdx.x];
    }
    half ^= 1;
    commit(half);
    __syncthreads();
  }
  store_sums<Tile>(problem, schedule, kept[0], &b_tile[0][0][0], sum, sum_rows, row_sum, partials,
                   row_partials);
}

// Adds the slices' partial sums, always in the same order, and stores the results. A block takes 32 results
// at a time; its 8 rows of threads take every 8th slice each, then the first row adds the 8 sums.
constexpr int kCombineColumns = 32, kCombineRows = 8;

template <class Problem, class T = typename Problem::Value>
__global__ void __launch_bounds__(kCombineColumns* kCombineRows)
    combine_kernel(const Problem problem, const T* partials, const T* row_partials, int slices,
                   int64_t batches, int64_t m, int64_t n) {
  FASTARCH_SHARED(T, shared, [kCombineRows][kCombineColumns]);
  const int x = threadIdx.x % kCombineColumns, y = threadIdx.x / kCombineColumns;

  // Over parts [batch, slice, area]: calls store(batch, index within area, sum) for each.
  const auto combine = [&](const T* parts, int64_t area, auto&& store) {
    const int64_t count = batches * area;
    for (int64_t first = int64_t{blockIdx.x} * kCombineColumns; first < count;
         first += int64_t{gridDim.x} * kCombineColumns) {
      const bool inside = first + x < count;
      const int64_t batch = (first + x) / area, within = (first + x) - batch * area;
      T sum = 0;
      if (inside) {
#pragma unroll 4
        for (int slice = y; slice < slices; slice += kCombineRows)
          sum += parts[(batch * slices + slice) * area + within];
      }
      shared[y][x] = sum;
      __syncthreads();
      if (inside && y == 0) {
        for (int i = 1; i < kCombineRows; ++i) sum += shared[i][x];
        store(static_cast<int>(batch), within, sum);
      }
      __syncthreads();
    }
  };

  if (n > 0)
    combine(partials, m * n, [&](int batch, int64_t index, T sum) {
      const auto operands = problem.at(batch);
      const int64_t row = index / n, column = index - row * n;
      if (row < operands.m && column < operands.n)
        operands.result.store(row, operands.result.column(column), sum);
    });
  if constexpr (Problem::kRowSums)
    if (row_partials)
      combine(row_partials, m, [&](int batch, int64_t row, T sum) { problem.at(batch).row_sums[row] = sum; });
}

// Computes the whole batch; `shape` has the largest m, n and k of its members. Overwrites every result, also
// where k is 0. The order of every sum follows from the shape and the device: equal calls give equal bits.
template <class Problem>
void multiply(const CallSite& name, const Problem& problem, const Shape& shape, bool row_sums,
              Stream stream) {
  using T = typename Problem::Value;
  if (shape.batches == 0 || shape.m == 0 || (shape.n == 0 && !row_sums)) return;
  const Plan plan = plan_multiply<T>(shape, multiprocessors());
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
  with_tile<T>(plan, [&]<class Tile>() {
    launch(name, multiply_kernel<Tile, Problem>, dim3(static_cast<unsigned>(blocks)), dim3(Tile::kThreads), 0,
           stream, problem, schedule, partials.data(), row_partials.data());
  });
  if (plan.splits == 1) return;
  const int64_t groups =
      divide_up(shape.batches * std::max(shape.m * shape.n, row_sums ? shape.m : 0), kCombineColumns);
  constexpr int kThreads = kCombineColumns * kCombineRows;
  launch(name, combine_kernel<Problem>, grid_for(groups * kThreads, kThreads), dim3(kThreads), 0, stream,
         problem, static_cast<const T*>(partials.data()), static_cast<const T*>(row_partials.data()),
         static_cast<int>(plan.splits), shape.batches, shape.m, shape.n);
}

}  // namespace fastarch::cuda
