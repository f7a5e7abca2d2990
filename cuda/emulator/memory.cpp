// Device memory. A buffer starts as NaN and lies between two zones that may not be touched: poisoned for the
// address sanitizer, filled with a pattern that is checked at the end without it.
#include <cstring>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>

#include "capture.h"
#include "core/check.h"
#include "emulator/control.h"
#include "emulator/runtime.h"
#include "errors.h"
#include "fiber.h"

#if defined(FASTARCH_ASAN)
#include <sanitizer/asan_interface.h>
#endif

namespace fastarch::emulator {
namespace {

constexpr size_t kZone = 256;  // also the alignment that cudaMalloc promises
constexpr unsigned char kPattern = 0xCB;

struct Allocation {
  size_t bytes;
  std::thread::id owner;  // no thread: a graph
};

std::mutex guard;
std::unordered_map<char*, Allocation> allocations;
thread_local std::string damage;  // of a buffer that is already freed; reported by check_leaks()

// The empty string when nothing was written around the buffer.
std::string damage_of(const char* data, size_t bytes) {
#if !defined(FASTARCH_ASAN)
  for (size_t i = 1; i <= kZone; ++i)
    if (static_cast<unsigned char>(data[-static_cast<ptrdiff_t>(i)]) != kPattern)
      return concat("device buffer of ", bytes, " bytes written out of bounds, ", i,
                    " bytes before its start");
  for (size_t i = 0; i < kZone; ++i)
    if (static_cast<unsigned char>(data[bytes + i]) != kPattern)
      return concat("device buffer of ", bytes, " bytes written out of bounds, ", i, " bytes behind its end");
#else
  static_cast<void>(data), static_cast<void>(bytes);
#endif
  return {};
}

void release(char* data, [[maybe_unused]] size_t bytes) {
#if defined(FASTARCH_ASAN)
  __asan_unpoison_memory_region(data - kZone, bytes + 2 * kZone);
#endif
  ::operator delete(data - kZone, std::align_val_t{kZone});
}

}  // namespace

cudaError_t allocate(void** pointer, size_t bytes, bool of_graph) {
  if (bytes == 0) {
    *pointer = nullptr;
    return cudaSuccess;
  }
  auto* memory =
      bytes > SIZE_MAX / 2
          ? nullptr
          : static_cast<char*>(::operator new(bytes + 2 * kZone, std::align_val_t{kZone}, std::nothrow));
  if (!memory)
    return set_error(cudaErrorMemoryAllocation, concat("no memory for a buffer of ", bytes, " bytes"));
  char* data = memory + kZone;
  std::memset(memory, kPattern, bytes + 2 * kZone);
  std::memset(data, 0xFF, bytes);
#if defined(FASTARCH_ASAN)
  __asan_poison_memory_region(memory, kZone);
  __asan_poison_memory_region(data + bytes, kZone);
#endif
  const std::lock_guard lock(guard);
  allocations[data] = {bytes, of_graph ? std::thread::id() : std::this_thread::get_id()};
  *pointer = data;
  return cudaSuccess;
}

cudaError_t deallocate(void* pointer) {
  if (!pointer) return cudaSuccess;
  auto* data = static_cast<char*>(pointer);
  size_t bytes = 0;
  {
    const std::lock_guard lock(guard);
    const auto found = allocations.find(data);
    if (found == allocations.end()) {
      damage = concat("freed ", pointer, ", which is no device buffer, or freed already");
      return set_error(cudaErrorInvalidValue, damage);
    }
    bytes = found->second.bytes;
    allocations.erase(found);
  }
  const std::string what = damage_of(data, bytes);
  release(data, bytes);
  if (what.empty()) return cudaSuccess;
  damage = what;
  return set_error(cudaErrorIllegalAddress, what);
}

void renew(void* pointer, size_t bytes) { std::memset(pointer, 0xFF, bytes); }

cudaError_t check_around(void* pointer, size_t bytes) {
  const std::string what = damage_of(static_cast<char*>(pointer), bytes);
  return what.empty() ? cudaSuccess : set_error(cudaErrorIllegalAddress, what);
}

namespace {

// Frees what this thread still holds; says how many buffers and bytes that was.
std::pair<size_t, size_t> reclaim() {
  const std::lock_guard lock(guard);
  size_t count = 0, bytes = 0;
  for (auto it = allocations.begin(); it != allocations.end();) {
    if (it->second.owner != std::this_thread::get_id()) {
      ++it;
      continue;
    }
    ++count;
    bytes += it->second.bytes;
    release(it->first, it->second.bytes);
    it = allocations.erase(it);
  }
  return {count, bytes};
}

}  // namespace

void check_leaks(const char* operation) {
  const auto [count, bytes] = reclaim();
  const std::string earlier = std::exchange(damage, {});
  if (!earlier.empty()) throw std::runtime_error(concat("[", operation, "] ", earlier));
  if (count > 0)
    throw std::runtime_error(concat("[", operation, "] leaked ", count,
                                    count == 1 ? " device buffer (" : " device buffers (", bytes, " bytes)"));
}

void free_leaks() {
  reclaim();
  damage.clear();
}

}  // namespace fastarch::emulator

namespace emulator = fastarch::emulator;

cudaError_t cudaMallocAsync(void** pointer, size_t bytes, cudaStream_t stream) {
  if (emulator::is_captured(stream)) return emulator::record_allocation(stream, pointer, bytes);
  return emulator::allocate(pointer, bytes, false);
}
cudaError_t cudaMalloc(void** pointer, size_t bytes) { return emulator::allocate(pointer, bytes, false); }
cudaError_t cudaFreeAsync(void* pointer, cudaStream_t stream) {
  return emulator::is_captured(stream) ? emulator::record_release(stream, pointer)
                                       : emulator::deallocate(pointer);
}
cudaError_t cudaFree(void* pointer) { return emulator::deallocate(pointer); }

cudaError_t cudaMemset(void* pointer, int byte, size_t bytes) {
  if (bytes > 0) std::memset(pointer, byte, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* pointer, int byte, size_t bytes, cudaStream_t stream) {
  const auto work = [=] { return cudaMemset(pointer, byte, bytes); };
  return emulator::record(stream, work) ? cudaSuccess : work();
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  if (bytes > 0) std::memmove(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  const auto work = [=] { return cudaMemcpy(to, from, bytes, kind); };
  return emulator::record(stream, work) ? cudaSuccess : work();
}
