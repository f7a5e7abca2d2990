// Captured streams: what is kept, with which values, in whose memory; and what a capture refuses.
#include <cmath>
#include <vector>

#include "core/buffer.h"
#include "core/cooperative.h"
#include "harness.h"

using namespace fastarch::cuda;
using fastarch::Stream;
using harness::contains;
using harness::error_of;

namespace {

Stream stream_number(uintptr_t number) { return reinterpret_cast<Stream>(number); }

const Stream kCaptured = stream_number(1), kOther = stream_number(2);
const cudaStream_t kStream = static_cast<cudaStream_t>(kCaptured);

// The graph of what `body` tells the captured stream, ready to be launched.
template <class Body>
cudaGraphExec_t captured(const Body& body) {
  check_cuda(cudaStreamBeginCapture(kStream, cudaStreamCaptureModeRelaxed), "begin");
  body();
  cudaGraph_t graph = nullptr;
  check_cuda(cudaStreamEndCapture(kStream, &graph), "end");
  cudaGraphExec_t exec = nullptr;
  check_cuda(cudaGraphInstantiate(&exec, graph), "instantiate");
  check_cuda(cudaGraphDestroy(graph), "destroy");
  return exec;
}

void replay(cudaGraphExec_t exec) { check_cuda(cudaGraphLaunch(exec, nullptr), "replay"); }

__global__ void add_kernel(float* y, const float* x, float value, int n) {
  for (int64_t i = global_thread(); i < n; i += grid_threads()) y[i] += x[i] + value;
}

__global__ void copy_kernel(float* y, const float* x, int n) {
  for (int64_t i = global_thread(); i < n; i += grid_threads()) y[i] = x[i];
}

TEST(replays) {
  constexpr int kSize = 70;
  std::vector<float> x(kSize, 1.0f), y(kSize, 0.0f), z(kSize, 5.0f);
  cudaGraphExec_t exec = nullptr;
  {
    float value = 10.0f;
    exec = captured([&] {
      launch("add", add_kernel, 1, 32, 0, kCaptured, y.data(), x.data(), value, kSize);
      check_cuda(cudaMemsetAsync(z.data(), 0, sizeof(float), kStream), "memset");
      check_cuda(cudaMemcpyAsync(&z[1], y.data(), sizeof(float), cudaMemcpyDefault, kStream), "copy");
    });
    value = -1.0f;  // the launch has its own
  }
  EXPECT(y[0] == 0.0f && z[0] == 5.0f && z[1] == 5.0f);  // nothing has run
  replay(exec);
  EXPECT(y[0] == 11.0f && y[kSize - 1] == 11.0f && z[0] == 0.0f && z[1] == 11.0f && z[2] == 5.0f);
  x.assign(kSize, 2.0f);
  replay(exec);
  EXPECT(y[0] == 23.0f && z[1] == 23.0f);
  cudaGraphExecDestroy(exec);
}

TEST(buffers) {
  constexpr int kSize = 33;
  std::vector<float> x(kSize, 1.0f), y(kSize, 0.0f), seen(kSize, 0.0f);
  const cudaGraphExec_t exec = captured([&] {
    const Buffer<float> scratch(kSize, kCaptured);
    launch("peek", copy_kernel, 1, 32, 0, kCaptured, seen.data(), scratch.data(), kSize);
    launch("fill", copy_kernel, 1, 32, 0, kCaptured, scratch.data(), x.data(), kSize);
    launch("read", copy_kernel, 1, 32, 0, kCaptured, y.data(), scratch.data(), kSize);
  });
  fastarch::emulator::check_leaks("buffers");  // they are the graph's
  for (const float value : {3.0f, 4.0f}) {
    x.assign(kSize, value);
    replay(exec);
    EXPECT(std::isnan(seen[0]) && std::isnan(seen[kSize - 1]));  // as fresh as an operator's
    EXPECT(y[0] == value && y[kSize - 1] == value);
  }
  cudaGraphExecDestroy(exec);
}

__global__ void neighbours_kernel(float* y, float* x) {
  x[blockIdx.x] = static_cast<float>(blockIdx.x);
  grid_sync();
  y[blockIdx.x] = x[(blockIdx.x + 1) % gridDim.x];
}

TEST(cooperative) {
  std::vector<float> x(4, -1.0f), y(4, -1.0f);
  const cudaGraphExec_t exec = captured(
      [&] { launch_cooperative("neighbours", neighbours_kernel, 4, 1, 0, kCaptured, y.data(), x.data()); });
  replay(exec);
  EXPECT(y[0] == 1.0f && y[3] == 0.0f);
  cudaGraphExecDestroy(exec);
}

TEST(refusals) {
  cudaGraph_t graph = nullptr;
  EXPECT(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeGlobal) == cudaErrorStreamCaptureUnsupported);
  EXPECT(cudaStreamEndCapture(kStream, &graph) == cudaErrorStreamCaptureUnmatched);
  EXPECT(contains(error_of([&] {
                    captured([&] {
                      EXPECT(cudaStreamBeginCapture(kStream, cudaStreamCaptureModeGlobal) ==
                             cudaErrorStreamCaptureUnsupported);
                      EXPECT(cudaStreamSynchronize(kStream) == cudaErrorStreamCaptureUnsupported);
                    });
                  }),
                  "the host waits for a stream that is captured"));
  void* left = nullptr;
  EXPECT(contains(error_of([&] { captured([&] { cudaMallocAsync(&left, 24, kStream); }); }),
                  "the capture leaves a device buffer of 24 bytes that nobody frees"));
  captured([&] {
    cudaMallocAsync(&left, 24, kStream);
    EXPECT(cudaFreeAsync(left, kStream) == cudaSuccess);
    EXPECT(cudaFreeAsync(left, kStream) == cudaErrorInvalidValue);
  });
  // A launch that is impossible is refused when it is captured, not when it is replayed.
  float x = 0, y = 0;
  captured([&] {
    EXPECT(contains(error_of([&] { launch("copy", copy_kernel, 1, 2048, 0, kCaptured, &y, &x, 1); }),
                    "block (2048, 1, 1)"));
  });
  const cudaGraphExec_t exec = captured([&] {
    x = 7;
    launch("other", copy_kernel, 1, 32, 0, kOther, &y, &x, 1);  // runs at once
    EXPECT(y == 7);
  });
  y = 0;
  replay(exec);
  EXPECT(y == 0);
  EXPECT(contains(error_of([&] { captured([&] { cudaGraphLaunch(exec, kStream); }); }),
                  "a graph is launched on a captured stream"));
}

}  // namespace

int main(int argc, char** argv) { return harness::main(argc, argv); }
