// Where threads meet: barriers of the block and of the grid, warp operations; and the functions device code
// calls.
#include <sstream>
#include <string>

#include "emulator/control.h"
#include "scheduler.h"
#include "shared_memory.h"

namespace fastarch::emulator {
namespace {

std::string hex(uint32_t mask) {
  std::ostringstream out;
  out << "0x" << std::hex << mask;
  return out.str();
}

uint32_t lowest(uint32_t lanes) { return static_cast<uint32_t>(__builtin_ctz(lanes)); }

}  // namespace

// A thread arrives at a barrier of `all` threads of which `exited` are gone. True when it is the last one.
bool Scheduler::arrive(Barrier& barrier, const Thread& self, const Site& site, uint32_t all,
                       uint32_t exited) {
  if (exited > 0)
    fail(self, "barrier not reached by all threads: it calls ", text(site), ", but ", exited, " of the ", all,
         " threads have exited");
  if (barrier.arrived == 0) {
    barrier.site = site;
  } else if (!same(barrier.site, site)) {
    fail(self, "barrier not reached by all threads: it calls ", text(site), ", but ", barrier.arrived,
         " of the ", all, " threads wait in ", text(barrier.site));
  }
  if (++barrier.arrived < all) return false;
  barrier.arrived = 0;
  progress();
  return true;
}

int Scheduler::block_barrier(const Site& site, Vote vote, bool predicate) {
  const Mode mode(false);
  Thread& self = thread_at(site);
  Block& block = *self.block;
  Barrier& barrier = block.barrier;
  if (barrier.arrived == 0) barrier.holds = 0;
  barrier.holds += predicate;
  if (!arrive(barrier, self, site, threads_per_block_, block.exited)) {
    wait(self, site);
    return barrier.result;  // the next barrier has not ended, for it would need this thread
  }
  const int holds = static_cast<int>(barrier.holds), all = static_cast<int>(threads_per_block_);
  const int result = vote == Vote::count ? holds : vote == Vote::all ? holds == all : holds > 0;
  barrier.result = result;
  for (uint32_t i = 0; i < threads_per_block_; ++i) make_ready(block.threads[i]);
  leave(self);
  return result;
}

void Scheduler::grid_barrier(const Site& site) {
  const Mode mode(false);
  Thread& self = thread_at(site);
  if (together_ != Together::grid) fail(self, text(site), " in a launch that is not cooperative");
  meet_all(site);
}

void Scheduler::cluster_barrier(const Site& site) {
  const Mode mode(false);
  cluster_rank(site);
  meet_all(site);
}

void Scheduler::meet_all(const Site& site) {
  Thread& self = thread_at(site);
  if (!arrive(common_barrier_, self, site, static_cast<uint32_t>(threads_.size()), exited_))
    return wait(self, site);
  for (const Thread& thread : threads_) make_ready(thread);
  leave(self);
}

uint32_t Scheduler::cluster_rank(const Site& site) const {
  const Mode mode(false);
  const Thread& self = thread_at(site);
  if (together_ != Together::cluster) fail(self, text(site), " in a launch without clusters");
  return static_cast<uint32_t>(self.block - blocks_.data());
}

void* Scheduler::map_shared_rank(const Site& site, void* shared, int rank) const {
  const Mode mode(false);
  const Thread& self = thread_at(site);
  cluster_rank(site);
  if (rank < 0 || static_cast<size_t>(rank) >= blocks_.size())
    fail(self, text(site), ": rank ", rank, " of a cluster of ", blocks_.size(), " blocks");
  const int64_t offset = static_cast<char*>(shared) - self.block->shared;
  if (offset < 0 || offset >= static_cast<int64_t>(device().shared_per_block + kSharedZones))
    fail(self, text(site), ": the address is not one of this block's shared memory");
  const Block& block = blocks_[static_cast<size_t>(rank)];
  if (block.exited > 0)
    fail(self, text(site), ": threads of block ", rank,
         " of the cluster have exited, and its memory with them");
  return block.shared + offset;
}

uint64_t Scheduler::warp_meet(const Site& site, uint32_t mask, uint64_t value, uint32_t source, bool is_vote,
                              Collective collective) {
  const Mode mode(false);
  Thread& self = thread_at(site);
  Block& block = *self.block;
  const uint32_t lane = self.number % 32, warp_number = self.number / 32;
  Warp& warp = block.warps[warp_number];
  if (!(mask >> lane & 1u))
    fail(self, text(site), ": the mask ", hex(mask), " does not name its own lane ", lane);
  // Lanes meet when they name the same mask. Lanes of two meetings that wait for each other would wait for
  // ever.
  uint32_t joined = warp.meetings;
  for (uint32_t m = 0; m < warp.meetings; ++m) {
    const Meeting& meeting = warp.meeting[m];
    const bool same_mask = meeting.mask == mask;
    const uint32_t blocking = same_mask || (meeting.mask >> lane & 1u) ? meeting.arrived & mask : 0;
    if (blocking && !(same_mask && same(meeting.site, site)))
      fail(self, "warp operation not reached by all lanes of its mask: it calls ", text(site), " with mask ",
           hex(mask), ", but lane ", lowest(blocking), " of its warp waits in ", text(meeting.site),
           " with mask ", hex(meeting.mask));
    if (same_mask) joined = m;
  }
  if (joined == warp.meetings) warp.meeting[warp.meetings++] = {mask, 0, site, collective};
  warp.meeting[joined].arrived |= 1u << lane;
  warp.value[lane] = value;
  warp.source[lane] = static_cast<uint8_t>(source);
  warp.is_vote[lane] = is_vote;
  self.waits = true;
  self.site = site;
  complete_meeting(block, warp_number, joined);
  leave(self);
  return warp.result[lane];
}

// All 32 lanes hand in a pointer to their part, on their stacks; the last to come computes for all.
void Scheduler::warp_collective(const Site& site, void* part, Collective collective) {
  warp_meet(site, ~0u, reinterpret_cast<uintptr_t>(part), 0, false, collective);
}

// After an exit: what only waited for that lane is complete.
void Scheduler::settle_warp(Block& block, uint32_t warp_number) {
  for (uint32_t m = block.warps[warp_number].meetings; m-- > 0;) complete_meeting(block, warp_number, m);
}

// Ends a meeting when all lanes of its mask that exist and have not exited are there.
void Scheduler::complete_meeting(Block& block, uint32_t warp_number, uint32_t number) {
  Warp& warp = block.warps[warp_number];
  Thread* const threads = &block.threads[32 * warp_number];
  const Meeting meeting = warp.meeting[number];
  const uint32_t lanes = meeting.arrived;
  if (lanes != (meeting.mask & warp.present & ~warp.exited)) return;
  if (meeting.collective) {
    if (lanes != ~0u)
      fail(threads[lowest(lanes)], text(meeting.site), " needs all 32 lanes of a warp, but only ", hex(lanes),
           " are there");
    void* parts[32];
    for (uint32_t lane = 0; lane < 32; ++lane) {
      parts[lane] = reinterpret_cast<void*>(static_cast<uintptr_t>(warp.value[lane]));
      make_ready(threads[lane]);
    }
    meeting.collective(parts);
    warp.meeting[number] = warp.meeting[--warp.meetings];
    return;
  }
  uint64_t ballot = 0;
  for (uint32_t rest = lanes; rest; rest &= rest - 1)
    ballot |= (warp.value[lowest(rest)] & 1u) << lowest(rest);
  for (uint32_t rest = lanes; rest; rest &= rest - 1) {
    const uint32_t lane = lowest(rest), source = warp.source[lane];
    if (!warp.is_vote[lane] && !(lanes >> source & 1u))
      fail(threads[lane], text(meeting.site), " reads from lane ", source,
           meeting.mask >> source & 1u ? ", which has exited or does not exist"
                                       : ", which its mask does not name");
    warp.result[lane] = warp.is_vote[lane] ? ballot : warp.value[source];
    make_ready(threads[lane]);
  }
  warp.meeting[number] = warp.meeting[--warp.meetings];
}

int block_barrier(const Site& site, Vote vote, bool predicate) {
  return scheduler.block_barrier(site, vote, predicate);
}

void grid_barrier(const Site& site) { scheduler.grid_barrier(site); }

void cluster_barrier(const Site& site) { scheduler.cluster_barrier(site); }

unsigned cluster_rank(const Site& site) { return scheduler.cluster_rank(site); }

void* map_shared_rank(const Site& site, void* shared, int rank) {
  return scheduler.map_shared_rank(site, shared, rank);
}

void yield(const Site& site) { scheduler.yield(site); }

uint64_t warp_exchange(const Site& site, unsigned mask, uint64_t value, unsigned source) {
  return scheduler.warp_meet(site, mask, value, source, false);
}

unsigned warp_vote(const Site& site, unsigned mask, bool predicate) {
  return static_cast<unsigned>(scheduler.warp_meet(site, mask, predicate, 0, true));
}

unsigned active_lanes(const Site& site) {
  const Thread& thread = scheduler.thread_at(site);
  const Warp& warp = thread.block->warps[thread.number / 32];
  return warp.present & ~warp.exited;
}

void trap(const Site& site) {
  const Scheduler::Mode mode(false);
  scheduler.fail(scheduler.thread_at(site), text(site));
}

}  // namespace fastarch::emulator
