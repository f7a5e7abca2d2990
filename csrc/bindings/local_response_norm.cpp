#include "ops/local_response_norm.h"

#include "bindings/module.h"

using namespace fastarch;

namespace {

ResponseNorm response_norm_of(Operands& operands, const ArrayView& x, const ArrayView& other,
                              const char* name, int64_t size, double alpha, double beta, double k,
                              bool channels_last) {
  check(x.ndim >= 2, operands.op(), "x has shape ", x.shape_text(), ", expected at least 2 dimensions");
  bool same = x.ndim == other.ndim;
  for (int i = 0; same && i < x.ndim; ++i) same = x.shape[i] == other.shape[i];
  check(same, operands.op(), name, " has shape ", other.shape_text(), ", expected x's ", x.shape_text());
  check(size >= 1 && size < (int64_t{1} << 31), operands.op(), "size is ", size, ", expected 1 to 2^31 - 1");
  ResponseNorm norm{x.shape[0], x.shape[channels_last ? x.ndim - 1 : 1], 1, size, alpha, beta, k};
  if (channels_last)
    for (int i = 1; i + 1 < x.ndim; ++i) norm.outer *= x.shape[i];
  else
    for (int i = 2; i < x.ndim; ++i) norm.inner *= x.shape[i];
  return norm;
}

void local_response_norm_forward(py::handle x, py::handle y, int64_t size, double alpha, double beta,
                                 double k, bool channels_last, uintptr_t stream) {
  Operands operands("local_response_norm", kMemory, device::kHalves);
  const ArrayView vx = operands.in(x, "x"), vy = operands.out(y, "y");
  const ResponseNorm norm = response_norm_of(operands, vx, vy, "y", size, alpha, beta, k, channels_last);
  py::gil_scoped_release unlocked;
  device::dispatch(operands.dtype(), operands.op(), [&]<class T>() {
    device::local_response_norm_forward(data<T>(vx), mutable_data<T>(vy), norm, as_stream(stream));
  });
}

void local_response_norm_backward(py::handle dy, py::handle x, py::handle dx, int64_t size, double alpha,
                                  double beta, double k, bool channels_last, uintptr_t stream) {
  Operands operands("local_response_norm_backward", kMemory, device::kHalves);
  const ArrayView vx = operands.in(x, "x"), vdy = operands.in(dy, "dy"), vdx = operands.out(dx, "dx");
  response_norm_of(operands, vx, vdy, "dy", size, alpha, beta, k, channels_last);
  const ResponseNorm norm = response_norm_of(operands, vx, vdx, "dx", size, alpha, beta, k, channels_last);
  py::gil_scoped_release unlocked;
  device::dispatch(operands.dtype(), operands.op(), [&]<class T>() {
    device::local_response_norm_backward(data<T>(vdy), data<T>(vx), mutable_data<T>(vdx), norm,
                                         as_stream(stream));
  });
}

}  // namespace

void bind_local_response_norm(py::module_& m) {
  m.def("local_response_norm_forward", &local_response_norm_forward, py::arg("x"), py::arg("y"),
        py::arg("size"), py::arg("alpha"), py::arg("beta"), py::arg("k"), py::arg("channels_last"),
        py::arg("stream") = 0);
  m.def("local_response_norm_backward", &local_response_norm_backward, py::arg("dy"), py::arg("x"),
        py::arg("dx"), py::arg("size"), py::arg("alpha"), py::arg("beta"), py::arg("k"),
        py::arg("channels_last"), py::arg("stream") = 0);
  takes_halves(m, {"local_response_norm_forward", "local_response_norm_backward"});
}
