"""Recurrent sequences: RNN (tanh or ReLU), LSTM and GRU over all steps in one call, and their gradients.

Gate order, weight layouts and both bias vectors are PyTorch's: LSTM i, f, g, o; GRU r, z, n.

`algorithm` concerns the CUDA kernels, of which the backward takes the same: "persistent" runs all steps in
one launch with w_hh in shared memory (sequences of one length, not for `reset_before`, as many units as
fit), "step" launches anew for every step, and "auto" takes the one that should be faster.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fastarch import arrays
from fastarch.ops import _recurrent as shared
from fastarch.ops._boundary import Array, expect_dims, expect_shape, flag, flags
from fastarch.ops._recurrent import Saved
from fastarch.ops._recurrent_steps import LSTM


class Gradients(NamedTuple):
    """Gradients of rnn or gru; None for what was not given or is not needed."""

    x: Array | None
    h0: Array | None
    w_ih: Array | None
    w_hh: Array | None
    b_ih: Array | None
    b_hh: Array | None


class LSTMGradients(NamedTuple):
    """Gradients of lstm; None for what was not given or is not needed."""

    x: Array | None
    h0: Array | None
    c0: Array | None
    w_ih: Array | None
    w_hh: Array | None
    b_ih: Array | None
    b_hh: Array | None


def rnn(
    x: Array,
    h0: Array | None,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    lengths: Any = None,
    reverse: bool = False,
    nonlinearity: str = "tanh",
    algorithm: str = "auto",
) -> tuple[Array, Array, Saved]:
    """h[t] = f(w_ih x[t] + b_ih + w_hh h[t-1] + b_hh) for every step; Elman (1990). Returns y, hn, saved.

    x [T, N, D], h0 [N, H] or None (zeros), w_ih [H, D], w_hh [H, H], b_ih and b_hh [H] or None -> y [T, N,
    H], every h; hn [N, H], the last one. lengths: N host integers, each 1 to T, in any order; y is 0 past
    the end of a sequence. reverse: from the last step (of each sequence) to the first. nonlinearity: "tanh"
    or "relu". Raises ValueError for shapes or values that do not fit.
    """
    cell = shared.rnn_kind("rnn", nonlinearity)
    y, hn, _, saved = _sequence("rnn", cell, x, (h0,), (w_ih, w_hh, b_ih, b_hh), lengths, reverse, algorithm)
    return y, hn, saved


def rnn_backward(
    dy: Array | None, dhn: Array | None, saved: Saved, need: tuple[bool, bool] = (True, True)
) -> Gradients:
    """Gradients of rnn from dy [T, N, H] and dhn [N, H]; either may be None: no gradient came.

    saved: what rnn returned. need: whether x's gradient and the weights' are wanted. Raises ValueError for
    shapes that do not fit, TypeError for another operator's saved.
    """
    dx, dh0, _, *weights = _gradients("rnn_backward", dy, (dhn,), saved, ("rnn",), need)
    return Gradients(dx, dh0, *weights)


def lstm(
    x: Array,
    h0: Array | None,
    c0: Array | None,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    lengths: Any = None,
    reverse: bool = False,
    algorithm: str = "auto",
) -> tuple[Array, tuple[Array, Array], Saved]:
    """Long short-term memory over every step: Hochreiter and Schmidhuber (1997), with the forget gate of
    Gers et al. (2000). Returns y, (hn, cn), saved.

    x [T, N, D], h0 and c0 [N, H] or None (zeros), w_ih [4H, D], w_hh [4H, H], b_ih and b_hh [4H] or None,
    gates in the order i, f, g, o -> y [T, N, H], every h; hn and cn [N, H], the last ones. lengths: N host
    integers, each 1 to T, in any order; y is 0 past the end of a sequence. reverse: from the last step (of
    each sequence) to the first. Raises ValueError for shapes or values that do not fit.
    """
    y, hn, cn, saved = _sequence(
        "lstm", LSTM, x, (h0, c0), (w_ih, w_hh, b_ih, b_hh), lengths, reverse, algorithm
    )
    return y, (hn, cn), saved


def lstm_backward(
    dy: Array | None,
    dhn: Array | None,
    dcn: Array | None,
    saved: Saved,
    need: tuple[bool, bool] = (True, True),
) -> LSTMGradients:
    """Gradients of lstm from dy [T, N, H], dhn and dcn [N, H]; each may be None: no gradient came.

    saved: what lstm returned. need: whether x's gradient and the weights' are wanted. Raises ValueError for
    shapes that do not fit, TypeError for another operator's saved.
    """
    return LSTMGradients(*_gradients("lstm_backward", dy, (dhn, dcn), saved, ("lstm",), need))


def gru(
    x: Array,
    h0: Array | None,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    lengths: Any = None,
    reverse: bool = False,
    reset_before: bool = False,
    algorithm: str = "auto",
) -> tuple[Array, Array, Saved]:
    """Gated recurrent units over every step: Cho et al. (2014). Returns y, hn, saved.

    x [T, N, D], h0 [N, H] or None (zeros), w_ih [3H, D], w_hh [3H, H], b_ih and b_hh [3H] or None, gates in
    the order r, z, n -> y [T, N, H], every h = (1 - z) n + z h; hn [N, H], the last one. The reset gate
    acts after the product, n = tanh(w_in x + b_in + r (w_hn h + b_hn)), as in PyTorch and cuDNN, or with
    `reset_before` on its operand, n = tanh(w_in x + b_in + w_hn (r h) + b_hn), as in the paper. lengths: N
    host integers, each 1 to T, in any order; y is 0 past the end of a sequence. reverse: from the last step
    (of each sequence) to the first. Raises ValueError for shapes or values that do not fit.
    """
    cell = shared.gru_kind("gru", reset_before)
    y, hn, _, saved = _sequence("gru", cell, x, (h0,), (w_ih, w_hh, b_ih, b_hh), lengths, reverse, algorithm)
    return y, hn, saved


def gru_backward(
    dy: Array | None, dhn: Array | None, saved: Saved, need: tuple[bool, bool] = (True, True)
) -> Gradients:
    """Gradients of gru from dy [T, N, H] and dhn [N, H]; either may be None: no gradient came.

    saved: what gru returned. need: whether x's gradient and the weights' are wanted. Raises ValueError for
    shapes that do not fit, TypeError for another operator's saved.
    """
    dx, dh0, _, *weights = _gradients("gru_backward", dy, (dhn,), saved, ("gru",), need)
    return Gradients(dx, dh0, *weights)


def _sequence(
    op: str, cell: int, x: Array, states: tuple, weights: tuple, lengths: Any, reverse: bool, algorithm: str
) -> tuple[Array, Array, Any, Saved]:
    with arrays.caller_stream(x, op, "x"):
        operands, restore = shared.adopt(op, shared.named(x, "h0 c0", states, weights))
        x, *rest = operands
        expect_dims(op, "x", x, 3, "[T, N, D]")
        t_count, n, d = x.shape
        if t_count == 0:
            raise ValueError(f"[{op}] x has shape {x.shape}, expected at least one step")
        (h0, *more_states), (w_ih, w_hh, b_ih, b_hh) = rest[: len(states)], rest[len(states) :]
        c0 = more_states[0] if more_states else None
        more = [("h0", h0, True), ("c0", c0, True), ("b_ih", b_ih, False), ("b_hh", b_hh, False)]
        shared.check_sizes(op, cell, d, n, w_ih, w_hh, more)
        backwards = flag(op, "reverse", reverse)
        number = shared.algorithm_number(op, algorithm)
        steps = shared.lengths_of(op, lengths, t_count, n)
        weights = (w_ih, w_hh, b_ih, b_hh)
        y, hn, cn, saved = shared.forward(op, cell, x, h0, c0, weights, steps, backwards, restore, number)
        return restore(y), restore(hn), None if cn is None else restore(cn), saved


def _gradients(
    op: str, dy: Array | None, d_states: tuple, saved: Saved, ops: tuple[str, ...], need: tuple[bool, bool]
) -> tuple[Array | None, ...]:
    if not isinstance(saved, Saved) or saved.op not in ops:
        raise TypeError(f"[{op}] saved is {saved!r}, expected what {ops[0]} returned")
    need = flags(op, "need", need)
    given = next((d for d in (dy, *d_states) if d is not None), saved.w_hh)
    with arrays.caller_stream(given, op, "dy"):
        states = list(zip(("dhn", "dcn"), d_states))
        operands = [("dy", dy, True), *((name, d, True) for name, d in states)]
        (dy, *rest), _ = shared.adopt(op, [*operands, ("saved", saved.w_hh, False)])
        t_count, n, _ = saved.x_shape
        units = saved.w_hh.shape[1]
        if dy is not None:
            expect_shape(op, "dy", dy, (t_count, n, units))
        for (name, _), d in zip(states, rest):
            if d is not None:
                expect_shape(op, name, d, (n, units))
        dhn, *dcn = rest[:-1]
        grads = shared.backward(op, dy, dhn, dcn[0] if dcn else None, saved, need)
        return tuple(None if grad is None else saved.restore(grad) for grad in grads)
