// The warpgroup's matrix operations (wgmma), for code that sm_90a has: 128 threads multiply operands that lie
// in shared memory, while they go on.
//
//   fence_products();  multiply_async<...>(d, a, b, add);  ...  commit_products();  ...  wait_products<0>();
//
// A warpgroup is four warps, the first one's number a multiple of four; all of its threads call alike. Sums
// may not be touched between multiply_async() and the wait for its group, and operands not overwritten. With
// g = lane / 4 and t = lane % 4, d[4 i + j] of a thread of warp w is row 16 (w % 4) + g + 8 (j / 2), column
// 8 i + 2 t + j % 2 (PTX manual, "Asynchronous Warpgroup Level Matrix Multiply-Accumulate Operations").
#pragma once
#include <cuda_runtime.h>

#include "core/mbarrier.h"
#include "core/mma.h"

#if defined(FASTARCH_EMULATOR)
#include "emulator/warpgroup.h"
#endif

namespace fastarch::cuda {

constexpr int kWarpgroup = 128;     // threads
constexpr int kWarpgroupRows = 64;  // of a product
constexpr int kProductBytes = 32;   // of k in a product

// Describes an operand that lies as load_box() brings it, from `shared` on, in rows of 128 bytes: 8 rows make
// a pattern of 1024 bytes, where it starts (or within the pattern's first row). Along k: rows are lines, and
// `stride` bytes lie from 8 of them to the next. Else rows are values of k, `stride` from 8 of them to the
// next, and `leading` from 128 bytes' worth of lines to the next ones. ("Matrix Descriptor Format".)
__device__ __forceinline__ uint64_t operand_descriptor(const void* shared, uint32_t leading,
                                                       uint32_t stride) {
#if defined(FASTARCH_EMULATOR)
  return emulator::operand_descriptor({"operand_descriptor", __builtin_FILE(), __builtin_LINE()}, shared,
                                      leading, stride);
#else
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  return kSwizzle128 | uint64_t{stride >> 4} << 32 | uint64_t{leading >> 4} << 16 |
         (shared_address(shared) & 0x3FFFFu) >> 4;
#endif
}

// The same operand, `bytes` (a multiple of 16) on.
__device__ __forceinline__ uint64_t advance_operand(uint64_t descriptor, uint32_t bytes) {
  return descriptor + (bytes >> 4);
}

// Before the first product, and after sums were written otherwise.
__device__ __forceinline__ void fence_products() {
#if defined(FASTARCH_EMULATOR)
  emulator::fence_products({"fence_products", __builtin_FILE(), __builtin_LINE()});
#elif defined(FASTARCH_SM90A)
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#else
  __trap();
#endif
}

// Makes a group of the products that were begun since the last one.
__device__ __forceinline__ void commit_products() {
#if defined(FASTARCH_EMULATOR)
  emulator::commit_products({"commit_products", __builtin_FILE(), __builtin_LINE()});
#elif defined(FASTARCH_SM90A)
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#else
  __trap();
#endif
}

// Until at most `Pending` of the latest groups are under way.
template <int Pending>
__device__ __forceinline__ void wait_products() {
  static_assert(Pending >= 0 && Pending <= 1);
#if defined(FASTARCH_EMULATOR)
  emulator::wait_products({"wait_products", __builtin_FILE(), __builtin_LINE()}, Pending);
#elif defined(FASTARCH_SM90A)
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
#else
  __trap();
#endif
}

// Begins d += a b, or d = a b where not `add`, for 64 x 32 bytes and 32 bytes x Columns operands. AAlongK,
// BAlongK: how their rows in shared memory lie; 16-bit types take either, tf32 along k alone.
template <MmaType Type, bool AAlongK, bool BAlongK, int Sums>
__device__ __forceinline__ void multiply_async(float (&d)[Sums], uint64_t a, uint64_t b, bool add) {
  static_assert(Sums == 64 || Sums == 128);
  static_assert(Type != MmaType::tf32 || (AAlongK && BAlongK));
#if defined(FASTARCH_EMULATOR)
  constexpr auto kTwin = Type == MmaType::tf32       ? emulator::MatrixType::tf32
                         : Type == MmaType::bfloat16 ? emulator::MatrixType::bfloat16
                                                     : emulator::MatrixType::float16;
  emulator::begin_product({"multiply_async", __builtin_FILE(), __builtin_LINE()},
                          {kTwin, 2 * Sums, AAlongK, BAlongK, add, a, b}, d);
#elif defined(FASTARCH_SM90A)
#define FASTARCH_EIGHT(i)                                                                     \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define FASTARCH_SIXTY_FOUR(i)                                                              \
  FASTARCH_EIGHT(i), FASTARCH_EIGHT(i + 8), FASTARCH_EIGHT(i + 16), FASTARCH_EIGHT(i + 24), \
      FASTARCH_EIGHT(i + 32), FASTARCH_EIGHT(i + 40), FASTARCH_EIGHT(i + 48), FASTARCH_EIGHT(i + 56)
#define FASTARCH_NAMES_64                                                            \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "          \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}"
#define FASTARCH_NAMES_128                                                                       \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                      \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "             \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "             \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "             \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "             \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "             \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}"
#define FASTARCH_WGMMA_64(shape, flags, ...)                                                       \
  asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %66, 0;\nwgmma.mma_async.sync.aligned." shape \
               " " FASTARCH_NAMES_64 ", %64, %65, add, 1, 1" flags ";\n}"                          \
               : FASTARCH_SIXTY_FOUR(0)                                                            \
               : "l"(a), "l"(b), "r"(static_cast<int>(add))__VA_ARGS__)
#define FASTARCH_WGMMA_128(shape, flags, ...)                                                       \
  asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %130, 0;\nwgmma.mma_async.sync.aligned." shape \
               " " FASTARCH_NAMES_128 ", %128, %129, add, 1, 1" flags ";\n}"                        \
               : FASTARCH_SIXTY_FOUR(0), FASTARCH_SIXTY_FOUR(64)                                    \
               : "l"(a), "l"(b), "r"(static_cast<int>(add))__VA_ARGS__)
#define FASTARCH_TURNED , "n"(AAlongK ? 0 : 1), "n"(BAlongK ? 0 : 1)
  if constexpr (Sums == 64) {
    if constexpr (Type == MmaType::tf32)
      FASTARCH_WGMMA_64("m64n128k8.f32.tf32.tf32", "");
    else if constexpr (Type == MmaType::bfloat16)
      FASTARCH_WGMMA_64("m64n128k16.f32.bf16.bf16", ", %67, %68", FASTARCH_TURNED);
    else
      FASTARCH_WGMMA_64("m64n128k16.f32.f16.f16", ", %67, %68", FASTARCH_TURNED);
  } else {
    if constexpr (Type == MmaType::tf32)
      FASTARCH_WGMMA_128("m64n256k8.f32.tf32.tf32", "");
    else if constexpr (Type == MmaType::bfloat16)
      FASTARCH_WGMMA_128("m64n256k16.f32.bf16.bf16", ", %131, %132", FASTARCH_TURNED);
    else
      FASTARCH_WGMMA_128("m64n256k16.f32.f16.f16", ", %131, %132", FASTARCH_TURNED);
  }
#undef FASTARCH_TURNED
#undef FASTARCH_WGMMA_128
#undef FASTARCH_WGMMA_64
#undef FASTARCH_NAMES_128
#undef FASTARCH_NAMES_64
#undef FASTARCH_SIXTY_FOUR
#undef FASTARCH_EIGHT
#else
  __trap();
#endif
}

// Registers of each thread of the warpgroup from here on: those that one kind of warpgroup gives back,
// another one takes. In kernels with launch bounds of one block a multiprocessor. Nothing to emulate.
template <int Count>
__device__ __forceinline__ void give_registers() {
  static_assert(Count >= 24 && Count <= 256 && Count % 8 == 0);
#if defined(FASTARCH_SM90A)
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Count));
#endif
}
template <int Count>
__device__ __forceinline__ void take_registers() {
  static_assert(Count >= 24 && Count <= 256 && Count % 8 == 0);
#if defined(FASTARCH_SM90A)
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Count));
#endif
}

}  // namespace fastarch::cuda
