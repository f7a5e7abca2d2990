// The vocabulary of every contract: element types, activations, and a stream that hides its CUDA type.
#pragma once
#include <cstdint>

namespace fastarch {

enum class DType { float32, float64, uint8, int32, int64, boolean, float16, bfloat16 };

// The 16-bit floats, as they lie in memory: nothing is computed in them. core/float16.h converts them
// on the host, cuda/core/half.h in kernels.
struct alignas(2) float16 {  // IEEE 754 binary16: 5 bits of exponent, 10 of fraction
  uint16_t bits;
};
struct alignas(2) bfloat16 {  // the upper half of a float: 8 bits of exponent, 7 of fraction
  uint16_t bits;
};

enum class Activation { none = 0, relu = 1, tanh = 2, sigmoid = 3 };

// How images lie in memory: [N, C, H, W], or with the channels last, [N, H, W, C].
enum class Layout { nchw = 0, nhwc = 1 };

// What products of float32 may be computed with; a device without the means computes in float32.
//   float32  float32 throughout
//   tf32     operands rounded to 10 bits of fraction, sums in float32
//   tf32x3   float32's accuracy out of three tf32 products
enum class Precision { float32 = 0, tf32 = 1, tf32x3 = 2 };

// A cudaStream_t, opaque here so that contracts need no CUDA header. Ignored by host code.
using Stream = void*;

}  // namespace fastarch

#if defined(__CUDACC__)
#define FASTARCH_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define FASTARCH_HOST_DEVICE inline
#endif
