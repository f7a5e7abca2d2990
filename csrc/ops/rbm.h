// Contract: restricted Boltzmann machines. B rows of data, C chains, V visible and H hidden units. Samples
// are those of core/sampling.h, a step of a chain using the random positions of that number.
#pragma once
#include "core/types.h"

namespace fastarch {

enum class Unit { bernoulli = 0, gaussian = 1, relu = 2, softmax = 3 };

// A layer that is sampled: what its units are, and the noise's scale where they are Gaussian.
template <class T>
struct Layer {
  Unit unit = Unit::bernoulli;
  const T* bias = nullptr;   // [units]
  const T* sigma = nullptr;  // [units], or null: 1
  int64_t group = 1;         // units of a softmax, a divisor of their number
};

// Units that are not sampled but keep a value.
template <class T>
struct Clamp {
  const uint8_t* clamped = nullptr;  // [rows, units], not zero: keeps its value; or null
  const T* held = nullptr;           // [rows, units]
};

// A stream of random words, and which part of it.
struct Draw {
  uint64_t seed = 0, offset = 0;
  int64_t step = 0;  // 0 <= step < 2^21
};

// The parameters that a machine computes with. w leads from hidden to visible units, w_up from visible to
// hidden ones: the same, or w's rows over sigma^2 where visible units are Gaussian.
template <class T>
struct Machine {
  const T* w;     // [V, H]
  const T* w_up;  // [V, H]
  Layer<T> visible, hidden;
  int64_t v, h;
};

// The statistics of both phases. data, h0: [B, V], [B, H]; chain, hk: [C, V], [C, H].
template <class T>
struct Statistics {
  const T *data, *h0, *chain, *hk;
  int64_t rows, chains, v, h;
};

// Parameters and their velocities, updated in place: w [V, H], b_visible [V], b_hidden [H].
template <class T>
struct Learner {
  T *w, *b_visible, *b_hidden, *velocity_w, *velocity_bv, *velocity_bh;
  const T* precision;  // [V], factors of the visible gradients, or null
  T rate, momentum, decay;
};

namespace cuda {

// mean and sample [rows, units], overwritten, of the layer given x [rows, in]; either may be null. Up: in =
// V, units = H; down: in = H, units = V. x is other memory than the outputs.
template <class T>
void rbm_half_step(const T* x, const T* w, const Layer<T>& layer, const Clamp<T>& clamp, T* mean, T* sample,
                   int64_t rows, int64_t v, int64_t h, bool down, const Draw& draw, Stream stream);

// h0 [B, H], the means given the data [B, V]; vk [C, V], samples after k >= 1 steps of Gibbs sampling from
// start [C, V], which may be the data (then C = B) but not vk; hk [C, H], the means given vk. All
// overwritten. Units that clamp [C, V] marks, where it is not null, stay as they start. The first step is
// draw's, 0.
template <class T>
void rbm_phases(const T* data, const T* start, const Machine<T>& machine, const uint8_t* clamp, T* h0, T* vk,
                T* hk, int64_t rows, int64_t chains, int64_t k, const Draw& draw, Stream stream);

// dw [V, H] = data^T h0 / B - chain^T hk / C; dbv [V], dbh [H]: the differences of the columns' means. All
// overwritten. B, C >= 1. Equal calls give equal bits, here and below.
template <class T>
void rbm_gradient(const Statistics<T>& statistics, T* dw, T* dbv, T* dbh, Stream stream);

// Every velocity = momentum * velocity + rate * (gradient - decay * parameter), decay for w alone; every
// parameter += its velocity.
template <class T>
void rbm_update(const Statistics<T>& statistics, const Learner<T>& learner, Stream stream);

// energy [rows], overwritten: of the rows of x [rows, V], the hidden units summed out.
template <class T>
void rbm_free_energy(const T* x, const Machine<T>& machine, T* energy, int64_t rows, Stream stream);

}  // namespace cuda

// The same on the CPU. Results do not depend on the number of threads.
namespace cpu {

template <class T>
void rbm_half_step(const T* x, const T* w, const Layer<T>& layer, const Clamp<T>& clamp, T* mean, T* sample,
                   int64_t rows, int64_t v, int64_t h, bool down, const Draw& draw, Stream stream);
template <class T>
void rbm_phases(const T* data, const T* start, const Machine<T>& machine, const uint8_t* clamp, T* h0, T* vk,
                T* hk, int64_t rows, int64_t chains, int64_t k, const Draw& draw, Stream stream);
template <class T>
void rbm_gradient(const Statistics<T>& statistics, T* dw, T* dbv, T* dbh, Stream stream);
template <class T>
void rbm_update(const Statistics<T>& statistics, const Learner<T>& learner, Stream stream);
template <class T>
void rbm_free_energy(const T* x, const Machine<T>& machine, T* energy, int64_t rows, Stream stream);

}  // namespace cpu
}  // namespace fastarch
