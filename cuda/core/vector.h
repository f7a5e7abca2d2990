// Vector loads and stores: Pack<T> is four floats, two doubles or eight 16-bit floats, 128 bits
// moved by one instruction; Pack<T, N> is N.
#pragma once
#include <cuda_runtime.h>

#include "core/types.h"

namespace fastarch::cuda {

template <class T, int N = 16 / sizeof(T)>
struct alignas(N * sizeof(T)) Pack {
  static constexpr int size = N;
  T value[N];
};

// Whether every pointer may be read as Packs: contiguous slices of larger arrays start anywhere.
template <class... T>
bool packable(const T*... pointers) {
  return ((reinterpret_cast<uintptr_t>(pointers) % 16 == 0) && ...);
}

// The same pointer, of which the compiler then knows that it is to global memory: one that passed through shared
// memory, or was chosen among several, would otherwise be loaded from in a way that could reach any memory.
template <class T>
__device__ __forceinline__ const T* global(const T* pointer) {
#ifdef __CUDA_ARCH__
  __builtin_assume(__isGlobal(pointer));
#endif
  return pointer;
}

// The Pack number i of an array for which packable() holds.
template <class T, int N = 16 / sizeof(T)>
FASTARCH_HOST_DEVICE Pack<T, N> load_pack(const T* array, int64_t i) {
  return *reinterpret_cast<const Pack<T, N>*>(array + i * N);
}

template <class T, int N>
FASTARCH_HOST_DEVICE void store_pack(T* array, int64_t i, const Pack<T, N>& pack) {
  *reinterpret_cast<Pack<T, N>*>(array + i * N) = pack;
}

}  // namespace fastarch::cuda
