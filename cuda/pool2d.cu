// Pooling: the choice of a kernel. pool/tiles.h has windows that tile an image, pool/lines.h the other windows of
// networks, pool/global.h whole planes, pool/general.h all others.
#include "ops/pool2d.h"
#include "pool/general.h"
#include "pool/global.h"
#include "pool/lines.h"
#include "pool/tiles.h"

namespace fastarch::cuda {
namespace {

using namespace pool;

// Calls body<V>() with the number of channels that a thread takes: a Pack<T> of them where each pixel has
// whole ones.
template <class T, class Body>
void dispatch_channels(int64_t inner, bool aligned, const Body& body) {
  if (aligned && inner % Pack<T>::size == 0) return body.template operator()<Pack<T>::size>();
  body.template operator()<1>();
}

template <class T, class A, class Windows>
void max_forward(const CallSite& name, const T* x, T* y, A* argmax, int64_t planes, const Windows& rows,
                 const Windows& columns, int64_t inner, Stream stream) {
  // Windows of more than 256 places are rare: their channels go one by one.
  const bool aligned = sizeof(A) == 1 && packable(x, y, argmax);
  dispatch_channels<T>(inner, aligned, [&]<int V>() {
    const Pixels<V> outputs(planes, rows.outputs(), columns.outputs(), inner);
    if constexpr (V == 1 || sizeof(A) == 1)
      launch(name, max_forward_kernel<V, T, A, Windows>, grid_for(outputs.size, kThreads), kThreads, 0,
             stream, x, y, argmax, rows, columns, outputs);
  });
}

template <class T, class A, class Windows>
void max_backward(const CallSite& name, const T* dy, const A* argmax, T* dx, int64_t planes,
                  const Windows& rows, const Windows& columns, int64_t inner, Stream stream) {
  const bool aligned = sizeof(A) == 1 && packable(dy, argmax, dx);
  dispatch_channels<T>(inner, aligned, [&]<int V>() {
    const Pixels<V> inputs(planes, rows.inputs(), columns.inputs(), inner);
    if constexpr (V == 1 || sizeof(A) == 1)
      launch(name, max_backward_kernel<V, T, A, Windows>, grid_for(inputs.size, kThreads), kThreads, 0,
             stream, dy, argmax, dx, rows, columns, inputs);
  });
}

template <class T, class Windows>
void average_forward(const CallSite& name, const T* x, T* y, int64_t planes, const Windows& rows,
                     const Windows& columns, int64_t inner, Stream stream) {
  dispatch_channels<T>(inner, packable(x, y), [&]<int V>() {
    const Pixels<V> outputs(planes, rows.outputs(), columns.outputs(), inner);
    launch(name, average_forward_kernel<V, T, Windows>, grid_for(outputs.size, kThreads), kThreads, 0, stream,
           x, y, rows, columns, outputs);
  });
}

template <class T, class Windows>
void average_backward(const CallSite& name, const T* dy, T* dx, int64_t planes, const Windows& rows,
                      const Windows& columns, int64_t inner, Stream stream) {
  dispatch_channels<T>(inner, packable(dy, dx), [&]<int V>() {
    const Pixels<V> inputs(planes, rows.inputs(), columns.inputs(), inner);
    launch(name, average_backward_kernel<V, T, Windows>, grid_for(inputs.size, kThreads), kThreads, 0, stream,
           dy, dx, rows, columns, inputs);
  });
}

// pool/lines.h's kernels, for windows that have them: whether they were launched. doubles, which
// networks are hardly trained in, are left to pool/general.h.
template <class T, class Op>
bool lines_forward(const CallSite& name, const T* x, const Op& op, const Pool2d& pool, bool aligned,
                   bool count_padding, Stream stream) {
  if constexpr (sizeof(T) == 8)
    return false;
  else
    return dispatch_block<T>(pool, aligned, [&]<class B>() {
      const Blocks blocks(pool.planes, (pool.rows.output + B::kDown - 1) / B::kDown,
                          (pool.columns.output + B::kAcross - 1) / B::kAcross, pool.inner, B::kLanes);
      if (!blocks.counted) return false;
      launch(name, lines_forward_kernel<B, Op>, grid_for(blocks.size, kThreads), kThreads, 0, stream, x, op,
             SlidingWindows(pool.rows, count_padding), SlidingWindows(pool.columns, count_padding), blocks);
      return true;
    });
}

template <class T, class Op>
bool lines_backward(const CallSite& name, const Op& op, T* dx, const Pool2d& pool, bool aligned,
                    bool count_padding, Stream stream) {
  if constexpr (sizeof(T) == 8)
    return false;
  else
    return dispatch_block<T>(pool, aligned, [&]<class B>() {
      const int height = pool.rows.input - B::top(0, pool.rows.padding),
                width = pool.columns.input - B::left(0, pool.columns.padding);
      const Blocks blocks(pool.planes, (height + B::kRows - 1) / B::kRows,
                          (width + B::kColumns - 1) / B::kColumns, pool.inner, B::kLanes);
      if (!blocks.counted) return false;
      launch(name, lines_backward_kernel<B, Op>, grid_for(blocks.size, kThreads), kThreads, 0, stream, op, dx,
             SlidingWindows(pool.rows, count_padding), SlidingWindows(pool.columns, count_padding), blocks);
      return true;
    });
}

bool no_outputs(const Pool2d& pool) {
  return pool.planes * pool.inner * pool.rows.output * pool.columns.output == 0;
}
bool no_inputs(const Pool2d& pool) {
  return pool.planes * pool.inner * pool.rows.input * pool.columns.input == 0;
}
bool no_outputs(const AdaptivePool2d& pool) {
  return pool.planes * pool.inner * pool.out_height * pool.out_width == 0;
}
bool no_inputs(const AdaptivePool2d& pool) {
  return pool.planes * pool.inner * pool.height * pool.width == 0;
}

// One window over planes whose pixels an int counts.
bool is_global(const AdaptivePool2d& pool) {
  return pool.out_height == 1 && pool.out_width == 1 &&
         int64_t{pool.height} * pool.width < (int64_t{1} << 31) - kThreads;
}

}  // namespace

template <class T, class A>
void max_pool2d_forward(const T* x, T* y, A* argmax, const Pool2d& pool, Stream stream) {
  if (no_outputs(pool)) return;
  if constexpr (sizeof(A) == 1) {
    if (tiles_in_fours(pool) && packable(x, y, argmax)) {
      const int64_t fours = pool.planes * pool.rows.output * pool.columns.output / kWindows;
      launch("max_pool2d_forward", max_pool2d_tiles_forward_kernel<T>, grid_for(fours, kThreads), kThreads, 0,
             stream, x, y, argmax, fours, pool.columns.input, Divider(pool.columns.output / kWindows, fours));
      return;
    }
  }
  if constexpr (sizeof(A) == 1)
    if (lines_forward("max_pool2d_forward", x, MaxForward<T>{y, argmax}, pool, packable(x, y, argmax), false,
                      stream))
      return;
  max_forward("max_pool2d_forward", x, y, argmax, pool.planes, SlidingWindows(pool.rows),
              SlidingWindows(pool.columns), pool.inner, stream);
}

template <class T, class A>
void max_pool2d_backward(const T* dy, const A* argmax, T* dx, const Pool2d& pool, Stream stream) {
  if (no_inputs(pool)) return;
  if constexpr (sizeof(A) == 1) {
    if (tiles_in_fours(pool) && packable(dy, argmax, dx)) {
      const int64_t fours = pool.planes * pool.rows.output * pool.columns.output / kWindows;
      launch("max_pool2d_backward", max_pool2d_tiles_backward_kernel<T>, grid_for(fours, kThreads), kThreads,
             0, stream, dy, argmax, dx, fours, pool.columns.input,
             Divider(pool.columns.output / kWindows, fours));
      return;
    }
  }
  if constexpr (sizeof(A) == 1)
    if (lines_backward("max_pool2d_backward", MaxBackward<T>{dy, argmax}, dx, pool, packable(dy, argmax, dx),
                       false, stream))
      return;
  max_backward("max_pool2d_backward", dy, argmax, dx, pool.planes, SlidingWindows(pool.rows),
               SlidingWindows(pool.columns), pool.inner, stream);
}

template <class T, class A>
void adaptive_max_pool2d_forward(const T* x, T* y, A* argmax, const AdaptivePool2d& pool, Stream stream) {
  if (no_outputs(pool)) return;
  if (is_global(pool))
    return pool_planes("adaptive_max_pool2d_forward", x, Maximum<T, A>{y, argmax}, pool.planes,
                       int64_t{pool.height} * pool.width, pool.inner, stream);
  max_forward("adaptive_max_pool2d_forward", x, y, argmax, pool.planes,
              AdaptiveWindows(pool.height, pool.out_height), AdaptiveWindows(pool.width, pool.out_width),
              pool.inner, stream);
}

template <class T, class A>
void adaptive_max_pool2d_backward(const T* dy, const A* argmax, T* dx, const AdaptivePool2d& pool,
                                  Stream stream) {
  if (no_inputs(pool)) return;
  max_backward("adaptive_max_pool2d_backward", dy, argmax, dx, pool.planes,
               AdaptiveWindows(pool.height, pool.out_height), AdaptiveWindows(pool.width, pool.out_width),
               pool.inner, stream);
}

template <class T>
void avg_pool2d_forward(const T* x, T* y, const Pool2d& pool, bool count_include_pad, Stream stream) {
  if (no_outputs(pool)) return;
  if (lines_forward("avg_pool2d_forward", x, AverageForward<T>{y}, pool, packable(x, y), count_include_pad,
                    stream))
    return;
  average_forward("avg_pool2d_forward", x, y, pool.planes, SlidingWindows(pool.rows, count_include_pad),
                  SlidingWindows(pool.columns, count_include_pad), pool.inner, stream);
}

template <class T>
void avg_pool2d_backward(const T* dy, T* dx, const Pool2d& pool, bool count_include_pad, Stream stream) {
  if (no_inputs(pool)) return;
  if (lines_backward("avg_pool2d_backward", AverageBackward<T>{dy}, dx, pool, packable(dy, dx),
                     count_include_pad, stream))
    return;
  average_backward("avg_pool2d_backward", dy, dx, pool.planes, SlidingWindows(pool.rows, count_include_pad),
                   SlidingWindows(pool.columns, count_include_pad), pool.inner, stream);
}

template <class T>
void adaptive_avg_pool2d_forward(const T* x, T* y, const AdaptivePool2d& pool, Stream stream) {
  if (no_outputs(pool)) return;
  const int64_t area = int64_t{pool.height} * pool.width;
  if (is_global(pool))
    return pool_planes("adaptive_avg_pool2d_forward", x, Mean<T>{y, static_cast<Compute<T>>(area)},
                       pool.planes, area, pool.inner, stream);
  average_forward("adaptive_avg_pool2d_forward", x, y, pool.planes,
                  AdaptiveWindows(pool.height, pool.out_height), AdaptiveWindows(pool.width, pool.out_width),
                  pool.inner, stream);
}

template <class T>
void adaptive_avg_pool2d_backward(const T* dy, T* dx, const AdaptivePool2d& pool, Stream stream) {
  if (no_inputs(pool)) return;
  average_backward("adaptive_avg_pool2d_backward", dy, dx, pool.planes,
                   AdaptiveWindows(pool.height, pool.out_height), AdaptiveWindows(pool.width, pool.out_width),
                   pool.inner, stream);
}

FASTARCH_INSTANTIATE_POOL2D(float)
FASTARCH_INSTANTIATE_POOL2D(double)
FASTARCH_INSTANTIATE_POOL2D(float16)
FASTARCH_INSTANTIATE_POOL2D(bfloat16)

}  // namespace fastarch::cuda
