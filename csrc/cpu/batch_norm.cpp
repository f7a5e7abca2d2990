// Batch normalisation on the CPU: a thread takes some channels through all passes, so that a channel's data
// may stay in its cache. Sums are kept in double, whatever the type.
#include "ops/batch_norm.h"

#include <algorithm>
#include <cmath>

#include "core/thread_pool.h"

namespace fastarch::cpu {
namespace {

constexpr int kLanes = 16;           // independent sums, which the compiler makes a vector or two
constexpr int64_t kChannels = 64;    // channels of rows [M, C] that are worked on together: a few cache lines
constexpr int64_t kGrain = 1 << 14;  // elements worth a thread

// The sums over i < n of f(i) and g(i).
template <class T, class F, class G>
void two_sums(int64_t n, double* first, double* second, const F& f, const G& g) {
  T a[kLanes] = {}, b[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int k = 0; k < kLanes; ++k) a[k] += f(i + k), b[k] += g(i + k);
  for (; i < n; ++i) a[0] += f(i), b[0] += g(i);
  for (int k = 0; k < kLanes; ++k) *first += a[k], *second += b[k];
}

// What the passes need of a run of elements: rows of one channel (planes), or one row of several (rows).
struct Part {
  int64_t first, length, channel;
  bool one_channel;
};

// Calls body(part) for every run of the channels [begin, end), in the order of memory within a channel.
template <class Body>
void for_parts(const ChannelLayout& layout, int64_t begin, int64_t end, const Body& body) {
  if (layout.inner == 1) {
    for (int64_t o = 0; o < layout.outer; ++o)
      body(Part{o * layout.channels + begin, end - begin, begin, false});
    return;
  }
  for (int64_t c = begin; c < end; ++c)
    for (int64_t o = 0; o < layout.outer; ++o)
      body(Part{(o * layout.channels + c) * layout.inner, layout.inner, c, true});
}

// Calls body(begin, end) on groups of at most kChannels channels, in parallel.
template <class Body>
void for_channels(const ChannelLayout& layout, const Body& body) {
  const int64_t group = layout.inner == 1 ? kChannels : 1;
  const int64_t groups = (layout.channels + group - 1) / group;
  const int64_t grain = 1 + kGrain / (layout.per_channel() * group + 1);
  parallel_for(groups, grain, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) body(i * group, std::min((i + 1) * group, layout.channels));
  });
}

// sum[c - begin] += f(i), other[c - begin] += g(i) over the elements i of the channels c.
template <class T, class F, class G>
void channel_sums(const ChannelLayout& layout, int64_t begin, int64_t end, double* sum, double* other,
                  const F& f, const G& g) {
  std::fill(sum, sum + (end - begin), 0.0);
  std::fill(other, other + (end - begin), 0.0);
  for_parts(layout, begin, end, [&](const Part& part) {
    const int64_t c = part.channel;
    if (part.one_channel) {
      two_sums<T>(
          part.length, sum + (c - begin), other + (c - begin),
          [&](int64_t i) { return f(part.first + i, c); }, [&](int64_t i) { return g(part.first + i, c); });
    } else {
      for (int64_t k = 0; k < part.length; ++k) {
        sum[k] += f(part.first + k, c + k);
        other[k] += g(part.first + k, c + k);
      }
    }
  });
}

// body(element, channel) for every element.
template <class Body>
void for_elements(const ChannelLayout& layout, int64_t begin, int64_t end, const Body& body) {
  for_parts(layout, begin, end, [&](const Part& part) {
    if (part.one_channel)
      for (int64_t i = 0; i < part.length; ++i) body(part.first + i, part.channel);
    else
      for (int64_t k = 0; k < part.length; ++k) body(part.first + k, part.channel + k);
  });
}

template <class T>
void normalize(const ChannelLayout& layout, int64_t begin, int64_t end, const T* x, const T* residual,
               const T* mean, const T* scale, const T* bias, T* y, bool relu) {
  const auto store = [&](int64_t i, T value) { y[i] = relu && value <= 0 ? T(0) : value; };  // a NaN stays
  if (residual)
    for_elements(layout, begin, end, [&](int64_t i, int64_t c) {
      store(i, (x[i] - mean[c]) * scale[c - begin] + (bias ? bias[c] : T(0)) + residual[i]);
    });
  else
    for_elements(layout, begin, end, [&](int64_t i, int64_t c) {
      store(i, (x[i] - mean[c]) * scale[c - begin] + (bias ? bias[c] : T(0)));
    });
}

}  // namespace

template <class T, class P>
void batch_norm_forward(const BatchNormForward<T, P>& call, Stream) {
  const ChannelLayout& layout = call.layout;
  if (layout.size() == 0) return;
  const double count = static_cast<double>(layout.per_channel());
  for_channels(layout, [&](int64_t begin, int64_t end) {
    double sum[kChannels] = {}, none[kChannels] = {}, squares[kChannels] = {};
    T scale[kChannels];
    const auto zero = [](int64_t, int64_t) { return T(0); };
    channel_sums<T>(layout, begin, end, sum, none, [&](int64_t i, int64_t) { return call.x[i]; }, zero);
    for (int64_t c = begin; c < end; ++c) call.mean[c] = static_cast<T>(sum[c - begin] / count);
    // The second sum takes off what the rounded mean is away from the mean.
    const auto away = [&](int64_t i, int64_t c) { return call.x[i] - call.mean[c]; };
    channel_sums<T>(
        layout, begin, end, squares, none, [&](int64_t i, int64_t c) { return away(i, c) * away(i, c); },
        away);
    for (int64_t c = begin; c < end; ++c) {
      const double rest = none[c - begin], m2 = std::max(0.0, squares[c - begin] - rest * rest / count);
      const double kept = squares[c - begin] == squares[c - begin] ? m2 : squares[c - begin];  // NaN stays
      call.var[c] = static_cast<T>(kept / count);
      scale[c - begin] =
          (call.weight ? call.weight[c] : T(1)) / std::sqrt(call.var[c] + static_cast<T>(call.eps));
      if (!call.running_mean) continue;
      const T momentum = static_cast<T>(call.momentum);
      call.running_mean[c] += momentum * (call.mean[c] - call.running_mean[c]);
      call.running_var[c] += momentum * (static_cast<T>(kept / (count - 1)) - call.running_var[c]);
    }
    normalize(layout, begin, end, call.x, call.residual, call.mean, scale, call.bias, call.y, call.relu);
  });
}

template <class T, class P>
void batch_norm_inference(const BatchNormInference<T, P>& call, Stream) {
  if (call.layout.size() == 0) return;
  for_channels(call.layout, [&](int64_t begin, int64_t end) {
    T scale[kChannels];
    for (int64_t c = begin; c < end; ++c)
      scale[c - begin] =
          (call.weight ? call.weight[c] : T(1)) / std::sqrt(call.var[c] + static_cast<T>(call.eps));
    normalize(call.layout, begin, end, call.x, call.residual, call.mean, scale, call.bias, call.y, call.relu);
  });
}

template <class T, class P>
void batch_norm_backward(const BatchNormBackward<T, P>& call, Stream) {
  const ChannelLayout& layout = call.layout;
  if (layout.size() == 0) return;
  const double count = static_cast<double>(layout.per_channel());
  for_channels(layout, [&](int64_t begin, int64_t end) {
    double sum[kChannels] = {}, product[kChannels] = {};
    T scale[kChannels], offset[kChannels], slope[kChannels];
    const auto passed = [&](int64_t i) { return call.y && call.y[i] <= 0 ? T(0) : call.dy[i]; };
    channel_sums<T>(
        layout, begin, end, sum, product, [&](int64_t i, int64_t) { return passed(i); },
        [&](int64_t i, int64_t c) { return passed(i) * (call.x[i] - call.mean[c]); });
    for (int64_t c = begin; c < end; ++c) {
      const int64_t k = c - begin;
      const double inverse = 1 / std::sqrt(static_cast<double>(call.var[c]) + call.eps);
      call.dbias[c] = static_cast<T>(sum[k]);
      call.dweight[c] = static_cast<T>(product[k] * inverse);
      scale[k] = static_cast<T>((call.weight ? call.weight[c] : 1.0) * inverse);
      offset[k] = call.training ? static_cast<T>(sum[k] / count) : T(0);
      slope[k] = call.training ? static_cast<T>(product[k] * inverse * inverse / count) : T(0);
    }
    for_elements(layout, begin, end, [&](int64_t i, int64_t c) {
      const T g = passed(i);
      if (call.dresidual) call.dresidual[i] = g;
      const int64_t k = c - begin;
      call.dx[i] = scale[k] * (g - offset[k] - (call.x[i] - call.mean[c]) * slope[k]);
    });
  });
}

#define INSTANTIATE(T)                                                         \
  template void batch_norm_forward(const BatchNormForward<T, T>&, Stream);     \
  template void batch_norm_inference(const BatchNormInference<T, T>&, Stream); \
  template void batch_norm_backward(const BatchNormBackward<T, T>&, Stream);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace fastarch::cpu
