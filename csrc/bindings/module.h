// What the bindings of an operator family share. FASTARCH_DEVICE (cpu | cuda) names the kernels' namespace
// and FASTARCH_MEMORY (host | cuda) the memory they work on; the emulator is cuda kernels on host memory.
#pragma once
#include <pybind11/pybind11.h>

#include "bindings/array.h"

namespace fastarch {

inline constexpr Memory kMemory = Memory::FASTARCH_MEMORY;

// Activations travel as small integers: cheaper than an enum object on every call.
inline Activation activation_of(const char* op, int kind) {
  check(kind >= 0 && kind <= 3, op, "activation kind ", kind,
        ", expected 0 (none), 1 (relu), 2 (tanh) or 3 (sigmoid)");
  return static_cast<Activation>(kind);
}

inline Stream as_stream(uintptr_t stream) { return reinterpret_cast<Stream>(stream); }

}  // namespace fastarch

namespace fastarch::FASTARCH_DEVICE {}
namespace device = fastarch::FASTARCH_DEVICE;
