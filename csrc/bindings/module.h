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

inline Precision precision_of(const char* op, int precision) {
  check(precision >= 0 && precision <= 2, op, "precision ", precision,
        ", expected 0 (float32), 1 (tf32) or 2 (3xtf32)");
  return static_cast<Precision>(precision);
}

// Kernels that take float16 and bfloat16 are CUDA's. On the CPU fastarch.ops widens the operands instead.
namespace cpu {
inline constexpr bool kHalves = false;
}
namespace cuda {
inline constexpr bool kHalves = true;
}
namespace FASTARCH_DEVICE {

// dispatch_any_float where this device has such kernels, else dispatch_float.
template <class Body>
void dispatch(DType dtype, const char* op, Body&& body) {
  if constexpr (kHalves)
    dispatch_any_float(dtype, op, body);
  else
    dispatch_float(dtype, op, body);
}

}  // namespace FASTARCH_DEVICE

// Says that these kernels of module `m` take float16 and bfloat16: _half_kernels is what fastarch.ops asks.
inline void takes_halves(py::module_& m, std::initializer_list<const char*> kernels) {
  if (!py::hasattr(m, "_half_kernels")) m.attr("_half_kernels") = py::set();
  for (const char* kernel : kernels)
    if (FASTARCH_DEVICE::kHalves) py::set(m.attr("_half_kernels")).add(kernel);
}

// An array of one int64 whose bits are the offset of a random stream, read when the kernel runs; null for
// None.
inline const uint64_t* offset_word(const char* op, py::handle word) {
  if (word.is_none()) return nullptr;
  Operands operands(op, kMemory);
  const ArrayView view = operands.in_any(word, "offset", {1});
  check(view.dtype == DType::int64, op, "offset has dtype ", dtype_name(view.dtype), ", expected int64");
  return data<uint64_t>(view);
}

inline Stream as_stream(uintptr_t stream) { return reinterpret_cast<Stream>(stream); }

}  // namespace fastarch

namespace device = fastarch::FASTARCH_DEVICE;
