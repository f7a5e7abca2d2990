#include "ops/som.h"

#include "bindings/module.h"

using namespace fastarch;

namespace {

constexpr int64_t kMostUnits = (int64_t{1} << 31) - 1;

// A codebook [m, d], with at least one unit and one feature.
void check_codebook(Operands& operands, const ArrayView& codebook) {
  operands.expect_dims(codebook, "codebook", 2);
  const int64_t m = codebook.shape[0], d = codebook.shape[1];
  check(m >= 1 && m <= kMostUnits && d >= 1 && d < kMostUnits, operands.op(), "codebook has shape ",
        codebook.shape_text(), ", expected at least one unit and feature, and at most ", kMostUnits);
}

ArrayView index_of(Operands& operands, py::handle index, int64_t rows, bool write) {
  const ArrayView view =
      write ? operands.out_any(index, "index", {rows}) : operands.in_any(index, "index", {rows});
  if (view.dtype != DType::int64)
    throw py::type_error(
        concat("[", operands.op(), "] index has dtype ", dtype_name(view.dtype), ", expected int64"));
  return view;
}

UnitGrid grid_of(const char* op, int64_t rows, int64_t columns, bool hexagonal, bool toroidal,
                 int64_t units) {
  check(rows >= 1 && columns >= 1 && rows <= kMostUnits && columns <= kMostUnits && rows * columns == units,
        op, "grid is ", rows, " x ", columns, ", expected ", units, " units");
  check(!hexagonal || !toroidal || rows % 2 == 0, op, "a toroidal hexagonal grid has ", rows,
        " rows, expected an even number");
  return {rows, columns, hexagonal, toroidal};
}

Neighborhood neighborhood_of(const char* op, int number) {
  check(number >= 0 && number <= static_cast<int>(Neighborhood::mexican_hat), op, "neighborhood is ", number,
        ", expected 0 to 3");
  return static_cast<Neighborhood>(number);
}

void som_bmu_forward(py::handle x, py::handle codebook, py::handle index, py::handle distance,
                     uintptr_t stream) {
  Operands operands("som_bmu", kMemory);
  const ArrayView vx = operands.in(x, "x"), vw = operands.in(codebook, "codebook");
  operands.expect_dims(vx, "x", 2);
  check_codebook(operands, vw);
  const int64_t n = vx.shape[0], m = vw.shape[0], d = vw.shape[1];
  check(vx.shape[1] == d, operands.op(), "x has shape ", vx.shape_text(), ", expected ", d, " features");
  const ArrayView vi = index_of(operands, index, n, true), vd = operands.out(distance, "distance", {n});
  py::gil_scoped_release unlocked;
  dispatch_float(operands.dtype(), operands.op(), [&]<class T>() {
    device::som_bmu_forward(data<T>(vx), data<T>(vw), mutable_data<int64_t>(vi), mutable_data<T>(vd), n, m, d,
                            as_stream(stream));
  });
}

void som_totals_forward(py::handle x, py::handle index, py::handle totals, uintptr_t stream) {
  Operands operands("som_totals", kMemory);
  const ArrayView vx = operands.in(x, "x"), vt = operands.out(totals, "totals");
  operands.expect_dims(vx, "x", 2);
  operands.expect_dims(vt, "totals", 2);
  const int64_t n = vx.shape[0], d = vx.shape[1], m = vt.shape[0];
  check(vt.shape[1] == d + 1 && m >= 1 && m <= kMostUnits, operands.op(), "totals has shape ",
        vt.shape_text(), ", expected (units, ", d + 1, ")");
  const ArrayView vi = index_of(operands, index, n, false);
  py::gil_scoped_release unlocked;
  dispatch_float(operands.dtype(), operands.op(), [&]<class T>() {
    device::som_totals_forward(data<T>(vx), data<int64_t>(vi), mutable_data<T>(vt), n, m, d,
                               as_stream(stream));
  });
}

void som_batch_forward(py::handle codebook, py::handle totals, py::handle y, int64_t rows, int64_t columns,
                       bool hexagonal, bool toroidal, int kind, double radius, uintptr_t stream) {
  Operands operands("som_batch_update", kMemory);
  const ArrayView vw = operands.in(codebook, "codebook");
  check_codebook(operands, vw);
  const int64_t m = vw.shape[0], d = vw.shape[1];
  const ArrayView vt = operands.in(totals, "totals", {m, d + 1}), vy = operands.out(y, "y", {m, d});
  const UnitGrid grid = grid_of(operands.op(), rows, columns, hexagonal, toroidal, m);
  const Neighborhood neighborhood = neighborhood_of(operands.op(), kind);
  check(radius > 0 && std::isfinite(radius), operands.op(), "radius is ", radius,
        ", expected a finite number above 0");
  py::gil_scoped_release unlocked;
  dispatch_float(operands.dtype(), operands.op(), [&]<class T>() {
    device::som_batch_forward(data<T>(vw), data<T>(vt), mutable_data<T>(vy), d, grid, neighborhood, radius,
                              as_stream(stream));
  });
}

void som_online_forward(py::handle x, py::handle rate, py::handle radius, py::handle y, py::handle index,
                        int64_t rows, int64_t columns, bool hexagonal, bool toroidal, int kind,
                        uintptr_t stream) {
  Operands operands("som_online_update", kMemory);
  const ArrayView vx = operands.in(x, "x"), vy = operands.out(y, "y");
  operands.expect_dims(vx, "x", 2);
  check_codebook(operands, vy);
  const int64_t n = vx.shape[0], m = vy.shape[0], d = vy.shape[1];
  check(vx.shape[1] == d, operands.op(), "x has shape ", vx.shape_text(), ", expected ", d, " features");
  const ArrayView va = operands.in(rate, "rate", {n}), vr = operands.in(radius, "radius", {n});
  const ArrayView vi = index_of(operands, index, n, true);
  const UnitGrid grid = grid_of(operands.op(), rows, columns, hexagonal, toroidal, m);
  const Neighborhood neighborhood = neighborhood_of(operands.op(), kind);
  py::gil_scoped_release unlocked;
  dispatch_float(operands.dtype(), operands.op(), [&]<class T>() {
    device::som_online_forward(data<T>(vx), data<T>(va), data<T>(vr), mutable_data<T>(vy),
                               mutable_data<int64_t>(vi), n, d, grid, neighborhood, as_stream(stream));
  });
}

void som_u_matrix_forward(py::handle codebook, py::handle y, int64_t rows, int64_t columns, bool hexagonal,
                          bool toroidal, uintptr_t stream) {
  Operands operands("som_u_matrix", kMemory);
  const ArrayView vw = operands.in(codebook, "codebook");
  check_codebook(operands, vw);
  const UnitGrid grid = grid_of(operands.op(), rows, columns, hexagonal, toroidal, vw.shape[0]);
  const ArrayView vy = operands.out(y, "y", {rows, columns});
  py::gil_scoped_release unlocked;
  dispatch_float(operands.dtype(), operands.op(), [&]<class T>() {
    device::som_u_matrix_forward(data<T>(vw), mutable_data<T>(vy), vw.shape[1], grid, as_stream(stream));
  });
}

}  // namespace

void bind_som(py::module_& m) {
  const auto stream = py::arg("stream") = 0;
  m.def("som_bmu_forward", &som_bmu_forward, py::arg("x"), py::arg("codebook"), py::arg("index"),
        py::arg("distance"), stream);
  m.def("som_totals_forward", &som_totals_forward, py::arg("x"), py::arg("index"), py::arg("totals"), stream);
  m.def("som_batch_forward", &som_batch_forward, py::arg("codebook"), py::arg("totals"), py::arg("y"),
        py::arg("rows"), py::arg("columns"), py::arg("hexagonal"), py::arg("toroidal"), py::arg("kind"),
        py::arg("radius"), stream);
  m.def("som_online_forward", &som_online_forward, py::arg("x"), py::arg("rate"), py::arg("radius"),
        py::arg("y"), py::arg("index"), py::arg("rows"), py::arg("columns"), py::arg("hexagonal"),
        py::arg("toroidal"), py::arg("kind"), stream);
  m.def("som_u_matrix_forward", &som_u_matrix_forward, py::arg("codebook"), py::arg("y"), py::arg("rows"),
        py::arg("columns"), py::arg("hexagonal"), py::arg("toroidal"), stream);
}
