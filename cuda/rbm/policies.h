// The multiply's readers and results of a restricted Boltzmann machine.
#pragma once
#include "core/sampling.h"
#include "gemm/matrix.h"

namespace fastarch::cuda {

// Where the samples of a layer go, and from which random words they come.
template <class T>
struct Sampled {
  T* mean;    // [rows, units], overwritten, or null
  T* sample;  // likewise
  int64_t units;
  uint64_t seed, offset, first;  // first: the Philox position of row 0
  const uint8_t* clamped;        // [rows, units] or null
  const T* held;

  // The four words of unit n's position, which it shares with its neighbours up to a multiple of four.
  __device__ __forceinline__ PhiloxWords words(int64_t m, int64_t n) const {
    const uint64_t row = static_cast<uint64_t>(m * ((units + 3) / 4));
    return philox(seed, offset, first + row + static_cast<uint64_t>(n / 4));
  }
  __device__ __forceinline__ void store(int64_t m, int64_t n, T of_mean, T of_sample) const {
    const int64_t at = m * units + n;
    if (mean) mean[at] = of_mean;
    if (sample) sample[at] = clamped && clamped[at] ? held[at] : of_sample;
  }
  // Of the units n ... n + 3, of which those past the last one are left out.
  __device__ __forceinline__ void store(int64_t m, int64_t n, const T (&of_mean)[4],
                                        const T (&of_sample)[4]) const {
#pragma unroll
    for (int v = 0; v < 4; ++v)
      if (n + v < units) store(m, n + v, of_mean[v], of_sample[v]);
  }
};

__device__ __forceinline__ uint32_t pick(const PhiloxWords& words, int n) {
  const uint32_t low = n & 1 ? words.word[1] : words.word[0], high = n & 1 ? words.word[3] : words.word[2];
  return n & 2 ? high : low;
}

// What becomes of the pre-activation of Bernoulli units: bias, sigmoid, and a sample, in one pass.
template <class T>
struct BernoulliResult {
  static constexpr bool kOverwrites = true;

  Sampled<T> out;
  const T* bias;  // [units]

  struct Column {
    int64_t n;
    T bias;
  };
  __device__ __forceinline__ Column column(int64_t n) const { return {n, bias[n]}; }
  __device__ __forceinline__ void store(int64_t m, const Column& column, T value) const {
    const T p = sampling::sigmoid(sampling::add(value, column.bias));
    T sample = 0;
    if (out.sample)
      sample = sampling::bernoulli(pick(out.words(m, column.n), static_cast<int>(column.n & 3)), p);
    out.store(m, column.n, p, sample);
  }

  // Four units take one draw.
  static constexpr int kTogether = 4;
  struct Columns {
    int64_t n;
    T bias[kTogether];
  };
  __device__ __forceinline__ Columns columns(int64_t n) const {
    Columns columns{n, {}};
#pragma unroll
    for (int v = 0; v < kTogether; ++v)
      if (n + v < out.units) columns.bias[v] = bias[n + v];
    return columns;
  }
  __device__ __forceinline__ void store(int64_t m, const Columns& columns,
                                        const T (&values)[kTogether]) const {
    T p[kTogether], samples[kTogether] = {};
#pragma unroll
    for (int v = 0; v < kTogether; ++v) p[v] = sampling::sigmoid(sampling::add(values[v], columns.bias[v]));
    if (out.sample) {
      const PhiloxWords words = out.words(m, columns.n);
#pragma unroll
      for (int v = 0; v < kTogether; ++v) samples[v] = sampling::bernoulli(words.word[v], p[v]);
    }
    out.store(m, columns.n, p, samples);
  }
};

// Two matrices on top of each other, [rows, lines] and [rest, lines], read along their lines: element (line,
// k) is upper[k, line], then factor * lower[k - rows, line].
template <class T>
struct Stacked {
  static constexpr bool kAlongK = false, kDecodes = false;
  static constexpr int kWidth = kVector<T>;
  struct Line {
    int64_t index;
    int valid;
  };
  struct Step {
    int k, left;
  };

  const T *upper, *lower;
  int64_t rows, lines;
  T factor;
  bool aligned;
  int64_t first = 0;

  Stacked(const T* upper, const T* lower, int64_t rows, int64_t lines, T factor)
      : upper(upper),
        lower(lower),
        rows(rows),
        lines(lines),
        factor(factor),
        aligned(packable(upper, lower) && lines % kWidth == 0) {}

  std::string traits() const { return aligned ? "aligned" : "loose"; }

  __device__ __forceinline__ void start(int64_t first_k) { first = first_k; }
  __device__ __forceinline__ Line line(int64_t index) const {
    const int64_t left = lines - index;
    return {index, left < kWidth ? static_cast<int>(left) : kWidth};
  }
  __device__ __forceinline__ Step step(int k, int left) const { return {k, left}; }
  __device__ __forceinline__ void load(const Line& line, const Step& step, T (&values)[kWidth]) const {
    const int64_t row = first + step.k;
    const bool above = row < rows;
    const T* from = above ? upper + row * lines : lower + (row - rows) * lines;
    load_some(from + line.index, step.left > 0 ? line.valid : 0, aligned, values);
    const T by = above ? T(1) : factor;
#pragma unroll
    for (int v = 0; v < kWidth; ++v) values[v] *= by;
  }
};

// The sum over the rows of both phases becomes a mean.
template <class T>
struct GradientResult {
  static constexpr bool kOverwrites = true;

  T* dw;  // [V, H], overwritten
  int64_t pitch;
  T scale;

  using Column = T*;
  __device__ __forceinline__ Column column(int64_t n) const { return dw + n; }
  __device__ __forceinline__ void store(int64_t m, Column column, T value) const {
    column[m * pitch] = value * scale;
  }
};

// The same becomes a step of learning, in place.
template <class T>
struct UpdateResult {
  T *w, *velocity;  // [V, H]
  int64_t pitch;
  const T* precision;  // [V] or null
  T scale, rate, momentum, decay;

  using Column = int64_t;
  __device__ __forceinline__ Column column(int64_t n) const { return n; }
  __device__ __forceinline__ void store(int64_t m, Column n, T value) const {
    const int64_t at = m * pitch + n;
    const T gradient = value * (precision ? scale * precision[m] : scale), old = w[at];
    const T next = momentum * velocity[at] + rate * (gradient - decay * old);
    velocity[at] = next;
    w[at] = old + next;
  }
};

}  // namespace fastarch::cuda
