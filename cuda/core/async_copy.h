// Copies from global to shared memory that run beside the arithmetic and take no registers: cp.async.
//
//   copy_async<16>(to, from, valid);  ...  commit_copies();   a group of this thread's copies, under way
//   wait_copies<1>();  __syncthreads();                       all but everybody's latest group have arrived
//
// Before compute capability 8.0 the copies are made at once, with the same result.
#pragma once
#include <cuda_runtime.h>

#include "core/vector.h"

namespace fastarch::cuda {

// `Bytes` (4, 8 or 16) to `to`, aligned likewise: the first `valid` come from `from`, the rest are zeros.
// With none valid, `from` is not read.
template <int Bytes>
__device__ __forceinline__ void copy_async(void* to, const void* from, int valid) {
  static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16);
#if defined(FASTARCH_EMULATOR)
  emulator::copy_async({"copy_async", __builtin_FILE(), __builtin_LINE()}, to, from, Bytes, valid);
#elif __CUDA_ARCH__ >= 800
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  if constexpr (Bytes == 16)  // past the first-level cache: nobody on this multiprocessor reads it again soon
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(valid)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(address), "l"(from), "n"(Bytes),
                 "r"(valid)
                 : "memory");
#else
  Pack<unsigned char, Bytes> pack{};
  if (valid == Bytes) {
    pack = *static_cast<const Pack<unsigned char, Bytes>*>(from);
  } else {
    for (int i = 0; i < valid; ++i) pack.value[i] = static_cast<const unsigned char*>(from)[i];
  }
  *static_cast<Pack<unsigned char, Bytes>*>(to) = pack;
#endif
}

// Makes a group of the copies that this thread has started since the last one; it may be empty.
__device__ __forceinline__ void commit_copies() {
#if defined(FASTARCH_EMULATOR)
  emulator::commit_copies({"commit_copies", __builtin_FILE(), __builtin_LINE()});
#elif __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most `Pending` of this thread's latest groups are under way; 0: also for what no group has
// taken up.
template <int Pending>
__device__ __forceinline__ void wait_copies() {
#if defined(FASTARCH_EMULATOR)
  emulator::wait_copies({"wait_copies", __builtin_FILE(), __builtin_LINE()}, Pending);
#elif __CUDA_ARCH__ >= 800
  if constexpr (Pending == 0)
    asm volatile("cp.async.wait_all;" ::: "memory");
  else
    asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
#endif
}

}  // namespace fastarch::cuda
