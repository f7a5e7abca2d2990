// Checks a launch as the device would, and runs its blocks: one after the other in a seeded random order, or
// all at once when it is cooperative.
#include <algorithm>
#include <map>
#include <mutex>
#include <numeric>
#include <stdexcept>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "capture.h"
#include "core/check.h"
#include "emulator/clusters.h"
#include "emulator/control.h"
#include "emulator/runtime.h"
#include "errors.h"
#include "scheduler.h"
#include "shared_memory.h"

namespace fastarch::emulator {
namespace {

std::mutex launching;                         // also guards what follows
uint64_t base_seed = 0, seeded_launches = 0;  // since the seed was set
uint64_t launches = 0;
bool seeded = false;
std::unordered_map<const void*, size_t> dynamic_limits;
std::unordered_set<const void*> large_clusters;  // kernels whose clusters may be larger than portable ones
std::map<std::pair<uint64_t, uint64_t>, double> launch_times;  // by blocks and threads of a block

// The emulated time of this host thread, in microseconds: see set_launch_time().
thread_local double now = 0;

// splitmix64's finisher: neighbouring seeds give unrelated orders.
uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

uint64_t next_seed() {
  if (!seeded) {
    base_seed = static_cast<uint64_t>(environment("FASTARCH_EMULATOR_SEED", 0));
    seeded = true;
  }
  return mix(mix(base_seed + 0x9E3779B97F4A7C15u) + ++seeded_launches);
}

uint64_t volume(const dim3& d) { return uint64_t{d.x} * d.y * d.z; }

std::string shape(const dim3& d) { return text(uint3(d)); }

cudaError_t check_config(const cudaLaunchConfig_t& config, const Kernel& kernel) {
  const dim3 grid = config.gridDim, block = config.blockDim;
  const Device& limits = device();
  if (volume(grid) == 0 || grid.x > 0x7fffffffu || grid.y > 65535u || grid.z > 65535u)
    return set_error(cudaErrorInvalidConfiguration,
                     concat("grid ", shape(grid), " is outside 1 .. (2147483647, 65535, 65535)"));
  if (volume(block) == 0 || block.x > 1024u || block.y > 1024u || block.z > 64u ||
      volume(block) > static_cast<uint64_t>(limits.threads_per_block))
    return set_error(cudaErrorInvalidConfiguration,
                     concat("block ", shape(block), " is outside 1 .. (1024, 1024, 64) or has more than ",
                            limits.threads_per_block, " threads"));
  const auto found = dynamic_limits.find(kernel.function);
  const size_t asked = found == dynamic_limits.end() ? limits.static_shared : found->second;
  const size_t allowed = std::min(asked, limits.shared_per_block);  // it may have been another device then
  if (config.dynamicSmemBytes > allowed)
    return set_error(
        cudaErrorInvalidValue,
        concat(config.dynamicSmemBytes, " bytes of dynamic shared memory, the kernel is allowed ", allowed));
  return cudaSuccess;
}

bool is_cooperative(const cudaLaunchConfig_t& config) {
  for (unsigned i = 0; i < config.numAttrs; ++i)
    if (config.attrs[i].id == cudaLaunchAttributeCooperative && config.attrs[i].val.cooperative) return true;
  return false;
}

// Blocks of a cluster, 0 without clusters; they lie along x.
unsigned cluster_size(const cudaLaunchConfig_t& config) {
  for (unsigned i = 0; i < config.numAttrs; ++i)
    if (config.attrs[i].id == cudaLaunchAttributeClusterDimension) return config.attrs[i].val.clusterDim.x;
  return 0;
}

unsigned most_in_cluster(const void* function) {
  constexpr unsigned kPortable = 8;  // what every device with clusters takes
  return large_clusters.contains(function) ? static_cast<unsigned>(device().blocks_per_cluster) : kPortable;
}

cudaError_t check_blocks(const cudaLaunchConfig_t& config, const Kernel& kernel) {
  const dim3 grid = config.gridDim;
  if (is_cooperative(config)) {
    int resident = 0;
    resident_blocks(&resident, static_cast<int>(volume(config.blockDim)), config.dynamicSmemBytes);
    const uint64_t most = static_cast<uint64_t>(resident) * static_cast<uint64_t>(device().multiprocessors);
    if (volume(grid) > most)
      return set_error(cudaErrorCooperativeLaunchTooLarge,
                       concat("a cooperative launch of ", volume(grid), " blocks, the device holds ", most));
  }
  const unsigned cluster = cluster_size(config), most_blocks = most_in_cluster(kernel.function);
  if (cluster > 0 && device().capability_major < 9)
    return set_error(cudaErrorInvalidConfiguration, "clusters need compute capability 9.0");
  if (cluster > most_blocks || (cluster > 0 && grid.x % cluster != 0))
    return set_error(cudaErrorInvalidConfiguration,
                     concat("grid ", shape(grid), " in clusters of ", cluster, ", expected a divisor of ",
                            grid.x, " up to ", most_blocks));
  return cudaSuccess;
}

// Records the launch, with copies of what its caller will not keep.
void keep(cudaLaunchConfig_t config, const Kernel& kernel) {
  const cudaStream_t stream = std::exchange(config.stream, nullptr);
  const std::vector<cudaLaunchAttribute> attributes(config.attrs, config.attrs + config.numAttrs);
  record(stream, [=, arguments = kernel.copy(kernel.arguments)]() mutable {
    cudaLaunchConfig_t again = config;
    std::vector<cudaLaunchAttribute> own = attributes;
    again.attrs = own.data();
    return run(again, {kernel.function, kernel.call, arguments.get(), kernel.copy});
  });
}

uint3 block_at(const dim3& grid, uint64_t i) {
  return {static_cast<unsigned>(i % grid.x), static_cast<unsigned>(i / grid.x % grid.y),
          static_cast<unsigned>(i / (uint64_t{grid.x} * grid.y))};
}

// `size` blocks that follow each other at once, one such cluster after the other; 1: blocks alone.
void run_in_turn(const dim3& grid, const dim3& block, const Kernel& kernel, uint64_t seed, unsigned size,
                 Scheduler::Together together) {
  Scheduler& threads = scheduler;
  threads.reset(size, block, together, kernel, seed);
  // i -> i + step modulo the number of clusters, with a step prime to it, meets each once.
  const uint64_t clusters = volume(grid) / size;
  uint64_t at = threads.random.next() % clusters, step = threads.random.next() % clusters;
  while (std::gcd(step, clusters) != 1) ++step;
  std::vector<uint3> indices(size);
  for (uint64_t done = 0; done < clusters; ++done, at = (at + step) % clusters) {
    for (unsigned b = 0; b < size; ++b) indices[b] = block_at(grid, at * size + b);
    if (done > 0) shared_memory().fill();
    threads.run_blocks(indices.data(), shared_memory().blocks());
    shared_memory().check();
  }
}

void run_at_once(const dim3& grid, const dim3& block, const Kernel& kernel, uint64_t seed) {
  const uint64_t blocks = volume(grid);
  std::vector<uint3> indices;
  indices.reserve(blocks);
  for (uint64_t i = 0; i < blocks; ++i) indices.push_back(block_at(grid, i));
  scheduler.reset(static_cast<uint32_t>(blocks), block, Scheduler::Together::grid, kernel, seed);
  scheduler.run_blocks(indices.data(), shared_memory().blocks());
  shared_memory().check();
}

// What is true while a kernel runs, and undone however it ends.
struct Launch {
  Launch(const dim3& grid, const dim3& block, size_t blocks_at_once, size_t dynamic) {
    inside_launch = true;
    gridDim = grid;
    blockDim = block;
    SharedVariable::current_launch = ++launches;
    shared_memory().begin(blocks_at_once, dynamic);
  }
  ~Launch() {
    shared_memory().end();
    SharedVariable::current_launch = 0;
    inside_launch = false;
  }
};

}  // namespace

constinit thread_local bool inside_launch = false;

void set_seed(uint64_t seed) {
  const std::lock_guard lock(launching);
  base_seed = seed;
  seeded = true;
  seeded_launches = 0;
}

void set_launch_time(uint64_t blocks, uint64_t threads, double microseconds) {
  const std::lock_guard lock(launching);
  launch_times[{blocks, threads}] = microseconds;
}

void forget_launch_times() {
  const std::lock_guard lock(launching);
  launch_times.clear();
}

double clock() { return now; }

uint64_t launch_count() {
  const std::lock_guard lock(launching);
  return launches;
}

Device& device() {
  static Device instance = [] {
    Device d;
    d.multiprocessors = static_cast<int>(environment("FASTARCH_EMULATOR_MULTIPROCESSORS", d.multiprocessors));
    return d;
  }();
  return instance;
}

void set_compute_capability(int major, int minor) {
  struct Limits {
    int major, minor, threads, blocks, shared_per_block, shared;  // of a multiprocessor; memory in KB
  };
  constexpr Limits kKnown[] = {
      {7, 5, 1024, 16, 64, 64}, {8, 0, 2048, 32, 163, 164}, {9, 0, 2048, 32, 227, 228}};
  for (const Limits& limits : kKnown) {
    if (limits.major != major || limits.minor != minor) continue;
    Device& d = device();
    d.capability_major = major, d.capability_minor = minor;
    d.threads_per_multiprocessor = limits.threads, d.blocks_per_multiprocessor = limits.blocks;
    d.shared_per_block = static_cast<size_t>(limits.shared_per_block) * 1024;
    d.shared_per_multiprocessor = static_cast<size_t>(limits.shared) * 1024;
    return;
  }
  throw std::invalid_argument(
      concat("[emulator] compute capability ", major, ".", minor, ", expected 7.5, 8.0 or 9.0"));
}

cudaError_t set_function_attribute(const void* function, cudaFuncAttribute attribute, int value) {
  const std::lock_guard lock(launching);
  if (attribute == cudaFuncAttributeNonPortableClusterSizeAllowed) {
    if (value)
      large_clusters.insert(function);
    else
      large_clusters.erase(function);
    return cudaSuccess;
  }
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;  // a hint
  if (value < 0 || static_cast<size_t>(value) > device().shared_per_block)
    return set_error(
        cudaErrorInvalidValue,
        concat(value, " bytes of dynamic shared memory, a block has at most ", device().shared_per_block));
  dynamic_limits[function] = static_cast<size_t>(value);
  return cudaSuccess;
}

cudaError_t resident_blocks(int* blocks, int threads, size_t dynamic_shared) {
  const Device& limits = device();
  if (threads < 1 || threads > limits.threads_per_block)
    return set_error(cudaErrorInvalidValue, concat("a block of ", threads, " threads"));
  const size_t by_shared =
      dynamic_shared == 0 ? size_t{1} << 20 : limits.shared_per_multiprocessor / dynamic_shared;
  const int by_threads =
      std::min(limits.threads_per_multiprocessor / threads, limits.blocks_per_multiprocessor);
  *blocks = static_cast<int>(std::min(by_shared, static_cast<size_t>(by_threads)));
  return cudaSuccess;
}

// How many a device of so many multiprocessors runs at once. (There is always room for one, so that few
// multiprocessors do not keep kernels with clusters from running.)
cudaError_t active_clusters(int* clusters, const void* function, const cudaLaunchConfig_t& config) {
  const unsigned size = cluster_size(config);
  {
    const std::lock_guard lock(launching);
    if (size == 0 || size > most_in_cluster(function))
      return set_error(cudaErrorInvalidClusterSize,
                       concat("clusters of ", size, " blocks, expected 1 to ", most_in_cluster(function)));
  }
  int resident = 0;
  if (const cudaError_t error =
          resident_blocks(&resident, static_cast<int>(volume(config.blockDim)), config.dynamicSmemBytes))
    return error;
  *clusters = std::max(1, resident * device().multiprocessors / static_cast<int>(size));
  return cudaSuccess;
}

cudaError_t run(const cudaLaunchConfig_t& config, const Kernel& kernel) {
  if (inside_launch) return set_error(cudaErrorLaunchFailure, "a kernel may not launch a kernel");
  const std::lock_guard lock(launching);
  if (const cudaError_t error = check_config(config, kernel)) return error;
  if (const cudaError_t error = check_blocks(config, kernel)) return error;
  const dim3 grid = config.gridDim, block = config.blockDim;
  const bool cooperative = is_cooperative(config);
  const unsigned cluster = cluster_size(config);
  if (is_captured(config.stream)) {
    keep(config, kernel);
    return cudaSuccess;
  }
  try {
    const uint64_t seed = next_seed();
    const unsigned at_once = cluster > 0 ? cluster : 1;
    const Launch launch(grid, block, cooperative ? volume(grid) : at_once, config.dynamicSmemBytes);
    if (cooperative) {
      run_at_once(grid, block, kernel, seed);
    } else {
      run_in_turn(grid, block, kernel, seed, at_once,
                  cluster > 0 ? Scheduler::Together::cluster : Scheduler::Together::block);
    }
    const auto told = launch_times.find({volume(grid), volume(block)});
    now += told != launch_times.end() ? told->second
                                      : 1 + 1e-3 * static_cast<double>(volume(grid) * volume(block));
  } catch (const Fault& fault) {
    return set_error(cudaErrorLaunchFailure, fault.what());
  } catch (const std::bad_alloc&) {
    return set_error(cudaErrorMemoryAllocation, "no memory for the stacks and shared memory of the launch");
  }
  return cudaSuccess;
}

}  // namespace fastarch::emulator
