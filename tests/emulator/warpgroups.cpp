// Bulk copies, the barriers that count them, and the warpgroup's products, against the PTX manual's
// definitions.
#include <algorithm>
#include <cmath>

#include "core/float16.h"
#include "core/half.h"
#include "core/tensor_map.h"
#include "core/warpgroup.h"
#include "harness.h"

using namespace fastarch;
using namespace fastarch::cuda;
using harness::contains;
using harness::error_of;

namespace {

template <class T>
T* align_box(T* shared) {
  return shared + (kBoxAlignment - shared_address(shared) % kBoxAlignment) % kBoxAlignment / sizeof(T);
}

template <class T>
T encode(float x) {
  if constexpr (std::is_same_v<T, float>)
    return x;
  else
    return round_to<T>(x);
}

// Copies one box of 64 x 8 (x 3) 16-bit values to y as it lies, and says whether any of it was there early.
template <int Axes>
__global__ void box_kernel(const TensorMap map, uint16_t* y, int* early, int first0, int first1, int first2) {
  FASTARCH_DYNAMIC_SHARED(uint16_t, room);
  FASTARCH_SHARED(uint64_t, barrier, [1]);
  constexpr int kCount = 64 * 8 * (Axes == 3 ? 3 : 1);
  uint16_t* const box = align_box(room);
  if (threadIdx.x == 0) {
    init_barrier(barrier, 1);
    publish_barriers();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    arrive_expecting(barrier, kCount * 2);
    if constexpr (Axes == 3)
      load_box(box, map, barrier, first0, first1, first2);
    else
      load_box(box, map, barrier, first0, first1);
    *early = box[0] != 0xFFFF;
  }
  wait_barrier(barrier, 0);
  for (int i = static_cast<int>(threadIdx.x); i < kCount; i += 32) y[i] = box[i];
}

TEST(boxes) {
  constexpr int64_t kWide = 88, kHigh = 10, kDeep = 4;
  std::vector<uint16_t> x(kWide * kHigh * kDeep);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<uint16_t>(i + 1);
  const auto* data = reinterpret_cast<const float16*>(x.data());
  const auto expect = [&](bool deep, int first0, int first1, int first2) {
    std::vector<uint16_t> y(64 * 8 * (deep ? 3 : 1));
    int early = -1;
    if (deep)
      launch("box", box_kernel<3>, 1, 32, 8192, nullptr,
             make_tensor_map("box", data,
                             {{kWide, 2, 64}, {kHigh, kWide * 2, 8}, {kDeep, kWide * kHigh * 2, 3}}),
             y.data(), &early, first0, first1, first2);
    else
      launch("box", box_kernel<2>, 1, 32, 8192, nullptr,
             make_tensor_map("box", data, {{kWide, 2, 64}, {kHigh * kDeep, kWide * 2, 8}}), y.data(), &early,
             first0, first1, first2);
    EXPECT(early == 0);
    for (int row = 0; row < (deep ? 24 : 8); ++row) {
      for (int i = 0; i < 64; ++i) {
        const int64_t w = first0 + i, h = first1 + row % 8, d = deep ? first2 + row / 8 : 0;
        const bool inside =
            w >= 0 && w < kWide && h >= 0 && h < (deep ? kHigh : kHigh * kDeep) && d >= 0 && d < kDeep;
        const auto want = inside ? x[static_cast<size_t>((d * kHigh + h) * kWide + w)] : uint16_t{0};
        EXPECT(y[static_cast<size_t>(row * 64 + ((i / 8) ^ (row % 8)) * 8 + i % 8)] == want);
      }
    }
  };
  expect(false, 0, 0, 0);
  expect(false, 64, 35, 0);
  expect(false, -3, -2, 0);
  expect(true, 16, 1, 1);
  expect(true, -1, 7, 2);
  expect(true, 5, -1, -2);
}

// d [64, 2 * Sums] = a b for one step of 128 bytes of k; with `twice`, the same once more on top.
template <MmaType Type, bool AAlongK, bool BAlongK, int Sums>
__global__ void product_kernel(const TensorMap map_a, const TensorMap map_b, float* d, bool twice) {
  constexpr int kColumns = 2 * Sums, kDepth = Type == MmaType::tf32 ? 32 : 64, kStep = kDepth / 4;
  constexpr int kPanel = 8192;
  FASTARCH_DYNAMIC_SHARED(char, room);
  FASTARCH_SHARED(uint64_t, barrier, [1]);
  char* const a = align_box(room);
  char* const b = a + kPanel;
  if (threadIdx.x == 0) {
    init_barrier(barrier, 1);
    publish_barriers();
    arrive_expecting(barrier, kPanel + kColumns * 128);
    load_box(a, map_a, barrier, 0, 0);
    if constexpr (BAlongK) {
      load_box(b, map_b, barrier, 0, 0);
    } else {
      for (int i = 0; i < kColumns / 64; ++i) load_box(b + i * kPanel, map_b, barrier, i * 64, 0);
    }
  }
  __syncthreads();
  wait_barrier(barrier, 0);
  float sum[Sums];
  std::fill_n(sum, Sums, NAN);
  fence_products();
  for (int round = 0; round <= static_cast<int>(twice); ++round) {
    for (int k = 0; k < kDepth; k += kStep) {
      const auto at = [&](const char* panel, bool along_k) {
        return panel + (along_k ? k / kStep * kProductBytes : k * 128);
      };
      multiply_async<Type, AAlongK, BAlongK>(sum, operand_descriptor(at(a, AAlongK), kPanel, 1024),
                                             operand_descriptor(at(b, BAlongK), kPanel, 1024),
                                             round > 0 || k > 0);
    }
    commit_products();
  }
  EXPECT(std::isnan(sum[0]) && std::isnan(sum[Sums - 1]));
  wait_products<0>();
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  for (int i = 0; i < Sums; ++i)
    d[(16 * warp + lane / 4 + 8 * (i % 4 / 2)) * kColumns + 8 * (i / 4) + lane % 4 * 2 + i % 2] = sum[i];
}

template <class T, MmaType Type, bool AAlongK, bool BAlongK, int Sums>
void expect_product() {
  constexpr int kColumns = 2 * Sums, kDepth = 128 / sizeof(T);
  std::vector<T> a(64 * kDepth), b(static_cast<size_t>(kColumns) * kDepth);
  std::vector<int> x(a.size()), y(b.size());
  const auto fill = [](std::vector<int>& numbers, std::vector<T>& values, unsigned factor) {
    for (size_t i = 0; i < numbers.size(); ++i) {
      numbers[i] = static_cast<int>(i * factor % 127 % 17) - 8;
      values[i] = encode<T>(static_cast<float>(numbers[i]));
    }
  };
  fill(x, a, 7919);
  fill(y, b, 104729);
  const auto map = [](const std::vector<T>& operand, int lines, bool along_k) {
    if (along_k)
      return make_tensor_map("product", operand.data(), {{kDepth, sizeof(T), kDepth}, {lines, 128, lines}});
    return make_tensor_map("product", operand.data(),
                           {{lines, sizeof(T), 64}, {kDepth, lines * int64_t{sizeof(T)}, kDepth}});
  };
  const auto at = [](const std::vector<int>& numbers, int lines, bool along_k, int line, int k) {
    return numbers[static_cast<size_t>(along_k ? line * kDepth + k : k * lines + line)];
  };
  for (const bool twice : {false, true}) {
    std::vector<float> d(64 * kColumns, NAN);
    launch("product", product_kernel<Type, AAlongK, BAlongK, Sums>, 1, 128, 1024 + 8192 + kColumns * 128,
           nullptr, map(a, 64, AAlongK), map(b, kColumns, BAlongK), d.data(), twice);
    for (int m = 0; m < 64; ++m) {
      for (int n = 0; n < kColumns; ++n) {
        int sum = 0;
        for (int k = 0; k < kDepth; ++k) sum += at(x, 64, AAlongK, m, k) * at(y, kColumns, BAlongK, n, k);
        EXPECT(d[static_cast<size_t>(m * kColumns + n)] == static_cast<float>(twice ? 2 * sum : sum));
      }
    }
  }
}

TEST(warpgroup_products) {
  expect_product<float, MmaType::tf32, true, true, 64>();
  expect_product<float, MmaType::tf32, true, true, 128>();
  expect_product<float16, MmaType::float16, true, true, 128>();
  expect_product<bfloat16, MmaType::bfloat16, true, false, 64>();
  expect_product<bfloat16, MmaType::bfloat16, false, false, 128>();
  expect_product<float16, MmaType::float16, false, true, 64>();
}

// One thread hands numbers to 31 others through a ring of three places.
__global__ void ring_kernel(int rounds, int* sums) {
  constexpr int kPlaces = 3;
  FASTARCH_SHARED(uint64_t, full, [kPlaces]);
  FASTARCH_SHARED(uint64_t, empty, [kPlaces]);
  FASTARCH_SHARED(int, value, [kPlaces]);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kPlaces; ++i) {
      init_barrier(&full[i], 1);
      init_barrier(&empty[i], 31);
    }
    publish_barriers();
  }
  __syncthreads();
  int sum = 0;
  for (int i = 0; i < rounds; ++i) {
    const int place = i % kPlaces;
    const uint32_t parity = i / kPlaces % 2;
    if (threadIdx.x == 0) {
      wait_barrier(&empty[place], parity ^ 1);
      value[place] = i;
      arrive(&full[place]);
    } else {
      wait_barrier(&full[place], parity);
      sum += value[place];
      arrive(&empty[place]);
    }
  }
  sums[threadIdx.x] = sum;
}

TEST(barriers_in_phases) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    emulator::set_seed(seed);
    std::vector<int> sums(32);
    launch("ring", ring_kernel, 1, 32, 0, nullptr, 20, sums.data());
    for (size_t i = 1; i < 32; ++i) EXPECT(sums[i] == 190);
  }
}

// Two warps of four meet, twice over.
__global__ void named_kernel(int* y) {
  FASTARCH_SHARED(int, tile, [128]);
  const int t = static_cast<int>(threadIdx.x), pair = t / 64;
  for (int step = 0; step < 2; ++step) {
    tile[t] = step * 1000 + t;
    named_barrier(1 + pair, 64);
    y[t] = tile[t ^ 63];
    named_barrier(1 + pair, 64);
  }
}

TEST(named_barriers) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    emulator::set_seed(seed);
    std::vector<int> y(128);
    launch("named", named_kernel, 1, 128, 0, nullptr, y.data());
    for (int t = 0; t < 128; ++t) EXPECT(y[static_cast<size_t>(t)] == 1000 + (t ^ 63));
  }
}

__global__ void count_kernel(int arrivals, int announced) {
  FASTARCH_SHARED(uint64_t, barrier, [2]);
  init_barrier(barrier, 2);
  if (announced == 0) arrive(&barrier[1]);
  arrive_expecting(barrier, static_cast<uint32_t>(announced));
  for (int i = 1; i < arrivals; ++i) arrive(barrier);
}

TEST(refusals) {
  alignas(16) float16 x[64 * 9] = {};
  const auto refused = [&](const float16* data, int64_t extent, int64_t pitch, int box) {
    return error_of([&] { make_tensor_map("map", data, {{64, 2, 64}, {extent, pitch, box}}); });
  };
  EXPECT(contains(refused(x + 1, 8, 128, 8), "the tensor's address is not a multiple of 16"));
  EXPECT(contains(refused(x, 8, 120, 8), "a pitch of 120 bytes, expected a multiple of 16"));
  EXPECT(contains(refused(x, 0, 128, 8), "axis 1 has extent 0"));
  EXPECT(contains(refused(x, 8, 128, 257), "axis 1 of the box has extent 257"));
  const auto counted = [](int arrivals, int announced) {
    return error_of([&] { launch("count", count_kernel, 1, 1, 0, nullptr, arrivals, announced); });
  };
  EXPECT(contains(counted(3, 16), "more arrivals than the 2 of the barrier's phase"));
  EXPECT(contains(counted(1, 1 << 20), "a barrier expects 1048576 bytes"));
  EXPECT(contains(counted(1, 0), "the barrier was not initialised"));
}

}  // namespace

int main(int argc, char** argv) { return harness::main(argc, argv); }
