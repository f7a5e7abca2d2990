"""Softmax, its logarithm, and cross-entropy fused with it."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastarch.arrays import is_half
from fastarch.ops._boundary import (
    Array,
    as_int64,
    empty,
    expect_dims,
    expect_shape,
    integer,
    namespace,
    narrow,
    operator,
    run,
    widen,
    zeros,
)


@operator("x", halves=True)
def softmax(x: Array, axis: int = -1) -> Array:
    """exp(x) / sum(exp(x)) along `axis`, for x of any shape with at least one axis; stable for large x.

    Raises ValueError for an axis that x does not have.
    """
    axis = _axis("softmax", x, axis)
    y = empty("softmax", x.shape, x)
    if y.size == 0:
        return y
    if axis == x.ndim - 1:
        run("softmax_forward", softmax_forward, (x.reshape(-1, x.shape[-1]),), y.reshape(-1, x.shape[-1]))
        return y
    y[...] = _last(softmax(_last(x, axis)), axis)
    return y


@operator("dy", "y", halves=True)
def softmax_backward(dy: Array, y: Array, axis: int = -1) -> Array:
    """Gradient of softmax from its output y: y * (dy - sum(dy * y)) along `axis`. dy and y have one shape."""
    op = "softmax_backward"
    axis = _axis(op, y, axis)
    expect_shape(op, "dy", dy, y.shape)
    dx = empty(op, y.shape, y)
    if dx.size == 0:
        return dx
    if axis == y.ndim - 1:
        rows = (-1, y.shape[-1])
        run("softmax_backward", softmax_backward_rows, (dy.reshape(rows), y.reshape(rows)), dx.reshape(rows))
        return dx
    dx[...] = _last(softmax_backward(_last(dy, axis), _last(y, axis)), axis)
    return dx


@operator("x", halves=True)
def log_softmax(x: Array, axis: int = -1) -> Array:
    """x - log(sum(exp(x))) along `axis`, for x of any shape with at least one axis; stable for large x.

    Array-generic on every backend: no architecture of the set calls it in a hot loop.
    """
    axis = _axis("log_softmax", x, axis)
    xp = namespace(x)
    y = empty("log_softmax", x.shape, x)
    if y.size == 0:
        return y
    if is_half(x.dtype):
        narrow(log_softmax(widen(x), axis), y)
        return y
    with np.errstate(invalid="ignore"):  # a row of -inf alone is NaN, quietly, as in PyTorch
        xp.subtract(x, x.max(axis=axis, keepdims=True), out=y)
        y -= xp.log(xp.exp(y).sum(axis=axis, keepdims=True))
    return y


@operator("dy", "y", halves=True)
def log_softmax_backward(dy: Array, y: Array, axis: int = -1) -> Array:
    """Gradient of log_softmax from its output y: dy - exp(y) * sum(dy) along `axis`; shapes are equal."""
    axis = _axis("log_softmax_backward", y, axis)
    expect_shape("log_softmax_backward", "dy", dy, y.shape)
    xp = namespace(y)
    dx = empty("log_softmax_backward", y.shape, y)
    if is_half(y.dtype):
        narrow(log_softmax_backward(widen(dy), widen(y), axis), dx)
        return dx
    xp.exp(y, out=dx)
    dx *= dy.sum(axis=axis, keepdims=True)
    return xp.subtract(dy, dx, out=dx)


@operator("logits", index="target", halves=True)
def cross_entropy(logits: Array, target: Array, ignore_index: int = -100) -> tuple[Array, Array]:
    """Negative log-likelihood of each row's target class under softmax, and the softmax itself.

    logits [M, C], target [M] integers in [0, C) or `ignore_index` -> loss [M] (0 where ignored), probs [M,
    C]. Raises ValueError for a target out of range on the host; on a device, where looking would wait for it,
    that row's loss is NaN.
    """
    op = "cross_entropy"
    expect_dims(op, "logits", logits, 2, "[M, C]")
    target = _classes(op, logits, target, ignore_index)
    loss = (empty if logits.size else zeros)(op, logits.shape[:1], logits)
    probs = empty(op, logits.shape, logits)
    if probs.size:
        run("cross_entropy_forward", cross_entropy_forward, (logits, target), loss, probs, ignore_index)
    return loss, probs


@operator("dloss", "probs", index="target", halves=True)
def cross_entropy_backward(dloss: Array, probs: Array, target: Array, ignore_index: int = -100) -> Array:
    """Gradient of cross_entropy by its logits: (probs - onehot(target)) * dloss, 0 where ignored.

    dloss [M], probs [M, C] as cross_entropy returned them, target [M] -> dlogits [M, C].
    Raises ValueError for shapes that do not fit and, on the host, for a target out of range.
    """
    op = "cross_entropy_backward"
    expect_dims(op, "probs", probs, 2, "[M, C]")
    expect_shape(op, "dloss", dloss, probs.shape[:1])
    target = _classes(op, probs, target, ignore_index)
    dx = empty(op, probs.shape, probs)
    if dx.size:
        run("cross_entropy_backward", cross_entropy_backward_rows, (dloss, probs, target), dx, ignore_index)
    return dx


def _axis(op: str, x: Array, axis: Any) -> int:
    axis = integer(op, "axis", axis)
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"[{op}] axis is {axis}, the array has shape {x.shape}")
    return axis % x.ndim


def _last(x: Array, axis: int) -> Array:
    """x with `axis` and the last axis exchanged: its own inverse."""
    return x.swapaxes(axis, -1)


def _classes(op: str, logits: Array, target: Array, ignore_index: int) -> Array:
    """The targets as int64, checked where they can be read without waiting for a device."""
    if not -(2**63) <= integer(op, "ignore_index", ignore_index) < 2**63:
        raise ValueError(f"[{op}] ignore_index is {ignore_index}, expected a 64-bit integer")
    if target.dtype.kind not in "iu":
        raise TypeError(f"[{op}] target has dtype {target.dtype}, expected class numbers (int64)")
    expect_shape(op, "target", target, logits.shape[:1])
    target = as_int64(target)
    classes = logits.shape[1]
    # Seen as unsigned, a negative number is too large as well: one look finds both.
    if type(target) is np.ndarray and target.size and np.maximum.reduce(target.view(np.uint64)) >= classes:
        wrong = target[((target < 0) | (target >= classes)) & (target != ignore_index)]
        if wrong.size:
            raise ValueError(
                f"[{op}] target holds class {wrong[0]}, "
                f"expected 0 to {classes - 1} or ignore_index ({ignore_index})"
            )
    return target


def softmax_forward(x: Array, y: Array, xp: Any) -> None:
    """x [M, C]; y [M, C], overwritten."""
    with np.errstate(invalid="ignore"):  # a row of -inf alone is NaN, quietly, as in PyTorch
        xp.subtract(x, x.max(axis=1, keepdims=True), out=y)
    xp.exp(y, out=y)
    y /= y.sum(axis=1, keepdims=True)


def softmax_backward_rows(dy: Array, y: Array, dx: Array, xp: Any) -> None:
    """dy, y [M, C]; dx [M, C], overwritten."""
    xp.subtract(dy, (dy * y).sum(axis=1, keepdims=True), out=dx)
    dx *= y


def cross_entropy_forward(
    x: Array, target: Array, loss: Array, probs: Array, ignore_index: int, xp: Any
) -> None:
    """x [M, C], target [M] int64; loss [M] (NaN: target out of range), probs [M, C], overwritten."""
    rows, classes = x.shape
    ignored = target == ignore_index
    known = (target >= 0) & (target < classes) & ~ignored
    picked = (xp.arange(rows), xp.where(known, target, 0))
    with np.errstate(invalid="ignore"):
        xp.subtract(x, x.max(axis=1, keepdims=True), out=probs)
    at_target = probs[picked]
    xp.exp(probs, out=probs)
    total = probs.sum(axis=1, keepdims=True)
    loss[...] = xp.where(known, xp.log(total[:, 0]) - at_target, xp.where(ignored, 0, xp.nan))
    probs /= total


def cross_entropy_backward_rows(
    dloss: Array, probs: Array, target: Array, dx: Array, ignore_index: int, xp: Any
) -> None:
    """dloss [M], probs [M, C], target [M] int64; dx [M, C] (NaN: target out of range), overwritten."""
    classes = probs.shape[1]
    onehot = target[:, None] == xp.arange(classes)
    xp.subtract(probs, onehot, out=dx)
    known = (target >= 0) & (target < classes)
    dx *= xp.where(known, dloss, xp.nan)[:, None]
    dx[target == ignore_index] = 0
