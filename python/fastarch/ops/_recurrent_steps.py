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
ALGORITHMS = {"auto": 0, "step": 1, "persistent": 2}


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


def _rnn_forward(activate: Any) -> Any:
    def forward(w_hh, b_n, gates, h, c, y, extra, order, xp):  # type: ignore[no-untyped-def]
        product = xp.empty((h.shape[0], w_hh.shape[0]), h.dtype)
        turned = _turned(w_hh, order, xp)
        for n, rows in order:
            new = y[rows]
            xp.matmul(h[:n], turned, out=product[:n])
            xp.add(gates[rows], product[:n], out=new)
            activate(new, xp)
            h[:n] = new

    return forward


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


def _lstm_forward(w_hh, b_n, gates, h, c, y, extra, order, xp):  # type: ignore[no-untyped-def]
    units = h.shape[1]
    # One tanh for all four gates: sigmoid(x) = tanh(x / 2) / 2 + 1 / 2, and the first half goes into the
    # weights.
    scale = xp.full(4 * units, 0.5, h.dtype)
    scale[2 * units : 3 * units] = 1
    shift = xp.full(4 * units, 0.5, h.dtype)
    shift[2 * units : 3 * units] = 0
    turned = xp.multiply(w_hh.T, scale, out=xp.empty(w_hh.shape[::-1], h.dtype))
    gates *= scale
    product = xp.empty((h.shape[0], 4 * units), h.dtype)
    work = xp.empty_like(h)
    for n, rows in order:
        a = gates[rows]
        a += xp.matmul(h[:n], turned, out=product[:n])
        xp.tanh(a, out=a)
        a *= scale
        a += shift
        i, f, g, o = (a[:, k * units : (k + 1) * units] for k in range(4))
        c[:n] *= f
        c[:n] += xp.multiply(i, g, out=work[:n])
        extra[rows] = c[:n]
        xp.tanh(c[:n], out=work[:n])
        h[:n] = xp.multiply(o, work[:n], out=y[rows])


def _gru_forward(w_hh, b_n, gates, h, c, y, extra, order, xp):  # type: ignore[no-untyped-def]
    units = h.shape[1]
    turned = _turned(w_hh, order, xp)
    product = xp.empty((h.shape[0], 3 * units), h.dtype)
    for n, rows in order:
        a, p = gates[rows], xp.matmul(h[:n], turned, out=product[:n])
        both, new, inner = a[:, : 2 * units], a[:, 2 * units :], extra[rows]
        both += p[:, : 2 * units]
        _sigmoid(both, xp)
        inner[...] = p[:, 2 * units :]
        if b_n is not None:
            inner += b_n
        new += xp.multiply(a[:, :units], inner, out=p[:, :units])
        xp.tanh(new, out=new)
        _mix(a[:, units : 2 * units], new, h[:n], y[rows], xp)


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


def _mix(z: Array, new: Array, h: Array, y: Array, xp: Any) -> None:
    """h = y = (1 - z) new + z h."""
    xp.subtract(h, new, out=y)
    y *= z
    y += new
    h[...] = y


_FORWARD = (
    _rnn_forward(_tanh),
    _rnn_forward(_relu),
    _lstm_forward,
    _gru_forward,
    _gru_reset_before_forward,
)


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


def _rnn_backward(slope: Any) -> Any:
    def backward(w_hh, y, dy, extra, previous, dh, dc, da, da_h, order, xp):  # type: ignore[no-untyped-def]
        for n, rows in order:
            if dy is not None:
                dh[:n] += dy[rows]
            d = da[rows]
            slope(y[rows], d, xp)
            d *= dh[:n]
            xp.matmul(d, w_hh, out=dh[:n])

    return backward


def _tanh_slope(y: Array, out: Array, xp: Any) -> None:
    xp.multiply(y, y, out=out)
    xp.subtract(1, out, out=out)


def _relu_slope(y: Array, out: Array, xp: Any) -> None:
    out[...] = y > 0


def _sigmoid_slope(y: Array, out: Array, xp: Any) -> None:
    xp.subtract(1, y, out=out)
    out *= y


def _lstm_backward(w_hh, gates, dy, extra, previous, dh, dc, da, da_h, order, xp):  # type: ignore[no-untyped-def]
    units = dh.shape[1]
    tanh_c, work = xp.empty_like(dh), xp.empty_like(dh)
    for n, rows in order:
        a, d, t, w = gates[rows], da[rows], tanh_c[:n], work[:n]
        i, f, g, o = (a[:, k * units : (k + 1) * units] for k in range(4))
        di, df, dg, do = (d[:, k * units : (k + 1) * units] for k in range(4))
        dh_n, dc_n = dh[:n], dc[:n]
        if dy is not None:
            dh_n += dy[rows]
        xp.tanh(extra[rows], out=t)
        _sigmoid_slope(a, d, xp)
        do *= t
        do *= dh_n
        _tanh_slope(t, w, xp)
        w *= o
        w *= dh_n
        dc_n += w
        _tanh_slope(g, dg, xp)
        dg *= i
        di *= g
        df *= previous[rows]
        for part in (di, df, dg):
            part *= dc_n
        dc_n *= f
        xp.matmul(d, w_hh, out=dh_n)


def _gru_backward(w_hh, gates, dy, extra, previous, dh, dc, da, da_h, order, xp):  # type: ignore[no-untyped-def]
    units = dh.shape[1]
    product = xp.empty_like(dh)
    for n, rows in order:
        dh_n = _unmix(gates[rows], dy, rows, previous[rows], dh[:n], da[rows], xp)
        d, d_h, r = da[rows], da_h[rows], gates[rows][:, :units]
        new = d[:, 2 * units :]
        _sigmoid_slope(r, d[:, :units], xp)
        d[:, :units] *= extra[rows]
        d[:, :units] *= new
        d_h[:, : 2 * units] = d[:, : 2 * units]
        xp.multiply(new, r, out=d_h[:, 2 * units :])
        dh_n += xp.matmul(d_h, w_hh, out=product[:n])


def _gru_reset_before_backward(w_hh, gates, dy, extra, previous, dh, dc, da, da_h, order, xp):  # type: ignore[no-untyped-def]
    units = dh.shape[1]
    product = xp.empty_like(dh)
    for n, rows in order:
        dh_n = _unmix(gates[rows], dy, rows, previous[rows], dh[:n], da[rows], xp)
        d, r, p = da[rows], gates[rows][:, :units], product[:n]
        xp.matmul(d[:, 2 * units :], w_hh[2 * units :], out=p)  # gradient of r * h
        _sigmoid_slope(r, d[:, :units], xp)
        d[:, :units] *= previous[rows]
        d[:, :units] *= p
        p *= r
        dh_n += p
        dh_n += xp.matmul(d[:, : 2 * units], w_hh[: 2 * units], out=p)


def _unmix(a: Array, dy: Array | None, rows: slice, previous: Array, dh: Array, d: Array, xp: Any) -> Array:
    """The gradients of z and n before their activations, into d; dh becomes the share that skips the cell."""
    units = dh.shape[1]
    z, new = a[:, units : 2 * units], a[:, 2 * units :]
    dz, dn = d[:, units : 2 * units], d[:, 2 * units :]
    if dy is not None:
        dh += dy[rows]
    _tanh_slope(new, dn, xp)
    dn *= dh
    xp.subtract(previous, new, out=dz)
    dz *= dh
    dh *= z
    xp.subtract(1, z, out=d[:, :units])  # the reset gate's place is free until its own gradient is known
    dn *= d[:, :units]
    dz *= d[:, :units]
    dz *= z
    return dh


_BACKWARD = (
    _rnn_backward(_tanh_slope),
    _rnn_backward(_relu_slope),
    _lstm_backward,
    _gru_backward,
    _gru_reset_before_backward,
)
