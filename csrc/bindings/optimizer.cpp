#include "ops/optimizer.h"

#include "bindings/module.h"

using namespace fastarch;

namespace {

// The arrays of all lists as one table; list 1 holds the gradients, which are read, the others are written.
TensorList tensors_of(Operands& operands, const std::vector<std::pair<const char*, py::list>>& lists) {
  TensorList tensors;
  const size_t count = lists[0].second.size();
  for (const auto& [name, list] : lists) {
    check(list.size() == count, operands.op(), name, " has ", list.size(), " arrays, expected ", count);
    std::vector<void*> pointers;
    for (size_t i = 0; i < count; ++i) {
      const bool written = &list != &lists[1].second;
      const ArrayView view = written ? operands.out(list[i], name) : operands.in(list[i], name);
      if (tensors.pointers.empty()) tensors.sizes.push_back(view.size());
      check(view.size() == tensors.sizes[i], operands.op(), name, "[", i, "] has ", view.size(),
            " elements, expected ", tensors.sizes[i]);
      pointers.push_back(view.data);
    }
    tensors.pointers.push_back(std::move(pointers));
  }
  return tensors;
}

// The numbers that a captured step reads when it runs, or null.
const double* words_of(const Operands& operands, py::handle words, int64_t count) {
  if (words.is_none()) return nullptr;
  Operands own(operands.op(), kMemory);
  const ArrayView view = own.in_any(words, "words", {count});
  check(view.dtype == DType::float64, operands.op(), "words has dtype ", dtype_name(view.dtype),
        ", expected float64");
  return data<double>(view);
}

void sgd_update(py::list params, py::list grads, py::list buffers, double lr, double momentum, double keep,
                double decay, bool nesterov, bool first, py::handle words, uintptr_t stream) {
  Operands operands("sgd_update", kMemory);
  std::vector<std::pair<const char*, py::list>> lists{{"params", params}, {"grads", grads}};
  if (momentum != 0) lists.emplace_back("buffers", buffers);
  const TensorList tensors = tensors_of(operands, lists);
  const SgdStep step{lr, momentum, keep, decay, nesterov, first, words_of(operands, words, 1)};
  py::gil_scoped_release unlocked;
  dispatch_float(operands.dtype(), operands.op(),
                 [&]<class T>() { device::sgd_update<T>(tensors, step, as_stream(stream)); });
}

void adam_update(py::list params, py::list grads, py::list means, py::list squares, py::list largest,
                 double step_size, double correction, double beta1, double beta2, double eps, double decay,
                 double kept, bool amsgrad, py::handle words, uintptr_t stream) {
  Operands operands("adam_update", kMemory);
  check(eps >= 0 && eps < 1e300, "adam_update", "eps is ", eps, ", expected a number of at least 0");
  std::vector<std::pair<const char*, py::list>> lists{
      {"params", params}, {"grads", grads}, {"means", means}, {"squares", squares}};
  if (amsgrad) lists.emplace_back("largest", largest);
  const TensorList tensors = tensors_of(operands, lists);
  const AdamStep step{
      step_size, correction, beta1, beta2, eps, decay, kept, amsgrad, words_of(operands, words, 3)};
  py::gil_scoped_release unlocked;
  dispatch_float(operands.dtype(), operands.op(),
                 [&]<class T>() { device::adam_update<T>(tensors, step, as_stream(stream)); });
}

}  // namespace

void bind_optimizer(py::module_& m) {
  m.def("sgd_update", &sgd_update, py::arg("params"), py::arg("grads"), py::arg("buffers"), py::arg("lr"),
        py::arg("momentum"), py::arg("keep"), py::arg("decay"), py::arg("nesterov"), py::arg("first"),
        py::arg("words") = py::none(), py::arg("stream") = 0);
  m.def("adam_update", &adam_update, py::arg("params"), py::arg("grads"), py::arg("means"),
        py::arg("squares"), py::arg("largest"), py::arg("step_size"), py::arg("correction"), py::arg("beta1"),
        py::arg("beta2"), py::arg("eps"), py::arg("decay"), py::arg("kept"), py::arg("amsgrad"),
        py::arg("words") = py::none(), py::arg("stream") = 0);
}
