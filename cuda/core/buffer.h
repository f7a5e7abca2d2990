// Scratch memory of a launcher, allocated and freed in stream order: nothing waits, and a CUDA graph can
// capture it.
#pragma once
#include "core/launch.h"

namespace fastarch::cuda {

// Buffer<float> partial(n, stream): n elements, uninitialised, usable by kernels launched on `stream` until
// it goes out of scope. Throws std::runtime_error when the device has no memory left.
template <class T>
class Buffer {
 public:
  Buffer(int64_t n, Stream stream, const char* file = __builtin_FILE(), int line = __builtin_LINE())
      : size_(n), stream_(static_cast<cudaStream_t>(stream)) {
    if (n == 0) return;
    void* data = nullptr;
    check_cuda(cudaMallocAsync(&data, static_cast<size_t>(n) * sizeof(T), stream_),
               CallSite("cudaMallocAsync", file, line));
    data_ = static_cast<T*>(data);
  }
  // What cudaFreeAsync can report here is an earlier kernel's failure, which every later call reports as
  // well.
  ~Buffer() {
    if (data_) static_cast<void>(cudaFreeAsync(data_, stream_));
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* data() const { return data_; }
  int64_t size() const { return size_; }

 private:
  T* data_ = nullptr;
  int64_t size_ = 0;
  cudaStream_t stream_ = nullptr;
};

}  // namespace fastarch::cuda
