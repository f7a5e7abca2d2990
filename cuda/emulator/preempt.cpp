// Threads that lose the processor in the midst of their memory accesses. Kernels that are compiled with
// -fsanitize=thread call a function before each access; here, instead of the thread sanitizer's own runtime,
// these functions are scheduling points, taken now and then. An unsynchronised `count += 1` then loses
// updates.
#include <cstring>

#include "scheduler.h"

namespace fastarch::emulator {

// Returns, even when another thread fails meanwhile: the compiler takes for granted that the hooks do not
// throw.
void Scheduler::preempt() {
  constexpr uint32_t kOneIn = 8;
  if (!inside_launch || !in_kernel_ || cancelling_ || random.below(kOneIn) != 0) return;
  const Mode mode(false);
  Thread& self = *current_;
  self.preempted = true;
  make_ready(self);
  leave(self);
  self.preempted = false;
}

}  // namespace fastarch::emulator

#define FASTARCH_HOOK(name) \
  void name(void*) { fastarch::emulator::scheduler.preempt(); }
#define FASTARCH_RANGE_HOOK(name) \
  void name(void*, size_t) { fastarch::emulator::scheduler.preempt(); }

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
FASTARCH_HOOK(__tsan_read1)
FASTARCH_HOOK(__tsan_read2)
FASTARCH_HOOK(__tsan_read4)
FASTARCH_HOOK(__tsan_read8)
FASTARCH_HOOK(__tsan_read16)
FASTARCH_HOOK(__tsan_write1)
FASTARCH_HOOK(__tsan_write2)
FASTARCH_HOOK(__tsan_write4)
FASTARCH_HOOK(__tsan_write8)
FASTARCH_HOOK(__tsan_write16)
FASTARCH_HOOK(__tsan_unaligned_read2)
FASTARCH_HOOK(__tsan_unaligned_read4)
FASTARCH_HOOK(__tsan_unaligned_read8)
FASTARCH_HOOK(__tsan_unaligned_read16)
FASTARCH_HOOK(__tsan_unaligned_write2)
FASTARCH_HOOK(__tsan_unaligned_write4)
FASTARCH_HOOK(__tsan_unaligned_write8)
FASTARCH_HOOK(__tsan_unaligned_write16)
FASTARCH_HOOK(__tsan_volatile_read1)
FASTARCH_HOOK(__tsan_volatile_read2)
FASTARCH_HOOK(__tsan_volatile_read4)
FASTARCH_HOOK(__tsan_volatile_read8)
FASTARCH_HOOK(__tsan_volatile_read16)
FASTARCH_HOOK(__tsan_volatile_write1)
FASTARCH_HOOK(__tsan_volatile_write2)
FASTARCH_HOOK(__tsan_volatile_write4)
FASTARCH_HOOK(__tsan_volatile_write8)
FASTARCH_HOOK(__tsan_volatile_write16)
FASTARCH_RANGE_HOOK(__tsan_read_range)
FASTARCH_RANGE_HOOK(__tsan_write_range)
// The guard of a static variable.
char __tsan_atomic8_load(const volatile char* address, int) {
  return __atomic_load_n(address, __ATOMIC_ACQUIRE);
}
// A switch of the host's.
void __tsan_atomic8_store(volatile char* address, char value, int) {
  __atomic_store_n(address, value, __ATOMIC_SEQ_CST);
}
char __tsan_atomic8_exchange(volatile char* address, char value, int) {
  return __atomic_exchange_n(address, value, __ATOMIC_SEQ_CST);
}
// A counter of the host's.
int64_t __tsan_atomic64_load(const volatile int64_t* address, int) {
  return __atomic_load_n(address, __ATOMIC_SEQ_CST);
}
int64_t __tsan_atomic64_fetch_add(volatile int64_t* address, int64_t value, int) {
  return __atomic_fetch_add(address, value, __ATOMIC_SEQ_CST);
}
void* __tsan_memcpy(void* to, const void* from, size_t bytes) { return std::memcpy(to, from, bytes); }
void* __tsan_memmove(void* to, const void* from, size_t bytes) { return std::memmove(to, from, bytes); }
void* __tsan_memset(void* to, int byte, size_t bytes) { return std::memset(to, byte, bytes); }
}
