"""Max and average pooling to a given size, by windows that cover images evenly, as in PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastarch.ops._boundary import (
    Array,
    channels_last,
    empty,
    expect_dims,
    expect_shape,
    operator,
    pair,
    run,
    shape_of,
    zeros,
)
from fastarch.ops._windows import IMAGE, POOLED, channels_first, extents, with_extents

_UINT8, _INT32 = np.dtype(np.uint8), np.dtype(np.int32)


@operator("x", halves=True)
def adaptive_avg_pool2d(x: Array, output_size: Any, layout: str = "NCHW") -> Array:
    """Means over a P x Q grid of windows that cover x evenly. x [N, C, H, W] -> y [N, C, P, Q].

    output_size: one int or (P, Q); None keeps that size of x. Output row i averages rows floor(i*H/P) to
    ceil((i + 1)*H/P) - 1; with 1 it is global pooling. layout "NHWC": x [N, H, W, C] -> y [N, P, Q, C].
    Raises ValueError for a size below 1 or an image that is empty.
    """
    op = "adaptive_avg_pool2d"
    last = channels_last(op, layout)
    y = empty(op, _output_shape(op, x, output_size, last), x)
    if y.size:
        run("adaptive_avg_pool2d_forward", adaptive_avg_pool2d_forward, (x,), y, last)
    return y


@operator("dy", halves=True)
def adaptive_avg_pool2d_backward(dy: Array, input_shape: tuple[int, ...], layout: str = "NCHW") -> Array:
    """Gradient of adaptive_avg_pool2d: dy [N, C, P, Q] -> dx [N, C, H, W] = input_shape.

    layout is adaptive_avg_pool2d's. Raises ValueError for shapes that do not fit.
    """
    op = "adaptive_avg_pool2d_backward"
    last = channels_last(op, layout)
    shape = _input_shape(op, dy, input_shape, last)
    if not dy.size:
        return zeros(op, shape, dy)
    dx = empty(op, shape, dy)
    if dx.size:
        run("adaptive_avg_pool2d_backward", adaptive_avg_pool2d_backward_spread, (dy,), dx, last)
    return dx


@operator("x", halves=True)
def adaptive_max_pool2d(x: Array, output_size: Any, layout: str = "NCHW") -> tuple[Array, Array]:
    """Maxima over the windows of adaptive_avg_pool2d: x [N, C, H, W] -> y and its places argmax [N, C, P, Q].

    argmax is r * S + s inside the window, S its width; the first of equal ones (a NaN beats all, the last NaN
    wins); uint8, or int32 where windows can hold more than 256. layout "NHWC" is adaptive_avg_pool2d's.
    Raises ValueError for a size below 1 or an empty image.
    """
    op = "adaptive_max_pool2d"
    last = channels_last(op, layout)
    shape = _output_shape(op, x, output_size, last)
    y = empty(op, shape, x)
    argmax = empty(op, shape, x, _argmax_dtype(extents(x.shape, last), extents(shape, last)))
    if y.size:
        run("adaptive_max_pool2d_forward", adaptive_max_pool2d_forward, (x,), y, argmax, last)
    return y, argmax


@operator("dy", index="argmax", halves=True)
def adaptive_max_pool2d_backward(
    dy: Array, argmax: Array, input_shape: tuple[int, ...], layout: str = "NCHW"
) -> Array:
    """Gradient of adaptive_max_pool2d: dy, argmax [N, C, P, Q] -> dx [N, C, H, W], dy added at the maxima.

    input_shape is x's shape, argmax what adaptive_max_pool2d returned, in its layout. Raises ValueError for
    shapes that do not fit.
    """
    op = "adaptive_max_pool2d_backward"
    last = channels_last(op, layout)
    shape = _input_shape(op, dy, input_shape, last)
    expect_shape(op, "argmax", argmax, dy.shape)
    expected = _argmax_dtype(extents(shape, last), extents(dy.shape, last))
    if argmax.dtype != expected:
        raise TypeError(
            f"[{op}] argmax has dtype {argmax.dtype}, expected {expected} as adaptive_max_pool2d returns"
        )
    if not dy.size:
        return zeros(op, shape, dy)
    dx = empty(op, shape, dy)
    if dx.size:
        run("adaptive_max_pool2d_backward", adaptive_max_pool2d_backward_scatter, (dy, argmax), dx, last)
    return dx


def _output_shape(op: str, x: Array, output_size: Any, last: bool) -> tuple[int, ...]:
    expect_dims(op, "x", x, 4, IMAGE[last])
    h, w = extents(x.shape, last)
    wanted = tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size, output_size)
    if len(wanted) == 2:
        wanted = tuple(size if given is None else given for given, size in zip(wanted, (h, w)))
    if not (h and w):
        raise ValueError(f"[{op}] x has shape {x.shape}, expected an image that is not empty")
    return with_extents(x.shape, *pair(op, "output_size", wanted, 1), last)


def _input_shape(op: str, dy: Array, input_shape: Any, last: bool) -> tuple[int, ...]:
    expect_dims(op, "dy", dy, 4, POOLED[last])
    shape = shape_of(op, "input_shape", input_shape, 4, IMAGE[last])
    if 0 in extents(shape, last):
        raise ValueError(f"[{op}] input_shape is {shape}, expected an image that is not empty")
    channels = 3 if last else 1
    wanted = (shape[0], shape[channels])
    if (dy.shape[0], dy.shape[channels]) != wanted:
        raise ValueError(
            f"[{op}] dy has shape {dy.shape}, expected {wanted} images and channels of input_shape"
        )
    return shape


def _widest(size: int, out: int) -> int:
    """The most inputs that a window can have along one axis."""
    if not out:
        return 0
    return size // out if size % out == 0 else min(size // out + 2, size)


def _argmax_dtype(sizes: tuple[int, int], pooled: tuple[int, int]) -> np.dtype:
    area = _widest(sizes[0], pooled[0]) * _widest(sizes[1], pooled[1])
    return _UINT8 if area <= 256 else _INT32


def _cells(size: int, out: int) -> list[slice]:
    """The windows along one axis."""
    return [slice(i * size // out, -(-(i + 1) * size // out)) for i in range(out)]


def adaptive_avg_pool2d_forward(x: Array, y: Array, last: bool, xp: Any) -> None:
    """x [N, C, H, W]; y [N, C, P, Q], overwritten. last: their channels lie last."""
    x, y = channels_first(last, x, y)
    (n, c, h, _), (_, _, p, q) = x.shape, y.shape
    means = xp.empty((n, c, h, q), x.dtype)
    for i, cell in enumerate(_cells(x.shape[3], q)):
        xp.mean(x[..., cell], axis=3, out=means[..., i])
    for i, cell in enumerate(_cells(h, p)):
        xp.mean(means[:, :, cell], axis=2, out=y[:, :, i])


def adaptive_avg_pool2d_backward_spread(dy: Array, dx: Array, last: bool, xp: Any) -> None:
    """dy [N, C, P, Q]; dx [N, C, H, W], overwritten. last: their channels lie last."""
    dy, dx = channels_first(last, dy, dx)
    (n, c, h, w), (_, _, p, q) = dx.shape, dy.shape
    sums = xp.zeros((n, c, h, q), dy.dtype)
    for i, cell in enumerate(_cells(h, p)):
        sums[:, :, cell] += dy[:, :, i : i + 1] / (cell.stop - cell.start)
    dx[...] = 0
    for i, cell in enumerate(_cells(w, q)):
        dx[..., cell] += sums[..., i : i + 1] / (cell.stop - cell.start)


def adaptive_max_pool2d_forward(x: Array, y: Array, argmax: Array, last: bool, xp: Any) -> None:
    """x [N, C, H, W]; y and argmax [N, C, P, Q], overwritten. last: their channels lie last."""
    x, y, argmax = channels_first(last, x, y, argmax)
    columns = _cells(x.shape[3], y.shape[3])
    for i, rows in enumerate(_cells(x.shape[2], y.shape[2])):
        for j, cell in enumerate(columns):
            window = x[:, :, rows, cell].reshape(*x.shape[:2], -1)
            place = xp.argmax(window, axis=2)
            # argmax finds the first NaN; it is the last that counts, as in PyTorch.
            unknown = xp.isnan(window)
            last = window.shape[2] - 1 - xp.argmax(unknown[..., ::-1], axis=2)
            place = xp.where(unknown.any(axis=2), last, place)
            argmax[:, :, i, j] = place
            y[:, :, i, j] = xp.take_along_axis(window, place[..., None], axis=2)[..., 0]


def adaptive_max_pool2d_backward_scatter(dy: Array, argmax: Array, dx: Array, last: bool, xp: Any) -> None:
    """dy, argmax [N, C, P, Q]; dx [N, C, H, W], overwritten. last: their channels lie last."""
    dy, argmax, dx = channels_first(last, dy, argmax, dx)
    dx[...] = 0
    columns = _cells(dx.shape[3], dy.shape[3])
    for i, rows in enumerate(_cells(dx.shape[2], dy.shape[2])):
        for j, cell in enumerate(columns):
            height, width = rows.stop - rows.start, cell.stop - cell.start
            offsets = xp.arange(height * width).reshape(height, width)
            chosen = argmax[:, :, i, j, None, None] == offsets
            dx[:, :, rows, cell] += xp.where(chosen, dy[:, :, i, j, None, None], dy.dtype.type(0))
