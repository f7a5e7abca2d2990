"""Convolutions as functions of tensors; fastarch.nn.functional hands them on."""

from __future__ import annotations

from typing import Any

from fastarch import ops
from fastarch.autograd import Array, Function
from fastarch.nn.fused import before_activation
from fastarch.tensors import Tensor, as_tensor

_FORWARD: dict[int, Any] = {
    1: ops.conv1d,
    2: ops.conv2d,
    3: ops.conv3d,
}  # of them conv2d has layouts and adds a residual
_TRANSPOSED: dict[int, Any] = {1: ops.conv_transpose1d, 2: ops.conv_transpose2d}


class Convolution(Function):
    """Along one, two or three axes: x's two leading ones are the batch and the channels, in layout NCHW."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Array,
        weight: Array,
        bias: Array | None,
        activation: str | None,
        geometry: tuple[Any, Any, Any, int],  # stride, padding, dilation, groups
        axes: int,
        layout: str = "NCHW",
        residual: Array | None = None,
    ) -> Array:
        ctx.more = {"layout": layout} if axes == 2 else {}
        added = {} if residual is None else {"residual": residual}
        y = _FORWARD[axes](x, weight, bias, *geometry, activation, **ctx.more, **added)
        ctx.activation, ctx.geometry, ctx.axes = activation, geometry, axes
        ctx.save(x, weight, y if activation is not None else None)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        x, weight, y = ctx.saved
        dy = before_activation(dy, y, ctx.activation)
        backward: Any = getattr(ops, f"conv{ctx.axes}d_backward")
        grads = backward(dy, x, weight, ctx.needs[2], *ctx.geometry, ctx.needs[:2], **ctx.more)
        return *grads, None, None, None, *(None, dy)[: len(ctx.needs) - 6]


class ConvolutionMaxPool(Function):
    """A convolution along two axes, pooled over windows of 2x2."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Array,
        weight: Array,
        bias: Array | None,
        activation: str | None,
        geometry: tuple[Any, Any, Any, int],  # stride, padding, dilation, groups
    ) -> Array:
        y, argmax = ops.conv2d_max_pool(x, weight, bias, *geometry, activation)
        ctx.activation, ctx.geometry = activation, geometry
        ctx.save(x, weight, y, argmax)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        x, weight, y, argmax = ctx.saved
        backward: Any = ops.conv2d_max_pool_backward
        more = (*ctx.geometry, ctx.activation, ctx.needs[:2])
        grads = backward(dy, x, weight, y, argmax, ctx.needs[2], *more)
        return *grads, None, None


class TransposedConvolution(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Array,
        weight: Array,
        bias: Array | None,
        geometry: tuple[Any, Any, Any, int, Any],  # stride, padding, output_padding, groups, dilation
        axes: int,
    ) -> Array:
        ctx.geometry, ctx.axes = geometry, axes
        ctx.save(x, weight)
        return _TRANSPOSED[axes](x, weight, bias, *geometry)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        x, weight = ctx.saved
        backward: Any = getattr(ops, f"conv_transpose{ctx.axes}d_backward")
        return *backward(dy, x, weight, ctx.needs[2], *ctx.geometry, ctx.needs[:2]), None, None


def conv1d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    activation: str | None = None,
) -> Tensor:
    """x [N, C, L] with filters weight [K, C/groups, S] plus bias [K]; the activation, if any, is fused."""
    return Convolution.apply(as_tensor(x), weight, bias, activation, (stride, padding, dilation, groups), 1)


def conv2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    activation: str | None = None,
    residual: Any = None,
    layout: str = "NCHW",
) -> Tensor:
    """x [N, C, H, W], or [N, H, W, C] with layout "NHWC", with filters weight [K, C/groups, R, S] plus bias
    [K] and a residual of the output's shape; the activation of that, if any, is fused.
    """
    geometry = stride, padding, dilation, groups
    more = () if residual is None else (residual,)
    return Convolution.apply(as_tensor(x), weight, bias, activation, geometry, 2, layout, *more)


def conv2d_max_pool(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    activation: str | None = None,
) -> Tensor:
    """max_pool2d(conv2d(...), 2) in one pass: the largest pixel of every 2x2 window, then the activation, if
    any.
    """
    geometry = stride, padding, dilation, groups
    return ConvolutionMaxPool.apply(as_tensor(x), weight, bias, activation, geometry)


def conv3d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    activation: str | None = None,
) -> Tensor:
    """x [N, C, D, H, W] with filters weight [K, C/groups, T, R, S] plus bias [K]; the activation, if any, is
    fused.
    """
    return Convolution.apply(as_tensor(x), weight, bias, activation, (stride, padding, dilation, groups), 3)


def conv_transpose1d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """x [N, C, L] spread by weight [C, K/groups, S], plus bias [K]."""
    geometry = stride, padding, output_padding, groups, dilation
    return TransposedConvolution.apply(as_tensor(x), weight, bias, geometry, 1)


def conv_transpose2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """x [N, C, H, W] spread by weight [C, K/groups, R, S], plus bias [K]."""
    geometry = stride, padding, output_padding, groups, dilation
    return TransposedConvolution.apply(as_tensor(x), weight, bias, geometry, 2)
