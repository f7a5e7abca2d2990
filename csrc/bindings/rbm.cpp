#include "ops/rbm.h"

#include "bindings/module.h"

using namespace fastarch;

namespace {

Unit unit_of(const char* op, const char* name, int kind, int64_t group, int64_t units) {
  check(kind >= 0 && kind <= 3, op, name, " is ", kind,
        ", expected 0 (bernoulli), 1 (gaussian), 2 (relu) or 3 (softmax)");
  check(group >= 1 && units % group == 0, op, "group is ", group, ", expected a divisor of ", units);
  return static_cast<Unit>(kind);
}

void check_step(const char* op, int64_t step) {
  check(step >= 0 && step < (int64_t{1} << 21), op, "step is ", step, ", expected 0 to 2^21 - 1");
}

// A mask of bytes that may be None.
ArrayView mask_of(Operands& operands, py::handle object, const char* name,
                  std::initializer_list<int64_t> shape) {
  if (object.is_none()) return {};
  const ArrayView view = operands.in_any(object, name, shape);
  if (view.dtype != DType::uint8)
    throw py::type_error(
        concat("[", operands.op(), "] ", name, " has dtype ", dtype_name(view.dtype), ", expected uint8"));
  return view;
}

// The rows of a matrix whose columns are given.
int64_t rows_of(Operands& operands, const ArrayView& view, const char* name, int64_t columns) {
  operands.expect_dims(view, name, 2);
  check(view.shape[1] == columns, operands.op(), name, " has shape ", view.shape_text(), ", expected ",
        columns, " columns");
  return view.shape[0];
}

void half_step(py::handle x, py::handle w, py::handle bias, py::handle sigma, py::handle clamp,
               py::handle held, py::handle mean, py::handle sample, bool down, int unit, int64_t group,
               uint64_t seed, uint64_t offset, int64_t step, uintptr_t stream) {
  const char* op = "rbm_half_step";
  Operands operands(op, kMemory);
  const ArrayView vx = operands.in(x, "x"), vw = operands.in(w, "w");
  operands.expect_dims(vw, "w", 2);
  const int64_t v = vw.shape[0], h = vw.shape[1], units = down ? v : h;
  const int64_t rows = rows_of(operands, vx, "x", down ? h : v);
  const ArrayView vb = operands.in(bias, "bias", {units}), vs = operands.in_or_none(sigma, "sigma", {units}),
                  vm = operands.out_or_none(mean, "mean", {rows, units}),
                  vy = operands.out_or_none(sample, "sample", {rows, units}),
                  vc = mask_of(operands, clamp, "clamp", {rows, units}),
                  vh = operands.in_or_none(held, "held", {rows, units});
  check(!vc.data || vh.data, op, "clamp is given, held is None");
  const Unit kind = unit_of(op, "unit", unit, group, units);
  check_step(op, step);
  py::gil_scoped_release unlocked;
  dispatch_float(operands.dtype(), op, [&]<class T>() {
    device::rbm_half_step<T>(data<T>(vx), data<T>(vw), {kind, data<T>(vb), data<T>(vs), group},
                             {data<uint8_t>(vc), data<T>(vh)}, mutable_data<T>(vm), mutable_data<T>(vy), rows,
                             v, h, down, {seed, offset, step}, as_stream(stream));
  });
}

void phases(py::handle v, py::handle w, py::handle w_up, py::handle b_visible, py::handle b_hidden,
            py::handle chain, py::handle sigma, py::handle clamp, py::handle h0, py::handle vk, py::handle hk,
            int64_t k, int visible, int hidden, int64_t group, uint64_t seed, uint64_t offset,
            uintptr_t stream) {
  const char* op = "rbm_phases";
  Operands operands(op, kMemory);
  const ArrayView vv = operands.in(v, "v"), vw = operands.in(w, "w");
  operands.expect_dims(vw, "w", 2);
  const int64_t n = vw.shape[0], m = vw.shape[1], rows = rows_of(operands, vv, "v", n);
  const ArrayView up = operands.in(w_up, "w_up", {n, m}), bv = operands.in(b_visible, "b_visible", {n}),
                  bh = operands.in(b_hidden, "b_hidden", {m}), vs = operands.in_or_none(chain, "chain"),
                  sg = operands.in_or_none(sigma, "sigma", {n});
  const int64_t chains = chain.is_none() ? rows : rows_of(operands, vs, "chain", n);
  const ArrayView vc = mask_of(operands, clamp, "clamp", {chains, n}), o0 = operands.out(h0, "h0", {rows, m}),
                  o1 = operands.out(vk, "vk", {chains, n}), o2 = operands.out(hk, "hk", {chains, m});
  const Unit seen = unit_of(op, "visible", visible, group, n), unseen = unit_of(op, "hidden", hidden, 1, m);
  check(unseen != Unit::softmax, op, "hidden is 3 (softmax), expected 0, 1 or 2");
  check(k >= 1, op, "k is ", k, ", expected at least 1");
  check_step(op, k < (int64_t{1} << 22) ? 2 * k : k);
  check(vs.data != o1.data || chains * n == 0 || chain.is_none(), op, "vk is the memory of chain");
  py::gil_scoped_release unlocked;
  dispatch_float(operands.dtype(), op, [&]<class T>() {
    const Machine<T> machine{data<T>(vw),
                             data<T>(up),
                             {seen, data<T>(bv), data<T>(sg), group},
                             {unseen, data<T>(bh), nullptr, 1},
                             n,
                             m};
    device::rbm_phases<T>(data<T>(vv), vs.data ? data<T>(vs) : data<T>(vv), machine, data<uint8_t>(vc),
                          mutable_data<T>(o0), mutable_data<T>(o1), mutable_data<T>(o2), rows, chains, k,
                          {seed, offset, 0}, as_stream(stream));
  });
}

// The statistics of both phases, as views.
struct Phases {
  ArrayView data, h0, chain, hk;
  int64_t rows, chains, v, h;

  Phases(Operands& operands, py::handle data_, py::handle h0_, py::handle vk, py::handle hk_)
      : data(operands.in(data_, "v")), h0(operands.in(h0_, "h0")), chain(operands.in(vk, "vk")) {
    operands.expect_dims(data, "v", 2);
    rows = data.shape[0];
    v = data.shape[1];
    operands.expect_dims(h0, "h0", 2);
    h = h0.shape[1];
    check(h0.shape[0] == rows, operands.op(), "h0 has shape ", h0.shape_text(), ", v has ", rows, " rows");
    chains = rows_of(operands, chain, "vk", v);
    hk = operands.in(hk_, "hk", {chains, h});
    check(rows >= 1 && chains >= 1, operands.op(), "there are ", rows, " rows and ", chains,
          " chains, expected at least one of each");
  }

  template <class T>
  Statistics<T> statistics() const {
    return {fastarch::data<T>(data),
            fastarch::data<T>(h0),
            fastarch::data<T>(chain),
            fastarch::data<T>(hk),
            rows,
            chains,
            v,
            h};
  }
};

void gradient(py::handle v, py::handle h0, py::handle vk, py::handle hk, py::handle dw, py::handle dbv,
              py::handle dbh, uintptr_t stream) {
  Operands operands("rbm_gradient", kMemory);
  const Phases phases(operands, v, h0, vk, hk);
  const ArrayView ow = operands.out(dw, "dw", {phases.v, phases.h}),
                  ov = operands.out(dbv, "dbv", {phases.v}), oh = operands.out(dbh, "dbh", {phases.h});
  py::gil_scoped_release unlocked;
  dispatch_float(operands.dtype(), operands.op(), [&]<class T>() {
    device::rbm_gradient<T>(phases.statistics<T>(), mutable_data<T>(ow), mutable_data<T>(ov),
                            mutable_data<T>(oh), as_stream(stream));
  });
}

void update(py::handle v, py::handle h0, py::handle vk, py::handle hk, py::handle precision, py::handle w,
            py::handle b_visible, py::handle b_hidden, py::handle velocity_w, py::handle velocity_bv,
            py::handle velocity_bh, double rate, double momentum, double decay, uintptr_t stream) {
  Operands operands("rbm_update", kMemory);
  const Phases phases(operands, v, h0, vk, hk);
  const int64_t n = phases.v, m = phases.h;
  const ArrayView vp = operands.in_or_none(precision, "precision", {n}), ow = operands.out(w, "w", {n, m}),
                  obv = operands.out(b_visible, "b_visible", {n}),
                  obh = operands.out(b_hidden, "b_hidden", {m}),
                  uw = operands.out(velocity_w, "velocity_w", {n, m}),
                  ubv = operands.out(velocity_bv, "velocity_bv", {n}),
                  ubh = operands.out(velocity_bh, "velocity_bh", {m});
  py::gil_scoped_release unlocked;
  dispatch_float(operands.dtype(), operands.op(), [&]<class T>() {
    const Learner<T> learner{mutable_data<T>(ow),  mutable_data<T>(obv), mutable_data<T>(obh),
                             mutable_data<T>(uw),  mutable_data<T>(ubv), mutable_data<T>(ubh),
                             data<T>(vp),          static_cast<T>(rate), static_cast<T>(momentum),
                             static_cast<T>(decay)};
    device::rbm_update<T>(phases.statistics<T>(), learner, as_stream(stream));
  });
}

void free_energy(py::handle v, py::handle w, py::handle b_visible, py::handle b_hidden, py::handle sigma,
                 py::handle energy, int visible, int hidden, uintptr_t stream) {
  const char* op = "rbm_free_energy";
  Operands operands(op, kMemory);
  const ArrayView vv = operands.in(v, "v"), vw = operands.in(w, "w");
  operands.expect_dims(vw, "w", 2);
  const int64_t n = vw.shape[0], m = vw.shape[1], rows = rows_of(operands, vv, "v", n);
  const ArrayView bv = operands.in(b_visible, "b_visible", {n}), bh = operands.in(b_hidden, "b_hidden", {m}),
                  vs = operands.in_or_none(sigma, "sigma", {n}), oe = operands.out(energy, "energy", {rows});
  const Unit seen = unit_of(op, "visible", visible, 1, n), unseen = unit_of(op, "hidden", hidden, 1, m);
  check(unseen != Unit::softmax, op, "hidden is 3 (softmax), expected 0, 1 or 2");
  py::gil_scoped_release unlocked;
  dispatch_float(operands.dtype(), op, [&]<class T>() {
    const Machine<T> machine{data<T>(vw),
                             data<T>(vw),
                             {seen, data<T>(bv), data<T>(vs), 1},
                             {unseen, data<T>(bh), nullptr, 1},
                             n,
                             m};
    device::rbm_free_energy<T>(data<T>(vv), machine, mutable_data<T>(oe), rows, as_stream(stream));
  });
}

}  // namespace

void bind_rbm(py::module_& m) {
  m.def("rbm_half_step", &half_step, py::arg("x"), py::arg("w"), py::arg("bias"), py::arg("sigma"),
        py::arg("clamp"), py::arg("held"), py::arg("mean"), py::arg("sample"), py::arg("down"),
        py::arg("unit"), py::arg("group"), py::arg("seed"), py::arg("offset"), py::arg("step"),
        py::arg("stream") = 0);
  m.def("rbm_phases", &phases, py::arg("v"), py::arg("w"), py::arg("w_up"), py::arg("b_visible"),
        py::arg("b_hidden"), py::arg("chain"), py::arg("sigma"), py::arg("clamp"), py::arg("h0"),
        py::arg("vk"), py::arg("hk"), py::arg("k"), py::arg("visible"), py::arg("hidden"), py::arg("group"),
        py::arg("seed"), py::arg("offset"), py::arg("stream") = 0);
  m.def("rbm_gradient", &gradient, py::arg("v"), py::arg("h0"), py::arg("vk"), py::arg("hk"), py::arg("dw"),
        py::arg("dbv"), py::arg("dbh"), py::arg("stream") = 0);
  m.def("rbm_update", &update, py::arg("v"), py::arg("h0"), py::arg("vk"), py::arg("hk"),
        py::arg("precision"), py::arg("w"), py::arg("b_visible"), py::arg("b_hidden"), py::arg("velocity_w"),
        py::arg("velocity_bv"), py::arg("velocity_bh"), py::arg("rate"), py::arg("momentum"),
        py::arg("decay"), py::arg("stream") = 0);
  m.def("rbm_free_energy", &free_energy, py::arg("v"), py::arg("w"), py::arg("b_visible"),
        py::arg("b_hidden"), py::arg("sigma"), py::arg("energy"), py::arg("visible"), py::arg("hidden"),
        py::arg("stream") = 0);
}
