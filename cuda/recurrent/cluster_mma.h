// cluster.h for 16-bit floats: w_hh in 16 bits, up to 1.8 times as many units a cluster, which has 16 blocks
// where the device runs such, and products on the tensor cores, straight from the rows in shared memory. What
// a block has computed it gathers in its own copy first, so that it travels to the others in words of 4 or 16
// bytes.
#pragma once
#include <numeric>

#include "core/cluster.h"
#include "recurrent/cluster.h"
#include "recurrent/products.h"
#include "recurrent/resident.h"
#include "recurrent/step.h"

namespace fastarch::cuda {

// Unit u of block b of a cluster is unit b * units + u of the layer; cluster k has sequences [k * band, ...).
// Of a block's resident vectors, gate g of unit u is number g * units + u.
struct ClusterMmaSpread {
  int clusters = 0, blocks = 0, units = 0;
  int band = 0, rows = 0;  // rows of a cluster, a multiple of 8; of these at a time, 8 or 32
  int pitch = 0;           // of a row in shared memory
  Cut cut{0, 0};
  size_t shared = 0;  // bytes of a block
};

// Sends columns [first, first + count) of `rows` rows, Words at a time, to the other blocks of the cluster.
template <int Words, class T>
__device__ __forceinline__ void send_columns(T* rows_here, int rows, int pitch, int first, int count,
                                             int blocks) {
  const int packs = (count + Words - 1) / Words, self = cluster_rank();
  for (int i = threadIdx.x; i < rows * packs * blocks; i += kProductThreads) {
    const int rank = i / (rows * packs), at = i % (rows * packs);
    T* const here = rows_here + at / packs * pitch + first + at % packs * Words;
    if (rank != self)
      *reinterpret_cast<Pack<T, Words>*>(map_shared_rank(here, rank)) =
          *reinterpret_cast<const Pack<T, Words>*>(here);
  }
}

template <class Cell, class T, int Rows>
__global__ void __launch_bounds__(kProductThreads, 1)
    cluster_forward_mma_kernel(const T* w_hh, const T* b_n, T* gates, T* h, float* c, T* y, T* extra,
                               const Steps steps, const int units, const ClusterMmaSpread spread) {
  constexpr int kGates = Cell::kGates;
  FASTARCH_DYNAMIC_SHARED(T, weights);  // then the states before and after a step [2, band, pitch]; products
  const Cut cut = spread.cut;
  const int pitch = spread.pitch, half = spread.band * pitch;
  const int first_unit = cluster_rank() * spread.units, mine = clamp_rows(units - first_unit, spread.units);
  const int first = static_cast<int>(blockIdx.x) / spread.blocks * spread.band;
  const int band = min(spread.band, steps.sequences - first);
  T* const states = weights + cut.weights();
  float* const sums = reinterpret_cast<float*>(states + 2 * half);
  keep_rows<kGates>(weights, cut, w_hh, units, first_unit, spread.units, mine);
  // In both halves: a sequence that begins later finds its first state in either.
  for (int i = threadIdx.x; i < half; i += kProductThreads) {
    const int row = i / pitch, unit = i % pitch;
    states[i] = states[half + i] = row < band && unit < units ? h[int64_t{first + row} * units + unit] : T{};
  }
  struct Inputs {
    T a[kGates];
    float c;
  };
  cluster_sync();
  for (int k = 0; k < steps.steps; ++k) {
    const int t = steps.visited(k), rows = clamp_rows(steps.rows(t) - first, band);
    const int next_rows =
        k + 1 < steps.steps ? clamp_rows(steps.rows(steps.visited(k + 1)) - first, band) : 0;
    const int64_t packed = steps.first(t) + first;
    const T* const before = states + k % 2 * half;
    T* const after = states + (k + 1) % 2 * half;
    for (int group = 0; group < rows; group += Rows) {
      const int here = min(Rows, rows - group);
      const auto load = [&](int item) {
        const int row = group + item / mine, unit = first_unit + item % mine;
        Inputs inputs;
#pragma unroll
        for (int g = 0; g < kGates; ++g)
          inputs.a[g] = gates[(packed + row) * kGates * units + g * units + unit];
        inputs.c = c ? c[int64_t{first + row} * units + unit] : 0;
        return inputs;
      };
      Inputs inputs{};  // on their way while the products are summed
      if (static_cast<int>(threadIdx.x) < here * mine) inputs = load(threadIdx.x);
      if (group > 0) __syncthreads();  // the products before these have been used
      block_products<T, Rows>(weights, cut, here, sums, [&](int row, int k) {
        return row < here ? load_eight(before + (group + row) * pitch + k) : Eight{};
      });
      __syncthreads();
      for (int item = threadIdx.x; item < here * mine; item += kProductThreads) {
        if (item >= kProductThreads) inputs = load(item);
        const int row = group + item / mine, u = item % mine, unit = first_unit + u;
        const int64_t i = int64_t{first + row} * units + unit, step = (packed + row) * units + unit;
        float a[kGates], p[kGates], more = inputs.c;
#pragma unroll
        for (int g = 0; g < kGates; ++g) {
          a[g] = widen(inputs.a[g]);
          p[g] = product_of<Rows>(sums, cut, g * spread.units + u, row - group);
        }
        const T next =
            narrow<T>(Cell::forward(a, p, widen_or_zero(b_n, unit), widen(before[row * pitch + unit]), more));
        y[step] = after[row * pitch + unit] = next;
        if (row >= next_rows) h[i] = next;  // its last
        T* const to = gates + (packed + row) * kGates * units + unit;
#pragma unroll
        for (int g = 0; g < kGates; ++g) to[g * units] = narrow<T>(a[g]);
        if (c) c[i] = more;
        if (extra) extra[step] = narrow<T>(more);
      }
    }
    __syncthreads();
    send_columns<2>(after, rows, pitch, first_unit, mine, spread.blocks);
    cluster_sync();
  }
}

// Here the gates' gradients of a row lie by blocks: of block b, gate g of unit u is number b * G * units + g
// * units + u.
template <class Cell, class T, int Rows>
__global__ void __launch_bounds__(kProductThreads, 1)
    cluster_backward_mma_kernel(const T* w_hh, const T* gates, const T* dy, const T* extra, const T* previous,
                                float* dh, float* dc, T* da, T* da_h, const Steps steps, const int units,
                                const ClusterMmaSpread spread) {
  constexpr int kGates = Cell::kGates;
  // Columns of w_hh; then the gradients of this step's products and the last one's [2, band, pitch];
  // products.
  FASTARCH_DYNAMIC_SHARED(T, weights);
  const Cut cut = spread.cut;
  const int pitch = spread.pitch, half = spread.band * pitch, width = kGates * units;
  const int of_block = kGates * spread.units, first_column = cluster_rank() * of_block;
  const int first_unit = cluster_rank() * spread.units, mine = clamp_rows(units - first_unit, spread.units);
  const int first = static_cast<int>(blockIdx.x) / spread.blocks * spread.band;
  const int band = min(spread.band, steps.sequences - first);
  T* const gradients = weights + cut.weights();
  float* const sums = reinterpret_cast<float*>(gradients + 2 * half);
  for (int i = threadIdx.x; i < cut.weights(); i += kProductThreads) {
    const int u = i % cut.vectors(), k = i / cut.vectors();
    const int unit = k / of_block * spread.units + k % spread.units, gate = k % of_block / spread.units;
    const bool inside = u < mine && k < spread.blocks * of_block && unit < units;
    weights[cut.weight(u, k)] = inside ? w_hh[(int64_t{gate} * units + unit) * units + first_unit + u] : T{};
  }
  for (int i = threadIdx.x; i < 2 * half; i += kProductThreads) gradients[i] = T{};
  cluster_sync();
  for (int k = 0; k < steps.steps; ++k) {
    const int t = steps.visited(k, true), rows = clamp_rows(steps.rows(t) - first, band);
    const int64_t packed = steps.first(t) + first;
    T* const shared = gradients + k % 2 * half;
    for (int item = threadIdx.x; item < rows * mine; item += kProductThreads) {
      const int row = item / mine, u = item % mine, unit = first_unit + u;
      const int64_t i = int64_t{first + row} * units + unit, step = (packed + row) * units + unit;
      const int64_t at = (packed + row) * width + unit;
      float a[kGates], d[kGates], d_h[kGates];
#pragma unroll
      for (int g = 0; g < kGates; ++g) a[g] = widen(gates[at + g * units]);
      float more = dc ? dc[i] : 0;
      dh[i] = Cell::backward(a, widen_or_zero(extra, step), widen_or_zero(previous, step),
                             dh[i] + widen_or_zero(dy, step), more, d, d_h);
      if (dc) dc[i] = more;
#pragma unroll
      for (int g = 0; g < kGates; ++g) {
        const T own = narrow<T>(d_h[g]);
        da[at + g * units] = Cell::kOwnProductGradient ? narrow<T>(d[g]) : own;
        if (Cell::kOwnProductGradient) da_h[at + g * units] = own;
        shared[row * pitch + first_column + g * spread.units + u] = own;
      }
    }
    __syncthreads();
    send_columns<8>(shared, rows, pitch, first_column, mine ? of_block : 0, spread.blocks);
    cluster_sync();
    for (int group = 0; group < rows; group += Rows) {
      const int here = min(Rows, rows - group);
      if (group > 0) __syncthreads();  // the products before these have been used
      block_products<T, Rows>(weights, cut, here, sums, [&](int row, int k) {
        return row < here ? load_eight(shared + (group + row) * pitch + k) : Eight{};
      });
      __syncthreads();
      for (int item = threadIdx.x; item < here * mine; item += kProductThreads) {
        const int row = item / mine, u = item % mine;
        dh[int64_t{first + group + row} * units + first_unit + u] += product_of<Rows>(sums, cut, u, row);
      }
    }
    __syncthreads();  // other warps go on from this dh
  }
}

// How a layer of `units` lies in clusters of so many blocks, `at_once` of which the device runs; clusters 0
// where it does not fit. `vectors` of each unit are resident, `each` long for every unit of the layer.
inline ClusterMmaSpread spread_over_clusters_mma(const Recurrence& recurrence, int64_t vectors, int64_t each,
                                                 int blocks, int at_once, size_t most) {
  ClusterMmaSpread spread;
  const int64_t n = recurrence.sequences, together = kTileVectors / std::gcd(int64_t{kTileVectors}, vectors);
  int64_t a_block = (recurrence.units + blocks - 1) / blocks;
  a_block = (a_block + together - 1) / together * together;
  const int64_t length = blocks * a_block * each;
  if (a_block * vectors * length > static_cast<int64_t>(most)) return spread;  // twice what fits
  spread.cut = Cut(a_block * vectors, length);
  // An odd number of chunks: two rows of a quad's 64 bytes then fall into different banks.
  spread.pitch = (spread.cut.chunks | 1) * kChunk;
  const int64_t wanted = ((n + at_once - 1) / at_once + 7) / 8 * 8;
  for (const int rows : {32, 8}) {
    if (rows > 8 && wanted <= 8) continue;
    const size_t fixed = static_cast<size_t>(spread.cut.weights()) * 2 +
                         static_cast<size_t>(spread.cut.sums(rows)) * sizeof(float);
    const size_t row = 2 * static_cast<size_t>(spread.pitch) * 2;
    const int64_t fit = fixed < most ? static_cast<int64_t>((most - fixed) / row) / 8 * 8 : 0;
    if (fit < std::min<int64_t>(wanted, rows)) continue;
    const int64_t band = std::min(wanted, fit);
    spread.blocks = blocks;
    spread.units = static_cast<int>(a_block);
    spread.rows = rows;
    spread.band = static_cast<int>(band);
    spread.clusters = static_cast<int>((n + band - 1) / band);
    spread.shared = fixed + static_cast<size_t>(band) * row;
    break;
  }
  return spread;
}

// Launches one of the two kernels, for 8 or for 32 rows at a time, in clusters of 16 blocks where the device
// runs such, else of 8, and returns true, or false where the layer does not fit or there are no clusters.
template <class Kernel, class... Args>
bool launch_in_clusters_mma(const CallSite& name, Kernel few_rows, Kernel many_rows,
                            const Recurrence& recurrence, int64_t vectors, int64_t each, Stream stream,
                            Args... args) {
  const auto most = static_cast<size_t>(device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin));
  for (const int blocks : {16, 8}) {
    // Each block with a multiprocessor to itself.
    const int at_once = active_clusters(name, few_rows, blocks, kProductThreads, most);
    if (at_once == 0) continue;
    const ClusterMmaSpread spread =
        spread_over_clusters_mma(recurrence, vectors, each, blocks, at_once, most);
    if (spread.clusters == 0) continue;
    const Kernel kernel = spread.rows == 8 ? few_rows : many_rows;
    if (active_clusters(name, kernel, blocks, kProductThreads, spread.shared) == 0) continue;
    const StepsOnDevice steps(name, recurrence, stream);
    launch_clusters(name, kernel, spread.clusters, blocks, dim3(kProductThreads), spread.shared, stream,
                    args..., static_cast<Steps>(steps), static_cast<int>(recurrence.units), spread);
    return true;
  }
  return false;
}

template <class T>
bool forward_clusters_mma(const T* w_hh, const T* b_n, T* gates, T* h, float* c, T* y, T* extra,
                          const Recurrence& recurrence, Stream stream) {
  bool taken = false;
  with_cell(recurrence.cell, [&]<class Cell>() {
    taken = launch_in_clusters_mma("recurrent_forward", cluster_forward_mma_kernel<Cell, T, 8>,
                                   cluster_forward_mma_kernel<Cell, T, 32>, recurrence, Cell::kGates, 1,
                                   stream, w_hh, b_n, gates, h, c, y, extra);
  });
  return taken;
}

template <class T>
bool backward_clusters_mma(const T* w_hh, const T* gates, const T* dy, const T* extra, const T* previous,
                           float* dh, float* dc, T* da, T* da_h, const Recurrence& recurrence,
                           Stream stream) {
  bool taken = false;
  with_cell(recurrence.cell, [&]<class Cell>() {
    taken = launch_in_clusters_mma("recurrent_backward", cluster_backward_mma_kernel<Cell, T, 8>,
                                   cluster_backward_mma_kernel<Cell, T, 32>, recurrence, 1, Cell::kGates,
                                   stream, w_hh, gates, dy, extra, previous, dh, dc, da, da_h);
  });
  return taken;
}

}  // namespace fastarch::cuda
