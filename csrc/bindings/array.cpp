// Probing of foreign arrays, cheapest first: buffer protocol, DLPack through its C table, DLPack through
// Python, then __cuda_array_interface__.
#include "bindings/array.h"

#include <pybind11/numpy.h>

#include <cstring>

#include "bindings/dlpack.h"

namespace fastarch {
namespace {

std::string type_name(py::handle object) { return Py_TYPE(object.ptr())->tp_name; }

[[noreturn]] void type_error(const char* op, const std::string& text) {
  throw py::type_error(concat("[", op, "] ", text));
}

[[noreturn]] void bad_dtype(const char* op, const char* name, const std::string& got) {
  type_error(op, concat(name, " has dtype ", got,
                        ", expected float16, bfloat16, float32, float64, int32, int64, uint8 or bool"));
}

// One letter of the struct module's format, or of numpy's typestr kind with its size.
bool dtype_from(char kind, int64_t itemsize, DType* out) {
  switch (kind) {
    case 'f':
      if (itemsize == 2) return *out = DType::float16, true;
      if (itemsize == 4) return *out = DType::float32, true;
      if (itemsize == 8) return *out = DType::float64, true;
      return false;
    case 'i':
      if (itemsize == 4) return *out = DType::int32, true;
      if (itemsize == 8) return *out = DType::int64, true;
      return false;
    case 'u':
      if (itemsize == 1) return *out = DType::uint8, true;
      return false;
    case 'b':
      if (itemsize == 1) return *out = DType::boolean, true;
      return false;
    default: return false;
  }
}

// The struct module's letters, as numpy writes them.
char kind_of_format(const char* format) {
  if (!format) return 'u';
  if (*format == '@' || *format == '=' || *format == '<') ++format;
  if (std::strlen(format) != 1) return '?';
  switch (*format) {
    case 'e':
    case 'f':
    case 'd': return 'f';
    case 'i':
    case 'l':
    case 'q': return 'i';
    case 'B': return 'u';
    case '?': return 'b';
    default: return '?';
  }
}

void check_dims(const char* op, const char* name, int64_t ndim) {
  check(ndim >= 0 && ndim <= kMaxDims, op, name, " has ", ndim, " dimensions, expected at most ", kMaxDims);
}

void set_contiguous_strides(ArrayView* view) {
  int64_t stride = 1;
  for (int i = view->ndim - 1; i >= 0; --i) {
    view->strides[i] = stride;
    stride *= view->shape[i];
  }
}

// NumPy's bfloat16 (ml_dtypes) is a dtype registered with it later, which no protocol can express.
bool view_numpy_bfloat16(py::handle object, const char* op, const char* name, ArrayView* view) {
  constexpr int kFirstRegistered = 256;
  if (!py::isinstance<py::array>(object)) return false;
  const auto array = py::reinterpret_borrow<py::array>(object);
  const py::dtype dtype = array.dtype();
  if (dtype.num() < kFirstRegistered) return false;
  const std::string called = py::str(dtype);
  if (called != "bfloat16" || dtype.byteorder() != '=') bad_dtype(op, name, called);
  check_dims(op, name, array.ndim());
  view->dtype = DType::bfloat16;
  view->data = const_cast<void*>(array.data());
  view->readonly = !array.writeable();
  view->ndim = static_cast<int>(array.ndim());
  for (int i = 0; i < view->ndim; ++i) {
    view->shape[i] = array.shape(i);
    check(array.strides(i) % 2 == 0, op, name, " has a stride that is no multiple of its item size");
    view->strides[i] = array.strides(i) / 2;
  }
  return true;
}

bool view_buffer(py::handle object, const char* op, const char* name, ArrayView* view) {
  if (!PyObject_CheckBuffer(object.ptr())) return false;
  Py_buffer buffer;
  if (PyObject_GetBuffer(object.ptr(), &buffer, PyBUF_STRIDES | PyBUF_FORMAT) != 0) {
    PyErr_Clear();  // e.g. a dtype without a buffer format: another protocol may know it
    return false;
  }
  struct Release {
    Py_buffer* buffer;
    ~Release() { PyBuffer_Release(buffer); }
  } release{&buffer};
  check_dims(op, name, buffer.ndim);
  if (!dtype_from(kind_of_format(buffer.format), buffer.itemsize, &view->dtype))
    bad_dtype(op, name, concat("'", buffer.format ? buffer.format : "B", "' (struct format)"));
  view->data = buffer.buf;
  view->readonly = buffer.readonly;
  view->ndim = buffer.ndim;
  for (int i = 0; i < buffer.ndim; ++i) {
    view->shape[i] = buffer.shape[i];
    check(buffer.strides[i] % buffer.itemsize == 0, op, name,
          " has a stride that is no multiple of its item size");
    view->strides[i] = buffer.strides[i] / buffer.itemsize;
  }
  return true;
}

void view_dl_tensor(const dlpack::Tensor& t, const char* op, const char* name, ArrayView* view) {
  const bool host = t.device.device_type == dlpack::kCPU || t.device.device_type == dlpack::kCUDAHost;
  const bool cuda = t.device.device_type == dlpack::kCUDA || t.device.device_type == dlpack::kCUDAManaged;
  if (!host && !cuda)
    type_error(op, concat(name, " lives on DLPack device type ", t.device.device_type,
                          ", expected host or CUDA memory"));
  const bool bfloat = t.dtype.code == dlpack::kBfloat && t.dtype.bits == 16 && t.dtype.lanes == 1;
  const char kind = t.dtype.code == dlpack::kFloat  ? 'f'
                    : t.dtype.code == dlpack::kInt  ? 'i'
                    : t.dtype.code == dlpack::kUInt ? 'u'
                    : t.dtype.code == dlpack::kBool ? 'b'
                                                    : '?';
  if (bfloat)
    view->dtype = DType::bfloat16;
  else if (t.dtype.lanes != 1 || !dtype_from(kind, t.dtype.bits / 8, &view->dtype))
    bad_dtype(op, name, concat("(DLPack code ", int(t.dtype.code), ", ", int(t.dtype.bits), " bits)"));
  check_dims(op, name, t.ndim);
  view->data = static_cast<char*>(t.data) + t.byte_offset;
  view->memory = cuda ? Memory::cuda : Memory::host;
  view->device_id = t.device.device_id;
  view->ndim = t.ndim;
  for (int i = 0; i < t.ndim; ++i) view->shape[i] = t.shape[i];
  if (t.strides) {
    for (int i = 0; i < t.ndim; ++i) view->strides[i] = t.strides[i];
  } else {
    set_contiguous_strides(view);
  }
}

// DLPack's C function table: no Python call, about a microsecond cheaper than __dlpack__().
bool view_exchange_api(py::handle object, const char* op, const char* name, ArrayView* view) {
  const py::handle type(reinterpret_cast<PyObject*>(Py_TYPE(object.ptr())));
  const py::object capsule = py::getattr(type, "__dlpack_c_exchange_api__", py::none());
  if (!PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api")) return false;
  auto* api = static_cast<dlpack::ExchangeAPI*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  while (api && api->version.major != 1) api = api->previous;
  if (!api || !api->tensor_from_object) return false;
  // The table hands out tensors that a tape watches; writing to one behind its back would corrupt gradients.
  if (py::getattr(object, "requires_grad", py::bool_(false)).cast<bool>())
    type_error(op, concat(name, " (", type_name(object), ") requires grad; pass x.detach()"));
  dlpack::Tensor tensor;
  if (api->tensor_from_object(object.ptr(), &tensor) != 0) {
    const py::error_already_set error;
    const std::string text = py::str(error.value());
    type_error(op,
               concat(name, " (", type_name(object), ") refused DLPack: ", text.substr(0, text.find('\n'))));
  }
  view_dl_tensor(tensor, op, name, view);
  return true;
}

bool view_dlpack(py::handle object, const char* op, const char* name, ArrayView* view) {
  if (!py::hasattr(object, "__dlpack__")) return false;
  py::object capsule;
  try {
    // stream=-1: the producer need not synchronize, kernels run on the caller's own stream.
    int device_type = dlpack::kCPU;
    if (py::hasattr(object, "__dlpack_device__"))
      device_type = object.attr("__dlpack_device__")().cast<py::tuple>()[0].cast<int>();
    py::dict arguments;
    if (device_type == dlpack::kCUDA || device_type == dlpack::kCUDAManaged) arguments["stream"] = -1;
    try {
      capsule = object.attr("__dlpack__")(**arguments, py::arg("max_version") = py::make_tuple(1, 1));
    } catch (py::error_already_set& error) {
      if (!error.matches(PyExc_TypeError)) throw;
      capsule = object.attr("__dlpack__")(**arguments);  // a producer older than DLPack 1.0
    }
  } catch (py::error_already_set& error) {
    type_error(op, concat(name, " (", type_name(object),
                          ") refused DLPack: ", py::str(error.value()).cast<std::string>()));
  }
  // The view only borrows: the capsule's destructor releases what was not consumed.
  if (PyCapsule_IsValid(capsule.ptr(), "dltensor_versioned")) {
    auto* managed = static_cast<dlpack::ManagedTensorVersioned*>(
        PyCapsule_GetPointer(capsule.ptr(), "dltensor_versioned"));
    check(managed->version.major == 1, op, name, " uses DLPack ", managed->version.major, ".x, expected 1.x");
    check(!(managed->flags & dlpack::kIsCopied), op, name,
          " is handed over as a copy, which dies with its capsule");
    view->readonly = managed->flags & dlpack::kReadOnly;
    view_dl_tensor(managed->tensor, op, name, view);
    return true;
  }
  if (PyCapsule_IsValid(capsule.ptr(), "dltensor")) {
    auto* managed = static_cast<dlpack::ManagedTensor*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
    view_dl_tensor(managed->tensor, op, name, view);
    return true;
  }
  return false;
}

bool view_cuda_interface(py::handle object, const char* op, const char* name, ArrayView* view) {
  if (!py::hasattr(object, "__cuda_array_interface__")) return false;
  const py::dict interface = object.attr("__cuda_array_interface__");
  const std::string typestr = interface["typestr"].cast<std::string>();
  const int64_t itemsize = typestr.size() > 2 ? std::strtol(typestr.c_str() + 2, nullptr, 10) : 0;
  if (typestr.size() < 3 || typestr[0] == '>' || !dtype_from(typestr[1], itemsize, &view->dtype))
    bad_dtype(op, name, concat("'", typestr, "'"));
  const py::tuple data = interface["data"], shape = interface["shape"];
  check_dims(op, name, static_cast<int64_t>(shape.size()));
  view->data = reinterpret_cast<void*>(data[0].cast<uintptr_t>());
  view->readonly = data[1].cast<bool>();
  view->memory = Memory::cuda;
  view->ndim = static_cast<int>(shape.size());
  for (int i = 0; i < view->ndim; ++i) view->shape[i] = shape[i].cast<int64_t>();
  if (interface.contains("strides") && !interface["strides"].is_none()) {
    const py::tuple strides = interface["strides"];
    for (int i = 0; i < view->ndim; ++i) view->strides[i] = strides[i].cast<int64_t>() / itemsize;
  } else {
    set_contiguous_strides(view);
  }
  return true;
}

std::string shape_text_of(const int64_t* shape, int ndim) {
  std::string text = "(";
  for (int i = 0; i < ndim; ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + (ndim == 1 ? ",)" : ")");
}

}  // namespace

int64_t ArrayView::size() const {
  int64_t n = 1;
  for (int i = 0; i < ndim; ++i) n *= shape[i];
  return n;
}

bool ArrayView::contiguous() const {
  if (size() == 0) return true;
  int64_t stride = 1;
  for (int i = ndim - 1; i >= 0; --i) {
    if (shape[i] != 1 && strides[i] != stride) return false;
    stride *= shape[i];
  }
  return true;
}

std::string ArrayView::shape_text() const { return shape_text_of(shape, ndim); }

ArrayView view_of(py::handle object, const char* op, const char* name) {
  ArrayView view;
  if (view_numpy_bfloat16(object, op, name, &view)) return view;
  if (view_buffer(object, op, name, &view)) return view;
  if (view_exchange_api(object, op, name, &view)) return view;
  if (view_dlpack(object, op, name, &view)) return view;
  if (view_cuda_interface(object, op, name, &view)) return view;
  type_error(op, concat(name, " is ", type_name(object),
                        ", expected an array (NumPy, CuPy, or anything with __dlpack__)"));
}

ArrayView Operands::take(py::handle object, const char* name, std::initializer_list<int64_t> shape,
                         bool common, bool write) {
  const ArrayView view = view_of(object, op_, name);
  const char* where[] = {"host", "CUDA"};
  if (view.memory != memory_)
    type_error(op_, concat(name, " is in ", where[int(view.memory)], " memory, expected ",
                           where[int(memory_)], " memory"));
  check(view.contiguous(), op_, name, " is not contiguous (C order)");
  check(reinterpret_cast<uintptr_t>(view.data) % item_size(view.dtype) == 0, op_, name,
        " is not aligned to its item size");
  check(!(write && view.readonly), op_, name, " is read-only, expected a writable array");
  if (common) {
    const bool full = view.dtype == DType::float32 || view.dtype == DType::float64;
    const bool half = view.dtype == DType::float16 || view.dtype == DType::bfloat16;
    if (!full && !(half && halves_))
      type_error(op_, concat(name, " has dtype ", dtype_name(view.dtype), ", expected ",
                             halves_ ? "float16, bfloat16, " : "", "float32 or float64"));
    if (!has_dtype_) dtype_ = view.dtype, has_dtype_ = true;
    if (view.dtype != dtype_)
      type_error(op_, concat(name, " has dtype ", dtype_name(view.dtype), ", expected ", dtype_name(dtype_)));
  }
  if (shape.size() != 0) {
    bool same = static_cast<int>(shape.size()) == view.ndim;
    for (int i = 0; same && i < view.ndim; ++i) same = shape.begin()[i] == view.shape[i];
    check(same, op_, name, " has shape ", view.shape_text(), ", expected ",
          shape_text_of(shape.begin(), static_cast<int>(shape.size())));
  }
  return view;
}

ArrayView Operands::in(py::handle o, const char* name, std::initializer_list<int64_t> shape) {
  return take(o, name, shape, true, false);
}
ArrayView Operands::out(py::handle o, const char* name, std::initializer_list<int64_t> shape) {
  return take(o, name, shape, true, true);
}
ArrayView Operands::in_or_none(py::handle o, const char* name, std::initializer_list<int64_t> shape) {
  return o.is_none() ? ArrayView{} : take(o, name, shape, true, false);
}
ArrayView Operands::out_or_none(py::handle o, const char* name, std::initializer_list<int64_t> shape) {
  return o.is_none() ? ArrayView{} : take(o, name, shape, true, true);
}
ArrayView Operands::in_any(py::handle o, const char* name, std::initializer_list<int64_t> shape) {
  return take(o, name, shape, false, false);
}
ArrayView Operands::out_any(py::handle o, const char* name, std::initializer_list<int64_t> shape) {
  return take(o, name, shape, false, true);
}

void Operands::expect_dims(const ArrayView& view, const char* name, int ndim) const {
  check(view.ndim == ndim, op_, name, " has shape ", view.shape_text(), ", expected ", ndim, " dimensions");
}

}  // namespace fastarch
