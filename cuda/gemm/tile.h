// How one block's share of a multiply is cut up among its threads.
#pragma once
#include "core/launch.h"
#include "core/vector.h"

namespace fastarch::cuda {

// The widest load of the machine, in elements.
template <class T>
constexpr int kVector = Pack<T>::size;

// A block computes Rows x Columns of the output, `Depth` values of k at a time; each thread computes a
// micro-tile of MicroRows x MicroColumns, so that a value read from shared memory feeds that many
// multiply-adds. `Resident` blocks are to fit a multiprocessor's 65,536 registers at once.
template <class T, int Rows, int Columns, int Depth, int MicroRows, int MicroColumns, int Resident>
struct Tile {
  using Value = T;
  using Sum = T;
  static constexpr int kRows = Rows, kColumns = Columns, kDepth = Depth;
  static constexpr int kMicroRows = MicroRows, kMicroColumns = MicroColumns;
  static constexpr int kThreadsDown = Rows / MicroRows, kThreadsAcross = Columns / MicroColumns;
  static constexpr int kResident = Resident;
  static constexpr int kThreads = kThreadsDown * kThreadsAcross;

  // How many k to unroll, so that reads run ahead of the arithmetic: all, but a large micro-tile has
  // arithmetic enough to wait behind, and no registers for values read far ahead.
  static constexpr int kAhead = MicroRows * MicroColumns < 64 ? Depth : 2;

  // Shared memory holds the operands k-major. The padding keeps every k row aligned to 16 bytes and sets rows
  // 4 banks apart: threads that walk along k then store without bank conflicts (depth 8) or two-way (16).
  static constexpr int kPitchA = Rows + kVector<T>, kPitchB = Columns + kVector<T>;

  // A micro-tile is made of runs of at most 16 bytes, a whole tile's width apart: the lanes of a warp, 4 down
  // and 8 across, then read neighbouring runs, which is what shared memory serves without conflicts.
  static constexpr int kRunA = MicroRows < kVector<T> ? MicroRows : kVector<T>;
  static constexpr int kRunB = MicroColumns < kVector<T> ? MicroColumns : kVector<T>;
  static constexpr int kLanesDown = 4, kLanesAcross = 8;
  static_assert(kThreadsDown % kLanesDown == 0 && kThreadsAcross % kLanesAcross == 0);
  static_assert(kThreads % Columns == 0 && kThreads >= Rows);  // the epilogue gives every thread one column

  // Issue slots of a step's arithmetic, for plan.h: one for each multiply-add, half a one for each value that
  // a thread reads from shared memory.
  static constexpr double kSlots =
      Depth * (Rows * Columns + 0.5 * kThreads * (MicroRows + MicroColumns)) * (sizeof(T) / sizeof(float));

  template <class Problem>
  static constexpr size_t shared_bytes() {  // beyond what the kernel declares
    return 0;
  }

  __device__ static __forceinline__ int thread_row() {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    return warp / (kThreadsAcross / kLanesAcross) * kLanesDown + lane / kLanesAcross;
  }
  __device__ static __forceinline__ int thread_column() {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    return warp % (kThreadsAcross / kLanesAcross) * kLanesAcross + lane % kLanesAcross;
  }
};

// A thread's values of one row: runs of Run elements, Stride apart.
template <int Count, int Run, int Stride, class T>
__device__ __forceinline__ void read_runs(const T* row, T (&values)[Count]) {
#pragma unroll
  for (int i = 0; i < Count; i += Run) {
    const Pack<T, Run> pack = *reinterpret_cast<const Pack<T, Run>*>(row + i / Run * Stride);
#pragma unroll
    for (int j = 0; j < Run; ++j) values[i + j] = pack.value[j];
  }
}

// Calls store(row, value) with the sum at `from`, or with a Width store(row, values) with as many from there
// on.
template <int Width, class T, class Store>
__device__ __forceinline__ void hand_over(int row, const T* from, Store&& store) {
  if constexpr (Width == 1) {
    store(row, *from);
  } else {
    constexpr int kRun = Width < kVector<T> ? Width : kVector<T>;
    T values[Width];
    read_runs<Width, kRun, kRun>(from, values);
    store(row, values);
  }
}

}  // namespace fastarch::cuda
