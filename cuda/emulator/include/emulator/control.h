// Steering the emulator, for tests and bindings.
#pragma once
#include <cstddef>
#include <cstdint>

namespace fastarch::emulator {

// Seeds the order of blocks and threads of the launches that follow. The environment variable
// FASTARCH_EMULATOR_SEED sets it for a process.
void set_seed(uint64_t seed);

// The device that is emulated: the limits of sm_90, but few multiprocessors, so that small inputs already
// take every grid-stride loop more than once round. FASTARCH_EMULATOR_MULTIPROCESSORS sets their number for a
// process.
struct Device {
  int multiprocessors = 2;
  int capability_major = 9, capability_minor = 0;
  bool capturing = false;  // what every stream is told to be; launches run all the same
  int threads_per_multiprocessor = 2048;
  int blocks_per_multiprocessor = 32;
  int threads_per_block = 1024;
  size_t static_shared = 48 * 1024;  // per block
  size_t shared_per_block = 227 * 1024;
  size_t shared_per_multiprocessor = 228 * 1024;
  int blocks_per_cluster = 16;  // of kernels that are allowed more than the portable 8
  // After so many atomics and fences without a thread that passes a barrier or exits, a kernel counts as
  // hanging.
  uint64_t idle_steps = 200'000'000;
};
Device& device();

// Has the device be of another compute capability: 7.5, 8.0 or 9.0, with the limits that go with it. Tensor
// core operations need 8.0, clusters 9.0.
void set_compute_capability(int major, int minor);

// Time is made up, so that what depends on it repeats: a launch takes a microsecond, and a nanosecond more
// for each thread; or what it was told to, launches of so many blocks of so many threads. Each host thread
// has a clock of its own, in microseconds; events read it.
void set_launch_time(uint64_t blocks, uint64_t threads, double microseconds);
void forget_launch_times();
double clock();

// The launches of all host threads so far.
uint64_t launch_count();

// Throws std::runtime_error when this host thread still holds device buffers, or freed one that had been
// written out of bounds; either way none are left afterwards.
void check_leaks(const char* operation);
// The same without the error: for use when another one is on its way.
void free_leaks();

}  // namespace fastarch::emulator
