#include "ops/linear.h"

#include "bindings/module.h"

using namespace fastarch;

namespace {

void linear_forward(py::handle x, py::handle weight, py::handle bias, py::handle y, int kind, int precision,
                    uintptr_t stream) {
  Operands operands("linear", kMemory, device::kHalves);
  const ArrayView vx = operands.in(x, "x"), vw = operands.in(weight, "weight");
  operands.expect_dims(vx, "x", 2);
  operands.expect_dims(vw, "weight", 2);
  const int64_t m = vx.shape[0], in = vx.shape[1], out = vw.shape[0];
  check(vw.shape[1] == in, "linear", "weight has shape ", vw.shape_text(), ", x has ", in, " features");
  const ArrayView vb = operands.in_or_none(bias, "bias", {out}), vy = operands.out(y, "y", {m, out});
  const Activation activation = activation_of("linear", kind);
  py::gil_scoped_release unlocked;
  device::dispatch(operands.dtype(), "linear", [&]<class T>() {
    device::linear_forward(data<T>(vx), data<T>(vw), data<T>(vb), mutable_data<T>(vy), m, in, out, activation,
                           precision_of(operands.op(), precision), as_stream(stream));
  });
}

void linear_backward_input(py::handle dy, py::handle weight, py::handle dx, int precision, uintptr_t stream) {
  Operands operands("linear_backward", kMemory, device::kHalves);
  const ArrayView vdy = operands.in(dy, "dy"), vw = operands.in(weight, "weight");
  operands.expect_dims(vdy, "dy", 2);
  operands.expect_dims(vw, "weight", 2);
  const int64_t m = vdy.shape[0], out = vdy.shape[1], in = vw.shape[1];
  check(vw.shape[0] == out, "linear_backward", "weight has shape ", vw.shape_text(), ", dy has ", out,
        " features");
  const ArrayView vdx = operands.out(dx, "dx", {m, in});
  py::gil_scoped_release unlocked;
  device::dispatch(operands.dtype(), "linear_backward", [&]<class T>() {
    device::linear_backward_input(data<T>(vdy), data<T>(vw), mutable_data<T>(vdx), m, in, out,
                                  precision_of(operands.op(), precision), as_stream(stream));
  });
}

void linear_backward_weight(py::handle dy, py::handle x, py::handle dw, py::handle db, int precision,
                            uintptr_t stream) {
  Operands operands("linear_backward", kMemory, device::kHalves);
  const ArrayView vdy = operands.in(dy, "dy"), vx = operands.in(x, "x");
  operands.expect_dims(vdy, "dy", 2);
  operands.expect_dims(vx, "x", 2);
  const int64_t m = vx.shape[0], in = vx.shape[1], out = vdy.shape[1];
  check(vdy.shape[0] == m, "linear_backward", "dy has shape ", vdy.shape_text(), ", x has ", m, " rows");
  const ArrayView vdw = operands.out(dw, "dw", {out, in}), vdb = operands.out_or_none(db, "db", {out});
  py::gil_scoped_release unlocked;
  device::dispatch(operands.dtype(), "linear_backward", [&]<class T>() {
    device::linear_backward_weight(data<T>(vdy), data<T>(vx), mutable_data<T>(vdw), mutable_data<T>(vdb), m,
                                   in, out, precision_of(operands.op(), precision), as_stream(stream));
  });
}

}  // namespace

void bind_linear(py::module_& m) {
  m.def("linear_forward", &linear_forward, py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("y"),
        py::arg("kind"), py::arg("precision") = 0, py::arg("stream") = 0);
  m.def("linear_backward_input", &linear_backward_input, py::arg("dy"), py::arg("weight"), py::arg("dx"),
        py::arg("precision") = 0, py::arg("stream") = 0);
  m.def("linear_backward_weight", &linear_backward_weight, py::arg("dy"), py::arg("x"), py::arg("dw"),
        py::arg("db"), py::arg("precision") = 0, py::arg("stream") = 0);
  takes_halves(m, {"linear_forward", "linear_backward_input", "linear_backward_weight"});
}
