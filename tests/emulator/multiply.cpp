// The blocked multiply, whose double buffer and whose way out through shared memory live by their barriers.
#include <array>
#include <cmath>
#include <random>

#include "gemm/matrix.h"
#include "gemm/patches.h"
#include "gemm/simt.h"
#include "harness.h"

using namespace fastarch;
using namespace fastarch::cuda;

namespace {

template <bool AlongK>
struct Product {
  using Value = float;
  static constexpr bool kRowSums = true;
  using Parts = Operands<Matrix<float, AlongK>, Matrix<float, AlongK>, MatrixResult<float>, float>;

  Parts operands;

  __device__ const Parts& at(int) const { return operands; }
};

// Compares A B and A's row sums with loops in double; AlongK says how both operands lie in memory.
template <bool AlongK>
void expect_product(int64_t m, int64_t n, int64_t k) {
  std::mt19937 random(static_cast<unsigned>(m * 10007 + n * 101 + k));
  std::normal_distribution<float> normal;
  std::vector<float> a(m * k), b(n * k), result(m * n, NAN), row_sums(m, NAN);
  for (float& x : a) x = normal(random);
  for (float& x : b) x = normal(random);
  const Product<AlongK> problem{{{a.data(), m, k, AlongK ? k : m},
                                 {b.data(), n, k, AlongK ? k : n},
                                 {result.data(), n, nullptr, Activation::none},
                                 m,
                                 n,
                                 k,
                                 row_sums.data()}};
  multiply("multiply", problem, {1, m, n, k}, true, nullptr);

  for (int64_t i = 0; i < m; ++i) {
    double row_sum = 0;
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (int64_t l = 0; l < k; ++l)
        sum += double{a[AlongK ? i * k + l : l * m + i]} * b[AlongK ? j * k + l : l * n + j];
      EXPECT(std::abs(result[i * n + j] - sum) < 1e-4);
    }
    for (int64_t l = 0; l < k; ++l) row_sum += a[AlongK ? i * k + l : l * m + i];
    EXPECT(std::abs(row_sums[i] - row_sum) < 1e-4);
  }
}

void expect_products(int multiprocessors) {
  emulator::device().multiprocessors = multiprocessors;
  for (const auto& [m, n, k] : {std::array<int64_t, 3>{130, 140, 9},
                                {70, 129, 20},
                                {64, 60, 33},
                                {33, 31, 100},
                                {16, 70, 17},
                                {6, 25, 300},
                                {1, 1, 1},
                                {5, 3, 0}}) {
    expect_product<true>(m, n, k);
    expect_product<false>(m, n, k);
  }
}

// The arithmetic of positions in tensors far larger than memory, against the same in 128-bit numbers. No
// pixel is read: x is an address to count from.
struct Shape4 {
  int64_t n, c, h, w;
};

__extension__ using Wide = __int128;

int64_t below(std::mt19937_64& random, int64_t n) {
  return static_cast<int64_t>(random() % static_cast<uint64_t>(n));
}

void expect_positions(const Shape4& s, int64_t filters, std::mt19937_64& random) {
  const int stride = 1 + static_cast<int>(below(random, 4)), padding = static_cast<int>(below(random, 4));
  const int64_t p = (s.h - 1) / stride + 1, q = (s.w - 1) / stride + 1, r = 1 + below(random, 5),
                columns = s.n * p * q;
  const Patches<float> patches{.x = nullptr,
                               .image_pitch = s.c * s.h * s.w,
                               .channel_pitch = static_cast<int>(s.h * s.w),
                               .height = static_cast<int>(s.h),
                               .width = static_cast<int>(s.w),
                               .columns = columns,
                               .taps = s.c * r * r,
                               .pixels = Grid(p, q),
                               .window = Grid(r, r),
                               .stride_h = stride,
                               .stride_w = stride,
                               .origin_h = -padding,
                               .origin_w = -padding,
                               .step_h = 1,
                               .step_w = 1};
  const PixelColumns<float> pixels{patches};
  const ImageResult<float> result{nullptr, filters * p * q, p * q,   Grid(p, q),      q,
                                  1,       nullptr,         nullptr, Activation::none};
  const PlaneColumns<float> planes{nullptr, s.n * s.h * s.w, s.c * s.h * s.w, FastDivider(s.h * s.w)};
  for (int i = 0; i < 200; ++i) {
    const int64_t at = i == 0 ? planes.columns - 1 : below(random, planes.columns);
    const int64_t below_channel = below(random, std::min<int64_t>(s.c, int64_t{1} << 30));
    EXPECT(Wide{planes.line(at)} == Wide{at} / (s.h * s.w) * s.c * s.h * s.w + at % (s.h * s.w));
    EXPECT(Wide{planes.step(static_cast<int>(below_channel), 1)} == Wide{below_channel} * s.h * s.w);
    const int64_t column = i == 0 ? columns - 1 : below(random, columns);
    const int64_t index = i == 0 ? patches.taps - 1 : below(random, patches.taps);
    const Point pixel = pixels.line(column), tap = patches.tap(static_cast<uint32_t>(index));
    const Wide image = column / (p * q), within = column % (p * q), channel = index / (r * r);
    const Wide h = within / q * stride - padding + index / r % r,
               w = within % q * stride - padding + index % r;
    EXPECT(Wide{pixel.h} + tap.h == h && Wide{pixel.w} + tap.w == w);
    EXPECT(Wide{pixel.offset} + tap.offset == ((image * s.c + channel) * s.h + h) * s.w + w);
    EXPECT(patches.inside(pixel, tap) == (h >= 0 && h < s.h && w >= 0 && w < s.w));
    EXPECT(Wide{result.column(column)} == image * filters * p * q + within);
  }
}

}  // namespace

TEST(positions_past_32_bits) {
  std::mt19937_64 random(5);
  for (const Shape4& shape : {Shape4{3, 1, 1 << 15, 1 << 15},
                              {1 << 20, 512, 7, 7},
                              {70000, 3, 224, 224},
                              {1, int64_t{1} << 20, 97, 101},
                              {5, 1 << 12, 1 << 10, 1 << 11},
                              {int64_t{1} << 33, 2, 5, 3}})
    for (int i = 0; i < 20; ++i) expect_positions(shape, 1 + below(random, 1000), random);
}

TEST(whole) { expect_products(1); }
TEST(split) { expect_products(132); }

int main(int argc, char** argv) { return harness::main(argc, argv); }
