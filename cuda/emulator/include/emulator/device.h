// What device code can call: indices, barriers, warp operations, atomics, shared memory.
// Barriers, warp operations, atomics and fences are scheduling points: another thread may run there.
#pragma once
#include <concepts>
#include <cstring>
#include <type_traits>

#include "emulator/types.h"

// One launch runs at a time (launches of several host threads queue up), so these need not be thread-local.
#pragma GCC visibility push(hidden)
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
#pragma GCC visibility pop
inline constexpr int warpSize = 32;

namespace fastarch::emulator {

// A scheduling point in the source, for error messages and to tell one barrier from another.
struct Site {
  const char* call;
  const char* file;
  int line;
};

enum class Vote { count, all, any };

int block_barrier(const Site& site, Vote vote, bool predicate);
void grid_barrier(const Site& site);
void cluster_barrier(const Site& site);
unsigned cluster_rank(const Site& site);
void* map_shared_rank(const Site& site, void* shared, int rank);
void yield(const Site& site);
[[noreturn]] void trap(const Site& site);

// Every lane named in `mask` hands in `value` and receives that of lane `source`.
uint64_t warp_exchange(const Site& site, unsigned mask, uint64_t value, unsigned source);
// Every lane named in `mask` hands in `predicate` and receives the lanes where it holds.
unsigned warp_vote(const Site& site, unsigned mask, bool predicate);
unsigned active_lanes(const Site& site);
inline unsigned lane() { return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32; }

// A shared variable of a kernel: one static object for each declaration. Its place in the block's shared
// memory is found when the first thread of a launch gets there.
class SharedVariable {
 public:
  constexpr SharedVariable(const char* name, size_t size, size_t align)
      : name_(name), size_(size), align_(align) {}
  void* address() { return launch_ == current_launch ? shared_base + offset_ : place(); }

  static uint64_t current_launch;  // 0 between launches
  static char* shared_base;        // of the block that runs

 private:
  void* place();

  const char* name_;
  size_t size_, align_, offset_ = 0;
  uint64_t launch_ = ~uint64_t{0};
};

#define FASTARCH_EMULATOR_SHARED(type, name, ...)                                                        \
  using name##_shared_type = type __VA_ARGS__;                                                           \
  static constinit ::fastarch::emulator::SharedVariable name##_shared(#name, sizeof(name##_shared_type), \
                                                                      alignof(name##_shared_type));      \
  name##_shared_type& name = *static_cast<name##_shared_type*>(name##_shared.address())

void* dynamic_shared_base();

template <class T>
T* dynamic_shared() {
  static_assert(alignof(T) <= 16);
  return static_cast<T*>(dynamic_shared_base());
}

template <class T>
concept Word = std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8);

template <Word T>
T exchange(const Site& site, unsigned mask, T value, unsigned source) {
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = warp_exchange(site, mask, bits, source);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// The segment of `width` lanes that `lane` belongs to.
inline unsigned segment_start(unsigned lane, int width) { return lane & ~static_cast<unsigned>(width - 1); }
inline unsigned segment_last(unsigned lane, int width) { return lane | static_cast<unsigned>(width - 1); }

}  // namespace fastarch::emulator

#define FASTARCH_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(FASTARCH_SITE) {
  fastarch::emulator::block_barrier({"__syncthreads", file, line}, fastarch::emulator::Vote::count, false);
}
inline int __syncthreads_count(int predicate, FASTARCH_SITE) {
  return fastarch::emulator::block_barrier({"__syncthreads_count", file, line},
                                           fastarch::emulator::Vote::count, predicate != 0);
}
inline int __syncthreads_and(int predicate, FASTARCH_SITE) {
  return fastarch::emulator::block_barrier({"__syncthreads_and", file, line}, fastarch::emulator::Vote::all,
                                           predicate != 0);
}
inline int __syncthreads_or(int predicate, FASTARCH_SITE) {
  return fastarch::emulator::block_barrier({"__syncthreads_or", file, line}, fastarch::emulator::Vote::any,
                                           predicate != 0);
}

inline void __syncwarp(unsigned mask = 0xffffffffu, FASTARCH_SITE) {
  fastarch::emulator::warp_vote({"__syncwarp", file, line}, mask, false);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, FASTARCH_SITE) {
  return fastarch::emulator::warp_vote({"__ballot_sync", file, line}, mask, predicate != 0);
}
inline int __any_sync(unsigned mask, int predicate, FASTARCH_SITE) {
  return fastarch::emulator::warp_vote({"__any_sync", file, line}, mask, predicate != 0) != 0;
}
inline int __all_sync(unsigned mask, int predicate, FASTARCH_SITE) {
  return fastarch::emulator::warp_vote({"__all_sync", file, line}, mask, predicate == 0) == 0;
}
// The lanes that have not exited. (Hardware may name fewer; code that relies on which is wrong there too.)
inline unsigned __activemask(FASTARCH_SITE) {
  return fastarch::emulator::active_lanes({"__activemask", file, line});
}

template <fastarch::emulator::Word T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, FASTARCH_SITE) {
  using namespace fastarch::emulator;
  const unsigned from =
      segment_start(lane(), width) | (static_cast<unsigned>(source) & static_cast<unsigned>(width - 1));
  return exchange({"__shfl_sync", file, line}, mask, value, from);
}
template <fastarch::emulator::Word T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, FASTARCH_SITE) {
  using namespace fastarch::emulator;
  const unsigned self = lane();
  const bool inside = self - segment_start(self, width) >= delta;
  return exchange({"__shfl_up_sync", file, line}, mask, value, inside ? self - delta : self);
}
template <fastarch::emulator::Word T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, FASTARCH_SITE) {
  using namespace fastarch::emulator;
  const unsigned self = lane();
  const bool inside = segment_last(self, width) - self >= delta;
  return exchange({"__shfl_down_sync", file, line}, mask, value, inside ? self + delta : self);
}
template <fastarch::emulator::Word T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, FASTARCH_SITE) {
  using namespace fastarch::emulator;
  const unsigned self = lane(), from = self ^ static_cast<unsigned>(lane_mask);
  return exchange({"__shfl_xor_sync", file, line}, mask, value,
                  from <= segment_last(self, width) ? from : self);
}

inline void __threadfence_block(FASTARCH_SITE) {
  fastarch::emulator::yield({"__threadfence_block", file, line});
}
inline void __threadfence(FASTARCH_SITE) { fastarch::emulator::yield({"__threadfence", file, line}); }
inline void __threadfence_system(FASTARCH_SITE) {
  fastarch::emulator::yield({"__threadfence_system", file, line});
}
inline void __nanosleep(unsigned, FASTARCH_SITE) { fastarch::emulator::yield({"__nanosleep", file, line}); }
[[noreturn]] inline void __trap(FASTARCH_SITE) { fastarch::emulator::trap({"__trap", file, line}); }

// An atomic lets others run first and is then indivisible, because threads only change at scheduling points
// (which FASTARCH_EMULATOR_PREEMPT would otherwise put into its midst).
#define FASTARCH_INDIVISIBLE __attribute__((no_sanitize("thread")))
#define FASTARCH_ATOMIC(name, result)                                                     \
  template <fastarch::emulator::Word T>                                                   \
  FASTARCH_INDIVISIBLE T name(T* address, std::type_identity_t<T> value, FASTARCH_SITE) { \
    fastarch::emulator::yield({#name, file, line});                                       \
    const T old = *address;                                                               \
    *address = static_cast<T>(result);                                                    \
    return old;                                                                           \
  }
FASTARCH_ATOMIC(atomicAdd, old + value)
FASTARCH_ATOMIC(atomicSub, old - value)
FASTARCH_ATOMIC(atomicExch, value)
FASTARCH_ATOMIC(atomicMin, value < old ? value : old)
FASTARCH_ATOMIC(atomicMax, old < value ? value : old)
FASTARCH_ATOMIC(atomicAnd, old& value)
FASTARCH_ATOMIC(atomicOr, old | value)
FASTARCH_ATOMIC(atomicXor, old ^ value)
FASTARCH_ATOMIC(atomicInc, old >= value ? 0 : old + 1)
FASTARCH_ATOMIC(atomicDec, old == 0 || old > value ? value : old - 1)
#undef FASTARCH_ATOMIC

template <fastarch::emulator::Word T>
FASTARCH_INDIVISIBLE T atomicCAS(T* address, std::type_identity_t<T> compare, std::type_identity_t<T> value,
                                 FASTARCH_SITE) {
  fastarch::emulator::yield({"atomicCAS", file, line});
  const T old = *address;
  if (old == compare) *address = value;
  return old;
}
#undef FASTARCH_INDIVISIBLE
#undef FASTARCH_SITE

// Cache hints change nothing here.
template <class T>
T __ldg(const T* address) {
  return *address;
}
template <class T>
T __ldcs(const T* address) {
  return *address;
}
template <class T>
T __ldcg(const T* address) {
  return *address;
}
template <class T>
void __stcs(T* address, T value) {
  *address = value;
}
template <class T>
void __stcg(T* address, T value) {
  *address = value;
}
