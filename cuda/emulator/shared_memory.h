// The shared memory of the blocks of a launch. Every variable starts as NaN (all bits set) in each block, and
// between the variables lie zones that may not be touched: poisoned for the address sanitizer, filled with a
// pattern without it.
#pragma once
#include <cstddef>
#include <memory>
#include <vector>

namespace fastarch::emulator {

constexpr size_t kSharedZones = 64 * 1024;  // room for the zones of some hundred variables

class SharedMemory {
 public:
  // A launch begins: `blocks` blocks at once, with `dynamic` bytes of dynamic shared memory each.
  void begin(size_t blocks, size_t dynamic);
  void end();
  // Before and after each block (or set of blocks that run at once).
  void fill();
  void check() const;  // throws Fault when something was written between the variables

  char* const* blocks() const { return bases_.data(); }
  size_t dynamic_offset() const { return regions_.front().offset; }
  size_t place(const char* name, size_t size, size_t align);  // the offset of a new static variable

 private:
  struct Region {
    const char* name;
    size_t offset, size;
  };
  struct Release {
    void operator()(char* memory) const;
  };

  void add(const char* name, size_t size, size_t align);

  std::vector<std::unique_ptr<char, Release>> arenas_;
  std::vector<char*> bases_;  // of the blocks of this launch
  std::vector<Region> regions_;
  size_t capacity_ = 0, used_ = 0, static_bytes_ = 0, dynamic_bytes_ = 0;
};

SharedMemory& shared_memory();

}  // namespace fastarch::emulator
