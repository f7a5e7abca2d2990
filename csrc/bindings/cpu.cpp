// What only the module of the compiled CPU kernels has.
#include "bindings/module.h"
#include "core/thread_pool.h"
#include "ops/processor.h"

using namespace fastarch;

void bind_cpu(py::module_& m) {
  m.def("instruction_set", &cpu::instruction_set, "The instruction set in use: avx512, avx2 or baseline.");
  m.def("thread_count", &thread_count, "Threads of this module's pool.");
  m.def("set_thread_count", &set_thread_count, py::arg("n"), "Changes the pool from the next kernel on.");
}
