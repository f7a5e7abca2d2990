// Barriers in shared memory, named barriers, and bulk copies of boxes of a tensor, as the PTX manual has
// them.
#include "emulator/transfers.h"

#include <algorithm>
#include <cstring>

#include "emulator/control.h"
#include "emulator/matrix.h"
#include "errors.h"
#include "scheduler.h"
#include "shared_memory.h"

namespace fastarch::emulator {
namespace {

constexpr uint64_t kInitialised = 0x6d62617272696572;  // what a barrier's word holds meanwhile
constexpr int64_t kMostBytes = (1 << 20) - 1;          // expected of a phase
constexpr uint32_t kMostArrivals = (1 << 20) - 1;
constexpr int kSwizzleBytes = 128;

int64_t box_bytes(const TensorMap& map) {
  int64_t bytes = map.element_bytes;
  for (int i = 0; i < map.axes; ++i) bytes *= map.box[i];
  return bytes;
}

uint32_t offset_in(const Thread& self, const Site& site, const void* shared) {
  const int64_t offset = static_cast<const char*>(shared) - self.block->shared;
  if (offset < 0 || offset >= static_cast<int64_t>(device().shared_per_block + kSharedZones))
    scheduler.fail(self, text(site), ": the address is not one of this block's shared memory");
  return static_cast<uint32_t>(offset);
}

// Element `position` of the tensor, or zero outside of it.
void read_element(const TensorMap& map, const int64_t* position, char* to) {
  const char* from = map.data;
  for (int i = 0; i < map.axes; ++i) {
    if (position[i] < 0 || position[i] >= map.extent[i]) {
      std::memset(to, 0, static_cast<size_t>(map.element_bytes));
      return;
    }
    from += position[i] * (i == 0 ? map.element_bytes : map.pitch[i]);
  }
  std::memcpy(to, from, static_cast<size_t>(map.element_bytes));
  if (map.round_to_tf32) {
    float value;
    std::memcpy(&value, to, sizeof value);
    const uint32_t rounded = to_tf32(value);
    std::memcpy(to, &rounded, sizeof rounded);
  }
}

// From base pixel (w, h, n) to the one that follows it.
void next_pixel(const TensorMap& map, int64_t (&base)[3]) {
  base[0] += map.stride_w;
  if (base[0] < map.extent[1] + map.upper) return;
  base[0] = map.lower;
  base[1] += map.stride_h;
  if (base[1] < map.extent[2] + map.upper) return;
  base[1] = map.lower;
  ++base[2];
}

}  // namespace

cudaError_t encode_tensor_map(const TensorMap& map) {
  const auto refuse = [](const auto&... why) {
    return set_error(cudaErrorInvalidValue, concat("tensor map: ", why...));
  };
  constexpr int64_t kMostExtent = int64_t{1} << 32, kMostPitch = int64_t{1} << 40;
  if (reinterpret_cast<uintptr_t>(map.data) % 16 != 0)
    return refuse("the tensor's address is not a multiple of 16");
  if (map.box[0] * map.element_bytes > kSwizzleBytes)
    return refuse("the box has rows of more than ", kSwizzleBytes, " bytes");
  for (int i = 0; i < map.axes; ++i) {
    if (map.extent[i] < 1 || map.extent[i] > kMostExtent)
      return refuse("axis ", i, " has extent ", map.extent[i], ", expected 1 to 2^32");
    if (map.box[i] < 1 || map.box[i] > 256)
      return refuse("axis ", i, " of the box has extent ", map.box[i], ", expected 1 to 256");
    if (i > 0 && (map.pitch[i] % 16 != 0 || map.pitch[i] < 0 || map.pitch[i] >= kMostPitch))
      return refuse("axis ", i, " has a pitch of ", map.pitch[i],
                    " bytes, expected a multiple of 16 below 2^40");
  }
  const auto corner = [](int at) { return at >= -128 && at <= 127; };
  const auto stride = [](int step) { return step >= 1 && step <= 8; };
  if (map.is_pixels &&
      !(corner(map.lower) && corner(map.upper) && stride(map.stride_w) && stride(map.stride_h)))
    return refuse("pixels from ", map.lower, " to ", map.upper, " in steps of (", map.stride_h, ", ",
                  map.stride_w, "), expected corners of -128 to 127 and steps of 1 to 8");
  return cudaSuccess;
}

MemoryBarrier& Scheduler::memory_barrier(const Thread& self, const Site& site, uint64_t* word) {
  for (MemoryBarrier& barrier : self.block->memory_barriers) {
    if (barrier.word != word) continue;
    if (*word != kInitialised) fail(self, text(site), ": the barrier was overwritten");
    return barrier;
  }
  fail(self, text(site), ": the barrier was not initialised");
}

void Scheduler::init_mbarrier(const Site& site, uint64_t* word, uint32_t count) {
  const Mode mode(false);
  Thread& self = thread_at(site);
  if (offset_in(self, site, word) % 8 != 0)
    fail(self, text(site), ": the barrier's address is not a multiple of 8");
  if (count < 1 || count > kMostArrivals)
    fail(self, text(site), ": a count of ", count, ", expected 1 to ", kMostArrivals);
  for (const MemoryBarrier& barrier : self.block->memory_barriers)
    if (barrier.word == word) fail(self, text(site), ": the barrier is initialised already");
  *word = kInitialised;
  self.block->memory_barriers.push_back({word, count, count, 0, 0, {}});
}

// Ends the phase when nothing is missing from it.
void Scheduler::settle_mbarrier(const Thread& self, const Site& site, MemoryBarrier& barrier) {
  if (barrier.bytes > kMostBytes || barrier.bytes < -kMostBytes)
    fail(self, text(site), ": a barrier expects ", barrier.bytes, " bytes, beyond ", kMostBytes);
  if (barrier.pending > 0 || barrier.bytes != 0) return;
  ++barrier.phase;
  barrier.pending = barrier.count;
  for (const uint32_t number : barrier.waiting) make_ready(threads_[number]);
  barrier.waiting.clear();
  progress();
}

void Scheduler::arrive_mbarrier(const Site& site, uint64_t* word, uint32_t expected_bytes) {
  const Mode mode(false);
  Thread& self = thread_at(site);
  MemoryBarrier& barrier = memory_barrier(self, site, word);
  if (barrier.pending == 0)
    fail(self, text(site), ": more arrivals than the ", barrier.count, " of the barrier's phase");
  barrier.bytes += expected_bytes;
  --barrier.pending;
  settle_mbarrier(self, site, barrier);
  yield(site);
}

// Until the phase of that parity has ended; by then a further one may have ended as well, which is missed
// then, as on the device.
void Scheduler::wait_mbarrier(const Site& site, uint64_t* word, uint32_t parity) {
  yield(site);
  const Mode mode(false);
  Thread& self = thread_at(site);
  while ((memory_barrier(self, site, word).phase & 1) == parity) {
    memory_barrier(self, site, word).waiting.push_back(number_of(self));
    wait(self, site);
  }
}

void Scheduler::load_box(const Site& site, void* to, const TensorMap& map, uint64_t* barrier,
                         const int* coordinates, int axes, int offset_w, int offset_h) {
  const Mode mode(false);
  Thread& self = thread_at(site);
  memory_barrier(self, site, barrier);
  if (axes != map.axes) fail(self, text(site), ": ", axes, " coordinates of a tensor of ", map.axes, " axes");
  const auto fits = [&](int offset) { return map.is_pixels ? offset >= 0 && offset <= 255 : offset == -1; };
  if (!fits(offset_w) || !fits(offset_h))
    fail(self, text(site), ": offsets (", offset_h, ", ", offset_w,
         "), expected 0 to 255 for pixels, else none");
  if (offset_in(self, site, to) % kSwizzleBytes != 0)
    fail(self, text(site), ": the destination's address is not a multiple of ", kSwizzleBytes);
  offset_in(self, site, static_cast<char*>(to) + box_bytes(map) - 1);
  Transfer transfer{self.block, &self, site, static_cast<char*>(to), map, {}, barrier, offset_w, offset_h};
  std::copy_n(coordinates, axes, transfer.coordinates);
  std::memset(to, 0xFF, static_cast<size_t>(box_bytes(map)));
  transfers_.push_back(transfer);
}

// Brings transfer `number`: row after row of the box, each turned about its 16-byte pieces by the row's
// address.
void Scheduler::deliver(uint32_t number) {
  const Transfer transfer = transfers_[number];
  transfers_[number] = transfers_.back();
  transfers_.pop_back();
  const TensorMap& map = transfer.map;
  const int64_t count = box_bytes(map) / map.element_bytes;
  const int64_t first = transfer.to - transfer.block->shared;
  int64_t base[3] = {transfer.coordinates[1], transfer.coordinates[2], transfer.coordinates[3]};  // of pixels
  for (int64_t i = 0; i < count; ++i) {
    int64_t position[TensorMap::kMostAxes], rest = i;
    for (int axis = 0; axis < map.axes; ++axis) {
      position[axis] = transfer.coordinates[axis] + rest % map.box[axis];
      rest /= map.box[axis];
    }
    if (map.is_pixels) {
      if (i > 0 && i % map.box[0] == 0) next_pixel(map, base);
      position[1] = base[0] + transfer.offset_w;
      position[2] = base[1] + transfer.offset_h;
      position[3] = base[2];
    }
    const int64_t address = first + i * map.element_bytes;
    read_element(map, position, transfer.block->shared + (address ^ ((address >> 7 & 7) << 4)));
  }
  try {
    MemoryBarrier& barrier = memory_barrier(*transfer.from, transfer.site, transfer.barrier);
    barrier.bytes -= box_bytes(map);
    settle_mbarrier(*transfer.from, transfer.site, barrier);
  } catch (const Fault& fault) {
    record(fault.what());
  }
}

// Lets transfers arrive, by chance or because nobody could go on otherwise. Whether a thread can.
bool Scheduler::deliver_some() {
  constexpr uint32_t kOneIn = 16;
  while (!transfers_.empty() && failure_.empty() && (ready_count_ == 0 || random.below(kOneIn) == 0))
    deliver(random.below(static_cast<uint32_t>(transfers_.size())));
  return ready_count_ > 0;
}

// A thread exits: what it or its block has begun must be complete.
void Scheduler::settle_transfers(Thread& thread) {
  Block& block = *thread.block;
  Warpgroup& warpgroup = block.warpgroups[thread.number / 128];
  WarpgroupPart& part = thread.warpgroup_part;
  if (!part.products.empty())
    fail(thread, "it exited, but ", part.products.size(),
         " of its warpgroup's products have not been waited for");
  if (part.begun < warpgroup.begun.size())
    fail(thread, "it exited, but other threads of its warpgroup have begun further products");
  warpgroup.exited += part.begun > 0;
  part = {};
  if (block.exited < threads_per_block_) return;
  for (const Transfer& transfer : transfers_)
    if (transfer.block == &block)
      fail(thread, "it exited as the last of its block, but ", text(transfer.site),
           " has not been waited for");
  for (const MemoryBarrier& barrier : block.memory_barriers)
    if (barrier.bytes != 0)
      fail(thread, "it exited as the last of its block, but a barrier has got ", -barrier.bytes,
           " bytes more than it expected");
}

void Scheduler::named_barrier(const Site& site, int id, int threads) {
  const Mode mode(false);
  Thread& self = thread_at(site);
  if (id < 1 || id >= Block::kNamedBarriers)
    fail(self, text(site), ": barrier ", id, ", expected 1 to ", Block::kNamedBarriers - 1,
         " (0 is __syncthreads's)");
  if (threads < 32 || threads % 32 != 0 || static_cast<uint32_t>(threads) > threads_per_block_)
    fail(self, text(site), ": ", threads, " threads, expected a multiple of 32 up to ", threads_per_block_);
  NamedBarrier& barrier = self.block->named[id];
  if (barrier.waiting.empty()) {
    barrier.threads = static_cast<uint32_t>(threads);
    barrier.site = site;
  } else if (barrier.threads != static_cast<uint32_t>(threads) || !same(barrier.site, site)) {
    fail(self, "barrier ", id, " of ", threads, " threads: it calls ", text(site), ", but others wait in ",
         text(barrier.site), " for ", barrier.threads);
  }
  barrier.waiting.push_back(number_of(self));
  if (barrier.waiting.size() < barrier.threads) return wait(self, site);
  for (const uint32_t number : barrier.waiting) make_ready(threads_[number]);
  barrier.waiting.clear();
  progress();
  leave(self);
}

uint32_t shared_address(const Site& site, const void* shared) {
  const Scheduler::Mode mode(false);
  return offset_in(scheduler.thread_at(site), site, shared);
}

void init_mbarrier(const Site& site, uint64_t* barrier, uint32_t count) {
  scheduler.init_mbarrier(site, barrier, count);
}
void arrive_mbarrier(const Site& site, uint64_t* barrier, uint32_t expected_bytes) {
  scheduler.arrive_mbarrier(site, barrier, expected_bytes);
}
void wait_mbarrier(const Site& site, uint64_t* barrier, uint32_t parity) {
  scheduler.wait_mbarrier(site, barrier, parity);
}
void load_box(const Site& site, void* to, const TensorMap& map, uint64_t* barrier, const int* coordinates,
              int axes, int offset_w, int offset_h) {
  scheduler.load_box(site, to, map, barrier, coordinates, axes, offset_w, offset_h);
}
void named_barrier(const Site& site, int id, int threads) { scheduler.named_barrier(site, id, threads); }

}  // namespace fastarch::emulator
