"""The layers as functions of tensors, under the names that PyTorch gives them in torch.nn.functional."""

from __future__ import annotations

from typing import Any

from fastarch import ops, random
from fastarch.autograd import Array, Function
from fastarch.nn.class_losses import cross_entropy, log_softmax, nll_loss
from fastarch.nn.convolutions import (
    conv1d,
    conv2d,
    conv2d_max_pool,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
)
from fastarch.nn.fused import ACTIVATION_BACKWARD, before_activation
from fastarch.nn.loss_functions import binary_cross_entropy_with_logits, kl_div, mse_loss
from fastarch.nn.normalization_functions import batch_norm, local_response_norm
from fastarch.nn.padding import pad
from fastarch.tensors import Tensor, as_tensor

__all__ = [
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "avg_pool2d",
    "batch_norm",
    "binary_cross_entropy_with_logits",
    "conv1d",
    "conv2d",
    "conv2d_max_pool",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "cross_entropy",
    "dropout",
    "kl_div",
    "linear",
    "local_response_norm",
    "log_softmax",
    "max_pool2d",
    "mse_loss",
    "nll_loss",
    "pad",
    "relu",
    "sigmoid",
    "softmax",
    "tanh",
]


class Linear(Function):
    @staticmethod
    def forward(ctx: Any, x: Array, weight: Array, bias: Array | None, activation: str | None) -> Array:
        y = ops.linear(x, weight, bias, activation=activation)
        ctx.activation = activation
        ctx.save(x, weight, y if activation is not None else None)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        x, weight, y = ctx.saved
        dy = before_activation(dy, y, ctx.activation)
        return *ops.linear_backward(dy, x, weight, bias=ctx.needs[2], need=ctx.needs[:2]), None


class MaxPool2d(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Array, geometry: tuple[Any, Any, Any, Any], ceil_mode: bool, layout: str
    ) -> Array:
        y, argmax = ops.max_pool2d(x, *geometry, ceil_mode, layout)
        ctx.shape, ctx.geometry = x.shape, (*geometry, layout)
        ctx.save(argmax)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        return ops.max_pool2d_backward(dy, ctx.saved[0], ctx.shape, *ctx.geometry), None, None, None


class AvgPool2d(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Array,
        kernel_size: Any,
        stride: Any,
        padding: Any,
        ceil_mode: bool,
        count_include_pad: bool,
        layout: str,
    ) -> Array:
        ctx.shape = x.shape
        ctx.geometry = kernel_size, stride, padding, count_include_pad, layout
        return ops.avg_pool2d(x, kernel_size, stride, padding, ceil_mode, count_include_pad, layout)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        return ops.avg_pool2d_backward(dy, ctx.shape, *ctx.geometry), *(None,) * 6


class AdaptiveAvgPool2d(Function):
    @staticmethod
    def forward(ctx: Any, x: Array, output_size: Any, layout: str) -> Array:
        ctx.shape, ctx.layout = x.shape, layout
        return ops.adaptive_avg_pool2d(x, output_size, layout)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        return ops.adaptive_avg_pool2d_backward(dy, ctx.shape, ctx.layout), None, None


class AdaptiveMaxPool2d(Function):
    @staticmethod
    def forward(ctx: Any, x: Array, output_size: Any, layout: str) -> Array:
        y, argmax = ops.adaptive_max_pool2d(x, output_size, layout)
        ctx.shape, ctx.layout = x.shape, layout
        ctx.save(argmax)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        return ops.adaptive_max_pool2d_backward(dy, ctx.saved[0], ctx.shape, ctx.layout), None, None


class Activation(Function):
    @staticmethod
    def forward(ctx: Any, x: Array, kind: str) -> Array:
        y = _ACTIVATION[kind](x)
        ctx.kind = kind
        ctx.save(y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        return ACTIVATION_BACKWARD[ctx.kind](dy, ctx.saved[0]), None


_ACTIVATION = {"relu": ops.relu, "tanh": ops.tanh, "sigmoid": ops.sigmoid}


class Softmax(Function):
    @staticmethod
    def forward(ctx: Any, x: Array, axis: int) -> Array:
        y = ops.softmax(x, axis)
        ctx.axis = axis
        ctx.save(y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        return ops.softmax_backward(dy, ctx.saved[0], ctx.axis), None


class Dropout(Function):
    @staticmethod
    def forward(ctx: Any, x: Array, p: float, seed: int, offset: Any) -> Array:
        ctx.draw = p, seed, offset
        return ops.dropout(x, p, seed, offset)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        return ops.dropout_backward(dy, *ctx.draw), None, None, None


def linear(x: Any, weight: Any, bias: Any = None, activation: str | None = None) -> Tensor:
    """x [..., I] times weight [O, I], transposed, plus bias [O]; activation None, "relu", "tanh" or "sigmoid"
    is fused.
    """
    return Linear.apply(as_tensor(x), weight, bias, activation)


def max_pool2d(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    *,
    layout: str = "NCHW",
) -> Tensor:
    """The largest element of every window of x [N, C, H, W], or [N, H, W, C] with layout "NHWC"; stride None
    is the kernel's size.
    """
    return MaxPool2d.apply(as_tensor(x), (kernel_size, stride, padding, dilation), ceil_mode, layout)


def avg_pool2d(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    *,
    layout: str = "NCHW",
) -> Tensor:
    """The mean of every window of x [N, C, H, W], or [N, H, W, C] with layout "NHWC"; count_include_pad says
    whether padding counts in the divisor.
    """
    return AvgPool2d.apply(as_tensor(x), kernel_size, stride, padding, ceil_mode, count_include_pad, layout)


def adaptive_avg_pool2d(x: Any, output_size: Any, *, layout: str = "NCHW") -> Tensor:
    """Means of x [N, C, H, W] over windows chosen so that the output is [N, C, *output_size]; of
    [N, H, W, C] with layout "NHWC".
    """
    return AdaptiveAvgPool2d.apply(as_tensor(x), output_size, layout)


def adaptive_max_pool2d(x: Any, output_size: Any, *, layout: str = "NCHW") -> Tensor:
    """Maxima of x [N, C, H, W] over windows chosen so that the output is [N, C, *output_size]; of
    [N, H, W, C] with layout "NHWC".
    """
    return AdaptiveMaxPool2d.apply(as_tensor(x), output_size, layout)


def relu(x: Any) -> Tensor:
    """max(x, 0), elementwise."""
    return Activation.apply(as_tensor(x), "relu")


def tanh(x: Any) -> Tensor:
    """The hyperbolic tangent, elementwise."""
    return Activation.apply(as_tensor(x), "tanh")


def sigmoid(x: Any) -> Tensor:
    """1 / (1 + exp(-x)), elementwise."""
    return Activation.apply(as_tensor(x), "sigmoid")


def softmax(x: Any, dim: int = -1) -> Tensor:
    """exp(x) scaled to sum to 1 along `dim`."""
    return Softmax.apply(as_tensor(x), dim)


def dropout(x: Any, p: float = 0.5, training: bool = True) -> Tensor:
    """Zeroes each element with probability p in [0, 1] and scales the others by 1 / (1 - p); only when
    `training`.

    The draw is the next one of `fastarch.random`, and the same on every backend. Raises ValueError for p out
    of range.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"[dropout] p must be in [0, 1], got {p}")
    x = as_tensor(x)
    if not training or p == 0:
        return x
    return Dropout.apply(x, p, *random.next_stream())
