// What the CUDA runtime knows of this machine's devices.
#include <cuda_runtime.h>

#include "core/check.h"
#include "ops/device.h"

namespace fastarch::cuda {

int runtime_version() { return CUDART_VERSION; }

int driver_version() {
  int version = 0;  // without a driver the call leaves its argument unwritten
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

std::string device_error() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess && count > 0) return "";
  cudaGetLastError();  // a failed query must not show up in a later launch
  if (driver_version() == 0) return "no NVIDIA driver was found on this machine";
  if (status != cudaSuccess)
    return concat("cudaGetDeviceCount: ", cudaGetErrorString(status), " (driver supports CUDA ",
                  driver_version() / 1000, ".", driver_version() % 1000 / 10, ", this build needs ",
                  CUDART_VERSION / 1000, ".", CUDART_VERSION % 1000 / 10, ")");
  return "the NVIDIA driver reports no device";
}

std::vector<DeviceInfo> devices() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();
    return {};
  }
  std::vector<DeviceInfo> found;
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp p;
    const cudaError_t status = cudaGetDeviceProperties(&p, i);
    if (status != cudaSuccess)
      throw std::runtime_error(concat("cudaGetDeviceProperties(", i, "): ", cudaGetErrorString(status)));
    found.push_back(
        {p.name, p.major, p.minor, p.multiProcessorCount, static_cast<int64_t>(p.totalGlobalMem)});
  }
  return found;
}

}  // namespace fastarch::cuda
