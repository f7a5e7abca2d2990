"""The recurrent cells, array-generic: one direction over packed rows, forward and backward, by step.

The rows of all steps lie one step after the other; step t has sizes[t] of them, never more than the step
before it, so that row b of every step belongs to sequence b (sequences are sorted, longest first). G gates
a unit: 1 (RNN), 4 (LSTM: i, f, g, o) or 3 (GRU: r, z, n), each H wide. R is the sum of the sizes, N the
first one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastarch.ops._boundary import Array

# The numbers by which kernels know the cells (csrc/ops/recurrent.h).
RNN_TANH, RNN_RELU, LSTM, GRU, GRU_RESET_BEFORE = range(5)
GATES = (1, 1, 4, 3, 3)
# Those of the CUDA kernels; here there is one.
ALGORITHMS = {"auto": 0, "step": 1, "persistent": 2, "cluster": 3}


def steps(sizes: list[int], reverse: bool) -> Iterator[tuple[int, slice]]:
    """(active sequences, their packed rows) of every step, in the order in which the recurrence visits
    them.
    """
    ends = []
    end = 0
    for size in sizes:
        end += size
        ends.append(end)
    order = range(len(sizes) - 1, -1, -1) if reverse else range(len(sizes))
    return ((sizes[t], slice(ends[t] - sizes[t], ends[t])) for t in order)


def recurrent_forward(
    w_hh: Array,
    b_n: Array | None,
    gates: Array,
    h: Array,
    c: Array | None,
    y: Array,
    extra: Array | None,
    cell: int,
    sizes: list[int],
    reverse: bool,
    algorithm: int,
    xp: Any,
) -> None:
    """w_hh [GH, H], b_n [H]: the bias inside GRU's reset product, or None. gates [R, GH]: comes in as the
    inputs' share, biases included, goes out activated (RNN: scratch). h [N, H] and c [N, H] (LSTM): the
    state, first -> last. Overwritten: y [R, H]; extra [R, H]: LSTM: c of each step; GRU: n's recurrent
    share, before the reset.
    """
    _FORWARD[cell](w_hh, b_n, gates, h, c, y, extra, list(steps(sizes, reverse)), xp)


def _turned(weight: Array, order: list, xp: Any) -> Array:
    """The transpose; laid out so where enough steps read it: their products are faster by a third then."""
    return xp.ascontiguousarray(weight.T) if len(order) > 8 else weight.T


def _forward(step: Any) -> Any:
    """A cell's step, as the recurrence over all of them."""

    def forward(w_hh, b_n, gates, h, c, y, extra, order, xp):  # type: ignore[no-untyped-def]
        product = xp.empty((h.shape[0], w_hh.shape[0]), h.dtype)
        turned = _turned(w_hh, order, xp)
        for n, rows in order:
            p = xp.matmul(h[:n], turned, out=product[:n])
            step(gates[rows], p, b_n, h[:n], None, y[rows], None if extra is None else extra[rows], xp)
            h[:n] = y[rows]

    return forward


def _rnn_step(activate: Any) -> Any:
    def step(a, p, b_n, h, c, y, extra, xp):  # type: ignore[no-untyped-def]
        xp.add(a, p, out=y)
        activate(y, xp)

    return step


def _tanh(x: Array, xp: Any) -> None:
    xp.tanh(x, out=x)


def _relu(x: Array, xp: Any) -> None:
    xp.maximum(x, 0, out=x)


def _sigmoid(x: Array, xp: Any) -> None:
    """In place, by the tangent: 1 / (1 + exp(-x)) = (1 + tanh(x / 2)) / 2, which cannot overflow."""
    x *= 0.5
    xp.tanh(x, out=x)
    x *= 0.5
    x += 0.5


def _halves(units: int, dtype: Any, xp: Any) -> tuple[Array, Array]:
    """What turns one tanh into all four gates: sigmoid(x) = tanh(x / 2) / 2 + 1 / 2 but for the third."""
    scale, shift = xp.full(4 * units, 0.5, dtype), xp.full(4 * units, 0.5, dtype)
    scale[2 * units : 3 * units] = 1
    shift[2 * units : 3 * units] = 0
    return scale, shift


def _lstm_gates(a, c, y, extra, scale, shift, xp):  # type: ignore[no-untyped-def]
    """From the scaled sums of the gates on."""
    units = c.shape[1]
    xp.tanh(a, out=a)
    a *= scale
    a += shift
    i, f, g, o = (a[:, k * units : (k + 1) * units] for k in range(4))
    c *= f
    c += xp.multiply(i, g, out=y)
    extra[...] = c
    xp.tanh(c, out=y)
    y *= o


def _lstm_forward(w_hh, b_n, gates, h, c, y, extra, order, xp):  # type: ignore[no-untyped-def]
    # The inner half of the sigmoids goes into the weights.
    scale, shift = _halves(h.shape[1], h.dtype, xp)
    turned = xp.multiply(w_hh.T, scale, out=xp.empty(w_hh.shape[::-1], h.dtype))
    gates *= scale
    product = xp.empty((h.shape[0], w_hh.shape[0]), h.dtype)
    for n, rows in order:
        a = gates[rows]
        a += xp.matmul(h[:n], turned, out=product[:n])
        _lstm_gates(a, c[:n], y[rows], extra[rows], scale, shift, xp)
        h[:n] = y[rows]


def _lstm_step(a, p, b_n, h, c, y, extra, xp):  # type: ignore[no-untyped-def]
    scale, shift = _halves(c.shape[1], c.dtype, xp)
    a += p
    a *= scale
    _lstm_gates(a, c, y, extra, scale, shift, xp)


def _gru_step(a, p, b_n, h, c, y, extra, xp):  # type: ignore[no-untyped-def]
    units = h.shape[1]
    both, new = a[:, : 2 * units], a[:, 2 * units :]
    both += p[:, : 2 * units]
    _sigmoid(both, xp)
    extra[...] = p[:, 2 * units :]
    if b_n is not None:
        extra += b_n
    new += xp.multiply(a[:, :units], extra, out=y)
    xp.tanh(new, out=new)
    _mix(a[:, units : 2 * units], new, h, y, xp)


def _gru_reset_before_forward(w_hh, b_n, gates, h, c, y, extra, order, xp):  # type: ignore[no-untyped-def]
    units = h.shape[1]
    turned_both, turned_new = (_turned(w, order, xp) for w in (w_hh[: 2 * units], w_hh[2 * units :]))
    product = xp.empty((h.shape[0], 2 * units), h.dtype)
    work, share = xp.empty_like(h), xp.empty_like(h)
    for n, rows in order:
        a = gates[rows]
        both, new = a[:, : 2 * units], a[:, 2 * units :]
        both += xp.matmul(h[:n], turned_both, out=product[:n])
        _sigmoid(both, xp)
        xp.multiply(a[:, :units], h[:n], out=work[:n])
        new += xp.matmul(work[:n], turned_new, out=share[:n])
        xp.tanh(new, out=new)
        _mix(a[:, units : 2 * units], new, h[:n], y[rows], xp)
        h[:n] = y[rows]


def _mix(z: Array, new: Array, h: Array, y: Array, xp: Any) -> None:
    """y = (1 - z) new + z h."""
    xp.subtract(h, new, out=y)
    y *= z
    y += new


_STEPS = (_rnn_step(_tanh), _rnn_step(_relu), _lstm_step, _gru_step)
_FORWARD = (*map(_forward, _STEPS[:2]), _lstm_forward, _forward(_gru_step), _gru_reset_before_forward)


def recurrent_gates_forward(
    product: Array,
    b_n: Array | None,
    h: Array | None,
    gates: Array,
    c: Array | None,
    y: Array,
    extra: Array | None,
    cell: int,
    xp: Any,
) -> None:
    """One step of N sequences whose product w_hh h [N, GH] is known, for every cell but
    GRU_RESET_BEFORE. h [N, H]: the state before (GRU, else None). gates [N, GH]: comes in as the inputs'
    share, goes out activated (RNN: scratch); c [N, H] (LSTM): before -> after. Overwritten: y [N, H], the
    next h; extra [N, H] as of recurrent_forward.
    """
    _STEPS[cell](gates, product, b_n, h, c, y, extra, xp)


def recurrent_backward(
    w_hh: Array,
    gates: Array,
    dy: Array | None,
    extra: Array | None,
    previous: Array | None,
    dh: Array,
    dc: Array | None,
    da: Array,
    da_h: Array | None,
    cell: int,
    sizes: list[int],
    reverse: bool,
    algorithm: int,
    xp: Any,
) -> None:
    """gates [R, GH] and extra [R, H] as recurrent_forward left them (RNN: gates is y). dy [R, H] or None:
    zeros. previous [R, H]: c (LSTM) or h (GRU) of the step before. dh [N, H] and dc [N, H] (LSTM):
    gradient of the last state -> of the first. Overwritten: da [R, GH], gradient of the inputs' share;
    da_h [R, GH] (GRU with the reset after): of the recurrent share.
    """
    _BACKWARD[cell](w_hh, gates, dy, extra, previous, dh, dc, da, da_h, list(steps(sizes, not reverse)), xp)


def _backward(step: Any) -> Any:
    """The way back through a cell's step, over all steps."""

    def backward(w_hh, gates, dy, extra, previous, dh, dc, da, da_h, order, xp):  # type: ignore[no-untyped-def]
        product = xp.empty_like(dh if da_h is not None else dh[:0])
        for n, rows in order:
            dh_n, d = dh[:n], da[rows]
            if dy is not None:
                dh_n += dy[rows]
            kept = (part if part is None else part[rows] for part in (extra, previous))
            if da_h is None:
                step(gates[rows], *kept, dh_n, None if dc is None else dc[:n], d, None, xp)
                xp.matmul(d, w_hh, out=dh_n)
            else:  # a part of dh goes past the product
                step(gates[rows], *kept, dh_n, None, d, da_h[rows], xp)
                dh_n += xp.matmul(da_h[rows], w_hh, out=product[:n])

    return backward


def _rnn_step_backward(slope: Any) -> Any:
    def step(y, extra, previous, dh, dc, d, d_h, xp):  # type: ignore[no-untyped-def]
        slope(y, d, xp)
        d *= dh

    return step


def _tanh_slope(y: Array, out: Array, xp: Any) -> None:
    xp.multiply(y, y, out=out)
    xp.subtract(1, out, out=out)


def _relu_slope(y: Array, out: Array, xp: Any) -> None:
    out[...] = ~(y <= 0)  # NaN lets the gradient pass, as everywhere


def _sigmoid_slope(y: Array, out: Array, xp: Any) -> None:
    xp.subtract(1, y, out=out)
    out *= y


def _lstm_step_backward(a, c, previous, dh, dc, d, d_h, xp):  # type: ignore[no-untyped-def]
    units = dh.shape[1]
    i, f, g, o = (a[:, k * units : (k + 1) * units] for k in range(4))
    di, df, dg, do = (d[:, k * units : (k + 1) * units] for k in range(4))
    t = xp.tanh(c)
    _sigmoid_slope(a, d, xp)
    do *= t
    do *= dh
    _tanh_slope(t, t, xp)
    t *= o
    t *= dh
    dc += t
    _tanh_slope(g, dg, xp)
    dg *= i
    di *= g
    df *= previous
    for part in (di, df, dg):
        part *= dc
    dc *= f


def _gru_step_backward(a, inner, previous, dh, dc, d, d_h, xp):  # type: ignore[no-untyped-def]
    units = dh.shape[1]
    _unmix(a, previous, dh, d, xp)
    r, dr, new = a[:, :units], d[:, :units], d[:, 2 * units :]
    _sigmoid_slope(r, dr, xp)
    dr *= inner
    dr *= new
    d_h[:, : 2 * units] = d[:, : 2 * units]
    xp.multiply(new, r, out=d_h[:, 2 * units :])


def _gru_reset_before_backward(w_hh, gates, dy, extra, previous, dh, dc, da, da_h, order, xp):  # type: ignore[no-untyped-def]
    units = dh.shape[1]
    product = xp.empty_like(dh)
    for n, rows in order:
        dh_n, d, r, p = dh[:n], da[rows], gates[rows][:, :units], product[:n]
        if dy is not None:
            dh_n += dy[rows]
        _unmix(gates[rows], previous[rows], dh_n, d, xp)
        xp.matmul(d[:, 2 * units :], w_hh[2 * units :], out=p)  # gradient of r * h
        _sigmoid_slope(r, d[:, :units], xp)
        d[:, :units] *= previous[rows]
        d[:, :units] *= p
        p *= r
        dh_n += p
        dh_n += xp.matmul(d[:, : 2 * units], w_hh[: 2 * units], out=p)


def _unmix(a: Array, previous: Array, dh: Array, d: Array, xp: Any) -> None:
    """The gradients of z and n before their activations, into d; dh becomes the share that skips the cell."""
    units = dh.shape[1]
    z, new = a[:, units : 2 * units], a[:, 2 * units :]
    dz, dn = d[:, units : 2 * units], d[:, 2 * units :]
    _tanh_slope(new, dn, xp)
    dn *= dh
    xp.subtract(previous, new, out=dz)
    dz *= dh
    dh *= z
    xp.subtract(1, z, out=d[:, :units])  # the reset gate's place is free until its own gradient is known
    dn *= d[:, :units]
    dz *= d[:, :units]
    dz *= z


_STEPS_BACKWARD = (
    _rnn_step_backward(_tanh_slope),
    _rnn_step_backward(_relu_slope),
    _lstm_step_backward,
    _gru_step_backward,
)
_BACKWARD = (*map(_backward, _STEPS_BACKWARD), _gru_reset_before_backward)


def recurrent_gates_backward(
    gates: Array,
    extra: Array | None,
    previous: Array | None,
    dh: Array,
    dc: Array | None,
    da: Array,
    da_h: Array | None,
    cell: int,
    xp: Any,
) -> None:
    """The way back through recurrent_gates_forward. gates [N, GH] (RNN: y), extra and previous [N, H] as
    of recurrent_backward. dh [N, H]: all of the gradient of h -> the part that reaches the h before past the
    product; dc [N, H] (LSTM): of c after -> of c before. Overwritten: da [N, GH]; da_h [N, GH] (GRU).
    """
    _STEPS_BACKWARD[cell](gates, extra, previous, dh, dc, da, da_h, xp)
    if cell != GRU:
        dh[...] = 0
