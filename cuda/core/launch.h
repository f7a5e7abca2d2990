// Launching kernels: the one place that starts them and checks the error. <cuda_runtime.h> is the toolkit's,
// or the emulator's when the same kernels are compiled for the host.
#pragma once
#include <cuda_runtime.h>

#include <cstring>
#include <map>
#include <mutex>
#include <stdexcept>
#include <utility>

#include "core/check.h"
#include "core/types.h"

// FASTARCH_SHARED(float, tile, [2][16][64]): a statically sized array in shared memory, aligned for 128-bit
// accesses. FASTARCH_DYNAMIC_SHARED(float, scratch): a pointer to the launch's dynamic shared memory, aligned
// likewise.
#if defined(FASTARCH_EMULATOR)
#define FASTARCH_SHARED(type, name, ...) FASTARCH_EMULATOR_SHARED(type, name, __VA_ARGS__)
#define FASTARCH_DYNAMIC_SHARED(type, name) type* const name = ::fastarch::emulator::dynamic_shared<type>()
#else
#define FASTARCH_SHARED(type, name, ...) __shared__ __align__(16) type name __VA_ARGS__
#define FASTARCH_DYNAMIC_SHARED(type, name)          \
  extern __shared__ uint4 fastarch_dynamic_shared[]; \
  type* const name = reinterpret_cast<type*>(fastarch_dynamic_shared)
#endif

namespace fastarch::cuda {

// What is called, and from where: converts from the name alone, so that a call site need not spell the rest.
struct CallSite {
  const char* name;
  const char* file;
  int line;

  CallSite(const char* name, const char* file = __builtin_FILE(), int line = __builtin_LINE())
      : name(name), file(file), line(line) {}
};

// check_cuda(cudaMemsetAsync(...), "cudaMemsetAsync") throws std::runtime_error when the call failed.
inline void check_cuda(cudaError_t status, const char* call, const CallSite& site) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // it is reported here: leave no trace for a later check
  const char* base = std::strrchr(site.file, '/');
  throw std::runtime_error(concat("[", site.name, "] ", call, " failed at ", base ? base + 1 : site.file, ":",
                                  site.line, ": ", cudaGetErrorString(status), " (", cudaGetErrorName(status),
                                  ")"));
}

inline void check_cuda(cudaError_t status, const CallSite& call) { check_cuda(status, call.name, call); }

inline int device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  check_cuda(cudaDeviceGetAttribute(&value, attribute, device), "cudaDeviceGetAttribute");
  return value;
}

// Of the current device.
inline int multiprocessors() { return device_attribute(cudaDevAttrMultiProcessorCount); }

// Dynamic shared memory beyond 48 KB has to be asked for, kernel by kernel and device by device. What a
// kernel is allowed only ever grows: another thread may be about to launch it with more than this one needs.
template <class Kernel>
void allow_shared(const CallSite& site, Kernel* kernel, size_t dynamic_shared) {
  if (dynamic_shared <= 48 * 1024) return;
  static std::mutex guard;
  static std::map<std::pair<Kernel*, int>, size_t> allowed;
  int device = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice", site);
  const std::lock_guard lock(guard);
  size_t& most = allowed[{kernel, device}];
  if (dynamic_shared <= most) return;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(dynamic_shared)),
             "cudaFuncSetAttribute", site);
  most = dynamic_shared;
}

template <class... Params, class... Args>
void launch_with(const CallSite& site, cudaLaunchAttribute* attribute, void (*kernel)(Params...), dim3 grid,
                 dim3 block, size_t dynamic_shared, Stream stream, Args&&... args) {
  allow_shared(site, kernel, dynamic_shared);
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = dynamic_shared;
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = attribute;
  config.numAttrs = attribute ? 1 : 0;
  check_cuda(cudaLaunchKernelEx(&config, kernel, std::forward<Args>(args)...), "cudaLaunchKernelEx", site);
}

// launch("name", kernel<T>, grid, block, dynamic_shared_bytes, stream, args...): returns once the kernel is
// queued; throws std::runtime_error that names the kernel, the call, the file and the line.
template <class... Params, class... Args>
void launch(const CallSite& name, void (*kernel)(Params...), dim3 grid, dim3 block, size_t dynamic_shared,
            Stream stream, Args&&... args) {
  launch_with(name, nullptr, kernel, grid, block, dynamic_shared, stream, std::forward<Args>(args)...);
}

// The same for a kernel that uses grid_sync() (core/cooperative.h): all its blocks are resident at once, so
// `grid` may not exceed cooperative_blocks().
template <class... Params, class... Args>
void launch_cooperative(const CallSite& name, void (*kernel)(Params...), dim3 grid, dim3 block,
                        size_t dynamic_shared, Stream stream, Args&&... args) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeCooperative;
  attribute.val.cooperative = 1;
  launch_with(name, &attribute, kernel, grid, block, dynamic_shared, stream, std::forward<Args>(args)...);
}

// The most blocks that a cooperative launch of `kernel` may have on the current device.
template <class... Params>
int cooperative_blocks(const CallSite& name, void (*kernel)(Params...), int threads, size_t dynamic_shared) {
  allow_shared(name, kernel, dynamic_shared);
  int resident = 0;
  check_cuda(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, threads, dynamic_shared),
             "cudaOccupancyMaxActiveBlocksPerMultiprocessor", name);
  return resident * multiprocessors();
}

// Blocks of `threads` threads for a grid-stride loop over n elements: at least 1, and no more than four waves
// of resident blocks, beyond which a new block costs more than another turn of the loop.
inline dim3 grid_for(int64_t n, int threads) {
  constexpr int64_t kWaves = 4, kResidentThreads = 2048;
  const int64_t wanted = (n + threads - 1) / threads;
  if (wanted <= 1) return dim3(1);
  const int64_t most = multiprocessors() * (kResidentThreads / threads) * kWaves;
  return dim3(static_cast<unsigned>(wanted < most ? wanted : most));
}

// The flat index of this thread in a one-dimensional grid, and the number of threads: the stride of its loop.
__device__ __forceinline__ int64_t global_thread() { return int64_t{blockIdx.x} * blockDim.x + threadIdx.x; }
__device__ __forceinline__ int64_t grid_threads() { return int64_t{gridDim.x} * blockDim.x; }

}  // namespace fastarch::cuda
