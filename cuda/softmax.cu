// Softmax and cross-entropy. Rows of at most 1024 floats (of any size) or 512 doubles are held in the
// registers of 8 or 32 lanes, read and written once; longer rows take a block each and are read again, from
// cache if they fit.
#include "core/divide.h"
#include "core/half.h"
#include "core/launch.h"
#include "core/reduce.h"
#include "core/vector.h"
#include "ops/softmax.h"

namespace fastarch::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kBlockRowThreads = 256;

// The position of this lane's row among those of its warp, which loops while its first row is inside.
template <int LANES>
__device__ __forceinline__ int lane_row() {
  return threadIdx.x % kWarpThreads / LANES;
}

// Combines `value` over the LANES (a power of two) neighbouring lanes of a row; every lane gets the result.
template <int LANES, class T, class Op>
__device__ __forceinline__ T lanes_reduce(T value, Op op) {
#pragma unroll
  for (int step = LANES / 2; step > 0; step /= 2) value = op(value, __shfl_xor_sync(kFullWarp, value, step));
  return value;
}

// What cross-entropy adds to softmax; null pointers for plain softmax.
template <class T>
struct RowLoss {
  const int64_t* target;  // [M]
  T* loss;                // [M]
  int64_t ignore_index;

  // The class whose thread shall write the row's loss, or -1: then there is none and `leader` writes it here.
  __device__ int64_t class_of(int64_t row, int64_t classes, bool leader) const {
    if (!target) return -1;
    const int64_t wanted = target[row];
    const bool ignored = wanted == ignore_index;
    if (!ignored && wanted >= 0 && wanted < classes) return wanted;
    if (leader) loss[row] = narrow<T>(ignored ? 0 : NAN);
    return -1;
  }
};

// V values of a row from column c on, or `fill` past its end; V divides the row's length.
template <int V, class T, class C>
__device__ __forceinline__ void load_values(const T* row, int64_t c, int64_t classes, C fill, C* to) {
  Pack<T, V> pack;
  const bool inside = c < classes;
  if (inside) pack = load_pack<T, V>(row + c, 0);
#pragma unroll
  for (int k = 0; k < V; ++k) to[k] = inside ? static_cast<C>(widen(pack.value[k])) : fill;
}

template <int V, class T, class C>
__device__ __forceinline__ void store_values(T* row, int64_t c, const C* from) {
  Pack<T, V> pack;
#pragma unroll
  for (int k = 0; k < V; ++k) pack.value[k] = narrow<T>(from[k]);
  store_pack(row + c, 0, pack);
}

// LANES lanes a row, ITEMS values a lane, V of them side by side: C <= LANES * ITEMS. Lanes past the last row
// take part in shuffles.
template <class T, int LANES, int ITEMS, int V>
__global__ void softmax_forward_lanes_kernel(const T* x, T* y, int64_t rows, int64_t classes,
                                             RowLoss<T> row_loss) {
  const int lane = threadIdx.x % LANES;
  for (int64_t row = global_thread() / LANES; row - lane_row<LANES>() < rows; row += grid_threads() / LANES) {
    const int64_t mine = row < rows ? classes : 0;
    Compute<T> value[ITEMS], maximum = -INFINITY, sum = 0, target_value = 0;
#pragma unroll
    for (int i = 0; i < ITEMS; i += V)
      load_values<V>(x + row * classes, lane * V + i * LANES, mine, static_cast<Compute<T>>(-INFINITY),
                     value + i);
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) maximum = fmax(maximum, value[i]);
    maximum = lanes_reduce<LANES>(maximum, Max());
    const int64_t target = row < rows ? row_loss.class_of(row, classes, lane == 0) : -1;
    bool has_target = false;
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
      value[i] -= maximum;
      if (lane * V + i / V * V * LANES + i % V == target) target_value = value[i], has_target = true;
      value[i] = exp(value[i]);
      sum += value[i];
    }
    sum = lanes_reduce<LANES>(sum, Sum());
#pragma unroll
    for (int i = 0; i < ITEMS; i += V) {
      const int64_t c = lane * V + i * LANES;
#pragma unroll
      for (int k = 0; k < V; ++k) value[i + k] /= sum;
      if (c < mine) store_values<V>(y + row * classes, c, value + i);
    }
    if (has_target) row_loss.loss[row] = narrow<T>(log(sum) - target_value);
  }
}

// The maximum of some values and the sum of exp(value - maximum): in one pass over a row that fits no
// registers. Milakov and Gimelshein, "Online normalizer calculation for softmax" (2018).
template <class C>
struct OnlineSum {
  C maximum = -INFINITY, sum = 0;

  template <int V>
  __device__ __forceinline__ void add(const C* value) {
    C most = maximum;
#pragma unroll
    for (int k = 0; k < V; ++k) most = fmax(most, value[k]);
    if (most == -INFINITY) {  // no number yet; a NaN must not be lost
#pragma unroll
      for (int k = 0; k < V; ++k) sum = value[k] != value[k] ? value[k] : sum;
      return;
    }
    sum *= exp(maximum - most);
    maximum = most;
#pragma unroll
    for (int k = 0; k < V; ++k) sum += exp(value[k] - most);
  }
};

// One block a row, for long rows.
template <class T, int V>
__global__ void softmax_forward_block_kernel(const T* x, T* y, int64_t rows, int64_t classes,
                                             RowLoss<T> row_loss) {
  using C = Compute<T>;
  const int64_t step = int64_t{blockDim.x} * V;
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const T* x_row = x + row * classes;
    OnlineSum<C> part;
    C value[V];
    for (int64_t c = threadIdx.x * V; c < classes; c += step) {
      load_values<V>(x_row, c, classes, C(0), value);
      part.template add<V>(value);
    }
    const C maximum = block_max(part.maximum);
    const C sum = block_sum(part.sum * exp(part.maximum - maximum));
    const int64_t target = row_loss.class_of(row, classes, threadIdx.x == 0);
    for (int64_t c = threadIdx.x * V; c < classes; c += step) {
      load_values<V>(x_row, c, classes, C(0), value);
#pragma unroll
      for (int k = 0; k < V; ++k) {
        value[k] -= maximum;
        if (c + k == target) row_loss.loss[row] = narrow<T>(log(sum) - value[k]);
        value[k] = exp(value[k]) / sum;
      }
      store_values<V>(y + row * classes, c, value);
    }
  }
}

template <class T, int LANES, int ITEMS, int V>
__global__ void softmax_backward_lanes_kernel(const T* dy, const T* y, T* dx, int64_t rows, int64_t classes) {
  using C = Compute<T>;
  const int lane = threadIdx.x % LANES;
  for (int64_t row = global_thread() / LANES; row - lane_row<LANES>() < rows; row += grid_threads() / LANES) {
    const int64_t mine = row < rows ? classes : 0;
    C dy_value[ITEMS], y_value[ITEMS], sum = 0;
#pragma unroll
    for (int i = 0; i < ITEMS; i += V) {
      load_values<V>(dy + row * classes, lane * V + i * LANES, mine, C(0), dy_value + i);
      load_values<V>(y + row * classes, lane * V + i * LANES, mine, C(0), y_value + i);
    }
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) sum += dy_value[i] * y_value[i];
    sum = lanes_reduce<LANES>(sum, Sum());
#pragma unroll
    for (int i = 0; i < ITEMS; i += V) {
      const int64_t c = lane * V + i * LANES;
#pragma unroll
      for (int k = 0; k < V; ++k) y_value[i + k] *= dy_value[i + k] - sum;
      if (c < mine) store_values<V>(dx + row * classes, c, y_value + i);
    }
  }
}

template <class T, int V>
__global__ void softmax_backward_block_kernel(const T* dy, const T* y, T* dx, int64_t rows, int64_t classes) {
  using C = Compute<T>;
  const int64_t step = int64_t{blockDim.x} * V;
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const int64_t first = row * classes;
    C sum = 0, dy_value[V], y_value[V];
    for (int64_t c = threadIdx.x * V; c < classes; c += step) {
      load_values<V>(dy + first, c, classes, C(0), dy_value);
      load_values<V>(y + first, c, classes, C(0), y_value);
#pragma unroll
      for (int k = 0; k < V; ++k) sum += dy_value[k] * y_value[k];
    }
    sum = block_sum(sum);
    for (int64_t c = threadIdx.x * V; c < classes; c += step) {
      load_values<V>(dy + first, c, classes, C(0), dy_value);
      load_values<V>(y + first, c, classes, C(0), y_value);
#pragma unroll
      for (int k = 0; k < V; ++k) y_value[k] *= dy_value[k] - sum;
      store_values<V>(dx + first, c, y_value);
    }
  }
}

// V values a thread; V divides the rows' length.
template <class T, int V>
__global__ void cross_entropy_backward_kernel(const T* dloss, const T* probs, const int64_t* target, T* dx,
                                              int64_t size, int64_t classes, int64_t ignore_index,
                                              Divider by_classes) {
  using C = Compute<T>;
  for (int64_t i = global_thread() * V; i < size; i += grid_threads() * V) {
    const int64_t row = by_classes.quotient(i), c = i - row * classes, wanted = target[row];
    const bool ignored = wanted == ignore_index, valid = wanted >= 0 && wanted < classes;
    const C factor = ignored ? C(0) : valid ? widen(dloss[row]) : C(NAN);
    C value[V];
    load_values<V>(probs + i, 0, V, C(0), value);
#pragma unroll
    for (int k = 0; k < V; ++k)
      value[k] = ignored ? C(0) : (value[k] - (c + k == wanted ? C(1) : C(0))) * factor;
    store_values<V>(dx + i, 0, value);
  }
}

// Calls body with the lanes, the items a lane and the values side by side that fit rows of this length;
// LANES = 0 is a block a row. packed: the arrays are aligned for Packs.
template <class T, class Body>
void with_row_layout(int64_t classes, bool packed, Body&& body) {
  constexpr int kPack = Pack<T>::size;
  constexpr int kMost = 128 / sizeof(Compute<T>);  // values a lane, so that two rows' worth fit its registers
  if (classes <= 16) return body.template operator()<8, 2, 1>();
  if (classes <= 64) return body.template operator()<32, 2, 1>();
  if (packed && classes % kPack == 0) {
    if (classes <= 256) return body.template operator()<32, 8, kPack>();
    if (classes <= 32 * kMost) return body.template operator()<32, kMost, kPack>();
    return body.template operator()<0, 0, kPack>();
  }
  if (classes <= 256) return body.template operator()<32, 8, 1>();
  if (classes <= 32 * kMost) return body.template operator()<32, kMost, 1>();
  body.template operator()<0, 0, 1>();
}

template <class T>
void forward(const char* name, const T* x, T* y, int64_t rows, int64_t classes, const RowLoss<T>& row_loss,
             Stream stream) {
  with_row_layout<T>(classes, packable(x, y), [&]<int LANES, int ITEMS, int V>() {
    if constexpr (LANES == 0)
      launch(name, softmax_forward_block_kernel<T, V>, grid_for(rows, 1), kBlockRowThreads, 0, stream, x, y,
             rows, classes, row_loss);
    else
      launch(name, softmax_forward_lanes_kernel<T, LANES, ITEMS, V>, grid_for(rows * LANES, kThreads),
             kThreads, 0, stream, x, y, rows, classes, row_loss);
  });
}

}  // namespace

template <class T>
void softmax_forward(const T* x, T* y, int64_t rows, int64_t classes, Stream stream) {
  if (rows * classes == 0) return;
  forward("softmax_forward", x, y, rows, classes, RowLoss<T>{nullptr, nullptr, 0}, stream);
}

template <class T>
void softmax_backward(const T* dy, const T* y, T* dx, int64_t rows, int64_t classes, Stream stream) {
  if (rows * classes == 0) return;
  with_row_layout<T>(classes, packable(dy, y, dx), [&]<int LANES, int ITEMS, int V>() {
    if constexpr (LANES == 0)
      launch("softmax_backward", softmax_backward_block_kernel<T, V>, grid_for(rows, 1), kBlockRowThreads, 0,
             stream, dy, y, dx, rows, classes);
    else
      launch("softmax_backward", softmax_backward_lanes_kernel<T, LANES, ITEMS, V>,
             grid_for(rows * LANES, kThreads), kThreads, 0, stream, dy, y, dx, rows, classes);
  });
}

template <class T>
void cross_entropy_forward(const T* x, const int64_t* target, T* loss, T* probs, int64_t rows,
                           int64_t classes, int64_t ignore_index, Stream stream) {
  if (rows == 0) return;
  forward("cross_entropy_forward", x, probs, rows, classes, RowLoss<T>{target, loss, ignore_index}, stream);
}

template <class T>
void cross_entropy_backward(const T* dloss, const T* probs, const int64_t* target, T* dx, int64_t rows,
                            int64_t classes, int64_t ignore_index, Stream stream) {
  const int64_t size = rows * classes;
  if (size == 0) return;
  constexpr int kPack = Pack<T>::size;
  const bool packed = packable(probs, dx) && classes % kPack == 0;
  launch("cross_entropy_backward",
         packed ? cross_entropy_backward_kernel<T, kPack> : cross_entropy_backward_kernel<T, 1>,
         grid_for(packed ? size / kPack : size, kThreads), kThreads, 0, stream, dloss, probs, target, dx,
         size, classes, ignore_index, Divider(classes, size));
}

#define INSTANTIATE(T)                                                                                      \
  template void softmax_forward(const T*, T*, int64_t, int64_t, Stream);                                    \
  template void softmax_backward(const T*, const T*, T*, int64_t, int64_t, Stream);                         \
  template void cross_entropy_forward(const T*, const int64_t*, T*, T*, int64_t, int64_t, int64_t, Stream); \
  template void cross_entropy_backward(const T*, const T*, const int64_t*, T*, int64_t, int64_t, int64_t,   \
                                       Stream);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(float16)
INSTANTIATE(bfloat16)

}  // namespace fastarch::cuda
