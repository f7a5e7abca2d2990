// The blocked matrix multiply of simt.h on the tensor cores: the same problems, readers and results, for
// float32 and 16-bit floats.
//
// Each step's pieces of A and B are copied to shared memory asynchronously, two steps ahead, into a ring of
// three stages; no register holds them on the way. (Except single 16-bit elements, which such copies cannot
// bring: they wait in registers while a step is multiplied.) A step costs one barrier: behind it the arrived
// stage may be read, and the one read before be written to.
//
// 16-bit operands are multiplied as they are and summed in float32. tf32 rounds every operand to 10 bits of
// fraction: a relative error of 2^-11, as in every library's tf32.
//
// tf32x3 is float32 by three products. An operand is split into x = big + small, both tf32: what is lost is
// 2^-23 of x. Of the product, big * big + big * small + small * big are taken: what is lost is small * small,
// at most 2^-22. The tensor cores chop their sums, so those of one step start at zero, and the ordinary
// units, which round, add them up: Ootomo and Yokota, "Recovering single precision accuracy from Tensor Cores
// while surpassing the FP32 theoretical peak performance" (2022). Splitting takes exponents from both ends of
// float32's range. So each warp notes the largest and the smallest non-zero magnitude of its rows of A and
// columns of B, and a block where these are not safe computes its tile again on the ordinary units:
// denormals, overflows, infinities and NaN come out as there. Products with fewer than kLeastDepth values of
// k take the ordinary units as well: too few roundings hide the missing term.
#pragma once
#include <map>
#include <mutex>
#include <type_traits>

#include "core/reduce.h"
#include "gemm/mma_tile.h"
#include "gemm/simt.h"

namespace fastarch::cuda {

constexpr int64_t kLeastDepth = 64;

// The largest and the smallest non-zero magnitude that a lane has met.
struct Range {
  float largest = 0;
  uint32_t smallest = ~0u;  // its bits without the sign, less one: zero becomes the largest number

  __device__ __forceinline__ void note(uint32_t bits) {
    largest = fmaxf(largest, fabsf(__uint_as_float(bits)));
    smallest = min(smallest, (bits << 1) - 1);
  }
  __device__ __forceinline__ Range of_warp() const {
    const auto least = [](uint32_t x, uint32_t y) { return x < y ? x : y; };
    return {warp_max(largest), warp_reduce(smallest, least)};
  }
  __device__ __forceinline__ float least() const { return __uint_as_float((smallest + 1) >> 1); }
  __device__ __forceinline__ bool empty() const { return smallest == ~0u; }

  // Whether both parts of every element are normal numbers, and so are the products of any two elements.
  __device__ static __forceinline__ bool safe(const Range& a, const Range& b) {
    if (!(a.largest <= 0x1p60f && b.largest <= 0x1p60f)) return false;
    return a.empty() || b.empty() ||
           (a.least() >= 0x1p-100f && b.least() >= 0x1p-100f && a.least() * b.least() >= 0x1p-120f);
  }
};

struct Ranges {
  Range a, b;
};

struct Split {
  uint32_t big, small;

  __device__ __forceinline__ Split() {}
  __device__ __forceinline__ Split(uint32_t bits, Range& range) {
    const float x = __uint_as_float(bits);
    range.note(bits);
    big = to_tf32(x);
    small = to_tf32(x - __uint_as_float(big));
  }
};

// sum += the product of a step's pieces.
template <class Tile, class PanelA, class PanelB, class T>
__device__ __forceinline__ void mma_step(const T* a, const T* b, typename Tile::Sums& sum) {
#pragma unroll
  for (int k = 0; k < Tile::kDepth; k += kMmaDepth<Tile::kType>) {
    uint32_t x[Tile::kDown][4], y[Tile::kAcross / 2][4];
#pragma unroll
    for (int i = 0; i < Tile::kDown; ++i) PanelA::template load<true>(a, Tile::warp_row() + i * 16, k, x[i]);
#pragma unroll
    for (int j = 0; j < Tile::kAcross / 2; ++j)
      PanelB::template load<false>(b, Tile::warp_column() + j * 16, k, y[j]);
    const auto round = [](auto& registers) {
#pragma unroll
      for (auto& fragment : registers)
#pragma unroll
        for (uint32_t& bits : fragment) bits = to_tf32(__uint_as_float(bits));
    };
    if constexpr (Tile::kType == MmaType::tf32) {
      round(x);
      round(y);
    }
#pragma unroll
    for (int i = 0; i < Tile::kDown; ++i)
#pragma unroll
      for (int j = 0; j < Tile::kAcross; ++j) {
        const uint32_t pair[2] = {y[j / 2][j % 2 * 2], y[j / 2][j % 2 * 2 + 1]};
        mma<Tile::kType>(sum[i][j], x[i], pair);
      }
  }
}

// The same of floats in three products of tf32, small ones first.
template <class Tile, class PanelA, class PanelB>
__device__ __forceinline__ void mma_step_tf32x3(const float* a, const float* b, typename Tile::Sums& sum,
                                                Ranges& ranges) {
  typename Tile::Sums part = {};
#pragma unroll 1  // for want of registers
  for (int k = 0; k < Tile::kDepth; k += 8) {
    uint32_t x_big[Tile::kDown][4], x_small[Tile::kDown][4];
#pragma unroll
    for (int i = 0; i < Tile::kDown; ++i) {
      uint32_t raw[4];
      PanelA::template load<true>(a, Tile::warp_row() + i * 16, k, raw);
#pragma unroll
      for (int v = 0; v < 4; ++v) {
        const Split split(raw[v], ranges.a);
        x_big[i][v] = split.big, x_small[i][v] = split.small;
      }
    }
#pragma unroll
    for (int two = 0; two < Tile::kAcross / 2; ++two) {
      uint32_t raw[4];
      PanelB::template load<false>(b, Tile::warp_column() + two * 16, k, raw);
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const Split lower(raw[2 * j], ranges.b), upper(raw[2 * j + 1], ranges.b);
        const uint32_t y_big[2] = {lower.big, upper.big}, y_small[2] = {lower.small, upper.small};
#pragma unroll
        for (int i = 0; i < Tile::kDown; ++i) {
          mma<MmaType::tf32>(part[i][2 * two + j], x_small[i], y_big);
          mma<MmaType::tf32>(part[i][2 * two + j], x_big[i], y_small);
          mma<MmaType::tf32>(part[i][2 * two + j], x_big[i], y_big);
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < Tile::kDown; ++i)
#pragma unroll
    for (int j = 0; j < Tile::kAcross; ++j)
#pragma unroll
      for (int v = 0; v < 4; ++v) sum[i][j][v] += part[i][j][v];
}

// The same on the ordinary units; rare, so it may be slow.
template <class Tile, class PanelA, class PanelB>
__device__ __forceinline__ void plain_step(const float* a, const float* b, typename Tile::Sums& sum) {
  const int row = Tile::warp_row() + Tile::lane_row(), column = Tile::warp_column() + Tile::lane_column();
#pragma unroll 1
  for (int k = 0; k < Tile::kDepth; ++k) {
#pragma unroll
    for (int i = 0; i < Tile::kDown; ++i) {
      const float x[2] = {PanelA::at(a, row + i * 16, k), PanelA::at(a, row + i * 16 + 8, k)};
#pragma unroll
      for (int j = 0; j < Tile::kAcross; ++j)
#pragma unroll
        for (int v = 0; v < 4; ++v) sum[i][j][v] += x[v / 2] * PanelB::at(b, column + j * 8 + v % 2, k);
    }
  }
}

template <class Tile, class Problem>
constexpr int kResidentBlocks =  // row sums beside 3xTF32 or 16-bit operands take another block's registers
    Problem::kRowSums && (Tile::kMode == Precision::tf32x3 || kIsHalf<typename Tile::Value>)
        ? 1
        : Tile::kResident;

// Grid and results are multiply_kernel's.
template <class Tile, class Problem>
__global__ void __launch_bounds__(Tile::kThreads, (kResidentBlocks<Tile, Problem>))
    mma_kernel(const Problem problem, const Schedule schedule, float* partials, float* row_partials) {
#if defined(FASTARCH_EMULATOR) || __CUDA_ARCH__ >= 800  // multiply() starts it nowhere else
  using PanelA = typename Tile::template PanelA<Problem>;
  using PanelB = typename Tile::template PanelB<Problem>;
  using T = typename Tile::Value;
  constexpr int kStages = Tile::kStages, kStageSize = PanelA::kSize + PanelB::kSize;
  FASTARCH_DYNAMIC_SHARED(float, shared);
  T* const stages = reinterpret_cast<T*>(shared);

  const Place place = Place::of_block(schedule);
  FASTARCH_SHARED(Place, kept, [1]);  // until the sums are stored: meanwhile registers are scarce
  if (threadIdx.x == 0) kept[0] = place;
  auto operands = problem.at(place.batch);
  const int depth = start_slice(operands, schedule, place);

  using CarrierA = Carrier<Tile, Tile::kRows, PanelA::kPitch, decltype(operands.a)>;
  using CarrierB = Carrier<Tile, Tile::kColumns, PanelB::kPitch, decltype(operands.b)>;
  FASTARCH_SHARED(typename CarrierA::Tables, a_tables, [1]);
  FASTARCH_SHARED(typename CarrierB::Tables, b_tables, [1]);
  CarrierA a(operands.a, int64_t{place.tile_m} * Tile::kRows, a_tables);
  CarrierB b(operands.b, int64_t{place.tile_n} * Tile::kColumns, b_tables);

  const auto prepare = [&](int step) {  // of the table's two halves, step's is free two steps later
    const int k = step * Tile::kDepth;
    a.prepare(operands.a, step % 2, k, depth - k);
    b.prepare(operands.b, step % 2, k, depth - k);
  };
  const auto start_step = [&](int step, int stage) {  // past the end: zeros, without touching global memory
    const int k = step * Tile::kDepth;
    T* const to = stages + stage * kStageSize;
    a.start(operands.a, step % 2, k, depth - k, to);
    b.start(operands.b, step % 2, k, depth - k, to + PanelA::kSize);
    commit_copies();
  };
  const auto finish_step = [&](int stage) {
    T* const to = stages + stage * kStageSize;
    a.finish(to);
    b.finish(to + PanelA::kSize);
  };
  const auto each_step = [&](auto&& multiply) {
    prepare(0);
    __syncthreads();
    for (int step = 0; step < kStages - 1; ++step) {
      start_step(step, step);
      finish_step(step);
      prepare(step + 1);
      __syncthreads();
    }
    int stage = 0, free_stage = kStages - 1;
#pragma unroll 1
    for (int step = 0; step * Tile::kDepth < depth; ++step) {
      wait_copies<kStages - 2>();
      __syncthreads();
      start_step(step + kStages - 1, free_stage);
      prepare(step + kStages);
      const T* const from = stages + stage * kStageSize;
      multiply(from, from + PanelA::kSize);
      finish_step(free_stage);
      free_stage = stage;
      stage = stage == kStages - 1 ? 0 : stage + 1;
    }
    wait_copies<0>();
    __syncthreads();
  };

  typename Tile::Sums sum = {};
  float row_sum = 0;
  const bool sum_rows =
      Problem::kRowSums && operands.row_sums && place.tile_n == 0 && threadIdx.x < Tile::kRows;
  Ranges ranges;
  each_step([&](const T* from_a, const T* from_b) {
    if constexpr (Tile::kMode == Precision::tf32)
      mma_step<Tile, PanelA, PanelB>(from_a, from_b, sum);
    else
      mma_step_tf32x3<Tile, PanelA, PanelB>(from_a, from_b, sum, ranges);
    if constexpr (Problem::kRowSums) {
      if (sum_rows) PanelA::add_line(from_a, threadIdx.x, row_sum);
    }
  });
  if constexpr (Tile::kMode == Precision::tf32x3) {
    const bool unsafe = !Range::safe(ranges.a.of_warp(), ranges.b.of_warp());
    if (__syncthreads_or(unsafe)) {
#pragma unroll
      for (auto& row : sum)
#pragma unroll
        for (auto& fragment : row)
#pragma unroll
          for (float& value : fragment) value = 0;
      each_step(
          [&](const T* from_a, const T* from_b) { plain_step<Tile, PanelA, PanelB>(from_a, from_b, sum); });
    }
  }
  store_sums<Tile>(problem, schedule, kept[0], shared, sum, sum_rows, row_sum, partials, row_partials);
#else
  __trap();  // tensor_cores() says so first
#endif
}

// What is asked for the architecture that this module's kernels were compiled for.
template <class = void>
__global__ void architecture_kernel() {}

// Whether the current device has the instructions, and its code was compiled to use them: code for an older
// architecture, compiled anew by the driver, was not.
inline bool tensor_cores() {
  static std::mutex guard;
  static std::map<int, bool> compiled;  // by device
  if (device_attribute(cudaDevAttrComputeCapabilityMajor) < 8) return false;
  int device = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  const std::lock_guard lock(guard);
  const auto found = compiled.find(device);
  if (found != compiled.end()) return found->second;
  cudaFuncAttributes attributes{};
  check_cuda(cudaFuncGetAttributes(&attributes, architecture_kernel<>), "cudaFuncGetAttributes");
  return compiled[device] = attributes.ptxVersion >= 80;
}

// multiply() of simt.h with the precision that the caller allows; float64 and devices without the means keep
// theirs: there 16-bit operands are multiplied as float32, which they are summed in anywhere.
template <class Problem>
void multiply(const CallSite& name, const Problem& problem, const Shape& shape, bool row_sums, Stream stream,
              Precision precision) {
  using T = typename Problem::Value;
  const auto launch_tile = [&]<class Tile>(dim3 grid, dim3 block, size_t shared_bytes, auto&&... arguments) {
    launch(name, mma_kernel<Tile, Problem>, grid, block, shared_bytes, arguments...);
  };
  if constexpr (kIsHalf<T>) {
    if (tensor_cores())
      return multiply_planned<MmaTiles<T>>(name, problem, shape, row_sums, stream, launch_tile);
  } else if constexpr (std::is_same_v<T, float>) {
    if (precision == Precision::tf32 && tensor_cores())
      return multiply_planned<MmaTiles<T>>(name, problem, shape, row_sums, stream, launch_tile);
    if (precision == Precision::tf32x3 && shape.k >= kLeastDepth && tensor_cores())
      return multiply_planned<Tf32x3Tiles>(name, problem, shape, row_sums, stream, launch_tile);
  }
  multiply(name, problem, shape, row_sums, stream);
}

}  // namespace fastarch::cuda
