// Batch normalisation. Training reads x twice: once for the moments, split over blocks and merged by one
// thread a channel, once to normalise. The backward reads its operands twice likewise. Memory-bound; 128-bit
// moves where the layout allows them.
#include "core/buffer.h"
#include "core/channels.h"
#include "core/moments.h"
#include "ops/batch_norm.h"

namespace fastarch::cuda {
namespace {

constexpr int kThreads = 128;

template <class T, class P>
struct MomentsOf {
  using Total = Moments<P>;
  const T* x;

  template <int V>
  __device__ __forceinline__ void add(Total (&totals)[V], int64_t first, int64_t, int) const {
    const Pack<T, V> pack = load_pack<T, V>(x + first, 0);
#pragma unroll
    for (int k = 0; k < V; ++k) totals[k].add(widen(pack.value[k]));
  }
};

template <class P>
struct GradientTotal {
  P sum = 0, product = 0;  // of g, and of g * (x - mean)

  __device__ __forceinline__ void merge(const GradientTotal& other) {
    sum += other.sum;
    product += other.product;
  }
};

// dy where the ReLU, if any, let its input through; a NaN in y lets it through, as in PyTorch.
template <class T, class P, int V>
__device__ __forceinline__ void load_masked(const T* dy, const T* y, int64_t first, P (&g)[V]) {
  const Pack<T, V> pack = load_pack<T, V>(dy + first, 0);
  Pack<T, V> out;
  if (y) out = load_pack<T, V>(y + first, 0);
#pragma unroll
  for (int k = 0; k < V; ++k) g[k] = y && widen(out.value[k]) <= 0 ? 0 : widen(pack.value[k]);
}

template <class T, class P>
struct GradientsOf {
  using Total = GradientTotal<P>;
  const T *dy, *x, *y;
  const P* mean;

  template <int V>
  __device__ __forceinline__ void add(Total (&totals)[V], int64_t first, int64_t channel, int step) const {
    P g[V];
    load_masked(dy, y, first, g);
    const Pack<T, V> pack = load_pack<T, V>(x + first, 0);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      totals[k].sum += g[k];
      totals[k].product += g[k] * (widen(pack.value[k]) - mean[channel + k * step]);
    }
  }
};

// One thread a channel: the batch's statistics, the running ones, and weight / sqrt(var + eps) in `scale`.
template <class T, class P>
__global__ void statistics_kernel(const Moments<P>* partial, int64_t splits, BatchNormForward<T, P> call,
                                  P* scale) {
  const int64_t channels = call.layout.channels;
  const P count = static_cast<P>(call.layout.per_channel()), momentum = static_cast<P>(call.momentum);
  for (int64_t c = global_thread(); c < channels; c += grid_threads()) {
    Moments<P> total = partial[c];
    for (int64_t split = 1; split < splits; ++split) total.merge(partial[split * channels + c]);
    const P var = total.squares / count;
    call.mean[c] = total.mean;
    call.var[c] = var;
    scale[c] = (call.weight ? call.weight[c] : P(1)) / sqrt(var + static_cast<P>(call.eps));
    if (!call.running_mean) continue;
    call.running_mean[c] += momentum * (total.mean - call.running_mean[c]);
    call.running_var[c] += momentum * (total.squares / (count - 1) - call.running_var[c]);
  }
}

template <class P>
__global__ void scale_kernel(const P* weight, const P* var, P* scale, int64_t channels, P eps) {
  for (int64_t c = global_thread(); c < channels; c += grid_threads())
    scale[c] = (weight ? weight[c] : P(1)) / sqrt(var[c] + eps);
}

template <class T, class P>
struct Normalize {
  const T *x, *residual;
  const P *mean, *scale, *bias;
  T* y;
  bool relu;

  template <int V>
  __device__ __forceinline__ void at(int64_t first, ChannelWalk& walk) const {
    Pack<T, V> pack = load_pack<T, V>(x + first, 0), more;
    if (residual) more = load_pack<T, V>(residual + first, 0);
    P center = mean[walk.channel], factor = scale[walk.channel], shift = bias ? bias[walk.channel] : P(0);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      if (k > 0 && walk.next()) {
        center = mean[walk.channel];
        factor = scale[walk.channel];
        shift = bias ? bias[walk.channel] : P(0);
      }
      P value = (widen(pack.value[k]) - center) * factor + shift;
      if (residual) value += widen(more.value[k]);
      if (relu && value <= 0) value = 0;  // a NaN stays
      pack.value[k] = narrow<T>(value);
    }
    store_pack(y + first, 0, pack);
  }
};

// One thread a channel: the parameters' gradients, and what dx takes of them:
// dx = scale * (g - offset - (x - mean) * slope).
template <class T, class P>
__global__ void gradients_kernel(const GradientTotal<P>* partial, int64_t splits,
                                 BatchNormBackward<T, P> call, P* scale, P* offset, P* slope) {
  const int64_t channels = call.layout.channels;
  const P count = static_cast<P>(call.layout.per_channel());
  for (int64_t c = global_thread(); c < channels; c += grid_threads()) {
    GradientTotal<P> total = partial[c];
    for (int64_t split = 1; split < splits; ++split) total.merge(partial[split * channels + c]);
    const P inverse = P(1) / sqrt(call.var[c] + static_cast<P>(call.eps));
    call.dbias[c] = total.sum;
    call.dweight[c] = total.product * inverse;
    scale[c] = (call.weight ? call.weight[c] : P(1)) * inverse;
    offset[c] = call.training ? total.sum / count : P(0);
    slope[c] = call.training ? total.product * inverse * inverse / count : P(0);
  }
}

template <class T, class P>
struct InputGradient {
  const T *dy, *x, *y;
  const P *mean, *scale, *offset, *slope;
  T *dx, *dresidual;

  template <int V>
  __device__ __forceinline__ void at(int64_t first, ChannelWalk& walk) const {
    P g[V];
    load_masked(dy, y, first, g);
    Pack<T, V> pack = load_pack<T, V>(x + first, 0), passed;
    P center, factor, constant, along;
#pragma unroll
    for (int k = 0; k < V; ++k) {
      if (k == 0 || walk.next()) {
        center = mean[walk.channel];
        factor = scale[walk.channel];
        constant = offset[walk.channel];
        along = slope[walk.channel];
      }
      passed.value[k] = narrow<T>(g[k]);
      pack.value[k] = narrow<T>(factor * (g[k] - constant - (widen(pack.value[k]) - center) * along));
    }
    store_pack(dx + first, 0, pack);
    if (dresidual) store_pack(dresidual + first, 0, passed);
  }
};

}  // namespace

template <class T, class P>
void batch_norm_forward(const BatchNormForward<T, P>& call, Stream stream) {
  const ChannelLayout& layout = call.layout;
  if (layout.size() == 0) return;
  const ChannelSplits splits(layout, Pack<T>::size, packable(call.x));
  const Buffer<Moments<P>> partial(splits.splits * layout.channels, stream);
  const Buffer<P> scale(layout.channels, stream);
  channel_totals<T>("batch_norm_forward", MomentsOf<T, P>{call.x}, partial.data(), layout, splits, stream);
  launch("batch_norm_forward", statistics_kernel<T, P>, grid_for(layout.channels, kThreads), kThreads, 0,
         stream, partial.data(), splits.splits, call, scale.data());
  const Normalize<T, P> body{call.x, call.residual, call.mean, scale.data(), call.bias, call.y, call.relu};
  channel_map<T>("batch_norm_forward", body, layout, packable(call.x, call.residual, call.y), stream);
}

template <class T, class P>
void batch_norm_inference(const BatchNormInference<T, P>& call, Stream stream) {
  const ChannelLayout& layout = call.layout;
  if (layout.size() == 0) return;
  const Buffer<P> scale(layout.channels, stream);
  launch("batch_norm_inference", scale_kernel<P>, grid_for(layout.channels, kThreads), kThreads, 0, stream,
         call.weight, call.var, scale.data(), layout.channels, static_cast<P>(call.eps));
  const Normalize<T, P> body{call.x, call.residual, call.mean, scale.data(), call.bias, call.y, call.relu};
  channel_map<T>("batch_norm_inference", body, layout, packable(call.x, call.residual, call.y), stream);
}

template <class T, class P>
void batch_norm_backward(const BatchNormBackward<T, P>& call, Stream stream) {
  const ChannelLayout& layout = call.layout;
  if (layout.size() == 0) return;
  const int64_t channels = layout.channels;
  const bool aligned = packable(call.dy, call.x, call.y);
  const ChannelSplits splits(layout, Pack<T>::size, aligned);
  const Buffer<GradientTotal<P>> partial(splits.splits * channels, stream);
  const Buffer<P> numbers(3 * channels, stream);
  P *scale = numbers.data(), *offset = scale + channels, *slope = offset + channels;
  channel_totals<T>("batch_norm_backward", GradientsOf<T, P>{call.dy, call.x, call.y, call.mean},
                    partial.data(), layout, splits, stream);
  launch("batch_norm_backward", gradients_kernel<T, P>, grid_for(channels, kThreads), kThreads, 0, stream,
         partial.data(), splits.splits, call, scale, offset, slope);
  const InputGradient<T, P> body{call.dy, call.x, call.y,  call.mean,     scale,
                                 offset,  slope,  call.dx, call.dresidual};
  channel_map<T>("batch_norm_backward", body, layout, aligned && packable(call.dx, call.dresidual), stream);
}

#define INSTANTIATE(T, P)                                                      \
  template void batch_norm_forward(const BatchNormForward<T, P>&, Stream);     \
  template void batch_norm_inference(const BatchNormInference<T, P>&, Stream); \
  template void batch_norm_backward(const BatchNormBackward<T, P>&, Stream);
INSTANTIATE(float, float)
INSTANTIATE(double, double)
INSTANTIATE(float16, float)
INSTANTIATE(bfloat16, float)

}  // namespace fastarch::cuda
