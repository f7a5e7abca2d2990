#include "scheduler.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "core/check.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace fastarch::emulator {

namespace {

// A thread that spins on memory passes scheduling points without end. No kernel of ours needs nearly so many
// of them between two barriers or exits of anyone.
constexpr uint64_t kIdleSteps = 200'000'000;

const char* base_name(const char* path) {
  const char* slash = std::strrchr(path, '/');
  return slash ? slash + 1 : path;
}

bool same(const Site& a, const Site& b) {
  return a.line == b.line && std::strcmp(a.call, b.call) == 0 &&
         (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

}  // namespace

std::string hex(uint32_t mask) {
  std::ostringstream out;
  out << "0x" << std::hex << mask;
  return out.str();
}

std::string text(const uint3& index) { return concat("(", index.x, ", ", index.y, ", ", index.z, ")"); }

std::string text(const Site& site) { return concat(site.call, " at ", base_name(site.file), ":", site.line); }

Scheduler& scheduler() {
  static Scheduler instance;
  return instance;
}

void Scheduler::reset(uint32_t blocks, dim3 block, const Kernel& kernel, uint64_t seed) {
  const bool same_shape =
      blocks_.size() == blocks && shape_.x == block.x && shape_.y == block.y && shape_.z == block.z;
  kernel_ = kernel;
  random = Random(seed);
  grid_barrier_ = {};
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
    block.exited = 0;
    for (uint32_t w = 0; w < warps_per_block_; ++w) block.warps[w].exited = block.warps[w].waiting = 0;
  }
  ready_count_ = static_cast<uint32_t>(everyone_.size());
  std::copy(everyone_.begin(), everyone_.end(), ready_.begin());
  exited_ = 0;
  idle_steps_ = 0;
  Fiber* first = pool_.take();
  current_ = pick();
  current_->fiber = first;
  prepare(*first, &fiber_main);
  enter(*current_);
  from_host_ = true;
  switch_fiber(host_, *first);
  current_ = nullptr;
  if (!failure_.empty()) {
    unwind();
    throw Fault(failure_);
  }
}

// Lets every thread that waits leave its kernel by an exception. The order does not matter: none of them runs
// on.
void Scheduler::unwind() {
  cancelling_ = true;
  for (Thread& thread : threads_) {
    thread.wait = Wait::none;
    if (!thread.fiber) continue;
    current_ = &thread;
    enter(thread);
    switch_fiber(host_, *thread.fiber);
  }
  current_ = nullptr;
  cancelling_ = false;
}

void Scheduler::fiber_main() {
  Scheduler& self = scheduler();
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
    if (failure_.empty()) {
      exit_thread(done);
    }
    if (failure_.empty() && exited_ < everyone_.size()) {
      if (ready_count_ == 0) {
        record(describe_deadlock());
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
    if (block.barrier.arrived > 0) {
      fail(thread, concat("barrier not reached by all threads: it exited, but ", block.barrier.arrived,
                          " of its block wait in ", text(block.barrier.site)));
    }
    if (grid_barrier_.arrived > 0) {
      fail(thread, concat("barrier not reached by all threads: it exited, but ", grid_barrier_.arrived,
                          " of the grid wait in ", text(grid_barrier_.site)));
    }
    if (warp.waiting) settle_warp(block, warp_number);
  } catch (const Fault& fault) {
    record(fault.what());
  }
}

void Scheduler::fail(const Thread& thread, const std::string& what) const {
  throw Fault(concat("thread ", text(thread.index), " of block ", text(thread.block->index), ": ", what));
}

Thread* Scheduler::pick() {
  const uint32_t at = random.below(ready_count_);
  const uint32_t number = ready_[at];
  ready_[at] = ready_[--ready_count_];
  return &threads_[number];
}

void Scheduler::make_ready(Thread& thread) {
  thread.wait = Wait::none;
  ready_[ready_count_++] = static_cast<uint32_t>(&thread - threads_.data());
}

void Scheduler::enter(Thread& thread) {
  threadIdx = thread.index;
  blockIdx = thread.block->index;
  SharedVariable::shared_base = thread.block->shared;
}

// Leaves the current thread, which is either waiting or ready, and comes back when it is picked.
void Scheduler::resume(Thread& self) {
  if (ready_count_ == 0) throw Fault(describe_deadlock());
  Thread* next = pick();
  if (next == &self) return;
  if (!next->fiber) {
    next->fiber = pool_.take();
    prepare(*next->fiber, &fiber_main);
  }
  current_ = next;
  enter(*next);
  switch_fiber(*self.fiber, *next->fiber);
  if (cancelling_) throw Cancelled();
}

void Scheduler::wait(Wait what, const Site& site) {
  Thread& self = *current_;
  self.wait = what;
  self.site = site;
  resume(self);
}

Thread& Scheduler::thread_of(const Site& site) {
  if (!current_) throw Fault(concat(text(site), ": called outside a kernel"));
  return *current_;
}

void Scheduler::yield(const Site& site) {
  Thread& self = thread_of(site);
  if (++idle_steps_ > kIdleSteps) {
    fail(self, concat("no thread has passed a barrier or exited for ", kIdleSteps,
                      " scheduling points (livelock?); now in ", text(site)));
  }
  make_ready(self);
  resume(self);
}

int Scheduler::block_barrier(const Site& site, Vote vote, bool predicate) {
  Thread& self = thread_of(site);
  Block& block = *self.block;
  Barrier& barrier = block.barrier;
  if (block.exited > 0) {
    fail(self, concat("barrier not reached by all threads: it calls ", text(site), ", but ", block.exited,
                      " of the ", threads_per_block_, " threads of its block have exited"));
  }
  if (barrier.arrived == 0) {
    barrier.site = site;
    barrier.holds = 0;
  } else if (!same(barrier.site, site)) {
    fail(self, concat("barrier not reached by all threads: it calls ", text(site), ", but ", barrier.arrived,
                      " of its block wait in ", text(barrier.site)));
  }
  barrier.holds += predicate;
  if (++barrier.arrived < threads_per_block_) {
    wait(Wait::block, site);
    return barrier.result;
  }
  const int holds = static_cast<int>(barrier.holds), all = static_cast<int>(threads_per_block_);
  const int result = vote == Vote::count ? holds : vote == Vote::all ? holds == all : holds > 0;
  barrier.result = result;
  barrier.arrived = 0;
  progress();
  for (uint32_t i = 0; i < threads_per_block_; ++i) make_ready(block.threads[i]);
  resume(self);
  return result;
}

void Scheduler::grid_barrier(const Site& site) {
  Thread& self = thread_of(site);
  Barrier& barrier = grid_barrier_;
  const auto all = static_cast<uint32_t>(everyone_.size());
  if (all != uint64_t{gridDim.x} * gridDim.y * gridDim.z * threads_per_block_)
    fail(self, concat(text(site), " in a launch that is not cooperative"));
  if (exited_ > 0)
    fail(self, concat("barrier not reached by all threads: it calls ", text(site), ", but ", exited_,
                      " of the ", all, " threads of the grid have exited"));
  if (barrier.arrived == 0) {
    barrier.site = site;
  } else if (!same(barrier.site, site)) {
    fail(self, concat("barrier not reached by all threads: it calls ", text(site), ", but ", barrier.arrived,
                      " of the grid wait in ", text(barrier.site)));
  }
  if (++barrier.arrived < all) return wait(Wait::grid, site);
  barrier.arrived = 0;
  progress();
  for (Thread& thread : threads_) make_ready(thread);
  resume(self);
}

uint64_t Scheduler::warp_meet(const Site& site, uint32_t mask, uint64_t value, uint32_t source,
                              bool is_vote) {
  Thread& self = thread_of(site);
  Block& block = *self.block;
  const uint32_t lane = self.number % 32;
  Warp& warp = warp_of(self);
  if (!(mask >> lane & 1u))
    fail(self, concat(text(site), ": the mask ", hex(mask), " does not name its own lane ", lane));
  for (uint32_t others = warp.waiting; others; others &= others - 1) {
    const auto other = static_cast<uint32_t>(__builtin_ctz(others));
    const bool named = mask >> other & 1u, names = warp.mask[other] >> lane & 1u;
    if (!named && !names) continue;
    const Thread& waiting = block.threads[self.number - lane + other];
    if (warp.mask[other] != mask || !same(waiting.site, site)) {
      fail(self, concat("warp operation not reached by all lanes of its mask: lane ", lane, " calls ",
                        text(site), " with mask ", hex(mask), ", lane ", other, " waits in ",
                        text(waiting.site), " with mask ", hex(warp.mask[other])));
    }
    break;  // those that wait together agree
  }
  warp.mask[lane] = mask;
  warp.value[lane] = value;
  warp.source[lane] = static_cast<uint8_t>(source);
  warp.is_vote[lane] = is_vote;
  warp.waiting |= 1u << lane;
  self.wait = Wait::warp;
  self.site = site;
  const uint32_t needed = mask & warp.present & ~warp.exited;
  if ((warp.waiting & needed) == needed) complete(block, self.number / 32, needed);
  resume(self);
  return warp.result[lane];
}

// After an exit: what only waited for that lane is complete.
void Scheduler::settle_warp(Block& block, uint32_t warp_number) {
  Warp& warp = block.warps[warp_number];
  for (uint32_t lanes = warp.waiting; lanes;) {
    const uint32_t mask = warp.mask[__builtin_ctz(lanes)], needed = mask & warp.present & ~warp.exited;
    lanes &= ~mask;  // those that wait together agree on their mask
    if ((warp.waiting & needed) == needed) complete(block, warp_number, needed);
  }
}

void Scheduler::complete(Block& block, uint32_t warp_number, uint32_t group) {
  Warp& warp = block.warps[warp_number];
  Thread* const threads = &block.threads[32 * warp_number];
  uint64_t ballot = 0;
  for (uint32_t lanes = group; lanes; lanes &= lanes - 1) {
    const auto lane = static_cast<uint32_t>(__builtin_ctz(lanes));
    ballot |= (warp.value[lane] & 1u) << lane;
  }
  for (uint32_t lanes = group; lanes; lanes &= lanes - 1) {
    const auto lane = static_cast<uint32_t>(__builtin_ctz(lanes));
    const uint32_t source = warp.source[lane];
    if (!warp.is_vote[lane] && !(group >> source & 1u)) {
      const bool named = warp.mask[lane] >> source & 1u;
      fail(threads[lane],
           concat(text(threads[lane].site), " reads from lane ", source,
                  named ? ", which has exited or does not exist" : ", which its mask does not name"));
    }
    warp.result[lane] = warp.is_vote[lane] ? ballot : warp.value[source];
  }
  warp.waiting &= ~group;
  for (uint32_t lanes = group; lanes; lanes &= lanes - 1) make_ready(threads[__builtin_ctz(lanes)]);
}

std::string Scheduler::describe_deadlock() const {
  std::string places;
  std::vector<Site> seen;
  for (const Thread& thread : threads_) {
    if (thread.wait == Wait::none) continue;
    if (std::any_of(seen.begin(), seen.end(), [&](const Site& site) { return same(site, thread.site); }))
      continue;
    seen.push_back(thread.site);
    places += concat("; thread ", text(thread.index), " of block ", text(thread.block->index), " waits in ",
                     text(thread.site));
  }
  return "deadlock: every thread waits or has exited" + places;
}

// What device code calls.

int block_barrier(const Site& site, Vote vote, bool predicate) {
  return scheduler().block_barrier(site, vote, predicate);
}

void grid_barrier(const Site& site) { scheduler().grid_barrier(site); }

void yield(const Site& site) { scheduler().yield(site); }

uint64_t warp_exchange(const Site& site, unsigned mask, uint64_t value, unsigned source) {
  return scheduler().warp_meet(site, mask, value, source, false);
}

unsigned warp_vote(const Site& site, unsigned mask, bool predicate) {
  return static_cast<unsigned>(scheduler().warp_meet(site, mask, predicate, 0, true));
}

unsigned lane() {
  const Thread* thread = scheduler().current();
  if (!thread) throw Fault("lane: called outside a kernel");
  return thread->number % 32;
}

unsigned active_lanes() {
  const Thread* thread = scheduler().current();
  if (!thread) throw Fault("__activemask: called outside a kernel");
  const Warp& warp = scheduler().warp_of(*thread);
  return warp.present & ~warp.exited;
}

void trap(const Site& site) {
  const Thread* thread = scheduler().current();
  if (!thread) throw Fault(concat(text(site), ": called outside a kernel"));
  scheduler().fail(*thread, text(site));
}

}  // namespace fastarch::emulator
