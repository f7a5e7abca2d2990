// Barriers in shared memory that count arrivals and bytes of bulk copies (mbarrier), for code that sm_90a
// has.
//
// A barrier is a uint64_t in shared memory. It goes through phases: one ends when `count` arrivals and all
// bytes that were announced have come; phases are told apart by parity, 0 first. So for a ring of stages:
//   producer  wait_barrier(&empty[s], parity ^ 1); arrive_expecting(&full[s], bytes);
//             load_box(..., &full[s]);
//   consumer  wait_barrier(&full[s], parity); ...; arrive(&empty[s]);
// where parity changes from one round to the next; the producer's first waits, for parity 1, pass at once.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

#if defined(FASTARCH_EMULATOR)
#include "emulator/transfers.h"
#endif

// Where the instructions of sm_90a are: code for other architectures, compiled alike, traps.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define FASTARCH_SM90A 1
#endif

namespace fastarch::cuda {

// A pointer into shared memory as instructions have it.
__device__ __forceinline__ uint32_t shared_address(const void* shared) {
#if defined(FASTARCH_EMULATOR)
  return emulator::shared_address({"shared_address", __builtin_FILE(), __builtin_LINE()}, shared);
#else
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
#endif
}

// By one thread; behind publish_barriers() and __syncthreads() others may use it.
__device__ __forceinline__ void init_barrier(uint64_t* barrier, uint32_t count) {
#if defined(FASTARCH_EMULATOR)
  emulator::init_mbarrier({"init_barrier", __builtin_FILE(), __builtin_LINE()}, barrier, count);
#elif defined(FASTARCH_SM90A)
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(count)
               : "memory");
#else
  __trap();
#endif
}

// What this thread wrote to shared memory is seen by bulk copies and matrix operations that start later.
__device__ __forceinline__ void publish_to_copies() {
#if defined(FASTARCH_EMULATOR)
  emulator::yield({"publish_to_copies", __builtin_FILE(), __builtin_LINE()});
#elif defined(FASTARCH_SM90A)
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#else
  __trap();
#endif
}

__device__ __forceinline__ void publish_barriers() {
#if defined(FASTARCH_EMULATOR)
  emulator::yield({"publish_barriers", __builtin_FILE(), __builtin_LINE()});
#elif defined(FASTARCH_SM90A)
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  publish_to_copies();
#else
  __trap();
#endif
}

__device__ __forceinline__ void arrive(uint64_t* barrier) {
#if defined(FASTARCH_EMULATOR)
  emulator::arrive_mbarrier({"arrive", __builtin_FILE(), __builtin_LINE()}, barrier, 0);
#elif defined(FASTARCH_SM90A)
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
#else
  __trap();
#endif
}

// Arrives, and announces bytes that the phase has to wait for.
__device__ __forceinline__ void arrive_expecting(uint64_t* barrier, uint32_t bytes) {
#if defined(FASTARCH_EMULATOR)
  emulator::arrive_mbarrier({"arrive_expecting", __builtin_FILE(), __builtin_LINE()}, barrier, bytes);
#elif defined(FASTARCH_SM90A)
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
               "r"(bytes)
               : "memory");
#else
  __trap();
#endif
}

// Until the phase of that parity has ended: the current one, or the one before it.
__device__ __forceinline__ void wait_barrier(uint64_t* barrier, uint32_t parity) {
#if defined(FASTARCH_EMULATOR)
  emulator::wait_mbarrier({"wait_barrier", __builtin_FILE(), __builtin_LINE()}, barrier, parity);
#elif defined(FASTARCH_SM90A)
  const uint32_t address = shared_address(barrier);
  uint32_t done;
  do {
    asm volatile(
        "{\n.reg .pred done;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\n"
        "selp.u32 %0, 1, 0, done;\n}"
        : "=r"(done)
        : "r"(address), "r"(parity)
        : "memory");
  } while (done == 0);
#else
  __trap();
#endif
}

// The barrier number `id` (1 to 15) of `threads` threads of the block, whole warps of them.
__device__ __forceinline__ void named_barrier(int id, int threads) {
#if defined(FASTARCH_EMULATOR)
  emulator::named_barrier({"named_barrier", __builtin_FILE(), __builtin_LINE()}, id, threads);
#else
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
#endif
}

}  // namespace fastarch::cuda
