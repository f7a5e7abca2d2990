"""Max, average and adaptive average pooling over windows of [N, C, H, W]; semantics are PyTorch's."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastarch.ops._boundary import (
    Array,
    Pair,
    empty,
    expect_dims,
    expect_shape,
    flag,
    operator,
    pair,
    run,
    shape_of,
)

Sizes = tuple[int, int]

_BLOCK_BYTES = 1 << 20  # of images worked on at a time: within a core's cache


@operator("x")
def max_pool2d(
    x: Array,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
) -> tuple[Array, Array]:
    """The largest number of every window, and where in the window it is. x [N, C, H, W] -> y, argmax [N, C,
    P, Q].

    kernel_size, stride (default: kernel_size), padding (with -inf, at most half the kernel), dilation: one
    int or (height, width). ceil_mode lets a last window stick out. argmax is r * S + s inside the window, the
    first of equal ones (a NaN beats all, the last NaN wins); uint8, or int32 for windows of more than 256.
    Raises ValueError for values that do not fit.
    """
    op = "max_pool2d"
    window = _window(op, kernel_size, stride, padding, dilation)
    expect_dims(op, "x", x, 4, "[N, C, H, W]")
    shape = _pooled_shape(op, x.shape, window, flag(op, "ceil_mode", ceil_mode))
    y = empty(op, shape, x)
    argmax = empty(op, shape, x, _argmax_dtype(window.kernel))
    if y.size:
        run("max_pool2d_forward", max_pool2d_forward, (x,), y, argmax, *window)
    return y, argmax


@operator("dy", index="argmax")
def max_pool2d_backward(
    dy: Array,
    argmax: Array,
    input_shape: tuple[int, ...],
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
) -> Array:
    """Gradient of max_pool2d: every dy is added where its window's maximum was. dy, argmax [N, C, P, Q] -> dx
    [N, C, H, W].

    input_shape is x's shape; argmax and the window are max_pool2d's. Raises ValueError for shapes that do not
    fit.
    """
    op = "max_pool2d_backward"
    window = _window(op, kernel_size, stride, padding, dilation)
    shape = _check_pooled(op, dy, input_shape, window)
    expect_shape(op, "argmax", argmax, dy.shape)
    if argmax.dtype != _argmax_dtype(window.kernel):
        raise TypeError(
            f"[{op}] argmax has dtype {argmax.dtype}, "
            f"expected {_argmax_dtype(window.kernel)} as max_pool2d returns"
        )
    dx = empty(op, shape, dy, zero=dy.size == 0)
    if dx.size and dy.size:
        run("max_pool2d_backward", max_pool2d_backward_gather, (dy, argmax), dx, *window)
    return dx


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
    window = _window(op, kernel_size, stride, padding, 1)
    expect_dims(op, "x", x, 4, "[N, C, H, W]")
    shape = _pooled_shape(op, x.shape, window, flag(op, "ceil_mode", ceil_mode))
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
    window = _window(op, kernel_size, stride, padding, 1)
    shape = _check_pooled(op, dy, input_shape, window)
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
    if dy.shape[:2] != shape[:2]:
        raise ValueError(
            f"[{op}] dy has shape {dy.shape}, expected {shape[:2]} images and channels of input_shape"
        )
    dx = empty(op, shape, dy, zero=dy.size == 0)
    if dx.size and dy.size:
        run("adaptive_avg_pool2d_backward", adaptive_avg_pool2d_backward_spread, (dy,), dx)
    return dx


class _Window(NamedTuple):
    kernel: Sizes
    stride: Sizes
    padding: Sizes
    dilation: Sizes


def _window(op: str, kernel_size: Pair, stride: Pair | None, padding: Pair, dilation: Pair) -> _Window:
    kernel = pair(op, "kernel_size", kernel_size, 1)
    padded = pair(op, "padding", padding, 0)
    if 2 * padded[0] > kernel[0] or 2 * padded[1] > kernel[1]:
        raise ValueError(f"[{op}] padding is {padded}, expected at most half the kernel size {kernel}")
    step = kernel if stride is None else pair(op, "stride", stride, 1)
    return _Window(kernel, step, padded, pair(op, "dilation", dilation, 1))


def _pooled_shape(op: str, shape: tuple[int, ...], window: _Window, ceil_mode: bool) -> tuple[int, ...]:
    """The shape that pooling an array of `shape` gives."""
    p, q = _pooled_size(shape[2], window, 0, ceil_mode), _pooled_size(shape[3], window, 1, ceil_mode)
    if p < 1 or q < 1 or not (shape[2] and shape[3]):
        raise ValueError(
            f"[{op}] kernel_size {window.kernel} (dilation {window.dilation}) does not fit into x of shape "
            f"{shape} with padding {window.padding}"
        )
    return *shape[:2], p, q


def _pooled_size(size: int, window: _Window, axis: int, ceil_mode: bool) -> int:
    kernel, stride, padding, dilation = (sizes[axis] for sizes in window)
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    out = (room + stride - 1 if ceil_mode else room) // stride + 1
    # A window that would begin behind the input and its left padding is left out.
    return out - 1 if ceil_mode and (out - 1) * stride >= size + padding else out


def _check_pooled(op: str, dy: Array, input_shape: Any, window: _Window) -> tuple[int, ...]:
    """input_shape, after checking that dy's shape is what pooling it gives, with or without ceil_mode."""
    expect_dims(op, "dy", dy, 4, "[N, C, P, Q]")
    shape = shape_of(op, "input_shape", input_shape, 4, "[N, C, H, W]")
    high = _pooled_shape(op, shape, window, True)
    if dy.shape != high:
        low = _pooled_shape(op, shape, window, False)
        if dy.shape != low:
            expected = f"{low}" if low == high else f"{low} or {high} (ceil_mode)"
            raise ValueError(f"[{op}] dy has shape {dy.shape}, expected {expected}")
    return shape


def _argmax_dtype(kernel: Sizes) -> np.dtype:
    return np.dtype(np.uint8 if kernel[0] * kernel[1] <= 256 else np.int32)


class _Tap(NamedTuple):
    """Place `place` inside the windows along one axis: outputs `out` read (or write) the inputs `source`."""

    place: int
    out: slice
    source: slice


def _taps(size: int, out: int, kernel: int, stride: int, padding: int, dilation: int) -> list[_Tap]:
    """The taps of the windows along one axis, without what lies outside the input."""
    taps = []
    for i in range(kernel):
        shift = i * dilation - padding
        low = max(0, -(shift // stride))
        high = min(out, (size - 1 - shift) // stride + 1)
        if low < high:
            start = low * stride + shift
            taps.append(
                _Tap(i, slice(low, high), slice(start, start + (high - low - 1) * stride + 1, stride))
            )
    return taps


def max_pool2d_forward(
    x: Array,
    y: Array,
    argmax: Array,
    kernel: Sizes,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    xp: Any,
) -> None:
    """x [N, C, H, W]; y and argmax [N, C, P, Q], overwritten.

    First along the rows, then along the columns of what that leaves. The first of equal numbers wins in both,
    and so in the whole window: its rows come first in the order of places.
    """
    (h, w), (p, q) = x.shape[2:], y.shape[2:]
    rows = _taps(h, p, kernel[0], stride[0], padding[0], dilation[0])
    columns = _taps(w, q, kernel[1], stride[1], padding[1], dilation[1])
    images = max(1, _BLOCK_BYTES // (x[0].size * x.dtype.itemsize))
    for n in range(0, len(x), images):
        block = slice(n, n + images)
        # On the host NaN is looked for afterwards; on a device looking would wait for it.
        for careful in (False, True) if xp is np else (True,):
            best, place = _largest(x[block], None, 3, q, columns, 1, argmax.dtype, careful, xp)
            best, place = _largest(best, place, 2, p, rows, kernel[1], argmax.dtype, careful, xp)
            y[block], argmax[block] = best, place
            if careful or not np.isnan(best).any():
                break


def _largest(
    x: Array,
    inner: Array | None,
    axis: int,
    size: int,
    taps: list[_Tap],
    unit: int,
    dtype: np.dtype,
    careful: bool,
    xp: Any,
) -> tuple[Array, Array]:
    """The largest of the taps along `axis`, and its place: unit * tap, plus the place of `inner` that it came
    from.

    careful: lets NaN beat everything, the last one all others. An output with no tap inside the input is
    -inf, place 0.
    """
    shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])

    def along(part: slice) -> tuple[slice, ...]:
        return (slice(None),) * axis + (part,)

    best, place = xp.full(shape, -xp.inf, x.dtype), xp.zeros(shape, dtype)
    begun = size  # outputs from here on have met a tap
    for tap in taps:
        start, stop = tap.out.start, tap.out.stop
        fresh = max(0, min(begun, stop) - start)  # so many outputs meet their first tap
        begun = min(begun, start)
        new, old = along(slice(start, start + fresh)), along(slice(start + fresh, stop))
        first, later = along(slice(0, fresh)), along(slice(fresh, None))
        seen = x[along(tap.source)]
        places = (
            xp.full_like(seen, unit * tap.place, dtype)
            if inner is None
            else inner[along(tap.source)] + unit * tap.place
        )
        best[new], place[new] = seen[first], places[first]
        held, seen = best[old], seen[later]
        better = seen > held
        if careful:
            better |= seen != seen
        xp.maximum(held, seen, out=held)
        xp.copyto(place[old], places[later], where=better)
    return best, place


def max_pool2d_backward_gather(
    dy: Array,
    argmax: Array,
    dx: Array,
    kernel: Sizes,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    xp: Any,
) -> None:
    """dy, argmax [N, C, P, Q]; dx [N, C, H, W], overwritten."""
    (_, _, h, w), (_, _, p, q) = dx.shape, dy.shape
    dx[...] = 0
    for row in _taps(h, p, kernel[0], stride[0], padding[0], dilation[0]):
        for column in _taps(w, q, kernel[1], stride[1], padding[1], dilation[1]):
            at = (slice(None), slice(None), row.out, column.out)
            chosen = argmax[at] == row.place * kernel[1] + column.place
            dx[:, :, row.source, column.source] += dy[at] * chosen


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
    for tap in _taps(w, q, kernel[1], stride[1], padding[1], 1):
        sums[..., tap.out] += x[..., tap.source]
    y[...] = 0
    for tap in _taps(h, p, kernel[0], stride[0], padding[0], 1):
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
    for tap in _taps(h, p, kernel[0], stride[0], padding[0], 1):
        sums[:, :, tap.source] += shares[:, :, tap.out]
    dx[...] = 0
    for tap in _taps(w, q, kernel[1], stride[1], padding[1], 1):
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
