// Convolution of channels-last images by bulk copies of pixels, against loops: every geometry that is taken.
#include "gemm/wgmma_pixels.h"

#include <cmath>
#include <random>

#include "core/float16.h"
#include "harness.h"

using namespace fastarch;
using namespace fastarch::cuda;

namespace {

struct Geometry {
  int64_t n, size_h, size_w, c, k;
  int taps, stride, padding, dilation;

  int64_t out(int64_t size) const { return (size + 2 * padding - (taps - 1) * dilation - 1) / stride + 1; }
};

template <class T>
float number(T x) {
  if constexpr (std::is_same_v<T, float>)
    return x;
  else
    return to_float(x);
}

template <class T>
T encode(float x) {
  if constexpr (std::is_same_v<T, float>)
    return x;
  else
    return round_to<T>(x);
}

template <class T>
std::vector<T> small_numbers(int64_t count, unsigned seed) {  // sums of them are exact in float
  std::mt19937 random(seed);
  std::vector<T> numbers(static_cast<size_t>(count));
  for (T& x : numbers) x = encode<T>(static_cast<float>(static_cast<int>(random() % 5) - 2));
  return numbers;
}

template <class T>
class Convolution {
 public:
  explicit Convolution(const Geometry& g)
      : g(g),
        p(g.out(g.size_h)),
        q(g.out(g.size_w)),
        window(int64_t{g.taps} * g.taps),
        x(small_numbers<T>(g.n * g.size_h * g.size_w * g.c, 1)),
        filters(small_numbers<T>(g.k * window * g.c, 2)),
        dy(small_numbers<T>(g.n * p * q * g.k, 3)) {}

  WindowSource<T> images() const {
    const auto axis = [&](int64_t size, int64_t count) {
      return WindowAxis{size, count, g.taps, g.stride, g.dilation, -g.padding};
    };
    return {x.data(), g.n, g.c, axis(g.size_h, p), axis(g.size_w, q)};
  }
  WindowSource<T> gradients() const {  // of stride 1: dx's pixels, through windows the other way around
    const auto axis = [&](int64_t count, int64_t size) {
      return WindowAxis{size, count, g.taps, 1, g.dilation, g.padding - (g.taps - 1) * g.dilation, true};
    };
    return {dy.data(), g.n, g.k, axis(g.size_h, p), axis(g.size_w, q)};
  }

  // Calls visit(pixel of y, pixel of x, tap) for all that meet.
  template <class Visit>
  void each(Visit&& visit) const {
    for (int64_t i = 0; i < g.n * p * q; ++i) {
      const int64_t image = i / (p * q), h0 = i / q % p * g.stride - g.padding,
                    w0 = i % q * g.stride - g.padding;
      for (int64_t tap = 0; tap < window; ++tap) {
        const int64_t h = h0 + tap / g.taps * g.dilation, w = w0 + tap % g.taps * g.dilation;
        if (h >= 0 && h < g.size_h && w >= 0 && w < g.size_w)
          visit(i, (image * g.size_h + h) * g.size_w + w, tap);
      }
    }
  }

  bool forward() const {
    std::vector<T> y(dy.size(), T{});
    const MatrixResult<T> result{y.data(), g.k, nullptr, Activation::relu};
    const FilterLines<T> lines{filters.data(), g.k, window * g.c, window, g.c};
    if (!convolve_wgmma("forward", images(), lines, result, Precision::tf32, nullptr)) return false;
    std::vector<float> sums(y.size());
    each([&](int64_t pixel, int64_t from, int64_t tap) {
      for (int64_t k = 0; k < g.k; ++k)
        for (int64_t c = 0; c < g.c; ++c)
          sums[static_cast<size_t>(pixel * g.k + k)] +=
              number(x[static_cast<size_t>(from * g.c + c)]) *
              number(filters[static_cast<size_t>((k * window + tap) * g.c + c)]);
    });
    for (size_t i = 0; i < y.size(); ++i) EXPECT(number(y[i]) == number(encode<T>(std::max(0.0f, sums[i]))));
    emulator::check_leaks("forward");
    return true;
  }

  bool backward_input() const {
    std::vector<T> dx(x.size(), T{}), turned(filters.size());  // [c, tap, k]
    for (int64_t k = 0; k < g.k; ++k)
      for (int64_t tap = 0; tap < window; ++tap)
        for (int64_t c = 0; c < g.c; ++c)
          turned[static_cast<size_t>((c * window + tap) * g.k + k)] =
              filters[static_cast<size_t>((k * window + tap) * g.c + c)];
    const MatrixResult<T> result{dx.data(), g.c, nullptr, Activation::none};
    const FilterLines<T> lines{turned.data(), g.c, window * g.k, window, g.k};
    if (!convolve_wgmma("backward_input", gradients(), lines, result, Precision::tf32, nullptr)) return false;
    std::vector<float> sums(dx.size());
    each([&](int64_t pixel, int64_t to, int64_t tap) {
      for (int64_t k = 0; k < g.k; ++k)
        for (int64_t c = 0; c < g.c; ++c)
          sums[static_cast<size_t>(to * g.c + c)] +=
              number(dy[static_cast<size_t>(pixel * g.k + k)]) *
              number(filters[static_cast<size_t>((k * window + tap) * g.c + c)]);
    });
    for (size_t i = 0; i < dx.size(); ++i) EXPECT(number(dx[i]) == number(encode<T>(sums[i])));
    emulator::check_leaks("backward_input");
    return true;
  }

  bool backward_weight() const {
    std::vector<T> dw(filters.size(), T{}), db(static_cast<size_t>(g.k), T{});
    const MatrixResult<T> result{dw.data(), window * g.c, nullptr, Activation::none};
    if (!convolve_weights_wgmma("backward_weight", dy.data(), g.k, images(), result, db.data(),
                                Precision::tf32, nullptr))
      return false;
    std::vector<float> sums(dw.size()), bias(db.size());
    each([&](int64_t pixel, int64_t from, int64_t tap) {
      for (int64_t k = 0; k < g.k; ++k)
        for (int64_t c = 0; c < g.c; ++c)
          sums[static_cast<size_t>((k * window + tap) * g.c + c)] +=
              number(dy[static_cast<size_t>(pixel * g.k + k)]) *
              number(x[static_cast<size_t>(from * g.c + c)]);
    });
    for (size_t i = 0; i < dy.size(); ++i) bias[i % bias.size()] += number(dy[i]);
    for (size_t i = 0; i < dw.size(); ++i) EXPECT(number(dw[i]) == number(encode<T>(sums[i])));
    for (size_t i = 0; i < db.size(); ++i) EXPECT(number(db[i]) == number(encode<T>(bias[i])));
    emulator::check_leaks("backward_weight");
    return true;
  }

 private:
  Geometry g;
  int64_t p, q, window;
  std::vector<T> x, filters, dy;
};

// n, h, w, c, k, taps, stride, padding, dilation
TEST(convolutions) {
  wgmma_switch() = true;
  const Convolution<bfloat16> plain({2, 9, 7, 64, 72, 3, 1, 1, 1}), wide({3, 5, 13, 72, 64, 3, 1, 2, 2}),
      strided({2, 17, 14, 64, 64, 3, 2, 1, 1}), pointwise({3, 11, 10, 128, 80, 1, 2, 0, 1}),
      bare({2, 12, 11, 104, 64, 5, 1, 0, 1});
  EXPECT(plain.forward() && plain.backward_input() && plain.backward_weight());
  EXPECT(wide.forward() && wide.backward_input() &&
         !wide.backward_weight());  // 72 channels are no whole copies
  EXPECT(strided.forward() && strided.backward_weight());
  EXPECT(pointwise.forward() && pointwise.backward_weight());
  EXPECT(bare.forward() && bare.backward_input());
  const Convolution<float> tf32({2, 8, 9, 68, 64, 3, 1, 1, 1});
  EXPECT(tf32.forward() && tf32.backward_input() && !tf32.backward_weight());
}

TEST(what_pixels_it_leaves) {
  wgmma_switch() = true;
  EXPECT(!Convolution<bfloat16>({2, 9, 7, 24, 72, 3, 1, 1, 1}).forward());    // half of the copies were zeros
  EXPECT(!Convolution<bfloat16>({2, 9, 7, 60, 72, 3, 1, 1, 1}).forward());    // pixels off 16 bytes
  EXPECT(!Convolution<bfloat16>({2, 99, 90, 64, 64, 1, 9, 0, 1}).forward());  // a step that maps do not have
  EXPECT(!Convolution<bfloat16>({2, 18, 17, 64, 64, 3, 4, 1, 1}).forward());  // corners that are not alike
  wgmma_switch() = false;
  EXPECT(!Convolution<bfloat16>({2, 9, 7, 64, 72, 3, 1, 1, 1}).forward());
}

TEST(convolutions_in_slices) {
  wgmma_switch() = true;
  emulator::device().multiprocessors = 12;
  const Convolution<float16> split({2, 12, 11, 64, 64, 3, 1, 1, 1});
  for (uint64_t seed = 0; seed < 5; ++seed) {
    emulator::set_seed(seed);
    EXPECT(split.forward() && split.backward_input() && split.backward_weight());
  }
}

}  // namespace

int main(int argc, char** argv) { return harness::main(argc, argv); }
