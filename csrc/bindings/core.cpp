// fastarch._core: what is not an operator: how arrays are seen, random words, threads.
#include <pybind11/pybind11.h>

#include "bindings/array.h"
#include "core/philox.h"
#include "core/philox_fill.h"
#include "core/thread_pool.h"

using namespace fastarch;

namespace {

py::dict describe(py::handle object) {
  const ArrayView view = view_of(object, "describe", "array");
  py::tuple shape(view.ndim), strides(view.ndim);
  for (int i = 0; i < view.ndim; ++i) {
    shape[i] = view.shape[i];
    strides[i] = view.strides[i];
  }
  py::dict out;
  out["data"] = reinterpret_cast<uintptr_t>(view.data);
  out["dtype"] = dtype_name(view.dtype);
  out["memory"] = view.memory == Memory::cuda ? "cuda" : "host";
  out["device_id"] = view.device_id;
  out["shape"] = shape;
  out["strides"] = strides;
  out["readonly"] = view.readonly;
  out["contiguous"] = view.contiguous();
  return out;
}

py::tuple philox_words(uint64_t seed, uint64_t offset, uint64_t position) {
  const PhiloxWords w = philox(seed, offset, position);
  return py::make_tuple(w.word[0], w.word[1], w.word[2], w.word[3]);
}

// Fills `out` (uint32 words seen as int32) with the stream's words `start`, `start` + 1, ...
void fill(py::handle out, uint64_t seed, uint64_t offset, int64_t start) {
  Operands operands("philox_fill", Memory::host);
  const ArrayView view = operands.out_any(out, "out");
  check(view.dtype == DType::int32, "philox_fill", "out has dtype ", dtype_name(view.dtype),
        ", expected int32");
  check(start >= 0, "philox_fill", "start is ", start, ", expected at least 0");
  auto* words = mutable_data<uint32_t>(view);
  py::gil_scoped_release unlocked;
  philox_range(seed, offset, start, view.size(), words);
}

}  // namespace

PYBIND11_MODULE(FASTARCH_MODULE, m) {
  m.doc() = "The compiled core of fastarch.";
  m.def("describe", &describe, py::arg("array"),
        "How an array is seen: address, dtype, memory (host | cuda), shape, strides in elements.");
  m.def("philox", &philox_words, py::arg("seed"), py::arg("offset"), py::arg("position"),
        "The four Philox4x32-10 words at `position` of the stream (seed, offset).");
  m.def(
      "philox_fill", &fill, py::arg("out"), py::arg("seed"), py::arg("offset"), py::arg("start") = 0,
      "Fills an int32 array with the bits of the words start, start + 1, ... of the stream (seed, offset).");
  m.def("thread_count", &thread_count);
}
