// What the CUDA runtime offers for clusters of blocks, beyond the launch itself.
#pragma once
#include "emulator/device.h"
#include "emulator/runtime.h"

// The values are CUDA's.
inline constexpr auto cudaFuncAttributeNonPortableClusterSizeAllowed = static_cast<cudaFuncAttribute>(14);
inline constexpr auto cudaErrorInvalidClusterSize = static_cast<cudaError_t>(912);

namespace fastarch::emulator {

cudaError_t active_clusters(int* clusters, const void* function, const cudaLaunchConfig_t& config);

}  // namespace fastarch::emulator

template <class... Params>
cudaError_t cudaOccupancyMaxActiveClusters(int* clusters, void (*kernel)(Params...),
                                           const cudaLaunchConfig_t* config) {
  return fastarch::emulator::active_clusters(clusters, reinterpret_cast<const void*>(kernel), *config);
}
