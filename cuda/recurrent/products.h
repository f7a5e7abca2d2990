// The products of a block with 16-bit weights that stay in its shared memory, on the tensor cores.
//
// A block has resident vectors (rows of w_hh, on the way back columns) and multiplies them with rows of the
// batch. Warps take tiles of 8 vectors, and where there are fewer of those than warps also split the sum,
// whose parts are added in shared memory, always in the same order.
//
// The rows are the instruction's operand of 16 lines, the vectors that of 8: few units a block then leave no
// lines empty. The order of k within a sum is free, as long as both operands have the same one. So of 32
// values of a line, a quad of lanes has 8 neighbours each, 16 bytes, which are its share of two instructions:
// lines go from memory to registers by 128-bit loads, 64 bytes of each, without a detour through shared
// memory or ldmatrix, and a tile's 32 values of k are 512 contiguous bytes of shared memory.
#pragma once
#include "core/half.h"
#include "core/mma.h"
#include "gemm/matrix.h"
#include "gemm/mma.h"

namespace fastarch::cuda {

constexpr int kProductThreads = 256;
constexpr int kProductWarps = kProductThreads / 32;
constexpr int kChunk = 32;       // values of k at a time
constexpr int kTileVectors = 8;  // resident vectors of a tile
constexpr int kTilesAtOnce = 4;  // of a warp: they share the rows read

template <class T>
constexpr MmaType kMmaOf = std::is_same_v<T, bfloat16> ? MmaType::bfloat16 : MmaType::float16;

// 8 values of a line, in pairs.
using Eight = Pack<uint32_t, 4>;

// How a block's products are cut up.
struct Cut {
  int tiles, chunks;  // of the vectors, of k
  int slices;         // of the sum: a power of two; the other warps take other tiles

  Cut(int64_t vectors, int64_t length)
      : tiles(static_cast<int>((vectors + kTileVectors - 1) / kTileVectors)),
        chunks(static_cast<int>((length + kChunk - 1) / kChunk)),
        slices(kProductWarps) {
    const int turns = (tiles + kTilesAtOnce - 1) / kTilesAtOnce;
    while (slices > 1 && (slices > chunks || 2 * kProductWarps / slices <= turns)) slices /= 2;
  }

  FASTARCH_HOST_DEVICE int vectors() const { return tiles * kTileVectors; }
  FASTARCH_HOST_DEVICE int weights() const { return vectors() * chunks * kChunk; }
  FASTARCH_HOST_DEVICE int sums(int rows) const { return slices * vectors() * rows; }

  // Where value k of a vector lies: [tile][chunk][vector][k].
  __device__ __forceinline__ int weight(int vector, int k) const {
    const int piece = vector / kTileVectors * chunks + k / kChunk;
    return (piece * kTileVectors + vector % kTileVectors) * kChunk + k % kChunk;
  }
};

template <class T>
__device__ __forceinline__ Eight load_eight(const T* from) {
  return __builtin_bit_cast(Eight, *reinterpret_cast<const Pack<T>*>(from));
}

// Makes the rows of w_hh [Gates * units, units] that belong to `mine` units from `first_unit` on resident,
// gate g of unit u as vector g * a_block + u; zeros around them.
template <int Gates, class T>
__device__ __forceinline__ void keep_rows(T* weights, const Cut& cut, const T* w_hh, int units,
                                          int first_unit, int a_block, int mine) {
  for (int v = 0; v < cut.vectors(); ++v) {
    const int gate = v / a_block, u = v - gate * a_block;
    const bool inside = gate < Gates && u < mine;
    for (int k = threadIdx.x; k < cut.chunks * kChunk; k += kProductThreads)
      weights[cut.weight(v, k)] =
          inside && k < units ? w_hh[(int64_t{gate} * units + first_unit + u) * units + k] : T{};
  }
}

// The first `valid` of 8 values, then zeros; where `aligned`, all or none are valid.
template <class T>
__device__ __forceinline__ Eight load_eight(const T* from, int valid, bool aligned) {
  Pack<T> pack;
  load_some(from, valid, aligned, pack.value);
  return __builtin_bit_cast(Eight, pack);
}

// All vectors' products with Rows rows, of which `rows` are there: load(row, k) gives 8 values of a row.
// sums: [slices][tiles][Rows][8]. All threads of the block must call; a barrier makes the sums readable.
template <class T, int Rows, class Load>
__device__ __forceinline__ void block_products(const T* weights, const Cut& cut, int rows, float* sums,
                                               Load&& load) {
  constexpr int kBands = (Rows + 15) / 16, kHalves = Rows < 16 ? 1 : 2;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int slice = warp % cut.slices, groups = kProductWarps / cut.slices;
  for (int tile = warp / cut.slices * kTilesAtOnce; tile < cut.tiles; tile += groups * kTilesAtOnce) {
    float sum[kBands][kTilesAtOnce][4] = {};
    const T* const of_lane = weights + (tile * cut.chunks * 32 + lane) * 8;
#pragma unroll(Rows == 8 ? 4 : 2)
    for (int chunk = slice; chunk < cut.chunks; chunk += cut.slices) {
      Eight line[kBands][2] = {};
#pragma unroll
      for (int b = 0; b < kBands; ++b)
#pragma unroll
        for (int i = 0; i < kHalves; ++i)
          line[b][i] = load(b * 16 + i * 8 + lane / 4, chunk * kChunk + lane % 4 * 8);
#pragma unroll
      for (int j = 0; j < kTilesAtOnce; ++j) {
        if (tile + j >= cut.tiles) break;
        const Eight vector = load_eight(of_lane + (j * cut.chunks + chunk) * kTileVectors * kChunk);
#pragma unroll
        for (int b = 0; b < kBands; ++b) {
          if (b * 16 >= rows) break;
#pragma unroll
          for (int i = 0; i < 4; i += 2) {
            const uint32_t x[4] = {line[b][0].value[i], line[b][1].value[i], line[b][0].value[i + 1],
                                   line[b][1].value[i + 1]};
            const uint32_t y[2] = {vector.value[i], vector.value[i + 1]};
            mma<kMmaOf<T>>(sum[b][j], x, y);
          }
        }
      }
    }
    float* const to = sums + ((slice * cut.tiles + tile) * Rows + lane / 4) * 8 + lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < kTilesAtOnce; ++j) {
      if (tile + j >= cut.tiles) break;
#pragma unroll
      for (int b = 0; b < kBands; ++b)
#pragma unroll
        for (int i = 0; i < kHalves; ++i) {
          const Pack<float, 2> pair{{sum[b][j][2 * i], sum[b][j][2 * i + 1]}};
          *reinterpret_cast<Pack<float, 2>*>(to + (j * Rows + b * 16 + i * 8) * 8) = pair;
        }
    }
  }
}

// The product of a vector with a row, once block_products() is done.
template <int Rows>
__device__ __forceinline__ float product_of(const float* sums, const Cut& cut, int vector, int row) {
  const float* const from = sums + (vector / kTileVectors * Rows + row) * 8 + vector % kTileVectors;
  float sum = from[0];
  for (int slice = 1; slice < cut.slices; ++slice) sum += from[slice * cut.vectors() * Rows];
  return sum;
}

}  // namespace fastarch::cuda
