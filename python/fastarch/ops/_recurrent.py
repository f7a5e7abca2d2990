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
from fastarch.ops._boundary import (
    Array,
    empty,
    expect_dims,
    expect_shape,
    flag,
    integer,
    namespace,
    run,
    zeros,
)
from fastarch.ops._products import linear_backward_input, linear_backward_weight, linear_forward

Named = list[tuple[str, Any, bool]]  # name, array, whether it may be None
LETTERS = ("H", "H", "4H", "3H", "3H")


def adopt(op: str, named: Named) -> tuple[list[Any], arrays.Restore]:
    """The arrays as NumPy or CuPy arrays of one float dtype in one memory, None where one may be and is.

    Also the function that turns a result into the type of the first one that is not None.
    """
    natives: list[Any] = []
    restore: arrays.Restore | None = None
    first: tuple[str, Array] | None = None
    for name, value, optional in named:
        if value is None and optional:
            natives.append(None)
            continue
        native, back = arrays.adopt(value, op, name)
        natives.append(native)
        restore = restore or back
        expected = "float32 or float64" if first is None else f"{first[1].dtype} as {first[0]} has"
        if native.dtype not in (np.float32, np.float64) if first is None else native.dtype != first[1].dtype:
            raise TypeError(f"[{op}] {name} has dtype {native.dtype}, expected {expected}")
        first = first or (name, native)
        if _place(native) != _place(first[1]):
            raise TypeError(
                f"[{op}] {name} is in {_place(native)} memory, expected {_place(first[1])} memory "
                f"as {first[0]} is"
            )
    assert restore is not None
    return natives, restore


def _place(x: Array) -> str:
    return f"CUDA device {x.device.id}" if arrays.on_device(x) else "host"


def rnn_kind(op: str, nonlinearity: str) -> int:
    """The cell of a nonlinearity's name."""
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"[{op}] nonlinearity is {nonlinearity!r}, expected 'tanh' or 'relu'")
    return cells.RNN_TANH if nonlinearity == "tanh" else cells.RNN_RELU


def gru_kind(op: str, reset_before: bool) -> int:
    """The cell of the place of the reset gate."""
    return cells.GRU_RESET_BEFORE if flag(op, "reset_before", reset_before) else cells.GRU


def algorithm_number(op: str, algorithm: str) -> int:
    """How the kernels know an algorithm's name."""
    if not isinstance(algorithm, str) or algorithm not in cells.ALGORITHMS:
        raise ValueError(f"[{op}] algorithm is {algorithm!r}, expected 'auto', 'step' or 'persistent'")
    return cells.ALGORITHMS[algorithm]


def named(x: Array, names: str, states: tuple, weights: tuple) -> Named:
    """The operands with their names, and which of them may be None."""
    operands: Named = [("x", x, False)]
    operands += [(name, state, True) for name, state in zip(names.split(), states)]
    for name, weight in zip(("w_ih", "w_hh", "b_ih", "b_hh"), weights):
        operands.append((name, weight, name.startswith("b_")))
    return operands


class Packing:
    """Where the rows of sequences of several lengths lie when only what is inside them is kept.

    lengths: host integers [N], each 1 to T. Sequences are sorted, longest first; packed row offset(t) + b
    is step t of the b-th of them. `rows` says where each packed row lies in [T * N], `order` which sequence
    is b-th.
    """

    def __init__(self, lengths: np.ndarray, t_count: int, like: Array) -> None:
        xp = namespace(like)
        count = len(lengths)
        order = np.argsort(-lengths, kind="stable")
        self.shape = (t_count, count)
        sizes = (lengths[:, None] > np.arange(lengths.max())).sum(axis=0)
        self.sizes: list[int] = sizes.tolist()
        self.offsets = np.concatenate(([0], np.cumsum(sizes)))
        self.rows = xp.asarray(np.concatenate([t * count + order[:n] for t, n in enumerate(self.sizes)]))
        self.order, self.places = xp.asarray(order), xp.asarray(np.argsort(order))

    def pack(self, x: Array) -> Array:
        """[T, N, F] -> [R, F]."""
        return x.reshape(-1, x.shape[-1])[self.rows]

    def sort(self, state: Array) -> Array:
        """[N, H] -> [N, H] in the order of the packed rows, contiguous and new."""
        sorted_state = state[self.order]
        return sorted_state if sorted_state.flags.c_contiguous else sorted_state.copy(order="C")

    def unpack(self, op: str, packed: Array) -> Array:
        """[R, F] -> [T, N, F], zeros past the ends."""
        t_count, count = self.shape
        x = zeros(op, (t_count * count, packed.shape[-1]), packed)
        x[self.rows] = packed
        return x.reshape(t_count, count, -1)

    def before(self, reverse: bool) -> np.ndarray:
        """Where the state before each packed row lies among [first states; states of the packed rows]."""
        count = self.shape[1]
        parts = []
        for t, n in enumerate(self.sizes):
            b = np.arange(n)
            if not reverse:
                parts.append(b if t == 0 else count + self.offsets[t - 1] + b)
            else:
                following = self.sizes[t + 1] if t + 1 < len(self.sizes) else 0
                parts.append(np.where(b < following, count + self.offsets[t + 1] + b, b))
        return np.concatenate(parts)


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
    gates: Array  # [R, GH], activated; RNN: y
    extra: Array | None  # [R, H]: c (LSTM) or the recurrent share of n (GRU)
    h_before: Array  # [R, H]
    c_before: Array | None

    def __repr__(self) -> str:
        return f"<saved by {self.op}, x {self.x_shape}>"


def lengths_of(op: str, lengths: Any, t_count: int, count: int) -> np.ndarray | None:
    """The lengths [N] as int64, or None where every sequence has all of the T steps."""
    if lengths is None:
        return None
    if isinstance(lengths, (list, tuple)):
        values = np.array([integer(op, "lengths", length) for length in lengths], np.int64)
    else:
        values, _ = arrays.adopt(lengths, op, "lengths")
        if arrays.on_device(values):
            raise TypeError(f"[{op}] lengths is in CUDA memory, expected host integers")
        if values.dtype.kind not in "iu":
            raise TypeError(f"[{op}] lengths has dtype {values.dtype}, expected integers")
        values = values.astype(np.int64)
    expect_shape(op, "lengths", values, (count,))
    if count and (values.min() < 1 or values.max() > t_count):
        wrong = values[(values < 1) | (values > t_count)][0]
        raise ValueError(f"[{op}] lengths holds {wrong}, expected 1 to {t_count}, the steps of x")
    return None if (values == t_count).all() else values


def check_sizes(op: str, cell: int, d: int, n: int, w_ih: Array, w_hh: Array, more: Named) -> int:
    """H, after every shape has been compared with the others; `more`: biases and states that are there."""
    letters = LETTERS[cell]
    expect_dims(op, "w_ih", w_ih, 2, f"[{letters}, D]")
    expect_dims(op, "w_hh", w_hh, 2, f"[{letters}, H]")
    units = w_hh.shape[1]
    if units == 0 or d == 0:
        raise ValueError(f"[{op}] zero units (H={units}) or zero features (D={d}) leave nothing to compute")
    expect_shape(op, "w_hh", w_hh, (cells.GATES[cell] * units, units))
    expect_shape(op, "w_ih", w_ih, (cells.GATES[cell] * units, d))
    for name, value, is_state in more:
        if value is not None:
            expect_shape(op, name, value, (n, units) if is_state else (cells.GATES[cell] * units,))
    return units


class States:
    """The states of all steps beside the first ones: a step finds the state before it without a copy."""

    def __init__(self, op: str, first: Array, rows: int, packing: Packing | None, reverse: bool) -> None:
        n, units = first.shape
        both = empty(op, (n + rows, units), first)
        if packing is None and reverse:
            self.steps, self.before_steps, kept = both[:rows], both[n:], both[rows:]
        else:
            self.steps, self.before_steps, kept = both[n:], both[:rows], both[:n]
        kept[...] = first
        self._both, self._packing, self._reverse = both, packing, reverse

    def before(self) -> Array:
        """[R, H]: the state before each row, once the steps are known."""
        if self._packing is None:
            return self.before_steps
        return self._both[namespace(self._both).asarray(self._packing.before(self._reverse))]


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
) -> tuple[Array, Array, Array | None, Saved]:
    """y [T, N, H], the last h and c (LSTM) [N, H], and what backward needs; arguments were checked."""
    w_ih, w_hh, b_ih, b_hh = weights
    units = w_hh.shape[1]
    t_count, n, d = x.shape
    packing = None if lengths is None else Packing(lengths, t_count, x)
    sizes = [n] * t_count if packing is None else packing.sizes
    packed_x = x.reshape(t_count * n, d) if packing is None else packing.pack(x)
    rows = packed_x.shape[0]

    def first(state: Array | None) -> Array:
        """A state that the steps may change, in the order of the packed rows."""
        if state is None:
            return zeros(op, (n, units), x)
        return state.copy(order="C") if packing is None else packing.sort(state)

    h = first(h0)
    h_states = States(op, h, rows, packing, reverse)
    c, c_states = None, None
    if cell == cells.LSTM:
        c = first(c0)
        c_states = States(op, c, rows, packing, reverse)
    y = h_states.steps
    extra = c_states.steps if c_states else None
    if cell == cells.GRU:
        extra = empty(op, (rows, units), x)
    gates = empty(op, (rows, w_ih.shape[0]), x)
    if rows:
        bias, b_n = _biases(cell, b_ih, b_hh, units)
        run("linear_forward", linear_forward, (packed_x, w_ih, bias), gates, 0)
        arguments = (gates, h, c, y, extra, cell, sizes, reverse, algorithm)
        run("recurrent_forward", cells.recurrent_forward, (w_hh, b_n), *arguments)
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
        y if cells.GATES[cell] == 1 else gates,
        extra,
        h_states.before(),
        c_states.before() if c_states else None,
    )
    if packing is None:
        return y.reshape(t_count, n, units), h, c, saved
    return packing.unpack(op, y), h[packing.places], None if c is None else c[packing.places], saved


def _biases(
    cell: int, b_ih: Array | None, b_hh: Array | None, units: int
) -> tuple[Array | None, Array | None]:
    """What is added to the inputs' share, and what stays inside GRU's reset product [H]."""
    if b_hh is None:
        return b_ih, None
    if cell != cells.GRU:
        return (b_hh if b_ih is None else b_ih + b_hh), None
    bias = b_hh.copy()
    bias[2 * units :] = 0
    if b_ih is not None:
        bias += b_ih
    return bias, b_hh[2 * units :]


def backward(
    op: str, dy: Array | None, dhn: Array | None, dcn: Array | None, saved: Saved, need: tuple[bool, bool]
) -> tuple[Array | None, ...]:
    """Gradients of x, h0, c0, w_ih, w_hh, b_ih, b_hh; None for what was not given or is not needed."""
    packing, cell, w_hh = saved.packing, saved.cell, saved.w_hh
    rows, units = saved.h_before.shape
    n = saved.x_shape[1]
    if packing is not None:
        dy = None if dy is None else packing.pack(dy)
    elif dy is not None:
        dy = dy.reshape(rows, units)

    def last(gradient: Array | None) -> Array:
        if gradient is None:
            return zeros(op, (n, units), w_hh)
        return gradient.copy(order="C") if packing is None else packing.sort(gradient)

    dh = last(dhn)
    dc = last(dcn) if cell == cells.LSTM else None
    da = empty(op, (rows, w_hh.shape[0]), w_hh)
    da_h = empty(op, da.shape, w_hh) if cell == cells.GRU else None
    previous = {cells.LSTM: saved.c_before, cells.GRU: saved.h_before, cells.GRU_RESET_BEFORE: saved.h_before}
    if rows:
        arguments = (dh, dc, da, da_h, cell, saved.sizes, saved.reverse, saved.algorithm)
        inputs = (w_hh, saved.gates, dy, saved.extra, previous.get(cell))
        run("recurrent_backward", cells.recurrent_backward, inputs, *arguments)
    dx = _input_gradient(op, da, saved) if need[0] else None
    dw_ih = dw_hh = db_ih = db_hh = None
    if need[1]:
        dw_ih, dw_hh, db_ih, db_hh = _weight_gradients(op, da, da_h, saved)
    if packing is not None:
        dh, dc = dh[packing.places], None if dc is None else dc[packing.places]
    given_h0, given_c0 = saved.first_states
    return dx, dh if given_h0 else None, dc if given_c0 else None, dw_ih, dw_hh, db_ih, db_hh


def _input_gradient(op: str, da: Array, saved: Saved) -> Array:
    if not len(da):
        return zeros(op, saved.x_shape, da)
    dx = empty(op, saved.x.shape, da)
    run("linear_backward_input", linear_backward_input, (da, saved.w_ih), dx)
    return dx.reshape(saved.x_shape) if saved.packing is None else saved.packing.unpack(op, dx)


def _weight_gradients(
    op: str, da: Array, da_h: Array | None, saved: Saved
) -> tuple[Array, Array, Array | None, Array | None]:
    """dw_ih, dw_hh, db_ih, db_hh: one product over the rows of all steps each."""
    with_b_ih, with_b_hh = saved.biases
    new = empty if len(da) else zeros
    dw_ih, dw_hh = new(op, saved.w_ih.shape, da), new(op, saved.w_hh.shape, da)
    db_ih = new(op, da.shape[1:], da) if with_b_ih or with_b_hh else None
    db_hh = new(op, da.shape[1:], da) if with_b_hh and da_h is not None else None
    if len(da):

        def product(gradient: Array, x: Array, dw: Array, db: Array | None) -> None:
            run("linear_backward_weight", linear_backward_weight, (gradient, x), dw, db)

        product(da, saved.x, dw_ih, db_ih)
        if saved.cell == cells.GRU_RESET_BEFORE:  # the new gate's weights see h after the reset
            units = saved.w_hh.shape[1]
            product(da[:, : 2 * units], saved.h_before, dw_hh[: 2 * units], None)
            product(da[:, 2 * units :], saved.gates[:, :units] * saved.h_before, dw_hh[2 * units :], None)
        else:
            product(da if da_h is None else da_h, saved.h_before, dw_hh, db_hh)
    if with_b_hh and db_hh is None and db_ih is not None:
        db_hh = db_ih.copy()
    return dw_ih, dw_hh, db_ih if with_b_ih else None, db_hh
