// How one block's share of a multiply is cut up among the tensor cores' instructions, and the layout of its
// operands in shared memory.
#pragma once
#include <type_traits>

#include "core/half.h"
#include "core/mma.h"
#include "core/types.h"
#include "gemm/tile.h"

namespace fastarch::cuda {

// An operand's piece of one step. It lies as its reader brings it: lines along k, or k by k; no transposition
// on the way. Either pitch lets what the 32 lanes of load() read together fall into 32 different banks.
template <class T, int Lines, int Depth, bool AlongK>
struct Panel {
  static constexpr int kChunk = 16 / sizeof(T);  // values of k in a register of a quad of lanes: 4 or 8
  static constexpr int kPitch = AlongK ? Depth + kChunk : Lines + 8;
  static constexpr int kSize = (AlongK ? Lines : Depth) * kPitch;

  __device__ static __forceinline__ float at(const T* panel, int line, int k) {
    return widen(panel[AlongK ? line * kPitch + k : k * kPitch + line]);
  }

  // sum += the line's values, in the order of k. Along k it takes 16 bytes at a time: the lanes of a warp, a
  // line each, would meet in one bank of four with every single element, and no two of them do this way.
  __device__ static __forceinline__ void add_line(const T* panel, int line, float& sum) {
    if constexpr (AlongK) {
#pragma unroll
      for (int k = 0; k < Depth; k += kVector<T>) {
        const Pack<T> pack = *reinterpret_cast<const Pack<T>*>(panel + line * kPitch + k);
#pragma unroll
        for (int v = 0; v < kVector<T>; ++v) sum += widen(pack.value[v]);
      }
    } else {
#pragma unroll
      for (int k = 0; k < Depth; ++k) sum += at(panel, line, k);
    }
  }

  // Registers for lines first + 0..7 and first + 8..15 at k's first and second chunk. ByLines: in the order
  // lower lines, upper lines, then the same of the second chunk, as a row operand has it; else first chunk,
  // second chunk, then of the upper lines.
  template <bool ByLines>
  __device__ static __forceinline__ void load(const T* panel, int first, int k, uint32_t (&registers)[4]) {
    const int lane = threadIdx.x % 32, matrix = lane / 8;
    const int upper = ByLines ? matrix % 2 : matrix / 2, second = ByLines ? matrix / 2 : matrix % 2;
    if constexpr (AlongK) {
      load_matrices(registers, panel + (first + upper * 8 + lane % 8) * kPitch + k + second * kChunk);
    } else if constexpr (sizeof(T) == 2) {
      load_matrices<true>(registers, panel + (k + second * kChunk + lane % 8) * kPitch + first + upper * 8);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int line = first + (ByLines ? i % 2 : i / 2) * 8 + lane / 4;
        const int row = k + (ByLines ? i / 2 : i % 2) * kChunk + lane % 4;
        registers[i] = __float_as_uint(panel[row * kPitch + line]);
      }
    }
  }
};

// A block computes Rows x Columns of the output, 64 bytes' worth of k at a time, a warp WarpRows x
// WarpColumns of it in fragments of 16 x 8. Copies run kStages - 1 steps ahead. T: float, in tf32 as Mode
// says, or a 16-bit type.
template <class T, Precision Mode, int Rows, int Columns, int WarpRows, int WarpColumns, int Resident>
struct MmaTile {
  using Value = T;
  using Sum = float;
  static constexpr MmaType kType = std::is_same_v<T, float>      ? MmaType::tf32
                                   : std::is_same_v<T, bfloat16> ? MmaType::bfloat16
                                                                 : MmaType::float16;
  static constexpr Precision kMode = Mode;
  static constexpr int kRows = Rows, kColumns = Columns, kDepth = 64 / sizeof(T), kStages = 3;
  static constexpr int kWarpRows = WarpRows, kWarpColumns = WarpColumns;
  static constexpr int kWarpsDown = Rows / WarpRows, kWarpsAcross = Columns / WarpColumns;
  static constexpr int kThreads = 32 * kWarpsDown * kWarpsAcross, kResident = Resident;
  static constexpr int kDown = WarpRows / 16, kAcross = WarpColumns / 8;  // a warp's fragments
  static_assert(WarpRows % 16 == 0 && WarpColumns % 16 == 0 && kThreads % Columns == 0 && kThreads >= Rows);

  // A lane's sums: those of fragment (i, j) lie as mma() has them.
  using Sums = float[kDown][kAcross][4];

  // See plan.h. A tensor core multiplies and adds 32-bit operands four times as fast as the ordinary units,
  // 16-bit ones eight times; every 32-bit element of a fragment is rounded, or split and its magnitude noted.
  static constexpr int kProducts = Mode == Precision::tf32x3 ? 3 : 1;
  static constexpr double kSlots =
      kDepth * (sizeof(T) / 16.0 * kProducts * Rows * Columns +
                kThreads * (kDown * 4 + kAcross * 2) / 8.0 * (sizeof(T) == 4 ? 2 * kProducts : 0.25));

  __device__ static __forceinline__ int lane_row() { return threadIdx.x % 32 / 4; }
  __device__ static __forceinline__ int lane_column() { return threadIdx.x % 4 * 2; }
  __device__ static __forceinline__ int warp_row() { return threadIdx.x / 32 / kWarpsAcross * WarpRows; }
  __device__ static __forceinline__ int warp_column() {
    return threadIdx.x / 32 % kWarpsAcross * WarpColumns;
  }

  // The way out passes through the same memory as the way in: one row of fragments of every warp at a time.
  static constexpr int kStorePitch = Columns + 8;

  template <class Problem>
  using PanelA = Panel<T, Rows, kDepth, decltype(Problem::Parts::a)::kAlongK>;
  template <class Problem>
  using PanelB = Panel<T, Columns, kDepth, decltype(Problem::Parts::b)::kAlongK>;

  template <class Problem>
  static constexpr size_t shared_bytes() {
    constexpr size_t kIn = kStages * (PanelA<Problem>::kSize + PanelB<Problem>::kSize) * sizeof(T);
    constexpr size_t kOut = kWarpsDown * 16 * kStorePitch * sizeof(float);
    return kIn > kOut ? kIn : kOut;
  }
};

// For tf32 and 16-bit types: large products; few filters or batch 1; up to 16 rows.
template <class T>
struct MmaTiles {
  template <class Visit>
  static void each(Visit&& visit) {
    visit.template operator()<MmaTile<T, Precision::tf32, 128, 128, 64, 32, 2>>();
    visit.template operator()<MmaTile<T, Precision::tf32, 64, 64, 32, 32, 4>>();
    visit.template operator()<MmaTile<T, Precision::tf32, 16, 64, 16, 32, sizeof(T) == 4 ? 8 : 6>>();
  }
};

// The same with smaller warp tiles, as every sum is kept twice.
struct Tf32x3Tiles {
  template <class Visit>
  static void each(Visit&& visit) {
    visit.template operator()<MmaTile<float, Precision::tf32x3, 128, 64, 32, 32, 2>>();
    visit.template operator()<MmaTile<float, Precision::tf32x3, 64, 64, 32, 32, 3>>();
    visit.template operator()<MmaTile<float, Precision::tf32x3, 16, 64, 16, 32, 6>>();
  }
};

// Hands the tile's sums to store(row, value), or with a Width to store(row, values), as in simt.h.
template <int Width = 1, class T, Precision Mode, int Rows, int Columns, int WarpRows, int WarpColumns,
          int Resident, class Store>
__device__ __forceinline__ void store_tile(
    MmaTile<T, Mode, Rows, Columns, WarpRows, WarpColumns, Resident>, float* shared,
    const typename MmaTile<T, Mode, Rows, Columns, WarpRows, WarpColumns, Resident>::Sums& sum,
    Store&& store) {
  using Tile = MmaTile<T, Mode, Rows, Columns, WarpRows, WarpColumns, Resident>;
  constexpr int kAcross = Columns / Width, kRowsAtOnce = Tile::kThreads / kAcross;
  const int column = threadIdx.x % kAcross * Width, first_row = threadIdx.x / kAcross;
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
      hand_over<Width>(down / 16 * WarpRows + i * 16 + down % 16, shared + down * Tile::kStorePitch + column,
                       store);
  }
}

}  // namespace fastarch::cuda
