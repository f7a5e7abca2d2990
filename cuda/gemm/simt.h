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
//   using Value = float or double; also a 16-bit float, which is multiplied as float;
//   using Parts = Operands<...>;        readers (matrix.h) and result; named, because nvcc's host pass cannot
//                                       deduce what a __device__ function returns
//   Parts at(int batch) const;          those of one member of the batch
//   static constexpr bool kRowSums;     whether row_sums[m] = sum over k of A[m, k] may be wanted as well
#pragma once
#include "core/buffer.h"
#include "gemm/block.h"
#include "gemm/split.h"

namespace fastarch::cuda {

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
// have neighbouring columns: stores to global memory are then coalesced, whatever the extents. With a Width
// it is store(row, values), those of as many columns side by side. The sums pass through shared memory for
// that, one row of each micro-tile at a time. That loop is not unrolled, for want of registers; and as
// registers cannot be indexed, the row is picked by comparison.
template <int Width = 1, class Tile, class T, class Store>
__device__ __forceinline__ void store_tile(Tile, T* shared,
                                           const T (&sum)[Tile::kMicroRows][Tile::kMicroColumns],
                                           Store&& store) {
  constexpr int kAcross = Tile::kColumns / Width, kRowsAtOnce = Tile::kThreads / kAcross;
  const int column = threadIdx.x % kAcross * Width, first_row = threadIdx.x / kAcross;
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
      hand_over<Width>(row, shared + down * Tile::kColumns + column, store);
    }
  }
}

// One block's part, of the problem's elements as numbers of the tile's type.
template <class Tile, class Problem, class T = typename Tile::Value>
__device__ __forceinline__ void multiply_tile(const Problem& problem, const Schedule& schedule, T* partials,
                                              T* row_partials) {
  using Element = typename Problem::Value;
  FASTARCH_SHARED(T, a_tile, [2][Tile::kDepth][Tile::kPitchA]);
  FASTARCH_SHARED(T, b_tile, [2][Tile::kDepth][Tile::kPitchB]);
  static_assert(Tile::kThreadsDown * Tile::kColumns <= 2 * Tile::kDepth * Tile::kPitchB);  // see store_sums

  const Place place = Place::of_block(schedule);
  FASTARCH_SHARED(Place, kept, [1]);  // until the sums are stored: meanwhile registers are scarce
  if (threadIdx.x == 0) kept[0] = place;

  auto operands = problem.at(place.batch);
  const int depth = start_slice(operands, schedule, place);
  using CarrierA = Carrier<Tile, Tile::kRows, Tile::kPitchA, decltype(operands.a), Element>;
  using CarrierB = Carrier<Tile, Tile::kColumns, Tile::kPitchB, decltype(operands.b), Element>;
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

// Grid: one block for each (batch, slice of k, tile column, tile row), the last one fastest. With several
// slices the sums go to partials [batch, slice, m, n] and row_partials [batch, slice, m], for combine_kernel.
template <class Tile, class Problem, class T = typename Tile::Value>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kResident)
    multiply_kernel(const Problem problem, const Schedule schedule, T* partials, T* row_partials) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  if constexpr (kIsHalf<typename Problem::Value>)
    __trap();  // there multiply() of mma.h takes the tensor cores: the code would lie idle
  else
#endif
    multiply_tile<Tile>(problem, schedule, partials, row_partials);
}

// Computes the whole batch; `shape` has the largest m, n and k of its members. Overwrites every result, also
// where k is 0. The order of every sum follows from the shape and the device: equal calls give equal bits.
template <class Problem>
void multiply(const CallSite& name, const Problem& problem, const Shape& shape, bool row_sums,
              Stream stream) {
  using T = typename Problem::Value;
  multiply_planned<Tiles<T>>(name, problem, shape, row_sums, stream, [&]<class Tile>(auto&&... arguments) {
    launch(name, multiply_kernel<Tile, Problem>, arguments...);
  });
}

}  // namespace fastarch::cuda
