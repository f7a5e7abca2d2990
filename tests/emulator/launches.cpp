// What launchers may rely on: the limits of a launch, errors and what comes after them, seeds, several host
// threads.
#include <algorithm>
#include <set>
#include <thread>

#include "core/buffer.h"
#include "core/reduce.h"
#include "harness.h"

using namespace fastarch::cuda;
using fastarch::emulator::device;
using fastarch::emulator::set_seed;
using harness::contains;
using harness::error_of;

namespace {

__global__ void large_static_kernel() {
  FASTARCH_SHARED(float, first, [48 * 256]);
  FASTARCH_SHARED(float, one_more, [1]);
  first[0] = one_more[0] = 0.0f;
}

__global__ void static_and_dynamic_kernel() {
  FASTARCH_SHARED(float, tile, [2 * 256]);
  tile[threadIdx.x] = 0.0f;
}

__global__ void dynamic_kernel(size_t bytes) {
  FASTARCH_DYNAMIC_SHARED(char, scratch);
  scratch[bytes - 1] = 0;
}

TEST(shared_memory_limits) {
  launch("dynamic", dynamic_kernel, 1, 32, 227 * 1024, nullptr, size_t{227 * 1024});
  EXPECT(
      contains(error_of([] { launch("dynamic", dynamic_kernel, 1, 32, 227 * 1024 + 1, nullptr, size_t{1}); }),
               "232449 bytes of dynamic shared memory, a block has at most 232448"));
  EXPECT(contains(error_of([] { launch("large_static", large_static_kernel, 1, 32, 0, nullptr); }),
                  "static shared memory: 49156 bytes with one_more, at most 49152"));
  EXPECT(contains(error_of([] { launch("both", static_and_dynamic_kernel, 1, 32, 226 * 1024, nullptr); }),
                  "2048 bytes static with tile and 231424 dynamic, at most 232448"));
  // Without asking first, a kernel has 48 KB.
  cudaLaunchConfig_t config{};
  config.dynamicSmemBytes = 49153;
  EXPECT(cudaLaunchKernelEx(&config, large_static_kernel) == cudaErrorInvalidValue);
}

// As another thread would, between what this one asks for and its launch: a launch that needs less.
TEST(shared_memory_is_never_taken_back) {
  launch("dynamic", dynamic_kernel, 1, 32, 100 * 1024, nullptr, size_t{100 * 1024});
  launch("dynamic", dynamic_kernel, 1, 32, 60 * 1024, nullptr, size_t{60 * 1024});
  cudaLaunchConfig_t config{};
  config.gridDim = 1, config.blockDim = 32, config.dynamicSmemBytes = 100 * 1024;
  EXPECT(cudaLaunchKernelEx(&config, dynamic_kernel, size_t{100 * 1024}) == cudaSuccess);
  config.dynamicSmemBytes += 1;
  EXPECT(cudaLaunchKernelEx(&config, dynamic_kernel, size_t{1}) == cudaErrorInvalidValue);

  std::vector<std::thread> threads;
  std::string errors[4];
  for (int id = 0; id < 4; ++id)
    threads.emplace_back([id, &errors] {
      try {
        for (size_t kilobytes = 50; kilobytes <= 200; kilobytes += 10) {
          const size_t bytes = (id % 2 ? 250 - kilobytes : kilobytes) * 1024;
          launch("dynamic", dynamic_kernel, 1, 32, bytes, nullptr, bytes);
        }
      } catch (const std::runtime_error& error) {
        errors[id] = error.what();
      }
    });
  for (std::thread& thread : threads) thread.join();
  for (const std::string& error : errors) EXPECT(error.empty());
}

__global__ void nothing_kernel() {}

TEST(launch_limits) {
  const auto error = [](dim3 grid, dim3 block) {
    return error_of([&] { launch("nothing", nothing_kernel, grid, block, 0, nullptr); });
  };
  launch("nothing", nothing_kernel, dim3(1, 1, 65535), dim3(1), 0, nullptr);
  launch("nothing", nothing_kernel, 1, dim3(4, 4, 64), 0, nullptr);
  EXPECT(contains(error(0, 32), "grid (0, 1, 1)"));
  EXPECT(contains(error(dim3(1, 65536), 32), "grid (1, 65536, 1)"));
  EXPECT(contains(error(0x80000000u, 32), "grid (2147483648, 1, 1)"));
  EXPECT(contains(error(1, 0), "block (0, 1, 1)"));
  EXPECT(contains(error(1, 1025), "block (1025, 1, 1)"));
  EXPECT(contains(error(1, dim3(32, 33)), "block (32, 33, 1)"));
  EXPECT(contains(error(1, dim3(1, 1, 65)), "block (1, 1, 65)"));
  const std::string text = error(1, 1025);
  EXPECT(contains(text, "[nothing] cudaLaunchKernelEx failed at launches.cpp:"));
  EXPECT(contains(text, "cudaErrorInvalidConfiguration"));
}

int alive = 0;

struct Alive {
  Alive() { ++alive; }
  ~Alive() { --alive; }
};

// The frames of threads that were preempted when another one failed are dropped.
bool all_unwound() {
#if defined(__SANITIZE_THREAD__)
  return true;
#else
  return alive == 0;
#endif
}

__global__ void throwing_kernel(int who) {
  const Alive object;
  __syncwarp();
  if (static_cast<int>(threadIdx.x) == who) throw std::runtime_error("planted");
  __syncthreads();
}

__global__ void trap_kernel() { __trap(); }

__global__ void nested_kernel() { launch("inner", nothing_kernel, 1, 1, 0, nullptr); }

// After any error the frames of all threads are unwound, and the next launch is as good as new.
TEST(recovery) {
  for (int who : {0, 31, 40, 255}) {
    const std::string error = error_of([&] { launch("throwing", throwing_kernel, 3, 256, 0, nullptr, who); });
    EXPECT(contains(error, "threw: planted") && contains(error, "[throwing]"));
    EXPECT(all_unwound());
    EXPECT(cudaGetLastError() == cudaSuccess);
    launch("throwing", throwing_kernel, 3, 256, 0, nullptr, -1);
    EXPECT(all_unwound());
  }
  EXPECT(contains(error_of([] { launch("trap", trap_kernel, 1, 1, 0, nullptr); }), "__trap at launches.cpp"));
  EXPECT(contains(error_of([] { launch("nested", nested_kernel, 1, 1, 0, nullptr); }),
                  "may not launch a kernel"));
  EXPECT(contains(error_of([] { __syncthreads(); }), "called outside a kernel"));
}

__global__ void order_kernel(int* order, int* count) {
  order[atomicAdd(count, 1)] = static_cast<int>(global_thread());
}

std::vector<int> order_of_threads() {
  std::vector<int> order(4 * 64);
  int count = 0;
  launch("order", order_kernel, 4, 64, 0, nullptr, order.data(), &count);
  return order;
}

TEST(seeds) {
  set_seed(1);
  const std::vector<int> first = order_of_threads(), second = order_of_threads();
  EXPECT(first != second);  // two launches differ
  set_seed(2);
  EXPECT(order_of_threads() != first);
  set_seed(1);
  EXPECT(order_of_threads() == first && order_of_threads() == second);
  std::set<int> all(first.begin(), first.end());
  EXPECT(all.size() == first.size());
}

__global__ void sum_kernel(const int* x, int* y, int n) {
  int sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) sum += x[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) *y = sum;
}

// Host threads that launch at once take turns; buffers are accounted to the thread that made them.
TEST(host_threads) {
  std::vector<std::thread> threads;
  int right[4] = {};
  for (int id = 0; id < 4; ++id) {
    threads.emplace_back([id, &right] {
      for (int round = 0; round < 20; ++round) {
        const Buffer<int> x(500, nullptr);
        std::fill_n(x.data(), 500, id + round);
        int y = 0;
        launch("sum", sum_kernel, 1, 64, 0, nullptr, x.data(), &y, 500);
        std::string error;
        if (round % 5 == id)
          error = error_of([] { launch("throwing", throwing_kernel, 1, 64, 0, nullptr, 7); });
        right[id] += y == 500 * (id + round) && (error.empty() || contains(error, "planted"));
      }
      fastarch::emulator::check_leaks("host_threads");
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int count : right) EXPECT(count == 20);
}

TEST(grid_shapes) {
  EXPECT(grid_for(0, 256).x == 1 && grid_for(1, 256).x == 1 && grid_for(257, 256).x == 2);
  device().multiprocessors = 3;
  EXPECT(grid_for(int64_t{1} << 40, 256).x == 3 * 8 * 4);
}

TEST(empty_buffer) {
  const Buffer<float> none(0, nullptr);
  EXPECT(none.data() == nullptr && none.size() == 0);
  EXPECT(contains(error_of([] { const Buffer<float> huge(int64_t{1} << 61, nullptr); }),
                  "cudaErrorMemoryAllocation"));
  fastarch::emulator::check_leaks("empty_buffer");
}

}  // namespace

int main(int argc, char** argv) { return harness::main(argc, argv); }
