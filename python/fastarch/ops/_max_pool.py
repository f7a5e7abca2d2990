"""Max pooling, array-generic: what the kernels compute, for every operator that contains it."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastarch.ops._boundary import Array
from fastarch.ops._elementwise import choose
from fastarch.ops._windows import Sizes, Window, channels_first, taps_of

_BLOCK_BYTES = 1 << 20  # of images worked on at a time: within a core's cache


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
