"""Max and average pooling over sliding windows of images; semantics are PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastarch.ops._boundary import (
    Array,
    Pair,
    channels_last,
    empty,
    expect_dims,
    expect_shape,
    flag,
    operator,
    run,
    zeros,
)
from fastarch.ops._max_pool import max_pool2d_backward_gather, max_pool2d_forward
from fastarch.ops._windows import IMAGE, Sizes, channels_first, pooled, taps_of, unpooled

_UINT8, _INT32 = np.dtype(np.uint8), np.dtype(np.int32)


@operator("x", halves=True)
def max_pool2d(
    x: Array,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    layout: str = "NCHW",
) -> tuple[Array, Array]:
    """The largest number of every window and its place: x [N, C, H, W] -> y, argmax [N, C, P, Q].

    kernel_size, stride (default: kernel_size), padding (with -inf, at most half the kernel), dilation: one
    int or (height, width). ceil_mode lets a last window stick out. argmax is r * S + s inside the window, the
    first of equal ones (a NaN beats all, the last NaN wins); uint8, or int32 for windows of more than 256.
    layout "NHWC": x [N, H, W, C] -> y, argmax [N, P, Q, C]. Raises ValueError for values that do not fit.
    """
    op = "max_pool2d"
    last = channels_last(op, layout)
    expect_dims(op, "x", x, 4, IMAGE[last])
    window, shape = pooled(op, x.shape, kernel_size, stride, padding, dilation, ceil_mode, last)
    if window.kernel[0] * window.kernel[1] >= 2**31:
        raise ValueError(f"[{op}] kernel_size is {window.kernel}, expected fewer than 2**31 places")
    y = empty(op, shape, x)
    argmax = empty(op, shape, x, _argmax_dtype(window.kernel))
    if y.size:
        run("max_pool2d_forward", max_pool2d_forward, (x,), y, argmax, *window, last)
    return y, argmax


@operator("dy", index="argmax", halves=True)
def max_pool2d_backward(
    dy: Array,
    argmax: Array,
    input_shape: tuple[int, ...],
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    layout: str = "NCHW",
) -> Array:
    """Gradient of max_pool2d: dy, argmax [N, C, P, Q] -> dx [N, C, H, W], dy added where the maxima were.

    input_shape is x's shape; argmax, window and layout are max_pool2d's. Raises ValueError for shapes that do
    not fit.
    """
    op = "max_pool2d_backward"
    last = channels_last(op, layout)
    window, shape = unpooled(op, dy, input_shape, kernel_size, stride, padding, dilation, last)
    expect_shape(op, "argmax", argmax, dy.shape)
    if argmax.dtype != _argmax_dtype(window.kernel):
        raise TypeError(
            f"[{op}] argmax has dtype {argmax.dtype}, "
            f"expected {_argmax_dtype(window.kernel)} as max_pool2d returns"
        )
    if not dy.size:
        return zeros(op, shape, dy)
    dx = empty(op, shape, dy)
    if dx.size:
        run("max_pool2d_backward", max_pool2d_backward_gather, (dy, argmax), dx, *window, last)
    return dx


@operator("x", halves=True)
def avg_pool2d(
    x: Array,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    layout: str = "NCHW",
) -> Array:
    """The mean of every window. x [N, C, H, W] -> y [N, C, P, Q].

    kernel_size, stride (default: kernel_size), padding (with zeros, at most half the kernel): one int or
    (height, width). ceil_mode lets a last window stick out; count_include_pad counts padding zeros in the
    mean. layout "NHWC": x [N, H, W, C] -> y [N, P, Q, C]. Raises ValueError for values that do not fit.
    """
    op = "avg_pool2d"
    last = channels_last(op, layout)
    expect_dims(op, "x", x, 4, IMAGE[last])
    window, shape = pooled(op, x.shape, kernel_size, stride, padding, 1, ceil_mode, last)
    counted = flag(op, "count_include_pad", count_include_pad)
    y = empty(op, shape, x)
    if y.size:
        run("avg_pool2d_forward", avg_pool2d_forward, (x,), y, *window[:3], counted, last)
    return y


@operator("dy", halves=True)
def avg_pool2d_backward(
    dy: Array,
    input_shape: tuple[int, ...],
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    count_include_pad: bool = True,
    layout: str = "NCHW",
) -> Array:
    """Gradient of avg_pool2d: dy [N, C, P, Q] spread evenly over the windows -> dx [N, C, H, W].

    input_shape is x's shape; window and layout are avg_pool2d's. Raises ValueError for shapes that do not
    fit.
    """
    op = "avg_pool2d_backward"
    last = channels_last(op, layout)
    window, shape = unpooled(op, dy, input_shape, kernel_size, stride, padding, 1, last)
    counted = flag(op, "count_include_pad", count_include_pad)
    if not dy.size:
        return zeros(op, shape, dy)
    dx = empty(op, shape, dy)
    if dx.size:
        run("avg_pool2d_backward", avg_pool2d_backward_spread, (dy,), dx, *window[:3], counted, last)
    return dx


def _argmax_dtype(kernel: Sizes) -> np.dtype:
    return _UINT8 if kernel[0] * kernel[1] <= 256 else _INT32


def _counts(
    size: int, out: int, kernel: int, stride: int, padding: int, include_pad: bool, xp: Any, dtype: Any
) -> Array:
    """What the mean of each window divides by, along one axis; with ceil_mode it ends with the padding."""
    begin = xp.arange(out) * stride - padding
    end = xp.minimum(begin + kernel, size + padding)
    if not include_pad:
        begin, end = xp.maximum(begin, 0), xp.minimum(end, size)
    return (end - begin).astype(dtype)


def avg_pool2d_forward(
    x: Array,
    y: Array,
    kernel: Sizes,
    stride: Sizes,
    padding: Sizes,
    count_include_pad: bool,
    last: bool,
    xp: Any,
) -> None:
    """x [N, C, H, W]; y [N, C, P, Q], overwritten. last: their channels lie last."""
    x, y = channels_first(last, x, y)
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
    dy: Array,
    dx: Array,
    kernel: Sizes,
    stride: Sizes,
    padding: Sizes,
    count_include_pad: bool,
    last: bool,
    xp: Any,
) -> None:
    """dy [N, C, P, Q]; dx [N, C, H, W], overwritten. last: their channels lie last."""
    dy, dx = channels_first(last, dy, dx)
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
