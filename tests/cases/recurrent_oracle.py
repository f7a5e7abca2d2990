"""RNN, LSTM and GRU by definition: one sequence, one step and one unit at a time, in float64.

x [T, N, D], h0 and c0 [N, H], w_ih [GH, D], w_hh [GH, H]; G gates: 1, LSTM 4 (i, f, g, o), GRU 3 (r, z, n).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Tape = dict[str, Any]
GATES = {"rnn": 1, "lstm": 4, "gru": 3}


def sigmoid(v: float) -> float:
    return 1.0 / (1.0 + math.exp(-v)) if v >= 0 else math.exp(v) / (1.0 + math.exp(v))


def _float64(array: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    return np.zeros(shape) if array is None else array.astype(np.float64)


def _rows(weight: np.ndarray, vector: np.ndarray) -> list[float]:
    """Each row of a weight times a vector."""
    return [math.fsum(w * v for w, v in zip(row, vector, strict=True)) for row in weight]


def step(kind: str, x, h, c, w_ih, w_hh, b_ih, b_hh, nonlinearity="tanh", reset_before=False):
    """The next h and c of one sequence, and what the chain rule asks for later."""
    units = len(h)
    a = np.array(_rows(w_ih, x)) + b_ih
    p = np.array(_rows(w_hh, h)) + b_hh
    tape: Tape = {"x": x, "h": h, "c": c}
    if kind == "rnn":
        f = math.tanh if nonlinearity == "tanh" else (lambda v: max(v, 0.0))
        new = np.array([f(v) for v in a + p])
        return new, c, tape | {"y": new}
    if kind == "lstm":
        i, f, o = (np.array([sigmoid(v) for v in (a + p)[k * units : (k + 1) * units]]) for k in (0, 1, 3))
        g = np.array([math.tanh(v) for v in (a + p)[2 * units : 3 * units]])
        new_c = f * c + i * g
        tanh_c = np.array([math.tanh(v) for v in new_c])
        return o * tanh_c, new_c, tape | {"i": i, "f": f, "g": g, "o": o, "tanh_c": tanh_c}
    r, z = (np.array([sigmoid(v) for v in (a + p)[k * units : (k + 1) * units]]) for k in (0, 1))
    w_n, b_n = w_hh[2 * units :], b_hh[2 * units :]
    inner = np.array(_rows(w_n, r * h)) + b_n if reset_before else r * p[2 * units :]
    n = np.array([math.tanh(v) for v in a[2 * units :] + inner])
    return (1 - z) * n + z * h, c, tape | {"r": r, "z": z, "n": n, "p_n": p[2 * units :]}


def step_backward(kind: str, dh, dc, tape: Tape, w_ih, w_hh, nonlinearity="tanh", reset_before=False):
    """dx, dh and dc of the state before, and the step's share of the gradients of weights and biases."""
    units, h, c = len(dh), tape["h"], tape["c"]
    if kind == "rnn":
        y = tape["y"]
        d = dh * ((1 - y * y) if nonlinearity == "tanh" else (y > 0))
        d_h = d
    elif kind == "lstm":
        i, f, g, o, t = (tape[k] for k in ("i", "f", "g", "o", "tanh_c"))
        dc = dc + dh * o * (1 - t * t)
        d = np.concatenate(
            [dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g * g), dh * t * o * (1 - o)]
        )
        d_h, dc = d, dc * f
    else:
        r, z, n, p_n = (tape[k] for k in ("r", "z", "n", "p_n"))
        d_n = dh * (1 - z) * (1 - n * n)
        d_z = dh * (h - n) * z * (1 - z)
        if reset_before:
            d_rh = w_hh[2 * units :].T @ d_n
            d = np.concatenate([d_rh * h * r * (1 - r), d_z, d_n])
            dw_hh = np.concatenate([np.outer(d[: 2 * units], h), np.outer(d_n, r * h)])
            d_before = dh * z + d_rh * r + w_hh[: 2 * units].T @ d[: 2 * units]
            return w_ih.T @ d, d_before, dc, np.outer(d, tape["x"]), dw_hh, d, d
        d = np.concatenate([d_n * p_n * r * (1 - r), d_z, d_n])
        d_h = np.concatenate([d[: 2 * units], d_n * r])
    d_before = w_hh.T @ d_h + (dh * tape["z"] if kind == "gru" else 0)
    return w_ih.T @ d, d_before, dc, np.outer(d, tape["x"]), np.outer(d_h, h), d, d_h


def sequence(kind, x, h0, c0, w_ih, w_hh, b_ih, b_hh, lengths, reverse, **options):
    """y [T, N, H], last h and c, and for every sequence the steps in order with their tapes."""
    (t_count, n_count, _), units = x.shape, w_hh.shape[1]
    x, w_ih, w_hh = (a.astype(np.float64) for a in (x, w_ih, w_hh))
    b_ih, b_hh = (_float64(b, w_hh.shape[:1]) for b in (b_ih, b_hh))
    hn, cn = (_float64(s, (n_count, units)) for s in (h0, c0))
    y, tapes = np.zeros((t_count, n_count, units)), []
    for b in range(n_count):
        order = range(t_count if lengths is None else lengths[b])
        tapes.append([])
        for t in reversed(order) if reverse else order:
            hn[b], cn[b], tape = step(
                kind, x[t, b], hn[b].copy(), cn[b].copy(), w_ih, w_hh, b_ih, b_hh, **options
            )
            y[t, b] = hn[b]
            tapes[b].append((t, tape))
    return y, hn, cn, tapes


def sequence_backward(
    kind, dy, dhn, dcn, x, h0, c0, w_ih, w_hh, b_ih, b_hh, lengths, reverse, need=(True, True), **options
):
    """Gradients of x, h0, c0 (LSTM), w_ih, w_hh, b_ih, b_hh; None for what was not given or is not needed."""
    *_, tapes = sequence(kind, x, h0, c0, w_ih, w_hh, b_ih, b_hh, lengths, reverse, **options)
    (t_count, n_count, _), units = x.shape, w_hh.shape[1]
    dy = _float64(dy, (t_count, n_count, units))
    dh, dc = (_float64(d, (n_count, units)) for d in (dhn, dcn))
    dx, dw_ih, dw_hh = np.zeros(x.shape), np.zeros(w_ih.shape), np.zeros(w_hh.shape)
    db_ih, db_hh = np.zeros(w_hh.shape[0]), np.zeros(w_hh.shape[0])
    w_ih, w_hh = w_ih.astype(np.float64), w_hh.astype(np.float64)
    for b in range(n_count):
        for t, tape in reversed(tapes[b]):
            dx[t, b], dh[b], dc[b], *shares = step_backward(
                kind, dh[b] + dy[t, b], dc[b], tape, w_ih, w_hh, **options
            )
            for total, share in zip((dw_ih, dw_hh, db_ih, db_hh), shares, strict=True):
                total += share
    states = (dh if h0 is not None else None, dc if c0 is not None else None)
    return (
        dx if need[0] else None,
        *(states if kind == "lstm" else states[:1]),
        *((dw_ih, dw_hh) if need[1] else (None, None)),
        db_ih if need[1] and b_ih is not None else None,
        db_hh if need[1] and b_hh is not None else None,
    )
