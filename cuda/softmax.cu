// Softmax and cross-entropy. Rows of at most 1024 floats (of any size) or 512 doubles are held in the
// registers of 8 or 32 lanes, read and written once; longer rows take a block each and are read again, from
// cache if they fit.
#include "core/divide.h"
#include "core/half.h"
#include "core/launch.h"
#include "core/reduce.h"
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

// LANES lanes a row, ITEMS values a lane: C <= LANES * ITEMS. Lanes past the last row take part in shuffles.
template <class T, int LANES, int ITEMS>
__global__ void softmax_forward_lanes_kernel(const T* x, T* y, int64_t rows, int64_t classes,
                                             RowLoss<T> row_loss) {
  const int lane = threadIdx.x % LANES;
  for (int64_t row = global_thread() / LANES; row - lane_row<LANES>() < rows; row += grid_threads() / LANES) {
    const int64_t mine = row < rows ? classes : 0;
    Compute<T> value[ITEMS], maximum = -INFINITY, sum = 0, target_value = 0;
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
      const int64_t c = lane + i * LANES;
      value[i] = c < mine ? widen(x[row * classes + c]) : -INFINITY;
      maximum = fmax(maximum, value[i]);
    }
    maximum = lanes_reduce<LANES>(maximum, Max());
    const int64_t target = row < rows ? row_loss.class_of(row, classes, lane == 0) : -1;
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
      value[i] -= maximum;
      if (lane + i * LANES == target) target_value = value[i];
      value[i] = exp(value[i]);
      sum += value[i];
    }
    sum = lanes_reduce<LANES>(sum, Sum());
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
      const int64_t c = lane + i * LANES;
      if (c < mine) y[row * classes + c] = narrow<T>(value[i] / sum);
      if (c == target) row_loss.loss[row] = narrow<T>(log(sum) - target_value);
    }
  }
}

// One block a row, for long rows.
template <class T>
__global__ void softmax_forward_block_kernel(const T* x, T* y, int64_t rows, int64_t classes,
                                             RowLoss<T> row_loss) {
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const T* x_row = x + row * classes;
    Compute<T> maximum = -INFINITY, sum = 0;
    for (int64_t c = threadIdx.x; c < classes; c += blockDim.x) maximum = fmax(maximum, widen(x_row[c]));
    maximum = block_max(maximum);
    for (int64_t c = threadIdx.x; c < classes; c += blockDim.x) sum += exp(widen(x_row[c]) - maximum);
    sum = block_sum(sum);
    const int64_t target = row_loss.class_of(row, classes, threadIdx.x == 0);
    for (int64_t c = threadIdx.x; c < classes; c += blockDim.x) {
      const Compute<T> shifted = widen(x_row[c]) - maximum;
      y[row * classes + c] = narrow<T>(exp(shifted) / sum);
      if (c == target) row_loss.loss[row] = narrow<T>(log(sum) - shifted);
    }
  }
}

template <class T, int LANES, int ITEMS>
__global__ void softmax_backward_lanes_kernel(const T* dy, const T* y, T* dx, int64_t rows, int64_t classes) {
  const int lane = threadIdx.x % LANES;
  for (int64_t row = global_thread() / LANES; row - lane_row<LANES>() < rows; row += grid_threads() / LANES) {
    const int64_t mine = row < rows ? classes : 0;
    Compute<T> dy_value[ITEMS], y_value[ITEMS], sum = 0;
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
      const int64_t c = lane + i * LANES;
      dy_value[i] = c < mine ? widen(dy[row * classes + c]) : 0;
      y_value[i] = c < mine ? widen(y[row * classes + c]) : 0;
      sum += dy_value[i] * y_value[i];
    }
    sum = lanes_reduce<LANES>(sum, Sum());
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
      const int64_t c = lane + i * LANES;
      if (c < mine) dx[row * classes + c] = narrow<T>(y_value[i] * (dy_value[i] - sum));
    }
  }
}

template <class T>
__global__ void softmax_backward_block_kernel(const T* dy, const T* y, T* dx, int64_t rows, int64_t classes) {
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const int64_t first = row * classes;
    Compute<T> sum = 0;
    for (int64_t c = threadIdx.x; c < classes; c += blockDim.x)
      sum += widen(dy[first + c]) * widen(y[first + c]);
    sum = block_sum(sum);
    for (int64_t c = threadIdx.x; c < classes; c += blockDim.x)
      dx[first + c] = narrow<T>(widen(y[first + c]) * (widen(dy[first + c]) - sum));
  }
}

template <class T>
__global__ void cross_entropy_backward_kernel(const T* dloss, const T* probs, const int64_t* target, T* dx,
                                              int64_t size, int64_t classes, int64_t ignore_index,
                                              Divider by_classes) {
  for (int64_t i = global_thread(); i < size; i += grid_threads()) {
    const int64_t row = by_classes.quotient(i), c = i - row * classes, wanted = target[row];
    const Compute<T> slope = widen(probs[i]) - (c == wanted ? 1 : 0);
    const bool valid = wanted >= 0 && wanted < classes;
    dx[i] = narrow<T>(wanted == ignore_index ? 0 : valid ? slope * widen(dloss[row]) : NAN);
  }
}

// Calls body with the lanes and the items a lane that fit rows of this length; 0, 0 is a block a row.
template <class T, class Body>
void with_row_layout(int64_t classes, Body&& body) {
  if (classes <= 16) return body.template operator()<8, 2>();
  if (classes <= 64) return body.template operator()<32, 2>();
  if (classes <= 256) return body.template operator()<32, 8>();
  constexpr int kMost = 128 / sizeof(Compute<T>);  // values a lane, so that two rows' worth fit its registers
  if (classes <= 32 * kMost) return body.template operator()<32, kMost>();
  body.template operator()<0, 0>();
}

template <class T>
void forward(const char* name, const T* x, T* y, int64_t rows, int64_t classes, const RowLoss<T>& row_loss,
             Stream stream) {
  with_row_layout<T>(classes, [&]<int LANES, int ITEMS>() {
    if constexpr (LANES == 0)
      launch(name, softmax_forward_block_kernel<T>, grid_for(rows, 1), kBlockRowThreads, 0, stream, x, y,
             rows, classes, row_loss);
    else
      launch(name, softmax_forward_lanes_kernel<T, LANES, ITEMS>, grid_for(rows * LANES, kThreads), kThreads,
             0, stream, x, y, rows, classes, row_loss);
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
  with_row_layout<T>(classes, [&]<int LANES, int ITEMS>() {
    if constexpr (LANES == 0)
      launch("softmax_backward", softmax_backward_block_kernel<T>, grid_for(rows, 1), kBlockRowThreads, 0,
             stream, dy, y, dx, rows, classes);
    else
      launch("softmax_backward", softmax_backward_lanes_kernel<T, LANES, ITEMS>,
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
  launch("cross_entropy_backward", cross_entropy_backward_kernel<T>, grid_for(size, kThreads), kThreads, 0,
         stream, dloss, probs, target, dx, size, classes, ignore_index, Divider(classes, size));
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
