"""The three products of a convolution along two axes, array-generic.

Each is a matrix multiply on image patches, as in Chellapilla et al., "High performance convolutional neural
networks for document processing" (2006), over blocks of images (or of rows of one image) small enough that
the patches stay in cache.
"""

from __future__ import annotations

from typing import Any

from fastarch.ops import _patches
from fastarch.ops._boundary import Array
from fastarch.ops._elementwise import activation_forward
from fastarch.ops._products import linear_backward_input, linear_backward_weight, linear_forward


def _planes(layout: int, *images: Any) -> tuple[Any, ...]:
    """Views of images as [N, C, H, W]: all that is read or written here goes through strides."""
    return images if layout == 0 else tuple(None if x is None else x.transpose(0, 3, 1, 2) for x in images)


def _is_dense(
    layout: int, x: Array, weight: Array, y: Array, stride: tuple[int, int], padding: tuple[int, int]
) -> bool:
    """Whether it is a product of dense matrices, a row for each pixel of channels-last images."""
    same = stride == (1, 1) and padding == (0, 0) and x.shape[:3] == y.shape[:3]
    return layout == 1 and same and weight.shape[1:] == (x.shape[3], 1, 1)


def _rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


def conv2d_forward(
    x: Array,
    weight: Array,
    bias: Array | None,
    residual: Array | None,
    y: Array,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    kind: int,
    layout: int,
    xp: Any,
) -> None:
    """x [N, C, H, W], weight [K, C/groups, R, S], bias [K] or None; residual (or None) and y [N, K, P, Q], y
    overwritten. In layout 1 images are [N, H, W, C] and [N, P, Q, K], here and below.
    """
    if residual is None and _is_dense(layout, x, weight, y, stride, padding):
        return linear_forward(_rows(x), weight[:, :, 0, 0], bias, _rows(y), kind, xp)
    x, residual, y = _planes(layout, x, residual, y)
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
        if residual is not None:
            part += residual[block.n, :, block.p]
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
    layout: int,
    xp: Any,
) -> None:
    """dy [N, K, P, Q], weight [K, C/groups, R, S]; dx [N, C, H, W], overwritten."""
    if _is_dense(layout, dx, weight, dy, stride, padding):
        return linear_backward_input(_rows(dy), weight[:, :, 0, 0], _rows(dx), xp)
    dy, dx = _planes(layout, dy, dx)
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
    layout: int,
    xp: Any,
) -> None:
    """dy [N, K, P, Q], x [N, C, H, W]; dw [K, C/groups, R, S] and db [K] (or None), overwritten."""
    if _is_dense(layout, x, dw, dy, stride, padding):
        return linear_backward_weight(_rows(dy), _rows(x), dw[:, :, 0, 0], db, xp)
    dy, x = _planes(layout, dy, x)
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
