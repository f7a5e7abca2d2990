// What cuda/core/mbarrier.h and cuda/core/tensor_map.h reach by PTX on the device: barriers in shared memory
// that count arrivals and bytes, and the bulk copies that report to them.
#pragma once
#include <cstdint>

#include "emulator/device.h"
#include "emulator/runtime.h"

namespace fastarch::emulator {

// A tensor in global memory and the box of it that one copy brings; the first axis is contiguous.
struct TensorMap {
  static constexpr int kMostAxes = 5;
  const char* data;
  int axes, element_bytes;
  bool round_to_tf32;
  int64_t extent[kMostAxes], pitch[kMostAxes];  // pitch in bytes
  int box[kMostAxes];
  // The other mode, of images [N, H, W, C]: box[1] pixels that follow each other, by strides, from the lower
  // corner of each image to the upper one, as from its last pixel.
  bool is_pixels = false;
  int lower = 0, upper = 0, stride_w = 1, stride_h = 1;
};

// Refuses what the driver's manual says that cuTensorMapEncodeTiled refuses.
cudaError_t encode_tensor_map(const TensorMap& map);

// The address within the block's shared memory, as instructions and descriptors have it.
uint32_t shared_address(const Site& site, const void* shared);

// A barrier of the block that is not initialised, or was overwritten, is a fault; so is an arrival beyond the
// count. A phase ends when all arrivals and all expected bytes are there; who waits is a scheduling point.
void init_mbarrier(const Site& site, uint64_t* barrier, uint32_t count);
void arrive_mbarrier(const Site& site, uint64_t* barrier, uint32_t expected_bytes);
void wait_mbarrier(const Site& site, uint64_t* barrier, uint32_t parity);

// The destination holds NaN (all bits set) until the copy arrives, at some later scheduling point.
void load_box(const Site& site, void* to, const TensorMap& map, uint64_t* barrier, const int* coordinates,
              int axes, int offset_w = -1, int offset_h = -1);  // the offsets of pixels

// bar.sync: `threads` threads of the block meet at barrier `id`.
void named_barrier(const Site& site, int id, int threads);

}  // namespace fastarch::emulator
