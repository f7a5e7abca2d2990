// How the tensor cores' types round.
#pragma once
#include <cmath>
#include <cstdint>

namespace fastarch::emulator {

constexpr uint32_t kBelowTf32 = (1u << 13) - 1;  // the bits of a float's fraction that tf32 lacks

inline float chopped(double x) {
  const auto nearest = static_cast<float>(x);
  if (std::isinf(nearest) || !(std::fabs(double{nearest}) > std::fabs(x))) return nearest;
  return std::nextafterf(nearest, 0.0f);
}

}  // namespace fastarch::emulator
