"""One direction of one recurrent layer over a whole sequence: what the RNN, LSTM and GRU operators share.

The inputs' share of the gates is one product for all steps, and so is every weight gradient; only h times
w_hh goes step by step. Sequences of several lengths are sorted and packed, so that no work is done on
padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastarch import arrays
from fastarch.ops import _recurrent_steps as cells
from fastarch.ops._boundary import Array, as_type, empty, run, widen, zeros
from fastarch.ops._products import linear_backward_input, linear_backward_weight, linear_forward
from fastarch.ops._recurrent_composite import Composite, Kept, Options
from fastarch.ops._recurrent_packing import Packing, States

_PLAIN = Options()


@dataclass(frozen=True, slots=True)
class Saved:
    """What a recurrent operator hands to its backward: for that alone.

    It refers to x, to y and to the weights without copying them: leave them unchanged until the backward is
    done.
    """

    op: str
    cell: int
    restore: arrays.Restore
    packing: Packing | None
    sizes: list[int]
    reverse: bool
    algorithm: int
    x: Array  # [R, D]
    x_shape: tuple[int, ...]
    w_ih: Array
    w_hh: Array
    biases: tuple[bool, bool]
    first_states: tuple[bool, bool]  # whether h0 and c0 were given
    gates: Array  # [R, GH], activated; RNN: what the cell gave
    extra: Array | None  # [R, H]: c (LSTM) or the recurrent share of n (GRU)
    h_before: Array  # [R, P]
    c_before: Array | None
    options: Options
    kept: Kept | None  # of a composite recurrence

    @property
    def units(self) -> int:
        """H."""
        return self.w_hh.shape[0] // cells.GATES[self.cell]

    def __repr__(self) -> str:
        return f"<saved by {self.op}, x {self.x_shape}>"


def forward(
    op: str,
    cell: int,
    x: Array,
    h0: Array | None,
    c0: Array | None,
    weights: tuple[Array, Array, Array | None, Array | None],
    lengths: np.ndarray | None,
    reverse: bool,
    restore: arrays.Restore,
    algorithm: int = 0,
    options: Options = _PLAIN,
) -> tuple[Array, Array, Array | None, Saved]:
    """y [T, N, P], the last h [N, P] and c (LSTM) [N, H], and what backward needs; arguments were checked."""
    w_ih, w_hh, b_ih, b_hh = weights
    outputs, units = w_hh.shape[1], w_hh.shape[0] // cells.GATES[cell]
    t_count, n, d = x.shape
    packing = None if lengths is None else Packing(lengths, t_count, x)
    sizes = [n] * t_count if packing is None else packing.sizes
    packed_x = x.reshape(t_count * n, d) if packing is None else packing.pack(x)
    rows = packed_x.shape[0]

    def first(state: Array | None, width: int) -> Array:
        """A state that the steps may change, in the order of the packed rows."""
        if state is None:
            return zeros(op, (n, width), x)
        return state.copy(order="C") if packing is None else packing.sort(state)

    h = first(h0, outputs)
    h_states = States(op, h, rows, packing, reverse)
    c, c_states = None, None
    if cell == cells.LSTM:
        c = first(c0, units)
        c_states = States(op, c, rows, packing, reverse)
        c = widen(c)
    y = h_states.steps
    extra = c_states.steps if c_states else None
    if cell == cells.GRU or options.zoneout_cell > 0:
        extra = empty(op, (rows, units), x)
    gates = empty(op, (rows, w_ih.shape[0]), x)
    kept = None
    if rows:
        bias, b_n = _biases(cell, b_ih, b_hh, units)
        if options.any():
            run("linear_forward", linear_forward, (packed_x, w_ih, None), gates, 0)
            steps = list(cells.steps(sizes, reverse))
            c_steps = c_states.steps if c_states else None
            composite = Composite(op, cell, w_hh, options)
            kept = composite.forward(b_n, bias, gates, h, c, y, c_steps, extra, steps, packing, t_count)
        else:
            run("linear_forward", linear_forward, (packed_x, w_ih, bias), gates, 0)
            arguments = (gates, h, c, y, extra, cell, sizes, reverse, algorithm)
            run("recurrent_forward", cells.recurrent_forward, (w_hh, b_n), *arguments)
    activated = gates if cells.GATES[cell] > 1 else y if kept is None else kept.output
    saved = Saved(
        op,
        cell,
        restore,
        packing,
        sizes,
        reverse,
        algorithm,
        packed_x,
        x.shape,
        w_ih,
        w_hh,
        (b_ih is not None, b_hh is not None),
        (h0 is not None, c0 is not None),
        activated,
        extra,
        h_states.before(),
        c_states.before() if c_states else None,
        options,
        kept,
    )
    c = None if c is None else as_type(c, x.dtype)
    if packing is None:
        return y.reshape(t_count, n, outputs), h, c, saved
    return packing.unpack(op, y), h[packing.places], None if c is None else c[packing.places], saved


def _biases(
    cell: int, b_ih: Array | None, b_hh: Array | None, units: int
) -> tuple[Array | None, Array | None]:
    """What is added to the inputs' share, and what stays inside GRU's reset product [H]."""
    if b_hh is None:
        return b_ih, None
    if cell != cells.GRU:
        return (b_hh if b_ih is None else as_type(widen(b_ih) + widen(b_hh), b_hh.dtype)), None
    bias = b_hh.astype(widen(b_hh).dtype)
    bias[2 * units :] = 0
    if b_ih is not None:
        bias += widen(b_ih)
    return as_type(bias, b_hh.dtype), b_hh[2 * units :]


def backward(
    op: str, dy: Array | None, dhn: Array | None, dcn: Array | None, saved: Saved, need: tuple[bool, bool]
) -> tuple[tuple[Array | None, ...], dict[str, Array]]:
    """Gradients of x, h0, c0, w_ih, w_hh, b_ih, b_hh; None for what was not given or is not needed. Then
    those of the options' arrays, by name.
    """
    packing, cell, w_hh, kept = saved.packing, saved.cell, saved.w_hh, saved.kept
    rows, outputs = saved.h_before.shape
    n, units = saved.x_shape[1], saved.units
    if packing is not None:
        dy = None if dy is None else packing.pack(dy)
    elif dy is not None:
        dy = dy.reshape(rows, outputs)

    def last(gradient: Array | None, width: int) -> Array:
        """The gradient of a last state, which the steps may change, in the type of sums."""
        if gradient is None:
            return zeros(op, (n, width), w_hh, widen(w_hh[:0]).dtype)
        return widen(gradient.copy(order="C") if packing is None else packing.sort(gradient))

    dh = last(dhn, outputs)
    dc = last(dcn, units) if cell == cells.LSTM else None
    da = empty(op, (rows, w_hh.shape[0]), w_hh)
    da_h = empty(op, da.shape, w_hh) if cell == cells.GRU else None
    befores = {cells.LSTM: saved.c_before, cells.GRU: saved.h_before, cells.GRU_RESET_BEFORE: saved.h_before}
    previous = befores.get(cell)
    dx_share, outer = da, da if da_h is None else da_h
    d_product, more = outer, {}
    if rows and kept is None:
        arguments = (dh, dc, da, da_h, cell, saved.sizes, saved.reverse, saved.algorithm)
        inputs = (w_hh, saved.gates, dy, saved.extra, previous)
        run("recurrent_backward", cells.recurrent_backward, inputs, *arguments)
    elif kept is not None:
        steps = list(cells.steps(saved.sizes, not saved.reverse))
        composite = Composite(op, cell, w_hh, saved.options)
        states = (saved.gates, dy, saved.extra, previous, dh, dc, da, da_h)
        found = composite.backward(*states, steps, kept)
        d_product = found.product
        if kept.norm_ih is not None:
            dx_share = kept.norm_ih.backward(da, slice(0, rows))
        if need[1]:
            more = composite.option_gradients(da, outer, kept, found)
    elif need[1]:  # sums over nothing
        more = {name: zeros(op, array.shape, array) for name, array in saved.options.arrays().items()}
    dx = _input_gradient(op, dx_share, saved) if need[0] else None
    dw_ih = dw_hh = db_ih = db_hh = None
    if need[1]:
        dw_ih, dw_hh, db_ih, db_hh = _weight_gradients(op, (da, outer), (dx_share, d_product), saved)
    if packing is not None:
        dh, dc = dh[packing.places], None if dc is None else dc[packing.places]
    given_h0, given_c0 = saved.first_states
    dh0, dc0 = (
        as_type(d, w_hh.dtype) if d is not None and given else None
        for d, given in ((dh, given_h0), (dc, given_c0))
    )
    plain = (dx, dh0, dc0, dw_ih, dw_hh, db_ih, db_hh)
    return plain, more


def _input_gradient(op: str, da: Array, saved: Saved) -> Array:
    if not len(da):
        return zeros(op, saved.x_shape, da)
    dx = empty(op, saved.x.shape, da)
    run("linear_backward_input", linear_backward_input, (da, saved.w_ih), dx)
    return dx.reshape(saved.x_shape) if saved.packing is None else saved.packing.unpack(op, dx)


def _weight_gradients(
    op: str, sums: tuple[Array, Array], products: tuple[Array, Array], saved: Saved
) -> tuple[Array, Array, Array | None, Array | None]:
    """dw_ih, dw_hh, db_ih, db_hh: one product over the rows of all steps each. sums: the gradients of the
    gates' two shares; products: those of the products in them, which differ where these are normalised.
    """
    with_b_ih, with_b_hh = saved.biases
    (da, da_h), (d_x, d_h) = sums, products
    new = empty if len(da) else zeros
    dw_ih, dw_hh = new(op, saved.w_ih.shape, da), new(op, saved.w_hh.shape, da)
    db_ih = new(op, da.shape[1:], da) if with_b_ih or with_b_hh else None
    db_hh = new(op, da.shape[1:], da) if with_b_hh and da_h is not da else None
    if len(da):

        def product(gradient: Array, x: Array, dw: Array, total: Any, db: Array | None) -> None:
            """And the sum of `total`, which is the same gradient as a rule, as the bias's."""
            fused = db if total is gradient else None
            run("linear_backward_weight", linear_backward_weight, (gradient, x), dw, fused)
            if total is not None and db is not None and fused is None:
                total.sum(axis=0, out=db)

        product(d_x, saved.x, dw_ih, da, db_ih)
        if saved.cell == cells.GRU_RESET_BEFORE:  # the new gate's weights see h after the reset
            units = saved.units
            product(d_h[:, : 2 * units], saved.h_before, dw_hh[: 2 * units], None, None)
            reset_h = as_type(widen(saved.gates[:, :units]) * widen(saved.h_before), da.dtype)
            product(d_h[:, 2 * units :], reset_h, dw_hh[2 * units :], None, None)
        else:
            product(d_h, saved.h_before, dw_hh, da_h, db_hh)
    if with_b_hh and db_hh is None and db_ih is not None:
        db_hh = db_ih.copy()
    return dw_ih, dw_hh, db_ih if with_b_ih else None, db_hh
