// Streams that are captured: what they are told is recorded instead of run.
#pragma once
#include <functional>

#include "emulator/runtime.h"

namespace fastarch::emulator {

// While `stream` is captured, keeps `work` for each launch of its graph and returns true.
bool record(cudaStream_t stream, const std::function<cudaError_t()>& work);

// Whether `stream` is captured.
bool is_captured(cudaStream_t stream);

// The same for a buffer that lies in the graph's own memory: filled with NaN where its allocation was
// captured, checked where it was freed.
cudaError_t record_allocation(cudaStream_t stream, void** pointer, size_t bytes);
cudaError_t record_release(cudaStream_t stream, void* pointer);

// Ends the capture of a stream that was asked for what a graph cannot hold.
cudaError_t spoil_capture(cudaStream_t stream, const char* why);

// Device memory that belongs to a graph, not to an operator (memory.cpp): no leak, until the graph is gone.
cudaError_t allocate(void** pointer, size_t bytes, bool of_graph);
cudaError_t deallocate(void* pointer);
// Of a live buffer: fills it as a new one; an error when memory around it was written.
void renew(void* pointer, size_t bytes);
cudaError_t check_around(void* pointer, size_t bytes);

}  // namespace fastarch::emulator
