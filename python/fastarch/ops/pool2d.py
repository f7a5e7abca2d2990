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
from fastarch.ops._elementwise import choose
from fastarch.ops._windows import IMAGE, Sizes, Window, channels_first, pooled, taps_of, unpooled

_UINT8, _INT32 = np.dtype(np.uint8), np.dtype(np.int32)
_BLOCK_BYTES = 1 << 20  # of images worked on at a time: within a core's cache


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


def max_pool2d_forward(
    x: Array,
    y: Array,
    argmax: Array,
    kernel: Sizes,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    last: bool,
    xp: Any,
) -> None:
    """x [N, C, H, W]; y and argmax [N, C, P, Q], overwritten. last: their channels lie last."""
    x, y, argmax = channels_first(last, x, y, argmax)
    window = Window(kernel, stride, padding, dilation)
    # Looking for -inf and NaN would wait for the device; windows far wider than the image are padding.
    far = any((k - 1) * d >= 4 * n for k, d, n in zip(kernel, dilation, x.shape[2:]))
    if xp is not np or far:
        _by_definition(x, y, argmax, window, xp)
        return
    images = max(1, _BLOCK_BYTES // (x[0].size * x.dtype.itemsize))
    for n in range(0, len(x), images):
        block = slice(n, n + images)
        best, place = _by_axes(x[block], y.shape[2:], argmax.dtype, window)
        if (best > -np.inf).all():
            y[block], argmax[block] = best, place
        else:
            _by_definition(x[block], y[block], argmax[block], window, np)


def _by_definition(x: Array, y: Array, argmax: Array, window: Window, xp: Any) -> None:
    """One place of the windows after another, with every special case: -inf, NaN, no pixel at all."""
    rows = taps_of(x.shape[2], y.shape[2], *(sizes[0] for sizes in window))
    columns = taps_of(x.shape[3], y.shape[3], *(sizes[1] for sizes in window))
    y[...] = -xp.inf
    argmax[...] = 0
    met = xp.zeros(y.shape, bool)  # whether a window has met a place inside the input
    for row in rows:
        for column in columns:
            at = (slice(None), slice(None), row.out, column.out)
            seen = x[:, :, row.source, column.source]
            better = (seen > y[at]) | (seen != seen) | ~met[at]
            y[at] = xp.where(better, seen, y[at])
            argmax[at] = xp.where(better, row.place * window.kernel[1] + column.place, argmax[at])
            met[at] = True


def _by_axes(x: Array, size: tuple[int, ...], dtype: Any, window: Window) -> tuple[Array, Array]:
    """The maxima of windows that hold a finite number or inf, and their places; of other windows -inf or NaN.

    First along the rows, then down the columns of what that leaves: fewer comparisons, over longer runs. The
    first of equal numbers wins in both, and so in the window: its places count row by row.
    """
    (h, w), (p, q) = x.shape[2:], size
    (top, left), (sh, sw), (dh, dw) = window.padding, window.stride, window.dilation
    high = (p - 1) * sh + (window.kernel[0] - 1) * dh + 1  # the padded input that the windows see
    wide = (q - 1) * sw + (window.kernel[1] - 1) * dw + 1
    if top or left or high > h or wide > w:
        padded = np.full((*x.shape[:2], max(high, top + h), max(wide, left + w)), -np.inf, x.dtype)
        padded[:, :, top : top + h, left : left + w] = x
        x = padded
    columns = [slice(s * dw, s * dw + (q - 1) * sw + 1, sw) for s in range(window.kernel[1])]
    best, place = _first_largest([x[..., c] for c in columns], [dtype.type(s) for s in range(len(columns))])
    rows = [slice(r * dh, r * dh + (p - 1) * sh + 1, sh) for r in range(window.kernel[0])]
    return _first_largest(
        [best[:, :, r] for r in rows],
        [place[:, :, r] + dtype.type(i * len(columns)) for i, r in enumerate(rows)],
    )


def _first_largest(values: list[Array], places: list[Array]) -> tuple[Array, Array]:
    """Elementwise the largest of `values`, the first of equal ones, and what `places` has for it."""
    best, place = values[0], places[0]
    for value, other in zip(values[1:], places[1:]):
        better = value > best
        best = np.maximum(best, value)
        # place + (other - place) where better, modulo the dtype's range: faster than a masked copy.
        step = np.subtract(other, place, dtype=other.dtype)
        place = place + better.view(np.uint8).astype(other.dtype, copy=False) * step
    return best, np.broadcast_to(place, best.shape)


def max_pool2d_backward_gather(
    dy: Array,
    argmax: Array,
    dx: Array,
    kernel: Sizes,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    last: bool,
    xp: Any,
) -> None:
    """dy, argmax [N, C, P, Q]; dx [N, C, H, W], overwritten. last: their channels lie last."""
    dy, argmax, dx = channels_first(last, dy, argmax, dx)
    (h, w), (p, q) = dx.shape[2:], dy.shape[2:]
    apart = all((k - 1) * d < s for k, s, d in zip(kernel, stride, dilation))  # no pixel is in two windows
    tiled = apart and stride == kernel and padding == (0, 0) and (p * kernel[0], q * kernel[1]) == (h, w)
    if not tiled:
        dx[...] = 0
    for row in taps_of(h, p, kernel[0], stride[0], padding[0], dilation[0]):
        for column in taps_of(w, q, kernel[1], stride[1], padding[1], dilation[1]):
            at = (slice(None), slice(None), row.out, column.out)
            chosen = argmax[at] == row.place * kernel[1] + column.place
            target = dx[:, :, row.source, column.source]
            if apart:
                choose(chosen, dy[at], target, xp)
            else:
                target += choose(chosen, dy[at], None, xp)


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
