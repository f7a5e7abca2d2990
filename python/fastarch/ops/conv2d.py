"""Two-dimensional convolution (cross-correlation, as every deep-learning library means it) and its gradients.

The array-generic implementation is a matrix multiply on image patches, as in Chellapilla et al., "High
performance convolutional neural networks for document processing" (2006), over blocks of images (or of rows
of one image) small enough that the patches stay in cache.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from fastarch import precisions
from fastarch.ops import _patches
from fastarch.ops._boundary import (
    Array,
    Pair,
    activation_kind,
    empty,
    expect_dims,
    expect_shape,
    flag,
    flags,
    integer,
    operator,
    pair,
    run,
    zeros,
)
from fastarch.ops._elementwise import activation_forward

Padding = Pair | str
_Geometry = tuple[tuple[int, int], tuple[int, int], tuple[int, int], int, tuple[int, int, int, int]]


@operator("x", "weight", optional="bias", halves=True)
def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    activation: str | None = None,
) -> Array:
    """Convolution with bias and activation: x [N, C, H, W], weight [K, C/groups, R, S] -> y [N, K, P, Q].

    bias: [K] or None. stride, padding, dilation: one int or (height, width); padding also "valid" or "same"
    (stride 1). P is (H + 2*padding - dilation*(R - 1) - 1) // stride + 1. activation: None, "relu", "tanh" or
    "sigmoid". Raises ValueError for shapes and values that do not fit. LeCun et al. (1998).
    """
    kind = activation_kind("conv2d", activation)
    stride, begin, dilation, groups, shape = _settle("conv2d", x, weight, stride, padding, dilation, groups)
    if bias is not None:
        expect_shape("conv2d", "bias", bias, (shape[1],))
    y = empty("conv2d", shape, x)
    if y.size:
        run(
            "conv2d_forward",
            conv2d_forward,
            (x, weight, bias),
            y,
            stride,
            begin,
            dilation,
            groups,
            kind,
            precision=precisions.current(),
        )
    return y


@operator("dy", "x", "weight", halves=True)
def conv2d_backward(
    dy: Array,
    x: Array,
    weight: Array,
    bias: bool = True,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    need: tuple[bool, bool] = (True, True),
) -> tuple[Array | None, Array | None, Array | None]:
    """Gradients (dx, dw, db) of conv2d without activation, from dy [N, K, P, Q] and conv2d's x and weight.

    bias: whether db [K] is wanted; need: whether dx and dw are (a first layer needs no dx). What is not
    wanted is None. Raises ValueError for shapes and values that do not fit.
    """
    op = "conv2d_backward"
    stride, begin, dilation, groups, shape = _settle(op, x, weight, stride, padding, dilation, groups)
    expect_shape(op, "dy", dy, shape)
    bias = flag(op, "bias", bias)
    need_input, need_weight = flags(op, "need", need)
    # Of an empty batch, the gradients are sums of nothing.
    new, empty_batch = (empty, False) if dy.size else (zeros, True)
    dx = dw = db = None
    if need_input:
        dx = new(op, x.shape, x)
        if dx.size and not empty_batch:
            run(
                "conv2d_backward_input",
                conv2d_backward_input,
                (dy, weight),
                dx,
                stride,
                begin,
                dilation,
                groups,
                precision=precisions.current(),
            )
    if need_weight or bias:
        dw = new(op, weight.shape, x)
        db = new(op, shape[1:2], x) if bias else None
        if not empty_batch:
            run(
                "conv2d_backward_weight",
                conv2d_backward_weight,
                (dy, x),
                dw,
                db,
                stride,
                begin,
                dilation,
                groups,
                precision=precisions.current(),
            )
    return dx, dw if need_weight else None, db


def _settle(
    op: str, x: Array, weight: Array, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> _Geometry:
    """Checked (stride, padding at top and left, dilation, groups, y's shape)."""
    expect_dims(op, "x", x, 4, "[N, C, H, W]")
    expect_dims(op, "weight", weight, 4, "[K, C/groups, R, S]")
    # The types are settled here, because the cache below takes True and 1.0 for 1.
    if type(stride) is not int:
        stride = pair(op, "stride", stride, 1)
    if type(padding) is not int and type(padding) is not str:
        padding = pair(op, "padding", padding, 0)
    if type(dilation) is not int:
        dilation = pair(op, "dilation", dilation, 1)
    if type(groups) is not int:
        groups = integer(op, "groups", groups)
    return _geometry(op, x.shape, weight.shape, stride, padding, dilation, groups)


@lru_cache(maxsize=4096)
def _geometry(
    op: str,
    x: tuple[int, ...],
    weight: tuple[int, ...],
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> _Geometry:
    n, c, h, w = x
    k, c_group, r, s = weight
    stride, dilation = pair(op, "stride", stride, 1), pair(op, "dilation", dilation, 1)
    if not k * c_group * r * s:
        raise ValueError(f"[{op}] weight has shape {weight}, expected no size of zero")
    if groups < 1 or k % groups or c % groups:
        raise ValueError(
            f"[{op}] groups is {groups}, expected a divisor of x's {c} channels and weight's {k} filters"
        )
    if c != c_group * groups:
        raise ValueError(f"[{op}] x has {c} channels, weight expects {c_group * groups} (groups={groups})")
    reach_h, reach_w = dilation[0] * (r - 1), dilation[1] * (s - 1)
    if isinstance(padding, str):
        top, left, pad_h, pad_w = _named_padding(op, padding, stride, reach_h, reach_w)
    else:
        top, left = pair(op, "padding", padding, 0)
        pad_h, pad_w = 2 * top, 2 * left
    room_h, room_w = h + pad_h - reach_h - 1, w + pad_w - reach_w - 1
    if room_h < 0 or room_w < 0:
        raise ValueError(
            f"[{op}] weight reaches over {(reach_h + 1, reach_w + 1)} pixels (dilation included), "
            f"more than the padded input {(h + pad_h, w + pad_w)}"
        )
    return stride, (top, left), dilation, groups, (n, k, room_h // stride[0] + 1, room_w // stride[1] + 1)


def _named_padding(
    op: str, name: str, stride: tuple[int, int], reach_h: int, reach_w: int
) -> tuple[int, int, int, int]:
    """(top, left, top + bottom, left + right); of an odd total the end gets more, as in PyTorch."""
    if name == "valid":
        return 0, 0, 0, 0
    if name != "same":
        raise ValueError(f"[{op}] padding is {name!r}, expected ints, 'valid' or 'same'")
    if stride != (1, 1):
        raise ValueError(f"[{op}] padding 'same' with stride {stride}, expected stride 1")
    return reach_h // 2, reach_w // 2, reach_h, reach_w


def conv2d_forward(
    x: Array,
    weight: Array,
    bias: Array | None,
    y: Array,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    kind: int,
    xp: Any,
) -> None:
    """x [N, C, H, W], weight [K, C/groups, R, S], bias [K] or None; y [N, K, P, Q], overwritten."""
    k = weight.shape[0]
    plan = _patches.Plan(x.shape, weight.shape, y.shape, stride, padding, dilation, x)
    filters = weight.reshape(groups, k // groups, -1)
    reader = _patches.Reader(plan, x, xp)
    buffer = xp.empty(k * plan.block, x.dtype)
    for block in plan.blocks():
        patches = reader.read(block).reshape(groups, filters.shape[2], block.size)
        product = buffer[: k * block.size].reshape(groups, k // groups, block.size)
        xp.matmul(filters, patches, out=product)
        valid = product.reshape(k, block.images, block.rows, plan.width)[..., : plan.q].swapaxes(0, 1)
        part = y[block.n, :, block.p]
        if bias is None:
            part[...] = valid
        else:
            xp.add(valid, bias[:, None, None], out=part)
        if kind:
            activation_forward(part, part, kind, xp)


def conv2d_backward_input(
    dy: Array,
    weight: Array,
    dx: Array,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    xp: Any,
) -> None:
    """dy [N, K, P, Q], weight [K, C/groups, R, S]; dx [N, C, H, W], overwritten."""
    k = weight.shape[0]
    plan = _patches.Plan(dx.shape, weight.shape, dy.shape, stride, padding, dilation, dy, True)
    filters = weight.reshape(groups, k // groups, -1).swapaxes(1, 2)
    gradients = _patches.Gradients(plan, dy, xp)
    adder = _patches.Adder(plan, dx, xp)
    buffer = xp.empty(plan.taps * plan.block, dy.dtype)
    for block in plan.blocks():
        product = buffer[: plan.taps * block.size].reshape(groups, filters.shape[1], block.size)
        gradient = gradients.read(block).reshape(groups, k // groups, block.size)
        # BLAS is slow at outer products, which is what one filter a group makes.
        (xp.multiply if k == groups else xp.matmul)(filters, gradient, out=product)
        adder.add(block, product.reshape(plan.c, plan.r, plan.s, block.size))


def conv2d_backward_weight(
    dy: Array,
    x: Array,
    dw: Array,
    db: Array | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    xp: Any,
) -> None:
    """dy [N, K, P, Q], x [N, C, H, W]; dw [K, C/groups, R, S] and db [K] (or None), overwritten."""
    k = dw.shape[0]
    plan = _patches.Plan(x.shape, dw.shape, dy.shape, stride, padding, dilation, x)
    # The taller operand goes first: BLAS is faster that way.
    taps = plan.taps // groups
    turned = taps > k // groups
    total = (
        xp.empty((groups, taps, k // groups), dw.dtype) if turned else dw.reshape(groups, k // groups, taps)
    )
    gradients = _patches.Gradients(plan, dy, xp)
    reader = _patches.Reader(plan, x, xp)
    for i, block in enumerate(plan.blocks()):
        gradient = gradients.read(block).reshape(groups, k // groups, block.size)
        patches = reader.read(block).reshape(groups, taps, block.size)
        left, right = (patches, gradient) if turned else (gradient, patches)
        sums = gradient.reshape(k, block.size).sum(axis=1) if db is not None else None
        if i == 0:
            xp.matmul(left, right.swapaxes(1, 2), out=total)
            if db is not None:
                db[...] = sums
        else:
            total += xp.matmul(left, right.swapaxes(1, 2))
            if db is not None:
                db += sums
    if turned:
        dw.reshape(groups, k // groups, taps)[...] = total.swapaxes(1, 2)
