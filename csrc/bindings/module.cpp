// The extension module of one device: every operator family's bindings.
#include <pybind11/pybind11.h>

namespace py = pybind11;

// FASTARCH_BINDINGS is CMake's list of operator families: X(activation) X(conv2d) ...
#define X(op) void bind_##op(py::module_&);
FASTARCH_BINDINGS
#undef X

PYBIND11_MODULE(FASTARCH_MODULE, m) {
  m.doc() = "Compiled kernels of one device; call them through fastarch.ops.";
#define X(op) bind_##op(m);
  FASTARCH_BINDINGS
#undef X
}
