// Products of dense row-major matrices as functions, for kernels that are such products in places. They are
// compiled once, by linear.cpp, whose contract describes them.
#pragma once
#include "core/types.h"

namespace fastarch::cpu {

template <class T>
void linear_forward(const T* x, const T* weight, const T* bias, T* y, int64_t m, int64_t in, int64_t out,
                    Activation kind, Precision precision, Stream stream);
template <class T>
void linear_backward_input(const T* dy, const T* weight, T* dx, int64_t m, int64_t in, int64_t out,
                           Precision precision, Stream stream);
template <class T>
void linear_backward_weight(const T* dy, const T* x, T* dw, T* db, int64_t m, int64_t in, int64_t out,
                            Precision precision, Stream stream);

// db[o] = sum of column o of dy [m, out], overwritten.
template <class T>
void column_sums(const T* dy, T* db, int64_t m, int64_t out);

}  // namespace fastarch::cpu
