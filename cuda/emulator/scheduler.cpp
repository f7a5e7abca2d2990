#include "scheduler.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "core/check.h"
#include "emulator/control.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace fastarch::emulator {

namespace {

const char* base_name(const char* path) {
  const char* slash = std::strrchr(path, '/');
  return slash ? slash + 1 : path;
}

}  // namespace

std::string text(const uint3& index) { return concat("(", index.x, ", ", index.y, ", ", index.z, ")"); }

std::string text(const Site& site) { return concat(site.call, " at ", base_name(site.file), ":", site.line); }

bool same(const Site& a, const Site& b) {
  const auto equal = [](const char* s, const char* t) { return s == t || std::strcmp(s, t) == 0; };
  return a.line == b.line && equal(a.call, b.call) && equal(a.file, b.file);
}

Scheduler scheduler;

void Scheduler::reset(uint32_t blocks, dim3 block, Together together, const Kernel& kernel, uint64_t seed) {
  const bool same_shape =
      blocks_.size() == blocks && shape_.x == block.x && shape_.y == block.y && shape_.z == block.z;
  kernel_ = kernel;
  together_ = together;
  random = Random(seed);
  common_barrier_ = {};
  failure_.clear();
  if (same_shape) return;
  shape_ = block;
  threads_per_block_ = block.x * block.y * block.z;
  warps_per_block_ = (threads_per_block_ + 31) / 32;
  const size_t count = size_t{blocks} * threads_per_block_;
  blocks_.assign(blocks, {});
  threads_.assign(count, {});
  warps_.assign(size_t{blocks} * warps_per_block_, {});
  ready_.resize(count);
  everyone_.resize(count);
  for (size_t i = 0; i < count; ++i) {
    Thread& thread = threads_[i];
    thread.number = static_cast<uint32_t>(i % threads_per_block_);
    thread.block = &blocks_[i / threads_per_block_];
    thread.index = {thread.number % block.x, thread.number / block.x % block.y,
                    thread.number / (block.x * block.y)};
    everyone_[i] = static_cast<uint32_t>(i);
  }
  for (uint32_t b = 0; b < blocks; ++b) {
    blocks_[b].threads = &threads_[size_t{b} * threads_per_block_];
    blocks_[b].warps = &warps_[size_t{b} * warps_per_block_];
    for (uint32_t w = 0; w < warps_per_block_; ++w) {
      const uint32_t lanes = std::min(32u, threads_per_block_ - 32 * w);
      blocks_[b].warps[w].present = lanes == 32 ? ~0u : (1u << lanes) - 1;
    }
  }
}

void Scheduler::run_blocks(const uint3* indices, char* const* shared) {
  for (size_t b = 0; b < blocks_.size(); ++b) {
    Block& block = blocks_[b];
    block.index = indices[b];
    block.shared = shared[b];
    block.barrier = {};
    for (NamedBarrier& named : block.named) named.waiting.clear();
    block.memory_barriers.clear();
    block.warpgroups.assign((warps_per_block_ + 3) / 4, {});
    block.exited = 0;
    for (uint32_t w = 0; w < warps_per_block_; ++w) block.warps[w].exited = block.warps[w].meetings = 0;
  }
  ready_count_ = static_cast<uint32_t>(everyone_.size());
  std::copy(everyone_.begin(), everyone_.end(), ready_.begin());
  exited_ = 0;
  idle_steps_ = 0;
  Thread& first = *pick();
  start(first);
  current_ = &first;
  enter(first);
  from_host_ = true;
  switch_fiber(host_, *first.fiber);
  current_ = nullptr;
  if (!failure_.empty()) {
    unwind();
    drop_copies();
    throw Fault(failure_);
  }
}

// Lets every thread that waits leave its kernel by an exception.
void Scheduler::unwind() {
  cancelling_ = true;
  for (Thread& thread : threads_) {
    thread.waits = false;
    if (!thread.fiber) continue;
    if (thread.preempted) {  // no exception can leave it there: its frames are dropped
      thread.preempted = false;
      pool_.give(std::exchange(thread.fiber, nullptr));
      continue;
    }
    current_ = &thread;
    enter(thread);
    switch_fiber(host_, *thread.fiber);
  }
  current_ = nullptr;
  cancelling_ = false;
}

void Scheduler::fiber_main() {
  Scheduler& self = scheduler;
  arrived(*self.current_->fiber, self.from_host_ ? &self.host_ : nullptr);
  self.from_host_ = false;
  self.run_threads();
}

// Runs the current thread, and then one after the other those that have not started: as long as none of them
// waits, one stack serves all. Ends by switching to a thread that waited, or to the host.
void Scheduler::run_threads() {
  Fiber* const fiber = current_->fiber;
  for (;;) {
    call_kernel();
    Thread& done = *current_;
    done.fiber = nullptr;
    Fiber* next = &host_;
    if (failure_.empty()) exit_thread(done);
    if (failure_.empty() && exited_ < everyone_.size()) {
      if (!deliver_some()) {
        if (failure_.empty()) record(describe_deadlock());
      } else {
        current_ = pick();
        enter(*current_);
        if (!current_->fiber) {
          current_->fiber = fiber;
          continue;
        }
        next = current_->fiber;
      }
    }
    pool_.give(fiber);
    switch_fiber(*fiber, *next, true);
  }
}

void Scheduler::call_kernel() {
  try {
    const Mode mode(true);
    kernel_.call(kernel_.arguments);
  } catch (const Cancelled&) {
  } catch (const Fault& fault) {
    record(fault.what());
  } catch (const std::exception& error) {
    record(concat("thread ", text(current_->index), " of block ", text(current_->block->index),
                  " threw: ", error.what()));
  } catch (...) {
    record(concat("thread ", text(current_->index), " of block ", text(current_->block->index),
                  " threw an exception"));
  }
}

void Scheduler::record(const std::string& what) {
  if (failure_.empty()) failure_ = what;
}

void Scheduler::exit_thread(Thread& thread) {
  Block& block = *thread.block;
  progress();
  ++exited_;
  ++block.exited;
  const uint32_t warp_number = thread.number / 32;
  Warp& warp = block.warps[warp_number];
  warp.exited |= 1u << (thread.number % 32);
  try {
    if (!thread.copies.empty())
      fail(thread, "it exited, but ", thread.copies.size(),
           " of its asynchronous copies have not been waited for");
    if (block.barrier.arrived > 0)
      fail(thread, "barrier not reached by all threads: it exited, but ", block.barrier.arrived,
           " of its block wait in ", text(block.barrier.site));
    if (common_barrier_.arrived > 0)
      fail(thread, "barrier not reached by all threads: it exited, but ", common_barrier_.arrived,
           " of all blocks wait in ", text(common_barrier_.site));
    if (!block.memory_barriers.empty() || thread.warpgroup_part.begun > 0) settle_transfers(thread);
    if (warp.meetings > 0) settle_warp(block, warp_number);
  } catch (const Fault& fault) {
    record(fault.what());
  }
}

void Scheduler::drop_copies() {
  transfers_.clear();
  for (Thread& thread : threads_) {
    thread.copies.clear();
    thread.warpgroup_part = {};
  }
}

Thread* Scheduler::pick() {
  const uint32_t at = random.below(ready_count_);
  const uint32_t number = ready_[at];
  ready_[at] = ready_[--ready_count_];
  return &threads_[number];
}

void Scheduler::make_ready(const Thread& thread) { ready_[ready_count_++] = number_of(thread); }

void Scheduler::enter(const Thread& thread) {
  threadIdx = thread.index;
  blockIdx = thread.block->index;
  SharedVariable::shared_base = thread.block->shared;
}

// Leaves the current thread, which waits or is ready, and comes back when it is picked.
void Scheduler::leave(Thread& self) {
  if (!deliver_some()) throw Fault(failure_.empty() ? describe_deadlock() : failure_);
  Thread* next = pick();
  if (next != &self) {
    if (!next->fiber) start(*next);
    current_ = next;
    enter(*next);
    switch_fiber(*self.fiber, *next->fiber);
    if (cancelling_) throw Cancelled();
  }
  self.waits = false;
}

void Scheduler::start(Thread& thread) {
  thread.fiber = pool_.take();
  prepare(*thread.fiber, &fiber_main);
}

void Scheduler::wait(Thread& self, const Site& site) {
  self.waits = true;
  self.site = site;
  leave(self);
}

Thread& Scheduler::thread_at(const Site& site) const {
  if (!current_) throw Fault(concat(text(site), ": called outside a kernel"));
  return *current_;
}

void Scheduler::yield(const Site& site) {
  const Mode mode(false);
  Thread& self = thread_at(site);
  if (++idle_steps_ > device().idle_steps)
    fail(self, "no thread has passed a barrier or exited for ", device().idle_steps,
         " scheduling points (livelock?); now in ", text(site));
  make_ready(self);
  leave(self);
}

std::string Scheduler::describe_deadlock() const {
  std::string places;
  std::vector<Site> seen;
  for (const Thread& thread : threads_) {
    if (!thread.waits) continue;
    if (std::any_of(seen.begin(), seen.end(), [&](const Site& site) { return same(site, thread.site); }))
      continue;
    seen.push_back(thread.site);
    places += concat("; thread ", text(thread.index), " of block ", text(thread.block->index), " waits in ",
                     text(thread.site));
  }
  return "deadlock: every thread waits or has exited" + places;
}

}  // namespace fastarch::emulator
