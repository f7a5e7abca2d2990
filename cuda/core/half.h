// 16-bit floats in kernels: stored as float16 and bfloat16, computed in float. A kernel for every float type
// reads with widen(), computes in Compute<T> and writes with narrow<T>().
#pragma once
#include <cuda_runtime.h>

#include <type_traits>

#include "core/types.h"

#if defined(FASTARCH_EMULATOR)
#include "core/float16.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace fastarch::cuda {

template <class T>
inline constexpr bool kIsHalf = std::is_same_v<T, float16> || std::is_same_v<T, bfloat16>;

// The type that values of type T are computed in.
template <class T>
using Compute = std::conditional_t<kIsHalf<T>, float, T>;

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ double widen(double x) { return x; }

#if defined(FASTARCH_EMULATOR)
__device__ __forceinline__ float widen(float16 x) { return to_float(x); }
__device__ __forceinline__ float widen(bfloat16 x) { return to_float(x); }
#else
__device__ __forceinline__ float widen(float16 x) { return __half2float(__ushort_as_half(x.bits)); }
__device__ __forceinline__ float widen(bfloat16 x) { return __bfloat162float(__ushort_as_bfloat16(x.bits)); }
#endif

// narrow<T>(x): x as a T, to the nearest, ties to even; beyond T's range it is infinite.
template <class T>
__device__ __forceinline__ T narrow(Compute<T> x) {
  if constexpr (!kIsHalf<T>) {
    return x;
  } else {
#if defined(FASTARCH_EMULATOR)
    return round_to<T>(x);
#else
    if constexpr (std::is_same_v<T, float16>)
      return {__half_as_ushort(__float2half_rn(x))};
    else
      return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
#endif
  }
}

}  // namespace fastarch::cuda
