// The warpgroup's matrix operations, computed from the layouts that the PTX manual documents: each warp
// computes its 16 of the 64 rows when all its lanes commit or wait.
#include "emulator/warpgroup.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "core/float16.h"
#include "emulator/control.h"
#include "rounding.h"
#include "scheduler.h"
#include "shared_memory.h"

namespace fastarch::emulator {
namespace {

constexpr int kWarpRows = 16, kMostColumns = 256, kBytesOfK = 32, kMostDepth = kBytesOfK / 2;
constexpr uint32_t kPattern = 128;  // bytes of a row of the swizzle's pattern of 8 rows
constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;

// Fields of a descriptor, each a multiple of 16 bytes (PTX manual, "Matrix Descriptor Format").
struct Descriptor {
  uint32_t start, leading, stride, base_offset, swizzle;

  explicit Descriptor(uint64_t bits)
      : start(field(bits, 0)),
        leading(field(bits, 16)),
        stride(field(bits, 32)),
        base_offset(static_cast<uint32_t>(bits >> 49 & 7u)),
        swizzle(static_cast<uint32_t>(bits >> 62)) {}

  static uint32_t field(uint64_t bits, int at) { return static_cast<uint32_t>(bits >> at & 0x3FFFu) << 4; }

  // Where value k of a line lies. Along k: rows of 128 bytes are lines, `stride` from 8 of them to the next.
  // Else they are values of k, 128 bytes' worth of lines each: `leading` from those to the next lines,
  // `stride` from 8 values of k to the next.
  uint32_t address(bool along_k, int bytes, int line, int k) const {
    const int lines = static_cast<int>(kPattern) / bytes;
    const uint32_t at =
        start +
        (along_k
             ? static_cast<uint32_t>(line / 8) * stride + static_cast<uint32_t>(line % 8) * kPattern +
                   static_cast<uint32_t>(k * bytes)
             : static_cast<uint32_t>(line / lines) * leading + static_cast<uint32_t>(line % lines * bytes) +
                   static_cast<uint32_t>(k % 8) * kPattern + static_cast<uint32_t>(k / 8) * stride);
    return at ^ ((at >> 7 & 7u) << 4);
  }
};

int bytes_of(MatrixType type) { return type == MatrixType::tf32 ? 4 : 2; }

double read(const Thread& thread, MatrixType type, uint32_t address) {
  if (address + 4 > device().shared_per_block + kSharedZones)
    scheduler.fail(thread, "a product's operand lies outside of shared memory");
  const char* const from = thread.block->shared + address;
  if (type == MatrixType::tf32) {
    float value;
    std::memcpy(&value, from, sizeof value);
    if (!std::isnan(value) && (std::bit_cast<uint32_t>(value) & kBelowTf32) != 0)
      scheduler.fail(thread, "a product's operand ", value, " is not rounded to tf32");
    return double{value};
  }
  uint16_t bits;
  std::memcpy(&bits, from, sizeof bits);
  return double{type == MatrixType::bfloat16 ? to_float(bfloat16{bits}) : to_float(float16{bits})};
}

Sums& sums_of(WarpgroupPart& part, const float* d) {
  return *std::find_if(part.sums.begin(), part.sums.end(), [&](const Sums& sums) { return sums.d == d; });
}

using Parts = void* const (&)[32];

Thread& lane_of(Parts parts, int lane) { return *static_cast<Thread*>(parts[lane]); }

// Product number `index` of the warp's lanes.
void compute(Parts parts, size_t index) {
  const Thread& first = lane_of(parts, 0);
  const WarpgroupProduct what = first.warpgroup_part.products[index].what;
  const Descriptor a(what.a), b(what.b);
  const int bytes = bytes_of(what.type), depth = kBytesOfK / bytes;
  const int first_row = static_cast<int>(first.number / 32 % 4) * kWarpRows;
  static double x[kWarpRows][kMostDepth], y[kMostDepth][kMostColumns];  // one launch runs at a time
  for (int k = 0; k < depth; ++k) {
    for (int m = 0; m < kWarpRows; ++m)
      x[m][k] = read(first, what.type, a.address(what.a_along_k, bytes, first_row + m, k));
    for (int n = 0; n < what.columns; ++n)
      y[k][n] = read(first, what.type, b.address(what.b_along_k, bytes, n, k));
  }
  float* values[32];
  for (int lane = 0; lane < 32; ++lane) {
    WarpgroupPart& part = lane_of(parts, lane).warpgroup_part;
    values[lane] = sums_of(part, part.products[index].d).values.data();
    part.products[index].done = true;
  }
  for (int m = 0; m < kWarpRows; ++m) {
    double row[kMostColumns] = {};
    for (int k = 0; k < depth; ++k)
      for (int n = 0; n < what.columns; ++n) row[n] += x[m][k] * y[k][n];
    for (int n = 0; n < what.columns; ++n) {
      float& d = values[m % 8 * 4 + n % 8 / 2][n / 8 * 4 + m / 8 * 2 + n % 2];
      d = chopped(what.add ? double{d} + row[n] : row[n]);
    }
  }
}

// Computes what is pending, up to the first product of a group for which `until` holds.
template <class Until>
void compute_all(Parts parts, Until until) {
  const auto& products = lane_of(parts, 0).warpgroup_part.products;
  for (int lane = 1; lane < 32; ++lane)
    if (lane_of(parts, lane).warpgroup_part.products.size() != products.size())
      scheduler.fail(lane_of(parts, lane), "lanes of its warp have begun different products");
  for (size_t i = 0; i < products.size() && !until(products[i].group); ++i)
    if (!products[i].done) compute(parts, i);
}

void commit(Parts parts) {
  if (scheduler.random.below(2) == 0) compute_all(parts, [](uint32_t) { return false; });
  for (int lane = 0; lane < 32; ++lane) {
    WarpgroupPart& part = lane_of(parts, lane).warpgroup_part;
    ++part.groups;
    part.fenced = false;
  }
}

template <int Pending>
void finish(Parts parts) {
  const uint32_t groups = lane_of(parts, 0).warpgroup_part.groups;
  const auto under_way = [&](uint32_t group) { return group + Pending >= groups; };
  compute_all(parts, under_way);
  for (int lane = 0; lane < 32; ++lane) {
    WarpgroupPart& part = lane_of(parts, lane).warpgroup_part;
    size_t done = 0;
    for (; done < part.products.size() && !under_way(part.products[done].group); ++done) {
      Sums& sums = sums_of(part, part.products[done].d);
      if (--sums.pending == 0) std::copy(sums.values.begin(), sums.values.end(), sums.d);
    }
    part.products.erase(part.products.begin(), part.products.begin() + static_cast<ptrdiff_t>(done));
  }
}

void check_operand(const Thread& self, const Site& site, uint64_t bits, MatrixType type, bool along_k) {
  const Descriptor descriptor(bits);
  if (descriptor.swizzle != kSwizzle128 >> 62)
    scheduler.fail(self, text(site), ": the emulator knows operands with the 128-byte swizzle alone");
  if ((descriptor.start / kPattern & 7u) != descriptor.base_offset)
    scheduler.fail(self, text(site), ": the operand at ", descriptor.start,
                   " does not start where a pattern of the swizzle does, every 1024 bytes");
  if (type == MatrixType::tf32 && !along_k) scheduler.fail(self, text(site), ": a tf32 operand lies along k");
}

}  // namespace

uint64_t operand_descriptor(const Site& site, const void* shared, uint32_t leading_bytes,
                            uint32_t stride_bytes) {
  const uint32_t start = shared_address(site, shared);
  if (start % 16 != 0 || leading_bytes % 16 != 0 || stride_bytes % 16 != 0) {
    const Scheduler::Mode mode(false);
    scheduler.fail(scheduler.thread_at(site), text(site),
                   ": the operand's address or a distance is not a multiple of 16");
  }
  return kSwizzle128 | uint64_t{stride_bytes >> 4} << 32 | uint64_t{leading_bytes >> 4} << 16 | start >> 4;
}

void begin_product(const Site& site, const WarpgroupProduct& product, float* d) {
  const Scheduler::Mode mode(false);
  Thread& self = scheduler.thread_at(site);
  const uint32_t threads = blockDim.x * blockDim.y * blockDim.z;
  if (self.number / 128 * 128 + 128 > threads)
    scheduler.fail(self, text(site), ": its warpgroup has fewer than 128 threads");
  check_operand(self, site, product.a, product.type, product.a_along_k);
  check_operand(self, site, product.b, product.type, product.b_along_k);
  Warpgroup& warpgroup = self.block->warpgroups[self.number / 128];
  WarpgroupPart& part = self.warpgroup_part;
  if (part.begun == warpgroup.begun.size()) {
    if (warpgroup.exited > 0)
      scheduler.fail(self, text(site), ": other threads of its warpgroup have exited");
    warpgroup.begun.push_back(product);
  } else if (warpgroup.begun[part.begun] != product) {
    scheduler.fail(self, text(site), ": another thread of its warpgroup has begun another product");
  }
  ++part.begun;

  const auto count = static_cast<size_t>(product.columns / 2);
  auto found =
      std::find_if(part.sums.begin(), part.sums.end(), [&](const Sums& sums) { return sums.d == d; });
  const bool known = found != part.sums.end() && found->values.size() == count;
  if (known && found->pending > 0) {
    const auto* bits = reinterpret_cast<const unsigned char*>(d);
    if (!std::all_of(bits, bits + count * sizeof(float), [](unsigned char byte) { return byte == 0xFF; }))
      scheduler.fail(self, text(site), ": its sums were written while a product was under way");
  } else {
    if (!part.fenced && !(known && std::memcmp(d, found->values.data(), count * sizeof(float)) == 0))
      scheduler.fail(self, text(site), ": its sums were written, and no fence_products() since");
    if (found == part.sums.end()) found = part.sums.insert(found, Sums{d, 0, {}});
    found->values.assign(d, d + count);
    std::memset(d, 0xFF, count * sizeof(float));
  }
  ++found->pending;
  part.products.push_back({product, d, part.groups, false});
}

void fence_products(const Site& site) { scheduler.thread_at(site).warpgroup_part.fenced = true; }

void commit_products(const Site& site) {
  scheduler.warp_collective(site, &scheduler.thread_at(site), &commit);
}

void wait_products(const Site& site, int pending) {
  Thread& self = scheduler.thread_at(site);
  if (pending > 1) {
    const Scheduler::Mode mode(false);
    scheduler.fail(self, text(site), ": the emulator knows at most one pending group");
  }
  scheduler.warp_collective(site, &self, pending == 0 ? &finish<0> : &finish<1>);
}

}  // namespace fastarch::emulator
