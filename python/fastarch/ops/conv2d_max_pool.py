"""Convolution and 2x2 max pooling in one pass, and its gradients; the convolution's output is not kept."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastarch import algorithms, precisions
from fastarch.ops import _convolution
from fastarch.ops._boundary import (
    ACTIVATIONS,
    LAYOUTS,
    Array,
    Pair,
    activation_kind,
    empty,
    expect_shape,
    flag,
    flags,
    operator,
    run,
    zeros,
)
from fastarch.ops._convolution import Padding, Sizes
from fastarch.ops._elementwise import activation_backward, activation_forward
from fastarch.ops._max_pool import max_pool2d_backward_gather, max_pool2d_forward
from fastarch.ops._patch_products import conv2d_backward_input, conv2d_backward_weight, conv2d_forward

_UINT8 = np.dtype(np.uint8)
_RELU, _NCHW = ACTIVATIONS["relu"], LAYOUTS["NCHW"]
_WINDOW = (2, 2), (2, 2), (0, 0), (1, 1), False  # kernel, stride, padding, dilation, channels last
_BLOCK_BYTES = 1 << 20  # of the convolution's output at a time: within a core's cache


@operator("x", "weight", optional="bias", halves=True)
def conv2d_max_pool(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    activation: str | None = None,
) -> tuple[Array, Array]:
    """activation(max_pool2d(conv2d(x, weight, bias), 2)) in one pass: y, argmax [N, K, P//2, Q//2].

    x [N, C, H, W], weight [K, C/groups, R, S], bias [K] or None; arguments are conv2d's, whose output has P
    rows and Q columns. argmax, uint8: the place 0..3, row by row, of a window's largest number before the
    activation, the first of equal ones (a NaN beats all, the last NaN wins). As activations do not decrease,
    y is max_pool2d(conv2d(..., activation)). Raises ValueError for shapes and values that do not fit.
    """
    op = "conv2d_max_pool"
    kind = activation_kind(op, activation)
    geometry, shape = _convolution.settle(op, x, weight, stride, padding, dilation, groups, 2)
    if bias is not None:
        expect_shape(op, "bias", bias, (shape[1],))
    pooled = _pooled(op, shape)
    y, argmax = empty(op, pooled, x), empty(op, pooled, x, _UINT8)
    if y.size:
        rest = (y, argmax, *geometry[:4], kind)  # images are NCHW
        run("conv2d_max_pool_forward", convolve_and_pool, (x, weight, bias), *rest, **_options())
    return y, argmax


@operator("dy", "x", "weight", "y", index="argmax", halves=True)
def conv2d_max_pool_backward(
    dy: Array,
    x: Array,
    weight: Array,
    y: Array,
    argmax: Array,
    bias: bool = True,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    activation: str | None = None,
    need: tuple[bool, bool] = (True, True),
) -> tuple[Array | None, Array | None, Array | None]:
    """Gradients (dx, dw, db) of conv2d_max_pool from dy, y and argmax [N, K, P//2, Q//2], its x and weight.

    bias: whether db [K] is wanted; need: whether dx and dw are. What is not wanted is None. Raises ValueError
    for shapes and values that do not fit.
    """
    op = "conv2d_max_pool_backward"
    kind = activation_kind(op, activation)
    geometry, shape = _convolution.settle(op, x, weight, stride, padding, dilation, groups, 2)
    pooled = _pooled(op, shape)
    for name, operand in (("dy", dy), ("y", y), ("argmax", argmax)):
        expect_shape(op, name, operand, pooled)
    if argmax.dtype != _UINT8:
        raise TypeError(f"[{op}] argmax has dtype {argmax.dtype}, expected uint8 as conv2d_max_pool returns")
    bias, (need_input, need_weight) = flag(op, "bias", bias), flags(op, "need", need)
    new = empty if dy.size else zeros  # of an empty batch, the gradients are sums of nothing
    dx = new(op, x.shape, x) if need_input else None
    dw = new(op, weight.shape, x) if need_weight or bias else None
    db = new(op, weight.shape[:1], x) if bias else None
    if dy.size and (need_input or dw is not None):
        if kind > _RELU:
            slope = empty(op, pooled, dy)
            run("activation_backward", activation_backward, (dy, y), slope, kind)
            dy = slope
        inputs = (dy, y if kind == _RELU else None, argmax, x, weight)
        run("conv2d_max_pool_backward", gradients, inputs, dx, dw, db, *geometry[:4], **_options())
    return dx, dw if need_weight else None, db


def _options() -> dict[str, int]:
    return {"precision": precisions.current(), "algorithm": algorithms.current()}


def _pooled(op: str, shape: Sizes) -> Sizes:
    n, k, p, q = shape
    if p < 2 or q < 2:
        raise ValueError(
            f"[{op}] the convolution's output is {(p, q)} pixels, expected at least (2, 2) to pool"
        )
    return n, k, p // 2, q // 2


def convolve_and_pool(
    x: Array,
    weight: Array,
    bias: Array | None,
    y: Array,
    argmax: Array,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    kind: int,
    xp: Any,
) -> None:
    """x [N, C, H, W], weight [K, C/groups, R, S], bias [K] or None; y, argmax [N, K, P/2, Q/2] written."""
    n, k, p, q = y.shape
    images = min(n, max(1, _BLOCK_BYTES // (4 * y[0].size * y.dtype.itemsize)))
    full = xp.empty((images, k, 2 * p, 2 * q), y.dtype)
    for first in range(0, n, images):
        block = slice(first, first + images)
        part = full[: len(x[block])]
        conv2d_forward(x[block], weight, bias, None, part, stride, padding, dilation, groups, 0, _NCHW, xp)
        max_pool2d_forward(part, y[block], argmax[block], *_WINDOW, xp)
    if kind:
        activation_forward(y, y, kind, xp)


def gradients(
    dy: Array,
    y: Array | None,
    argmax: Array,
    x: Array,
    weight: Array,
    dx: Array | None,
    dw: Array | None,
    db: Array | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    xp: Any,
) -> None:
    """dy, argmax [N, K, P/2, Q/2], y the same, of a ReLU, or None; dx, dw, db overwritten where not None."""
    if y is not None:
        slope = xp.empty(dy.shape, dy.dtype)
        activation_backward(dy, y, slope, _RELU, xp)
        dy = slope
    n, k, p, q = dy.shape
    full = xp.empty((n, k, 2 * p, 2 * q), dy.dtype)
    max_pool2d_backward_gather(dy, argmax, full, *_WINDOW, xp)
    if dx is not None:
        conv2d_backward_input(full, weight, dx, stride, padding, dilation, groups, _NCHW, xp)
    if dw is not None:
        conv2d_backward_weight(full, x, dw, db, stride, padding, dilation, groups, _NCHW, xp)
