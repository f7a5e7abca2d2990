#include "ops/recurrent.h"

#include <pybind11/stl.h>

#include <vector>

#include "bindings/module.h"

using namespace fastarch;

namespace {

Cell cell_of(const char* op, int number) {
  check(number >= 0 && number <= static_cast<int>(Cell::gru_reset_before), op, "cell is ", number,
        ", expected 0 to 4");
  return static_cast<Cell>(number);
}

Algorithm algorithm_of(const char* op, int number) {
  check(number >= 0 && number <= static_cast<int>(Algorithm::cluster), op, "algorithm is ", number,
        ", expected 0 to 3");
  return static_cast<Algorithm>(number);
}

// What both directions agree on: w_hh says how many units, the state how many sequences, the sizes how many
// rows.
struct Shapes {
  Recurrence recurrence;
  int64_t rows = 0, width = 0;

  Shapes(Operands& operands, const ArrayView& w_hh, const ArrayView& state, int cell,
         const std::vector<int64_t>& sizes, bool reverse) {
    const char* const op = operands.op();
    operands.expect_dims(w_hh, "w_hh", 2);
    operands.expect_dims(state, "h", 2);
    recurrence = {cell_of(op, cell), state.shape[0],        w_hh.shape[1],
                  sizes.data(),      int64_t(sizes.size()), reverse};
    width = gates_of(recurrence.cell) * recurrence.units;
    check(w_hh.shape[0] == width, op, "w_hh has shape ", w_hh.shape_text(), ", expected (", width, ", ",
          recurrence.units, ")");
    check(state.shape[1] == recurrence.units, op, "h has shape ", state.shape_text(), ", expected ",
          recurrence.units, " units");
    int64_t most = recurrence.sequences;
    for (const int64_t size : sizes) {
      check(size >= 0 && size <= most, op, "sizes holds ", size, ", expected 0 to ", most);
      most = size;
      rows += size;
    }
  }
};

// An operand that one kind of cell has and the others must not have.
ArrayView only_if(bool wanted, Operands& operands, py::handle object, const char* name, int64_t rows,
                  int64_t width, bool write) {
  check(wanted == !object.is_none(), operands.op(), name, wanted ? " is None" : " is given",
        " for this cell");
  return write ? operands.out_or_none(object, name, {rows, width})
               : operands.in_or_none(object, name, {rows, width});
}

// A state or gradient that steps hand on in the type of sums, float32 for 16-bit operands.
ArrayView wide_out(Operands& operands, py::handle object, const char* name,
                   std::initializer_list<int64_t> shape = {}) {
  const ArrayView view = operands.out_any(object, name, shape);
  const DType expected = item_size(operands.dtype()) == 2 ? DType::float32 : operands.dtype();
  check(view.dtype == expected, operands.op(), name, " has dtype ", dtype_name(view.dtype), ", expected ",
        dtype_name(expected));
  return view;
}

ArrayView wide_only_if(bool wanted, Operands& operands, py::handle object, const char* name, int64_t rows,
                       int64_t width) {
  check(wanted == !object.is_none(), operands.op(), name, wanted ? " is None" : " is given",
        " for this cell");
  return wanted ? wide_out(operands, object, name, {rows, width}) : ArrayView{};
}

bool is_gru(Cell cell) { return cell == Cell::gru || cell == Cell::gru_reset_before; }

void recurrent_forward(py::handle w_hh, py::handle b_n, py::handle gates, py::handle h, py::handle c,
                       py::handle y, py::handle extra, int cell, const std::vector<int64_t>& sizes,
                       bool reverse, int algorithm, uintptr_t stream) {
  Operands operands("recurrent_forward", kMemory, device::kHalves);
  const ArrayView vw = operands.in(w_hh, "w_hh"), vh = operands.out(h, "h");
  const Shapes shapes(operands, vw, vh, cell, sizes, reverse);
  const Recurrence& recurrence = shapes.recurrence;
  const int64_t n = recurrence.sequences, units = recurrence.units;
  const bool lstm = recurrence.cell == Cell::lstm, gru = recurrence.cell == Cell::gru;
  const ArrayView vb = operands.in_or_none(b_n, "b_n", {units});
  check(gru || !vb.data, operands.op(), "b_n is given for this cell");
  const ArrayView va = operands.out(gates, "gates", {shapes.rows, shapes.width});
  const ArrayView vc = wide_only_if(lstm, operands, c, "c", n, units);
  const ArrayView vy = operands.out(y, "y", {shapes.rows, units});
  const ArrayView ve = only_if(lstm || gru, operands, extra, "extra", shapes.rows, units, true);
  const Algorithm chosen = algorithm_of(operands.op(), algorithm);
  py::gil_scoped_release unlocked;
  device::dispatch(operands.dtype(), operands.op(), [&]<class T>() {
    device::recurrent_forward(data<T>(vw), data<T>(vb), mutable_data<T>(va), mutable_data<T>(vh),
                              mutable_data<Wide<T>>(vc), mutable_data<T>(vy), mutable_data<T>(ve), recurrence,
                              chosen, as_stream(stream));
  });
}

void recurrent_backward(py::handle w_hh, py::handle gates, py::handle dy, py::handle extra,
                        py::handle previous, py::handle dh, py::handle dc, py::handle da, py::handle da_h,
                        int cell, const std::vector<int64_t>& sizes, bool reverse, int algorithm,
                        uintptr_t stream) {
  Operands operands("recurrent_backward", kMemory, device::kHalves);
  const ArrayView vw = operands.in(w_hh, "w_hh"), vdh = wide_out(operands, dh, "dh");
  const Shapes shapes(operands, vw, vdh, cell, sizes, reverse);
  const Recurrence& recurrence = shapes.recurrence;
  const int64_t n = recurrence.sequences, units = recurrence.units, rows = shapes.rows;
  const bool lstm = recurrence.cell == Cell::lstm, gru = recurrence.cell == Cell::gru;
  const ArrayView va = operands.in(gates, "gates", {rows, shapes.width});
  const ArrayView vdy = operands.in_or_none(dy, "dy", {rows, units});
  const ArrayView ve = only_if(lstm || gru, operands, extra, "extra", rows, units, false);
  const ArrayView vp =
      only_if(lstm || is_gru(recurrence.cell), operands, previous, "previous", rows, units, false);
  const ArrayView vdc = wide_only_if(lstm, operands, dc, "dc", n, units);
  const ArrayView vda = operands.out(da, "da", {rows, shapes.width});
  const ArrayView vdah = only_if(gru, operands, da_h, "da_h", rows, shapes.width, true);
  const Algorithm chosen = algorithm_of(operands.op(), algorithm);
  py::gil_scoped_release unlocked;
  device::dispatch(operands.dtype(), operands.op(), [&]<class T>() {
    device::recurrent_backward(data<T>(vw), data<T>(va), data<T>(vdy), data<T>(ve), data<T>(vp),
                               mutable_data<Wide<T>>(vdh), mutable_data<Wide<T>>(vdc), mutable_data<T>(vda),
                               mutable_data<T>(vdah), recurrence, chosen, as_stream(stream));
  });
}

// The cell of a step alone, which has none with a product between its gates; N and H are those of `state`.
Cell gates_cell_of(Operands& operands, int number, const ArrayView& state, const char* name) {
  operands.expect_dims(state, name, 2);
  const Cell cell = cell_of(operands.op(), number);
  check(cell != Cell::gru_reset_before, operands.op(), "cell is ", number,
        ", whose second product follows its gates, expected 0 to 3");
  return cell;
}

void recurrent_gates_forward(py::handle product, py::handle b_n, py::handle h, py::handle gates, py::handle c,
                             py::handle y, py::handle extra, int cell, uintptr_t stream) {
  Operands operands("recurrent_gates_forward", kMemory);
  const ArrayView vy = operands.out(y, "y");
  const Cell kind = gates_cell_of(operands, cell, vy, "y");
  const int64_t n = vy.shape[0], units = vy.shape[1], width = gates_of(kind) * units;
  const bool lstm = kind == Cell::lstm, gru = kind == Cell::gru;
  const ArrayView vp = operands.in(product, "product", {n, width});
  const ArrayView vb = operands.in_or_none(b_n, "b_n", {units});
  check(gru || !vb.data, operands.op(), "b_n is given for this cell");
  const ArrayView vh = only_if(gru, operands, h, "h", n, units, false);
  const ArrayView va = operands.out(gates, "gates", {n, width});
  const ArrayView vc = only_if(lstm, operands, c, "c", n, units, true);
  const ArrayView ve = only_if(lstm || gru, operands, extra, "extra", n, units, true);
  py::gil_scoped_release unlocked;
  dispatch_float(operands.dtype(), operands.op(), [&]<class T>() {
    device::recurrent_gates_forward(data<T>(vp), data<T>(vb), data<T>(vh), mutable_data<T>(va),
                                    mutable_data<T>(vc), mutable_data<T>(vy), mutable_data<T>(ve), kind, n,
                                    units, as_stream(stream));
  });
}

void recurrent_gates_backward(py::handle gates, py::handle extra, py::handle previous, py::handle dh,
                              py::handle dc, py::handle da, py::handle da_h, int cell, uintptr_t stream) {
  Operands operands("recurrent_gates_backward", kMemory);
  const ArrayView vdh = operands.out(dh, "dh");
  const Cell kind = gates_cell_of(operands, cell, vdh, "dh");
  const int64_t n = vdh.shape[0], units = vdh.shape[1], width = gates_of(kind) * units;
  const bool lstm = kind == Cell::lstm, gru = kind == Cell::gru;
  const ArrayView va = operands.in(gates, "gates", {n, width});
  const ArrayView ve = only_if(lstm || gru, operands, extra, "extra", n, units, false);
  const ArrayView vp = only_if(lstm || gru, operands, previous, "previous", n, units, false);
  const ArrayView vdc = only_if(lstm, operands, dc, "dc", n, units, true);
  const ArrayView vda = operands.out(da, "da", {n, width});
  const ArrayView vdah = only_if(gru, operands, da_h, "da_h", n, width, true);
  py::gil_scoped_release unlocked;
  dispatch_float(operands.dtype(), operands.op(), [&]<class T>() {
    device::recurrent_gates_backward(data<T>(va), data<T>(ve), data<T>(vp), mutable_data<T>(vdh),
                                     mutable_data<T>(vdc), mutable_data<T>(vda), mutable_data<T>(vdah), kind,
                                     n, units, as_stream(stream));
  });
}

// A step's operands, their shapes compared: x says how many sequences and features, w_hh how many units.
class StepOperands {
 public:
  StepOperands(const char* op, py::handle x, py::handle h, py::handle c, py::handle w_ih, py::handle w_hh,
               py::handle b_ih, py::handle b_hh, int cell)
      : operands(op, kMemory, device::kHalves) {
    x_ = operands.in(x, "x");
    w_hh_ = operands.in(w_hh, "w_hh");
    operands.expect_dims(x_, "x", 2);
    operands.expect_dims(w_hh_, "w_hh", 2);
    check(cell >= 0 && cell <= static_cast<int>(Cell::gru), op, "cell is ", cell, ", expected 0 to 3");
    kind = static_cast<Cell>(cell);
    n = x_.shape[0];
    features = x_.shape[1];
    units = w_hh_.shape[1];
    width = gates_of(kind) * units;
    check(w_hh_.shape[0] == width, op, "w_hh has shape ", w_hh_.shape_text(), ", expected (", width, ", ",
          units, ")");
    w_ih_ = operands.in(w_ih, "w_ih", {width, features});
    h_ = operands.in_or_none(h, "h", {n, units});
    check(lstm() || c.is_none(), op, "c is given for this cell");
    c_ = operands.in_or_none(c, "c", {n, units});
    b_ih_ = operands.in_or_none(b_ih, "b_ih", {width});
    b_hh_ = operands.in_or_none(b_hh, "b_hh", {width});
  }

  bool lstm() const { return kind == Cell::lstm; }
  bool gru() const { return kind == Cell::gru; }
  bool gated() const { return lstm() || gru(); }

  // An array [N, columns] that this cell overwrites, or must not have.
  ArrayView out_if(bool wanted, py::handle object, const char* name, int64_t columns) {
    check(wanted == !object.is_none(), operands.op(), name, wanted ? " is None" : " is given",
          " for this cell");
    return operands.out_or_none(object, name, {n, columns});
  }

  template <class T>
  CellStep<T> step() const {
    return {kind,          n,           features,       units,          data<T>(x_),
            data<T>(h_),   data<T>(c_), data<T>(w_ih_), data<T>(w_hh_), data<T>(b_ih_),
            data<T>(b_hh_)};
  }

  Operands operands;
  Cell kind;
  int64_t n, features, units, width;

 private:
  ArrayView x_, h_, c_, w_ih_, w_hh_, b_ih_, b_hh_;
};

void recurrent_cell_forward(py::handle x, py::handle h, py::handle c, py::handle w_ih, py::handle w_hh,
                            py::handle b_ih, py::handle b_hh, py::handle y, py::handle c_next,
                            py::handle gates, py::handle extra, int cell, uintptr_t stream) {
  StepOperands of("recurrent_cell_forward", x, h, c, w_ih, w_hh, b_ih, b_hh, cell);
  const ArrayView vy = of.operands.out(y, "y", {of.n, of.units});
  const ArrayView vc = of.out_if(of.lstm(), c_next, "c_next", of.units);
  const ArrayView vg = of.operands.out_or_none(gates, "gates", {of.n, of.width});
  check(!vg.data || of.gated(), of.operands.op(), "gates is given for this cell");
  const ArrayView ve = of.out_if(vg.data && of.gru(), extra, "extra", of.units);
  py::gil_scoped_release unlocked;
  device::dispatch(of.operands.dtype(), of.operands.op(), [&]<class T>() {
    device::recurrent_cell_forward(of.step<T>(), mutable_data<T>(vy), mutable_data<T>(vc),
                                   mutable_data<T>(vg), mutable_data<T>(ve), as_stream(stream));
  });
}

void recurrent_cell_backward(py::handle x, py::handle h, py::handle c, py::handle w_ih, py::handle w_hh,
                             py::handle b_ih, py::handle b_hh, py::handle gates, py::handle extra,
                             py::handle dh, py::handle dc, py::handle da, py::handle da_h,
                             py::handle dh_before, py::handle dc_before, int cell, uintptr_t stream) {
  StepOperands of("recurrent_cell_backward", x, h, c, w_ih, w_hh, b_ih, b_hh, cell);
  const ArrayView vg = of.operands.in_or_none(gates, "gates", {of.n, of.width});
  const bool kept = vg.data && of.gru();
  check(kept == !extra.is_none(), of.operands.op(), "extra", kept ? " is None" : " is given",
        " for this cell");
  const ArrayView ve = of.operands.in_or_none(extra, "extra", {of.n, of.units});
  const ArrayView vdh = of.operands.in_or_none(dh, "dh", {of.n, of.units});
  check(of.lstm() || (dc.is_none() && dc_before.is_none()), of.operands.op(),
        "dc or dc_before is given for this cell");
  const ArrayView vdc = of.operands.in_or_none(dc, "dc", {of.n, of.units});
  const ArrayView vda = of.operands.out(da, "da", {of.n, of.width});
  const ArrayView vdah = of.out_if(of.gru(), da_h, "da_h", of.width);
  const ArrayView vh = of.operands.out_or_none(dh_before, "dh_before", {of.n, of.units});
  const ArrayView vc = of.operands.out_or_none(dc_before, "dc_before", {of.n, of.units});
  py::gil_scoped_release unlocked;
  device::dispatch(of.operands.dtype(), of.operands.op(), [&]<class T>() {
    device::recurrent_cell_backward(of.step<T>(), data<T>(vg), data<T>(ve), data<T>(vdh), data<T>(vdc),
                                    mutable_data<T>(vda), mutable_data<T>(vdah), mutable_data<T>(vh),
                                    mutable_data<T>(vc), as_stream(stream));
  });
}

}  // namespace

void bind_recurrent(py::module_& m) {
  const auto stream = py::arg("stream") = 0;
  m.def("recurrent_forward", &recurrent_forward, py::arg("w_hh"), py::arg("b_n").none(true), py::arg("gates"),
        py::arg("h"), py::arg("c").none(true), py::arg("y"), py::arg("extra").none(true), py::arg("cell"),
        py::arg("sizes"), py::arg("reverse"), py::arg("algorithm"), stream);
  m.def("recurrent_backward", &recurrent_backward, py::arg("w_hh"), py::arg("gates"),
        py::arg("dy").none(true), py::arg("extra").none(true), py::arg("previous").none(true), py::arg("dh"),
        py::arg("dc").none(true), py::arg("da"), py::arg("da_h").none(true), py::arg("cell"),
        py::arg("sizes"), py::arg("reverse"), py::arg("algorithm"), stream);
  m.def("recurrent_gates_forward", &recurrent_gates_forward, py::arg("product"), py::arg("b_n").none(true),
        py::arg("h").none(true), py::arg("gates"), py::arg("c").none(true), py::arg("y"),
        py::arg("extra").none(true), py::arg("cell"), stream);
  m.def("recurrent_gates_backward", &recurrent_gates_backward, py::arg("gates"), py::arg("extra").none(true),
        py::arg("previous").none(true), py::arg("dh"), py::arg("dc").none(true), py::arg("da"),
        py::arg("da_h").none(true), py::arg("cell"), stream);
  m.def("recurrent_cell_forward", &recurrent_cell_forward, py::arg("x"), py::arg("h").none(true),
        py::arg("c").none(true), py::arg("w_ih"), py::arg("w_hh"), py::arg("b_ih").none(true),
        py::arg("b_hh").none(true), py::arg("y"), py::arg("c_next").none(true), py::arg("gates").none(true),
        py::arg("extra").none(true), py::arg("cell"), stream);
  m.def("recurrent_cell_backward", &recurrent_cell_backward, py::arg("x"), py::arg("h").none(true),
        py::arg("c").none(true), py::arg("w_ih"), py::arg("w_hh"), py::arg("b_ih").none(true),
        py::arg("b_hh").none(true), py::arg("gates").none(true), py::arg("extra").none(true),
        py::arg("dh").none(true), py::arg("dc").none(true), py::arg("da"), py::arg("da_h").none(true),
        py::arg("dh_before").none(true), py::arg("dc_before").none(true), py::arg("cell"), stream);
  m.def("recurrent_takes_halves", &device::recurrent_takes_halves);
  takes_halves(
      m, {"recurrent_forward", "recurrent_backward", "recurrent_cell_forward", "recurrent_cell_backward"});
}
