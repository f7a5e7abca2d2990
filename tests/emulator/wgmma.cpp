// The multiply for sm_90a: what it takes, and its ring of stages under preemption and the sanitizers.
#include "gemm/wgmma.h"

#include <cmath>
#include <random>

#include "core/float16.h"
#include "harness.h"

using namespace fastarch;
using namespace fastarch::cuda;

namespace {

template <class T, bool AAlongK, bool BAlongK, bool RowSums>
struct Product {
  using Value = T;
  static constexpr bool kRowSums = RowSums;
  using Parts = Operands<Matrix<T, AAlongK>, Matrix<T, BAlongK>, MatrixResult<T>, T>;

  Parts operands;

  __device__ const Parts& at(int) const { return operands; }
};

struct Sizes {
  int64_t m, n, k;
};

template <class T>
float number(T x) {
  if constexpr (std::is_same_v<T, float>)
    return x;
  else
    return to_float(x);
}

template <class T>
std::vector<T> small_numbers(int64_t count, unsigned seed) {  // exact in every type, and so are their sums
  std::mt19937 random(seed);
  std::vector<T> numbers(static_cast<size_t>(count));
  for (T& x : numbers) {
    const auto value = static_cast<float>(static_cast<int>(random() % 5) - 2);
    if constexpr (std::is_same_v<T, float>)
      x = value;
    else
      x = round_to<T>(value);
  }
  return numbers;
}

// Whether it took the product; if so, every result is right.
template <class T, bool AAlongK, bool BAlongK, bool RowSums>
bool takes(const Sizes& s, Precision precision = Precision::tf32, int64_t offset = 0) {
  const auto a = small_numbers<T>(s.m * s.k + offset, 1), b = small_numbers<T>(s.n * s.k, 2);
  std::vector<T> result(static_cast<size_t>(s.m * s.n), T{}), row_sums(static_cast<size_t>(s.m), T{});
  const Product<T, AAlongK, BAlongK, RowSums> problem{{{a.data() + offset, s.m, s.k, AAlongK ? s.k : s.m},
                                                       {b.data(), s.n, s.k, BAlongK ? s.k : s.n},
                                                       {result.data(), s.n, nullptr, Activation::none},
                                                       s.m,
                                                       s.n,
                                                       s.k,
                                                       RowSums ? row_sums.data() : nullptr}};
  if (!multiply_wgmma("wgmma", problem, {1, s.m, s.n, s.k}, RowSums, nullptr, precision)) return false;
  const auto at = [](const std::vector<T>& x, int64_t i) { return number(x[static_cast<size_t>(i)]); };
  for (int64_t i = 0; i < s.m; ++i) {
    float row_sum = 0;
    for (int64_t l = 0; l < s.k; ++l) row_sum += at(a, offset + (AAlongK ? i * s.k + l : l * s.m + i));
    EXPECT(!RowSums || at(row_sums, i) == row_sum);
    for (int64_t j = 0; j < s.n; ++j) {
      float sum = 0;
      for (int64_t l = 0; l < s.k; ++l)
        sum += at(a, offset + (AAlongK ? i * s.k + l : l * s.m + i)) *
               at(b, BAlongK ? j * s.k + l : l * s.n + j);
      if constexpr (!std::is_same_v<T, float>) sum = to_float(round_to<T>(sum));
      EXPECT(at(result, i * s.n + j) == sum);
    }
  }
  emulator::check_leaks("wgmma");
  return true;
}

TEST(what_it_takes) {
  wgmma_switch() = false;
  EXPECT((!takes<bfloat16, true, true, false>({64, 64, 64})));
  wgmma_switch() = true;
  EXPECT((takes<bfloat16, true, true, false>({64, 64, 64})));
  EXPECT((takes<float, true, true, false>({64, 65, 68})));
  EXPECT((!takes<float, true, true, false>({64, 64, 64}, Precision::float32)));
  EXPECT((!takes<float, true, true, false>({64, 64, 64}, Precision::tf32x3)));
  EXPECT((!takes<float, true, false, false>({64, 64, 64})));
  static_assert(!kWgmmaTakes<double, true, true, false>);
  EXPECT((!takes<bfloat16, true, true, false>({63, 64, 64})));
  EXPECT((!takes<bfloat16, true, true, false>({64, 64, 56})));
  EXPECT((!takes<bfloat16, true, true, false>({64, 64, 65})));  // rows that do not start at 16 bytes
  EXPECT((!takes<bfloat16, true, false, false>({64, 65, 64})));
  EXPECT((!takes<bfloat16, true, true, false>({64, 64, 64}, Precision::float32, 1)));
}

// Tiles of 128 and of 64 rows, k whole and in slices, the last piece of each extent a rest.
TEST(pieces) {
  wgmma_switch() = true;
  for (const int multiprocessors : {1, 12}) {
    emulator::device().multiprocessors = multiprocessors;
    EXPECT((takes<bfloat16, false, false, true>({136, 264, 200})));
    EXPECT((takes<float16, true, false, false>({70, 136, 328})));
    EXPECT((takes<float, true, true, false>({130, 65, 200})));
  }
}

}  // namespace

int main(int argc, char** argv) { return harness::main(argc, argv); }
