#include "ops/activation.h"

#include "bindings/module.h"

using namespace fastarch;

void bind_activation(py::module_& m) {
  m.def(
      "activation_forward",
      [](py::handle x, py::handle y, int kind, uintptr_t stream) {
        Operands operands("activation", kMemory, device::kHalves);
        const ArrayView vx = operands.in(x, "x"), vy = operands.out(y, "y");
        const Activation activation = activation_of("activation", kind);
        check(vx.size() == vy.size(), "activation", "x has shape ", vx.shape_text(), ", y ", vy.shape_text());
        py::gil_scoped_release unlocked;
        device::dispatch(operands.dtype(), "activation", [&]<class T>() {
          device::activation_forward(data<T>(vx), mutable_data<T>(vy), vx.size(), activation,
                                     as_stream(stream));
        });
      },
      py::arg("x"), py::arg("y"), py::arg("kind"), py::arg("stream") = 0);

  m.def(
      "activation_backward",
      [](py::handle dy, py::handle y, py::handle dx, int kind, uintptr_t stream) {
        Operands operands("activation_backward", kMemory, device::kHalves);
        const ArrayView vdy = operands.in(dy, "dy"), vy = operands.in(y, "y"), vdx = operands.out(dx, "dx");
        const Activation activation = activation_of("activation_backward", kind);
        check(vdy.size() == vy.size() && vdx.size() == vy.size(), "activation_backward", "dy has shape ",
              vdy.shape_text(), ", y ", vy.shape_text(), ", dx ", vdx.shape_text());
        py::gil_scoped_release unlocked;
        device::dispatch(operands.dtype(), "activation_backward", [&]<class T>() {
          device::activation_backward(data<T>(vdy), data<T>(vy), mutable_data<T>(vdx), vy.size(), activation,
                                      as_stream(stream));
        });
      },
      py::arg("dy"), py::arg("y"), py::arg("dx"), py::arg("kind"), py::arg("stream") = 0);
  takes_halves(m, {"activation_forward", "activation_backward"});
}
