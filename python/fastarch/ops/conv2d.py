"""Convolution along two axes (cross-correlation, as everywhere in deep learning) and its gradients."""

from __future__ import annotations

from fastarch.ops import _convolution
from fastarch.ops._boundary import (
    Array,
    Pair,
    activation_kind,
    channels_last,
    companion,
    empty,
    expect_shape,
    operator,
)
from fastarch.ops._convolution import Padding


@operator("x", "weight", optional="bias", halves=True)
def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    activation: str | None = None,
    residual: Array | None = None,
    layout: str = "NCHW",
) -> Array:
    """activation(convolution + bias + residual): x [N, C, H, W], weight [K, C/groups, R, S], y [N, K, P, Q].

    bias: [K] or None; residual: of y's shape or None. stride, dilation: one int or (height, width). padding:
    the same, or "valid", or "same" (stride 1; of an odd total the bottom and right get one more), or ((top,
    bottom), (left, right)). P is (H + top + bottom - dilation*(R - 1) - 1) // stride + 1. activation: None,
    "relu", "tanh" or "sigmoid". layout "NHWC": x is [N, H, W, C], y [N, P, Q, K], the weight the same. Raises
    ValueError for shapes and values that do not fit. LeCun et al. (1998).
    """
    kind = activation_kind("conv2d", activation)
    last = channels_last("conv2d", layout)
    geometry, shape = _convolution.settle("conv2d", x, weight, stride, padding, dilation, groups, 2, last)
    if bias is not None:
        expect_shape("conv2d", "bias", bias, weight.shape[:1])
    residual = companion("conv2d", "residual", residual, x, x.dtype, shape, optional=True)
    y = empty("conv2d", shape, x)
    _convolution.forward(x, weight, bias, y, geometry, kind, residual)
    return y


@operator("dy", "x", "weight", halves=True)
def conv2d_backward(
    dy: Array,
    x: Array,
    weight: Array,
    bias: bool = True,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    need: tuple[bool, bool] = (True, True),
    layout: str = "NCHW",
) -> tuple[Array | None, Array | None, Array | None]:
    """Gradients (dx, dw, db) of conv2d without activation, from dy [N, K, P, Q] and conv2d's x and weight.

    bias: whether db [K] is wanted; need: whether dx and dw are (a first layer needs no dx). What is not
    wanted is None. layout: that of dy, x and dx. Raises ValueError for shapes and values that do not fit.
    """
    op = "conv2d_backward"
    last = channels_last(op, layout)
    geometry, shape = _convolution.settle(op, x, weight, stride, padding, dilation, groups, 2, last)
    if dy.shape != shape:
        raise ValueError(f"[{op}] dy has shape {dy.shape}, expected {shape} in layout {layout}")
    return _convolution.gradients(op, dy, x, weight, bias, need, geometry)
