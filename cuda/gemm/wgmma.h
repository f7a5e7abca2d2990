// The blocked matrix multiply for sm_90a: dense operands, brought by bulk copies (TMA) and multiplied by
// warpgroups (wgmma); problems and results are those of simt.h and mma.h.
//
// A block stays on its multiprocessor and takes piece after piece of the result (a tile, or a slice of one).
// One warpgroup only brings: a single thread of it starts the copies into a ring of stages and waits for
// stages to become free, over the end of a piece into the next. Two warpgroups multiply what has arrived, and
// store their sums while the next piece's first stages are on their way. Nobody meets at a barrier of the
// block; a stage passes between them by two barriers that count, `full` and `empty`.
//
// It has not run on hardware, so it is taken only where asked for: see wgmma_switch().
#pragma once
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <type_traits>

#include "core/tensor_map.h"
#include "core/warpgroup.h"
#include "gemm/matrix.h"
#include "gemm/split.h"

namespace fastarch::cuda {

// Whether products may take this way; at first what the environment variable FASTARCH_WGMMA says.
inline std::atomic<bool>& wgmma_switch() {
  static std::atomic<bool> on = [] {
    const char* value = std::getenv("FASTARCH_WGMMA");
    if (!value || !*value) return false;
    check((*value == '0' || *value == '1') && !value[1], "wgmma", "FASTARCH_WGMMA is '", value,
          "', expected 0 or 1");
    return *value == '1';
  }();
  return on;
}

// How many products took it so far: for tests, whose results the other ways would give as well.
inline std::atomic<int64_t>& wgmma_count() {
  static std::atomic<int64_t> count = 0;
  return count;
}

// Whether the device has the instructions, and this build code with them.
inline bool has_wgmma() {
#if defined(FASTARCH_EMULATOR) || defined(FASTARCH_BUILT_FOR_SM90A)
  return device_attribute(cudaDevAttrComputeCapabilityMajor) == 9 &&
         device_attribute(cudaDevAttrComputeCapabilityMinor) == 0;
#else
  return false;
#endif
}

// A block computes Rows x Columns of the result, 128 bytes' worth of k at a time; each of its two multiplying
// warpgroups 64 rows, or all 64 and half of the columns.
template <class T, int Rows, int Columns>
struct WgmmaTile {
  using Value = T;
  static constexpr MmaType kType = std::is_same_v<T, float>      ? MmaType::tf32
                                   : std::is_same_v<T, bfloat16> ? MmaType::bfloat16
                                                                 : MmaType::float16;
  static constexpr int kRows = Rows, kColumns = Columns, kDepth = kBoxRowBytes / sizeof(T);
  static constexpr int kConsumers = 2, kConsumerWarps = kConsumers * kWarpgroup / 32;
  static constexpr int kThreads = (kConsumers + 1) * kWarpgroup;
  static constexpr int kGroupsDown = Rows / kWarpgroupRows;
  static constexpr int kGroupColumns = Columns * kGroupsDown / kConsumers, kSums = kGroupColumns / 2;
  static_assert(kGroupsDown == 1 || kGroupsDown == kConsumers);

  static constexpr int kPanelA = Rows * kBoxRowBytes, kPanelB = Columns * kBoxRowBytes;
  static constexpr int kStageBytes = kPanelA + kPanelB, kStages = 200 * 1024 / kStageBytes;

  // The way out: each warp hands its sums around in memory of its own, 16 rows of 32 columns at a time.
  static constexpr int kWarpRows = 16, kStoreColumns = 32, kStorePitch = kStoreColumns + 8;
  static constexpr int kStoreFloats = kWarpRows * kStorePitch;
  static constexpr size_t kSharedBytes =
      kBoxAlignment + kStages * kStageBytes + kConsumerWarps * kStoreFloats * sizeof(float);
};

template <class T>
struct WgmmaTiles {
  template <class Visit>
  static void each(Visit&& visit) {
    visit.template operator()<WgmmaTile<T, 128, 256>>();
    visit.template operator()<WgmmaTile<T, 128, 128>>();
    visit.template operator()<WgmmaTile<T, 64, 256>>();
  }
};

// An operand's share of a stage, as copies bring it: rows of 128 bytes are lines along k, or values of k with
// the lines side by side, as many as a row holds; then the further lines lie behind those, block by block.
template <class T, bool AlongK>
struct WgmmaPanel {
  static constexpr bool kAlongK = AlongK;
  static constexpr int kDepth = kBoxRowBytes / sizeof(T), kAcross = kBoxRowBytes / sizeof(T);
  static constexpr int kBlock = kDepth * kBoxRowBytes;     // bytes of kAcross lines that lie across
  static constexpr int kPattern = 8 * kBoxRowBytes;        // see core/warpgroup.h
  static constexpr int kStep = kProductBytes / sizeof(T);  // values of k in a product

  // Of the first product of a stage, for lines from `line` on; the next one's is kAdvance on.
  __device__ static __forceinline__ uint64_t descriptor(const char* panel, int line) {
    return operand_descriptor(panel + (AlongK ? line * kBoxRowBytes : line / kAcross * kBlock),
                              AlongK ? 0 : kBlock, kPattern);
  }
  static constexpr uint32_t kAdvance = AlongK ? kProductBytes : kStep * kBoxRowBytes;
};

// What brings an operand, made on the host by a source's boxes<Lines>(): load(panel, full, line, step) starts
// the copies of lines from `line` on, of the step's 128 bytes of k. Here those of a matrix.
template <class T, int Lines, bool AlongK>
struct MatrixBoxes {
  using Panel = WgmmaPanel<T, AlongK>;
  TensorMap map;

  __device__ __forceinline__ void load(char* panel, uint64_t* full, int line, int step) const {
    const int k = step * Panel::kDepth;
    if constexpr (AlongK) {
      load_box(panel, map, full, k, line);
    } else {
#pragma unroll
      for (int i = 0; i < Lines / Panel::kAcross; ++i)
        load_box(panel + i * Panel::kBlock, map, full, line + i * Panel::kAcross, k);
    }
  }
};

template <class T, bool AlongK>
struct MatrixSource {
  using Value = T;
  static constexpr bool kAlongK = AlongK;
  Matrix<T, AlongK> matrix;
  int64_t k;

  bool mappable() const {
    return cuda::mappable(matrix.data, matrix.pitch * static_cast<int64_t>(sizeof(T)));
  }

  template <int Lines>
  MatrixBoxes<T, Lines, AlongK> boxes(const CallSite& name) const {
    constexpr int kRow = kBoxRowBytes / sizeof(T);
    const int64_t pitch = matrix.pitch * static_cast<int64_t>(sizeof(T));
    if constexpr (AlongK)
      return {make_tensor_map(name, matrix.data, {{k, sizeof(T), kRow}, {matrix.lines, pitch, Lines}})};
    else
      return {make_tensor_map(name, matrix.data, {{matrix.lines, sizeof(T), kRow}, {k, pitch, kRow}})};
  }
};

// Where piece `number` is, in the order of Place::of_block().
__device__ __forceinline__ Place place_of(const Schedule& schedule, uint32_t number) {
  Place place{};
  const uint32_t columns = schedule.tiles_m.split(number, &place.tile_m);
  place.split = schedule.tiles_n.split(columns, &place.tile_n);
  return place;
}

// Where in the ring a warpgroup is.
template <int Stages>
struct RingPlace {
  int stage = 0;
  uint32_t parity = 0;

  __device__ __forceinline__ void advance() {
    if (++stage < Stages) return;
    stage = 0;
    parity ^= 1;
  }
};

// The sums of A's rows: each warp of the warpgroup takes every fourth value of k, a lane two rows that lie
// side by side; then the warps' sums are added.
template <class T>
struct WgmmaRowSums {
  float sum[2] = {};

  __device__ __forceinline__ void add(const char* panel) {  // the 64 rows' block
    const int lane = threadIdx.x % 32, warp = threadIdx.x % kWarpgroup / 32;
#pragma unroll 4
    for (int k = warp; k < kBoxRowBytes / static_cast<int>(sizeof(T)); k += 4) {
      const int piece = (lane / 4) ^ (k % 8);  // the swizzle
      const auto pair =
          *reinterpret_cast<const Pack<T, 2>*>(panel + k * kBoxRowBytes + piece * 16 + lane % 4 * 4);
      sum[0] += widen(pair.value[0]);
      sum[1] += widen(pair.value[1]);
    }
  }

  // Calls store(row, sum), each row by one thread. All of the warpgroup call together; `parts` is its own.
  template <class Store>
  __device__ __forceinline__ void finish(float (&parts)[4][kWarpgroupRows], int barrier,
                                         Store&& store) const {
    const int lane = threadIdx.x % 32, thread = threadIdx.x % kWarpgroup;
    named_barrier(barrier, kWarpgroup);  // the last piece's have been read
    parts[thread / 32][2 * lane] = sum[0];
    parts[thread / 32][2 * lane + 1] = sum[1];
    named_barrier(barrier, kWarpgroup);
    if (thread < kWarpgroupRows)
      store(thread, (parts[0][thread] + parts[1][thread]) + (parts[2][thread] + parts[3][thread]));
  }
};

// Calls store(first column, values) for each 32 columns of the warp's sums, which lie there in 16 rows: a
// lane is to take a column, so that stores are coalesced. Registers cannot be indexed, so columns are picked
// by comparison.
template <class Tile, class Store>
__device__ __forceinline__ void store_warp(const float (&sum)[Tile::kSums], float* shared, Store&& store) {
  const int lane = threadIdx.x % 32;
  float* const to = shared + lane / 4 * Tile::kStorePitch + lane % 4 * 2;
#pragma unroll 1
  for (int first = 0; first < Tile::kGroupColumns; first += Tile::kStoreColumns) {
    __syncwarp();
#pragma unroll
    for (int picked = 0; picked < Tile::kGroupColumns; picked += Tile::kStoreColumns) {
      if (picked != first) continue;
#pragma unroll
      for (int j = 0; j < Tile::kStoreColumns; j += 8)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int at = (picked + j) / 2 + half * 2;
          *reinterpret_cast<Pack<float, 2>*>(to + half * 8 * Tile::kStorePitch +
                                             j) = {{sum[at], sum[at + 1]}};
        }
    }
    __syncwarp();
    store(first, shared + lane);
  }
}

// Grid: a block for each multiprocessor, or for each piece where there are fewer. Pieces are numbered as
// multiply_kernel's blocks, and partial sums go where that one's do.
template <class Tile, class Problem, class BoxesA, class BoxesB>
__global__ void __launch_bounds__(Tile::kThreads, 1)
    wgmma_kernel(const Problem problem, const Schedule schedule, uint32_t pieces, int steps,
                 const __grid_constant__ BoxesA boxes_a, const __grid_constant__ BoxesB boxes_b,
                 float* partials, float* row_partials) {
#if defined(FASTARCH_EMULATOR) || defined(FASTARCH_SM90A)
  using T = typename Tile::Value;
  using PanelA = typename BoxesA::Panel;
  using PanelB = typename BoxesB::Panel;
  FASTARCH_DYNAMIC_SHARED(char, room);
  FASTARCH_SHARED(uint64_t, full, [Tile::kStages]);
  FASTARCH_SHARED(uint64_t, empty, [Tile::kStages]);
  FASTARCH_SHARED(float, row_parts, [Problem::kRowSums ? Tile::kConsumers : 1][4][kWarpgroupRows]);
  char* const stages = room + (kBoxAlignment - shared_address(room) % kBoxAlignment) % kBoxAlignment;

  const int warpgroup = threadIdx.x / kWarpgroup, warp = threadIdx.x / 32;
  if (threadIdx.x == 0) {
    for (int i = 0; i < Tile::kStages; ++i) {
      init_barrier(&full[i], 1);
      init_barrier(&empty[i], Tile::kConsumerWarps);
    }
    publish_barriers();
  }
  __syncthreads();

  const auto operands = problem.at(0);
  RingPlace<Tile::kStages> place_in_ring;
  const auto slice_of = [&](const Place& place, auto&& take) {  // take(step), one after the other
    const int first = static_cast<int>(place.split * schedule.slice);
    const int end = first + schedule.slice < steps ? static_cast<int>(first + schedule.slice) : steps;
#pragma unroll 1
    for (int step = first; step < end; ++step) take(step);
  };

  if (warpgroup == Tile::kConsumers) {
    give_registers<40>();
    if (threadIdx.x != Tile::kConsumers * kWarpgroup) return;
    prefetch_map(boxes_a.map);
    prefetch_map(boxes_b.map);
#pragma unroll 1
    for (uint32_t piece = blockIdx.x; piece < pieces; piece += gridDim.x) {
      const Place place = place_of(schedule, piece);
      const int line_a = static_cast<int>(place.tile_m) * Tile::kRows,
                line_b = static_cast<int>(place.tile_n) * Tile::kColumns;
      slice_of(place, [&](int step) {
        const int stage = place_in_ring.stage;
        char* const panels = stages + stage * Tile::kStageBytes;
        wait_barrier(&empty[stage], place_in_ring.parity ^ 1);
        arrive_expecting(&full[stage], Tile::kStageBytes);
        boxes_a.load(panels, &full[stage], line_a, step);
        boxes_b.load(panels + Tile::kPanelA, &full[stage], line_b, step);
        place_in_ring.advance();
      });
    }
  } else {
    take_registers<232>();
    const int first_row = Tile::kGroupsDown == 1 ? 0 : warpgroup * kWarpgroupRows;
    const int first_column = Tile::kGroupsDown == 1 ? warpgroup * Tile::kGroupColumns : 0;
    float* const way_out =
        reinterpret_cast<float*>(stages + Tile::kStages * Tile::kStageBytes) + warp * Tile::kStoreFloats;
    const auto release = [&](int stage) {  // by this warp: all its lanes have read
      __syncwarp();
      if (threadIdx.x % 32 == 0) arrive(&empty[stage]);
    };
#pragma unroll 1
    for (uint32_t piece = blockIdx.x; piece < pieces; piece += gridDim.x) {
      const Place place = place_of(schedule, piece);
      const bool sum_rows = Problem::kRowSums && operands.row_sums && place.tile_n == 0 && first_column == 0;
      WgmmaRowSums<T> row_sums;
      float sum[Tile::kSums];
      bool begun = false;
      int last_stage = 0;
      slice_of(place, [&](int) {
        const int stage = place_in_ring.stage;
        const char* const panels = stages + stage * Tile::kStageBytes;
        wait_barrier(&full[stage], place_in_ring.parity);
        const uint64_t a = PanelA::descriptor(panels, first_row);
        const uint64_t b = PanelB::descriptor(panels + Tile::kPanelA, first_column);
        fence_products();
#pragma unroll
        for (int i = 0; i < Tile::kDepth / PanelA::kStep; ++i)
          multiply_async<Tile::kType, PanelA::kAlongK, PanelB::kAlongK>(
              sum, advance_operand(a, i * PanelA::kAdvance), advance_operand(b, i * PanelB::kAdvance),
              begun || i > 0);
        commit_products();
        if constexpr (Problem::kRowSums) {
          if (sum_rows) row_sums.add(panels + first_row / PanelA::kAcross * PanelA::kBlock);
        }
        wait_products<1>();  // the last stage's; this one's go on
        if (begun) release(last_stage);
        begun = true;
        last_stage = stage;
        place_in_ring.advance();
      });
      wait_products<0>();
      release(last_stage);

      // From here to the next piece's first product the tensor cores are the other warpgroup's alone.
      const int64_t tile_m = int64_t{place.tile_m} * Tile::kRows + first_row, m = operands.m, n = operands.n;
      const int64_t warp_m = tile_m + warp % 4 * Tile::kWarpRows, left = m - warp_m;
      const int rows = left < Tile::kWarpRows ? static_cast<int>(left) : Tile::kWarpRows;
      const int64_t tile_n = int64_t{place.tile_n} * Tile::kColumns + first_column + threadIdx.x % 32;
      const bool whole = schedule.splits.divisor() == 1;
      store_warp<Tile>(sum, way_out, [&](int first, const float* values) {
        if (tile_n + first >= n) return;
        if (whole) {
          const auto column = operands.result.column(tile_n + first);
#pragma unroll 4
          for (int i = 0; i < rows; ++i)
            operands.result.store(warp_m + i, column, values[i * Tile::kStorePitch]);
        } else {
          float* const out = partials + (place.split * m + warp_m) * n + tile_n + first;
#pragma unroll 4
          for (int i = 0; i < rows; ++i) out[i * n] = values[i * Tile::kStorePitch];
        }
      });
      if constexpr (Problem::kRowSums) {
        if (sum_rows)
          row_sums.finish(row_parts[warpgroup], 1 + warpgroup, [&](int row, float value) {
            if (tile_m + row >= m) return;
            if (whole)
              operands.row_sums[tile_m + row] = narrow<T>(value);
            else
              row_partials[place.split * m + tile_m + row] = value;
          });
      }
    }
  }
#else
  __trap();  // multiply_wgmma() asks has_wgmma() first
#endif
}

// Which tile, and how many slices of k: the least of an estimate in cycles. A step takes the tensor cores'
// time, 2048 multiply-adds of 16-bit operands a cycle or half as many of tf32, or that of its bytes on the
// way from the second-level cache; a piece the steps of its slice and some time at both ends; slices a second
// kernel, and their sums a way to memory and back. Here k and slices count steps.
template <class T>
Plan plan_wgmma(const Shape& shape, int multiprocessors) {
  constexpr double kRate = sizeof(T) == 2 ? 2048 : 1024, kCacheBytes = 40, kEnds = 2000;
  constexpr double kLaunch = 4000, kMemoryBytes = 16;
  constexpr int64_t kMostWaves = 4;
  Plan best, plan;
  WgmmaTiles<T>::each([&]<class Tile>() {
    plan.tiles_m = divide_up(shape.m, Tile::kRows);
    plan.tiles_n = divide_up(shape.n, Tile::kColumns);
    plan.blocks = plan.tiles_m * plan.tiles_n;
    const double step =
        std::max(Tile::kRows * Tile::kColumns * Tile::kDepth / kRate, Tile::kStageBytes / kCacheBytes);
    for (int64_t waves = 0; waves <= kMostWaves; ++waves) {  // 0: k whole
      const int64_t splits = std::max<int64_t>(1, waves * multiprocessors / plan.blocks);
      plan.slice = divide_up(shape.k, splits);
      plan.splits = divide_up(shape.k, plan.slice);
      const int64_t rounds = divide_up(plan.blocks * plan.splits, multiprocessors);
      plan.cycles = static_cast<double>(rounds) * (static_cast<double>(plan.slice) * step + kEnds);
      if (plan.splits > 1) {
        const double partials = static_cast<double>(shape.m * shape.n * plan.splits);
        plan.cycles += kLaunch + 2 * partials * sizeof(float) / (kMemoryBytes * multiprocessors);
      }
      if (plan.cycles < best.cycles) best = plan;
    }
    ++plan.tile;
  });
  return best;
}

// What the instructions take at all: 16-bit operands either way around, 32-bit ones along k. Row sums are of
// operands that lie across.
template <class T, bool AAlongK, bool BAlongK, bool RowSums>
constexpr bool kWgmmaTakes =
    kIsHalf<T> ? !(RowSums && AAlongK) : std::is_same_v<T, float> && AAlongK && BAlongK && !RowSums;

// Whether a product of this shape is asked for and worth it: float32 has to be allowed to be tf32, and less
// than a warpgroup's product stays with mma.sync, as does one whose plan is forced. (k counts values.)
template <class T>
bool wants_wgmma(const Shape& shape, Precision precision) {
  constexpr int64_t kLeast = 64, kMost = (int64_t{1} << 31) - 256;
  return wgmma_switch() && !forced_plan() && (kIsHalf<T> || precision == Precision::tf32) &&
         std::min({shape.m, shape.n, shape.k}) >= kLeast && std::max({shape.m, shape.n, shape.k}) <= kMost &&
         has_wgmma();
}

// Multiplies what the sources bring in `steps` steps; the problem's at(0) has m, n, result and row_sums.
template <class Problem, class SourceA, class SourceB>
void launch_wgmma(const CallSite& name, const Problem& problem, const SourceA& a, const SourceB& b, int64_t m,
                  int64_t n, int64_t steps, bool row_sums, Stream stream) {
  using T = typename Problem::Value;
  ++wgmma_count();
  const int processors = multiprocessors();
  const Plan plan = plan_wgmma<T>({1, m, n, steps}, processors);
  const int64_t pieces = plan.blocks * plan.splits, parts = plan.splits > 1 ? plan.splits * m : 0;
  check(pieces < int64_t{1} << 31, name.name, "needs ", pieces, " pieces, expected fewer than 2^31");
  const Buffer<float> partials(parts * n, stream), row_partials(row_sums ? parts : 0, stream);
  const Schedule schedule{
      FastDivider(plan.tiles_m), FastDivider(plan.tiles_n), FastDivider(plan.splits), plan.slice, m, n};
  with_tile<WgmmaTiles<T>>(plan, [&]<class Tile>() {
    const auto boxes_a = a.template boxes<Tile::kRows>(name);
    const auto boxes_b = b.template boxes<Tile::kColumns>(name);
    launch(name,
           wgmma_kernel<Tile, Problem, std::decay_t<decltype(boxes_a)>, std::decay_t<decltype(boxes_b)>>,
           dim3(static_cast<unsigned>(std::min<int64_t>(pieces, processors))), dim3(Tile::kThreads),
           Tile::kSharedBytes, stream, problem, schedule, static_cast<uint32_t>(pieces),
           static_cast<int>(steps), boxes_a, boxes_b, partials.data(), row_partials.data());
  });
  if (plan.splits > 1) {
    constexpr int kThreads = kCombineColumns * kCombineRows;
    launch(name, combine_kernel<Problem>, grid_for(divide_up(m * n, kCombineColumns) * kThreads, kThreads),
           dim3(kThreads), 0, stream, problem, static_cast<const float*>(partials.data()),
           static_cast<const float*>(row_partials.data()), static_cast<int>(plan.splits), int64_t{1}, m, n);
  }
}

// multiply() of mma.h for a problem with a member `operands` whose a and b are Matrices: whether it took it.
// Left to that one is also what bulk copies cannot start at: rows off 16 bytes.
template <class Problem>
bool multiply_wgmma(const CallSite& name, const Problem& problem, const Shape& shape, bool row_sums,
                    Stream stream, Precision precision) {
  using T = typename Problem::Value;
  constexpr bool kAAlongK = decltype(Problem::Parts::a)::kAlongK;
  constexpr bool kBAlongK = decltype(Problem::Parts::b)::kAlongK;
  if constexpr (kWgmmaTakes<T, kAAlongK, kBAlongK, Problem::kRowSums>) {
    const MatrixSource<T, kAAlongK> a{problem.operands.a, shape.k};
    const MatrixSource<T, kBAlongK> b{problem.operands.b, shape.k};
    if (!wants_wgmma<T>(shape, precision) || !a.mappable() || !b.mappable()) return false;
    launch_wgmma(name, problem, a, b, shape.m, shape.n, divide_up(shape.k, kBoxRowBytes / sizeof(T)),
                 row_sums, stream);
    return true;
  } else {
    return false;
  }
}

}  // namespace fastarch::cuda
