// Arrays of other libraries, seen without copying: NumPy (buffer protocol), CuPy, PyTorch, JAX (DLPack,
// __cuda_array_interface__).
#pragma once
#include <pybind11/pybind11.h>

#include <initializer_list>
#include <string>

#include "core/dispatch.h"
#include "core/types.h"

namespace fastarch {

namespace py = pybind11;

enum class Memory { host, cuda };

constexpr int kMaxDims = 8;

// Borrowed memory; the Python object that owns it must outlive the view. Strides count elements.
struct ArrayView {
  void* data = nullptr;
  DType dtype = DType::float32;
  Memory memory = Memory::host;
  int device_id = 0;
  bool readonly = false;
  int ndim = 0;
  int64_t shape[kMaxDims] = {};
  int64_t strides[kMaxDims] = {};

  int64_t size() const;
  bool contiguous() const;
  std::string shape_text() const;  // "(2, 3, 4)"
};

// Throws TypeError when `object` is no array, or one of an unsupported dtype, dimension count or device.
ArrayView view_of(py::handle object, const char* op, const char* name);

// The operands of one operator call: what every kernel may rely on is checked here, once.
// Contiguous C order, memory of this module's kind, one float dtype for all operands that share it (float16
// and bfloat16 only where `halves` says that there are kernels), writable outputs.
class Operands {
 public:
  explicit Operands(const char* op, Memory memory, bool halves = false)
      : op_(op), memory_(memory), halves_(halves) {}

  // An operand of the call's common float dtype.
  ArrayView in(py::handle object, const char* name, std::initializer_list<int64_t> shape = {});
  ArrayView out(py::handle object, const char* name, std::initializer_list<int64_t> shape = {});
  // The same for None: a view whose data is null.
  ArrayView in_or_none(py::handle object, const char* name, std::initializer_list<int64_t> shape = {});
  ArrayView out_or_none(py::handle object, const char* name, std::initializer_list<int64_t> shape = {});
  // An operand of any dtype (indices, masks): the caller looks at .dtype.
  ArrayView in_any(py::handle object, const char* name, std::initializer_list<int64_t> shape = {});
  ArrayView out_any(py::handle object, const char* name, std::initializer_list<int64_t> shape = {});

  void expect_dims(const ArrayView& view, const char* name, int ndim) const;
  DType dtype() const { return dtype_; }
  const char* op() const { return op_; }

 private:
  ArrayView take(py::handle object, const char* name, std::initializer_list<int64_t> shape, bool common,
                 bool write);

  const char* op_;
  Memory memory_;
  bool halves_;
  DType dtype_ = DType::float32;
  bool has_dtype_ = false;
};

template <class T>
const T* data(const ArrayView& view) {
  return static_cast<const T*>(view.data);
}

template <class T>
T* mutable_data(const ArrayView& view) {
  return static_cast<T*>(view.data);
}

}  // namespace fastarch
