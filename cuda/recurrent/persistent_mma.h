// persistent.h for 16-bit floats: the same spread of units over blocks and the same barriers, with w_hh in
// 16 bits and its products on the tensor cores. A step's rows of the state, or on the way back of the gates'
// gradients, go from global memory straight to the registers of the warp that multiplies them.
#pragma once
#include <numeric>

#include "core/cooperative.h"
#include "recurrent/products.h"
#include "recurrent/resident.h"
#include "recurrent/step.h"

namespace fastarch::cuda {

// How a layer is spread over the device. Unit u of block b is unit b * units + u of the layer; of a block's
// resident vectors, gate g of unit u is number g * units + u.
struct MmaSpread {
  int blocks = 0, units = 0;  // units a block
  int rows = 0;               // of the batch at a time, 8 or 32
  bool aligned = false;       // whether lines can be read by 128 bits
  Cut cut{0, 0};
  size_t shared = 0;  // bytes
};

template <class Cell, class T, int Rows>
__global__ void __launch_bounds__(kProductThreads, 1)
    persistent_forward_mma_kernel(const T* w_hh, const T* b_n, T* gates, T* h, float* c, T* y, T* extra,
                                  const Steps steps, const int units, const MmaSpread spread) {
  constexpr int kGates = Cell::kGates;
  FASTARCH_DYNAMIC_SHARED(T, weights);  // then the products
  const Cut cut = spread.cut;
  const int first_unit = blockIdx.x * spread.units, mine = min(spread.units, units - first_unit);
  float* const sums = reinterpret_cast<float*>(weights + cut.weights());
  keep_rows<kGates>(weights, cut, w_hh, units, first_unit, spread.units, mine);
  __syncthreads();
  // The states before a step: of the step before, and of the sequences that begin with this one the first.
  const T* before = h;
  int known = 0;
  struct Inputs {
    T a[kGates], h;
    float c;
  };
  for (int k = 0; k < steps.steps; ++k) {
    const int t = steps.visited(k), n = steps.rows(t);
    const int64_t first_row = steps.first(t);
    for (int first = 0; first < n; first += Rows) {
      const int rows = min(Rows, n - first);
      const auto load = [&](int item) {
        const int row = first + item / mine, unit = first_unit + item % mine;
        const int64_t i = int64_t{row} * units + unit;
        Inputs inputs;
#pragma unroll
        for (int g = 0; g < kGates; ++g)
          inputs.a[g] = gates[(first_row + row) * kGates * units + g * units + unit];
        inputs.h = (row < known ? before : h)[i];
        inputs.c = c ? c[i] : 0;
        return inputs;
      };
      Inputs inputs{};  // on their way while the products are summed
      if (static_cast<int>(threadIdx.x) < rows * mine) inputs = load(threadIdx.x);
      if (first > 0) __syncthreads();  // the products before these have been used
      block_products<T, Rows>(weights, cut, rows, sums, [&](int row, int k) {
        const int at = first + row;
        return load_eight((at < known ? before : h) + int64_t{at} * units + k, row < rows ? units - k : 0,
                          spread.aligned);
      });
      __syncthreads();
      for (int item = threadIdx.x; item < rows * mine; item += kProductThreads) {
        if (item >= kProductThreads) inputs = load(item);
        const int row = item / mine, u = item % mine, unit = first_unit + u;
        const int64_t i = int64_t{first + row} * units + unit, step = first_row * units + i;
        float a[kGates], p[kGates], more = inputs.c;
#pragma unroll
        for (int g = 0; g < kGates; ++g) {
          a[g] = widen(inputs.a[g]);
          p[g] = product_of<Rows>(sums, cut, g * spread.units + u, row);
        }
        y[step] = narrow<T>(Cell::forward(a, p, widen_or_zero(b_n, unit), widen(inputs.h), more));
        T* const to = gates + (first_row + first + row) * kGates * units + unit;
#pragma unroll
        for (int g = 0; g < kGates; ++g) to[g * units] = narrow<T>(a[g]);
        if (c) c[i] = more;
        if (extra) extra[step] = narrow<T>(more);
      }
    }
    before = y + first_row * units;
    known = n;
    grid_sync();
  }
  keep_last_states(steps, units, y, h);
}

template <class Cell, class T, int Rows>
__global__ void __launch_bounds__(kProductThreads, 1)
    persistent_backward_mma_kernel(const T* w_hh, const T* gates, const T* dy, const T* extra,
                                   const T* previous, float* dh, float* dc, T* da, T* da_h, const Steps steps,
                                   const int units, const MmaSpread spread) {
  constexpr int kGates = Cell::kGates;
  FASTARCH_DYNAMIC_SHARED(T, weights);  // columns of w_hh; then the products
  const Cut cut = spread.cut;
  const int width = kGates * units;
  const int first_unit = blockIdx.x * spread.units, mine = min(spread.units, units - first_unit);
  float* const sums = reinterpret_cast<float*>(weights + cut.weights());
  for (int i = threadIdx.x; i < cut.weights(); i += kProductThreads) {
    const int u = i % cut.vectors(), k = i / cut.vectors();
    weights[cut.weight(u, k)] = u < mine && k < width ? w_hh[int64_t{k} * units + first_unit + u] : T{};
  }
  T* const products_of = Cell::kOwnProductGradient ? da_h : da;
  struct Inputs {
    T a[kGates], dy, extra, previous;
  };
  // What a step needs of item i of a block, beside dh and dc; row i / mine, unit i % mine.
  const auto load = [&](int item, int t) {
    const int row = item / mine, unit = first_unit + item % mine;
    const int64_t step = steps.first(t) + row, i = step * units + unit;
    Inputs inputs{};
#pragma unroll
    for (int g = 0; g < kGates; ++g) inputs.a[g] = gates[step * width + g * units + unit];
    if (dy) inputs.dy = dy[i];
    if (extra) inputs.extra = extra[i];
    if (previous) inputs.previous = previous[i];
    return inputs;
  };
  const auto load_first = [&](int k) {
    const int t = steps.visited(k, true);
    return static_cast<int>(threadIdx.x) < steps.rows(t) * mine ? load(threadIdx.x, t) : Inputs{};
  };
  Inputs inputs = load_first(0);
  for (int k = 0; k < steps.steps; ++k) {
    const int t = steps.visited(k, true), n = steps.rows(t);
    const int64_t first_row = steps.first(t);
    for (int item = threadIdx.x; item < n * mine; item += kProductThreads) {
      if (item >= kProductThreads) inputs = load(item, t);
      const int row = item / mine, unit = first_unit + item % mine;
      const int64_t i = int64_t{row} * units + unit, at = (first_row + row) * width + unit;
      float a[kGates], d[kGates], d_h[kGates];
#pragma unroll
      for (int g = 0; g < kGates; ++g) a[g] = widen(inputs.a[g]);
      float more = dc ? dc[i] : 0;
      dh[i] = Cell::backward(a, widen(inputs.extra), widen(inputs.previous), dh[i] + widen(inputs.dy), more,
                             d, d_h);
      if (dc) dc[i] = more;
#pragma unroll
      for (int g = 0; g < kGates; ++g) {
        da[at + g * units] = narrow<T>(d[g]);
        if (Cell::kOwnProductGradient) da_h[at + g * units] = narrow<T>(d_h[g]);
      }
    }
    if (k + 1 < steps.steps) inputs = load_first(k + 1);  // on their way during the barrier and the products
    grid_sync();
    for (int first = 0; first < n; first += Rows) {
      const int rows = min(Rows, n - first);
      const T* const from = products_of + (first_row + first) * width;
      if (first > 0) __syncthreads();  // the products before these have been used
      block_products<T, Rows>(weights, cut, rows, sums, [&](int row, int k) {
        return load_eight(from + int64_t{row} * width + k, row < rows ? width - k : 0, spread.aligned);
      });
      __syncthreads();
      for (int item = threadIdx.x; item < rows * mine; item += kProductThreads) {
        const int row = item / mine, u = item % mine;
        dh[int64_t{first + row} * units + first_unit + u] += product_of<Rows>(sums, cut, u, row);
      }
    }
    __syncthreads();  // other warps go on from this dh
  }
}

// One block a multiprocessor, with no more empty lines in its tiles of vectors than must be, and 32 rows at
// a time where there are so many and their sums fit; blocks 0 where the layer does not fit the device.
// `vectors` of each unit are resident, `length` long.
template <class T>
MmaSpread spread_mma(const Recurrence& recurrence, int64_t vectors, int64_t length) {
  MmaSpread spread;
  const int64_t units = recurrence.units, together = kTileVectors / std::gcd(int64_t{kTileVectors}, vectors);
  const size_t most = static_cast<size_t>(device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin));
  int64_t a_block = (units + multiprocessors() - 1) / multiprocessors();
  a_block = (a_block + together - 1) / together * together;
  if (a_block * vectors * length > static_cast<int64_t>(most)) return spread;  // twice what fits
  spread.cut = Cut(a_block * vectors, length);
  for (const int rows : {32, 8}) {
    if (rows > 8 && recurrence.sequences <= 8) continue;
    spread.shared = static_cast<size_t>(spread.cut.weights()) * sizeof(T) +
                    static_cast<size_t>(spread.cut.sums(rows)) * sizeof(float);
    if (spread.shared > most) continue;
    spread.units = static_cast<int>(a_block);
    spread.blocks = static_cast<int>((units + a_block - 1) / a_block);
    spread.rows = rows;
    break;
  }
  return spread;
}

// Launches kernel(args..., recurrence, spread) and returns true, or false where its blocks do not all run at
// once.
template <class Kernel, class... Args>
bool launch_persistent_mma(const CallSite& name, const MmaSpread& spread, Kernel kernel,
                           const Recurrence& recurrence, Stream stream, Args... args) {
  if (!device_attribute(cudaDevAttrCooperativeLaunch) ||
      cooperative_blocks(name, kernel, kProductThreads, spread.shared) < spread.blocks)
    return false;
  const StepsOnDevice steps(name, recurrence, stream);
  launch_cooperative(name, kernel, dim3(spread.blocks), dim3(kProductThreads), spread.shared, stream, args...,
                     static_cast<Steps>(steps), static_cast<int>(recurrence.units), spread);
  return true;
}

// body<Cell, rows of the batch at a time>(), or false where the layer does not fit (no rows) or the device
// has no tensor cores for 16-bit floats.
template <class Body>
bool with_mma_rows(const Recurrence& recurrence, int rows, Body&& body) {
  if (!tensor_cores() || rows == 0) return false;
  bool taken = false;
  with_cell(recurrence.cell, [&]<class Cell>() {
    taken = rows == 8 ? body.template operator()<Cell, 8>() : body.template operator()<Cell, 32>();
  });
  return taken;
}

template <class T>
bool forward_persistent_mma(const T* w_hh, const T* b_n, T* gates, T* h, float* c, T* y, T* extra,
                            const Recurrence& recurrence, Stream stream) {
  MmaSpread spread = spread_mma<T>(recurrence, gates_of(recurrence.cell), recurrence.units);
  spread.aligned = packable(h, y) && recurrence.units % Pack<T>::size == 0;
  return with_mma_rows(recurrence, spread.rows, [&]<class Cell, int ROWS>() {
    return launch_persistent_mma("recurrent_forward", spread, persistent_forward_mma_kernel<Cell, T, ROWS>,
                                 recurrence, stream, w_hh, b_n, gates, h, c, y, extra);
  });
}

template <class T>
bool backward_persistent_mma(const T* w_hh, const T* gates, const T* dy, const T* extra, const T* previous,
                             float* dh, float* dc, T* da, T* da_h, const Recurrence& recurrence,
                             Stream stream) {
  const int64_t width = gates_of(recurrence.cell) * recurrence.units;
  MmaSpread spread = spread_mma<T>(recurrence, 1, width);
  spread.aligned = packable(da, da_h) && width % Pack<T>::size == 0;
  return with_mma_rows(recurrence, spread.rows, [&]<class Cell, int ROWS>() {
    return launch_persistent_mma("recurrent_backward", spread, persistent_backward_mma_kernel<Cell, T, ROWS>,
                                 recurrence, stream, w_hh, gates, dy, extra, previous, dh, dc, da, da_h);
  });
}

}  // namespace fastarch::cuda
