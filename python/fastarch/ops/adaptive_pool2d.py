"""Max and average pooling to a given size, by windows that cover [N, C, H, W] evenly, as in PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastarch.ops._boundary import (
    Array,
    empty,
    expect_dims,
    expect_shape,
    operator,
    pair,
    run,
    shape_of,
    zeros,
)

_UINT8, _INT32 = np.dtype(np.uint8), np.dtype(np.int32)


@operator("x", halves=True)
def adaptive_avg_pool2d(x: Array, output_size: Any) -> Array:
    """Means over a P x Q grid of windows that cover x evenly. x [N, C, H, W] -> y [N, C, P, Q].

    output_size: one int or (P, Q); None keeps that size of x. Output row i averages rows floor(i*H/P) to
    ceil((i + 1)*H/P) - 1; with 1 it is global pooling. Raises ValueError for a size below 1 or an image
    that is empty.
    """
    op = "adaptive_avg_pool2d"
    y = empty(op, _output_shape(op, x, output_size), x)
    if y.size:
        run("adaptive_avg_pool2d_forward", adaptive_avg_pool2d_forward, (x,), y)
    return y


@operator("dy", halves=True)
def adaptive_avg_pool2d_backward(dy: Array, input_shape: tuple[int, ...]) -> Array:
    """Gradient of adaptive_avg_pool2d: dy [N, C, P, Q] -> dx [N, C, H, W] = input_shape.

    Raises ValueError for shapes that do not fit.
    """
    op = "adaptive_avg_pool2d_backward"
    shape = _input_shape(op, dy, input_shape)
    if not dy.size:
        return zeros(op, shape, dy)
    dx = empty(op, shape, dy)
    if dx.size:
        run("adaptive_avg_pool2d_backward", adaptive_avg_pool2d_backward_spread, (dy,), dx)
    return dx


@operator("x", halves=True)
def adaptive_max_pool2d(x: Array, output_size: Any) -> tuple[Array, Array]:
    """Maxima over the windows of adaptive_avg_pool2d: x [N, C, H, W] -> y and its places argmax [N, C, P, Q].

    argmax is r * S + s inside the window, S its width; the first of equal ones (a NaN beats all, the last NaN
    wins); uint8, or int32 where windows can hold more than 256. Raises ValueError for a size below 1 or an
    empty image.
    """
    op = "adaptive_max_pool2d"
    shape = _output_shape(op, x, output_size)
    y = empty(op, shape, x)
    argmax = empty(op, shape, x, _argmax_dtype(x.shape, shape))
    if y.size:
        run("adaptive_max_pool2d_forward", adaptive_max_pool2d_forward, (x,), y, argmax)
    return y, argmax


@operator("dy", index="argmax", halves=True)
def adaptive_max_pool2d_backward(dy: Array, argmax: Array, input_shape: tuple[int, ...]) -> Array:
    """Gradient of adaptive_max_pool2d: dy, argmax [N, C, P, Q] -> dx [N, C, H, W], dy added at the maxima.

    input_shape is x's shape, argmax what adaptive_max_pool2d returned. Raises ValueError for shapes that do
    not fit.
    """
    op = "adaptive_max_pool2d_backward"
    shape = _input_shape(op, dy, input_shape)
    expect_shape(op, "argmax", argmax, dy.shape)
    expected = _argmax_dtype(shape, dy.shape)
    if argmax.dtype != expected:
        raise TypeError(
            f"[{op}] argmax has dtype {argmax.dtype}, expected {expected} as adaptive_max_pool2d returns"
        )
    if not dy.size:
        return zeros(op, shape, dy)
    dx = empty(op, shape, dy)
    if dx.size:
        run("adaptive_max_pool2d_backward", adaptive_max_pool2d_backward_scatter, (dy, argmax), dx)
    return dx


def _output_shape(op: str, x: Array, output_size: Any) -> tuple[int, ...]:
    expect_dims(op, "x", x, 4, "[N, C, H, W]")
    n, c, h, w = x.shape
    wanted = tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size, output_size)
    if len(wanted) == 2:
        wanted = tuple(size if given is None else given for given, size in zip(wanted, (h, w)))
    if not (h and w):
        raise ValueError(f"[{op}] x has shape {x.shape}, expected an image that is not empty")
    return (n, c, *pair(op, "output_size", wanted, 1))


def _input_shape(op: str, dy: Array, input_shape: Any) -> tuple[int, ...]:
    expect_dims(op, "dy", dy, 4, "[N, C, P, Q]")
    shape = shape_of(op, "input_shape", input_shape, 4, "[N, C, H, W]")
    if not (shape[2] and shape[3]):
        raise ValueError(f"[{op}] input_shape is {shape}, expected an image that is not empty")
    if dy.shape[:2] != shape[:2]:
        raise ValueError(
            f"[{op}] dy has shape {dy.shape}, expected {shape[:2]} images and channels of input_shape"
        )
    return shape


def _widest(size: int, out: int) -> int:
    """The most inputs that a window can have along one axis."""
    if not out:
        return 0
    return size // out if size % out == 0 else min(size // out + 2, size)


def _argmax_dtype(shape: tuple[int, ...], pooled: tuple[int, ...]) -> np.dtype:
    area = _widest(shape[2], pooled[2]) * _widest(shape[3], pooled[3])
    return _UINT8 if area <= 256 else _INT32


def _cells(size: int, out: int) -> list[slice]:
    """The windows along one axis."""
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


def adaptive_max_pool2d_forward(x: Array, y: Array, argmax: Array, xp: Any) -> None:
    """x [N, C, H, W]; y and argmax [N, C, P, Q], overwritten."""
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


def adaptive_max_pool2d_backward_scatter(dy: Array, argmax: Array, dx: Array, xp: Any) -> None:
    """dy, argmax [N, C, P, Q]; dx [N, C, H, W], overwritten."""
    dx[...] = 0
    columns = _cells(dx.shape[3], dy.shape[3])
    for i, rows in enumerate(_cells(dx.shape[2], dy.shape[2])):
        for j, cell in enumerate(columns):
            height, width = rows.stop - rows.start, cell.stop - cell.start
            offsets = xp.arange(height * width).reshape(height, width)
            chosen = argmax[:, :, i, j, None, None] == offsets
            dx[:, :, rows, cell] += xp.where(chosen, dy[:, :, i, j, None, None], dy.dtype.type(0))
