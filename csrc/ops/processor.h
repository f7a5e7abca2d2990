// Contract: what the compiled CPU kernels run on.
#pragma once

namespace fastarch::cpu {

// "avx512", "avx2" or "baseline": what the processor runs, or what FASTARCH_CPU_ISA names, which must be one
// of them that it runs (std::invalid_argument).
const char* instruction_set();

}  // namespace fastarch::cpu
