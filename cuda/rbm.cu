// Restricted Boltzmann machines: half steps of Gibbs sampling, chains, the update, free energy.
//
// A half step of Bernoulli units is one launch: the multiply, whose result policy adds the bias, takes the
// sigmoid, draws the sample and stores both. Other units follow the multiply in a kernel of their own. The
// update is one multiply over the rows of both phases, [data; -chain]^T [h0; hk], whose result policy has
// momentum and decay. Nothing waits: a whole step of learning can be captured in a CUDA graph.
#include "core/energy.h"
#include "core/reduce.h"
#include "gemm/dense.h"
#include "gemm/simt.h"
#include "ops/rbm.h"
#include "rbm/policies.h"

namespace fastarch::cuda {
namespace {

constexpr int kThreads = 256;

template <class T, class A, class B, class Result>
struct Product {
  using Value = T;
  static constexpr bool kRowSums = false;

  using Parts = Operands<A, B, Result, T>;

  Parts operands;

  std::string traits() const { return traits_of(operands.a) + " " + traits_of(operands.b); }

  __device__ __forceinline__ const Parts& at(int) const { return operands; }
};

template <class T, bool Down>
using Bernoulli = Product<T, Matrix<T, true>, Matrix<T, Down>, BernoulliResult<T>>;
template <class T, class Result>
using Difference = Product<T, Stacked<T>, Stacked<T>, Result>;

// Gaussian and rectified linear units, from the products a [rows, units] without bias. a may be the means. A
// thread takes the four units of a draw: two pairs of normal numbers. count: rows times draws of a row.
template <class T>
__global__ void units_kernel(const T* a, const Sampled<T> out, const T* bias, const T* sigma, bool rectified,
                             int64_t count) {
  const int64_t draws = (out.units + 3) / 4;
  for (int64_t i = global_thread(); i < count; i += grid_threads()) {
    const int64_t m = i / draws, n = (i - m * draws) * 4;
    T means[4], samples[4] = {};
#pragma unroll
    for (int v = 0; v < 4; ++v) {
      const bool inside = n + v < out.units;
      samples[v] = inside ? sampling::add(a[m * out.units + n + v], bias[n + v]) : T(0);
      means[v] = rectified ? softplus(samples[v]) : samples[v];
    }
    if (out.sample) {
      const PhiloxWords words = out.words(m, n);
      T noise[4];
      sampling::normal_pair(words.word[0], words.word[1], &noise[0], &noise[1]);
      sampling::normal_pair(words.word[2], words.word[3], &noise[2], &noise[3]);
#pragma unroll
      for (int v = 0; v < 4; ++v) {
        if (rectified)
          noise[v] = sampling::multiply(sampling::root(sampling::sigmoid(samples[v])), noise[v]);
        else if (sigma && n + v < out.units)
          noise[v] = sampling::multiply(noise[v], sigma[n + v]);
        samples[v] = sampling::add(noise[v], samples[v]);
        if (rectified && samples[v] < T(0)) samples[v] = 0;
      }
    }
    out.store(m, n, means, samples);
  }
}

// Softmax groups, one thread each, from the products a, which become the probabilities.
template <class T>
__global__ void softmax_kernel(T* a, const Sampled<T> out, const T* bias, int64_t group, int64_t count) {
  const int64_t groups = out.units / group;
  for (int64_t i = global_thread(); i < count; i += grid_threads()) {
    const int64_t m = i / groups, g = i - m * groups, first = g * group;
    T* const x = a + m * out.units + first;
    T most = sampling::add(x[0], bias[first]);
    for (int64_t j = 0; j < group; ++j) {
      x[j] = sampling::add(x[j], bias[first + j]);
      most = x[j] > most || x[j] != x[j] ? x[j] : most;
    }
    T total = 0;
    for (int64_t j = 0; j < group; ++j) {
      x[j] = sampling::exponential(sampling::add(x[j], -most));
      total = j ? sampling::add(total, x[j]) : x[j];
    }
    T sum = 0;
    for (int64_t j = 0; j < group; ++j) {
      x[j] = sampling::divide(x[j], total);
      sum = j ? sampling::add(sum, x[j]) : x[j];
    }
    if (!out.sample) continue;
    const uint32_t word = pick(out.words(m, g), static_cast<int>(g & 3));
    const T bar =
        sampling::multiply(sampling::multiply(sampling::number_of(word, T()), 1 / sampling::kWords<T>), sum);
    int64_t chosen = 0;
    sum = 0;
    for (int64_t j = 0; j + 1 < group; ++j) {
      sum = j ? sampling::add(sum, x[j]) : x[j];
      chosen += sum <= bar;
    }
    for (int64_t j = 0; j < group; ++j) out.store(m, first + j, x[j], j == chosen ? T(1) : T(0));
  }
}

// Column means of both phases, their difference, and what becomes of a bias: dbv, or learning in place. A
// block takes 32 columns; its 8 rows of threads take every 8th row each, then the first row adds up.
template <class T>
struct BiasColumns {
  const T *positive, *negative;   // [rows, units], [chains, units]
  const T* precision;             // [units] or null
  T *gradient, *bias, *velocity;  // [units]; gradient or the others are null
  int64_t units;
};

constexpr int kBiasColumns = 32, kBiasRows = 8;

template <class T>
__global__ void __launch_bounds__(kBiasColumns* kBiasRows)
    bias_kernel(const BiasColumns<T> visible, const BiasColumns<T> hidden, int64_t visible_blocks,
                int64_t rows, int64_t chains, T rate, T momentum) {
  FASTARCH_SHARED(T, shared, [2][kBiasRows][kBiasColumns]);
  const bool seen = blockIdx.x < visible_blocks;
  const BiasColumns<T> part = seen ? visible : hidden;
  const int x = threadIdx.x % kBiasColumns, y = threadIdx.x / kBiasColumns;
  const int64_t column = (blockIdx.x - (seen ? 0 : visible_blocks)) * kBiasColumns + x;
  T sums[2] = {};
  if (column < part.units) {
    for (int64_t m = y; m < rows; m += kBiasRows) sums[0] += part.positive[m * part.units + column];
    for (int64_t m = y; m < chains; m += kBiasRows) sums[1] += part.negative[m * part.units + column];
  }
  shared[0][y][x] = sums[0];
  shared[1][y][x] = sums[1];
  __syncthreads();
  if (y != 0 || column >= part.units) return;
  for (int i = 1; i < kBiasRows; ++i) {
    sums[0] += shared[0][i][x];
    sums[1] += shared[1][i][x];
  }
  const T difference = sums[0] / static_cast<T>(rows) - sums[1] / static_cast<T>(chains);
  if (part.gradient) {
    part.gradient[column] = difference;
  } else {
    const T scaled = part.precision ? difference * part.precision[column] : difference;
    const T next = momentum * part.velocity[column] + rate * scaled;
    part.velocity[column] = next;
    part.bias[column] += next;
  }
}

// A block for each row: energy[row] from x and the products a [rows, H] without bias.
template <class T>
__global__ void energy_kernel(const T* x, const T* a, const Machine<T> machine, T* energy, int64_t rows) {
  for (int64_t m = blockIdx.x; m < rows; m += gridDim.x) {
    T sum = 0;
    for (int64_t j = threadIdx.x; j < machine.h; j += blockDim.x) {
      const T value = a[m * machine.h + j] + machine.hidden.bias[j];
      switch (machine.hidden.unit) {
        case Unit::gaussian: sum += value * value / 2; break;
        case Unit::relu: sum += integral_of_softplus(value); break;
        default: sum += softplus(value);
      }
    }
    const bool gaussian = machine.visible.unit == Unit::gaussian;
    for (int64_t i = threadIdx.x; i < machine.v; i += blockDim.x) {
      const T value = x[m * machine.v + i], bias = machine.visible.bias[i];
      const T off = machine.visible.sigma ? (value - bias) / machine.visible.sigma[i] : value - bias;
      sum += gaussian ? -off * off / 2 : value * bias;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) energy[m] = -sum;
  }
}

template <class T, bool Down>
void bernoulli_step(const T* x, const T* w, const Sampled<T>& out, const T* bias, int64_t rows, int64_t h,
                    int64_t in, Stream stream) {
  // Element (unit, k) of w [V, H]: its rows are units on the way down, and run along k.
  const Bernoulli<T, Down> problem{
      {{x, rows, in, in}, {w, out.units, in, h}, {out, bias}, rows, out.units, in}};
  multiply("rbm_half_step", problem, {1, rows, out.units, in}, false, stream);
}

template <class T, class Result>
void multiply_difference(const char* name, const Statistics<T>& s, const Result& result, Stream stream) {
  const int64_t depth = s.rows + s.chains;
  const T factor = -static_cast<T>(static_cast<double>(s.rows) / static_cast<double>(s.chains));
  const Difference<T, Result> problem{
      {{s.data, s.chain, s.rows, s.v, factor}, {s.h0, s.hk, s.rows, s.h, T(1)}, result, s.v, s.h, depth}};
  multiply(name, problem, {1, s.v, s.h, depth}, false, stream);
}

template <class T>
void bias_columns(const char* name, const Statistics<T>& s, const BiasColumns<T>& visible,
                  const BiasColumns<T>& hidden, T rate, T momentum, Stream stream) {
  const int64_t of_visible = divide_up(s.v, kBiasColumns), blocks = of_visible + divide_up(s.h, kBiasColumns);
  check(blocks < (int64_t{1} << 31), name, "needs ", blocks, " blocks, expected fewer than 2^31");
  if (blocks == 0) return;
  launch(name, bias_kernel<T>, dim3(static_cast<unsigned>(blocks)), dim3(kBiasColumns * kBiasRows), 0, stream,
         visible, hidden, of_visible, s.rows, s.chains, rate, momentum);
}

}  // namespace

template <class T>
void rbm_half_step(const T* x, const T* w, const Layer<T>& layer, const Clamp<T>& clamp, T* mean, T* sample,
                   int64_t rows, int64_t v, int64_t h, bool down, const Draw& draw, Stream stream) {
  const int64_t units = down ? v : h, in = down ? h : v, count = rows * units;
  if (count == 0) return;
  const Sampled<T> out{mean,          sample,      units,
                       draw.seed,     draw.offset, first_position(draw.step, 0, units),
                       clamp.clamped, clamp.held};
  if (layer.unit == Unit::bernoulli) {
    if (down)
      bernoulli_step<T, true>(x, w, out, layer.bias, rows, h, in, stream);
    else
      bernoulli_step<T, false>(x, w, out, layer.bias, rows, h, in, stream);
    return;
  }
  const Buffer<T> own(mean ? 0 : count, stream);
  T* const a = mean ? mean : own.data();
  if (down)
    linear_forward<T>(x, w, nullptr, a, rows, in, units, Activation::none, stream);
  else
    linear_backward_input(x, w, a, rows, units, in, stream);
  if (layer.unit == Unit::softmax) {
    const int64_t groups = rows * (units / layer.group);
    launch("rbm_half_step", softmax_kernel<T>, grid_for(groups, kThreads), kThreads, 0, stream, a, out,
           layer.bias, layer.group, groups);
  } else {
    const int64_t draws = rows * divide_up(units, 4);
    launch("rbm_half_step", units_kernel<T>, grid_for(draws, kThreads), kThreads, 0, stream,
           static_cast<const T*>(a), out, layer.bias, layer.sigma, layer.unit == Unit::relu, draws);
  }
}

template <class T>
void rbm_phases(const T* data, const T* start, const Machine<T>& machine, const uint8_t* clamp, T* h0, T* vk,
                T* hk, int64_t rows, int64_t chains, int64_t k, const Draw& draw, Stream stream) {
  const Buffer<T> own(chains * machine.h, stream);
  T* const h = own.data();
  Draw now = draw;
  const auto up = [&](const T* x, T* mean, T* sample, int64_t count) {
    rbm_half_step<T>(x, machine.w_up, machine.hidden, {}, mean, sample, count, machine.v, machine.h, false,
                     now, stream);
  };
  const bool from_data = start == data && rows == chains;  // chains may also begin where the data does
  up(data, h0, from_data ? h : nullptr, rows);
  for (int64_t i = 0; i < k; ++i) {
    if (i > 0 || !from_data) up(i ? vk : start, nullptr, h, chains);
    ++now.step;
    rbm_half_step<T>(h, machine.w, machine.visible, {clamp, start}, nullptr, vk, chains, machine.v, machine.h,
                     true, now, stream);
    ++now.step;
  }
  up(vk, hk, nullptr, chains);
}

template <class T>
void rbm_gradient(const Statistics<T>& s, T* dw, T* dbv, T* dbh, Stream stream) {
  const GradientResult<T> result{dw, s.h, T(1) / static_cast<T>(s.rows)};
  multiply_difference("rbm_gradient", s, result, stream);
  bias_columns<T>("rbm_gradient", s, {s.data, s.chain, nullptr, dbv, nullptr, nullptr, s.v},
                  {s.h0, s.hk, nullptr, dbh, nullptr, nullptr, s.h}, T(0), T(0), stream);
}

template <class T>
void rbm_update(const Statistics<T>& s, const Learner<T>& l, Stream stream) {
  const UpdateResult<T> result{l.w,    l.velocity_w, s.h,    l.precision, T(1) / static_cast<T>(s.rows),
                               l.rate, l.momentum,   l.decay};
  multiply_difference("rbm_update", s, result, stream);
  bias_columns<T>("rbm_update", s, {s.data, s.chain, l.precision, nullptr, l.b_visible, l.velocity_bv, s.v},
                  {s.h0, s.hk, nullptr, nullptr, l.b_hidden, l.velocity_bh, s.h}, l.rate, l.momentum, stream);
}

template <class T>
void rbm_free_energy(const T* x, const Machine<T>& machine, T* energy, int64_t rows, Stream stream) {
  if (rows == 0) return;
  const Buffer<T> a(rows * machine.h, stream);
  linear_backward_input(x, machine.w_up, a.data(), rows, machine.h, machine.v, stream);
  launch("rbm_free_energy", energy_kernel<T>, grid_for(rows * kThreads, kThreads), kThreads, 0, stream, x,
         static_cast<const T*>(a.data()), machine, energy, rows);
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
#undef INSTANTIATE

}  // namespace fastarch::cuda
