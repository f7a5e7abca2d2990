// Contract: how a matrix multiply's plan (its tile, and the number of slices of k) is chosen. By default a
// model of the time decides; where a thread wants it, the first multiply of each problem tries the plans on
// its operands, and the fastest one is remembered.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace fastarch::cuda {

struct PlanChoice {
  std::string tile;  // "64x128x8": rows, columns, depth
  int64_t slices = 1;
};

struct Trial {
  PlanChoice plan;
  double cycles;        // by the model
  double microseconds;  // the median of several runs
};

// What was learnt of one problem: operator, types, shape and what else its time depends on.
struct Tuning {
  std::string device, problem;
  PlanChoice chosen;
  double microseconds;
  std::vector<Trial> trials;  // none where the choice was made by another process
};

// Whether threads try plans: those that have not said, and this thread (-1: as those that have not said).
void set_autotune_default(bool on);
void set_autotune(int on);
bool autotune();

// Remembers a choice that another process has made; one made or remembered before stays.
void remember_plan(Tuning tuning);
void forget_plans();
std::vector<Tuning> tunings();

// Calls `body` after each choice made in this process, on the thread that made it, in the middle of an
// operator: `body` may not run another one.
void on_tuned(std::function<void(const Tuning&)> body);

// Multiplies of this thread take this plan whatever the model says, but for those whose results depend on
// more than the sums. Without a tile: no longer. One whose tile their list lacks throws
// std::invalid_argument.
void force_plan(const PlanChoice& plan);

}  // namespace fastarch::cuda
