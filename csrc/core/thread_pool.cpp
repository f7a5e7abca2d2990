// The worker threads behind parallel_for.
#include "core/thread_pool.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/check.h"

#if defined(__linux__)
#include <sched.h>
#endif

namespace fastarch {
namespace {

int default_thread_count() {
  if (const char* text = std::getenv("FASTARCH_NUM_THREADS")) {
    const long n = std::strtol(text, nullptr, 10);
    if (n >= 1 && n <= 4096) return static_cast<int>(n);
  }
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

// One loop in flight: its pieces are claimed by whichever thread is free.
struct Loop {
  int64_t n, piece, pieces;
  const std::function<void(int64_t, int64_t)>* body;
  std::atomic<int64_t> next{0}, finished{0};
  std::exception_ptr error;
  std::mutex error_mutex;

  void work() {
    for (int64_t i; (i = next.fetch_add(1)) < pieces;) {
      try {
        (*body)(i* piece, std::min(n, (i + 1) * piece));
      } catch (...) {
        std::lock_guard lock(error_mutex);
        if (!error) error = std::current_exception();
      }
      finished.fetch_add(1);
    }
  }
};

thread_local bool inside_loop = false;

class Pool {
 public:
  explicit Pool(int threads) {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { serve(); });
  }

  ~Pool() {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (auto& worker : workers_) worker.join();
  }

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  void run(const std::shared_ptr<Loop>& loop) {
    {
      std::lock_guard lock(mutex_);
      loop_ = loop;
      ++generation_;
    }
    wake_.notify_all();
    inside_loop = true;
    loop->work();
    inside_loop = false;
    while (loop->finished.load() < loop->pieces) std::this_thread::yield();
  }

 private:
  void serve() {
    inside_loop = true;
    uint64_t seen = 0;
    for (;;) {
      std::shared_ptr<Loop> loop;
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [&] { return stop_ || generation_ != seen; });
        if (stop_) return;
        seen = generation_;
        loop = loop_;
      }
      loop->work();
    }
  }

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::shared_ptr<Loop> loop_;
  uint64_t generation_ = 0;
  bool stop_ = false;
};

std::mutex pool_mutex;  // one parallel loop at a time; also guards the pool itself
std::unique_ptr<Pool> pool;
pid_t pool_owner = 0;
int wanted_threads = 0;

}  // namespace

int thread_count() {
  std::lock_guard lock(pool_mutex);
  if (wanted_threads == 0) wanted_threads = default_thread_count();
  return wanted_threads;
}

void set_thread_count(int n) {
  check(n >= 1, "set_thread_count", "got ", n, " threads, expected at least 1");
  std::lock_guard lock(pool_mutex);
  wanted_threads = n;
}

void parallel_for(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  if (n <= 0) return;
  const int threads = inside_loop ? 1 : thread_count();
  const int64_t by_grain = (n + grain - 1) / std::max<int64_t>(1, grain);
  const int64_t pieces = std::min<int64_t>(by_grain, threads * 4);
  if (threads == 1 || pieces <= 1) {
    body(0, n);
    return;
  }
  auto loop = std::make_shared<Loop>();
  loop->n = n;
  loop->piece = (n + pieces - 1) / pieces;
  loop->pieces = (n + loop->piece - 1) / loop->piece;
  loop->body = &body;
  {
    std::lock_guard lock(pool_mutex);
    // Threads do not survive a fork: a child makes its own pool and lets go of the parent's.
    if (pool && pool_owner != getpid()) pool.release();  // NOLINT(bugprone-unused-return-value)
    if (!pool || pool->threads() != threads) {
      pool.reset();
      pool = std::make_unique<Pool>(threads);
      pool_owner = getpid();
    }
    pool->run(loop);
  }
  if (loop->error) std::rethrow_exception(loop->error);
}

}  // namespace fastarch
