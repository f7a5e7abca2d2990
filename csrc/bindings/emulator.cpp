// fastarch._emulator only: its seed, its device, its time, and the check for leaked device buffers after
// every call.
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "core/check.h"
#include "emulator/control.h"
#include "emulator/runtime.h"
#include "ops/linear.h"

namespace py = pybind11;
namespace emulator = fastarch::emulator;

namespace {

void expect(cudaError_t status) {
  if (status != cudaSuccess)
    throw std::runtime_error(fastarch::concat("[graph] ", cudaGetErrorString(status)));
}

cudaStream_t stream_at(uintptr_t stream) { return reinterpret_cast<cudaStream_t>(stream); }

void begin_capture(uintptr_t stream) {
  expect(cudaStreamBeginCapture(stream_at(stream), cudaStreamCaptureModeRelaxed));
}

uintptr_t end_capture(uintptr_t stream) {
  cudaGraph_t graph = nullptr;
  expect(cudaStreamEndCapture(stream_at(stream), &graph));
  cudaGraphExec_t exec = nullptr;
  expect(cudaGraphInstantiate(&exec, graph));
  expect(cudaGraphDestroy(graph));
  return reinterpret_cast<uintptr_t>(exec);
}

void launch_graph(uintptr_t graph, uintptr_t stream) {
  expect(cudaGraphLaunch(reinterpret_cast<cudaGraphExec_t>(graph), stream_at(stream)));
}

void free_graph(uintptr_t graph) { expect(cudaGraphExecDestroy(reinterpret_cast<cudaGraphExec_t>(graph))); }

// Wraps a kernel's binding: its device buffers must be gone when it returns.
py::cpp_function without_leaks(const py::object& function, const std::string& name) {
  return py::cpp_function(
      [function, name](const py::args& args, const py::kwargs& kwargs) -> py::object {
        try {
          py::object result = function(*args, **kwargs);
          emulator::check_leaks(name.c_str());
          return result;
        } catch (const py::error_already_set&) {
          emulator::free_leaks();  // the error that is on its way says more
          throw;
        }
      },
      py::name(name.c_str()), py::doc(function.attr("__doc__").cast<std::string>().c_str()));
}

}  // namespace

// Bound after the operators, all of which it wraps.
void bind_emulator(py::module_& m) {
  std::vector<std::pair<std::string, py::object>> functions;
  for (const auto& [name, value] : py::reinterpret_borrow<py::dict>(m.attr("__dict__")))
    if (PyCFunction_Check(value.ptr()))
      functions.emplace_back(name.cast<std::string>(), py::reinterpret_borrow<py::object>(value));
  for (const auto& [name, function] : functions) m.attr(name.c_str()) = without_leaks(function, name);

  m.def("begin_capture", &begin_capture, py::arg("stream"),
        "Keeps what kernels do on `stream`, any number but 0, instead of doing it.");
  m.def("end_capture", &end_capture, py::arg("stream"), "The graph of what was kept, until free_graph.");
  m.def("launch_graph", &launch_graph, py::arg("graph"), py::arg("stream") = 0,
        "Does what a graph keeps, on the memory that it was captured with.");
  m.def("free_graph", &free_graph, py::arg("graph"));
  m.def("set_seed", &emulator::set_seed, py::arg("seed"),
        "Seeds the order in which the threads and blocks of the launches that follow run.");
  m.def(
      "set_multiprocessors", [](int n) { emulator::device().multiprocessors = n; }, py::arg("n"),
      "Sets how many multiprocessors the emulated device has: what grid sizes and splits derive from.");
  m.def(
      "set_blocks_per_cluster", [](int n) { emulator::device().blocks_per_cluster = n; }, py::arg("n"),
      "Sets how many blocks a cluster of the emulated device may have where a kernel asks for more than 8.");
  m.def("set_wgmma", &fastarch::cuda::set_wgmma, py::arg("on"),
        "Whether products may take the multiply of sm_90a alone, as FASTARCH_WGMMA says at first; returns "
        "what was so before.");
  m.def("set_compute_capability", &emulator::set_compute_capability, py::arg("major"), py::arg("minor"),
        "Has the emulated device be of compute capability 7.5, 8.0 or 9.0 (as it is at first).");
  m.def(
      "set_capturing", [](bool on) { emulator::device().capturing = on; }, py::arg("on"),
      "Whether streams say that they are being captured in a CUDA graph.");
  m.def("set_launch_time", &emulator::set_launch_time, py::arg("blocks"), py::arg("threads"),
        py::arg("microseconds"), "How long launches of so many blocks of so many threads take from now on.");
  m.def("forget_launch_times", &emulator::forget_launch_times,
        "Launches take a microsecond, and a nanosecond more for each thread, as at first.");
  m.def("launch_count", &emulator::launch_count, "The launches so far.");
  m.def("wgmma_products", &fastarch::cuda::wgmma_products,
        "How many products have taken the multiply of sm_90a so far.");
}
