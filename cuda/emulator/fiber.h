// Stacks and the switch between them. A fiber runs until it switches to another one; nothing preempts it.
#pragma once
#include <cstddef>
#include <vector>

#if !defined(FASTARCH_FIBER_UCONTEXT) && \
    !(defined(__linux__) && (defined(__x86_64__) || defined(__aarch64__)))
#define FASTARCH_FIBER_UCONTEXT 1
#endif
#if defined(FASTARCH_FIBER_UCONTEXT)
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#define FASTARCH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FASTARCH_ASAN 1
#endif
#endif

namespace fastarch::emulator {

// A stack with an inaccessible page below it, and where its execution stopped. One Fiber without a stack of
// its own stands for the host thread that started the launch.
struct Fiber {
#if defined(FASTARCH_FIBER_UCONTEXT)
  ucontext_t context;
#else
  void* stack_pointer = nullptr;
#endif
  char* stack = nullptr;  // lowest usable address
  size_t size = 0;
  char* mapping = nullptr;
#if defined(FASTARCH_ASAN)
  void* fake_stack = nullptr;
#endif
};

// Makes the next switch to `fiber` call `entry` on an empty stack. `entry` must never return.
void prepare(Fiber& fiber, void (*entry)());

// Saves the execution in `from`, which someone may switch back to, and continues `to`. With `for_good`,
// `from` is not continued again (its stack may be prepared anew).
void switch_fiber(Fiber& from, Fiber& to, bool for_good = false);

// What a prepared fiber calls first, and what the host thread gets its stack's bounds from (for the sanitizer
// only).
void arrived(Fiber& self, Fiber* came_from = nullptr);

// Keeps stacks for later launches.
class FiberPool {
 public:
  ~FiberPool();
  Fiber* take();  // throws std::bad_alloc when there is no address space for another stack
  void give(Fiber* fiber) { free_.push_back(fiber); }

 private:
  std::vector<Fiber*> free_;
  std::vector<Fiber*> all_;
};

}  // namespace fastarch::emulator
