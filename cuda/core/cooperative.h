// The barrier of all threads of a grid, for kernels started by launch_cooperative().
#pragma once
#include <cooperative_groups.h>

#include "core/launch.h"

namespace fastarch::cuda {

__device__ __forceinline__ void grid_sync() { cooperative_groups::this_grid().sync(); }

}  // namespace fastarch::cuda
