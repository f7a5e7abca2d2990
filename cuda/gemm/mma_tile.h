// How one block's share of a multiply is cut up among the tensor cores' instructions, and the layout of its
// operands in shared memory.
#pragma once
#include <utility>

#include "core/mma.h"
#include "core/types.h"
#include "gemm/tile.h"

namespace fastarch::cuda {

// An operand's piece of one step. It lies as its reader brings it: lines along k, or k by k; no transposition
// on the way. Either pitch lets the 32 lanes' elements of a fragment, 8 lines by 4 values of k, fall into 32
// different banks.
template <int Lines, int Depth, bool AlongK>
struct Panel {
  static constexpr int kPitch = AlongK ? Depth + 4 : Lines + 8;
  static constexpr int kSize = (AlongK ? Lines : Depth) * kPitch;

  __device__ static __forceinline__ float at(const float* panel, int line, int k) {
    return panel[AlongK ? line * kPitch + k : k * kPitch + line];
  }

  // Registers for lines first + 0..7 and first + 8..15 at k + 0..3 and k + 4..7; ByLines: in the order lower
  // lines, upper lines, then the same of the upper k, as a row operand has it; else lower k, upper k, then of
  // the upper lines.
  template <bool ByLines>
  __device__ static __forceinline__ void load(const float* panel, int first, int k,
                                              uint32_t (&registers)[4]) {
    const int lane = threadIdx.x % 32;
    if constexpr (AlongK) {
      const int matrix = lane / 8, upper_line = ByLines ? matrix % 2 : matrix / 2,
                upper_k = ByLines ? matrix / 2 : matrix % 2;
      load_matrices(registers, panel + (first + upper_line * 8 + lane % 8) * kPitch + k + upper_k * 4);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int upper_line = ByLines ? i % 2 : i / 2, upper_k = ByLines ? i / 2 : i % 2;
        registers[i] =
            __float_as_uint(panel[(k + lane % 4 + upper_k * 4) * kPitch + first + upper_line * 8 + lane / 4]);
      }
    }
  }
};

// A block computes Rows x Columns of the output, kDepth values of k at a time, a warp WarpRows x WarpColumns
// of it in fragments of 16 x 8. Copies run kStages - 1 steps ahead.
template <Precision Mode, int Rows, int Columns, int WarpRows, int WarpColumns, int Resident>
struct MmaTile {
  using Value = float;
  static constexpr Precision kMode = Mode;
  static constexpr int kRows = Rows, kColumns = Columns, kDepth = 16, kStages = 3;
  static constexpr int kWarpRows = WarpRows, kWarpColumns = WarpColumns;
  static constexpr int kWarpsDown = Rows / WarpRows, kWarpsAcross = Columns / WarpColumns;
  static constexpr int kThreads = 32 * kWarpsDown * kWarpsAcross, kResident = Resident;
  static constexpr int kDown = WarpRows / 16, kAcross = WarpColumns / 8;  // a warp's fragments
  static_assert(WarpRows % 16 == 0 && WarpColumns % 16 == 0 && kThreads % Columns == 0 && kThreads >= Rows);

  // A lane's sums: those of fragment (i, j) lie as mma() has them.
  using Sums = float[kDown][kAcross][4];

  // See plan.h. A tensor core multiplies and adds four times as fast as the ordinary units; every element of
  // a fragment is rounded, or split and its magnitude noted.
  static constexpr int kProducts = Mode == Precision::tf32 ? 1 : 3;
  static constexpr double kSlots = kDepth * (0.25 * kProducts * Rows * Columns +
                                             kThreads * (kDown * 4 + kAcross * 2) / 8.0 * (2 * kProducts));

  __device__ static __forceinline__ int lane_row() { return threadIdx.x % 32 / 4; }
  __device__ static __forceinline__ int lane_column() { return threadIdx.x % 4 * 2; }
  __device__ static __forceinline__ int warp_row() { return threadIdx.x / 32 / kWarpsAcross * WarpRows; }
  __device__ static __forceinline__ int warp_column() {
    return threadIdx.x / 32 % kWarpsAcross * WarpColumns;
  }

  // The way out passes through the same memory as the way in: one row of fragments of every warp at a time.
  static constexpr int kStorePitch = Columns + 8;

  template <class Problem>
  using PanelA = Panel<Rows, kDepth, decltype(std::declval<const Problem&>().at(0).a)::kAlongK>;
  template <class Problem>
  using PanelB = Panel<Columns, kDepth, decltype(std::declval<const Problem&>().at(0).b)::kAlongK>;

  template <class Problem>
  static constexpr size_t shared_bytes() {
    constexpr int kIn = kStages * (PanelA<Problem>::kSize + PanelB<Problem>::kSize);
    constexpr int kOut = kWarpsDown * 16 * kStorePitch;
    return (kIn > kOut ? kIn : kOut) * sizeof(float);
  }
};

// Large products; few filters or batch 1; up to 16 rows.
struct Tf32Tiles {
  template <class Visit>
  static void each(Visit&& visit) {
    visit.template operator()<MmaTile<Precision::tf32, 128, 128, 64, 32, 2>>();
    visit.template operator()<MmaTile<Precision::tf32, 64, 64, 32, 32, 4>>();
    visit.template operator()<MmaTile<Precision::tf32, 16, 64, 16, 32, 8>>();
  }
};

// The same with smaller warp tiles, as every sum is kept twice.
struct Tf32x3Tiles {
  template <class Visit>
  static void each(Visit&& visit) {
    visit.template operator()<MmaTile<Precision::tf32x3, 128, 64, 32, 32, 2>>();
    visit.template operator()<MmaTile<Precision::tf32x3, 64, 64, 32, 32, 3>>();
    visit.template operator()<MmaTile<Precision::tf32x3, 16, 64, 16, 32, 6>>();
  }
};

// Hands the tile's sums to store(row, value), as in simt.h: a thread has one column, so that stores are
// coalesced.
template <Precision Mode, int Rows, int Columns, int WarpRows, int WarpColumns, int Resident, class Store>
__device__ __forceinline__ void store_tile(
    MmaTile<Mode, Rows, Columns, WarpRows, WarpColumns, Resident>, float* shared,
    const typename MmaTile<Mode, Rows, Columns, WarpRows, WarpColumns, Resident>::Sums& sum, Store&& store) {
  using Tile = MmaTile<Mode, Rows, Columns, WarpRows, WarpColumns, Resident>;
  constexpr int kRowsAtOnce = Tile::kThreads / Columns;
  const int column = threadIdx.x % Columns, first_row = threadIdx.x / Columns;
  const int to_row = Tile::warp_row() / WarpRows * 16 + Tile::lane_row();
  float* const to = shared + to_row * Tile::kStorePitch + Tile::warp_column() + Tile::lane_column();
#pragma unroll 1
  for (int i = 0; i < Tile::kDown; ++i) {
    __syncthreads();
#pragma unroll
    for (int picked = 0; picked < Tile::kDown; ++picked) {
      if (picked != i) continue;
#pragma unroll
      for (int j = 0; j < Tile::kAcross; ++j) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const Pack<float, 2> pack{{sum[picked][j][2 * half], sum[picked][j][2 * half + 1]}};
          *reinterpret_cast<Pack<float, 2>*>(to + half * 8 * Tile::kStorePitch + j * 8) = pack;
        }
      }
    }
    __syncthreads();
#pragma unroll 4
    for (int down = first_row; down < Tile::kWarpsDown * 16; down += kRowsAtOnce)
      store(down / 16 * WarpRows + i * 16 + down % 16, shared[down * Tile::kStorePitch + column]);
  }
}

}  // namespace fastarch::cuda
