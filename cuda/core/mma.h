// Warp-wide matrix operations of the tensor cores: mma.sync and ldmatrix, for compute capability 8.0 and
// later.
//
// All 32 lanes of a warp call together. With g = lane / 4 and t = lane % 4, a lane holds of the operands
// (PTX manual, "Matrix multiply-accumulate operation using mma instruction"):
//   m16n8k8, tf32     a[0..3]: (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4)
//                     b[0..1]: (k = t, n = g), (t + 4, g)
//   m16n8k16, 16 bit  a[0..3]: pairs (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8)
//                     b[0..1]: pairs (k = 2t, n = g), (2t + 8, g)
//   both              d[0..3]: (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1)
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

namespace fastarch::cuda {

enum class MmaType { tf32, bfloat16, float16 };

// A 32-bit operand register holds 1 (tf32) or 2 values.
template <MmaType Type>
constexpr int kMmaDepth = Type == MmaType::tf32 ? 8 : 16;

// tf32: the 8-bit exponent of float and 10 of its 23 bits of fraction, rounded to nearest, ties away from
// zero.
__device__ __forceinline__ uint32_t to_tf32(float x) {
#if defined(FASTARCH_EMULATOR)
  return emulator::to_tf32(x);
#elif __CUDA_ARCH__ >= 800
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return bits;
#else
  return __float_as_uint(x);
#endif
}

// d += a b for 16 x kMmaDepth and kMmaDepth x 8 operands. The order of the sum and the rounding of its steps,
// to float or better, are the hardware's (and chopped, as far as published measurements tell).
template <MmaType Type>
__device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if defined(FASTARCH_EMULATOR)
  constexpr auto kTwin = Type == MmaType::tf32       ? emulator::MatrixType::tf32
                         : Type == MmaType::bfloat16 ? emulator::MatrixType::bfloat16
                                                     : emulator::MatrixType::float16;
  emulator::mma({"mma", __builtin_FILE(), __builtin_LINE()}, kTwin, a, b, d);
#elif __CUDA_ARCH__ >= 800
#define FASTARCH_MMA(shape)                                                                        \
  asm("mma.sync.aligned." shape " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                             \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
  if constexpr (Type == MmaType::tf32)
    FASTARCH_MMA("m16n8k8.row.col.f32.tf32.tf32.f32");
  else if constexpr (Type == MmaType::bfloat16)
    FASTARCH_MMA("m16n8k16.row.col.f32.bf16.bf16.f32");
  else
    FASTARCH_MMA("m16n8k16.row.col.f32.f16.f16.f32");
#undef FASTARCH_MMA
#else
  __trap();  // launchers ask tensor_cores() first
#endif
}

// Four 8x8 matrices of 16-bit values (or 8x4 of 32-bit ones) out of shared memory: lane 8 i + r names row r
// of matrix i, 16 bytes that are aligned to 16; register i is the lane's pair (row g, columns 2t and 2t + 1)
// of matrix i, or with Transposed (16-bit values) the pair (rows 2t and 2t + 1, column g).
template <bool Transposed = false>
__device__ __forceinline__ void load_matrices(uint32_t (&registers)[4], const void* row) {
#if defined(FASTARCH_EMULATOR)
  emulator::load_matrices({"load_matrices", __builtin_FILE(), __builtin_LINE()}, row, registers, Transposed);
#else
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
#define FASTARCH_LDMATRIX(turn)                                                                 \
  asm volatile("ldmatrix.sync.aligned.m8n8.x4" turn ".shared.b16 {%0, %1, %2, %3}, [%4];"       \
               : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3]) \
               : "r"(address)                                                                   \
               : "memory")
  if constexpr (Transposed)
    FASTARCH_LDMATRIX(".trans");
  else
    FASTARCH_LDMATRIX("");
#undef FASTARCH_LDMATRIX
#endif
}

}  // namespace fastarch::cuda
