// The part of DLPack's stable ABI that reading needs (https://dmlc.github.io/dlpack).
#pragma once
#include <cstdint>

namespace fastarch::dlpack {

enum DeviceType : int32_t { kCPU = 1, kCUDA = 2, kCUDAHost = 3, kCUDAManaged = 13 };
enum TypeCode : uint8_t { kInt = 0, kUInt = 1, kFloat = 2, kBfloat = 4, kBool = 6 };
constexpr uint64_t kReadOnly = 1, kIsCopied = 2;

struct Device {
  int32_t device_type;
  int32_t device_id;
};

struct DataType {
  uint8_t code, bits;
  uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  int32_t ndim;
  DataType dtype;
  int64_t* shape;
  int64_t* strides;  // in elements; null when contiguous
  uint64_t byte_offset;
};

struct ManagedTensor {
  Tensor tensor;
  void* manager;
  void (*deleter)(ManagedTensor*);
};

struct Version {
  uint32_t major, minor;
};

struct ManagedTensorVersioned {
  Version version;
  void* manager;
  void (*deleter)(ManagedTensorVersioned*);
  uint64_t flags;
  Tensor tensor;
};

// The C function table that a library publishes on its array type as __dlpack_c_exchange_api__.
struct ExchangeAPI {
  Version version;
  ExchangeAPI* previous;
  void* allocator;
  int (*managed_from_object)(void* object, ManagedTensorVersioned** out);
  void* managed_to_object;
  int (*tensor_from_object)(void* object, Tensor* out);  // borrows; may be null
  void* current_stream;
};

}  // namespace fastarch::dlpack
