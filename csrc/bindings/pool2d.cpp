#include "ops/pool2d.h"

#include <algorithm>
#include <utility>

#include "bindings/module.h"

using namespace fastarch;

namespace {

using Pair = std::pair<int64_t, int64_t>;  // (rows, columns)

// Kernels count the coordinates of one axis in 32 bits; this bound keeps every sum and product of theirs
// inside.
PoolAxis axis_of(const char* op, int64_t input, int64_t output, int64_t kernel, int64_t stride,
                 int64_t padding, int64_t dilation) {
  constexpr int64_t kBound = int64_t{1} << 29;
  check(kernel >= 1 && stride >= 1 && padding >= 0 && dilation >= 1, op, "kernel ", kernel, ", stride ",
        stride, ", padding ", padding, ", dilation ", dilation,
        ", expected kernel, stride, dilation >= 1 and padding >= 0");
  const auto small = [](int64_t a) { return a < kBound; };
  check(small(input) && small(output) && small(kernel) && small(stride) && small(padding) &&
            small(dilation) && small(output * stride) && small(kernel * dilation),
        op, "extent ", input, ", kernel ", kernel, ", stride ", stride, ", padding ", padding, ", dilation ",
        dilation, ", expected windows and extents below 2^29 elements");
  return {int(input), int(output), int(kernel), int(stride), int(padding), int(dilation)};
}

// Of an image and what it is pooled to, [N, C, H, W] or, with the channels last, [N, H, W, C].
struct Extents {
  int64_t planes, inner;
  Pair large, small;  // (height, width)
};

// x is the larger side (input or its gradient), y the pooled side.
Extents extents_of(Operands& operands, const ArrayView& x, const char* x_name, const ArrayView& y,
                   const char* y_name, bool channels_last) {
  operands.expect_dims(x, x_name, 4);
  operands.expect_dims(y, y_name, 4);
  const int rows = channels_last ? 1 : 2, channels = channels_last ? 3 : 1;
  check(x.shape[0] == y.shape[0] && x.shape[channels] == y.shape[channels], operands.op(), x_name,
        " has shape ", x.shape_text(), ", ", y_name, " ", y.shape_text(),
        ", expected equal numbers of images and channels");
  return {channels_last ? x.shape[0] : x.shape[0] * x.shape[1],
          channels_last ? x.shape[3] : 1,
          {x.shape[rows], x.shape[rows + 1]},
          {y.shape[rows], y.shape[rows + 1]}};
}

Pool2d pool_of(Operands& operands, const ArrayView& x, const char* x_name, const ArrayView& y,
               const char* y_name, Pair kernel, Pair stride, Pair padding, Pair dilation,
               bool channels_last) {
  const Extents e = extents_of(operands, x, x_name, y, y_name, channels_last);
  return {e.planes,
          axis_of(operands.op(), e.large.first, e.small.first, kernel.first, stride.first, padding.first,
                  dilation.first),
          axis_of(operands.op(), e.large.second, e.small.second, kernel.second, stride.second, padding.second,
                  dilation.second),
          e.inner};
}

AdaptivePool2d adaptive_of(Operands& operands, const ArrayView& x, const char* x_name, const ArrayView& y,
                           const char* y_name, bool channels_last) {
  const Extents e = extents_of(operands, x, x_name, y, y_name, channels_last);
  constexpr int64_t kBound = int64_t{1} << 29;
  for (const int64_t extent : {e.large.first, e.large.second, e.small.first, e.small.second})
    check(extent < kBound, operands.op(), x_name, " has shape ", x.shape_text(), ", ", y_name, " ",
          y.shape_text(), ", expected extents below 2^29");
  return {e.planes,           int(e.large.first),  int(e.large.second),
          int(e.small.first), int(e.small.second), e.inner};
}

// Runs body<A>() with the element type of argmax: uint8 while every offset in a window of at most `area`
// elements fits, int32 always.
template <class Body>
void dispatch_argmax(Operands& operands, const ArrayView& argmax, int64_t area, Body&& body) {
  const DType expected = area <= 256 ? DType::uint8 : DType::int32;
  check(area < (int64_t{1} << 31), operands.op(), "kernel has ", area, " elements, expected fewer than 2^31");
  if (argmax.data && argmax.dtype != expected)
    throw py::type_error(concat("[", operands.op(), "] argmax has dtype ", dtype_name(argmax.dtype),
                                ", expected ", dtype_name(expected), " for a window of ", area, " elements"));
  if (expected == DType::uint8) return body.template operator()<uint8_t>();
  body.template operator()<int32_t>();
}

int64_t area_of(const Pool2d& pool) { return int64_t{pool.rows.kernel} * pool.columns.kernel; }

// The most inputs that a bin can have along one axis.
int64_t widest_bin(int64_t input, int64_t output) {
  return output == 0 ? 0 : input % output == 0 ? input / output : std::min(input / output + 2, input);
}

int64_t area_of(const AdaptivePool2d& pool) {
  return widest_bin(pool.height, pool.out_height) * widest_bin(pool.width, pool.out_width);
}

void expect_same_shape(Operands& operands, const ArrayView& a, const char* a_name, const ArrayView& b,
                       const char* b_name) {
  bool same = a.ndim == b.ndim;
  for (int i = 0; same && i < a.ndim; ++i) same = a.shape[i] == b.shape[i];
  check(same, operands.op(), a_name, " has shape ", a.shape_text(), ", expected ", b_name, "'s ",
        b.shape_text());
}

void max_pool2d_forward(py::handle x, py::handle y, py::handle argmax, Pair kernel, Pair stride, Pair padding,
                        Pair dilation, bool channels_last, uintptr_t stream) {
  Operands operands("max_pool2d", kMemory, device::kHalves);
  const ArrayView vx = operands.in(x, "x"), vy = operands.out(y, "y");
  const ArrayView va = argmax.is_none() ? ArrayView{} : operands.out_any(argmax, "argmax");
  if (!argmax.is_none()) expect_same_shape(operands, va, "argmax", vy, "y");
  const Pool2d pool = pool_of(operands, vx, "x", vy, "y", kernel, stride, padding, dilation, channels_last);
  dispatch_argmax(operands, va, area_of(pool), [&]<class A>() {
    py::gil_scoped_release unlocked;
    device::dispatch(operands.dtype(), operands.op(), [&]<class T>() {
      device::max_pool2d_forward(data<T>(vx), mutable_data<T>(vy), mutable_data<A>(va), pool,
                                 as_stream(stream));
    });
  });
}

void max_pool2d_backward(py::handle dy, py::handle argmax, py::handle dx, Pair kernel, Pair stride,
                         Pair padding, Pair dilation, bool channels_last, uintptr_t stream) {
  Operands operands("max_pool2d_backward", kMemory, device::kHalves);
  const ArrayView vdy = operands.in(dy, "dy"), va = operands.in_any(argmax, "argmax"),
                  vdx = operands.out(dx, "dx");
  expect_same_shape(operands, va, "argmax", vdy, "dy");
  const Pool2d pool =
      pool_of(operands, vdx, "dx", vdy, "dy", kernel, stride, padding, dilation, channels_last);
  dispatch_argmax(operands, va, area_of(pool), [&]<class A>() {
    py::gil_scoped_release unlocked;
    device::dispatch(operands.dtype(), operands.op(), [&]<class T>() {
      device::max_pool2d_backward(data<T>(vdy), data<A>(va), mutable_data<T>(vdx), pool, as_stream(stream));
    });
  });
}

void adaptive_max_pool2d_forward(py::handle x, py::handle y, py::handle argmax, bool channels_last,
                                 uintptr_t stream) {
  Operands operands("adaptive_max_pool2d", kMemory, device::kHalves);
  const ArrayView vx = operands.in(x, "x"), vy = operands.out(y, "y");
  const ArrayView va = argmax.is_none() ? ArrayView{} : operands.out_any(argmax, "argmax");
  if (!argmax.is_none()) expect_same_shape(operands, va, "argmax", vy, "y");
  const AdaptivePool2d pool = adaptive_of(operands, vx, "x", vy, "y", channels_last);
  check(vx.size() != 0 || vy.size() == 0, operands.op(), "x has shape ", vx.shape_text(),
        ", expected height, width >= 1");
  dispatch_argmax(operands, va, area_of(pool), [&]<class A>() {
    py::gil_scoped_release unlocked;
    device::dispatch(operands.dtype(), operands.op(), [&]<class T>() {
      device::adaptive_max_pool2d_forward(data<T>(vx), mutable_data<T>(vy), mutable_data<A>(va), pool,
                                          as_stream(stream));
    });
  });
}

void adaptive_max_pool2d_backward(py::handle dy, py::handle argmax, py::handle dx, bool channels_last,
                                  uintptr_t stream) {
  Operands operands("adaptive_max_pool2d_backward", kMemory, device::kHalves);
  const ArrayView vdy = operands.in(dy, "dy"), va = operands.in_any(argmax, "argmax"),
                  vdx = operands.out(dx, "dx");
  expect_same_shape(operands, va, "argmax", vdy, "dy");
  const AdaptivePool2d pool = adaptive_of(operands, vdx, "dx", vdy, "dy", channels_last);
  dispatch_argmax(operands, va, area_of(pool), [&]<class A>() {
    py::gil_scoped_release unlocked;
    device::dispatch(operands.dtype(), operands.op(), [&]<class T>() {
      device::adaptive_max_pool2d_backward(data<T>(vdy), data<A>(va), mutable_data<T>(vdx), pool,
                                           as_stream(stream));
    });
  });
}

void avg_pool2d_forward(py::handle x, py::handle y, Pair kernel, Pair stride, Pair padding,
                        bool count_include_pad, bool channels_last, uintptr_t stream) {
  Operands operands("avg_pool2d", kMemory, device::kHalves);
  const ArrayView vx = operands.in(x, "x"), vy = operands.out(y, "y");
  const Pool2d pool = pool_of(operands, vx, "x", vy, "y", kernel, stride, padding, {1, 1}, channels_last);
  py::gil_scoped_release unlocked;
  device::dispatch(operands.dtype(), operands.op(), [&]<class T>() {
    device::avg_pool2d_forward(data<T>(vx), mutable_data<T>(vy), pool, count_include_pad, as_stream(stream));
  });
}

void avg_pool2d_backward(py::handle dy, py::handle dx, Pair kernel, Pair stride, Pair padding,
                         bool count_include_pad, bool channels_last, uintptr_t stream) {
  Operands operands("avg_pool2d_backward", kMemory, device::kHalves);
  const ArrayView vdy = operands.in(dy, "dy"), vdx = operands.out(dx, "dx");
  const Pool2d pool = pool_of(operands, vdx, "dx", vdy, "dy", kernel, stride, padding, {1, 1}, channels_last);
  py::gil_scoped_release unlocked;
  device::dispatch(operands.dtype(), operands.op(), [&]<class T>() {
    device::avg_pool2d_backward(data<T>(vdy), mutable_data<T>(vdx), pool, count_include_pad,
                                as_stream(stream));
  });
}

void adaptive_avg_pool2d_forward(py::handle x, py::handle y, bool channels_last, uintptr_t stream) {
  Operands operands("adaptive_avg_pool2d", kMemory, device::kHalves);
  const ArrayView vx = operands.in(x, "x"), vy = operands.out(y, "y");
  const AdaptivePool2d pool = adaptive_of(operands, vx, "x", vy, "y", channels_last);
  check(vx.size() != 0 || vy.size() == 0, operands.op(), "x has shape ", vx.shape_text(),
        ", expected height, width >= 1");
  py::gil_scoped_release unlocked;
  device::dispatch(operands.dtype(), operands.op(), [&]<class T>() {
    device::adaptive_avg_pool2d_forward(data<T>(vx), mutable_data<T>(vy), pool, as_stream(stream));
  });
}

void adaptive_avg_pool2d_backward(py::handle dy, py::handle dx, bool channels_last, uintptr_t stream) {
  Operands operands("adaptive_avg_pool2d_backward", kMemory, device::kHalves);
  const ArrayView vdy = operands.in(dy, "dy"), vdx = operands.out(dx, "dx");
  const AdaptivePool2d pool = adaptive_of(operands, vdx, "dx", vdy, "dy", channels_last);
  py::gil_scoped_release unlocked;
  device::dispatch(operands.dtype(), operands.op(), [&]<class T>() {
    device::adaptive_avg_pool2d_backward(data<T>(vdy), mutable_data<T>(vdx), pool, as_stream(stream));
  });
}

}  // namespace

void bind_pool2d(py::module_& m) {
  const auto channels_last = py::arg("channels_last");
  const auto stream = py::arg("stream") = 0;
  m.def("max_pool2d_forward", &max_pool2d_forward, py::arg("x"), py::arg("y"), py::arg("argmax"),
        py::arg("kernel"), py::arg("stride"), py::arg("padding"), py::arg("dilation"), channels_last, stream);
  m.def("max_pool2d_backward", &max_pool2d_backward, py::arg("dy"), py::arg("argmax"), py::arg("dx"),
        py::arg("kernel"), py::arg("stride"), py::arg("padding"), py::arg("dilation"), channels_last, stream);
  m.def("adaptive_max_pool2d_forward", &adaptive_max_pool2d_forward, py::arg("x"), py::arg("y"),
        py::arg("argmax"), channels_last, stream);
  m.def("adaptive_max_pool2d_backward", &adaptive_max_pool2d_backward, py::arg("dy"), py::arg("argmax"),
        py::arg("dx"), channels_last, stream);
  m.def("avg_pool2d_forward", &avg_pool2d_forward, py::arg("x"), py::arg("y"), py::arg("kernel"),
        py::arg("stride"), py::arg("padding"), py::arg("count_include_pad"), channels_last, stream);
  m.def("avg_pool2d_backward", &avg_pool2d_backward, py::arg("dy"), py::arg("dx"), py::arg("kernel"),
        py::arg("stride"), py::arg("padding"), py::arg("count_include_pad"), channels_last, stream);
  m.def("adaptive_avg_pool2d_forward", &adaptive_avg_pool2d_forward, py::arg("x"), py::arg("y"),
        channels_last, stream);
  m.def("adaptive_avg_pool2d_backward", &adaptive_avg_pool2d_backward, py::arg("dy"), py::arg("dx"),
        channels_last, stream);
  takes_halves(m, {"adaptive_max_pool2d_forward", "adaptive_max_pool2d_backward", "max_pool2d_forward",
                   "max_pool2d_backward", "avg_pool2d_forward", "avg_pool2d_backward",
                   "adaptive_avg_pool2d_forward", "adaptive_avg_pool2d_backward"});
}
