// What cuda/core/mma.h and cuda/core/async_copy.h reach by PTX on the device.
#pragma once
#include <cstdint>

#include "emulator/device.h"

namespace fastarch::emulator {

enum class MatrixType { tf32, bfloat16, float16 };

uint32_t to_tf32(float x);

// One lane's part of d += a b. The exact sum is chopped to float: the documentation leaves the rounding open,
// and chopping is the least accurate of what was measured on hardware. A tf32 operand with bits that tf32
// lacks is a fault.
void mma(const Site& site, MatrixType type, const uint32_t (&a)[4], const uint32_t (&b)[2], float (&d)[4]);

void load_matrices(const Site& site, const void* row, uint32_t (&registers)[4], bool transposed);

// The source is read at once, and until the wait the destination holds NaN (all bits set): who reads it too
// early, or is still reading what was there before, gets that. A thread that exits before its copies have
// arrived is a fault.
void copy_async(const Site& site, void* to, const void* from, int bytes, int valid);
void commit_copies(const Site& site);
void wait_copies(const Site& site, int pending);

}  // namespace fastarch::emulator
