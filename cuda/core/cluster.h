// Clusters: blocks that run at once on neighbouring multiprocessors and reach each other's shared memory.
// From sm_90 on; for older devices kernels with these compile, and are not launched.
#pragma once
#include <cooperative_groups.h>

#include "core/launch.h"

namespace fastarch::cuda {

#if defined(FASTARCH_EMULATOR) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900)
// The barrier of all threads of a cluster; what they wrote to shared memory, wherever, is seen behind it.
__device__ __forceinline__ void cluster_sync() { cooperative_groups::this_cluster().sync(); }

// The number of this block within its cluster.
__device__ __forceinline__ int cluster_rank() {
  return static_cast<int>(cooperative_groups::this_cluster().block_rank());
}

// Where block `rank` of the cluster has what lies at `shared` here.
template <class T>
__device__ __forceinline__ T* map_shared_rank(T* shared, int rank) {
  return cooperative_groups::this_cluster().map_shared_rank(shared, rank);
}
#else
__device__ __forceinline__ void cluster_sync() { __trap(); }
__device__ __forceinline__ int cluster_rank() { return 0; }
template <class T>
__device__ __forceinline__ T* map_shared_rank(T* shared, int) {
  return shared;
}
#endif

// Whether the device has clusters and `kernel` was compiled for such devices.
template <class... Params>
bool runs_in_clusters(const CallSite& name, void (*kernel)(Params...)) {
  if (device_attribute(cudaDevAttrComputeCapabilityMajor) < 9) return false;
  cudaFuncAttributes attributes{};
  check_cuda(cudaFuncGetAttributes(&attributes, kernel), "cudaFuncGetAttributes", name);
  return attributes.ptxVersion >= 90;
}

// How many clusters of `size` blocks the device runs at once, 0 where it has none or none so large. More than
// 8 blocks are not portable: whether they run depends on the device, and on which of its parts are in use.
template <class... Params>
int active_clusters(const CallSite& name, void (*kernel)(Params...), int size, int threads,
                    size_t dynamic_shared) {
  if (!runs_in_clusters(name, kernel)) return 0;
  allow_shared(name, kernel, dynamic_shared);
  if (size > 8)
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1),
               "cudaFuncSetAttribute", name);
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = static_cast<unsigned>(size);
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(size));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = dynamic_shared;
  config.attrs = &attribute;
  config.numAttrs = 1;
  int clusters = 0;
  const cudaError_t status = cudaOccupancyMaxActiveClusters(&clusters, kernel, &config);
  if (status == cudaErrorInvalidClusterSize) {
    cudaGetLastError();
    return 0;
  }
  check_cuda(status, "cudaOccupancyMaxActiveClusters", name);
  return clusters;
}

// launch() of `clusters` clusters of `size` blocks each; a size of 8 or less runs on every device with
// clusters.
template <class... Params, class... Args>
void launch_clusters(const CallSite& name, void (*kernel)(Params...), int clusters, int size, dim3 block,
                     size_t dynamic_shared, Stream stream, Args&&... args) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = static_cast<unsigned>(size);
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  launch_with(name, &attribute, kernel, dim3(static_cast<unsigned>(clusters * size)), block, dynamic_shared,
              stream, std::forward<Args>(args)...);
}

}  // namespace fastarch::cuda
