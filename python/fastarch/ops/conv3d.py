"""Convolution along three axes and its gradients, as convolutions of two axes.

The T slices that a window sees are stacked as channels: images [C*T, H, W] for each output slice, and weight
[K, C/groups, T, R, S] is [K, C*T/groups, R, S] as it lies in memory. The copy costs T times x in traffic,
little beside K*R*S multiply-adds for each of its elements, and every sum stays one product's sum: no results
are added up over slices. It is made a block of output slices at a time. The gradient of the input stacks the
slices of dy in the same way, those of one residue modulo the stride together, so that nothing is multiplied
by zeros between them.
"""

from __future__ import annotations

from collections.abc import Iterator

from numpy import ndarray

from fastarch.ops import _convolution
from fastarch.ops._boundary import (
    Array,
    activation_kind,
    empty,
    expect_shape,
    flag,
    flags,
    narrow,
    operator,
    widen,
    zeros,
)
from fastarch.ops._convolution import Geometry, Padding, Sizes

Triple = int | tuple[int, int, int]

_BLOCK_BYTES = 1 << 24  # of stacked slices at a time
_DEVICE_BLOCK_BYTES = 1 << 28


@operator("x", "weight", optional="bias", halves=True)
def conv3d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Triple = 1,
    padding: Padding = 0,
    dilation: Triple = 1,
    groups: int = 1,
    activation: str | None = None,
) -> Array:
    """Convolution of volumes with bias and activation: x [N, C, D, H, W], weight [K, C/groups, T, R, S] ->
    y [N, K, O, P, Q].

    bias: [K] or None. stride, dilation: one int or (depth, height, width). padding: the same, or "valid", or
    "same" (stride 1; of an odd total the end gets one more), or three pairs (before, after). activation:
    None, "relu", "tanh" or "sigmoid". Raises ValueError for shapes and values that do not fit. Ji et al., "3D
    convolutional neural networks for human action recognition" (2010).
    """
    kind = activation_kind("conv3d", activation)
    geometry, shape = _convolution.settle("conv3d", x, weight, stride, padding, dilation, groups, 3)
    if bias is not None:
        expect_shape("conv3d", "bias", bias, (shape[1],))
    y = empty("conv3d", shape, x)
    filters, plane = _as_images(weight), _of_planes(geometry)
    for n, o in _blocks(x, weight.shape[2], shape):
        images = _stack(x, n, o, weight.shape[2], geometry)
        product = empty("conv3d", (images.shape[0], *shape[1:2], *shape[3:]), x)
        _convolution.forward(images, filters, bias, product, plane, kind)
        part = y[n, :, o]
        part[...] = product.reshape(part.shape[0], -1, *product.shape[1:]).swapaxes(1, 2)
    return y


@operator("dy", "x", "weight", halves=True)
def conv3d_backward(
    dy: Array,
    x: Array,
    weight: Array,
    bias: bool = True,
    stride: Triple = 1,
    padding: Padding = 0,
    dilation: Triple = 1,
    groups: int = 1,
    need: tuple[bool, bool] = (True, True),
) -> tuple[Array | None, Array | None, Array | None]:
    """Gradients (dx, dw, db) of conv3d without activation, from dy [N, K, O, P, Q] and conv3d's x and weight.

    bias: whether db [K] is wanted; need: whether dx and dw are. What is not wanted is None. Raises ValueError
    for shapes and values that do not fit.
    """
    op = "conv3d_backward"
    geometry, shape = _convolution.settle(op, x, weight, stride, padding, dilation, groups, 3)
    expect_shape(op, "dy", dy, shape)
    bias = flag(op, "bias", bias)
    need_input, need_weight = flags(op, "need", need)
    dx = dw = db = None
    if need_input:
        dx = zeros(op, x.shape, x)
        if x.size:
            _input_gradient(dy, weight, dx, geometry)
    if need_weight or bias:
        # Blocks are added up in float32 at least.
        wide_dy, wide_x = widen(dy), widen(x)
        total = zeros(op, weight.shape, wide_x)
        sums = zeros(op, shape[1:2], wide_x) if bias else None
        _weight_gradient(wide_dy, wide_x, total, sums, geometry)
        dw, db = _narrowed(op, total, x), None if sums is None else _narrowed(op, sums, x)
    return dx, dw if need_weight else None, db


def _input_gradient(dy: Array, weight: Array, dx: Array, geometry: Geometry) -> None:
    """dx, zeros before: slices d, d + stride, ... see the same taps, and each tap a line of dy's slices."""
    op = "conv3d_backward"
    stride, padding, dilation = (axis[0] for axis in geometry[:3])
    plane = _of_planes(geometry)
    k, c, depth = weight.shape[0], weight.shape[1] * geometry.groups, dx.shape[2]
    for first in range(min(stride, depth)):
        taps = [t for t in range(weight.shape[2]) if (first + padding - t * dilation) % stride == 0]
        if not taps:
            continue
        filters = _as_filters(weight[:, :, taps])
        slices = range(first, depth, stride)
        for n, o in _blocks(dy, len(taps), (dx.shape[0], c, len(slices))):
            lines = []
            for tap in taps:
                begin = (first + padding - tap * dilation) // stride
                lines.append((begin + o.start, begin + o.stop))
            images = _stack_lines(dy, n, lines)
            count, rows = n.stop - n.start, o.stop - o.start
            product = empty(op, (count * rows, c, *dx.shape[3:]), dy)
            _convolution.backward_input(
                images.reshape(-1, k * len(taps), *dy.shape[3:]), filters, product, plane
            )
            dx[n, :, slices[o.start] : slices[o.stop - 1] + 1 : stride] = product.reshape(
                count, rows, *product.shape[1:]
            ).swapaxes(1, 2)


def _weight_gradient(dy: Array, x: Array, dw: Array, db: Array | None, geometry: Geometry) -> None:
    """Adds to dw and db, blocks in a fixed order."""
    op = "conv3d_backward"
    plane = _of_planes(geometry)
    part_dw = empty(op, _as_images(dw).shape, dw)
    part_db = None if db is None else empty(op, db.shape, dw)
    for n, o in _blocks(x, dw.shape[2], dy.shape):
        images = _stack(x, n, o, dw.shape[2], geometry)
        gradient = dy[n, :, o].swapaxes(1, 2)
        gradient = gradient.reshape(-1, *gradient.shape[2:])
        _convolution.backward_weight(gradient, images, part_dw, part_db, plane)
        dw += part_dw.reshape(dw.shape)
        if db is not None:
            db += part_db


def _as_images(weight: Array) -> Array:
    """weight [K, C/groups, T, R, S] for images whose channels are (c, t)."""
    k, c, t, *window = weight.shape
    return weight.reshape(k, c * t, *window)


def _as_filters(weight: Array) -> Array:
    """weight [K, C/groups, T, R, S] for output gradients whose channels are (k, t)."""
    k, c, t, *window = weight.shape
    return weight.swapaxes(1, 2).reshape(k * t, c, *window)


def _of_planes(geometry: Geometry) -> Geometry:
    return Geometry(geometry.stride[1:], geometry.padding[1:], geometry.dilation[1:], geometry.groups)


def _blocks(x: Array, taps: int, out: Sizes) -> Iterator[tuple[slice, slice]]:
    """(images, output slices) that are worked on together: whole images, or some slices of one."""
    n, slices = out[0], out[2]
    bytes_a_slice = x.dtype.itemsize * x.shape[1] * taps * x.shape[3] * x.shape[4]
    budget = _BLOCK_BYTES if type(x) is ndarray else _DEVICE_BLOCK_BYTES
    many = max(1, budget // max(bytes_a_slice, 1))
    images, rows = max(1, many // slices), min(many, slices)
    for i in range(0, n, images):
        for j in range(0, slices, rows):
            yield slice(i, min(n, i + images)), slice(j, min(slices, j + rows))


def _stack(x: Array, n: slice, o: slice, taps: int, geometry: Geometry) -> Array:
    """What the windows of output slices o see of x [N, C, D, H, W]: [images * slices, C*T, H, W]."""
    stride, padding, dilation = (axis[0] for axis in geometry[:3])
    first = o.start * stride - padding
    lines = [
        (first + t * dilation, first + t * dilation + (o.stop - o.start - 1) * stride + 1)
        for t in range(taps)
    ]
    stacked = _stack_lines(x, n, lines, stride)
    planes = stacked.shape[0] * stacked.shape[1]  # -1 would be ambiguous for empty ones
    return stacked.reshape(planes, x.shape[1] * taps, *x.shape[3:])


def _stack_lines(x: Array, n: slice, lines: list[tuple[int, int]], step: int = 1) -> Array:
    """[images, slices, C, lines, H, W]: line t is slices range(*lines[t], step) of x, zero outside of x."""
    begin, end = lines[0]
    count = (end - begin - 1) // step + 1
    depth = x.shape[2]
    shape = (n.stop - n.start, count, x.shape[1], len(lines), *x.shape[3:])
    inside = all(begin >= 0 and end <= depth for begin, end in lines)
    stacked = (empty if inside else zeros)("conv3d", shape, x)
    for t, (begin, _) in enumerate(lines):
        low = max(0, -(begin // step))
        high = min(count, (depth - 1 - begin) // step + 1)
        if low < high:
            source = x[n, :, begin + low * step : begin + (high - 1) * step + 1 : step]
            stacked[:, low:high, :, t] = source.swapaxes(1, 2)
    return stacked


def _narrowed(op: str, wide: Array, like: Array) -> Array:
    """`wide` in the dtype of `like`."""
    if wide.dtype == like.dtype:
        return wide
    out = empty(op, wide.shape, like)
    narrow(wide, out)
    return out
