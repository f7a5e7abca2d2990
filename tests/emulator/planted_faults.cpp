// Small kernels with one planted fault each, beside the correct twin. `Faulty` chooses: the twins differ in
// nothing else. A twin must pass for every seed; the fault must show for some seed (a wrong result) or always
// (an error).
#include <algorithm>
#include <cmath>

#include "core/async_copy.h"
#include "core/buffer.h"
#include "core/cluster.h"
#include "core/float16.h"
#include "core/mma.h"
#include "core/tensor_map.h"
#include "core/warpgroup.h"
#include "harness.h"

using namespace fastarch::cuda;

namespace {

constexpr int kThreads = 64, kSeeds = 50;

// Runs `compute`, which returns whether the result is right, with many seeds; throws when it was wrong for
// any.
template <class Compute>
void right_for_all_seeds(Compute compute) {
  int wrong = 0;
  for (int seed = 0; seed < kSeeds; ++seed) {
    fastarch::emulator::set_seed(static_cast<uint64_t>(seed));
    wrong += !compute();
  }
  if (wrong > 0)
    throw std::runtime_error(fastarch::concat("wrong result for ", wrong, " of ", kSeeds, " seeds"));
}

#define TWINS(name)                            \
  template <bool Faulty>                       \
  void name##_case();                          \
  TEST(name) { name##_case<true>(); }          \
  TEST(name##_fixed) { name##_case<false>(); } \
  template <bool Faulty>                       \
  void name##_case()

// Each thread publishes a value and reads its neighbour's, several times over.
template <bool Faulty>
__global__ void missing_barrier_kernel(int* y) {
  FASTARCH_SHARED(int, tile, [kThreads]);
  int sum = 0;
  for (int step = 0; step < 4; ++step) {
    tile[threadIdx.x] = step * 100 + static_cast<int>(threadIdx.x);
    __syncthreads();
    sum += tile[(threadIdx.x + 1) % kThreads];
    if (!Faulty) __syncthreads();  // or a quick thread overwrites what a slow one has yet to read
  }
  y[threadIdx.x] = sum;
}

TWINS(missing_barrier) {
  right_for_all_seeds([] {
    std::vector<int> y(kThreads);
    launch("missing_barrier", missing_barrier_kernel<Faulty>, 1, kThreads, 0, nullptr, y.data());
    for (int t = 0; t < kThreads; ++t)
      if (y[static_cast<size_t>(t)] != 600 + 4 * ((t + 1) % kThreads)) return false;
    return true;
  });
}

// The same inside a warp: the kernel relies on lanes running in step.
template <bool Faulty>
__global__ void missing_warp_barrier_kernel(int* y) {
  FASTARCH_SHARED(int, tile, [32]);
  tile[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (!Faulty) __syncwarp();
  y[threadIdx.x] = tile[threadIdx.x ^ 1];
}

TWINS(missing_warp_barrier) {
  right_for_all_seeds([] {
    std::vector<int> y(32);
    launch("missing_warp_barrier", missing_warp_barrier_kernel<Faulty>, 1, 32, 0, nullptr, y.data());
    for (int t = 0; t < 32; ++t)
      if (y[static_cast<size_t>(t)] != (t ^ 1)) return false;
    return true;
  });
}

template <bool Faulty>
__global__ void divergent_barrier_kernel(float* y) {
  FASTARCH_SHARED(float, tile, [kThreads]);
  tile[threadIdx.x] = 1.0f;
  if (Faulty && threadIdx.x % 2 == 0) {
    __syncthreads();
    y[threadIdx.x] = tile[threadIdx.x + 1];
  } else {
    __syncthreads();
    y[threadIdx.x] = tile[threadIdx.x];
  }
}

TWINS(divergent_barrier) {
  right_for_all_seeds([] {
    std::vector<float> y(kThreads);
    launch("divergent_barrier", divergent_barrier_kernel<Faulty>, 1, kThreads, 0, nullptr, y.data());
    return y[0] == 1.0f;
  });
}

// Threads beyond the end leave before the barrier.
template <bool Faulty>
__global__ void early_exit_kernel(float* y, int n) {
  FASTARCH_SHARED(float, tile, [kThreads]);
  const int i = static_cast<int>(threadIdx.x);
  if (Faulty && i >= n) return;
  tile[i] = 1.0f;
  __syncthreads();
  if (i < n) y[i] = tile[0];
}

TWINS(early_exit) {
  right_for_all_seeds([] {
    std::vector<float> y(kThreads - 1);
    launch("early_exit", early_exit_kernel<Faulty>, 1, kThreads, 0, nullptr, y.data(), kThreads - 1);
    return y[0] == 1.0f;
  });
}

// Each block of a cluster writes its number into the next one's shared memory, which reads it.
template <bool Faulty>
__global__ void missing_cluster_barrier_kernel(int* y) {
  FASTARCH_SHARED(int, number, [kThreads]);
  const int next = (cluster_rank() + 1) % 4;
  map_shared_rank(&number[0], next)[threadIdx.x] = cluster_rank();
  if (!Faulty) cluster_sync();
  y[global_thread()] = number[threadIdx.x];
  cluster_sync();  // nobody leaves before others have written
}

TWINS(missing_cluster_barrier) {
  right_for_all_seeds([] {
    std::vector<int> y(8 * kThreads);
    launch_clusters("missing_cluster_barrier", missing_cluster_barrier_kernel<Faulty>, 2, 4, dim3(kThreads),
                    0, nullptr, y.data());
    for (int i = 0; i < 8 * kThreads; ++i)
      if (y[static_cast<size_t>(i)] != (i / kThreads + 3) % 4) return false;
    return true;
  });
}

// A block leaves while another one still writes to its shared memory.
template <bool Faulty>
__global__ void left_cluster_kernel() {
  FASTARCH_SHARED(int, tile, [kThreads]);
  tile[threadIdx.x] = 0;
  if (cluster_rank() == 0 || !Faulty) {
    map_shared_rank(&tile[0], 1)[threadIdx.x] = 1;
    if (!Faulty) cluster_sync();
  }
}

TWINS(left_cluster) {
  right_for_all_seeds([] {
    launch_clusters("left_cluster", left_cluster_kernel<Faulty>, 3, 2, dim3(kThreads), 0, nullptr);
    return true;
  });
}

// Shared arrays, one behind the end: through the array (its bounds are known), and through a pointer.
template <bool Faulty>
__global__ void shared_overrun_kernel(float* y) {
  FASTARCH_SHARED(float, tile, [kThreads]);
  FASTARCH_SHARED(float, other, [kThreads]);
  float* pointer = tile;
  asm volatile("" : "+r"(pointer));  // so that the compiler does not know what it points into
  other[threadIdx.x] = 0.0f;
  pointer[threadIdx.x + (Faulty ? 1 : 0)] = 1.0f;
  __syncthreads();
  y[threadIdx.x] = tile[kThreads / 2] + other[threadIdx.x];
}

TWINS(shared_overrun) {
  right_for_all_seeds([] {
    std::vector<float> y(kThreads);
    launch("shared_overrun", shared_overrun_kernel<Faulty>, 1, kThreads, 0, nullptr, y.data());
    return y[0] == 1.0f;
  });
}

template <bool Faulty>
__global__ void shared_index_kernel(float* y) {
  FASTARCH_SHARED(float, tile, [4][kThreads]);
  for (unsigned row = 0; row < 4; ++row) tile[row][threadIdx.x] = 1.0f;
  __syncthreads();
  y[threadIdx.x] = tile[1][threadIdx.x + (Faulty ? 1 : 0)];  // one row's end is the next one's start
}

TWINS(shared_index) {
  right_for_all_seeds([] {
    std::vector<float> y(kThreads);
    launch("shared_index", shared_index_kernel<Faulty>, 1, kThreads, 0, nullptr, y.data());
    return y[0] == 1.0f;
  });
}

template <bool Faulty>
__global__ void dynamic_shared_overrun_kernel(float* y) {
  FASTARCH_DYNAMIC_SHARED(float, tile);
  tile[threadIdx.x] = 1.0f;
  if (Faulty && threadIdx.x == 5) tile[kThreads] = 2.0f;
  __syncthreads();
  y[threadIdx.x] = tile[kThreads / 2];
}

TWINS(dynamic_shared_overrun) {
  right_for_all_seeds([] {
    std::vector<float> y(kThreads);
    launch("dynamic_shared_overrun", dynamic_shared_overrun_kernel<Faulty>, 1, kThreads,
           kThreads * sizeof(float), nullptr, y.data());
    return y[0] == 1.0f;
  });
}

// The last block reaches beyond the end of the arrays.
template <bool Faulty>
__global__ void global_overrun_kernel(const float* x, float* y, int64_t n) {
  const int64_t i = global_thread();
  if (Faulty || i < n) y[i] = 2.0f * x[i];
}

TWINS(global_overrun) {
  right_for_all_seeds([] {
    std::vector<float> x(1000, 1.0f), y(1000);
    launch("global_overrun", global_overrun_kernel<Faulty>, 16, kThreads, 0, nullptr, x.data(), y.data(),
           1000);
    return y[999] == 2.0f;
  });
}

template <bool Faulty>
__global__ void write_kernel(float* y, int64_t n) {
  const int64_t i = global_thread();
  if (i < n + (Faulty ? 1 : 0)) y[i] = 2.0f;
}

// The same in a scratch buffer.
TWINS(buffer_overrun) {
  right_for_all_seeds([] {
    float last = 0;
    {
      const Buffer<float> y(1000, nullptr);
      launch("buffer_overrun", write_kernel<Faulty>, 16, kThreads, 0, nullptr, y.data(), y.size());
      check_cuda(cudaMemcpyAsync(&last, y.data() + 999, sizeof last, cudaMemcpyDeviceToHost, nullptr),
                 "cudaMemcpyAsync");
    }
    fastarch::emulator::check_leaks("buffer_overrun");
    return last == 2.0f;
  });
}

// A sum over partial results, of which the threads beyond n write none.
template <bool Faulty>
__global__ void uninitialised_shared_kernel(const float* x, float* y, int n) {
  FASTARCH_SHARED(float, partial, [kThreads]);
  const int t = static_cast<int>(threadIdx.x);
  if (t < n) {
    partial[t] = x[t];
  } else if (!Faulty) {
    partial[t] = 0.0f;
  }
  __syncthreads();
  if (t > 0) return;
  float sum = 0.0f;
  for (int i = 0; i < kThreads; ++i) sum += partial[i];
  y[blockIdx.x] = sum;
}

TWINS(uninitialised_shared) {
  int nans = 0;
  right_for_all_seeds([&] {
    // In the second block the first one's values would still lie there.
    std::vector<float> x(kThreads, 1.0f), y(2);
    launch("uninitialised_shared", uninitialised_shared_kernel<Faulty>, 2, kThreads, 0, nullptr, x.data(),
           y.data(), 10);
    nans += std::isnan(y[0]) && std::isnan(y[1]);
    EXPECT(nans == 0 || Faulty);
    return nans == 0 && y[0] == 10.0f && y[1] == 10.0f;
  });
}

// Scratch memory that was never written.
template <bool Faulty>
__global__ void sum_kernel(const float* x, float* y) {
  *y = x[0] + x[1];
}

TWINS(uninitialised_buffer) {
  right_for_all_seeds([] {
    const Buffer<float> x(2, nullptr);
    float y = 0;
    if (!Faulty) check_cuda(cudaMemsetAsync(x.data(), 0, 2 * sizeof(float)), "cudaMemsetAsync");
    launch("uninitialised_buffer", sum_kernel<Faulty>, 1, 1, 0, nullptr, x.data(), &y);
    return y == 0.0f;
  });
}

TWINS(leaked_buffer) {
  for (int i = 0; i < 2; ++i) {
    float* scratch = nullptr;
    check_cuda(cudaMallocAsync(&scratch, 4 * kThreads, nullptr), "cudaMallocAsync");
    launch("leaked_buffer", write_kernel<false>, 1, kThreads, 0, nullptr, scratch, kThreads);
    if (!Faulty) check_cuda(cudaFreeAsync(scratch, nullptr), "cudaFreeAsync");
  }
  fastarch::emulator::check_leaks("leaked_buffer");
}

TWINS(double_free) {
  float* scratch = nullptr;
  check_cuda(cudaMallocAsync(&scratch, 256, nullptr), "cudaMallocAsync");
  check_cuda(cudaFreeAsync(scratch, nullptr), "cudaFreeAsync");
  if (Faulty) check_cuda(cudaFreeAsync(scratch, nullptr), "cudaFreeAsync");
}

// Every second lane takes part in a shuffle that names all.
template <bool Faulty>
__global__ void shuffle_mask_kernel(int* y) {
  const int t = static_cast<int>(threadIdx.x);
  int value = t;
  if (!Faulty || t % 2 == 0) value = __shfl_xor_sync(0xffffffffu, value, 1);
  y[t] = value;
}

TWINS(shuffle_mask) {
  right_for_all_seeds([] {
    std::vector<int> y(32);
    launch("shuffle_mask", shuffle_mask_kernel<Faulty>, 1, 32, 0, nullptr, y.data());
    return y[0] == 1;
  });
}

// The lanes of one mask meet in different operations.
template <bool Faulty>
__global__ void shuffle_mismatch_kernel(int* y) {
  const int t = static_cast<int>(threadIdx.x);
  if (Faulty && t < 16) {
    y[t] = __shfl_sync(0xffffffffu, t, 0);
  } else {
    y[t] = __shfl_down_sync(0xffffffffu, t, 1);
  }
}

TWINS(shuffle_mismatch) {
  right_for_all_seeds([] {
    std::vector<int> y(32);
    launch("shuffle_mismatch", shuffle_mismatch_kernel<Faulty>, 1, 32, 0, nullptr, y.data());
    return y[3] == 4;
  });
}

// Lane 1 waits at a barrier of the block for lane 0, which waits in a shuffle for lane 1.
template <bool Faulty>
__global__ void deadlock_kernel(int* y) {
  const int t = static_cast<int>(threadIdx.x);
  int value = t;
  if (Faulty && t == 1) __syncthreads();
  value = __shfl_xor_sync(0xffffffffu, value, 1);
  if (!Faulty || t != 1) __syncthreads();
  y[t] = value;
}

TWINS(deadlock) {
  right_for_all_seeds([] {
    std::vector<int> y(32);
    launch("deadlock", deadlock_kernel<Faulty>, 1, 32, 0, nullptr, y.data());
    return y[0] == 1;
  });
}

// Each thread counts itself, without an atomic. Seen only where threads are preempted between their accesses.
template <bool Faulty>
__global__ void lost_update_kernel(int* count) {
  if (Faulty) {
    *count += 1;
  } else {
    atomicAdd(count, 1);
  }
}

TWINS(lost_update) {
  right_for_all_seeds([] {
    int count = 0;
    launch("lost_update", lost_update_kernel<Faulty>, 1, kThreads, 0, nullptr, &count);
    return count == kThreads;
  });
}

// A thread spins until another block, which may not have started, sets a flag.
template <bool Faulty>
__global__ void livelock_kernel(int* flag) {
  if (Faulty ? blockIdx.x == 1 : threadIdx.x == 1) {
    atomicExch(flag, 1);
  } else if (threadIdx.x == 0) {
    while (atomicAdd(flag, 0) == 0) {
    }
  }
}

TWINS(livelock) {
  fastarch::emulator::device().idle_steps = 10000;
  right_for_all_seeds([] {
    int flag = 0;
    launch("livelock", livelock_kernel<Faulty>, 2, 32, 0, nullptr, &flag);
    return flag == 1;
  });
}

// More blocks than the order in which they happen to run may matter to.
template <bool Faulty>
__global__ void block_order_kernel(int* y, int* count) {
  if (threadIdx.x == 0) y[blockIdx.x] = Faulty ? atomicAdd(count, 1) : static_cast<int>(blockIdx.x);
}

TWINS(block_order) {
  right_for_all_seeds([] {
    std::vector<int> y(8);
    int count = 0;
    launch("block_order", block_order_kernel<Faulty>, 8, 32, 0, nullptr, y.data(), &count);
    for (int i = 0; i < 8; ++i)
      if (y[static_cast<size_t>(i)] != i) return false;
    return true;
  });
}

// Reads what an asynchronous copy brings without waiting for it.
template <bool Faulty>
__global__ void missing_copy_wait_kernel(const float* x, float* y) {
  FASTARCH_SHARED(float, tile, [kThreads]);
  const int t = static_cast<int>(threadIdx.x);
  copy_async<4>(&tile[t], &x[t], 4);
  commit_copies();
  if (!Faulty) wait_copies<0>();
  __syncthreads();
  y[t] = tile[kThreads - 1 - t];
  if (Faulty) wait_copies<0>();
}

// Starts the copy of the next step into a buffer that other threads may still be reading.
template <bool Faulty>
__global__ void early_copy_kernel(const float* x, float* y) {
  FASTARCH_SHARED(float, tile, [kThreads]);
  const int t = static_cast<int>(threadIdx.x);
  tile[t] = x[t];
  __syncthreads();
  y[t] = tile[kThreads - 1 - t];
  if (!Faulty) __syncthreads();
  copy_async<4>(&tile[t], &x[t], 4);
  wait_copies<0>();
}

template <class Kernel>
void reverses_for_all_seeds(const char* name, Kernel* kernel) {
  right_for_all_seeds([&] {
    std::vector<float> x(kThreads), y(kThreads);
    for (size_t i = 0; i < kThreads; ++i) x[i] = static_cast<float>(i);
    launch(name, kernel, 1, kThreads, 0, nullptr, static_cast<const float*>(x.data()), y.data());
    return std::equal(y.begin(), y.end(), x.rbegin());
  });
}

TWINS(missing_copy_wait) { reverses_for_all_seeds("missing_copy_wait", missing_copy_wait_kernel<Faulty>); }
TWINS(early_copy) { reverses_for_all_seeds("early_copy", early_copy_kernel<Faulty>); }

// Leaves with a copy under way.
template <bool Faulty>
__global__ void abandoned_copy_kernel(const float* x) {
  FASTARCH_SHARED(float, tile, [kThreads]);
  copy_async<4>(&tile[threadIdx.x], &x[threadIdx.x], 4);
  if (!Faulty) wait_copies<0>();
}

TWINS(abandoned_copy) {
  const std::vector<float> x(kThreads);
  launch("abandoned_copy", abandoned_copy_kernel<Faulty>, 1, kThreads, 0, nullptr, x.data());
}

// Hands the tensor cores floats as they are.
template <bool Faulty>
__global__ void unrounded_operand_kernel(float x) {
  const uint32_t bits = Faulty ? __float_as_uint(x) : to_tf32(x), a[4] = {bits, bits, bits, bits}, b[2] = {};
  float d[4] = {};
  mma<MmaType::tf32>(d, a, b);
}

TWINS(unrounded_operand) {
  launch("unrounded_operand", unrounded_operand_kernel<Faulty>, 1, 32, 0, nullptr, 0.1f);
}

// Some lanes of the warp leave before it multiplies.
template <bool Faulty>
__global__ void partial_warp_kernel() {
  if (Faulty && threadIdx.x >= 20) return;
  const uint32_t a[4] = {}, b[2] = {};
  float d[4] = {};
  mma<MmaType::bfloat16>(d, a, b);
}

TWINS(partial_warp) { launch("partial_warp", partial_warp_kernel<Faulty>, 1, 32, 0, nullptr); }

// A warpgroup multiplies what a fifth warp's first lane brings through a ring of two stages: the main loop of
// gemm/wgmma.h in small.
enum class Fault {
  none,
  unannounced_bytes,
  wrong_parity,
  early_release,
  missing_product_wait,
  missing_product_fence,
  abandoned_product,
  abandoned_box,
  absent_warp,
  misaligned_operand,
};

template <Fault Planted>
__global__ void ring_kernel(const TensorMap map_a, const TensorMap map_b, int steps, float* d) {
  constexpr int kStages = 2, kPanelA = 64 * 128, kPanelB = 128 * 128;
  FASTARCH_DYNAMIC_SHARED(char, room);
  FASTARCH_SHARED(uint64_t, full, [kStages]);
  FASTARCH_SHARED(uint64_t, empty, [kStages]);
  char* const stages = room + (kBoxAlignment - shared_address(room) % kBoxAlignment) % kBoxAlignment;
  const auto stage_of = [&](int step) { return stages + step % kStages * (kPanelA + kPanelB); };
  const auto parity_of = [](int step) { return static_cast<uint32_t>(step / kStages % 2); };
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      init_barrier(&full[i], 1);
      init_barrier(&empty[i], kWarpgroup);
    }
    publish_barriers();
  }
  __syncthreads();
  const auto load = [&](int step) {
    uint64_t* const barrier = &full[step % kStages];
    load_box(stage_of(step), map_a, barrier, step * 64, 0);
    load_box(stage_of(step) + kPanelA, map_b, barrier, step * 64, 0);
  };
  if (threadIdx.x >= kWarpgroup) {
    if (threadIdx.x != kWarpgroup) return;
    for (int step = 0; step < steps; ++step) {
      wait_barrier(&empty[step % kStages], parity_of(step) ^ 1);
      if (Planted == Fault::unannounced_bytes)
        arrive(&full[step % kStages]);
      else
        arrive_expecting(&full[step % kStages], kPanelA + kPanelB);
      load(step);
    }
    if (Planted == Fault::abandoned_box) {
      wait_barrier(&empty[steps % kStages], parity_of(steps) ^ 1);
      load(steps);
    }
    return;
  }
  float sum[64] = {};
  const auto release = [&](int step) { arrive(&empty[step % kStages]); };
  for (int step = 0; step < steps; ++step) {
    wait_barrier(&full[step % kStages], parity_of(step) ^ (Planted == Fault::wrong_parity ? 1u : 0u));
    if (Planted == Fault::absent_warp && step == 3 && threadIdx.x / 32 == 1) {
      release(step);
      continue;
    }
    if (Planted != Fault::missing_product_fence) fence_products();
    for (int k = 0; k < 4; ++k) {
      const char* const a =
          stage_of(step) + (Planted == Fault::misaligned_operand ? 128 : 0) + k * kProductBytes;
      multiply_async<MmaType::bfloat16, true, true>(
          sum, operand_descriptor(a, 0, 1024),
          operand_descriptor(stage_of(step) + kPanelA + k * kProductBytes, 0, 1024), true);
    }
    commit_products();
    if (Planted == Fault::early_release) release(step);
    if (Planted != Fault::missing_product_wait && Planted != Fault::abandoned_product) wait_products<0>();
    if (Planted == Fault::missing_product_wait)
      for (int i = 0; i < 64; ++i) d[threadIdx.x * 64 + i] = sum[i];
    if (Planted == Fault::missing_product_wait) wait_products<0>();
    if (Planted != Fault::early_release) release(step);
  }
  if (Planted == Fault::missing_product_wait) return;
  for (int i = 0; i < 64; ++i) d[threadIdx.x * 64 + i] = sum[i];
}

template <Fault Planted>
void expect_ring() {
  constexpr int kSteps = 4, kDepth = 64 * kSteps;
  // Every step has values of its own; each of its 64 values of k adds 1 * (step + 1).
  std::vector<fastarch::bfloat16> a(64 * kDepth), b(128 * kDepth);
  for (size_t i = 0; i < b.size(); ++i) {
    const auto step = static_cast<float>(i % kDepth / 64 + 1);
    if (i < a.size()) a[i] = fastarch::round_to<fastarch::bfloat16>(step);
    b[i] = fastarch::round_to<fastarch::bfloat16>(1.0f);
  }
  const TensorMap map_a = make_tensor_map("ring", a.data(), {{kDepth, 2, 64}, {64, kDepth * 2, 64}});
  const TensorMap map_b = make_tensor_map("ring", b.data(), {{kDepth, 2, 64}, {128, kDepth * 2, 128}});
  right_for_all_seeds([&] {
    std::vector<float> d(64 * kWarpgroup);
    launch("ring", ring_kernel<Planted>, 1, kWarpgroup + 32, 1024 + 2 * 192 * 128, nullptr, map_a, map_b,
           kSteps, d.data());
    return std::all_of(d.begin(), d.end(), [](float x) { return x == 64 * 10; });
  });
}

#define RING_TWINS(name) \
  TWINS(name) { expect_ring<Faulty ? Fault::name : Fault::none>(); }
RING_TWINS(unannounced_bytes)
RING_TWINS(wrong_parity)
RING_TWINS(early_release)
RING_TWINS(missing_product_wait)
RING_TWINS(missing_product_fence)
RING_TWINS(abandoned_product)
RING_TWINS(abandoned_box)
RING_TWINS(absent_warp)
RING_TWINS(misaligned_operand)

}  // namespace

int main(int argc, char** argv) { return harness::main(argc, argv); }
