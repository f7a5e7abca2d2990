#include "ops/softmax.h"

#include "bindings/module.h"

using namespace fastarch;

namespace {

void softmax_forward(py::handle x, py::handle y, uintptr_t stream) {
  Operands operands("softmax", kMemory, device::kHalves);
  const ArrayView vx = operands.in(x, "x");
  operands.expect_dims(vx, "x", 2);
  const int64_t rows = vx.shape[0], classes = vx.shape[1];
  const ArrayView vy = operands.out(y, "y", {rows, classes});
  py::gil_scoped_release unlocked;
  device::dispatch(operands.dtype(), operands.op(), [&]<class T>() {
    device::softmax_forward(data<T>(vx), mutable_data<T>(vy), rows, classes, as_stream(stream));
  });
}

void softmax_backward(py::handle dy, py::handle y, py::handle dx, uintptr_t stream) {
  Operands operands("softmax_backward", kMemory, device::kHalves);
  const ArrayView vdy = operands.in(dy, "dy");
  operands.expect_dims(vdy, "dy", 2);
  const int64_t rows = vdy.shape[0], classes = vdy.shape[1];
  const ArrayView vy = operands.in(y, "y", {rows, classes}), vdx = operands.out(dx, "dx", {rows, classes});
  py::gil_scoped_release unlocked;
  device::dispatch(operands.dtype(), operands.op(), [&]<class T>() {
    device::softmax_backward(data<T>(vdy), data<T>(vy), mutable_data<T>(vdx), rows, classes,
                             as_stream(stream));
  });
}

ArrayView target_of(Operands& operands, py::handle target, int64_t rows) {
  const ArrayView view = operands.in_any(target, "target", {rows});
  if (view.dtype != DType::int64)
    throw py::type_error(
        concat("[", operands.op(), "] target has dtype ", dtype_name(view.dtype), ", expected int64"));
  return view;
}

void cross_entropy_forward(py::handle x, py::handle target, py::handle loss, py::handle probs,
                           int64_t ignore_index, uintptr_t stream) {
  Operands operands("cross_entropy", kMemory, device::kHalves);
  const ArrayView vx = operands.in(x, "x");
  operands.expect_dims(vx, "x", 2);
  const int64_t rows = vx.shape[0], classes = vx.shape[1];
  const ArrayView vt = target_of(operands, target, rows);
  const ArrayView vl = operands.out(loss, "loss", {rows}), vp = operands.out(probs, "probs", {rows, classes});
  py::gil_scoped_release unlocked;
  device::dispatch(operands.dtype(), operands.op(), [&]<class T>() {
    device::cross_entropy_forward(data<T>(vx), data<int64_t>(vt), mutable_data<T>(vl), mutable_data<T>(vp),
                                  rows, classes, ignore_index, as_stream(stream));
  });
}

void cross_entropy_backward(py::handle dloss, py::handle probs, py::handle target, py::handle dx,
                            int64_t ignore_index, uintptr_t stream) {
  Operands operands("cross_entropy_backward", kMemory, device::kHalves);
  const ArrayView vp = operands.in(probs, "probs");
  operands.expect_dims(vp, "probs", 2);
  const int64_t rows = vp.shape[0], classes = vp.shape[1];
  const ArrayView vt = target_of(operands, target, rows);
  const ArrayView vl = operands.in(dloss, "dloss", {rows}), vdx = operands.out(dx, "dx", {rows, classes});
  py::gil_scoped_release unlocked;
  device::dispatch(operands.dtype(), operands.op(), [&]<class T>() {
    device::cross_entropy_backward(data<T>(vl), data<T>(vp), data<int64_t>(vt), mutable_data<T>(vdx), rows,
                                   classes, ignore_index, as_stream(stream));
  });
}

}  // namespace

void bind_softmax(py::module_& m) {
  const auto stream = py::arg("stream") = 0;
  m.def("softmax_forward", &softmax_forward, py::arg("x"), py::arg("y"), stream);
  m.def("softmax_backward", &softmax_backward, py::arg("dy"), py::arg("y"), py::arg("dx"), stream);
  m.def("cross_entropy_forward", &cross_entropy_forward, py::arg("x"), py::arg("target"), py::arg("loss"),
        py::arg("probs"), py::arg("ignore_index"), stream);
  m.def("cross_entropy_backward", &cross_entropy_backward, py::arg("dloss"), py::arg("probs"),
        py::arg("target"), py::arg("dx"), py::arg("ignore_index"), stream);
  takes_halves(m, {"softmax_forward", "softmax_backward", "cross_entropy_forward", "cross_entropy_backward"});
}
