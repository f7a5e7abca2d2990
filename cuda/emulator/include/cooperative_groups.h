// The part of cooperative groups that the kernels use: the grid's barrier, and clusters.
#pragma once
#include "emulator/clusters.h"
#include "emulator/device.h"

namespace cooperative_groups {

struct grid_group {
  void sync(const char* file = __builtin_FILE(), int line = __builtin_LINE()) const {
    fastarch::emulator::grid_barrier({"grid.sync", file, line});
  }
};

inline grid_group this_grid() { return {}; }

struct cluster_group {
  void sync(const char* file = __builtin_FILE(), int line = __builtin_LINE()) const {
    fastarch::emulator::cluster_barrier({"cluster.sync", file, line});
  }
  unsigned block_rank(const char* file = __builtin_FILE(), int line = __builtin_LINE()) const {
    return fastarch::emulator::cluster_rank({"cluster.block_rank", file, line});
  }
  template <class T>
  T* map_shared_rank(T* shared, int rank, const char* file = __builtin_FILE(),
                     int line = __builtin_LINE()) const {
    return static_cast<T*>(
        fastarch::emulator::map_shared_rank({"cluster.map_shared_rank", file, line}, shared, rank));
  }
};

inline cluster_group this_cluster() { return {}; }

}  // namespace cooperative_groups
