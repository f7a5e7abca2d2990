#include "ops/tuning.h"

#include "bindings/module.h"

using namespace fastarch;

namespace {

py::dict as_dict(const device::Tuning& tuning) {
  const auto number = [](double value) { return py::float_(value); };
  py::list trials;
  for (const device::Trial& trial : tuning.trials) {
    py::dict one;
    one["tile"] = trial.plan.tile;
    one["slices"] = trial.plan.slices;
    one["model_cycles"] = number(trial.cycles);
    one["microseconds"] = number(trial.microseconds);
    trials.append(one);
  }
  py::dict out;
  out["device"] = tuning.device;
  out["problem"] = tuning.problem;
  out["tile"] = tuning.chosen.tile;
  out["slices"] = tuning.chosen.slices;
  out["microseconds"] = number(tuning.microseconds);
  out["trials"] = trials;
  return out;
}

}  // namespace

void bind_tuning(py::module_& m) {
  m.def("set_autotune_default", &device::set_autotune_default, py::arg("on"),
        "Whether threads that have not said otherwise choose the multiply's plans by trial.");
  m.def("set_autotune", &device::set_autotune, py::arg("on"),
        "The same for this thread: 1, 0, or -1 for as by default.");
  m.def(
      "remember_plan",
      [](const std::string& device, const std::string& problem, const std::string& tile, int64_t slices,
         double microseconds) { device::remember_plan({device, problem, {tile, slices}, microseconds, {}}); },
      py::arg("device"), py::arg("problem"), py::arg("tile"), py::arg("slices"), py::arg("microseconds"),
      "Remembers a choice that another process has made.");
  m.def("forget_plans", &device::forget_plans, "Forgets every choice.");
  m.def(
      "tunings",
      [] {
        py::list out;
        for (const device::Tuning& tuning : device::tunings()) out.append(as_dict(tuning));
        return out;
      },
      "Every choice that is known, and the trials behind those of this process.");
  m.def(
      "on_tuned",
      [](const py::function& body) {
        auto* const held = new py::function(body);  // for good: threads may outlive the interpreter
        device::on_tuned([held](const device::Tuning& tuning) {
          const py::gil_scoped_acquire locked;
          (*held)(as_dict(tuning));
        });
      },
      py::arg("body"), "Calls body(choice) after each choice made from now on; it may not run an operator.");
  m.def(
      "force_plan", [](const std::string& tile, int64_t slices) { device::force_plan({tile, slices}); },
      py::arg("tile"), py::arg("slices"),
      "The plan of this thread's multiplies, whatever the model says; \"\" for no longer.");
}
