// Division by a number that is fixed for a launch: a multiply and a shift in place of some 20 instructions.
#pragma once
#include <cstdint>

#include "core/types.h"

namespace fastarch::cuda {

// For dividends below 2^31: n / d = (n * magic / 2^32 + n) >> shift, where the sum cannot overflow 32 bits.
// Granlund and Montgomery, "Division by invariant integers using multiplication" (1994).
class FastDivider {
 public:
  FastDivider() = default;

  // 1 <= divisor < 2^31; zero counts as one, so that an empty extent needs no care of its own.
  explicit FastDivider(int64_t divisor) : divisor_(divisor > 0 ? static_cast<uint32_t>(divisor) : 1) {
    while ((uint64_t{1} << shift_) < divisor_) ++shift_;
    magic_ = static_cast<uint32_t>((((uint64_t{1} << shift_) - divisor_) << 32) / divisor_ + 1);
  }

  FASTARCH_HOST_DEVICE uint32_t divisor() const { return divisor_; }

  FASTARCH_HOST_DEVICE uint32_t quotient(uint32_t n) const {
    return (static_cast<uint32_t>((uint64_t{n} * magic_) >> 32) + n) >> shift_;
  }

  // Splits n into the quotient, returned, and the remainder.
  FASTARCH_HOST_DEVICE uint32_t split(uint32_t n, uint32_t* rest) const {
    const uint32_t result = quotient(n);
    *rest = n - result * divisor_;
    return result;
  }

  // The same for any n >= 0; the slow branch is taken only past 2^31.
  FASTARCH_HOST_DEVICE int64_t split_wide(int64_t n, uint32_t* rest) const {
    if (n < (int64_t{1} << 31)) return split(static_cast<uint32_t>(n), rest);
    const int64_t result = n / divisor_;
    *rest = static_cast<uint32_t>(n - result * divisor_);
    return result;
  }

 private:
  uint32_t divisor_ = 1, magic_ = 1, shift_ = 0;
};

// quotient(n) = n / divisor for 0 <= n < limit; the 64-bit division is taken only where limit exceeds 2^31.
class Divider {
 public:
  Divider(int64_t divisor, int64_t limit)
      : divisor_(divisor),
        wide_(limit > (int64_t{1} << 31) || divisor > (int64_t{1} << 31)),
        fast_(wide_ ? 1 : divisor) {}

  FASTARCH_HOST_DEVICE int64_t quotient(int64_t n) const {
    return wide_ ? n / divisor_ : fast_.quotient(static_cast<uint32_t>(n));
  }

 private:
  int64_t divisor_;
  bool wide_;
  FastDivider fast_;
};

}  // namespace fastarch::cuda
