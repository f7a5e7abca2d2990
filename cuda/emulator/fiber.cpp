#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <memory>
#include <new>

#if defined(FASTARCH_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(FASTARCH_FIBER_UCONTEXT)
// void fastarch_switch_stack(void** save, void* load): pushes what a call must preserve, swaps stacks, pops
// it there. The jump at the end (instead of a return) spares the processor a mispredicted return address.
extern "C" void fastarch_switch_stack(void** save, void* load);
#if defined(__x86_64__)
asm(R"(
  .text
  .p2align 4
  .globl fastarch_switch_stack
  .hidden fastarch_switch_stack
  .type fastarch_switch_stack, @function
fastarch_switch_stack:
  endbr64
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  popq %rcx
  jmpq *%rcx
  .size fastarch_switch_stack, .-fastarch_switch_stack
)");
#else
asm(R"(
  .text
  .p2align 4
  .globl fastarch_switch_stack
  .hidden fastarch_switch_stack
  .type fastarch_switch_stack, %function
fastarch_switch_stack:
  hint #34
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
  .size fastarch_switch_stack, .-fastarch_switch_stack
)");
#endif
#endif

namespace fastarch::emulator {
namespace {

// Sanitized frames are several times larger.
#if defined(FASTARCH_ASAN)
constexpr size_t kStackBytes = 512 * 1024;
#else
constexpr size_t kStackBytes = 256 * 1024;
#endif

// The tops of the stacks lie at different places within a page, or the hottest lines of all of them would
// compete for the same few sets of the cache.
size_t color(size_t number) { return (number * 7 % 32) * 128; }

}  // namespace

void prepare(Fiber& fiber, void (*entry)()) {
#if defined(FASTARCH_ASAN)
  __asan_unpoison_memory_region(fiber.stack, fiber.size);  // what an abandoned frame left behind
  fiber.fake_stack = nullptr;
#endif
#if defined(FASTARCH_FIBER_UCONTEXT)
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack;
  fiber.context.uc_stack.ss_size = fiber.size;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, entry, 0);
#else
  // The frame that fastarch_switch_stack pops. The zeroed frame pointer and return address end a debugger's
  // backtrace.
  auto** top = reinterpret_cast<void**>(fiber.stack + fiber.size);
#if defined(__x86_64__)
  void** frame = top - 8;  // six registers, the entry, and its return address
  for (int i = 0; i < 8; ++i) frame[i] = nullptr;
  frame[6] = reinterpret_cast<void*>(entry);
#else
  void** frame = top - 20;
  for (int i = 0; i < 20; ++i) frame[i] = nullptr;
  frame[11] = reinterpret_cast<void*>(entry);  // x30
#endif
  fiber.stack_pointer = frame;
#endif
}

void switch_fiber(Fiber& from, Fiber& to, [[maybe_unused]] bool for_good) {
#if defined(FASTARCH_ASAN)
  __sanitizer_start_switch_fiber(for_good ? nullptr : &from.fake_stack, to.stack, to.size);
#endif
#if defined(FASTARCH_FIBER_UCONTEXT)
  swapcontext(&from.context, &to.context);
#else
  fastarch_switch_stack(&from.stack_pointer, to.stack_pointer);
#endif
  arrived(from);
}

void arrived([[maybe_unused]] Fiber& self, [[maybe_unused]] Fiber* came_from) {
#if defined(FASTARCH_ASAN)
  const void* bottom = nullptr;
  size_t size = 0;
  __sanitizer_finish_switch_fiber(self.fake_stack, &bottom, &size);
  self.fake_stack = nullptr;
  if (came_from) {
    came_from->stack = static_cast<char*>(const_cast<void*>(bottom));
    came_from->size = size;
  }
#endif
}

Fiber* FiberPool::take() {
  if (!free_.empty()) {
    Fiber* fiber = free_.back();
    free_.pop_back();
    return fiber;
  }
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t guard = page, bytes = guard + kStackBytes;
  void* mapping =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) throw std::bad_alloc();
  if (mprotect(mapping, guard, PROT_NONE) != 0) {
    munmap(mapping, bytes);
    throw std::bad_alloc();
  }
  auto fiber = std::make_unique<Fiber>();
  fiber->mapping = static_cast<char*>(mapping);
  fiber->stack = fiber->mapping + guard;
  fiber->size = kStackBytes - color(all_.size());
  all_.push_back(fiber.get());
  free_.reserve(all_.size());  // give() may not throw
  return fiber.release();
}

FiberPool::~FiberPool() {
  for (Fiber* fiber : all_) {
    munmap(fiber->mapping, static_cast<size_t>(fiber->stack - fiber->mapping) + kStackBytes);
    delete fiber;
  }
}

}  // namespace fastarch::emulator
