// Runs the threads of some blocks as fibers, in a seeded random order.
#pragma once
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "core/check.h"
#include "emulator/device.h"
#include "emulator/runtime.h"
#include "emulator/transfers.h"
#include "emulator/warpgroup.h"
#include "fiber.h"

namespace fastarch::emulator {

// PCG32 (O'Neill, 2014): small and quick, and a launch's order is a function of its seed alone.
class Random {
 public:
  explicit Random(uint64_t seed = 0) : state_(seed) {
    next();
    state_ += 0x9E3779B97F4A7C15u;
    next();
  }
  uint32_t next() {
    const uint64_t old = state_;
    state_ = old * 6364136223846793005u + 1442695040888963407u;
    const auto x = static_cast<uint32_t>(((old >> 18) ^ old) >> 27);
    const auto turn = static_cast<uint32_t>(old >> 59);
    return (x >> turn) | (x << ((32 - turn) & 31));
  }
  uint32_t below(uint32_t n) { return static_cast<uint32_t>((uint64_t{next()} * n) >> 32); }

 private:
  uint64_t state_;
};

// A fault of the kernel; the text says which thread and why.
class Fault : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

std::string text(const uint3& index);
std::string text(const Site& site);
bool same(const Site& a, const Site& b);

struct Block;
struct Thread;

// An asynchronous copy on its way: what it will write, and the number of the group that it belongs to.
struct Copy {
  char* to;
  uint32_t bytes, group;
  char data[16];
};

// A box on its way from global to shared memory; it arrives at a random scheduling point.
struct Transfer {
  Block* block;
  const Thread* from;  // who started it
  Site site;
  char* to;
  TensorMap map;
  int coordinates[TensorMap::kMostAxes];
  uint64_t* barrier;
  int offset_w, offset_h;
};

// A barrier in shared memory: the current phase, and what it still waits for.
struct MemoryBarrier {
  uint64_t* word;
  uint32_t count, pending, phase;
  int64_t bytes;                  // expected, less those that have arrived
  std::vector<uint32_t> waiting;  // numbers of threads, in the scheduler's count
};

// One thread's part of a warpgroup's product, not waited for yet: whether it is computed, and its group.
struct PendingProduct {
  WarpgroupProduct what;
  float* d;
  uint32_t group;
  bool done;
};

// What a thread's sums are, or will be: `d` shows it when no product is pending.
struct Sums {
  float* d;
  uint32_t pending;
  std::vector<float> values;
};

// What a thread has to do with its warpgroup's products.
struct WarpgroupPart {
  std::vector<PendingProduct> products;
  std::vector<Sums> sums;
  uint32_t groups = 0, begun = 0;
  bool fenced = false;
};

// A CUDA thread. It gets a fiber when it starts, and gives it back when it exits.
struct Thread {
  Fiber* fiber = nullptr;
  Block* block = nullptr;
  uint3 index{};
  uint32_t number = 0;  // within its block
  bool waits = false, preempted = false;
  Site site{};  // where it waits
  std::vector<Copy> copies;
  uint32_t copy_groups = 0;  // committed so far
  WarpgroupPart warpgroup_part;
};

// Computes what a warp does together, out of what each lane handed in.
using Collective = void (*)(void* const (&parts)[32]);

// Lanes that wait for each other in a warp operation.
struct Meeting {
  uint32_t mask, arrived;
  Site site;
  Collective collective;  // or null: lanes exchange values or votes
};

struct Warp {
  uint32_t present = 0, exited = 0;  // lanes
  uint32_t meetings = 0;
  Meeting meeting[32];
  uint64_t value[32];  // what each waiting lane brought ...
  uint8_t source[32];
  bool is_vote[32];
  uint64_t result[32];  // ... and takes away
};

struct Barrier {
  uint32_t arrived = 0, holds = 0;
  Site site{};
  int result = 0;
};

// What the threads of a warpgroup have begun so far: they all have to begin the same.
struct Warpgroup {
  std::vector<WarpgroupProduct> begun;
  uint32_t exited = 0;
};

struct NamedBarrier {
  uint32_t threads = 0;
  Site site{};
  std::vector<uint32_t> waiting;
};

struct Block {
  static constexpr int kNamedBarriers = 16;
  uint3 index{};
  Thread* threads = nullptr;
  Warp* warps = nullptr;
  Barrier barrier;
  NamedBarrier named[kNamedBarriers];
  std::vector<MemoryBarrier> memory_barriers;
  std::vector<Warpgroup> warpgroups;
  uint32_t exited = 0;
  char* shared = nullptr;
};

class Scheduler {
 public:
  // Makes room for `blocks` blocks of shape `block` at once: one, the blocks of a cluster or of a grid.
  enum class Together { block, cluster, grid };
  void reset(uint32_t blocks, dim3 block, Together together, const Kernel& kernel, uint64_t seed);
  // Runs blocks, placed at the given indices, to their end. Throws Fault; nothing is left running then.
  void run_blocks(const uint3* indices, char* const* shared);

  int block_barrier(const Site& site, Vote vote, bool predicate);
  void grid_barrier(const Site& site);
  void cluster_barrier(const Site& site);
  uint32_t cluster_rank(const Site& site) const;
  void* map_shared_rank(const Site& site, void* shared, int rank) const;
  uint64_t warp_meet(const Site& site, uint32_t mask, uint64_t value, uint32_t source, bool is_vote,
                     Collective collective = nullptr);
  void warp_collective(const Site& site, void* part, Collective collective);
  void yield(const Site& site);
  void preempt();

  void init_mbarrier(const Site& site, uint64_t* word, uint32_t count);
  void arrive_mbarrier(const Site& site, uint64_t* word, uint32_t expected_bytes);
  void wait_mbarrier(const Site& site, uint64_t* word, uint32_t parity);
  void load_box(const Site& site, void* to, const TensorMap& map, uint64_t* barrier, const int* coordinates,
                int axes, int offset_w, int offset_h);
  void named_barrier(const Site& site, int id, int threads);

  Thread& thread_at(const Site& site) const;  // the running one; throws Fault outside a kernel
  template <class... Parts>
  [[noreturn, gnu::cold, gnu::noinline]] void fail(const Thread& thread, const Parts&... parts) const {
    throw Fault(
        concat("thread ", text(thread.index), " of block ", text(thread.block->index), ": ", parts...));
  }

  Random random;
  // Whether kernel code runs, and may be preempted, or the scheduler works for it: with inline functions of
  // the standard library, which may be the very ones compiled with the hooks.
  class Mode {
   public:
    explicit Mode(bool in_kernel);
    ~Mode();
    Mode(const Mode&) = delete;
    Mode& operator=(const Mode&) = delete;

   private:
    const bool before_;
  };

 private:
  // Thrown in threads that wait when another one failed, so that their frames unwind; caught where they
  // started.
  struct Cancelled {};

  static void fiber_main();
  void run_threads();
  void call_kernel();
  void exit_thread(Thread& thread);
  void start(Thread& thread);
  void enter(const Thread& thread);
  void leave(Thread& self);
  void wait(Thread& self, const Site& site);
  void make_ready(const Thread& thread);
  void drop_copies();
  MemoryBarrier& memory_barrier(const Thread& self, const Site& site, uint64_t* word);
  void settle_mbarrier(const Thread& self, const Site& site, MemoryBarrier& barrier);
  void deliver(uint32_t number);
  bool deliver_some();
  void settle_transfers(Thread& thread);
  uint32_t number_of(const Thread& thread) const { return static_cast<uint32_t>(&thread - threads_.data()); }
  Thread* pick();
  void meet_all(const Site& site);
  bool arrive(Barrier& barrier, const Thread& self, const Site& site, uint32_t all, uint32_t exited);
  void settle_warp(Block& block, uint32_t warp_number);
  void complete_meeting(Block& block, uint32_t warp_number, uint32_t number);
  void progress() { idle_steps_ = 0; }
  void record(const std::string& what);
  void unwind();
  std::string describe_deadlock() const;

  Kernel kernel_{};
  dim3 shape_;
  Together together_ = Together::block;
  uint32_t threads_per_block_ = 0, warps_per_block_ = 0;
  std::vector<Block> blocks_;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::vector<uint32_t> ready_, everyone_;  // numbers of threads that can run, started or not
  std::vector<Transfer> transfers_;
  uint32_t ready_count_ = 0, exited_ = 0;
  Barrier common_barrier_;   // of all blocks that run at once: a grid or a cluster
  uint64_t idle_steps_ = 0;  // scheduling points since a barrier was passed or a thread exited
  Thread* current_ = nullptr;
  Fiber host_;
  FiberPool pool_;
  bool cancelling_ = false, from_host_ = false, in_kernel_ = false;
  std::string failure_;
};

#pragma GCC visibility push(hidden)
extern Scheduler scheduler;
extern constinit thread_local bool inside_launch;  // whether this host thread runs a kernel
#pragma GCC visibility pop

inline Scheduler::Mode::Mode(bool in_kernel) : before_(std::exchange(scheduler.in_kernel_, in_kernel)) {}
inline Scheduler::Mode::~Mode() { scheduler.in_kernel_ = before_; }

}  // namespace fastarch::emulator
