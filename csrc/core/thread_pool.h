// A fixed pool of worker threads shared by all CPU kernels.
#pragma once
#include <cstdint>
#include <functional>

namespace fastarch {

// Calls body(begin, end) on disjoint ranges that cover [0, n), each of at least `grain` items (but the last),
// on the pool and the calling thread; returns when all are done. Exceptions of the body are rethrown here.
// The split depends on n, grain and the thread count alone. Nested calls run on the calling thread.
void parallel_for(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& body);

int thread_count();            // FASTARCH_NUM_THREADS, else the processors this process may use
void set_thread_count(int n);  // n >= 1

}  // namespace fastarch
