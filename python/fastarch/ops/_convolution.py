"""What the convolutions share: their geometry along any number of axes, and the products of two axes.

A convolution along one axis is one of two axes on images of one row; one along three stacks the slices that a
window sees as channels; a transposed one swaps the roles of input and output. So all of them run on the same
three products: forward, the gradient of the input and the gradient of the weight.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from fastarch import algorithms, precisions
from fastarch.ops._boundary import (
    Array,
    empty,
    expect_dims,
    flag,
    flags,
    integer,
    pair,
    run,
    zeros,
)
from fastarch.ops._patch_products import (
    conv2d_backward_input,
    conv2d_backward_weight,
    conv2d_forward,
)

Sizes = tuple[int, ...]
Side = int | tuple[int, int]  # of one axis: the same at both ends, or (before, after)
Padding = int | str | tuple[Side, ...]

_LARGEST = 2**31 - 1
_IMAGE = {1: "[N, C, L]", 2: "[N, C, H, W]", 3: "[N, C, D, H, W]"}
_CHANNELS_LAST = "[N, H, W, C]"
_WEIGHT = {1: "[K, C/groups, S]", 2: "[K, C/groups, R, S]", 3: "[K, C/groups, T, R, S]"}
_TURNED = {1: "[C, K/groups, S]", 2: "[C, K/groups, R, S]"}
_NUMBERS = {1: "one (length)", 2: "one or two (height, width)", 3: "one or three (depth, height, width)"}


class Geometry(NamedTuple):
    """How windows lie on an input: a number for each axis; padding is what comes before the first element.

    layout: 1 where images of two axes have the channels last, else 0.
    """

    stride: Any
    padding: Any
    dilation: Any
    groups: int
    layout: int = 0

    def of_rows(self) -> Geometry:
        """That of one axis, on images of one row."""
        return Geometry((1, *self.stride), (0, *self.padding), (1, *self.dilation), self.groups)


def sizes(op: str, name: str, value: Any, least: int, axes: int) -> Sizes:
    """A number for each axis, each at least `least`, from one int or as many as there are axes."""
    if axes == 2:
        return pair(op, name, value, least)
    parts = tuple(value) if isinstance(value, (tuple, list)) else (value,) * axes
    if len(parts) != axes:
        raise ValueError(f"[{op}] {name} has {len(parts)} numbers, expected {_NUMBERS[axes]}")
    numbers = tuple(integer(op, name, part) for part in parts)
    if min(numbers) < least or max(numbers) > _LARGEST:
        raise ValueError(f"[{op}] {name} is {value}, expected at least {least} and at most {_LARGEST}")
    return numbers


def sides(op: str, padding: Any, axes: int) -> tuple[Side, ...]:
    """Padding as a tuple with an entry for each axis: an int or (before, after)."""
    if not (isinstance(padding, (tuple, list)) and any(isinstance(side, (tuple, list)) for side in padding)):
        return sizes(op, "padding", padding, 0, axes)
    if len(padding) != axes:
        raise ValueError(f"[{op}] padding has {len(padding)} entries, expected {_NUMBERS[axes]}")
    return tuple(pair(op, "padding", side, 0) for side in padding)


def settle(
    op: str,
    x: Array,
    weight: Array,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    axes: int,
    last: bool = False,
) -> tuple[Geometry, Sizes]:
    """The checked geometry of a convolution and its output's shape; last: the channels are x's last axis."""
    expect_dims(op, "x", x, axes + 2, _CHANNELS_LAST if last else _IMAGE[axes])
    expect_dims(op, "weight", weight, axes + 2, _WEIGHT[axes])
    # The types are settled here, because the cache below takes True and 1.0 for 1.
    if type(stride) is not int:
        stride = sizes(op, "stride", stride, 1, axes)
    if type(padding) is not int and type(padding) is not str:
        padding = sides(op, padding, axes)
    if type(dilation) is not int:
        dilation = sizes(op, "dilation", dilation, 1, axes)
    if type(groups) is not int:
        groups = integer(op, "groups", groups)
    return _settled(op, x.shape, weight.shape, stride, padding, dilation, groups, last)


@lru_cache(maxsize=4096)
def _settled(
    op: str, x: Sizes, weight: Sizes, stride: Any, padding: Any, dilation: Any, groups: int, last: bool
) -> tuple[Geometry, Sizes]:
    (n, c, *extent), (k, c_group, *window) = x, weight
    if last:
        n, *extent, c = x
    axes = len(extent)
    stride, dilation = sizes(op, "stride", stride, 1, axes), sizes(op, "dilation", dilation, 1, axes)
    if 0 in weight:
        raise ValueError(f"[{op}] weight has shape {weight}, expected no size of zero")
    if groups < 1 or k % groups or c % groups:
        raise ValueError(
            f"[{op}] groups is {groups}, expected a divisor of x's {c} channels and weight's {k} filters"
            f"{_in_layout(axes, last)}"
        )
    if c != c_group * groups:
        raise ValueError(
            f"[{op}] x has {c} channels, weight expects {c_group * groups} (groups={groups})"
            f"{_in_layout(axes, last)}"
        )
    reach = tuple(step * (size - 1) for step, size in zip(dilation, window))
    before, total = _padded(op, padding, stride, reach)
    padded = tuple(size + more for size, more in zip(extent, total))
    room = tuple(size - far - 1 for size, far in zip(padded, reach))
    if min(room) < 0:
        raise ValueError(
            f"[{op}] weight reaches over {tuple(far + 1 for far in reach)} pixels (dilation included), "
            f"more than the padded input {padded}"
        )
    out = (size // step + 1 for size, step in zip(room, stride))
    return Geometry(stride, before, dilation, groups, int(last)), (n, *out, k) if last else (n, k, *out)


def _in_layout(axes: int, last: bool) -> str:
    """How to name the layout in an error: an image in the other one has another number of channels."""
    return "" if axes != 2 else " in layout NHWC" if last else " in layout NCHW"


def _padded(op: str, padding: Any, stride: Sizes, reach: Sizes) -> tuple[Sizes, Sizes]:
    """(before, before + after) for each axis; of an odd total "same" puts more after, as in PyTorch."""
    if padding == "valid":
        return (0,) * len(reach), (0,) * len(reach)
    if padding == "same":
        if max(stride) != 1:
            raise ValueError(f"[{op}] padding 'same' with stride {stride}, expected stride 1")
        return tuple(far // 2 for far in reach), reach
    if isinstance(padding, str):
        raise ValueError(f"[{op}] padding is {padding!r}, expected ints, 'valid' or 'same'")
    entries = [pair(op, "padding", side, 0) for side in sides(op, padding, len(reach))]
    return tuple(before for before, _ in entries), tuple(sum(entry) for entry in entries)


def settle_transposed(
    op: str,
    x: Array,
    weight: Array,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
    axes: int,
) -> tuple[Geometry, Sizes]:
    """The checked geometry of a transposed convolution, that of the convolution it is the gradient of, and
    its output's shape.
    """
    expect_dims(op, "x", x, axes + 2, _IMAGE[axes])
    expect_dims(op, "weight", weight, axes + 2, _TURNED[axes])
    stride, dilation = sizes(op, "stride", stride, 1, axes), sizes(op, "dilation", dilation, 1, axes)
    entries = [pair(op, "padding", side, 0) for side in sides(op, padding, axes)]
    more = sizes(op, "output_padding", output_padding, 0, axes)
    groups = integer(op, "groups", groups)
    (n, c, *extent), (c_weight, k_group, *window) = x.shape, weight.shape
    if 0 in weight.shape:
        raise ValueError(f"[{op}] weight has shape {weight.shape}, expected no size of zero")
    if c != c_weight:
        raise ValueError(f"[{op}] x has {c} channels, weight expects {c_weight}")
    if groups < 1 or c % groups:
        raise ValueError(f"[{op}] groups is {groups}, expected a divisor of x's {c} channels")
    if 0 in extent:
        raise ValueError(f"[{op}] x has shape {x.shape}, expected no size of zero but the batch's")
    for extra, step, gap in zip(more, stride, dilation):
        if extra >= max(step, gap):
            raise ValueError(
                f"[{op}] output_padding is {output_padding}, expected less than stride {stride} or "
                f"dilation {dilation}"
            )
    out = tuple(
        (size - 1) * step + gap * (taps - 1) + 1 + extra - sum(entry)
        for size, step, gap, taps, extra, entry in zip(extent, stride, dilation, window, more, entries)
    )
    if min(out) < 1:
        raise ValueError(f"[{op}] padding {padding} leaves nothing of the output: its size would be {out}")
    before = tuple(entry[0] for entry in entries)
    return Geometry(stride, before, dilation, groups), (n, k_group * groups, *out)


# The products of two axes; in layout 1 images are [N, H, W, C] and [N, P, Q, K]


def forward(
    x: Array,
    weight: Array,
    bias: Array | None,
    y: Array,
    geometry: Geometry,
    kind: int = 0,
    residual: Array | None = None,
) -> None:
    """x [N, C, H, W], weight [K, C/groups, R, S], bias [K] or None; y and residual (or None) [N, K, P, Q], y
    overwritten.
    """
    if y.size:
        *windows, layout = geometry
        run(
            "conv2d_forward",
            conv2d_forward,
            (x, weight, bias, residual),
            y,
            *windows,
            kind,
            layout,
            precision=precisions.current(),
            algorithm=algorithms.current(),
        )


def backward_input(dy: Array, weight: Array, dx: Array, geometry: Geometry) -> None:
    """dy [N, K, P, Q], weight [K, C/groups, R, S]; dx [N, C, H, W], overwritten."""
    if dx.size:
        run(
            "conv2d_backward_input",
            conv2d_backward_input,
            (dy, weight),
            dx,
            *geometry,
            precision=precisions.current(),
            algorithm=algorithms.current(),
        )


def backward_weight(dy: Array, x: Array, dw: Array, db: Array | None, geometry: Geometry) -> None:
    """dy [N, K, P, Q], x [N, C, H, W]; dw [K, C/groups, R, S] and db [K] (or None), overwritten."""
    precision = precisions.current()
    run("conv2d_backward_weight", conv2d_backward_weight, (dy, x), dw, db, *geometry, precision=precision)


def gradients(
    op: str, dy: Array, x: Array, weight: Array, bias: bool, need: tuple[bool, bool], geometry: Geometry
) -> tuple[Array | None, Array | None, Array | None]:
    """(dx, dw, db) of a convolution along two axes, None for what is not wanted."""
    bias = flag(op, "bias", bias)
    need_input, need_weight = flags(op, "need", need)
    # Of an empty batch, the gradients are sums of nothing.
    new, empty_batch = (empty, False) if dy.size else (zeros, True)
    dx = dw = db = None
    if need_input:
        dx = new(op, x.shape, x)
        if not empty_batch:
            backward_input(dy, weight, dx, geometry)
    if need_weight or bias:
        dw = new(op, weight.shape, x)
        db = new(op, weight.shape[:1], x) if bias else None
        if not empty_batch:
            backward_weight(dy, x, dw, db, geometry)
    return dx, dw if need_weight else None, db
