// Restricted Boltzmann machines: half steps, chains, the update, free energy. A product of the blocked
// multiply, then one pass over its rows, still in cache, that turns pre-activations into means and samples.
#include "ops/rbm.h"

#include <algorithm>

#include "core/energy.h"
#include "core/sampling.h"
#include "cpu/gemm.h"

namespace fastarch::cpu {
namespace {

constexpr int64_t kGrain = 4096;  // units worth a thread

// Calls body(row) for all rows, of `units` each, on the pool where that is worth it.
template <class Body>
void each_row(int64_t rows, int64_t units, const Body& body) {
  parallel_for(rows, ceil_div(kGrain, std::max<int64_t>(units, 1)), [&](int64_t begin, int64_t end) {
    for (int64_t m = begin; m < end; ++m) body(m);
  });
}

// a [rows, units] = x [rows, in] times w [V, H], up, or its transpose, down.
template <class T>
void multiply(const T* x, const T* w, T* a, int64_t rows, int64_t v, int64_t h, bool down) {
  if (down) {  // the transpose of a, so that w is read as it lies and x is packed
    Product<T, TransposedReader<T>, TransposedWriter<T>>{v, rows, h, {w, h, 1}, {x, h}, {a, v}}
        .run_parallel();
  } else {
    constexpr int64_t kNear = 524'288;  // bytes of w that stay in the second cache
    const bool packed = rows >= 16 && v * h * static_cast<int64_t>(sizeof(T)) > kNear;
    Product<T, DenseReader<T>, DenseWriter<T>>{rows, h, v, {x, v, 1}, {w, h, packed}, {a, h}}.run_parallel();
  }
}

// A row of Gaussian or rectified linear units, from pre-activations without bias. a may be an output.
template <class T>
void units_row(const T* a, const Layer<T>& layer, T* mean, T* sample, int64_t n, const Words& words) {
  const Scratch<T> noise(n);
  if (sample) samplers<T>().normal(noise.get(), n, words);
  const bool rectified = layer.unit == Unit::relu;
  for (int64_t i = 0; i < n; ++i) {
    const T x = sampling::add(a[i], layer.bias[i]);
    if (sample) {
      T off = noise[i];
      if (rectified)
        off = sampling::multiply(sampling::root(sampling::sigmoid(x)), off);
      else if (layer.sigma)
        off = sampling::multiply(off, layer.sigma[i]);
      const T y = sampling::add(off, x);
      sample[i] = rectified && y < T(0) ? T(0) : y;
    }
    if (mean) mean[i] = rectified ? softplus(x) : x;
  }
}

// A row of softmax groups, likewise; a becomes the probabilities and may be an output.
template <class T>
void softmax_row(T* a, const Layer<T>& layer, T* mean, T* sample, int64_t n, const Words& words) {
  for (int64_t first = 0, g = 0; first < n; first += layer.group, ++g) {
    T* x = a + first;
    T most = sampling::add(x[0], layer.bias[first]);
    for (int64_t j = 0; j < layer.group; ++j) {
      x[j] = sampling::add(x[j], layer.bias[first + j]);
      most = x[j] > most || x[j] != x[j] ? x[j] : most;
    }
    T total = 0, sum = 0;
    for (int64_t j = 0; j < layer.group; ++j) {
      x[j] = sampling::exponential(sampling::add(x[j], -most));
      total = j ? sampling::add(total, x[j]) : x[j];
    }
    for (int64_t j = 0; j < layer.group; ++j) {
      x[j] = sampling::divide(x[j], total);
      sum = j ? sampling::add(sum, x[j]) : x[j];
      if (mean) mean[first + j] = x[j];
    }
    if (!sample) continue;
    const uint64_t position = words.position + static_cast<uint64_t>(g / 4);
    const uint32_t word = philox(words.seed, words.offset, position).word[g % 4];
    const T u = sampling::multiply(sampling::number_of(word, T()), 1 / sampling::kWords<T>);
    const T bar = sampling::multiply(u, sum);
    int64_t chosen = 0;
    for (int64_t j = 0; j + 1 < layer.group; ++j) {
      sum = j ? sampling::add(sum, x[j]) : x[j];
      chosen += sum <= bar;
    }
    for (int64_t j = 0; j < layer.group; ++j) sample[first + j] = j == chosen ? T(1) : T(0);
  }
}

// The rows of both phases on top of each other, [B + C, n]: a * positive, then b * negative, times factor [n]
// (or null).
template <class T>
void stack(const T* positive, const T* negative, int64_t rows, int64_t chains, int64_t n, T a, T b,
           const T* factor, T* out) {
  const auto copy = [&](const T* from, int64_t count, T by, T* to) {
    for (int64_t m = 0; m < count; ++m, from += n, to += n)
      for (int64_t i = 0; i < n; ++i) to[i] = from[i] * by;
    if (!factor) return;
    for (int64_t m = 0; m < count; ++m)
      for (int64_t i = 0; i < n; ++i) to[(m - count) * n + i] *= factor[i];
  };
  copy(positive, rows, a, out);
  copy(negative, chains, b, out + rows * n);
}

// out[i] = the sum of column i, from the first row to the last.
template <class T>
void column_sums(const T* x, int64_t rows, int64_t n, T* out) {
  std::fill(out, out + n, T(0));
  for (int64_t m = 0; m < rows; ++m)
    for (int64_t i = 0; i < n; ++i) out[i] += x[m * n + i];
}

// The gradients of the biases, and of w through `writer`, as one product over the rows of both phases.
template <class T, class Writer>
void difference(const Statistics<T>& s, const T* precision, const Writer& writer, T* dbv, T* dbh) {
  const int64_t depth = s.rows + s.chains;
  const T a = T(1) / static_cast<T>(s.rows), b = T(-1) / static_cast<T>(s.chains);
  const Scratch<T> left(depth * s.v), right(depth * s.h), sums(s.h);
  stack(s.data, s.chain, s.rows, s.chains, s.v, a, b, precision, left.get());
  stack(s.h0, s.hk, s.rows, s.chains, s.h, T(1), T(1), static_cast<const T*>(nullptr), right.get());
  column_sums(left.get(), depth, s.v, dbv);
  column_sums(right.get(), s.rows, s.h, dbh);
  column_sums(right.get() + s.rows * s.h, s.chains, s.h, sums.get());
  for (int64_t j = 0; j < s.h; ++j) dbh[j] = a * dbh[j] + b * sums[j];
  if (s.v == 0 || s.h == 0) return;
  Product<T, DenseReader<T>, Writer>{s.v, s.h, depth, {left.get(), 1, s.v}, {right.get(), s.h, false}, writer}
      .run_parallel();
}

// Tiles of the gradient become a step of learning.
template <class T>
struct LearningWriter {
  const Learner<T>& learner;
  int64_t pitch;

  T* place(int64_t, int64_t, int64_t*) const { return nullptr; }
  void write(int64_t i, int64_t rows, int64_t j, int64_t columns, const T* tile, int64_t step) const {
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t at = (i + r) * pitch + j;
      kernels<T>().learn(learner.w + at, learner.velocity_w + at, tile + r * step, columns, learner.rate,
                         learner.momentum, learner.decay);
    }
  }
};

}  // namespace

template <class T>
void rbm_half_step(const T* x, const T* w, const Layer<T>& layer, const Clamp<T>& clamp, T* mean, T* sample,
                   int64_t rows, int64_t v, int64_t h, bool down, const Draw& draw, Stream) {
  const int64_t n = down ? v : h;
  if (rows == 0 || n == 0 || !(mean || sample)) return;
  T* const a = mean ? mean : sample;
  multiply(x, w, a, rows, v, h, down);
  each_row(rows, n, [&](int64_t m) {
    const Words words{draw.seed, draw.offset, first_position(draw.step, m, n)};
    T *row = a + m * n, *to_mean = mean ? mean + m * n : nullptr, *to = sample ? sample + m * n : nullptr;
    switch (layer.unit) {
      case Unit::bernoulli: samplers<T>().bernoulli(row, layer.bias, to_mean, to, n, words); break;
      case Unit::softmax: softmax_row(row, layer, to_mean, to, n, words); break;
      default: units_row(row, layer, to_mean, to, n, words);
    }
    if (!clamp.clamped || !to) return;
    for (int64_t i = m * n; i < (m + 1) * n; ++i)
      if (clamp.clamped[i]) sample[i] = clamp.held[i];
  });
}

template <class T>
void rbm_phases(const T* data, const T* start, const Machine<T>& machine, const uint8_t* clamp, T* h0, T* vk,
                T* hk, int64_t rows, int64_t chains, int64_t k, const Draw& draw, Stream stream) {
  const Scratch<T> h(chains * machine.h);
  Draw now = draw;
  const auto up = [&](const T* x, T* mean, T* sample, int64_t count) {
    rbm_half_step<T>(x, machine.w_up, machine.hidden, {}, mean, sample, count, machine.v, machine.h, false,
                     now, stream);
  };
  const bool from_data = start == data && rows == chains;  // chains may also begin where the data does
  up(data, h0, from_data ? h.get() : nullptr, rows);
  for (int64_t i = 0; i < k; ++i) {
    if (i > 0 || !from_data) up(i ? vk : start, nullptr, h.get(), chains);
    ++now.step;
    rbm_half_step<T>(h.get(), machine.w, machine.visible, {clamp, start}, nullptr, vk, chains, machine.v,
                     machine.h, true, now, stream);
    ++now.step;
  }
  up(vk, hk, nullptr, chains);
}

template <class T>
void rbm_gradient(const Statistics<T>& s, T* dw, T* dbv, T* dbh, Stream) {
  difference(s, static_cast<const T*>(nullptr), DenseWriter<T>{dw, s.h}, dbv, dbh);
}

template <class T>
void rbm_update(const Statistics<T>& s, const Learner<T>& learner, Stream) {
  const Scratch<T> dbv(s.v), dbh(s.h);
  difference(s, learner.precision, LearningWriter<T>{learner, s.h}, dbv.get(), dbh.get());
  kernels<T>().learn(learner.b_visible, learner.velocity_bv, dbv.get(), s.v, learner.rate, learner.momentum,
                     T(0));
  kernels<T>().learn(learner.b_hidden, learner.velocity_bh, dbh.get(), s.h, learner.rate, learner.momentum,
                     T(0));
}

template <class T>
void rbm_free_energy(const T* x, const Machine<T>& machine, T* energy, int64_t rows, Stream) {
  if (rows == 0) return;
  const int64_t v = machine.v, h = machine.h;
  const Scratch<T> a(rows * h);
  if (h > 0) multiply(x, machine.w_up, a.get(), rows, v, h, false);
  each_row(rows, v + h, [&](int64_t m) {
    const T *row = a.get() + m * h, *seen = x + m * v;
    const Layer<T>&visible = machine.visible, &hidden = machine.hidden;
    double sum = 0;
    switch (hidden.unit) {
      case Unit::gaussian:
        for (int64_t j = 0; j < h; ++j) sum += T(0.5) * (row[j] + hidden.bias[j]) * (row[j] + hidden.bias[j]);
        break;
      case Unit::relu:
        for (int64_t j = 0; j < h; ++j) sum += integral_of_softplus(row[j] + hidden.bias[j]);
        break;
      default: sum += samplers<T>().softplus_sum(row, hidden.bias, h);
    }
    for (int64_t i = 0; i < v; ++i) {
      if (visible.unit == Unit::gaussian) {
        const T off = (seen[i] - visible.bias[i]) / (visible.sigma ? visible.sigma[i] : T(1));
        sum -= T(0.5) * off * off;
      } else {
        sum += seen[i] * visible.bias[i];
      }
    }
    energy[m] = static_cast<T>(-sum);
  });
}

#define INSTANTIATE(T)                                                                                 \
  template void rbm_half_step(const T*, const T*, const Layer<T>&, const Clamp<T>&, T*, T*, int64_t,   \
                              int64_t, int64_t, bool, const Draw&, Stream);                            \
  template void rbm_phases(const T*, const T*, const Machine<T>&, const uint8_t*, T*, T*, T*, int64_t, \
                           int64_t, int64_t, const Draw&, Stream);                                     \
  template void rbm_gradient(const Statistics<T>&, T*, T*, T*, Stream);                                \
  template void rbm_update(const Statistics<T>&, const Learner<T>&, Stream);                           \
  template void rbm_free_energy(const T*, const Machine<T>&, T*, int64_t, Stream);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace fastarch::cpu
