// Division by a number that is fixed for a launch: a multiply and a shift in place of some 20 instructions.
#pragma once
#include <cstdint>

#include "core/types.h"

namespace fastarch::cuda {

// quotient(n) = n / divisor for 0 <= n < limit; the 64-bit division is taken only where limit exceeds 2^31.
// Granlund and Montgomery, "Division by invariant integers using multiplication" (1994).
class Divider {
 public:
  Divider(int64_t divisor, int64_t limit)
      : divisor_(divisor), wide_(limit > (int64_t{1} << 31) || divisor > (int64_t{1} << 31)) {
    if (wide_) return;
    while ((int64_t{1} << shift_) < divisor) ++shift_;
    magic_ = static_cast<uint32_t>((((uint64_t{1} << shift_) - divisor) << 32) / divisor + 1);
  }

  FASTARCH_HOST_DEVICE int64_t quotient(int64_t n) const {
    if (wide_) return n / divisor_;
    const uint32_t low = static_cast<uint32_t>(n);
    return (static_cast<uint32_t>((uint64_t{low} * magic_) >> 32) + low) >> shift_;
  }

 private:
  int64_t divisor_;
  uint32_t magic_ = 0;
  int shift_ = 0;
  bool wide_;
};

}  // namespace fastarch::cuda
