"""Losses of class indices or class probabilities, each a single node of the tape with its reduction
included.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastarch import ops
from fastarch.arrays import namespace
from fastarch.autograd import Array, Function
from fastarch.nn.loss_functions import check_reduction
from fastarch.tensors import Tensor, as_tensor


def _class_rows(
    name: str, x: Tensor, target: Any, ignore_index: int
) -> tuple[Tensor, Array, tuple[int, ...]]:
    """Logits [N, C, ...] or [C] as rows [M, C], targets as int64 [M], and the shape of the losses before a
    reduction.
    """
    indices = as_tensor(target).data
    if indices.dtype.kind not in "iu":
        raise TypeError(f"[{name}] expected integer class indices, got {indices.dtype}")
    if x.ndim == 0:
        raise ValueError(f"[{name}] expected input [N, C] or [C], got a single number")
    expected = (x.shape[0], *x.shape[2:]) if x.ndim > 1 else ()
    if indices.shape != expected:
        raise ValueError(
            f"[{name}] input has shape {x.shape}, target has shape {indices.shape}, expected {expected}"
        )
    x = _to_rows(x)
    indices = indices.astype("int64", copy=False).reshape(-1)
    # On the host a wrong index is found here; looking for it on the device would wait for the device.
    if isinstance(indices, np.ndarray) and indices.size:
        low, high, classes = indices.min(), indices.max(), x.shape[1]
        if low < 0 or high >= classes:
            wrong = indices[((indices < 0) | (indices >= classes)) & (indices != ignore_index)]
            if wrong.size:
                raise ValueError(
                    f"[{name}] target {wrong[0]} is not one of {classes} classes (0 to {classes - 1})"
                )
    return x, indices, expected


def _to_rows(x: Tensor) -> Tensor:
    if x.ndim == 1:
        return x.reshape(1, -1)
    if x.ndim == 2:
        return x
    return x.permute(0, *range(2, x.ndim), 1).reshape(-1, x.shape[1])


def _class_weight(name: str, weight: Any, x: Tensor) -> Array | None:
    if weight is None:
        return None
    array = as_tensor(weight).data.astype(x.dtype, copy=False)
    if array.shape != (x.shape[1],):
        raise ValueError(
            f"[{name}] weight has shape {array.shape}, expected one for each of {x.shape[1]} classes"
        )
    return array


def _row_weights(target: Array, weight: Array, ignore_index: int) -> Array:
    """The weight of each row's class [M], 0 where the row is ignored."""
    kept = target != ignore_index
    return weight[namespace(target).where(kept, target, 0)] * kept


def _divisor(x: Array, target: Array, row_weights: Array | None, ignore_index: int) -> Array:
    """What a mean divides by: the sum of the rows' weights, or the number of rows that count.

    Where that is 0 there is nothing to average: NaN, as PyTorch has it, and without NumPy's warning about 0 /
    0.
    """
    total = (target != ignore_index).sum() if row_weights is None else row_weights.sum()
    return namespace(x).where(total == 0, x.dtype.type("nan"), total.astype(x.dtype))


class CrossEntropy(Function):
    """The fused softmax and cross-entropy of rows x [M, C], weighted and reduced."""

    @staticmethod
    def forward(
        ctx: Any, x: Array, target: Array, weight: Array | None, ignore_index: int, reduction: str
    ) -> Array:
        loss, probs = ops.cross_entropy(x, target, ignore_index)
        rows = None if weight is None else _row_weights(target, weight, ignore_index)
        divisor = _divisor(x, target, rows, ignore_index) if reduction == "mean" else None
        ctx.ignore_index = ignore_index
        ctx.save(probs, target, rows, divisor)
        if reduction == "none":
            return loss if rows is None else loss * rows
        total = loss.sum() if rows is None else loss.dot(rows)
        return total if divisor is None else total / divisor

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        probs, target, rows, divisor = ctx.saved
        if divisor is not None:
            dy = dy / divisor
        dloss = namespace(probs).broadcast_to(dy, target.shape) if rows is None else dy * rows
        return ops.cross_entropy_backward(dloss, probs, target, ctx.ignore_index), None, None, None, None


class LogSoftmax(Function):
    @staticmethod
    def forward(ctx: Any, x: Array, axis: int) -> Array:
        y = ops.log_softmax(x, axis)
        ctx.axis = axis
        ctx.save(y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        return ops.log_softmax_backward(dy, ctx.saved[0], ctx.axis), None


def log_softmax(x: Any, dim: int = -1) -> Tensor:
    """x minus the logarithm of the sum of exp(x) along `dim`."""
    return LogSoftmax.apply(as_tensor(x), dim)


class SoftCrossEntropy(Function):
    """Cross-entropy of rows x [M, C] with a distribution a row; `target` [M, C] comes with all weights
    multiplied in.
    """

    @staticmethod
    def forward(ctx: Any, x: Array, target: Array, divisor: Any, reduction: str) -> Array:
        xp = namespace(x)
        log_probs = ops.log_softmax(x, 1)
        ctx.save(xp.exp(log_probs), target)
        ctx.divisor = divisor if reduction == "mean" else None
        loss = -(target * log_probs).sum(axis=1)
        if reduction == "none":
            return loss
        return loss.sum() if ctx.divisor is None else loss.sum() / ctx.divisor

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        probs, target = ctx.saved
        if ctx.divisor is not None:
            dy = dy / ctx.divisor
        dx = (probs * target.sum(axis=1, keepdims=True) - target) * (dy[:, None] if dy.ndim else dy)
        return dx, None, None, None


class NLL(Function):
    """The negated log-probability of each row's class, weighted and reduced."""

    @staticmethod
    def forward(
        ctx: Any, x: Array, target: Array, weight: Array | None, ignore_index: int, reduction: str
    ) -> Array:
        xp = namespace(x)
        kept = target != ignore_index
        chosen = xp.where(kept, target, 0)
        rows = None if weight is None else _row_weights(target, weight, ignore_index)
        divisor = _divisor(x, target, rows, ignore_index) if reduction == "mean" else None
        ctx.shape = x.shape
        ctx.save(kept, chosen, rows, divisor)
        # an ignored row counts 0 even where its log-probability is infinite
        loss = xp.where(kept, -x[xp.arange(x.shape[0]), chosen], x.dtype.type(0))
        if rows is not None:
            loss *= rows
        if reduction == "none":
            return loss
        return loss.sum() if divisor is None else loss.sum() / divisor

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        kept, chosen, rows, divisor = ctx.saved
        xp = namespace(kept)
        if divisor is not None:
            dy = dy / divisor
        dx = xp.zeros(ctx.shape, dy.dtype)
        dx[xp.arange(ctx.shape[0]), chosen] = -dy * (kept if rows is None else rows)
        return dx, None, None, None, None


def cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy of softmax(input) with class indices, or with class probabilities.

    input: logits [N, C], [N, C, ...] or [C]; target: integers in [0, C) of shape [N], [N, ...] or none, or
    probabilities of the input's shape. weight [C] multiplies each class's loss; "mean" divides by the sum of
    the targets' weights. Targets equal to ignore_index count nothing. label_smoothing in [0, 1] moves that
    share of the target to a uniform one (Szegedy et al. 2016). Raises ValueError for shapes, a target or an
    option out of range.
    """
    name = "cross_entropy"
    check_reduction(name, reduction)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"[{name}] label_smoothing must be in [0, 1], got {label_smoothing}")
    x, target = as_tensor(input), as_tensor(target)
    if target.dtype.kind == "f":
        return _soft_cross_entropy(name, x, target, weight, reduction, label_smoothing)
    rows, indices, shape = _class_rows(name, x, target, ignore_index)
    weights = _class_weight(name, weight, rows)
    if label_smoothing:
        xp = namespace(rows.data)
        classes = rows.shape[1]
        uniform = rows.dtype.type(label_smoothing / classes)
        soft = xp.full(rows.shape, uniform, rows.dtype)
        kept = indices != ignore_index
        soft[xp.arange(len(indices)), xp.where(kept, indices, 0)] += rows.dtype.type(1 - label_smoothing)
        soft *= kept[:, None]
        if weights is not None:
            soft *= weights
        row_weights = None if weights is None else _row_weights(indices, weights, ignore_index)
        divisor = _divisor(rows.data, indices, row_weights, ignore_index)
        loss = SoftCrossEntropy.apply(rows, soft, divisor, reduction)
    else:
        loss = CrossEntropy.apply(rows, indices, weights, ignore_index, reduction)
    return loss.reshape(shape) if reduction == "none" and len(shape) != 1 else loss


def _soft_cross_entropy(
    name: str, x: Tensor, target: Tensor, weight: Any, reduction: str, label_smoothing: float
) -> Tensor:
    if x.shape != target.shape or x.ndim == 0:
        raise ValueError(
            f"[{name}] input has shape {x.shape}, target probabilities have shape {target.shape}"
        )
    if target.requires_grad:
        raise ValueError(f"[{name}] target probabilities have no gradient here; detach them")
    rows, soft, shape = (
        _to_rows(x),
        _to_rows(target).data.astype(x.dtype, copy=False),
        (x.shape[0], *x.shape[2:]),
    )
    if label_smoothing:
        soft = soft * x.dtype.type(1 - label_smoothing) + x.dtype.type(label_smoothing / rows.shape[1])
    weights = _class_weight(name, weight, rows)
    if weights is not None:
        soft = soft * weights
    loss = SoftCrossEntropy.apply(rows, soft, x.dtype.type(rows.shape[0] or float("nan")), reduction)
    return loss.reshape(shape if x.ndim > 1 else ()) if reduction == "none" and x.ndim != 2 else loss


def nll_loss(
    input: Any, target: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """The negated log-probability of the target class: cross-entropy for an input that went through
    log_softmax.

    Shapes, weight, ignore_index, reduction and errors as for `cross_entropy` with class indices.
    """
    name = "nll_loss"
    check_reduction(name, reduction)
    rows, indices, shape = _class_rows(name, as_tensor(input), target, ignore_index)
    loss = NLL.apply(rows, indices, _class_weight(name, weight, rows), ignore_index, reduction)
    return loss.reshape(shape) if reduction == "none" and len(shape) != 1 else loss
