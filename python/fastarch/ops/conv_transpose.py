"""Transposed convolution along one and two axes and its gradients.

It is the gradient of a convolution with respect to its input, so its own gradients are that convolution and
that convolution's gradient with respect to the weight.
"""

from __future__ import annotations

from typing import Any

from fastarch import arrays
from fastarch.ops import _convolution
from fastarch.ops._boundary import (
    Array,
    Pair,
    empty,
    expect_shape,
    flag,
    flags,
    narrow,
    operator,
    widen,
    zeros,
)
from fastarch.ops._convolution import Geometry, Side, Sizes

Gradients = tuple[Array | None, Array | None, Array | None]
Padding = int | tuple[Side, ...]


@operator("x", "weight", optional="bias", halves=True)
def conv_transpose1d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: int = 1,
    padding: Padding = 0,
    output_padding: int = 0,
    groups: int = 1,
    dilation: int = 1,
) -> Array:
    """Transposed convolution of sequences: x [N, C, L], weight [C, K/groups, S] -> y [N, K, Q].

    bias: [K] or None. padding: an int or ((before, after),), cut off from the output. output_padding: more
    elements at its end, fewer than stride or dilation. Q is
    (L - 1)*stride + dilation*(S - 1) + 1 + output_padding - before - after. Raises ValueError for shapes and
    values that do not fit.
    """
    op = "conv_transpose1d"
    geometry, shape = _convolution.settle_transposed(
        op, x, weight, stride, padding, output_padding, groups, dilation, 1
    )
    rows = _forward(op, x[:, :, None], weight[:, :, None], bias, geometry.of_rows(), _of_rows(shape))
    return rows.reshape(shape)


@operator("dy", "x", "weight", halves=True)
def conv_transpose1d_backward(
    dy: Array,
    x: Array,
    weight: Array,
    bias: bool = True,
    stride: int = 1,
    padding: Padding = 0,
    output_padding: int = 0,
    groups: int = 1,
    dilation: int = 1,
    need: tuple[bool, bool] = (True, True),
) -> Gradients:
    """Gradients (dx, dw, db) of conv_transpose1d, from dy [N, K, Q] and conv_transpose1d's x and weight.

    bias: whether db [K] is wanted; need: whether dx and dw are. What is not wanted is None. Raises ValueError
    for shapes and values that do not fit.
    """
    op = "conv_transpose1d_backward"
    geometry, shape = _convolution.settle_transposed(
        op, x, weight, stride, padding, output_padding, groups, dilation, 1
    )
    expect_shape(op, "dy", dy, shape)
    dx, dw, db = _backward(
        op, dy[:, :, None], x[:, :, None], weight[:, :, None], bias, need, geometry.of_rows()
    )
    return None if dx is None else dx.reshape(x.shape), None if dw is None else dw.reshape(weight.shape), db


@operator("x", "weight", optional="bias", halves=True)
def conv_transpose2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Pair = 1,
    padding: Padding = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
) -> Array:
    """Transposed convolution: x [N, C, H, W], weight [C, K/groups, R, S] -> y [N, K, P, Q].

    bias: [K] or None. stride, output_padding, dilation: one int or (height, width); padding also
    ((top, bottom), (left, right)), cut off from the output. output_padding: more rows and columns at its
    bottom and right, fewer than stride or dilation. P is
    (H - 1)*stride + dilation*(R - 1) + 1 + output_padding - top - bottom. Raises ValueError for shapes and
    values that do not fit. Zeiler et al., "Deconvolutional networks" (2010).
    """
    op = "conv_transpose2d"
    geometry, shape = _convolution.settle_transposed(
        op, x, weight, stride, padding, output_padding, groups, dilation, 2
    )
    return _forward(op, x, weight, bias, geometry, shape)


@operator("dy", "x", "weight", halves=True)
def conv_transpose2d_backward(
    dy: Array,
    x: Array,
    weight: Array,
    bias: bool = True,
    stride: Pair = 1,
    padding: Padding = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
    need: tuple[bool, bool] = (True, True),
) -> Gradients:
    """Gradients (dx, dw, db) of conv_transpose2d, from dy [N, K, P, Q] and conv_transpose2d's x and weight.

    bias: whether db [K] is wanted; need: whether dx and dw are. What is not wanted is None. Raises ValueError
    for shapes and values that do not fit.
    """
    op = "conv_transpose2d_backward"
    geometry, shape = _convolution.settle_transposed(
        op, x, weight, stride, padding, output_padding, groups, dilation, 2
    )
    expect_shape(op, "dy", dy, shape)
    return _backward(op, dy, x, weight, bias, need, geometry)


def _of_rows(shape: Sizes) -> Sizes:
    """The shape of images of one row each."""
    return (*shape[:2], 1, shape[2])


def _forward(op: str, x: Array, weight: Array, bias: Array | None, geometry: Geometry, shape: Sizes) -> Array:
    """y of `shape` along two axes. The bias comes after, because windows need not cover all of y."""
    y = empty(op, shape, x)
    if bias is None:
        _convolution.backward_input(x, weight, y, geometry)
        return y
    expect_shape(op, "bias", bias, shape[1:2])
    # 16-bit results are rounded once: with the bias.
    wide = empty(op, shape, x, "float32") if arrays.is_half(x.dtype) else y
    _convolution.backward_input(widen(x), widen(weight), wide, geometry)
    wide += widen(bias)[:, None, None]
    if wide is not y:
        narrow(wide, y)
    return y


def _backward(
    op: str, dy: Array, x: Array, weight: Array, bias: bool, need: Any, geometry: Geometry
) -> Gradients:
    """(dx, dw, db) along two axes, None for what is not wanted."""
    bias = flag(op, "bias", bias)
    need_input, need_weight = flags(op, "need", need)
    dx = dw = db = None
    if need_input:
        dx = empty(op, x.shape, x)
        _convolution.forward(dy, weight, None, dx, geometry)
    if need_weight:
        dw = (empty if x.size else zeros)(op, weight.shape, x)
        if x.size:
            _convolution.backward_weight(x, dy, dw, None, geometry)
    if bias:
        db = empty(op, dy.shape[1:2], x)
        narrow(widen(dy).sum(axis=(0, 2, 3)), db)
    return dx, dw, db
