// Working memory of a thread, kept between calls: a small operator cannot afford to ask the system for pages.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace fastarch::cpu {

namespace detail {

constexpr std::align_val_t kAlignment{64};
constexpr int64_t kArenaBytes = 8'388'608;

struct AlignedDelete {
  void operator()(char* memory) const { ::operator delete(memory, kAlignment); }
};

struct Arena {
  std::unique_ptr<char, AlignedDelete> memory;
  int64_t used = 0;
};

inline Arena& arena() {
  thread_local Arena arena;
  return arena;
}

}  // namespace detail

// n uninitialised values, aligned to a cache line: of the thread's arena while it lasts, else allocated.
// Scratches of a thread end in the reverse order of their beginnings.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t n) : bytes_((n * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64) {
    detail::Arena& arena = detail::arena();
    if (arena.used + bytes_ <= detail::kArenaBytes) {
      if (!arena.memory) arena.memory.reset(allocate(detail::kArenaBytes));
      data_ = reinterpret_cast<T*>(arena.memory.get() + arena.used);
      arena.used += bytes_;
    } else {
      own_.reset(allocate(bytes_));
      data_ = reinterpret_cast<T*>(own_.get());
    }
  }

  ~Scratch() {
    if (!own_) detail::arena().used -= bytes_;
  }

  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T* get() const { return data_; }
  T& operator[](int64_t i) const { return data_[i]; }

 private:
  static char* allocate(int64_t bytes) {
    return static_cast<char*>(::operator new(static_cast<size_t>(bytes), detail::kAlignment));
  }

  int64_t bytes_;
  T* data_;
  std::unique_ptr<char, detail::AlignedDelete> own_;
};

}  // namespace fastarch::cpu
