// Which table of inner loops runs: asked of the processor once.
#include <cstdlib>
#include <iterator>
#include <string_view>

#include "core/check.h"
#include "cpu/kernels.h"
#include "ops/processor.h"

namespace fastarch::cpu {

#define FASTARCH_TABLES(isa)                                \
  extern const Kernels<float>* const float_kernels_##isa;   \
  extern const Kernels<double>* const double_kernels_##isa; \
  extern const Samplers<float>* const float_samplers_##isa; \
  extern const Samplers<double>* const double_samplers_##isa;
#define FASTARCH_SET(isa) \
  float_kernels_##isa, double_kernels_##isa, float_samplers_##isa, double_samplers_##isa
FASTARCH_TABLES(baseline)
#if defined(FASTARCH_X86_SETS)
FASTARCH_TABLES(avx2)
FASTARCH_TABLES(avx512)
#endif

namespace {

struct Set {
  const char* name;
  bool (*runs)();
  const Kernels<float>* of_float;
  const Kernels<double>* of_double;
  const Samplers<float>* float_samplers;
  const Samplers<double>* double_samplers;
};

const Set& chosen() {
  static const Set& set = []() -> const Set& {
    // The best first.
    static const Set sets[] = {
#if defined(FASTARCH_X86_SETS)
        {"avx512",
         [] {
           return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
         },
         FASTARCH_SET(avx512)},
        {"avx2", [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); },
         FASTARCH_SET(avx2)},
#endif
        {"baseline", [] { return true; }, FASTARCH_SET(baseline)},
    };
    const char* wanted = std::getenv("FASTARCH_CPU_ISA");
    for (const Set& candidate : sets) {
      if (wanted && std::string_view(wanted) != candidate.name) continue;
      if (candidate.runs()) return candidate;
      check(!wanted, "cpu", "FASTARCH_CPU_ISA is ", candidate.name, ", which this processor does not run");
    }
    check(false, "cpu", "FASTARCH_CPU_ISA is ", wanted, ", expected baseline, avx2 or avx512");
    return sets[std::size(sets) - 1];
  }();
  return set;
}

}  // namespace

template <>
const Kernels<float>& kernels<float>() {
  return *chosen().of_float;
}

template <>
const Kernels<double>& kernels<double>() {
  return *chosen().of_double;
}

template <>
const Samplers<float>& samplers<float>() {
  return *chosen().float_samplers;
}

template <>
const Samplers<double>& samplers<double>() {
  return *chosen().double_samplers;
}

const char* instruction_set() { return chosen().name; }

}  // namespace fastarch::cpu
