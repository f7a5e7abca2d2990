"""One step of a recurrent layer from its inputs on: the array-generic definition, and the way to the kernels.

x [N, D], h and c [N, H] or None: zeros, w_ih [GH, D], w_hh [GH, H], b_ih and b_hh [GH] or None; G gates as in
fastarch.ops._recurrent_steps. Every cell but GRU_RESET_BEFORE.
"""

from __future__ import annotations

from typing import Any

from fastarch.ops import _recurrent_steps as cells
from fastarch.ops._boundary import Array, empty, run, zeros
from fastarch.ops._products import linear_backward_input, linear_backward_weight

Inputs = tuple[Array, Array | None, Array | None, Array, Array, Array | None, Array | None]


def _gates(inputs: Inputs, c_next: Array | None, y: Array, cell: int, xp: Any) -> tuple[Array, Array, Array]:
    """The activated gates [N, GH], what a step keeps beside them [N, H], and h before."""
    x, h, c, w_ih, w_hh, b_ih, b_hh = inputs
    units = w_hh.shape[1]
    h = xp.zeros_like(y) if h is None else h
    gates, b_n = xp.matmul(x, w_ih.T), None
    if b_ih is not None:
        gates += b_ih
    if b_hh is not None and cell == cells.GRU:  # n's recurrent bias is inside the reset
        gates[:, : 2 * units] += b_hh[: 2 * units]
        b_n = b_hh[2 * units :]
    elif b_hh is not None:
        gates += b_hh
    if c_next is not None:
        c_next[...] = 0 if c is None else c
    extra = xp.empty_like(y)
    cells.recurrent_gates_forward(xp.matmul(h, w_hh.T), b_n, h, gates, c_next, y, extra, cell, xp)
    return gates, extra, h


def recurrent_cell_forward(
    x: Array,
    h: Array | None,
    c: Array | None,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None,
    b_hh: Array | None,
    y: Array,
    c_next: Array | None,
    cell: int,
    xp: Any,
) -> None:
    """Overwritten: y [N, H], the next h; c_next [N, H] (LSTM)."""
    _gates((x, h, c, w_ih, w_hh, b_ih, b_hh), c_next, y, cell, xp)


def recurrent_cell_backward(
    x: Array,
    h: Array | None,
    c: Array | None,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None,
    b_hh: Array | None,
    dh: Array | None,
    dc: Array | None,
    da: Array,
    da_h: Array | None,
    dh_before: Array | None,
    dc_before: Array | None,
    cell: int,
    xp: Any,
) -> None:
    """Computes the step again. dh, dc [N, H] or None: gradients of the next h and c. Overwritten: da [N, GH],
    the gradient of w_ih x; da_h [N, GH] (GRU), that of w_hh h; dh_before and dc_before [N, H] or None.
    """
    y = xp.empty((x.shape[0], w_hh.shape[1]), x.dtype)
    lstm = cell == cells.LSTM
    c_next = xp.empty_like(y) if lstm else None
    gates, extra, h = _gates((x, h, c, w_ih, w_hh, b_ih, b_hh), c_next, y, cell, xp)
    if lstm:
        previous = xp.zeros_like(y) if c is None else c
    else:
        previous = h
    d = xp.zeros_like(y) if dh is None else dh.copy()
    d_c = None
    if lstm:
        d_c = xp.zeros_like(y) if dc is None else dc.copy()
    activated = gates if cells.GATES[cell] > 1 else y
    cells.recurrent_gates_backward(activated, extra, previous, d, d_c, da, da_h, cell, xp)
    if dc_before is not None:
        dc_before[...] = d_c
    if dh_before is not None:
        xp.matmul(da if da_h is None else da_h, w_hh, out=dh_before)
        dh_before += d  # what went past the product; else zeros


def forward(op: str, cell: int, inputs: Inputs) -> tuple[Array, Array | None]:
    """The next h and, of an LSTM, c; arguments were checked."""
    x, w_hh = inputs[0], inputs[4]
    shape = (x.shape[0], w_hh.shape[1])
    y = empty(op, shape, x)
    c_next = empty(op, shape, x) if cell == cells.LSTM else None
    if len(x):
        run("recurrent_cell_forward", recurrent_cell_forward, inputs, y, c_next, cell)
    return y, c_next


def backward(
    op: str, cell: int, inputs: Inputs, dh: Array | None, dc: Array | None, need: tuple[bool, bool]
) -> tuple[Array | None, ...]:
    """Gradients of the inputs, in their order; None for what was not given or is not needed."""
    x, h, c, w_ih, w_hh, b_ih, b_hh = inputs
    n = len(x)
    new = empty if n else zeros  # sums over nothing
    da = empty(op, (n, w_hh.shape[0]), x)
    da_h = empty(op, da.shape, x) if cell == cells.GRU else None
    dh_before = None if h is None else empty(op, h.shape, x)
    dc_before = None if c is None else empty(op, c.shape, x)
    if n:
        results = (da, da_h, dh_before, dc_before)
        run("recurrent_cell_backward", recurrent_cell_backward, (*inputs, dh, dc), *results, cell)
    dx = dw_ih = dw_hh = db_ih = db_hh = None
    if need[0]:
        dx = new(op, x.shape, x)
        if n:
            run("linear_backward_input", linear_backward_input, (da, w_ih), dx)
    if need[1]:
        of_bias = da.shape[1:]
        dw_ih, dw_hh = new(op, w_ih.shape, x), (new if h is not None else zeros)(op, w_hh.shape, x)
        db_ih = new(op, of_bias, x) if b_ih is not None else None
        db_hh = new(op, of_bias, x) if b_hh is not None else None
        if n:
            outer = da if da_h is None else da_h
            run("linear_backward_weight", linear_backward_weight, (da, x), dw_ih, db_ih)
            if h is not None:
                run("linear_backward_weight", linear_backward_weight, (outer, h), dw_hh, db_hh)
            elif db_hh is not None:
                outer.sum(axis=0, out=db_hh)
    return dx, dh_before, dc_before, dw_ih, dw_hh, db_ih, db_hh
