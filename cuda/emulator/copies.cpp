// Asynchronous copies from global to shared memory: under way from their start to the wait for their group.
#include <cstring>

#include "emulator/matrix.h"
#include "scheduler.h"

namespace fastarch::emulator {

void copy_async(const Site& site, void* to, const void* from, int bytes, int valid) {
  const Scheduler::Mode mode(false);
  Thread& thread = scheduler.thread_at(site);
  const auto misaligned = [bytes](const void* p) { return reinterpret_cast<uintptr_t>(p) % bytes != 0; };
  if (valid < 0 || valid > bytes)
    scheduler.fail(thread, text(site), ": ", valid, " valid bytes, expected 0 to ", bytes);
  if (misaligned(to) || (valid > 0 && misaligned(from)))
    scheduler.fail(thread, text(site), ": an address is not a multiple of ", bytes);
  Copy copy{static_cast<char*>(to), static_cast<uint32_t>(bytes), thread.copy_groups, {}};
  if (valid > 0) std::memcpy(copy.data, from, static_cast<size_t>(valid));
  std::memset(copy.to, 0xFF, copy.bytes);
  thread.copies.push_back(copy);
}

void commit_copies(const Site& site) { ++scheduler.thread_at(site).copy_groups; }

void wait_copies(const Site& site, int pending) {
  yield(site);  // others run while the copies are under way
  const Scheduler::Mode mode(false);
  Thread& thread = scheduler.thread_at(site);
  const auto under_way = [&](const Copy& copy) {
    return pending > 0 && copy.group + static_cast<uint32_t>(pending) >= thread.copy_groups;
  };
  std::vector<Copy> rest;
  for (const Copy& copy : thread.copies) {
    if (under_way(copy))
      rest.push_back(copy);
    else
      std::memcpy(copy.to, copy.data, copy.bytes);
  }
  thread.copies.swap(rest);
}

}  // namespace fastarch::emulator
