// Bulk copies of boxes of a tensor from global to shared memory (TMA), for code that sm_90a has.
//
// A TensorMap is made on the host and passed to a kernel by value, as `const __grid_constant__ TensorMap`.
// A box has rows of 128 bytes, which follow each other in shared memory from an address that is a multiple of
// 1024; in row r, the 16 bytes number c lie at place c ^ (r % 8): the 128-byte swizzle, with which rows and
// columns of such pieces are both read without bank conflicts. What of a box is outside of the tensor is
// zero. float32 is rounded to tf32 on the way.
#pragma once
#include <cuda_runtime.h>

#include <algorithm>
#include <type_traits>

#include "core/launch.h"

#if defined(FASTARCH_EMULATOR)
#include "emulator/transfers.h"
#else
#include <cuda.h>
#endif
#include "core/mbarrier.h"

namespace fastarch::cuda {

constexpr int kBoxRowBytes = 128, kBoxAlignment = 1024;

#if defined(FASTARCH_EMULATOR)
using TensorMap = emulator::TensorMap;
#else
using TensorMap = CUtensorMap;
#endif

// An axis of a tensor: its extent, the bytes from one element to the next (of the first axis: those of an
// element), and the extent of the box.
struct TensorAxis {
  int64_t extent, pitch;
  int box;
};

// Whether a matrix with that pitch in bytes can have a map.
inline bool mappable(const void* data, int64_t pitch) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && pitch % 16 == 0;
}

#if !defined(FASTARCH_EMULATOR)
// A function of the driver, which this library is not linked to.
template <class Function>
Function driver_function(const CallSite& site, const char* name) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  check_cuda(cudaGetDriverEntryPointByVersion(name, &function, 12000, cudaEnableDefault, &found),
             "cudaGetDriverEntryPointByVersion", site);
  if (found != cudaDriverEntryPointSuccess)
    throw std::runtime_error(concat("[", site.name, "] the driver has no ", name));
  return reinterpret_cast<Function>(function);
}

template <class T>
constexpr CUtensorMapDataType kMapType = std::is_same_v<T, float>     ? CU_TENSOR_MAP_DATA_TYPE_TFLOAT32
                                         : std::is_same_v<T, float16> ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16
                                                                      : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
#endif

// T: float, float16 or bfloat16. The first axis's box has 128 bytes. Throws std::runtime_error where the
// driver refuses: an address or a pitch that is no multiple of 16, extents above 2^32, a box above 256.
template <class T, int Axes>
TensorMap make_tensor_map(const CallSite& site, const T* data, const TensorAxis (&axes)[Axes]) {
  static_assert(Axes >= 2 && Axes <= 5);
#if defined(FASTARCH_EMULATOR)
  TensorMap map{reinterpret_cast<const char*>(data), Axes, sizeof(T), std::is_same_v<T, float>, {}, {}, {}};
  for (int i = 0; i < Axes; ++i) {
    map.extent[i] = axes[i].extent;
    map.pitch[i] = axes[i].pitch;
    map.box[i] = axes[i].box;
  }
  check_cuda(emulator::encode_tensor_map(map), "cuTensorMapEncodeTiled", site);
  return map;
#else
  using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*,
                              const cuuint64_t*, const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave,
                              CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
  static const auto encode = driver_function<Encode>(site, "cuTensorMapEncodeTiled");
  cuuint64_t extents[Axes], pitches[Axes - 1];
  cuuint32_t box[Axes], steps[Axes];
  for (int i = 0; i < Axes; ++i) {
    extents[i] = static_cast<cuuint64_t>(axes[i].extent);
    if (i > 0) pitches[i - 1] = static_cast<cuuint64_t>(axes[i].pitch);
    box[i] = static_cast<cuuint32_t>(axes[i].box);
    steps[i] = 1;
  }
  CUtensorMap map;
  const CUresult status = encode(&map, kMapType<T>, Axes, const_cast<T*>(data), extents, pitches, box, steps,
                                 CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS)
    throw std::runtime_error(concat("[", site.name, "] cuTensorMapEncodeTiled failed with ",
                                    static_cast<int>(status), " for ", axes[0].extent, " x ", axes[1].extent,
                                    " elements"));
  return map;
#endif
}

// A map of images x [N, H, W, C] for load_pixels(): boxes of 128 bytes of channels of `pixels` pixels that
// follow each other in (n, h, w). Such a sequence of base pixels runs, `stride` apart, from `first` (a
// position may lie outside of the image) to the last one before `last + 1`, in every row and every image.
struct PixelAxis {
  int64_t extent;           // of the image
  int first, last, stride;  // of the base pixels
};

// A map has corners: the first base pixel, and where the last one may be at most, as from the image's last
// pixel. That may be less than a stride too far.
inline int64_t upper_corner(const PixelAxis& h, const PixelAxis& w) {
  return std::max(h.last - (h.extent - 1), w.last - (w.extent - 1));
}

// What the driver takes of two axes. Its manual and its users do not agree on the corners' order, so they are
// to be the same for both.
inline bool mappable(const PixelAxis& h, const PixelAxis& w) {
  constexpr int kLeastCorner = -128, kMostCorner = 127, kMostStride = 8;
  const int64_t upper = upper_corner(h, w);
  const auto fits = [](int64_t corner) { return corner >= kLeastCorner && corner <= kMostCorner; };
  const auto ends = [&](const PixelAxis& axis) { return upper + axis.extent - 1 < axis.last + axis.stride; };
  return h.first == w.first && fits(h.first) && fits(upper) && ends(h) && ends(w) &&
         h.stride <= kMostStride && w.stride <= kMostStride;
}

template <class T>
TensorMap make_pixel_map(const CallSite& site, const T* x, int64_t images, const PixelAxis& h,
                         const PixelAxis& w, int64_t channels, int pixels) {
  constexpr int kChannels = kBoxRowBytes / sizeof(T);
  const int64_t pixel_pitch = channels * static_cast<int64_t>(sizeof(T));
  const int corner = h.first, upper = static_cast<int>(upper_corner(h, w));
#if defined(FASTARCH_EMULATOR)
  TensorMap map{reinterpret_cast<const char*>(x),
                4,
                sizeof(T),
                std::is_same_v<T, float>,
                {channels, w.extent, h.extent, images},
                {0, pixel_pitch, pixel_pitch * w.extent, pixel_pitch * w.extent * h.extent},
                {kChannels, pixels, 1, 1}};
  map.is_pixels = true;
  map.lower = corner;
  map.upper = upper;
  map.stride_w = w.stride;
  map.stride_h = h.stride;
  check_cuda(emulator::encode_tensor_map(map), "cuTensorMapEncodeIm2col", site);
  return map;
#else
  using Encode =
      CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*, const cuuint64_t*,
                   const int*, const int*, cuuint32_t, cuuint32_t, const cuuint32_t*, CUtensorMapInterleave,
                   CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
  static const auto encode = driver_function<Encode>(site, "cuTensorMapEncodeIm2col");
  const cuuint64_t extents[4] = {static_cast<cuuint64_t>(channels), static_cast<cuuint64_t>(w.extent),
                                 static_cast<cuuint64_t>(h.extent), static_cast<cuuint64_t>(images)};
  const auto pitch = static_cast<cuuint64_t>(pixel_pitch);
  const cuuint64_t pitches[3] = {pitch, pitch * extents[1], pitch * extents[1] * extents[2]};
  const int lower_corner[2] = {corner, corner}, upper_corner[2] = {upper, upper};
  const cuuint32_t steps[4] = {1, static_cast<cuuint32_t>(w.stride), static_cast<cuuint32_t>(h.stride), 1};
  CUtensorMap map;
  const CUresult status = encode(&map, kMapType<T>, 4, const_cast<T*>(x), extents, pitches, lower_corner,
                                 upper_corner, kChannels, static_cast<cuuint32_t>(pixels), steps,
                                 CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS)
    throw std::runtime_error(concat("[", site.name, "] cuTensorMapEncodeIm2col failed with ",
                                    static_cast<int>(status), " for images of ", h.extent, " x ", w.extent,
                                    " x ", channels));
  return map;
#endif
}

// Brings the map itself near, by one thread and ahead of its first use.
__device__ __forceinline__ void prefetch_map([[maybe_unused]] const TensorMap& map) {
#if defined(FASTARCH_SM90A)
  asm volatile("prefetch.tensormap [%0];" ::"l"(reinterpret_cast<uint64_t>(&map)) : "memory");
#endif
}

// By one thread: starts the copy of the box whose first element has the given coordinates, the contiguous
// axis's first. Its bytes, those outside of the tensor too, are counted by `barrier`.
template <class... Coordinates>
__device__ __forceinline__ void load_box(void* to, const TensorMap& map, uint64_t* barrier,
                                         Coordinates... coordinates) {
  constexpr int kAxes = sizeof...(Coordinates);
  static_assert(kAxes >= 2 && kAxes <= 4);
  const int at[kAxes] = {coordinates...};
#if defined(FASTARCH_EMULATOR)
  emulator::load_box({"load_box", __builtin_FILE(), __builtin_LINE()}, to, map, barrier, at, kAxes);
#elif defined(FASTARCH_SM90A)
#define FASTARCH_LOAD_BOX(axes, list, ...)                                                      \
  asm volatile("cp.async.bulk.tensor." axes                                                     \
               ".shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {" list    \
               "}], "                                                                           \
               "[%2];" ::"r"(shared_address(to)),                                               \
               "l"(reinterpret_cast<uint64_t>(&map)), "r"(shared_address(barrier)), __VA_ARGS__ \
               : "memory")
  if constexpr (kAxes == 2)
    FASTARCH_LOAD_BOX("2d", "%3, %4", "r"(at[0]), "r"(at[1]));
  else if constexpr (kAxes == 3)
    FASTARCH_LOAD_BOX("3d", "%3, %4, %5", "r"(at[0]), "r"(at[1]), "r"(at[2]));
  else
    FASTARCH_LOAD_BOX("4d", "%3, %4, %5, %6", "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]));
#undef FASTARCH_LOAD_BOX
#else
  static_cast<void>(at);
  __trap();
#endif
}

// The same for the box of pixels that begins with channel c of the base pixel (n, h, w); every pixel is read
// (offset_h, offset_w) beyond its base, 0 to 255.
__device__ __forceinline__ void load_pixels(void* to, const TensorMap& map, uint64_t* barrier, int c, int w,
                                            int h, int n, int offset_w, int offset_h) {
#if defined(FASTARCH_EMULATOR)
  const int at[4] = {c, w, h, n};
  emulator::load_box({"load_pixels", __builtin_FILE(), __builtin_LINE()}, to, map, barrier, at, 4, offset_w,
                     offset_h);
#elif defined(FASTARCH_SM90A)
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [%0], "
      "[%1, {%3, %4, %5, %6}], [%2], {%7, %8};" ::"r"(shared_address(to)),
      "l"(reinterpret_cast<uint64_t>(&map)), "r"(shared_address(barrier)), "r"(c), "r"(w), "r"(h), "r"(n),
      "h"(static_cast<uint16_t>(offset_w)), "h"(static_cast<uint16_t>(offset_h))
      : "memory");
#else
  __trap();
#endif
}

}  // namespace fastarch::cuda
