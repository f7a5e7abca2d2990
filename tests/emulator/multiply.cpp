// The blocked multiply, whose double buffer and whose way out through shared memory live by their barriers.
#include <sys/mman.h>

#include <array>
#include <cmath>
#include <random>
#include <utility>

#include "gemm/channels_last.h"
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
  const ImageResult<float> result{.out = nullptr,
                                  .image_pitch = filters * p * q,
                                  .channel_pitch = p * q,
                                  .pixels = Grid(p, q),
                                  .pitch_h = q,
                                  .pitch_w = 1,
                                  .bias = nullptr,
                                  .residual = nullptr,
                                  .kind = Activation::none};
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

// Address space for more than 2^31 elements, of which only pages that are written take memory.
class Space {
 public:
  static constexpr int64_t kElements = (int64_t{5} << 29);  // 2.5 * 2^30
  Space() {
    void* const at = mmap(nullptr, kElements * sizeof(float), PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) throw std::runtime_error("this machine does not lend out 10 GiB of address space");
    data = static_cast<float*>(at);
  }
  ~Space() { munmap(data, kElements * sizeof(float)); }
  Space(const Space&) = delete;
  Space& operator=(const Space&) = delete;

  // Has element `index` be found by `read`.
  template <class Read>
  void expect_read(Wide index, Read&& read) {
    EXPECT(index >= 0 && index < kElements);
    data[static_cast<int64_t>(index)] = 7;
    EXPECT(read() == 7);
    data[static_cast<int64_t>(index)] = 0;
    EXPECT(read() == 0);
  }

  float* data;
};

// Element (line, k) by a reader that starts at first_k; wide loads begin at multiples of their width.
template <class Reader>
float element(Reader reader, int64_t first_k, int64_t line, int64_t k) {
  constexpr int kWidth = Reader::kWidth;
  const int along = static_cast<int>(k - first_k);
  const int within = Reader::kAlongK ? along % kWidth : static_cast<int>(line % kWidth);
  reader.start(first_k);
  float values[kWidth];
  reader.load(reader.line(Reader::kAlongK ? line : line - within),
              reader.step(Reader::kAlongK ? along - within : along, kWidth), values);
  return values[within];
}

// The k that a slice starts at, and one in it.
std::pair<int64_t, int64_t> slice_of(std::mt19937_64& random, int64_t depth) {
  const int64_t first = below(random, depth) / 16 * 16, left = depth - first;
  return {first, first + below(random, left)};
}

template <bool AlongK>
void expect_matrix(Space& space, std::mt19937_64& random) {
  const int64_t lines = 40000, depth = 60000, pitch = AlongK ? depth : lines;
  const Matrix<float, AlongK> matrix(space.data, lines, depth, pitch);
  for (int i = 0; i < 200; ++i) {
    const int64_t line = i == 0 ? lines - 1 : below(random, lines);
    auto [first, k] = slice_of(random, depth);
    if (i == 0) k = depth - 1;
    space.expect_read(AlongK ? Wide{line} * pitch + k : Wide{k} * pitch + line,
                      [&] { return element(matrix, first, line, k); });
  }
  const MatrixResult<float> result{space.data, pitch, nullptr, Activation::none};
  const int64_t last = Space::kElements / pitch - 1;
  result.store(last, result.column(pitch - 1), 3);
  EXPECT(space.data[last * pitch + pitch - 1] == 3);
  space.data[last * pitch + pitch - 1] = 0;
}

// Images [N, C, H, W] as dy and as x of a weight gradient, and as a result.
void expect_images(Space& space, std::mt19937_64& random) {
  const int64_t n = 1000, c = 64, side = 200, plane = side * side;
  const ChannelRows<float> rows(space.data, c, c * plane, plane);
  const Patches<float> patches{.x = space.data,
                               .image_pitch = c * plane,
                               .channel_pitch = static_cast<int>(plane),
                               .height = static_cast<int>(side),
                               .width = static_cast<int>(side),
                               .columns = n * plane,
                               .taps = c,
                               .pixels = Grid(side, side),
                               .window = Grid(1, 1),
                               .step_h = 1,
                               .step_w = 1};
  const ImageResult<float> result{.out = space.data,
                                  .image_pitch = c * plane,
                                  .channel_pitch = plane,
                                  .pixels = Grid(side, side),
                                  .pitch_h = side,
                                  .pitch_w = 1,
                                  .bias = nullptr,
                                  .residual = nullptr,
                                  .kind = Activation::none};
  for (int i = 0; i < 200; ++i) {
    const int64_t channel = i == 0 ? c - 1 : below(random, c);
    auto [first, pixel] = slice_of(random, n * plane);
    if (i == 0) pixel = n * plane - 1;
    const Wide index = (Wide{pixel / plane} * c + channel) * plane + pixel % plane;
    space.expect_read(index, [&] { return element(rows, first, channel, pixel); });
    space.expect_read(index, [&] { return element(TapColumns<float>{patches}, first, channel, pixel); });
    space.expect_read(index, [&] { return element(PixelColumns<float>{patches}, 0, pixel, channel); });
    result.store(channel, result.column(pixel), 3);
    EXPECT(space.data[static_cast<int64_t>(index)] == 3);
    space.data[static_cast<int64_t>(index)] = 0;
  }
}

void expect_filters(Space& space, std::mt19937_64& random) {
  const int64_t filters = 55000, channels = 5000, taps = 9;
  FilterRows<float> rows{.w = space.data,
                         .channels = channels,
                         .filter_pitch = channels * taps,
                         .channel_pitch = static_cast<int>(taps),
                         .tap_pitch_h = 3,
                         .tap_pitch_w = 1};
  rows.window = Grid(3, 3);
  for (int i = 0; i < 200; ++i) {
    const int64_t channel = i == 0 ? channels - 1 : below(random, channels);
    auto [first, k] = slice_of(random, filters * taps);
    if (i == 0) k = filters * taps - 1;
    space.expect_read((Wide{k / taps} * channels + channel) * taps + k % taps,
                      [&] { return element(rows, first, channel, k); });
  }
}

// The same with the channels last, where the patches' readers go along the taps and across them.
void expect_positions_of_channels(const Shape4& s, std::mt19937_64& random) {
  const int stride = 1 + static_cast<int>(below(random, 4)), padding = static_cast<int>(below(random, 4));
  const int64_t p = (s.h - 1) / stride + 1, q = (s.w - 1) / stride + 1, r = 1 + below(random, 5),
                columns = s.n * p * q, pitch = 3 * s.c;  // of three groups
  const ChannelPatches<float, 1> patches{.x = nullptr,
                                         .image_pitch = s.h * s.w * pitch,
                                         .pixel_pitch = pitch,
                                         .height = static_cast<int>(s.h),
                                         .width = static_cast<int>(s.w),
                                         .columns = columns,
                                         .taps = s.c * r * r,
                                         .pixels = Grid(p, q),
                                         .window = Grid(r, r),
                                         .channels = FastDivider(s.c),
                                         .stride_h = stride,
                                         .stride_w = stride,
                                         .origin_h = -padding,
                                         .origin_w = -padding,
                                         .step_h = 1,
                                         .step_w = 1};
  const PixelRows<float, 1> rows{patches};
  const PixelResult<float> result{nullptr, p * q * pitch, q * pitch, pitch, Grid(p, q)};
  for (int i = 0; i < 200; ++i) {
    const int64_t column = i == 0 ? columns - 1 : below(random, columns);
    const int64_t index = i == 0 ? patches.taps - 1 : below(random, patches.taps);
    const Point pixel = rows.line(column), tap = patches.tap(static_cast<uint32_t>(index));
    const Wide image = column / (p * q), within = column % (p * q), channel = index % s.c;
    const Wide h = within / q * stride - padding + index / s.c / r,
               w = within % q * stride - padding + index / s.c % r;
    EXPECT(Wide{pixel.h} + tap.h == h && Wide{pixel.w} + tap.w == w);
    EXPECT(Wide{pixel.offset} + tap.offset == ((image * s.h + h) * s.w + w) * pitch + channel);
    EXPECT(patches.inside(pixel, tap) == (h >= 0 && h < s.h && w >= 0 && w < s.w));
    EXPECT(Wide{result.place(column)} == Wide{column} * pitch);
  }
}

}  // namespace

TEST(elements_past_32_bits) {
  std::mt19937_64 random(6);
  Space space;
  expect_matrix<true>(space, random);
  expect_matrix<false>(space, random);
  expect_images(space, random);
  expect_filters(space, random);
}

TEST(positions_past_32_bits) {
  std::mt19937_64 random(5);
  for (const Shape4& shape : {Shape4{3, 1, 1 << 15, 1 << 15},
                              {1 << 20, 512, 7, 7},
                              {70000, 3, 224, 224},
                              {1, int64_t{1} << 20, 97, 101},
                              {5, 1 << 12, 1 << 10, 1 << 11},
                              {int64_t{1} << 33, 2, 5, 3}})
    for (int i = 0; i < 20; ++i) {
      expect_positions(shape, 1 + below(random, 1000), random);
      expect_positions_of_channels(shape, random);
    }
}

TEST(whole) { expect_products(1); }
TEST(split) { expect_products(132); }

int main(int argc, char** argv) { return harness::main(argc, argv); }
