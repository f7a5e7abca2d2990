// What kernels may rely on: every operation of the emulator against its definition, and what happens after
// errors.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/cluster.h"
#include "core/cooperative.h"
#include "core/reduce.h"
#include "harness.h"

using namespace fastarch::cuda;
using fastarch::emulator::device;
using fastarch::emulator::set_seed;
using harness::contains;
using harness::error_of;

namespace {

constexpr unsigned kFull = 0xffffffffu;

__global__ void index_kernel(int* y) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  atomicAdd(&y[block * blockDim.x * blockDim.y * blockDim.z + thread], static_cast<int>(1 + thread));
}

TEST(indices) {
  const dim3 grid(3, 2, 2), block(5, 3, 2);
  std::vector<int> y(12 * 30);
  launch("indices", index_kernel, grid, block, 0, nullptr, y.data());
  for (size_t i = 0; i < y.size(); ++i) EXPECT(y[i] == static_cast<int>(1 + i % 30));
}

// Which lane each shuffle reads, written from the definition in the PTX manual.
template <class T>
__global__ void shuffle_kernel(T* y, int operand, int width) {
  const T value = static_cast<T>(threadIdx.x) + T(0.5);
  y[threadIdx.x] = __shfl_sync(kFull, value, operand, width);
  y[32 + threadIdx.x] = __shfl_up_sync(kFull, value, static_cast<unsigned>(operand), width);
  y[64 + threadIdx.x] = __shfl_down_sync(kFull, value, static_cast<unsigned>(operand), width);
  y[96 + threadIdx.x] = __shfl_xor_sync(kFull, value, operand, width);
}

template <class T>
void check_shuffles() {
  for (int width : {1, 2, 4, 8, 16, 32}) {
    for (int operand = 0; operand < 32; ++operand) {
      std::vector<T> y(128);
      launch("shuffle", shuffle_kernel<T>, 1, 32, 0, nullptr, y.data(), operand, width);
      for (int lane = 0; lane < 32; ++lane) {
        const int first = lane / width * width, last = first + width - 1;
        const int source[4] = {first + operand % width, lane - operand >= first ? lane - operand : lane,
                               lane + operand <= last ? lane + operand : lane,
                               (lane ^ operand) <= last ? lane ^ operand : lane};
        for (int kind = 0; kind < 4; ++kind)
          EXPECT(y[static_cast<size_t>(32 * kind + lane)] == static_cast<T>(source[kind]) + T(0.5));
      }
    }
  }
}

TEST(shuffles) {
  check_shuffles<float>();
  check_shuffles<double>();
  check_shuffles<int>();
  check_shuffles<unsigned long long>();
}

// Both halves of a warp shuffle on their own, and then together: lanes that wait with another mask are not at
// fault.
__global__ void partial_mask_kernel(int* y) {
  const int t = static_cast<int>(threadIdx.x);
  int value = t;
  if (t < 16) value = __shfl_xor_sync(0x0000ffffu, value, 15);
  if (t >= 24) value = __shfl_xor_sync(0xff000000u, value, 7);
  y[t] = __shfl_xor_sync(kFull, value, 1);
}

TEST(partial_masks) {
  for (uint64_t seed = 0; seed < 100; ++seed) {
    set_seed(seed);
    std::vector<int> y(32);
    launch("partial_masks", partial_mask_kernel, 1, 32, 0, nullptr, y.data());
    for (int t = 0; t < 32; ++t) {
      const int other = t ^ 1;
      EXPECT(y[static_cast<size_t>(t)] == (other < 16 ? 15 - other : other >= 24 ? other ^ 7 : other));
    }
  }
}

__global__ void vote_kernel(unsigned* y, unsigned pattern) {
  const int mine = pattern >> threadIdx.x & 1u;
  y[threadIdx.x] = __ballot_sync(kFull, mine);
  y[32 + threadIdx.x] = static_cast<unsigned>(__any_sync(kFull, mine));
  y[64 + threadIdx.x] = static_cast<unsigned>(__all_sync(kFull, mine));
  y[96 + threadIdx.x] = __activemask();
  __syncwarp();
}

TEST(votes) {
  for (unsigned pattern : {0u, 1u, 0x80000000u, 0xdeadbeefu, kFull}) {
    std::vector<unsigned> y(128);
    launch("votes", vote_kernel, 1, 32, 0, nullptr, y.data(), pattern);
    for (size_t t = 0; t < 32; ++t) {
      EXPECT(y[t] == pattern);
      EXPECT(y[32 + t] == (pattern != 0));
      EXPECT(y[64 + t] == (pattern == kFull));
      EXPECT(y[96 + t] == kFull);
    }
  }
}

// Lanes that have exited, or that a block of 40 threads does not have, are not waited for.
__global__ void short_warp_kernel(unsigned* y) {
  if (threadIdx.x == 3) return;
  y[threadIdx.x] = __ballot_sync(kFull, 1);
  __syncwarp();
}

TEST(short_warps) {
  for (uint64_t seed = 0; seed < 100; ++seed) {
    set_seed(seed);
    std::vector<unsigned> y(40);
    launch("short_warps", short_warp_kernel, 1, 40, 0, nullptr, y.data());
    EXPECT(y[0] == (kFull & ~8u) && y[39] == 0xffu);
  }
}

__global__ void barrier_vote_kernel(int* y, int n) {
  const int mine = static_cast<int>(threadIdx.x) < n;
  y[3 * threadIdx.x] = __syncthreads_count(mine);
  y[3 * threadIdx.x + 1] = __syncthreads_and(mine);
  y[3 * threadIdx.x + 2] = __syncthreads_or(mine);
}

TEST(barrier_votes) {
  for (int n : {0, 1, 50, 96}) {
    std::vector<int> y(3 * 96);
    launch("barrier_votes", barrier_vote_kernel, 1, 96, 0, nullptr, y.data(), n);
    for (size_t t = 0; t < 96; ++t)
      EXPECT(y[3 * t] == n && y[3 * t + 1] == (n == 96) && y[3 * t + 2] == (n > 0));
  }
}

struct Counters {
  int add, sub, min, max;
  unsigned set, inc, dec, flip;
  unsigned long long wide, cas;
  float real;
  int lock, guarded;
};

__global__ void atomic_kernel(Counters* c) {
  const int t = static_cast<int>(global_thread());
  atomicAdd(&c->add, t);
  atomicSub(&c->sub, 2);
  atomicMin(&c->min, 5 - t);
  atomicMax(&c->max, t);
  atomicOr(&c->set, 1u << (t % 32));
  atomicXor(&c->flip, 1u);
  atomicInc(&c->inc, 6);
  atomicDec(&c->dec, 6);
  atomicAdd(&c->wide, 1ull << 33);
  atomicAdd(&c->real, 0.5f);
  for (unsigned long long old = c->cas, seen;; old = seen) {
    seen = atomicCAS(&c->cas, old, old + 3);
    if (seen == old) break;
  }
  while (atomicExch(&c->lock, 1) != 0) {
  }
  const int before = c->guarded;
  __threadfence();
  c->guarded = before + 1;
  atomicExch(&c->lock, 0);
}

TEST(atomics) {
  for (uint64_t seed = 0; seed < 10; ++seed) {
    set_seed(seed);
    Counters c{};
    launch("atomics", atomic_kernel, 3, 100, 0, nullptr, &c);
    EXPECT(c.add == 300 * 299 / 2 && c.sub == -600 && c.min == 5 - 299 && c.max == 299);
    EXPECT(c.set == kFull && c.flip == 0 && c.inc == 300 % 7 && c.dec == (7 - 300 % 7) % 7);
    EXPECT(c.wide == 300ull << 33 && c.real == 150.0f && c.cas == 900 && c.lock == 0 && c.guarded == 300);
  }
}

template <class T>
__global__ void reduce_kernel(const T* x, T* y, int rounds) {
  for (int i = 0; i < rounds; ++i) {  // several in a row use the same scratch
    const T value = x[i * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x)];
    const T sum = block_sum(value), largest = block_max(value);
    y[2 * (i * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x))] = sum;
    y[2 * (i * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x)) + 1] = largest;
  }
}

TEST(reductions) {
  constexpr size_t kRounds = 3;
  for (size_t threads : {32, 64, 256, 1024}) {
    std::vector<double> x(kRounds * threads), first;
    for (size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<double>(i));
    for (uint64_t seed = 0; seed < 5; ++seed) {
      set_seed(seed);
      std::vector<double> y(2 * x.size());
      launch("reductions", reduce_kernel<double>, 1, static_cast<unsigned>(threads), 0, nullptr, x.data(),
             y.data(), static_cast<int>(kRounds));
      for (size_t round = 0; round < kRounds; ++round) {
        const auto begin = x.begin() + static_cast<ptrdiff_t>(round * threads),
                   end = begin + static_cast<ptrdiff_t>(threads);
        const double sum = std::accumulate(begin, end, 0.0), largest = *std::max_element(begin, end);
        for (size_t t = 0; t < threads; ++t) {
          EXPECT(std::abs(y[2 * (round * threads + t)] - sum) < 1e-9);
          EXPECT(y[2 * (round * threads + t) + 1] == largest);
        }
      }
      if (first.empty()) first = y;
      EXPECT(first == y);  // bit for bit, whatever the order of the threads
    }
  }
}

TEST(max_passes_nan_on) {
  std::vector<float> x(64, 1.0f), y(128);
  x[17] = NAN;
  launch("reductions", reduce_kernel<float>, 1, 64, 0, nullptr, x.data(), y.data(), 1);
  for (size_t t = 0; t < 64; ++t) EXPECT(std::isnan(y[2 * t + 1]));
}

// All blocks add their part, and after the grid's barrier each one sees the total.
__global__ void grid_kernel(int* total, int* seen, int rounds) {
  for (int i = 0; i < rounds; ++i) {
    atomicAdd(&total[i], 1);
    grid_sync();
    seen[i * grid_threads() + global_thread()] = total[i];
  }
}

TEST(grid_barrier) {
  device().multiprocessors = 4;
  const int blocks = cooperative_blocks("grid", grid_kernel, 128, 0);
  EXPECT(blocks == 4 * 2048 / 128);
  for (uint64_t seed = 0; seed < 3; ++seed) {
    set_seed(seed);
    std::vector<int> total(3), seen(static_cast<size_t>(3 * 128 * blocks));
    launch_cooperative("grid", grid_kernel, static_cast<unsigned>(blocks), 128, 0, nullptr, total.data(),
                       seen.data(), 3);
    for (int value : seen) EXPECT(value == 128 * blocks);
  }
  std::vector<int> total(1), seen(1 << 20);
  const auto too_many = static_cast<unsigned>(blocks) + 1;
  EXPECT(contains(error_of([&] {
                    launch_cooperative("grid", grid_kernel, too_many, 128, 0, nullptr, total.data(),
                                       seen.data(), 1);
                  }),
                  "a cooperative launch of 65 blocks, the device holds 64"));
  EXPECT(contains(
      error_of([&] { launch("grid", grid_kernel, 1, 32, 0, nullptr, total.data(), seen.data(), 1); }),
      "in a launch that is not cooperative"));
}

__global__ void grid_divergent_kernel() {
  if (blockIdx.x > 0) grid_sync();
}

TEST(divergent_grid_barrier) {
  EXPECT(contains(error_of([] { launch_cooperative("grid", grid_divergent_kernel, 4, 32, 0, nullptr); }),
                  "barrier not reached by all threads"));
}

__global__ void cluster_kernel(int* ranks) {
  FASTARCH_SHARED(int, sum, );
  if (threadIdx.x == 0) sum = 0;
  cluster_sync();
  atomicAdd(map_shared_rank(&sum, 0), cluster_rank());
  cluster_sync();
  if (threadIdx.x == 0) ranks[blockIdx.x] = *map_shared_rank(&sum, 0) + cluster_rank();
  cluster_sync();
}

TEST(clusters) {
  for (const int size : {1, 2, 4, 8}) {
    std::vector<int> ranks(static_cast<size_t>(3 * size));
    launch_clusters("cluster", cluster_kernel, 3, size, dim3(64), 0, nullptr, ranks.data());
    for (int b = 0; b < 3 * size; ++b)
      EXPECT(ranks[static_cast<size_t>(b)] == 64 * size * (size - 1) / 2 + b % size);
  }
  std::vector<int> ranks(16);
  EXPECT(contains(error_of([&] {
                    launch_clusters("cluster", cluster_kernel, 1, 16, dim3(64), 0, nullptr, ranks.data());
                  }),
                  "in clusters of 16, expected a divisor of 16 up to 8"));
  EXPECT(contains(error_of([&] { launch("cluster", cluster_kernel, 1, 64, 0, nullptr, ranks.data()); }),
                  "in a launch without clusters"));
}

// Every block has its own shared memory, and finds it filled with NaN.
__global__ void fresh_kernel(int* stale) {
  FASTARCH_SHARED(float, tile, [64]);
  FASTARCH_SHARED(double, wide, [8]);
  FASTARCH_SHARED(int, flag, );
  FASTARCH_DYNAMIC_SHARED(float, extra);
  if (threadIdx.x == 0) {
    for (int i = 0; i < 64; ++i)
      *stale += !std::isnan(tile[i]) + !std::isnan(extra[i]) + !std::isnan(wide[i % 8]);
    *stale += flag != -1;
    *stale += reinterpret_cast<uintptr_t>(tile) % 16 != 0 || reinterpret_cast<uintptr_t>(extra) % 16 != 0;
  }
  __syncthreads();
  tile[threadIdx.x] = extra[threadIdx.x] = 1.0f;
  wide[threadIdx.x % 8] = 1.0;
  flag = 0;
}

TEST(fresh_shared_memory) {
  int stale = 0;
  launch("fresh", fresh_kernel, 5, 64, 64 * sizeof(float), nullptr, &stale);
  launch_cooperative("fresh", fresh_kernel, 5, 64, 64 * sizeof(float), nullptr, &stale);
  EXPECT(stale == 0);
}

TEST(intrinsics) {
  EXPECT(__popc(0xf0f0u) == 8 && __clz(1) == 31 && __ffs(8) == 4 && __ffs(0) == 0 &&
         __brev(1u) == 0x80000000u);
  EXPECT(__umulhi(0xffffffffu, 0xffffffffu) == 0xfffffffeu && __mulhi(-1, 1) == -1);
  EXPECT(__umul64hi(~0ull, 2) == 1 && __float_as_uint(1.0f) == 0x3f800000u &&
         __int_as_float(0x40000000) == 2.0f);
  EXPECT(__funnelshift_l(0x80000000u, 1u, 1) == 3u && __funnelshift_r(1u, 3u, 1) == 0x80000000u);
  EXPECT(min(-1, 2) == -1 && max(-1, 2u) == 0xffffffffu && max(1.0f, NAN) == 1.0f && min(2.0, 1.0f) == 1.0);
  EXPECT(__saturatef(NAN) == 0.0f && __saturatef(2.0f) == 1.0f && __float2int_rn(2.5f) == 2);
  EXPECT(alignof(float4) == 16 && alignof(float2) == 8 && alignof(double2) == 16 && sizeof(float3) == 12);
}

}  // namespace

int main(int argc, char** argv) { return harness::main(argc, argv); }
