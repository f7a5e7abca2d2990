// The tensor cores' operations and the asynchronous copies, against the PTX manual's definitions.
#include <algorithm>
#include <bit>
#include <cmath>
#include <random>

#include "core/async_copy.h"
#include "core/mma.h"
#include "harness.h"

using namespace fastarch::cuda;
using fastarch::emulator::set_seed;
using harness::contains;
using harness::error_of;

namespace {

// Whole numbers up to 8: exact in every type, and so are their products and sums.
std::vector<int> small_numbers(size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<int> numbers(count);
  for (int& number : numbers) number = static_cast<int>(random() % 17) - 8;
  return numbers;
}

uint32_t encode(MmaType type, int number) {
  const auto bits = std::bit_cast<uint32_t>(static_cast<float>(number));
  if (type == MmaType::tf32) return bits;
  if (type == MmaType::bfloat16) return bits >> 16;
  if (number == 0) return 0;
  return (bits >> 16 & 0x8000u) | ((bits >> 23 & 255u) - 112) << 10 | (bits >> 13 & 1023u);
}

// a [16, K], b [8, K], d [16, 8]: every lane gathers its operands where the manual says that they are.
template <MmaType Type>
__global__ void product_kernel(const uint32_t* a, const uint32_t* b, float* d) {
  constexpr int kDepth = kMmaDepth<Type>;
  const int group = static_cast<int>(threadIdx.x) / 4, within = static_cast<int>(threadIdx.x) % 4;
  const auto gather = [&](const uint32_t* row, int quarter) {  // the register of k's lower or upper half
    if constexpr (Type == MmaType::tf32) return row[within + 4 * quarter];
    return row[2 * within + 8 * quarter] | row[2 * within + 8 * quarter + 1] << 16;
  };
  uint32_t x[4], y[2];
  for (int i = 0; i < 4; ++i) x[i] = gather(a + (group + i % 2 * 8) * kDepth, i / 2);
  for (int i = 0; i < 2; ++i) y[i] = gather(b + group * kDepth, i);
  float sum[4];
  for (int i = 0; i < 4; ++i) sum[i] = d[(group + i / 2 * 8) * 8 + 2 * within + i % 2];
  mma<Type>(sum, x, y);
  for (int i = 0; i < 4; ++i) d[(group + i / 2 * 8) * 8 + 2 * within + i % 2] = sum[i];
}

template <MmaType Type>
void expect_product() {
  constexpr size_t kDepth = kMmaDepth<Type>;
  const std::vector<int> a = small_numbers(16 * kDepth, 1), b = small_numbers(8 * kDepth, 2),
                         c = small_numbers(128, 3);
  std::vector<uint32_t> encoded_a, encoded_b;
  for (int number : a) encoded_a.push_back(encode(Type, number));
  for (int number : b) encoded_b.push_back(encode(Type, number));
  std::vector<float> d(c.begin(), c.end());
  launch("product", product_kernel<Type>, 1, 32, 0, nullptr, encoded_a.data(), encoded_b.data(), d.data());
  for (size_t m = 0; m < 16; ++m) {
    for (size_t n = 0; n < 8; ++n) {
      int sum = c[m * 8 + n];
      for (size_t k = 0; k < kDepth; ++k) sum += a[m * kDepth + k] * b[n * kDepth + k];
      EXPECT(d[m * 8 + n] == static_cast<float>(sum));
    }
  }
}

TEST(products) {
  expect_product<MmaType::tf32>();
  expect_product<MmaType::bfloat16>();
  expect_product<MmaType::float16>();
}

__global__ void accumulate_kernel(float x, float y, float* d) {
  uint32_t a[4] = {}, b[2] = {};
  if (threadIdx.x == 0) a[0] = to_tf32(x), b[0] = to_tf32(y);
  float sum[4] = {d[0], 0, 0, 0};
  mma<MmaType::tf32>(sum, a, b);
  if (threadIdx.x == 0) d[0] = sum[0];
}

// A sum that float cannot hold is chopped, not rounded: kernels may not count on better.
TEST(sums_are_chopped) {
  for (float sign : {1.0f, -1.0f}) {
    float d = sign;
    launch("accumulate", accumulate_kernel, 1, 32, 0, nullptr, sign * 0.75f, std::ldexp(1.0f, -23), &d);
    EXPECT(d == sign);
  }
  float d = 3e38f;
  launch("accumulate", accumulate_kernel, 1, 32, 0, nullptr, 1e20f, 1e20f, &d);
  EXPECT(std::isinf(d));
  launch("accumulate", accumulate_kernel, 1, 32, 0, nullptr, NAN, 1.0f, &d);
  EXPECT(std::isnan(d));
}

TEST(tf32_rounds_to_nearest) {
  const auto rounded = [](float x) { return std::bit_cast<float>(to_tf32(x)); };
  const float ulp = std::ldexp(1.0f, -10);
  EXPECT(rounded(1 + 0.49f * ulp) == 1 && rounded(1 + 0.5f * ulp) == 1 + ulp &&
         rounded(-1 - 0.5f * ulp) == -1 - ulp);
  EXPECT(rounded(2 - 0.4f * ulp) == 2 && rounded(0.0f) == 0 && std::signbit(rounded(-0.0f)));
  EXPECT(std::isinf(rounded(INFINITY)) && std::isinf(rounded(3.4028e38f)) && std::isnan(rounded(NAN)));
  EXPECT(rounded(1e-40f) > 0 && rounded(1e-40f) < 2e-40f);
}

// 32 rows of 8 values; lane l names the row `order[l]`.
template <bool Transposed>
__global__ void load_kernel(const int* order, uint32_t* registers) {
  FASTARCH_SHARED(uint16_t, rows, [32][8]);
  for (int i = 0; i < 8; ++i) rows[threadIdx.x][i] = static_cast<uint16_t>(8 * threadIdx.x + i);
  __syncthreads();
  uint32_t loaded[4];
  load_matrices<Transposed>(loaded, rows[order[threadIdx.x]]);
  for (int i = 0; i < 4; ++i) registers[4 * threadIdx.x + i] = loaded[i];
}

template <bool Transposed>
void expect_load() {
  std::vector<int> order(32);
  for (int i = 0; i < 32; ++i) order[static_cast<size_t>(i)] = (7 * i + 3) % 32;
  std::vector<uint32_t> registers(128);
  launch("load", load_kernel<Transposed>, 1, 32, 0, nullptr, order.data(), registers.data());
  for (size_t lane = 0; lane < 32; ++lane) {
    for (size_t matrix = 0; matrix < 4; ++matrix) {
      const auto element = [&](size_t row, size_t column) {
        return static_cast<uint32_t>(8 * order[8 * matrix + row]) + static_cast<uint32_t>(column);
      };
      const size_t quad = lane / 4, two = lane % 4 * 2;
      const uint32_t low = Transposed ? element(two, quad) : element(quad, two),
                     high = Transposed ? element(two + 1, quad) : element(quad, two + 1);
      EXPECT(registers[4 * lane + matrix] == (low | high << 16));
    }
  }
}

TEST(matrices_from_shared_memory) {
  expect_load<false>();
  expect_load<true>();
}

// Each thread copies `Bytes` of `x`, of which `valid` count, into one of three stages; waits are as deep as
// allowed.
template <int Bytes>
__global__ void stages_kernel(const float* x, float* y, int valid, int* early) {
  constexpr int kEach = Bytes / 4;
  FASTARCH_SHARED(float, stage, [3][32 * kEach]);
  const int mine = static_cast<int>(threadIdx.x) * kEach;
  for (int s = 0; s < 3; ++s) {
    copy_async<Bytes>(&stage[s][mine], x + (s * 32 * kEach + mine), valid);
    commit_copies();
  }
  const auto arrived = [&](int s) { return !std::isnan(stage[s][mine]); };
  if (arrived(0) || arrived(1) || arrived(2)) *early = 1;
  wait_copies<2>();
  if (!arrived(0) || arrived(1)) *early = 1;
  wait_copies<1>();
  if (!arrived(1) || arrived(2)) *early = 1;
  wait_copies<0>();
  for (int s = 0; s < 3; ++s)
    for (int i = 0; i < kEach; ++i) y[s * 32 * kEach + mine + i] = stage[s][mine + i];
}

template <int Bytes>
void expect_copies() {
  constexpr size_t kEach = Bytes / 4, kCount = 3 * 32 * kEach;
  for (size_t valid = 0; valid <= kEach; ++valid) {
    alignas(16) float x[kCount];
    for (size_t i = 0; i < kCount; ++i) x[i] = static_cast<float>(i + 1);
    std::vector<float> y(kCount, NAN);
    int early = 0;
    launch("stages", stages_kernel<Bytes>, 1, 32, 0, nullptr, static_cast<const float*>(x), y.data(),
           static_cast<int>(4 * valid), &early);
    EXPECT(early == 0);
    for (size_t i = 0; i < kCount; ++i) EXPECT(y[i] == (i % kEach < valid ? x[i] : 0.0f));
  }
}

TEST(asynchronous_copies) {
  expect_copies<4>();
  expect_copies<8>();
  expect_copies<16>();
}

__global__ void misaligned_kernel(const float* x, bool load) {
  FASTARCH_SHARED(float, tile, [64]);
  uint32_t registers[4];
  if (load)
    load_matrices(registers, &tile[1]);
  else
    copy_async<16>(tile, x + 1, 16);
}

TEST(misaligned_addresses) {
  alignas(16) const float x[8] = {};
  const auto error = [&](bool load) {
    return error_of([&] { launch("misaligned", misaligned_kernel, 1, 32, 0, nullptr, x, load); });
  };
  EXPECT(contains(error(true), "the row's address is not a multiple of 16"));
  EXPECT(contains(error(false), "an address is not a multiple of 16"));
}

}  // namespace

int main(int argc, char** argv) { return harness::main(argc, argv); }
