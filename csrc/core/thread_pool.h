// A fixed pool of worker threads shared by all CPU kernels.
#pragma once
#include <cstdint>

namespace fastarch {

namespace detail {
using LoopBody = void (*)(const void* context, int64_t begin, int64_t end);
void run_parallel(int64_t n, int64_t grain, LoopBody body, const void* context);
}  // namespace detail

// Calls body(begin, end) on disjoint ranges that cover [0, n), each of at least `grain` items (but the last),
// on the pool and the calling thread; returns when all are done. Exceptions of the body are rethrown here.
// Which ranges there are depends on the thread count and on what else runs, so no result may depend on them.
// Nested calls, and calls while another thread's loop has the pool, run on the calling thread.
template <class Body>
void parallel_for(int64_t n, int64_t grain, const Body& body) {
  detail::run_parallel(
      n, grain,
      [](const void* context, int64_t begin, int64_t end) {
        (*static_cast<const Body*>(context))(begin, end);
      },
      &body);
}

int thread_count();            // FASTARCH_NUM_THREADS, else the processors this process may use
void set_thread_count(int n);  // n >= 1

}  // namespace fastarch
