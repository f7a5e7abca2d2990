#include "shared_memory.h"

#include <cstdint>
#include <cstring>
#include <new>

#include "core/check.h"
#include "emulator/control.h"
#include "emulator/device.h"
#include "scheduler.h"

#if defined(FASTARCH_ASAN)
#include <sanitizer/asan_interface.h>
#endif

namespace fastarch::emulator {
namespace {

constexpr size_t kZone = 128, kAlign = 128;
constexpr unsigned char kPattern = 0xCB;

size_t round_up(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

}  // namespace

uint64_t SharedVariable::current_launch = 0;
char* SharedVariable::shared_base = nullptr;

SharedMemory& shared_memory() {
  static SharedMemory instance;
  return instance;
}

void SharedMemory::Release::operator()(char* memory) const {
  ::operator delete(memory, std::align_val_t{kAlign});
}

void SharedMemory::begin(size_t blocks, size_t dynamic) {
  const size_t capacity = device().shared_per_block + kSharedZones;
  if (capacity != capacity_) arenas_.clear();
  capacity_ = capacity;
  while (arenas_.size() < blocks)
    arenas_.emplace_back(static_cast<char*>(::operator new(capacity, std::align_val_t{kAlign})));
  bases_.clear();
  for (size_t b = 0; b < blocks; ++b) {
    bases_.push_back(arenas_[b].get());
#if defined(FASTARCH_ASAN)
    __asan_poison_memory_region(bases_[b], capacity);
#endif
  }
  regions_.clear();
  used_ = static_bytes_ = 0;
  dynamic_bytes_ = dynamic;
  add("dynamic shared memory", dynamic, 16);
}

void SharedMemory::end() {
#if defined(FASTARCH_ASAN)
  for (char* base : bases_) __asan_unpoison_memory_region(base, capacity_);
#endif
}

void SharedMemory::add(const char* name, size_t size, size_t align) {
  const size_t offset = round_up(used_ + kZone, align < 16 ? 16 : align);
  if (offset + size + kZone > capacity_) throw Fault(concat("too many shared variables; the last is ", name));
  for (char* base : bases_) {
#if defined(FASTARCH_ASAN)
    __asan_unpoison_memory_region(base + offset, size);
#else
    std::memset(base + used_, kPattern, offset - used_);
    std::memset(base + offset + size, kPattern, kZone);
#endif
    std::memset(base + offset, 0xFF, size);
  }
  regions_.push_back({name, offset, size});
  used_ = offset + size;
}

size_t SharedMemory::place(const char* name, size_t size, size_t align) {
  static_bytes_ = round_up(static_bytes_, align) + size;
  const Device& limits = device();
  if (static_bytes_ > limits.static_shared) {
    throw Fault(concat("static shared memory: ", static_bytes_, " bytes with ", name, ", at most ",
                       limits.static_shared));
  }
  if (static_bytes_ + dynamic_bytes_ > limits.shared_per_block) {
    throw Fault(concat("shared memory: ", static_bytes_, " bytes static with ", name, " and ", dynamic_bytes_,
                       " dynamic, at most ", limits.shared_per_block));
  }
  add(name, size, align);
  return regions_.back().offset;
}

void SharedMemory::fill() {
  for (char* base : bases_)
    for (const Region& region : regions_) std::memset(base + region.offset, 0xFF, region.size);
}

void SharedMemory::check() const {
#if !defined(FASTARCH_ASAN)
  // The zone before the first variable, between two, and behind the last.
  for (const char* base : bases_) {
    for (size_t i = 0; i <= regions_.size(); ++i) {
      const Region* before = i > 0 ? &regions_[i - 1] : nullptr;
      const Region* after = i < regions_.size() ? &regions_[i] : nullptr;
      const size_t begin = before ? before->offset + before->size : 0,
                   end = after ? after->offset : begin + kZone;
      for (size_t at = begin; at < end; ++at) {
        if (static_cast<unsigned char>(base[at]) == kPattern) continue;
        if (after && (!before || end - at < at - begin))
          throw Fault(
              concat("shared memory written out of bounds, ", end - at, " bytes before ", after->name));
        throw Fault(concat("shared memory written out of bounds, ", at - begin, " bytes behind the end of ",
                           before->name));
      }
    }
  }
#endif
}

void* SharedVariable::place() {
  const Scheduler::Mode mode(false);
  if (current_launch == 0) throw Fault(concat("shared variable ", name_, " used outside a kernel"));
  if (launch_ == current_launch)
    return shared_base + offset_;  // another thread was here since address() looked
  offset_ = shared_memory().place(name_, size_, align_);
  launch_ = current_launch;
  return shared_base + offset_;
}

void* dynamic_shared_base() {
  if (SharedVariable::current_launch == 0) throw Fault("dynamic shared memory used outside a kernel");
  return SharedVariable::shared_base + shared_memory().dynamic_offset();
}

}  // namespace fastarch::emulator
