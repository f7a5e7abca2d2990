#include "ops/words.h"

#include "bindings/module.h"

using namespace fastarch;

namespace {

void store_words(py::handle words, py::handle values, uintptr_t stream) {
  Operands operands("store_words", kMemory), host("store_words", Memory::host);
  const ArrayView to = operands.out_any(words, "words"), from = host.in_any(values, "values", {to.size()});
  for (const auto& [name, view] : {std::pair{"words", to}, std::pair{"values", from}})
    check(view.dtype == DType::int64, "store_words", name, " has dtype ", dtype_name(view.dtype),
          ", expected int64");
  py::gil_scoped_release unlocked;
  device::store_words(mutable_data<uint64_t>(to), data<uint64_t>(from), to.size(), as_stream(stream));
}

void random_words(py::handle words, int64_t start, uint64_t seed, uint64_t offset, py::handle word,
                  uintptr_t stream) {
  Operands operands("random_words", kMemory);
  const ArrayView to = operands.out_any(words, "words");
  check(to.dtype == DType::int32, "random_words", "words has dtype ", dtype_name(to.dtype),
        ", expected int32");
  check(start >= 0 && start < (int64_t{1} << 62), "random_words", "start is ", start,
        ", expected 0 to 2**62 - 1");
  const uint64_t* const own = offset_word("random_words", word);
  py::gil_scoped_release unlocked;
  device::random_words(mutable_data<uint32_t>(to), to.size(), start, seed, offset, own, as_stream(stream));
}

}  // namespace

void bind_words(py::module_& m) {
  m.def("store_words", &store_words, py::arg("words"), py::arg("values"), py::arg("stream") = 0);
  m.def("random_words", &random_words, py::arg("words"), py::arg("start"), py::arg("seed"), py::arg("offset"),
        py::arg("word") = py::none(), py::arg("stream") = 0);
}
