// The one dtype dispatcher: dispatch_float(dtype, "conv2d", [&]<class T>() { ... }) runs the body with
// T = float or double.
#pragma once
#include "core/check.h"
#include "core/types.h"

namespace fastarch {

inline const char* dtype_name(DType dtype) {
  switch (dtype) {
    case DType::float32: return "float32";
    case DType::float64: return "float64";
    case DType::uint8: return "uint8";
    case DType::int32: return "int32";
    case DType::int64: return "int64";
    case DType::boolean: return "bool";
  }
  return "unknown";
}

inline int item_size(DType dtype) {
  switch (dtype) {
    case DType::float64:
    case DType::int64: return 8;
    case DType::float32:
    case DType::int32: return 4;
    default: return 1;
  }
}

template <class Body>
void dispatch_float(DType dtype, const char* op, Body&& body) {
  switch (dtype) {
    case DType::float32: return body.template operator()<float>();
    case DType::float64: return body.template operator()<double>();
    default: check(false, op, "dtype ", dtype_name(dtype), ", expected float32 or float64");
  }
}

}  // namespace fastarch
