// The tensor cores' warp-wide operations, computed from the layouts that the PTX manual documents.
#include "emulator/matrix.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "emulator/control.h"
#include "rounding.h"
#include "scheduler.h"

namespace fastarch::emulator {
namespace {

struct MmaPart {
  const uint32_t *a, *b;
  float* d;
};

struct LoadPart {
  const char* row;
  uint32_t* registers;
};

double from_bfloat16(uint32_t bits) { return double{std::bit_cast<float>(bits << 16)}; }

double from_float16(uint32_t bits) {
  const int exponent = static_cast<int>(bits >> 10 & 31u);
  const double fraction = bits & 1023u, sign = bits >> 15 ? -1.0 : 1.0;
  if (exponent == 31)
    return fraction != 0 ? std::numeric_limits<double>::quiet_NaN()
                         : sign * std::numeric_limits<double>::infinity();
  return sign * std::ldexp(exponent > 0 ? 1024 + fraction : fraction, (exponent > 0 ? exponent : 1) - 25);
}

// Value number i of an operand register.
template <MatrixType Type>
double value(uint32_t bits, int i) {
  if constexpr (Type == MatrixType::tf32) return double{std::bit_cast<float>(bits)};
  bits = bits >> 16 * i & 0xFFFFu;
  return Type == MatrixType::bfloat16 ? from_bfloat16(bits) : from_float16(bits);
}

// Element (row, k) of a is in register `row / 8 + 2 * (k / half)` of lane `row % 8 * 4 + k % half / each`,
// where a register holds `each` values and half of k is one register's worth of a quad of lanes; b is the
// same by columns.
template <MatrixType Type>
void multiply(void* const (&parts)[32]) {
  constexpr int kEach = Type == MatrixType::tf32 ? 1 : 2, kHalf = 4 * kEach;
  const auto part = [&](int lane) -> const MmaPart& { return *static_cast<const MmaPart*>(parts[lane]); };
  double a[16][2 * kHalf], b[8][2 * kHalf];
  for (int k = 0; k < 2 * kHalf; ++k) {
    const int quad = k % kHalf / kEach, within = k % kEach, upper = k / kHalf;
    for (int m = 0; m < 16; ++m) a[m][k] = value<Type>(part(m % 8 * 4 + quad).a[m / 8 + 2 * upper], within);
    for (int n = 0; n < 8; ++n) b[n][k] = value<Type>(part(n * 4 + quad).b[upper], within);
  }
  for (int m = 0; m < 16; ++m) {
    for (int n = 0; n < 8; ++n) {
      float& d = part(m % 8 * 4 + n / 2).d[m / 8 * 2 + n % 2];
      double sum = double{d};
      for (int k = 0; k < 2 * kHalf; ++k) sum += a[m][k] * b[n][k];
      d = chopped(sum);
    }
  }
}

template <bool Transposed>
void load(void* const (&parts)[32]) {
  const auto part = [&](int lane) -> const LoadPart& { return *static_cast<const LoadPart*>(parts[lane]); };
  for (int lane = 0; lane < 32; ++lane) {
    for (int matrix = 0; matrix < 4; ++matrix) {
      uint16_t pair[2];
      for (int i = 0; i < 2; ++i) {
        const int row = Transposed ? lane % 4 * 2 + i : lane / 4,
                  column = Transposed ? lane / 4 : lane % 4 * 2 + i;
        std::memcpy(&pair[i], part(8 * matrix + row).row + 2 * column, 2);
      }
      std::memcpy(&part(lane).registers[matrix], pair, 4);
    }
  }
}

}  // namespace

uint32_t to_tf32(float x) {
  if (std::isnan(x)) return 0x7FC00000u;
  const auto bits = std::bit_cast<uint32_t>(x);  // a carry moves on into the exponent, up to infinity
  return std::isinf(x) ? bits : (bits + (kBelowTf32 + 1) / 2) & ~kBelowTf32;
}

void mma(const Site& site, MatrixType type, const uint32_t (&a)[4], const uint32_t (&b)[2], float (&d)[4]) {
  if (device().capability_major < 8) {
    const Scheduler::Mode mode(false);
    scheduler.fail(scheduler.thread_at(site), text(site), ": needs compute capability 8.0");
  }
  if (type == MatrixType::tf32) {
    for (const uint32_t operand : {a[0], a[1], a[2], a[3], b[0], b[1]}) {
      if ((operand & kBelowTf32) != 0) {
        const Scheduler::Mode mode(false);
        scheduler.fail(scheduler.thread_at(site), text(site), ": operand ", std::bit_cast<float>(operand),
                       " is not rounded to tf32");
      }
    }
  }
  MmaPart part{a, b, d};
  scheduler.warp_collective(site, &part,
                            type == MatrixType::tf32       ? &multiply<MatrixType::tf32>
                            : type == MatrixType::bfloat16 ? &multiply<MatrixType::bfloat16>
                                                           : &multiply<MatrixType::float16>);
}

void load_matrices(const Site& site, const void* row, uint32_t (&registers)[4], bool transposed) {
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0) {
    const Scheduler::Mode mode(false);
    scheduler.fail(scheduler.thread_at(site), text(site), ": the row's address is not a multiple of 16");
  }
  LoadPart part{static_cast<const char*>(row), registers};
  scheduler.warp_collective(site, &part, transposed ? &load<true> : &load<false>);
}

}  // namespace fastarch::emulator
