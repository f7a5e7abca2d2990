#include "ops/batch_norm.h"

#include "bindings/module.h"

using namespace fastarch;

namespace {

// Parameters and statistics of data of type T.
template <class T>
struct ParameterOf {
  using type = T;
};
template <>
struct ParameterOf<float16> {
  using type = float;
};
template <>
struct ParameterOf<bfloat16> {
  using type = float;
};

ChannelLayout layout_of(Operands& operands, const ArrayView& x, bool channels_last) {
  check(x.ndim >= 2, operands.op(), "x has shape ", x.shape_text(), ", expected at least 2 dimensions");
  ChannelLayout layout{1, x.shape[channels_last ? x.ndim - 1 : 1], 1};
  if (channels_last) {
    for (int i = 0; i + 1 < x.ndim; ++i) layout.outer *= x.shape[i];
  } else {
    layout.outer = x.shape[0];
    for (int i = 2; i < x.ndim; ++i) layout.inner *= x.shape[i];
  }
  check(layout.channels < (int64_t{1} << 31), operands.op(), "x has ", layout.channels,
        " channels, expected fewer than 2^31");
  return layout;
}

void expect_same(Operands& operands, const ArrayView& a, const char* name, const ArrayView& x) {
  if (!a.data) return;
  bool same = a.ndim == x.ndim;
  for (int i = 0; same && i < x.ndim; ++i) same = a.shape[i] == x.shape[i];
  check(same, operands.op(), name, " has shape ", a.shape_text(), ", expected x's ", x.shape_text());
}

// A parameter or statistic [C]: float32 beside 16-bit data, else of the data's type; null for None.
ArrayView vector(Operands& operands, py::handle object, const char* name, int64_t channels, bool write,
                 bool optional) {
  if (optional && object.is_none()) return {};
  const ArrayView view =
      write ? operands.out_any(object, name, {channels}) : operands.in_any(object, name, {channels});
  const DType expected = operands.dtype() == DType::float64 ? DType::float64 : DType::float32;
  if (view.dtype != expected)
    throw py::type_error(concat("[", operands.op(), "] ", name, " has dtype ", dtype_name(view.dtype),
                                ", expected ", dtype_name(expected)));
  return view;
}

void check_eps(Operands& operands, double eps) {
  check(eps >= 0 && eps < 1e300, operands.op(), "eps is ", eps, ", expected a number of at least 0");
}

void batch_norm_forward(py::handle x, py::handle weight, py::handle bias, py::handle residual,
                        py::handle running_mean, py::handle running_var, py::handle y, py::handle mean,
                        py::handle var, double momentum, double eps, bool relu, bool channels_last,
                        uintptr_t stream) {
  Operands operands("batch_norm", kMemory, device::kHalves);
  const ArrayView vx = operands.in(x, "x"), vr = operands.in_or_none(residual, "residual"),
                  vy = operands.out(y, "y");
  expect_same(operands, vr, "residual", vx);
  expect_same(operands, vy, "y", vx);
  const ChannelLayout layout = layout_of(operands, vx, channels_last);
  const int64_t c = layout.channels;
  const ArrayView vw = vector(operands, weight, "weight", c, false, true),
                  vb = vector(operands, bias, "bias", c, false, true),
                  vrm = vector(operands, running_mean, "running_mean", c, true, true),
                  vrv = vector(operands, running_var, "running_var", c, true, true),
                  vm = vector(operands, mean, "mean", c, true, false),
                  vv = vector(operands, var, "var", c, true, false);
  check(!vrm.data == !vrv.data, operands.op(), "running_mean or running_var is None, expected both or none");
  check(layout.size() == 0 || layout.per_channel() > 1, operands.op(), "x has shape ", vx.shape_text(),
        ", expected more than one value per channel");
  check_eps(operands, eps);
  py::gil_scoped_release unlocked;
  device::dispatch(operands.dtype(), operands.op(), [&]<class T>() {
    using P = typename ParameterOf<T>::type;
    device::batch_norm_forward(
        BatchNormForward<T, P>{data<T>(vx), data<T>(vr), data<P>(vw), data<P>(vb), mutable_data<P>(vrm),
                               mutable_data<P>(vrv), mutable_data<T>(vy), mutable_data<P>(vm),
                               mutable_data<P>(vv), layout, momentum, eps, relu},
        as_stream(stream));
  });
}

void batch_norm_inference(py::handle x, py::handle weight, py::handle bias, py::handle residual,
                          py::handle mean, py::handle var, py::handle y, double eps, bool relu,
                          bool channels_last, uintptr_t stream) {
  Operands operands("batch_norm", kMemory, device::kHalves);
  const ArrayView vx = operands.in(x, "x"), vr = operands.in_or_none(residual, "residual"),
                  vy = operands.out(y, "y");
  expect_same(operands, vr, "residual", vx);
  expect_same(operands, vy, "y", vx);
  const ChannelLayout layout = layout_of(operands, vx, channels_last);
  const int64_t c = layout.channels;
  const ArrayView vw = vector(operands, weight, "weight", c, false, true),
                  vb = vector(operands, bias, "bias", c, false, true),
                  vm = vector(operands, mean, "mean", c, false, false),
                  vv = vector(operands, var, "var", c, false, false);
  check_eps(operands, eps);
  py::gil_scoped_release unlocked;
  device::dispatch(operands.dtype(), operands.op(), [&]<class T>() {
    using P = typename ParameterOf<T>::type;
    device::batch_norm_inference(
        BatchNormInference<T, P>{data<T>(vx), data<T>(vr), data<P>(vw), data<P>(vb), data<P>(vm), data<P>(vv),
                                 mutable_data<T>(vy), layout, eps, relu},
        as_stream(stream));
  });
}

void batch_norm_backward(py::handle dy, py::handle x, py::handle y, py::handle weight, py::handle mean,
                         py::handle var, py::handle dx, py::handle dresidual, py::handle dweight,
                         py::handle dbias, double eps, bool training, bool channels_last, uintptr_t stream) {
  Operands operands("batch_norm_backward", kMemory, device::kHalves);
  const ArrayView vx = operands.in(x, "x"), vdy = operands.in(dy, "dy"), vy = operands.in_or_none(y, "y"),
                  vdx = operands.out(dx, "dx"), vdr = operands.out_or_none(dresidual, "dresidual");
  expect_same(operands, vdy, "dy", vx);
  expect_same(operands, vy, "y", vx);
  expect_same(operands, vdx, "dx", vx);
  expect_same(operands, vdr, "dresidual", vx);
  const ChannelLayout layout = layout_of(operands, vx, channels_last);
  const int64_t c = layout.channels;
  const ArrayView vw = vector(operands, weight, "weight", c, false, true),
                  vm = vector(operands, mean, "mean", c, false, false),
                  vv = vector(operands, var, "var", c, false, false),
                  vdw = vector(operands, dweight, "dweight", c, true, false),
                  vdb = vector(operands, dbias, "dbias", c, true, false);
  check_eps(operands, eps);
  py::gil_scoped_release unlocked;
  device::dispatch(operands.dtype(), operands.op(), [&]<class T>() {
    using P = typename ParameterOf<T>::type;
    device::batch_norm_backward(
        BatchNormBackward<T, P>{data<T>(vdy), data<T>(vx), data<T>(vy), data<P>(vw), data<P>(vm), data<P>(vv),
                                mutable_data<T>(vdx), mutable_data<T>(vdr), mutable_data<P>(vdw),
                                mutable_data<P>(vdb), layout, eps, training},
        as_stream(stream));
  });
}

}  // namespace

void bind_batch_norm(py::module_& m) {
  const auto stream = py::arg("stream") = 0;
  m.def("batch_norm_forward", &batch_norm_forward, py::arg("x"), py::arg("weight"), py::arg("bias"),
        py::arg("residual"), py::arg("running_mean"), py::arg("running_var"), py::arg("y"), py::arg("mean"),
        py::arg("var"), py::arg("momentum"), py::arg("eps"), py::arg("relu"), py::arg("channels_last"),
        stream);
  m.def("batch_norm_inference", &batch_norm_inference, py::arg("x"), py::arg("weight"), py::arg("bias"),
        py::arg("residual"), py::arg("mean"), py::arg("var"), py::arg("y"), py::arg("eps"), py::arg("relu"),
        py::arg("channels_last"), stream);
  m.def("batch_norm_backward", &batch_norm_backward, py::arg("dy"), py::arg("x"), py::arg("y"),
        py::arg("weight"), py::arg("mean"), py::arg("var"), py::arg("dx"), py::arg("dresidual"),
        py::arg("dweight"), py::arg("dbias"), py::arg("eps"), py::arg("training"), py::arg("channels_last"),
        stream);
  takes_halves(m, {"batch_norm_forward", "batch_norm_inference", "batch_norm_backward"});
}
