"""One step of a recurrent layer from its inputs on: the array-generic definition, and the way to the kernels.

x [N, D], h and c [N, H] or None: zeros, w_ih [GH, D], w_hh [GH, H], b_ih and b_hh [GH] or None; G gates as in
fastarch.ops._recurrent_steps. Every cell but GRU_RESET_BEFORE.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastarch.ops import _recurrent_steps as cells
from fastarch.ops._boundary import Array, empty, run, zeros
from fastarch.ops._products import linear_backward_input, linear_backward_weight
from fastarch.ops._recurrent import Saved

Inputs = tuple[Array, Array | None, Array | None, Array, Array, Array | None, Array | None]


@dataclass(frozen=True, slots=True)
class CellSaved:
    """What a step hands to its backward, so that this need not compute it again: for that alone.

    It may refer to what the step took and returned without copying it: leave these unchanged until the
    backward is done.
    """

    op: str
    cell: int
    x_shape: tuple[int, ...]
    gates: Array | None  # [N, GH], activated; RNN: the next h
    extra: Array | None  # [N, H]: the recurrent share of n (GRU)
    sequence: Saved | None  # of a step with options, instead

    def __repr__(self) -> str:
        return f"<saved by {self.op}, x {self.x_shape}>"


def _state(state: Array | None, like: Array, xp: Any) -> Array:
    return xp.zeros_like(like) if state is None else state


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
    gates: Array | None,
    extra: Array | None,
    cell: int,
    xp: Any,
) -> None:
    """Overwritten: y [N, H], the next h; c_next [N, H] (LSTM); where wanted, gates [N, GH], activated (not of
    an RNN, whose are y), and extra [N, H] (GRU), the recurrent share of n.
    """
    units = w_hh.shape[1]
    h = _state(h, y, xp)
    gates, b_n = xp.matmul(x, w_ih.T, out=gates), None
    if b_ih is not None:
        gates += b_ih
    if b_hh is not None and cell == cells.GRU:  # n's recurrent bias is inside the reset
        gates[:, : 2 * units] += b_hh[: 2 * units]
        b_n = b_hh[2 * units :]
    elif b_hh is not None:
        gates += b_hh
    if c_next is not None:
        c_next[...] = 0 if c is None else c
    kept = xp.empty_like(y) if extra is None else extra
    cells.recurrent_gates_forward(xp.matmul(h, w_hh.T), b_n, h, gates, c_next, y, kept, cell, xp)


def recurrent_cell_backward(
    x: Array,
    h: Array | None,
    c: Array | None,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None,
    b_hh: Array | None,
    gates: Array | None,
    extra: Array | None,
    dh: Array | None,
    dc: Array | None,
    da: Array,
    da_h: Array | None,
    dh_before: Array | None,
    dc_before: Array | None,
    cell: int,
    xp: Any,
) -> None:
    """From gates (RNN: the next h) and extra, or where gates is None, computing the step again. dh, dc [N, H]
    or None: gradients of the next h and c. Overwritten: da [N, GH], the gradient of w_ih x; da_h [N, GH]
    (GRU), that of w_hh h; dh_before and dc_before [N, H] or None.
    """
    shape = (x.shape[0], w_hh.shape[1])
    d = xp.zeros(shape, x.dtype) if dh is None else dh.copy()
    lstm, previous, d_c = cell == cells.LSTM, _state(h, d, xp), None
    if gates is None:
        gates, y, extra = xp.empty_like(da), xp.empty_like(d), xp.empty_like(d)
        c_next = xp.empty_like(d) if lstm else None
        recurrent_cell_forward(x, h, c, w_ih, w_hh, b_ih, b_hh, y, c_next, gates, extra, cell, xp)
        gates = gates if cells.GATES[cell] > 1 else y
    if lstm:
        previous = _state(c, d, xp)
        d_c = xp.zeros_like(d) if dc is None else dc.copy()
        i, f, g, _ = (gates[:, k * shape[1] : (k + 1) * shape[1]] for k in range(4))
        extra = f * previous + i * g
    cells.recurrent_gates_backward(gates, extra, previous, d, d_c, da, da_h, cell, xp)
    if dc_before is not None:
        dc_before[...] = d_c
    if dh_before is not None:
        xp.matmul(da if da_h is None else da_h, w_hh, out=dh_before)
        dh_before += d  # what went past the product; else zeros


def forward(op: str, cell: int, inputs: Inputs, save: bool) -> tuple[Array, Array | None, CellSaved | None]:
    """The next h, c of an LSTM, and where wanted what the backward needs; arguments were checked."""
    x, w_hh = inputs[0], inputs[4]
    shape = (x.shape[0], w_hh.shape[1])
    y = empty(op, shape, x)
    c_next = empty(op, shape, x) if cell == cells.LSTM else None
    gated = save and cells.GATES[cell] > 1
    gates = empty(op, (len(x), w_hh.shape[0]), x) if gated else None
    extra = empty(op, shape, x) if gated and cell == cells.GRU else None
    if len(x):
        run("recurrent_cell_forward", recurrent_cell_forward, inputs, y, c_next, gates, extra, cell)
    saved = CellSaved(op, cell, x.shape, gates if gated else y, extra, None) if save else None
    return y, c_next, saved


def backward(
    op: str,
    cell: int,
    inputs: Inputs,
    saved: CellSaved | None,
    dh: Array | None,
    dc: Array | None,
    need: tuple[bool, bool],
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
        kept = (None, None) if saved is None else (saved.gates, saved.extra)
        results = (da, da_h, dh_before, dc_before)
        run("recurrent_cell_backward", recurrent_cell_backward, (*inputs, *kept, dh, dc), *results, cell)
    dx = dw_ih = dw_hh = db_ih = db_hh = None
    if need[0]:
        dx = new(op, x.shape, x)
        if n:
            run("linear_backward_input", linear_backward_input, (da, w_ih), dx)
    if need[1]:
        dw_ih, dw_hh = new(op, w_ih.shape, x), (new if h is not None else zeros)(op, w_hh.shape, x)
        # Sums of biases come with a product; the two of a gate are the same but for GRU's.
        apart = da_h is not None
        db_ih = new(op, da.shape[1:], x) if b_ih is not None or (b_hh is not None and not apart) else None
        db_hh = new(op, da.shape[1:], x) if b_hh is not None and apart else None
        if n:
            run("linear_backward_weight", linear_backward_weight, (da, x), dw_ih, db_ih)
        if n and (h is not None or db_hh is not None):
            product = dw_hh if h is not None else empty(op, w_hh.shape, x)
            outer, before = da if da_h is None else da_h, zeros(op, (n, w_hh.shape[1]), x) if h is None else h
            run("linear_backward_weight", linear_backward_weight, (outer, before), product, db_hh)
        if not apart and b_hh is not None and db_ih is not None:
            db_hh = db_ih.copy()
        db_ih = None if b_ih is None else db_ih
    return dx, dh_before, dc_before, dw_ih, dw_hh, db_ih, db_hh
