#include "ops/conv2d.h"

#include <algorithm>
#include <utility>

#include "bindings/module.h"

using namespace fastarch;

namespace {

using Pair = std::pair<int64_t, int64_t>;  // (rows, columns)

struct Geometry {
  Pair stride, padding, dilation;
  int64_t groups;
  int algorithm;
  int layout;
};

// The problem that three operands describe: image [N, C, H, W] or, with layout 1, [N, H, W, C], filters
// [K, C/groups, R, S], output [N, K, P, Q] or [N, P, Q, K].
Conv2dShape shape_of(Operands& operands, const ArrayView& x, const char* x_name, const ArrayView& w,
                     const char* w_name, const ArrayView& y, const char* y_name, const Geometry& g) {
  const char* op = operands.op();
  operands.expect_dims(x, x_name, 4);
  operands.expect_dims(w, w_name, 4);
  operands.expect_dims(y, y_name, 4);
  constexpr int64_t kBound = int64_t{1} << 31;
  for (const Pair& pair : {g.stride, g.padding, g.dilation})
    check(pair.first < kBound && pair.second < kBound, op,
          "stride, padding and dilation are expected below 2^31");
  check(g.stride.first >= 1 && g.stride.second >= 1, op, "stride (", g.stride.first, ", ", g.stride.second,
        "), expected at least 1");
  check(g.padding.first >= 0 && g.padding.second >= 0, op, "padding (", g.padding.first, ", ",
        g.padding.second, "), expected at least 0");
  check(g.dilation.first >= 1 && g.dilation.second >= 1, op, "dilation (", g.dilation.first, ", ",
        g.dilation.second, "), expected at least 1");
  check(g.layout == 0 || g.layout == 1, op, "layout ", g.layout, ", expected 0 (NCHW) or 1 (NHWC)");
  const bool last = g.layout == 1;
  const int channels = last ? 3 : 1, rows = last ? 1 : 2, columns = last ? 2 : 3;
  const int64_t c = x.shape[channels];
  check(g.groups >= 1 && c % g.groups == 0 && w.shape[0] % g.groups == 0, op, "groups ", g.groups, " for ", c,
        " input and ", w.shape[0], " output channels, expected a divisor of both");
  check(w.shape[1] * g.groups == c, op, x_name, " has ", c, " channels, ", w_name, " expects ",
        w.shape[1] * g.groups, " (groups=", g.groups, ", layout ", last ? "NHWC" : "NCHW", ")");
  check(y.shape[0] == x.shape[0] && y.shape[channels] == w.shape[0], op, y_name, " has shape ",
        y.shape_text(), ", expected (", x.shape[0], ", ", last ? "P, Q, " : "", w.shape[0],
        last ? ")" : ", P, Q)");
  Conv2dShape shape;
  shape.n = x.shape[0], shape.c = c, shape.h = x.shape[rows], shape.w = x.shape[columns];
  shape.k = w.shape[0], shape.r = w.shape[2], shape.s = w.shape[3];
  shape.p = y.shape[rows], shape.q = y.shape[columns];
  shape.layout = last ? Layout::nhwc : Layout::nchw;
  shape.groups = g.groups;
  shape.stride_h = g.stride.first, shape.stride_w = g.stride.second;
  shape.padding_h = g.padding.first, shape.padding_w = g.padding.second;
  shape.dilation_h = g.dilation.first, shape.dilation_w = g.dilation.second;
  check(g.algorithm >= 0 && g.algorithm <= 3, op, "algorithm ", g.algorithm, ", expected 0 to 3");
  shape.algorithm = static_cast<ConvAlgorithm>(g.algorithm);
  return shape;
}

void conv2d_forward(py::handle x, py::handle weight, py::handle bias, py::handle residual, py::handle y,
                    Pair stride, Pair padding, Pair dilation, int64_t groups, int kind, int layout,
                    int precision, int algorithm, uintptr_t stream) {
  Operands operands("conv2d", kMemory, device::kHalves);
  const ArrayView vx = operands.in(x, "x"), vw = operands.in(weight, "weight"), vy = operands.out(y, "y");
  const Conv2dShape shape = shape_of(operands, vx, "x", vw, "weight", vy, "y",
                                     {stride, padding, dilation, groups, algorithm, layout});
  const ArrayView vb = operands.in_or_none(bias, "bias", {shape.k}),
                  vr = operands.in_or_none(residual, "residual",
                                           {vy.shape[0], vy.shape[1], vy.shape[2], vy.shape[3]});
  const Activation activation = activation_of("conv2d", kind);
  py::gil_scoped_release unlocked;
  device::dispatch(operands.dtype(), "conv2d", [&]<class T>() {
    device::conv2d_forward(data<T>(vx), data<T>(vw), data<T>(vb), data<T>(vr), mutable_data<T>(vy), shape,
                           activation, precision_of(operands.op(), precision), as_stream(stream));
  });
}

void conv2d_backward_input(py::handle dy, py::handle weight, py::handle dx, Pair stride, Pair padding,
                           Pair dilation, int64_t groups, int layout, int precision, int algorithm,
                           uintptr_t stream) {
  Operands operands("conv2d_backward", kMemory, device::kHalves);
  const ArrayView vdy = operands.in(dy, "dy"), vw = operands.in(weight, "weight"),
                  vdx = operands.out(dx, "dx");
  const Conv2dShape shape = shape_of(operands, vdx, "dx", vw, "weight", vdy, "dy",
                                     {stride, padding, dilation, groups, algorithm, layout});
  py::gil_scoped_release unlocked;
  device::dispatch(operands.dtype(), "conv2d_backward", [&]<class T>() {
    device::conv2d_backward_input(data<T>(vdy), data<T>(vw), mutable_data<T>(vdx), shape,
                                  precision_of(operands.op(), precision), as_stream(stream));
  });
}

void conv2d_backward_weight(py::handle dy, py::handle x, py::handle dw, py::handle db, Pair stride,
                            Pair padding, Pair dilation, int64_t groups, int layout, int precision,
                            uintptr_t stream) {
  Operands operands("conv2d_backward", kMemory, device::kHalves);
  const ArrayView vdy = operands.in(dy, "dy"), vx = operands.in(x, "x"), vdw = operands.out(dw, "dw");
  const Conv2dShape shape =
      shape_of(operands, vx, "x", vdw, "dw", vdy, "dy", {stride, padding, dilation, groups, 0, layout});
  const ArrayView vdb = operands.out_or_none(db, "db", {shape.k});
  py::gil_scoped_release unlocked;
  device::dispatch(operands.dtype(), "conv2d_backward", [&]<class T>() {
    device::conv2d_backward_weight(data<T>(vdy), data<T>(vx), mutable_data<T>(vdw), mutable_data<T>(vdb),
                                   shape, precision_of(operands.op(), precision), as_stream(stream));
  });
}

// That of a convolution whose output is pooled to [N, K, P/2, Q/2].
Conv2dShape shape_before_pooling(Operands& operands, const ArrayView& x, const char* x_name,
                                 const ArrayView& w, const char* w_name, const ArrayView& y,
                                 const char* y_name, const Geometry& g) {
  Conv2dShape shape = shape_of(operands, x, x_name, w, w_name, y, y_name, g);
  check(std::max(shape.p, shape.q) < int64_t{1} << 30, operands.op(), y_name, " has shape ", y.shape_text(),
        ", expected sizes below 2^30");
  shape.p *= 2;
  shape.q *= 2;
  return shape;
}

void expect_bytes(Operands& operands, const ArrayView& argmax) {
  if (argmax.data && argmax.dtype != DType::uint8)
    throw py::type_error(
        concat("[", operands.op(), "] argmax has dtype ", dtype_name(argmax.dtype), ", expected uint8"));
}

void conv2d_max_pool_forward(py::handle x, py::handle weight, py::handle bias, py::handle y,
                             py::handle argmax, Pair stride, Pair padding, Pair dilation, int64_t groups,
                             int kind, int precision, int algorithm, uintptr_t stream) {
  Operands operands("conv2d_max_pool", kMemory, device::kHalves);
  const ArrayView vx = operands.in(x, "x"), vw = operands.in(weight, "weight"), vy = operands.out(y, "y");
  const Conv2dShape shape = shape_before_pooling(operands, vx, "x", vw, "weight", vy, "y",
                                                 {stride, padding, dilation, groups, algorithm, 0});
  const ArrayView vb = operands.in_or_none(bias, "bias", {shape.k});
  ArrayView va;
  if (!argmax.is_none())
    va = operands.out_any(argmax, "argmax", {shape.n, shape.k, shape.p / 2, shape.q / 2});
  expect_bytes(operands, va);
  const Activation activation = activation_of("conv2d_max_pool", kind);
  py::gil_scoped_release unlocked;
  device::dispatch(operands.dtype(), "conv2d_max_pool", [&]<class T>() {
    device::conv2d_max_pool_forward(data<T>(vx), data<T>(vw), data<T>(vb), mutable_data<T>(vy),
                                    static_cast<uint8_t*>(va.data), shape, activation,
                                    precision_of(operands.op(), precision), as_stream(stream));
  });
}

void conv2d_max_pool_backward(py::handle dy, py::handle y, py::handle argmax, py::handle x, py::handle weight,
                              py::handle dx, py::handle dw, py::handle db, Pair stride, Pair padding,
                              Pair dilation, int64_t groups, int precision, int algorithm, uintptr_t stream) {
  Operands operands("conv2d_max_pool_backward", kMemory, device::kHalves);
  const ArrayView vdy = operands.in(dy, "dy"), vx = operands.in(x, "x"), vw = operands.in(weight, "weight");
  const Conv2dShape shape = shape_before_pooling(operands, vx, "x", vw, "weight", vdy, "dy",
                                                 {stride, padding, dilation, groups, algorithm, 0});
  const std::initializer_list<int64_t> pooled = {shape.n, shape.k, shape.p / 2, shape.q / 2};
  const ArrayView vy = operands.in_or_none(y, "y", pooled), va = operands.in_any(argmax, "argmax", pooled),
                  vdx = operands.out_or_none(dx, "dx", {shape.n, shape.c, shape.h, shape.w}),
                  vdw = operands.out_or_none(dw, "dw", {shape.k, shape.c / shape.groups, shape.r, shape.s}),
                  vdb = operands.out_or_none(db, "db", {shape.k});
  expect_bytes(operands, va);
  check(!vdb.data || vdw.data, operands.op(), "db without dw, expected both or dw alone");
  py::gil_scoped_release unlocked;
  device::dispatch(operands.dtype(), "conv2d_max_pool_backward", [&]<class T>() {
    device::conv2d_max_pool_backward(data<T>(vdy), data<T>(vy), static_cast<const uint8_t*>(va.data),
                                     data<T>(vx), data<T>(vw), mutable_data<T>(vdx), mutable_data<T>(vdw),
                                     mutable_data<T>(vdb), shape, precision_of(operands.op(), precision),
                                     as_stream(stream));
  });
}

}  // namespace

void bind_conv2d(py::module_& m) {
  m.def("conv2d_forward", &conv2d_forward, py::arg("x"), py::arg("weight"), py::arg("bias"),
        py::arg("residual"), py::arg("y"), py::arg("stride"), py::arg("padding"), py::arg("dilation"),
        py::arg("groups"), py::arg("kind"), py::arg("layout") = 0, py::arg("precision") = 0,
        py::arg("algorithm") = 0, py::arg("stream") = 0);
  m.def("conv2d_backward_input", &conv2d_backward_input, py::arg("dy"), py::arg("weight"), py::arg("dx"),
        py::arg("stride"), py::arg("padding"), py::arg("dilation"), py::arg("groups"), py::arg("layout") = 0,
        py::arg("precision") = 0, py::arg("algorithm") = 0, py::arg("stream") = 0);
  m.def("conv2d_backward_weight", &conv2d_backward_weight, py::arg("dy"), py::arg("x"), py::arg("dw"),
        py::arg("db"), py::arg("stride"), py::arg("padding"), py::arg("dilation"), py::arg("groups"),
        py::arg("layout") = 0, py::arg("precision") = 0, py::arg("stream") = 0);
  m.def("conv2d_max_pool_forward", &conv2d_max_pool_forward, py::arg("x"), py::arg("weight"), py::arg("bias"),
        py::arg("y"), py::arg("argmax"), py::arg("stride"), py::arg("padding"), py::arg("dilation"),
        py::arg("groups"), py::arg("kind"), py::arg("precision") = 0, py::arg("algorithm") = 0,
        py::arg("stream") = 0);
  m.def("conv2d_max_pool_backward", &conv2d_max_pool_backward, py::arg("dy"), py::arg("y"), py::arg("argmax"),
        py::arg("x"), py::arg("weight"), py::arg("dx"), py::arg("dw"), py::arg("db"), py::arg("stride"),
        py::arg("padding"), py::arg("dilation"), py::arg("groups"), py::arg("precision") = 0,
        py::arg("algorithm") = 0, py::arg("stream") = 0);
  takes_halves(m, {"conv2d_forward", "conv2d_backward_input", "conv2d_backward_weight",
                   "conv2d_max_pool_forward", "conv2d_max_pool_backward"});
}
