// Takes the place of the CUDA runtime's header when kernels are compiled for the host.
#pragma once
#define FASTARCH_EMULATOR 1

#include "emulator/types.h"
// The order matters: device.h needs the vector types, runtime.h the launch types.
#include "emulator/device.h"
#include "emulator/math.h"
#include "emulator/matrix.h"
#include "emulator/runtime.h"
