// What cuda/core/warpgroup.h reaches by PTX on the device: matrix operations of four warps, whose operands
// lie in shared memory.
#pragma once
#include <cstdint>

#include "emulator/matrix.h"

namespace fastarch::emulator {

// d += a b (or d = a b), where a is 64 x 32 bytes of k and b is `columns` x the same; d is the thread's
// columns / 2 sums.
struct WarpgroupProduct {
  MatrixType type;
  int columns;
  bool a_along_k, b_along_k, add;
  uint64_t a, b;  // descriptors
  friend bool operator==(const WarpgroupProduct&, const WarpgroupProduct&) = default;
};

uint64_t operand_descriptor(const Site& site, const void* shared, uint32_t leading_bytes,
                            uint32_t stride_bytes);

// Sums hold NaN (all bits set) from here to the wait for their group, and operands are read somewhere in
// between: at the commit or at the wait, by chance. Threads of a warpgroup that do not all call alike, sums
// that were written without a fence since, and a thread that exits before the wait are faults.
void begin_product(const Site& site, const WarpgroupProduct& product, float* d);
void fence_products(const Site& site);
void commit_products(const Site& site);
void wait_products(const Site& site, int pending);

}  // namespace fastarch::emulator
