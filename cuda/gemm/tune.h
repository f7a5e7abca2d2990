// Choosing a multiply's plan by trial: the candidates of plan.h run on the operands of the call at hand,
// timed by events on its stream. cuda/tuning.cu keeps what was chosen.
//
// Only where running twice is running once: a result says so with
//   static constexpr bool kOverwrites = true;   store() writes where nothing of this multiply is read
// Nothing is tried while the stream is captured: there the model decides, unless the choice is known.
#pragma once
#include <array>
#include <mutex>
#include <typeinfo>

#include "core/launch.h"
#include "gemm/block.h"
#include "gemm/plan.h"
#include "ops/tuning.h"

namespace fastarch::cuda {

template <class Result>
concept Overwrites = Result::kOverwrites;

// What the time depends on besides types and shape, for the key under which a plan is remembered:
// `std::string traits() const` of a problem, and of the readers that it asks in turn; nothing where there is
// none.
template <class T>
std::string traits_of(const T& of) {
  if constexpr (requires { of.traits(); })
    return of.traits();
  else
    return {};
}

// "Forward<float>", of any type of this project.
std::string type_text(const std::type_info& type);

// The current device, driver and runtime.
std::string device_text();

// The plan that force_plan() set for this thread, or null.
const PlanChoice* forced_plan();

std::optional<PlanChoice> known_plan(const std::string& device, const std::string& problem);

// One thread tries plans at a time: others would disturb its measurement.
std::unique_lock<std::mutex> wait_for_turn();

// Remembers the choice, and then has on_tuned() called.
void keep_tuning(Tuning tuning, std::unique_lock<std::mutex> turn);

bool is_capturing(Stream stream);

// The time between marks on a stream, for which it waits.
class StreamTimer {
 public:
  static constexpr int kRuns = 5;

  explicit StreamTimer(Stream stream);
  ~StreamTimer();
  StreamTimer(const StreamTimer&) = delete;
  StreamTimer& operator=(const StreamTimer&) = delete;

  // The median of kRuns runs, in microseconds, after one that does not count. All are queued at once, so that
  // the host is ahead.
  template <class Run>
  double time(Run&& run) {
    run();
    mark(0);
    for (int i = 1; i <= kRuns; ++i) {
      run();
      mark(i);
    }
    return median();
  }

 private:
  void mark(int i);
  double median();

  Stream stream_;
  std::array<cudaEvent_t, kRuns + 1> events_{};
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;  // another thread's capture shall not be hurt
};

// Tries the plans within `kWorth` times the best estimate. A tie goes to the first.
template <class TileList, class Run>
Plan try_plans(const Shape& shape, int multiprocessors, Stream stream, Tuning& tuning, Run&& run) {
  constexpr double kWorth = 4;
  std::vector<std::string> names;
  TileList::each([&]<class Tile>() { names.push_back(tile_name<Tile>()); });
  Plan best = plan_multiply<TileList>(shape, multiprocessors);
  const double least = best.cycles;
  StreamTimer timer(stream);
  each_plan<TileList>(shape, multiprocessors, true, [&](const Plan& plan) {
    if (plan.cycles > kWorth * least || plan.blocks * plan.splits >= (int64_t{1} << 31)) return;
    const double time = timer.time([&] { run(plan); });
    tuning.trials.push_back({{names[static_cast<size_t>(plan.tile)], plan.splits}, plan.cycles, time});
    if (tuning.trials.size() > 1 && time >= tuning.microseconds) return;
    best = plan;
    tuning.chosen = tuning.trials.back().plan;
    tuning.microseconds = time;
  });
  return best;
}

// The plan for this call. `run(plan)` runs it.
template <class TileList, class Problem, class Run>
Plan choose_plan(const CallSite& name, const Problem& problem, const Shape& shape, bool row_sums,
                 Stream stream, Run&& run) {
  const int processors = multiprocessors();
  if constexpr (!kTakesTiles<Problem>) {  // else the launcher counts on the model's plan
    if (const PlanChoice* const forced = forced_plan()) {
      const auto plan = plan_named<TileList>(shape, processors, forced->tile, forced->slices);
      if (plan) return *plan;
      std::string names;
      TileList::each([&]<class Tile>() { names += (names.empty() ? "" : ", ") + tile_name<Tile>(); });
      check(false, name.name, "has no tile ", forced->tile, " here, expected one of ", names);
    }
  }
  if constexpr (Overwrites<decltype(Problem::Parts::result)>) {
    if (autotune()) {
      static const std::string kinds = type_text(typeid(Problem)) + " on " + type_text(typeid(TileList));
      Tuning tuning;
      tuning.device = device_text();
      tuning.problem = concat(name.name, ": ", kinds, ", ", shape.batches, " x ", shape.m, " x ", shape.n,
                              " x ", shape.k, row_sums ? ", row sums" : "");
      if (const std::string traits = traits_of(problem); !traits.empty()) tuning.problem += ", " + traits;
      const auto known = [&]() -> std::optional<Plan> {
        const auto plan = known_plan(tuning.device, tuning.problem);
        return plan ? plan_named<TileList>(shape, processors, plan->tile, plan->slices) : std::nullopt;
      };
      if (const auto plan = known()) return *plan;
      if (!is_capturing(stream)) {
        std::unique_lock turn = wait_for_turn();
        if (const auto plan = known()) return *plan;
        const Plan plan = try_plans<TileList>(shape, processors, stream, tuning, run);
        if (!tuning.trials.empty()) keep_tuning(std::move(tuning), std::move(turn));
        return plan;
      }
    }
  }
  return plan_multiply<TileList>(shape, processors, !kTakesTiles<Problem>);
}

}  // namespace fastarch::cuda
