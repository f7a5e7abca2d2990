#include "ops/dropout.h"

#include "bindings/module.h"

using namespace fastarch;

void bind_dropout(py::module_& m) {
  m.def(
      "dropout_forward",
      [](py::handle x, py::handle y, double p, uint64_t seed, uint64_t offset, py::handle word,
         uintptr_t stream) {
        Operands operands("dropout", kMemory, device::kHalves);
        const ArrayView vx = operands.in(x, "x"), vy = operands.out(y, "y");
        check(vx.size() == vy.size(), "dropout", "x has shape ", vx.shape_text(), ", y ", vy.shape_text());
        check(p >= 0 && p <= 1, "dropout", "p is ", p, ", expected 0 <= p <= 1");
        const uint64_t* const own = offset_word("dropout", word);
        py::gil_scoped_release unlocked;
        device::dispatch(operands.dtype(), "dropout", [&]<class T>() {
          device::dropout_forward(data<T>(vx), mutable_data<T>(vy), vx.size(), p, seed, offset, own,
                                  as_stream(stream));
        });
      },
      py::arg("x"), py::arg("y"), py::arg("p"), py::arg("seed"), py::arg("offset"),
      py::arg("word") = py::none(), py::arg("stream") = 0);
  takes_halves(m, {"dropout_forward"});
}
