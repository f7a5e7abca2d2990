#include "ops/device.h"

#include "bindings/module.h"
#include "ops/linear.h"

using namespace fastarch;

void bind_device(py::module_& m) {
  m.def(
      "device_error",
      []() -> py::object {
        const std::string error = device::device_error();
        if (error.empty()) return py::none();
        return py::str(error);
      },
      "Why no CUDA device can be used, or None.");
  m.def(
      "devices",
      [] {
        py::list out;
        for (const auto& info : device::devices()) {
          py::dict d;
          d["name"] = info.name;
          d["compute_capability"] = py::make_tuple(info.major, info.minor);
          d["multiprocessors"] = info.multiprocessors;
          d["memory_bytes"] = info.memory_bytes;
          out.append(d);
        }
        return out;
      },
      "Name, compute capability, multiprocessors and memory of every CUDA device.");
  m.def("set_wgmma", &device::set_wgmma, py::arg("on"),
        "Whether products may take the multiply of sm_90a alone, as FASTARCH_WGMMA says at first; returns "
        "what was so before.");
  m.def("wgmma_products", &device::wgmma_products,
        "How many products have taken the multiply of sm_90a so far.");
  m.def("runtime_version", &device::runtime_version);
  m.def("driver_version", &device::driver_version);
}
