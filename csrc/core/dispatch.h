// The one dtype dispatcher: dispatch_float(dtype, "conv2d", [&]<class T>() { ... }) runs the body with
// T = float or double; dispatch_any_float with T = float16 or bfloat16 too.
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
    case DType::float16: return "float16";
    case DType::bfloat16: return "bfloat16";
  }
  return "unknown";
}

inline int item_size(DType dtype) {
  switch (dtype) {
    case DType::float64:
    case DType::int64: return 8;
    case DType::float32:
    case DType::int32: return 4;
    case DType::float16:
    case DType::bfloat16: return 2;
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

template <class Body>
void dispatch_any_float(DType dtype, const char* op, Body&& body) {
  switch (dtype) {
    case DType::float16: return body.template operator()<float16>();
    case DType::bfloat16: return body.template operator()<bfloat16>();
    case DType::float32: return body.template operator()<float>();
    case DType::float64: return body.template operator()<double>();
    default:
      check(false, op, "dtype ", dtype_name(dtype), ", expected float16, bfloat16, float32 or float64");
  }
}

}  // namespace fastarch
