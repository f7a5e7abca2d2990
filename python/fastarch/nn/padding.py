"""Padding as a function of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np

from fastarch.arrays import namespace
from fastarch.autograd import Array, Function
from fastarch.tensors import Tensor, as_tensor

MODES = ("constant", "reflect", "replicate", "circular")
_NUMPY = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


class Pad(Function):
    @staticmethod
    def forward(ctx: Any, x: Array, sides: tuple[tuple[int, int], ...], mode: str, value: float) -> Array:
        ctx.shape, ctx.sides, ctx.mode = x.shape, sides, mode
        if mode == "constant":
            return namespace(x).pad(x, sides, constant_values=value)
        return namespace(x).pad(x, sides, mode=_NUMPY[mode])

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        for axis, (before, after) in enumerate(ctx.sides):
            if before or after:
                dy = _fold(dy, axis, before, after, ctx.shape[axis], ctx.mode)
        return dy, None, None, None


def _fold(dy: Array, axis: int, before: int, after: int, size: int, mode: str) -> Array:
    """The gradient before padding one axis: each border element goes to the element it is a copy of."""

    def part(array: Array, begin: int, count: int) -> Array:
        return array[(slice(None),) * axis + (slice(begin, begin + count),)]

    dx = part(dy, before, size).copy()
    first, last = part(dy, 0, before), part(dy, before + size, after)
    backwards = (slice(None),) * axis + (slice(None, None, -1),)
    if mode == "reflect":
        part(dx, 1, before)[...] += first[backwards]
        part(dx, size - 1 - after, after)[...] += last[backwards]
    elif mode == "circular":
        part(dx, size - before, before)[...] += first
        part(dx, 0, after)[...] += last
    elif mode == "replicate":
        part(dx, 0, 1)[...] += first.sum(axis=axis, keepdims=True)
        part(dx, size - 1, 1)[...] += last.sum(axis=axis, keepdims=True)
    return dx


def pad(x: Any, pad: Sequence[int], mode: str = "constant", value: float = 0.0) -> Tensor:
    """x with more elements at both ends of its last axes: pad is (before, after) of the last axis, then of
    the last but one, and so on, as in PyTorch.

    mode: "constant" (of `value`), "reflect" (the border element is not repeated; fewer than there are),
    "replicate" (the border element) or "circular" (the other end; at most as many as there are). Raises
    ValueError or TypeError for what does not fit.
    """
    x = as_tensor(x)
    if mode not in MODES:
        raise ValueError(f"[pad] mode is {mode!r}, expected one of {', '.join(MODES)}")
    for count in pad:
        if not isinstance(count, Integral) or isinstance(count, (bool, np.bool_)):
            raise TypeError(f"[pad] pad is {tuple(pad)!r}, expected ints")
        if count < 0:
            raise ValueError(f"[pad] pad is {tuple(pad)}, expected none negative")
    if len(pad) % 2 or len(pad) > 2 * x.ndim:
        raise ValueError(f"[pad] pad has {len(pad)} numbers for {x.ndim} axes, expected two for each")
    sides = [(0, 0)] * (x.ndim - len(pad) // 2)
    sides += [(int(pad[i]), int(pad[i + 1])) for i in range(len(pad) - 2, -1, -2)]
    for size, side in zip(x.shape, sides):
        most = {"reflect": size - 1, "circular": size}.get(mode, max(side) if size else 0)
        if mode != "constant" and max(side) > most:
            raise ValueError(f"[pad] {mode} padding of {side} for an axis of {size}, expected at most {most}")
    return Pad.apply(x, tuple(sides), mode, value)
