"""The dense products, array-generic: what the linear kernels compute, for every operator that contains
them.
"""

from __future__ import annotations

from typing import Any

from fastarch.ops._boundary import Array
from fastarch.ops._elementwise import activation_forward


def linear_forward(x: Array, weight: Array, bias: Array | None, y: Array, kind: int, xp: Any) -> None:
    """x [M, I], weight [O, I], bias [O] or None; y [M, O], overwritten."""
    xp.matmul(x, weight.T, out=y)
    if bias is not None:
        y += bias
    if kind:
        activation_forward(y, y, kind, xp)


def linear_backward_input(dy: Array, weight: Array, dx: Array, xp: Any) -> None:
    """dy [M, O], weight [O, I]; dx [M, I], overwritten."""
    xp.matmul(dy, weight, out=dx)


def linear_backward_weight(dy: Array, x: Array, dw: Array, db: Array | None, xp: Any) -> None:
    """dy [M, O], x [M, I]; dw [O, I] and db [O] (or None), overwritten."""
    xp.matmul(dy.T, x, out=dw)
    if db is not None:
        xp.sum(dy, axis=0, out=db)
