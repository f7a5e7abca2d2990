// The blocked multiply, whose double buffer and whose way out through shared memory live by their barriers.
#include <array>
#include <cmath>
#include <random>

#include "gemm/matrix.h"
#include "gemm/simt.h"
#include "harness.h"

using namespace fastarch;
using namespace fastarch::cuda;

namespace {

template <bool AlongK>
struct Product {
  using Value = float;
  static constexpr bool kRowSums = true;
  Operands<Matrix<float, AlongK>, Matrix<float, AlongK>, MatrixResult<float>, float> operands;

  __device__ const auto& at(int) const { return operands; }
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

}  // namespace

TEST(whole) { expect_products(1); }
TEST(split) { expect_products(132); }

int main(int argc, char** argv) { return harness::main(argc, argv); }
