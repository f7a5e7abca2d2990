// The worker threads behind parallel_for. A kernel of a small network takes some tens of microseconds, about
// as long as waking a thread, so workers watch for the next loop a little while before they go to sleep.
#include "core/thread_pool.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "core/check.h"

#if defined(__linux__)
#include <sched.h>
#endif

namespace fastarch {
namespace {

constexpr auto kWatch = std::chrono::microseconds(100);  // how long an idle worker stays awake
constexpr int kPiecesPerThread = 4;                      // so that a thread that is late takes fewer

int default_thread_count() {
  if (const char* text = std::getenv("FASTARCH_NUM_THREADS")) {
    const long n = std::strtol(text, nullptr, 10);
    if (n >= 1 && n <= 4096) return static_cast<int>(n);
  }
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// One parallel_for: its pieces are claimed by whichever thread is free.
struct Loop {
  int64_t n, piece, pieces;
  detail::LoopBody body;
  const void* context;
  std::atomic<int64_t> next{0}, finished{0};
  std::exception_ptr error = nullptr;
  std::mutex error_mutex{};

  void work() {
    for (int64_t i; (i = next.fetch_add(1)) < pieces;) {
      try {
        body(context, i * piece, std::min(n, (i + 1) * piece));
      } catch (...) {
        const std::lock_guard lock(error_mutex);
        if (!error) error = std::current_exception();
      }
      finished.fetch_add(1);
    }
  }
};

thread_local bool inside_loop = false;

class Pool {
 public:
  // Where the system grants fewer threads, fewer do the work.
  explicit Pool(int threads) : wanted_(threads) {
    workers_.reserve(static_cast<size_t>(threads) - 1);
    try {
      for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { serve(); });
    } catch (const std::system_error&) {  // NOLINT(bugprone-empty-catch)
    }
  }

  ~Pool() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
      generation_.fetch_add(1);
    }
    wake_.notify_all();
    for (auto& worker : workers_) worker.join();
  }

  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return wanted_; }

  void run(Loop* loop) {
    loop_ = loop;
    generation_.fetch_add(1);
    if (sleeping_ > 0) {
      const std::lock_guard lock(mutex_);  // a worker between its last look and its sleep holds this
      wake_.notify_all();
    }
    inside_loop = true;
    loop->work();
    inside_loop = false;
    wait_until([&] { return loop->finished == loop->pieces; });
    // The loop lives on the caller's stack: no worker may still look at it. One that counts itself busy from
    // now on finds no loop.
    loop_ = nullptr;
    wait_until([&] { return busy_ == 0; });
  }

 private:
  // The others are about to finish; but when there are more threads than processors, they need this one's.
  template <class Done>
  static void wait_until(const Done& done) {
    for (int turn = 0; !done(); ++turn) {
      if (turn < 1000) {
        relax();
      } else {
        std::this_thread::yield();
      }
    }
  }

  void serve() {
    inside_loop = true;
    for (uint64_t seen = 0;;) {
      await_change(seen);
      seen = generation_;
      if (stop_) return;
      busy_.fetch_add(1);
      if (Loop* loop = loop_) loop->work();
      busy_.fetch_sub(1);
    }
  }

  void await_change(uint64_t seen) {
    const auto until = std::chrono::steady_clock::now() + kWatch;
    do {
      for (int turn = 0; turn < 50; ++turn) {
        if (generation_ != seen) return;
        relax();
      }
    } while (std::chrono::steady_clock::now() < until);
    std::unique_lock lock(mutex_);
    ++sleeping_;
    wake_.wait(lock, [&] { return generation_ != seen; });
    --sleeping_;
  }

  const int wanted_;
  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<Loop*> loop_{nullptr};
  std::atomic<uint64_t> generation_{0};  // counts loops
  std::atomic<int> busy_{0}, sleeping_{0};
  std::atomic<bool> stop_{false};
};

std::atomic<int> wanted_threads{0};
std::mutex pool_mutex;  // held while a loop runs; guards what follows
// Never destroyed: at exit the workers just end, and a child after fork has none to join.
Pool* pool = nullptr;
pid_t pool_owner = 0;

}  // namespace

int thread_count() {
  if (wanted_threads == 0) wanted_threads = default_thread_count();
  return wanted_threads;
}

void set_thread_count(int n) {
  check(n >= 1, "set_thread_count", "got ", n, " threads, expected at least 1");
  wanted_threads = n;
}

void detail::run_parallel(int64_t n, int64_t grain, LoopBody body, const void* context) {
  if (n <= 0) return;
  const int threads = inside_loop ? 1 : thread_count();
  const int64_t by_grain = n / std::max<int64_t>(1, grain);
  const int64_t pieces = std::min<int64_t>(by_grain, int64_t{threads} * kPiecesPerThread);
  std::unique_lock lock(pool_mutex, std::defer_lock);
  if (threads == 1 || pieces <= 1 || !lock.try_lock()) {
    body(context, 0, n);
    return;
  }
  // Threads do not survive a fork: a child makes its own pool and lets go of the parent's.
  if (pool && pool_owner != getpid()) pool = nullptr;
  if (pool && pool->threads() != threads) {
    delete pool;
    pool = nullptr;
  }
  if (!pool) {
    pool = new Pool(threads);
    pool_owner = getpid();
  }
  Loop loop{.n = n, .piece = (n + pieces - 1) / pieces, .pieces = 0, .body = body, .context = context};
  loop.pieces = (n + loop.piece - 1) / loop.piece;
  pool->run(&loop);
  if (loop.error) std::rethrow_exception(loop.error);
}

}  // namespace fastarch
