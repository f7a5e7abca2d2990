// What the kernels that run all steps in one launch share: where the rows of a step lie, and the products of
// a warp with weights that stay in shared memory.
#pragma once
#include <algorithm>
#include <limits>

#include "core/buffer.h"
#include "core/reduce.h"
#include "ops/recurrent.h"
#include "recurrent/cells.h"

namespace fastarch::cuda {

constexpr int kBackwardUnits = 2;  // of a warp at a time: their products share the rows read

// Why no kernel that keeps the weights resident can take this layer, or null when one may.
inline const char* resident_refusal(const Recurrence& recurrence, bool two_products) {
  if (recurrence.cell == Cell::gru_reset_before && !two_products)
    return "the reset gate before the product needs two products a step, which 'step' has, and in float32 "
           "and "
           "float64 'persistent'";
  if (recurrence.steps * recurrence.sequences > std::numeric_limits<int>::max())
    return "the rows of all steps are counted in 32 bits there, expected fewer steps or sequences";
  return nullptr;
}

// body<Cell, rows of the batch that a warp takes together>().
template <class Body>
bool with_rows(const Recurrence& recurrence, Body&& body) {
  bool taken = false;
  with_cell(recurrence.cell, [&]<class Cell>() {
    taken =
        recurrence.sequences == 1 ? body.template operator()<Cell, 1>() : body.template operator()<Cell, 4>();
  });
  return taken;
}

// The packed rows of each step, on the device. offsets: [steps + 1], or null where every step has all N rows.
struct Steps {
  const int* offsets;
  int sequences, steps;
  bool reverse;

  __device__ __forceinline__ int64_t first(int t) const {
    return offsets ? offsets[t] : int64_t{t} * sequences;
  }
  __device__ __forceinline__ int rows(int t) const {
    return offsets ? offsets[t + 1] - offsets[t] : sequences;
  }
  // The k-th step that the recurrence visits; against it when `back`.
  __device__ __forceinline__ int visited(int k, bool back = false) const {
    return reverse != back ? steps - 1 - k : k;
  }
};

// h [N, H] = the last state of every sequence, that of the last step that has it; in reverse, every one's is
// the first step. For all threads of a grid.
template <class T>
__device__ __forceinline__ void keep_last_states(const Steps& steps, int units, const T* y, T* h) {
  for (int64_t i = global_thread(); i < int64_t{steps.sequences} * units; i += grid_threads()) {
    const int row = static_cast<int>(i / units);
    int t = steps.visited(steps.steps - 1);
    while (t >= 0 && steps.rows(t) <= row) --t;
    if (t >= 0) h[i] = y[steps.first(t) * units + i];
  }
}

// Offsets travel as kernel arguments, which a CUDA graph keeps: a copy from the host would have to outlive
// it.
struct OffsetsPart {
  static constexpr int kMost = 896;
  int first, count;
  int values[kMost];
};

inline __global__ void write_offsets_kernel(const OffsetsPart part, int* offsets) {
  for (int i = threadIdx.x; i < part.count; i += blockDim.x) offsets[part.first + i] = part.values[i];
}

// The steps of a recurrence for kernels on `stream`, while it exists.
class StepsOnDevice {
 public:
  StepsOnDevice(const CallSite& name, const Recurrence& recurrence, Stream stream)
      : offsets_(uniform(recurrence) ? 0 : recurrence.steps + 1, stream),
        steps_{offsets_.data(), static_cast<int>(recurrence.sequences), static_cast<int>(recurrence.steps),
               recurrence.reverse} {
    int total = 0;
    for (int64_t done = 0; done < offsets_.size();) {
      OffsetsPart part;
      part.first = static_cast<int>(done);
      part.count = static_cast<int>(std::min<int64_t>(OffsetsPart::kMost, offsets_.size() - done));
      for (int i = 0; i < part.count; ++i, ++done) {
        part.values[i] = total;
        if (done < recurrence.steps) total += static_cast<int>(recurrence.sizes[done]);
      }
      launch(name, write_offsets_kernel, 1, 256, 0, stream, part, offsets_.data());
    }
  }
  operator Steps() const { return steps_; }

 private:
  static bool uniform(const Recurrence& recurrence) {
    return std::all_of(recurrence.sizes, recurrence.sizes + recurrence.steps,
                       [&](int64_t size) { return size == recurrence.sequences; });
  }

  Buffer<int> offsets_;
  Steps steps_;
};

// Adds up 2 * Left values over the lanes: half of them go to the lanes on the other side, half of theirs
// come, and so on with half as many at half the distance, until value v is with the lanes from v * 32 /
// values on.
template <int Left, int Distance, int Values, class T>
__device__ __forceinline__ void halve_over_lanes(T (&sum)[Values], int lane) {
  if constexpr (Left > 0) {
    const bool upper = lane & Distance;
#pragma unroll
    for (int i = 0; i < Left; ++i) {
      const T away = upper ? sum[i] : sum[i + Left], kept = upper ? sum[i + Left] : sum[i];
      sum[i] = kept + __shfl_xor_sync(kFullWarp, away, Distance);
    }
  } else {
    sum[0] += __shfl_xor_sync(kFullWarp, sum[0], Distance);
  }
  if constexpr (Distance > 1) halve_over_lanes<Left / 2, Distance / 2>(sum, lane);
}

// The products of Columns resident vectors with Rows rows, all `length` long, summed over the lanes: lane l <
// Rows gets row l's in `mine`.
template <int Rows, int Columns, class T>
__device__ __forceinline__ void warp_products(const T* vectors, const T* rows, int length,
                                              T (&mine)[Columns]) {
  constexpr int kColumns = Columns == 3 ? 4 : Columns;  // powers of two halve evenly
  constexpr int kValues = Rows * kColumns;
  const int lane = threadIdx.x % kWarpThreads;
  T sum[kValues] = {};
  for (int k = lane; k < length; k += kWarpThreads) {
    T row[Rows];
#pragma unroll
    for (int r = 0; r < Rows; ++r) row[r] = rows[r * length + k];
#pragma unroll
    for (int c = 0; c < Columns; ++c) {
      const T weight = vectors[c * length + k];
#pragma unroll
      for (int r = 0; r < Rows; ++r) sum[r * kColumns + c] += weight * row[r];
    }
  }
  halve_over_lanes<kValues / 2, kWarpThreads / 2>(sum, lane);
  const int row = lane % Rows;
#pragma unroll
  for (int c = 0; c < Columns; ++c)
    mine[c] = __shfl_sync(kFullWarp, sum[0], (row * kColumns + c) * (kWarpThreads / kValues));
}

}  // namespace fastarch::cuda
