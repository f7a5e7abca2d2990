"""Windows of pooling: their arguments, how many fit, and which inputs each of their places reads.

Images are [N, C, H, W] or, with the channels last, [N, H, W, C].
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from fastarch.ops._boundary import Array, Pair, expect_dims, flag, pair, shape_of

Sizes = tuple[int, int]  # height, width


IMAGE = ("[N, C, H, W]", "[N, H, W, C]")
POOLED = ("[N, C, P, Q]", "[N, P, Q, C]")


def extents(shape: tuple[int, ...], last: bool) -> tuple[int, int]:
    """(height, width) of images."""
    return (shape[1], shape[2]) if last else (shape[2], shape[3])


def with_extents(shape: tuple[int, ...], high: int, wide: int, last: bool) -> tuple[int, ...]:
    """The shape with another height and width."""
    return (shape[0], high, wide, shape[3]) if last else (shape[0], shape[1], high, wide)


def channels_first(last: bool, *images: Array) -> tuple[Array, ...]:
    """The images as [N, C, H, W] without copying."""
    return tuple(x.transpose(0, 3, 1, 2) for x in images) if last else images


class Window(NamedTuple):
    kernel: Sizes
    stride: Sizes
    padding: Sizes
    dilation: Sizes


def pooled(
    op: str,
    shape: tuple[int, ...],
    kernel_size: Pair,
    stride: Pair | None,
    padding: Pair,
    dilation: Pair,
    ceil_mode: bool,
    last: bool,
) -> tuple[Window, tuple[int, ...]]:
    """The checked window and the shape that pooling an array of `shape` with it gives."""
    # The types are settled here, because the cache below takes True and 1.0 for 1.
    if type(kernel_size) is not int:
        kernel_size = pair(op, "kernel_size", kernel_size, 1)
    if type(stride) is not int and stride is not None:
        stride = pair(op, "stride", stride, 1)
    if type(padding) is not int:
        padding = pair(op, "padding", padding, 0)
    if type(dilation) is not int:
        dilation = pair(op, "dilation", dilation, 1)
    return _pooled(op, shape, kernel_size, stride, padding, dilation, flag(op, "ceil_mode", ceil_mode), last)


@lru_cache(maxsize=4096)
def _pooled(
    op: str,
    shape: tuple[int, ...],
    kernel_size: Pair,
    stride: Pair | None,
    padding: Pair,
    dilation: Pair,
    ceil_mode: bool,
    last: bool,
) -> tuple[Window, tuple[int, ...]]:
    kernel = pair(op, "kernel_size", kernel_size, 1)
    padded = pair(op, "padding", padding, 0)
    if 2 * padded[0] > kernel[0] or 2 * padded[1] > kernel[1]:
        raise ValueError(f"[{op}] padding is {padded}, expected at most half the kernel size {kernel}")
    step = kernel if stride is None else pair(op, "stride", stride, 1)
    window = Window(kernel, step, padded, pair(op, "dilation", dilation, 1))
    h, w = extents(shape, last)
    p, q = _pooled_size(h, window, 0, ceil_mode), _pooled_size(w, window, 1, ceil_mode)
    if p < 1 or q < 1 or not (h and w):
        raise ValueError(
            f"[{op}] kernel_size {window.kernel} (dilation {window.dilation}) does not fit into an array of "
            f"shape {shape} with padding {window.padding}"
        )
    return window, with_extents(shape, p, q, last)


def _pooled_size(size: int, window: Window, axis: int, ceil_mode: bool) -> int:
    kernel, stride, padding, dilation = (sizes[axis] for sizes in window)
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    out = (room + stride - 1 if ceil_mode else room) // stride + 1
    # A window that would begin behind the input and its left padding is left out.
    return out - 1 if ceil_mode and (out - 1) * stride >= size + padding else out


def unpooled(
    op: str,
    dy: Array,
    input_shape: Any,
    kernel_size: Pair,
    stride: Pair | None,
    padding: Pair,
    dilation: Pair,
    last: bool,
) -> tuple[Window, tuple[int, ...]]:
    """The checked window and input_shape, whose pooling gives dy's shape, with or without ceil_mode."""
    expect_dims(op, "dy", dy, 4, POOLED[last])
    shape = shape_of(op, "input_shape", input_shape, 4, IMAGE[last])
    window, high = pooled(op, shape, kernel_size, stride, padding, dilation, True, last)
    if dy.shape == high:
        return window, shape
    h, w = extents(shape, last)
    p, q = _pooled_size(h, window, 0, False), _pooled_size(w, window, 1, False)
    low = with_extents(shape, p, q, last)
    if dy.shape == low:
        return window, shape
    expected = f"{low} or {high} (ceil_mode)" if p > 0 and q > 0 and low != high else f"{high}"
    raise ValueError(f"[{op}] dy has shape {dy.shape}, expected {expected}")


class Tap(NamedTuple):
    """Place `place` inside the windows along one axis: outputs `out` read (or write) the inputs `source`."""

    place: int
    out: slice
    source: slice


def taps_of(size: int, out: int, kernel: int, stride: int, padding: int, dilation: int) -> list[Tap]:
    """The taps of the windows along one axis, without what lies outside the input."""
    taps = []
    # Only the places that reach the input: a huge kernel lies mostly in the padding.
    first = max(0, -(((out - 1) * stride - padding) // dilation))
    for i in range(first, min(kernel, (size - 1 + padding) // dilation + 1)):
        shift = i * dilation - padding
        low = max(0, -(shift // stride))
        high = min(out, (size - 1 - shift) // stride + 1)
        if low < high:
            start = low * stride + shift
            taps.append(Tap(i, slice(low, high), slice(start, start + (high - low - 1) * stride + 1, stride)))
    return taps
