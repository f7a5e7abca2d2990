"""Convolution along one axis and its gradients: that of two axes on images of one row, which is exact."""

from __future__ import annotations

from fastarch.ops import _convolution
from fastarch.ops._boundary import Array, activation_kind, empty, expect_shape, operator
from fastarch.ops._convolution import Padding


@operator("x", "weight", optional="bias", halves=True)
def conv1d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: int = 1,
    padding: Padding = 0,
    dilation: int = 1,
    groups: int = 1,
    activation: str | None = None,
) -> Array:
    """Convolution of sequences with bias and activation: x [N, C, L], weight [K, C/groups, S] -> y [N, K, Q].

    bias: [K] or None. padding: an int, "valid", "same" (stride 1; of an odd total the end gets one more) or
    ((before, after),), of which ((dilation*(S - 1), 0),) makes it causal. Q is
    (L + before + after - dilation*(S - 1) - 1) // stride + 1. activation: None, "relu", "tanh" or "sigmoid".
    Raises ValueError for shapes and values that do not fit.
    """
    kind = activation_kind("conv1d", activation)
    geometry, shape = _convolution.settle("conv1d", x, weight, stride, padding, dilation, groups, 1)
    if bias is not None:
        expect_shape("conv1d", "bias", bias, (shape[1],))
    y = empty("conv1d", shape, x)
    _convolution.forward(x[:, :, None], weight[:, :, None], bias, y[:, :, None], geometry.of_rows(), kind)
    return y


@operator("dy", "x", "weight", halves=True)
def conv1d_backward(
    dy: Array,
    x: Array,
    weight: Array,
    bias: bool = True,
    stride: int = 1,
    padding: Padding = 0,
    dilation: int = 1,
    groups: int = 1,
    need: tuple[bool, bool] = (True, True),
) -> tuple[Array | None, Array | None, Array | None]:
    """Gradients (dx, dw, db) of conv1d without activation, from dy [N, K, Q] and conv1d's x and weight.

    bias: whether db [K] is wanted; need: whether dx and dw are. What is not wanted is None. Raises ValueError
    for shapes and values that do not fit.
    """
    op = "conv1d_backward"
    geometry, shape = _convolution.settle(op, x, weight, stride, padding, dilation, groups, 1)
    expect_shape(op, "dy", dy, shape)
    dx, dw, db = _convolution.gradients(
        op, dy[:, :, None], x[:, :, None], weight[:, :, None], bias, need, geometry.of_rows()
    )
    return None if dx is None else dx.reshape(x.shape), None if dw is None else dw.reshape(weight.shape), db
