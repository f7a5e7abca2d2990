// Contract: the CUDA devices that this process sees.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace fastarch::cuda {

struct DeviceInfo {
  std::string name;
  int major, minor;  // compute capability
  int multiprocessors;
  int64_t memory_bytes;
};

// Empty when a device can be used, else why not. Needs no driver and starts no context.
std::string device_error();

// Throws std::runtime_error when a query fails.
std::vector<DeviceInfo> devices();

int runtime_version();  // 13000 is 13.0
int driver_version();   // 0 when there is no driver

}  // namespace fastarch::cuda
