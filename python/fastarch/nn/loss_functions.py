"""Elementwise losses as functions of tensors, each a single node of the tape with its reduction included."""

from __future__ import annotations

import warnings
from typing import Any

from fastarch.arrays import namespace
from fastarch.autograd import Array, Function
from fastarch.tensors import Tensor, as_tensor

_REDUCTIONS = ("mean", "sum", "none")


def check_reduction(name: str, reduction: str, allowed: tuple[str, ...] = _REDUCTIONS) -> None:
    """Raises ValueError for a reduction that the loss does not have."""
    if reduction not in allowed:
        raise ValueError(f"[{name}] reduction must be one of {', '.join(allowed)}, got {reduction!r}")


def _check_same_shape(name: str, x: Tensor, target: Tensor) -> None:
    # Broadcasting here is nearly always a mistake ([N] against [N, 1]) that trains, badly, without a word.
    if x.shape != target.shape:
        raise ValueError(f"[{name}] input has shape {x.shape}, target has shape {target.shape}")


def _reduce(ctx: Any, loss: Array, reduction: str, divisor: float) -> Array:
    """Reduces a loss and notes what its gradient has to be multiplied by."""
    if reduction == "none":
        ctx.scale = None
        return loss
    scale = loss.dtype.type(1 / divisor if divisor else float("nan"))
    ctx.scale = scale if reduction == "mean" else None
    return loss.sum() if reduction == "sum" else loss.sum() * scale


def _scaled(ctx: Any, dy: Array) -> Array:
    return dy if ctx.scale is None else dy * ctx.scale


# ---- elementwise losses


class MSE(Function):
    @staticmethod
    def forward(ctx: Any, x: Array, target: Array, reduction: str) -> Array:
        difference = x - target
        ctx.save(difference)
        if reduction != "none" and difference.flags.c_contiguous:
            flat = difference.reshape(-1)
            total = flat.dot(flat)  # the sum of squares without an array of squares
            ctx.scale = (
                total.dtype.type(1 / flat.size if flat.size else float("nan"))
                if reduction == "mean"
                else None
            )
            return total if ctx.scale is None else total * ctx.scale
        return _reduce(ctx, difference * difference, reduction, difference.size)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        (difference,) = ctx.saved
        dx = difference * (_scaled(ctx, dy) * dy.dtype.type(2))
        return dx if ctx.needs[0] else None, -dx if ctx.needs[1] else None, None


def mse_loss(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """The squared difference of two tensors of one shape, reduced by "mean", "sum" or "none".

    Raises ValueError when the shapes differ (nothing is broadcast) or for another reduction.
    """
    check_reduction("mse_loss", reduction)
    x, target = as_tensor(input), as_tensor(target)
    _check_same_shape("mse_loss", x, target)
    return MSE.apply(x, target, reduction)


class BCEWithLogits(Function):
    """With softplus(-x) = max(-x, 0) + log(1 + exp(-|x|)): loss = (1 - t) x + (1 + (w - 1) t)
    softplus(-x).
    """

    @staticmethod
    def forward(ctx: Any, x: Array, t: Array, weight: Any, pos_weight: Any, reduction: str) -> Array:
        xp = namespace(x)
        small = xp.exp(-abs(x))  # in (0, 1], whatever the sign of x
        softplus = xp.log1p(small) + xp.maximum(-x, 0)
        slope = 1 if pos_weight is None else 1 + (pos_weight - 1) * t
        loss = (1 - t) * x + slope * softplus
        if weight is not None:
            loss = loss * weight
        # sigmoid(-x) without overflow
        complement = xp.where(x >= 0, small, xp.ones_like(x)) / (1 + small)
        dx = (1 - t) - slope * complement if ctx.needs[0] else None
        dt = ((0 if pos_weight is None else pos_weight - 1) * softplus) - x if ctx.needs[1] else None
        ctx.save(dx, dt, weight)
        return _reduce(ctx, loss, reduction, loss.size)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        dx, dt, weight = ctx.saved
        dy = _scaled(ctx, dy)
        if weight is not None:
            dy = dy * weight
        return None if dx is None else dx * dy, None if dt is None else dt * dy, None, None, None


def binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, reduction: str = "mean", pos_weight: Any = None
) -> Tensor:
    """Cross-entropy of sigmoid(input) with targets in [0, 1] of the same shape; finite for logits of any
    size.

    weight multiplies the losses, pos_weight the part of the positive targets; both are plain arrays that
    broadcast to the input. Raises ValueError when the shapes differ or for another reduction.
    """
    name = "binary_cross_entropy_with_logits"
    check_reduction(name, reduction)
    x, target = as_tensor(input), as_tensor(target)
    _check_same_shape(name, x, target)
    target = target if target.dtype == x.dtype else target.astype(x.dtype)
    return BCEWithLogits.apply(
        x,
        target,
        _constant(name, "weight", weight, x),
        _constant(name, "pos_weight", pos_weight, x),
        reduction,
    )


def _constant(name: str, argument: str, value: Any, x: Tensor) -> Array | None:
    if value is None:
        return None
    array = as_tensor(value).data.astype(x.dtype, copy=False)
    try:
        fits = namespace(array).broadcast_shapes(array.shape, x.shape) == x.shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"[{name}] {argument} of shape {array.shape} does not broadcast to the input's {x.shape}"
        )
    return array


class KLDiv(Function):
    @staticmethod
    def forward(ctx: Any, x: Array, target: Array, log_target: bool, reduction: str, divisor: int) -> Array:
        xp = namespace(x)
        if log_target:
            p = xp.exp(target)
            gap = target - x
        else:
            p = target
            gap = xp.log(xp.where(target > 0, target, xp.ones_like(target))) - x
        # where p is 0 the limit of p log p is 0, also when x is -inf
        loss = xp.where(p > 0, p * gap, xp.zeros_like(x))
        ctx.log_target = log_target
        ctx.save(p, gap if ctx.needs[1] else None)
        return _reduce(ctx, loss, "mean" if reduction == "batchmean" else reduction, divisor)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        p, gap = ctx.saved
        dy = _scaled(ctx, dy)
        dt = None
        if ctx.needs[1]:
            dt = p * (gap + 1) * dy if ctx.log_target else (gap + 1) * dy
        return -p * dy if ctx.needs[0] else None, dt, None, None, None


def kl_div(input: Any, target: Any, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """target * (log target - input): input holds log-probabilities, target probabilities (or their
    logarithms).

    reduction: "batchmean" divides by the first dimension and is the divergence proper; "mean" divides by the
    number of elements, as PyTorch does; "sum"; "none". Raises ValueError when the shapes differ or for
    another reduction.
    """
    check_reduction("kl_div", reduction, ("mean", "batchmean", "sum", "none"))
    x, target = as_tensor(input), as_tensor(target)
    _check_same_shape("kl_div", x, target)
    if reduction == "mean":
        warnings.warn(
            "kl_div: reduction 'mean' divides by the number of elements; 'batchmean' is the divergence",
            stacklevel=2,
        )
    divisor = x.shape[0] if reduction == "batchmean" and x.ndim else x.size
    return KLDiv.apply(x, target, log_target, reduction, divisor)
