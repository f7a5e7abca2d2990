"""Fully connected layer: a matrix multiply with bias and activation."""

from __future__ import annotations

from math import prod

from fastarch import precisions
from fastarch.ops._boundary import (
    Array,
    activation_kind,
    empty,
    expect_dims,
    expect_shape,
    flag,
    flags,
    operator,
    run,
    zeros,
)
from fastarch.ops._products import linear_backward_input, linear_backward_weight, linear_forward


@operator("x", "weight", optional="bias", halves=True)
def linear(x: Array, weight: Array, bias: Array | None = None, activation: str | None = None) -> Array:
    """y = activation(x @ weight.T + bias). x [..., I], weight [O, I], bias [O] or None -> y [..., O].

    activation: None, "relu", "tanh" or "sigmoid". Raises ValueError for shapes that do not fit.
    """
    kind = activation_kind("linear", activation)
    _check("linear", x, weight)
    outputs, inputs = weight.shape
    if bias is not None:
        expect_shape("linear", "bias", bias, (outputs,))
    y = empty("linear", (*x.shape[:-1], outputs), x)
    if y.size:
        rows = y.size // outputs
        run(
            "linear_forward",
            linear_forward,
            (_rows(x, rows, inputs), weight, bias),
            y.reshape(rows, outputs),
            kind,
            precision=precisions.current(),
        )
    return y


@operator("dy", "x", "weight", halves=True)
def linear_backward(
    dy: Array, x: Array, weight: Array, bias: bool = True, need: tuple[bool, bool] = (True, True)
) -> tuple[Array | None, Array | None, Array | None]:
    """Gradients (dx, dw, db) of linear without activation. dy [..., O], x [..., I], weight [O, I].

    bias: whether db [O] is wanted; need: whether dx [..., I] and dw [O, I] are. What is not wanted is None.
    Raises ValueError for shapes that do not fit.
    """
    op = "linear_backward"
    _check(op, x, weight)
    outputs, inputs = weight.shape
    expect_shape(op, "dy", dy, (*x.shape[:-1], outputs))
    rows = prod(x.shape[:-1])
    flat_dy = _rows(dy, rows, outputs)
    bias = flag(op, "bias", bias)
    need_input, need_weight = flags(op, "need", need)
    # Of an empty batch, the gradients are sums of nothing.
    new, empty_batch = (empty, False) if dy.size else (zeros, True)
    dx = dw = db = None
    if need_input:
        dx = new(op, x.shape, x)
        if dx.size and not empty_batch:
            run(
                "linear_backward_input",
                linear_backward_input,
                (flat_dy, weight),
                _rows(dx, rows, inputs),
                precision=precisions.current(),
            )
    if need_weight or bias:
        dw = new(op, weight.shape, x)
        db = new(op, (outputs,), x) if bias else None
        if not empty_batch:
            flat_x = _rows(x, rows, inputs)
            run(
                "linear_backward_weight",
                linear_backward_weight,
                (flat_dy, flat_x),
                dw,
                db,
                precision=precisions.current(),
            )
    return dx, dw if need_weight else None, db


def _check(op: str, x: Array, weight: Array) -> None:
    expect_dims(op, "weight", weight, 2, "[O, I]")
    if x.ndim < 1 or x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"[{op}] x has shape {x.shape}, weight {weight.shape} expects {weight.shape[1]} in the last axis"
        )


def _rows(x: Array, rows: int, columns: int) -> Array:
    return x if x.ndim == 2 else x.reshape(rows, columns)
