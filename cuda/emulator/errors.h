// The last error of each host thread, with a sentence that says why.
#pragma once
#include <string>

#include "emulator/runtime.h"

namespace fastarch::emulator {

// Remembers the error and returns it.
cudaError_t set_error(cudaError_t error, const std::string& why);

// An integer from the environment, or `otherwise`.
long long environment(const char* name, long long otherwise);

}  // namespace fastarch::emulator
