// Stream capture: launches, copies and buffers of a captured stream become a graph, which runs them in order.
#include "capture.h"

#include <map>
#include <mutex>
#include <vector>

#include "core/check.h"
#include "errors.h"

// What a graph does, and the buffers that it does it in.
struct CUgraph_st {
  struct Allocation {
    void* pointer;
    size_t bytes;
    bool freed;
  };

  std::vector<std::function<cudaError_t()>> nodes;
  std::vector<Allocation> buffers;
  const char* spoilt = nullptr;  // why it cannot be used

  Allocation* find(const void* pointer) {
    for (Allocation& buffer : buffers)
      if (buffer.pointer == pointer) return &buffer;
    return nullptr;
  }

  ~CUgraph_st() {
    for (const Allocation& buffer : buffers) fastarch::emulator::deallocate(buffer.pointer);
  }
};

// Shares what it was made from, as that may be destroyed first.
struct CUgraphExec_st {
  std::shared_ptr<CUgraph_st> graph;
};

namespace fastarch::emulator {
namespace {

std::mutex guard;
std::map<cudaStream_t, std::unique_ptr<CUgraph_st>> captured;
std::map<cudaGraph_t, std::shared_ptr<CUgraph_st>> graphs;

// The graph that `stream` is captured into, or null; under `guard`.
CUgraph_st* graph_of(cudaStream_t stream) {
  const auto found = captured.find(stream);
  return found == captured.end() ? nullptr : found->second.get();
}

}  // namespace

bool record(cudaStream_t stream, const std::function<cudaError_t()>& work) {
  const std::lock_guard lock(guard);
  CUgraph_st* const graph = graph_of(stream);
  if (graph) graph->nodes.push_back(work);
  return graph != nullptr;
}

bool is_captured(cudaStream_t stream) {
  const std::lock_guard lock(guard);
  return graph_of(stream) != nullptr;
}

cudaError_t record_allocation(cudaStream_t stream, void** pointer, size_t bytes) {
  if (const cudaError_t error = allocate(pointer, bytes, true)) return error;
  void* const data = *pointer;
  if (!data) return cudaSuccess;
  record(stream, [=] {
    renew(data, bytes);
    return cudaSuccess;
  });
  const std::lock_guard lock(guard);
  graph_of(stream)->buffers.push_back({data, bytes, false});
  return cudaSuccess;
}

cudaError_t record_release(cudaStream_t stream, void* pointer) {
  if (!pointer) return cudaSuccess;
  size_t bytes = 0;
  {
    const std::lock_guard lock(guard);
    CUgraph_st* const graph = graph_of(stream);
    CUgraph_st::Allocation* const buffer = graph->find(pointer);
    if (!buffer || buffer->freed)
      return set_error(cudaErrorInvalidValue, concat("a captured stream freed ", pointer,
                                                     ", which is no buffer of its graph, or freed already"));
    buffer->freed = true;
    bytes = buffer->bytes;
  }
  record(stream, [=] { return check_around(pointer, bytes); });
  return cudaSuccess;
}

cudaError_t spoil_capture(cudaStream_t stream, const char* why) {
  const std::lock_guard lock(guard);
  graph_of(stream)->spoilt = why;
  return set_error(cudaErrorStreamCaptureUnsupported, why);
}

}  // namespace fastarch::emulator

namespace emulator = fastarch::emulator;
using emulator::captured;
using emulator::graphs;
using emulator::guard;
using emulator::set_error;

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (!stream) return set_error(cudaErrorStreamCaptureUnsupported, "the default stream cannot be captured");
  const std::lock_guard lock(guard);
  const bool fresh = captured.try_emplace(stream, std::make_unique<CUgraph_st>()).second;
  return fresh ? cudaSuccess : set_error(cudaErrorStreamCaptureUnsupported, "the stream is being captured");
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  std::unique_ptr<CUgraph_st> made;
  {
    const std::lock_guard lock(guard);
    auto node = captured.extract(stream);
    if (!node) return set_error(cudaErrorStreamCaptureUnmatched, "the stream is not being captured");
    made = std::move(node.mapped());
  }
  if (made->spoilt) return set_error(cudaErrorStreamCaptureUnsupported, made->spoilt);
  for (const auto& buffer : made->buffers)
    if (!buffer.freed)
      return set_error(cudaErrorInvalidValue, fastarch::concat("the capture leaves a device buffer of ",
                                                               buffer.bytes, " bytes that nobody frees"));
  *graph = made.get();
  const std::lock_guard lock(guard);
  graphs.emplace(*graph, std::move(made));
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  const std::lock_guard lock(guard);
  const auto found = graphs.find(graph);
  if (found == graphs.end()) return set_error(cudaErrorInvalidValue, "there is no such graph");
  *exec = new CUgraphExec_st{found->second};
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  if (emulator::is_captured(stream))
    return emulator::spoil_capture(stream, "a graph is launched on a captured stream");
  for (const auto& node : exec->graph->nodes)
    if (const cudaError_t error = node()) return error;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  std::shared_ptr<CUgraph_st> gone;  // outlives the lock, as freeing its buffers may take others
  const std::lock_guard lock(guard);
  auto node = graphs.extract(graph);
  if (!node) return set_error(cudaErrorInvalidValue, "there is no such graph");
  gone = std::move(node.mapped());
  return cudaSuccess;
}
