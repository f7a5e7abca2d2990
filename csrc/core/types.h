// The vocabulary of every contract: element types, activations, and a stream that hides its CUDA type.
#pragma once
#include <cstdint>

namespace fastarch {

enum class DType { float32, float64, uint8, int32, int64, boolean };

enum class Activation { none = 0, relu = 1, tanh = 2, sigmoid = 3 };

// A cudaStream_t, opaque here so that contracts need no CUDA header. Ignored by host code.
using Stream = void*;

}  // namespace fastarch

#if defined(__CUDACC__)
#define FASTARCH_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define FASTARCH_HOST_DEVICE inline
#endif
