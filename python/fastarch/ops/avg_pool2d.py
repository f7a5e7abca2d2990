"""Average and adaptive average pooling over windows of [N, C, H, W]; semantics are PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastarch.ops._boundary import Array, Pair, empty, expect_dims, flag, operator, pair, run, shape_of
from fastarch.ops._windows import Sizes, check_pooled, pooled_shape, taps_of, window_of


@operator("x")
def avg_pool2d(
    x: Array,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:
    """The mean of every window. x [N, C, H, W] -> y [N, C, P, Q].

    kernel_size, stride (default: kernel_size), padding (with zeros, at most half the kernel): one int or
    (height, width). ceil_mode lets a last window stick out; count_include_pad counts padding zeros in the
    mean. Raises ValueError for values that do not fit.
    """
    op = "avg_pool2d"
    window = window_of(op, kernel_size, stride, padding, 1)
    expect_dims(op, "x", x, 4, "[N, C, H, W]")
    shape = pooled_shape(op, x.shape, window, flag(op, "ceil_mode", ceil_mode))
    counted = flag(op, "count_include_pad", count_include_pad)
    y = empty(op, shape, x)
    if y.size:
        run("avg_pool2d_forward", avg_pool2d_forward, (x,), y, *window[:3], counted)
    return y


@operator("dy")
def avg_pool2d_backward(
    dy: Array,
    input_shape: tuple[int, ...],
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    count_include_pad: bool = True,
) -> Array:
    """Gradient of avg_pool2d: every dy is spread evenly over its window. dy [N, C, P, Q] -> dx [N, C, H, W] =
    input_shape.

    Raises ValueError for shapes that do not fit.
    """
    op = "avg_pool2d_backward"
    window = window_of(op, kernel_size, stride, padding, 1)
    shape = check_pooled(op, dy, input_shape, window)
    counted = flag(op, "count_include_pad", count_include_pad)
    dx = empty(op, shape, dy, zero=dy.size == 0)
    if dx.size and dy.size:
        run("avg_pool2d_backward", avg_pool2d_backward_spread, (dy,), dx, *window[:3], counted)
    return dx


@operator("x")
def adaptive_avg_pool2d(x: Array, output_size: Any) -> Array:
    """Means over a P x Q grid of windows that cover x evenly. x [N, C, H, W] -> y [N, C, P, Q].

    output_size: one int or (P, Q); None keeps that size of x. Output row i averages rows floor(i*H/P) to
    ceil((i + 1)*H/P) - 1. Raises ValueError for a size below 1 or an empty image.
    """
    op = "adaptive_avg_pool2d"
    expect_dims(op, "x", x, 4, "[N, C, H, W]")
    n, c, h, w = x.shape
    wanted = tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size, output_size)
    if len(wanted) == 2:
        wanted = tuple(size if given is None else given for given, size in zip(wanted, (h, w)))
    if not (h and w):
        raise ValueError(f"[{op}] x has shape {x.shape}, expected an image that is not empty")
    p, q = pair(op, "output_size", wanted, 1)
    y = empty(op, (n, c, p, q), x)
    if y.size:
        run("adaptive_avg_pool2d_forward", adaptive_avg_pool2d_forward, (x,), y)
    return y


@operator("dy")
def adaptive_avg_pool2d_backward(dy: Array, input_shape: tuple[int, ...]) -> Array:
    """Gradient of adaptive_avg_pool2d. dy [N, C, P, Q] -> dx [N, C, H, W] = input_shape. ValueError for
    shapes that do not fit."""
    op = "adaptive_avg_pool2d_backward"
    expect_dims(op, "dy", dy, 4, "[N, C, P, Q]")
    shape = shape_of(op, "input_shape", input_shape, 4, "[N, C, H, W]")
    if not (shape[2] and shape[3]):
        raise ValueError(f"[{op}] input_shape is {shape}, expected an image that is not empty")
    if dy.shape[:2] != shape[:2]:
        raise ValueError(
            f"[{op}] dy has shape {dy.shape}, expected {shape[:2]} images and channels of input_shape"
        )
    dx = empty(op, shape, dy, zero=dy.size == 0)
    if dx.size and dy.size:
        run("adaptive_avg_pool2d_backward", adaptive_avg_pool2d_backward_spread, (dy,), dx)
    return dx


def _counts(
    size: int, out: int, kernel: int, stride: int, padding: int, include_pad: bool, xp: Any, dtype: Any
) -> Array:
    """What the mean of each window divides by, along one axis; with ceil_mode it ends with the padding."""
    begin = np.arange(out) * stride - padding
    end = np.minimum(begin + kernel, size + padding)
    if not include_pad:
        begin, end = np.maximum(begin, 0), np.minimum(end, size)
    return xp.asarray((end - begin).astype(dtype))


def avg_pool2d_forward(
    x: Array, y: Array, kernel: Sizes, stride: Sizes, padding: Sizes, count_include_pad: bool, xp: Any
) -> None:
    """x [N, C, H, W]; y [N, C, P, Q], overwritten."""
    (n, c, h, w), (_, _, p, q) = x.shape, y.shape
    sums = xp.zeros((n, c, h, q), x.dtype)
    for tap in taps_of(w, q, kernel[1], stride[1], padding[1], 1):
        sums[..., tap.out] += x[..., tap.source]
    y[...] = 0
    for tap in taps_of(h, p, kernel[0], stride[0], padding[0], 1):
        y[:, :, tap.out] += sums[:, :, tap.source]
    y /= _counts(h, p, kernel[0], stride[0], padding[0], count_include_pad, xp, x.dtype)[:, None] * _counts(
        w, q, kernel[1], stride[1], padding[1], count_include_pad, xp, x.dtype
    )


def avg_pool2d_backward_spread(
    dy: Array, dx: Array, kernel: Sizes, stride: Sizes, padding: Sizes, count_include_pad: bool, xp: Any
) -> None:
    """dy [N, C, P, Q]; dx [N, C, H, W], overwritten."""
    (n, c, h, w), (_, _, p, q) = dx.shape, dy.shape
    shares = dy / (
        _counts(h, p, kernel[0], stride[0], padding[0], count_include_pad, xp, dy.dtype)[:, None]
        * _counts(w, q, kernel[1], stride[1], padding[1], count_include_pad, xp, dy.dtype)
    )
    sums = xp.zeros((n, c, h, q), dy.dtype)
    for tap in taps_of(h, p, kernel[0], stride[0], padding[0], 1):
        sums[:, :, tap.source] += shares[:, :, tap.out]
    dx[...] = 0
    for tap in taps_of(w, q, kernel[1], stride[1], padding[1], 1):
        dx[..., tap.source] += sums[..., tap.out]


def _cells(size: int, out: int) -> list[slice]:
    """The windows of adaptive pooling along one axis."""
    return [slice(i * size // out, -(-(i + 1) * size // out)) for i in range(out)]


def adaptive_avg_pool2d_forward(x: Array, y: Array, xp: Any) -> None:
    """x [N, C, H, W]; y [N, C, P, Q], overwritten."""
    (n, c, h, _), (_, _, p, q) = x.shape, y.shape
    means = xp.empty((n, c, h, q), x.dtype)
    for i, cell in enumerate(_cells(x.shape[3], q)):
        xp.mean(x[..., cell], axis=3, out=means[..., i])
    for i, cell in enumerate(_cells(h, p)):
        xp.mean(means[:, :, cell], axis=2, out=y[:, :, i])


def adaptive_avg_pool2d_backward_spread(dy: Array, dx: Array, xp: Any) -> None:
    """dy [N, C, P, Q]; dx [N, C, H, W], overwritten."""
    (n, c, h, w), (_, _, p, q) = dx.shape, dy.shape
    sums = xp.zeros((n, c, h, q), dy.dtype)
    for i, cell in enumerate(_cells(h, p)):
        sums[:, :, cell] += dy[:, :, i : i + 1] / (cell.stop - cell.start)
    dx[...] = 0
    for i, cell in enumerate(_cells(w, q)):
        dx[..., cell] += sums[..., i : i + 1] / (cell.stop - cell.start)
