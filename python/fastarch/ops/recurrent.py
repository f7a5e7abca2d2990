"""Recurrent sequences: RNN (tanh or ReLU), LSTM and GRU over all steps in one call, and their gradients.

Gate order, weight layouts and both bias vectors are PyTorch's: LSTM i, f, g, o; GRU r, z, n.

What every kind takes beside its cell:

- zoneout: h keeps each of its elements with this probability instead of taking the new one; Krueger et al.
  (2017). stream: (seed, offset) of a Philox stream that draws which, anew for every step and sequence: while
  training (the offset may be an array, as for dropout); None: the expectation, for evaluation. LSTM:
  zoneout_cell does it to c, whose new value h still uses. The element of h of step t, sequence b and unit u
  is kept when word (t N + b) P + u of the stream is below floor(zoneout 2^32), that of c by word T N P + (t N
  + b) H + u and zoneout_cell.
- norm_ih, norm_hh [GH]: gains of layer normalisation; Ba et al. (2016), in haste's form: the shares of all
  gates of one step and sequence, w_ih x and w_hh h, have mean 0 and variance 1 (plus 1e-5) over their G H
  elements, before gains and then biases. LSTM: norm_c and norm_c_bias [H], gain and bias of the same on the
  way from c to h, h = o tanh(norm(c)).

These are put together from products, the gates' kernel of a step and array operations; the algorithm is
"step".

Of float16 and bfloat16, the CUDA kernels take weights, gates and h in 16 bits, h being rounded at every
step; sums, c and the gradients that steps hand on are float32. Elsewhere, on devices before sm_80 and with
the options above, everything is computed on float32 copies, and results are rounded once.

`algorithm` concerns the CUDA kernels, of which the backward takes the same: "step" launches anew for every
step; "persistent" runs all steps in one launch with w_hh in shared memory, "cluster" (sm_90 and later) with a
copy of it in each cluster of blocks, both for as many units as fit, and `reset_before` only "persistent" in
float32 and float64. "auto" takes "step" or "persistent", whichever should be faster.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fastarch import arrays
from fastarch.ops import _recurrent as recurrence
from fastarch.ops import _recurrent_arguments as arguments
from fastarch.ops._boundary import Array, expect_shape, flag, flags, widen
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
    norm_ih: Array | None = None
    norm_hh: Array | None = None


class LSTMGradients(NamedTuple):
    """Gradients of lstm; None for what was not given or is not needed."""

    x: Array | None
    h0: Array | None
    c0: Array | None
    w_ih: Array | None
    w_hh: Array | None
    b_ih: Array | None
    b_hh: Array | None
    w_hr: Array | None = None
    norm_ih: Array | None = None
    norm_hh: Array | None = None
    norm_c: Array | None = None
    norm_c_bias: Array | None = None


@arguments.every_float
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
    *,
    norm_ih: Array | None = None,
    norm_hh: Array | None = None,
    zoneout: float = 0.0,
    stream: tuple[int, Any] | None = None,
) -> tuple[Array, Array, Saved]:
    """h[t] = f(w_ih x[t] + b_ih + w_hh h[t-1] + b_hh) for every step; Elman (1990). Returns y, hn, saved.

    x [T, N, D], h0 [N, H] or None (zeros), w_ih [H, D], w_hh [H, H], b_ih and b_hh [H] or None -> y [T, N,
    H], every h; hn [N, H], the last one. lengths: N host integers, each 1 to T, in any order; y is 0 past
    the end of a sequence. reverse: from the last step (of each sequence) to the first. nonlinearity: "tanh"
    or "relu". Raises ValueError for shapes or values that do not fit.
    """
    cell = arguments.rnn_kind("rnn", nonlinearity)
    norms = {"norm_ih": norm_ih, "norm_hh": norm_hh}
    chance = {"zoneout": zoneout}
    weights = (w_ih, w_hh, b_ih, b_hh)
    how = (lengths, reverse, algorithm, stream)
    y, hn, _, saved = _sequence("rnn", cell, x, {"h0": h0}, weights, norms, chance, *how)
    return y, hn, saved


@arguments.every_float
def rnn_backward(
    dy: Array | None, dhn: Array | None, saved: Saved, need: tuple[bool, bool] = (True, True)
) -> Gradients:
    """Gradients of rnn from dy [T, N, H] and dhn [N, H]; either may be None: no gradient came.

    saved: what rnn returned. need: whether x's gradient and the weights' are wanted. Raises ValueError for
    shapes that do not fit, TypeError for another operator's saved.
    """
    (dx, dh0, _, *weights), more = _gradients("rnn_backward", dy, (dhn,), saved, "rnn", need)
    return Gradients(dx, dh0, *weights, **more)


@arguments.every_float
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
    *,
    w_hr: Array | None = None,
    norm_ih: Array | None = None,
    norm_hh: Array | None = None,
    norm_c: Array | None = None,
    norm_c_bias: Array | None = None,
    zoneout: float = 0.0,
    zoneout_cell: float = 0.0,
    stream: tuple[int, Any] | None = None,
) -> tuple[Array, tuple[Array, Array], Saved]:
    """Long short-term memory over every step: Hochreiter and Schmidhuber (1997), with the forget gate of
    Gers et al. (2000). Returns y, (hn, cn), saved.

    x [T, N, D], h0 and c0 [N, H] or None (zeros), w_ih [4H, D], w_hh [4H, H], b_ih and b_hh [4H] or None,
    gates in the order i, f, g, o -> y [T, N, H], every h; hn and cn [N, H], the last ones. lengths: N host
    integers, each 1 to T, in any order; y is 0 past the end of a sequence. reverse: from the last step (of
    each sequence) to the first. Raises ValueError for shapes or values that do not fit.
    """
    more = {
        "w_hr": w_hr,
        "norm_ih": norm_ih,
        "norm_hh": norm_hh,
        "norm_c": norm_c,
        "norm_c_bias": norm_c_bias,
    }
    chances = {"zoneout": zoneout, "zoneout_cell": zoneout_cell}
    weights = (w_ih, w_hh, b_ih, b_hh)
    how = (lengths, reverse, algorithm, stream)
    y, hn, cn, saved = _sequence("lstm", LSTM, x, {"h0": h0, "c0": c0}, weights, more, chances, *how)
    return y, (hn, cn), saved


@arguments.every_float
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
    plain, more = _gradients("lstm_backward", dy, (dhn, dcn), saved, "lstm", need)
    return LSTMGradients(*plain, **more)


@arguments.every_float
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
    *,
    norm_ih: Array | None = None,
    norm_hh: Array | None = None,
    zoneout: float = 0.0,
    stream: tuple[int, Any] | None = None,
) -> tuple[Array, Array, Saved]:
    """Gated recurrent units over every step: Cho et al. (2014). Returns y, hn, saved.

    x [T, N, D], h0 [N, H] or None (zeros), w_ih [3H, D], w_hh [3H, H], b_ih and b_hh [3H] or None, gates in
    the order r, z, n -> y [T, N, H], every h = (1 - z) n + z h; hn [N, H], the last one. The reset gate
    acts after the product, n = tanh(w_in x + b_in + r (w_hn h + b_hn)), as in PyTorch and cuDNN, or with
    `reset_before` on its operand, n = tanh(w_in x + b_in + w_hn (r h) + b_hn), as in the paper. lengths: N
    host integers, each 1 to T, in any order; y is 0 past the end of a sequence. reverse: from the last step
    (of each sequence) to the first. Raises ValueError for shapes or values that do not fit.
    """
    cell = arguments.gru_kind("gru", reset_before)
    norms = {"norm_ih": norm_ih, "norm_hh": norm_hh}
    chance = {"zoneout": zoneout}
    weights = (w_ih, w_hh, b_ih, b_hh)
    how = (lengths, reverse, algorithm, stream)
    y, hn, _, saved = _sequence("gru", cell, x, {"h0": h0}, weights, norms, chance, *how)
    return y, hn, saved


@arguments.every_float
def gru_backward(
    dy: Array | None, dhn: Array | None, saved: Saved, need: tuple[bool, bool] = (True, True)
) -> Gradients:
    """Gradients of gru from dy [T, N, H] and dhn [N, H]; either may be None: no gradient came.

    saved: what gru returned. need: whether x's gradient and the weights' are wanted. Raises ValueError for
    shapes that do not fit, TypeError for another operator's saved.
    """
    (dx, dh0, _, *weights), more = _gradients("gru_backward", dy, (dhn,), saved, "gru", need)
    return Gradients(dx, dh0, *weights, **more)


def _sequence(
    op: str,
    cell: int,
    x: Array,
    states: dict[str, Array | None],
    weights: tuple,
    more: dict[str, Array | None],
    chances: dict[str, float],
    lengths: Any,
    reverse: bool,
    algorithm: str,
    stream: tuple[int, Any] | None,
) -> tuple[Array, Array, Any, Saved]:
    with arrays.caller_stream(x, op, "x"):
        number = arguments.algorithm_number(op, algorithm)
        inputs = ((x, "[T, N, D]"), states, weights, more, chances, stream, number)
        of, options, restore = arguments.all_of(op, cell, *inputs)
        t_count, n, _ = of["x"].shape
        if t_count == 0:
            raise ValueError(f"[{op}] x has shape {of['x'].shape}, expected at least one step")
        backwards = flag(op, "reverse", reverse)
        steps = arguments.lengths_of(op, lengths, t_count, n)
        plain = (of["w_ih"], of["w_hh"], of["b_ih"], of["b_hh"])
        found = (of["h0"], of.get("c0"), plain, steps, backwards, restore, number, options)
        y, hn, cn, saved = recurrence.forward(op, cell, of["x"], *found)
        return restore(y), restore(hn), None if cn is None else restore(cn), saved


def _gradients(
    op: str, dy: Array | None, d_states: tuple, saved: Saved, forward: str, need: tuple[bool, bool]
) -> tuple[tuple[Array | None, ...], dict[str, Array]]:
    if not isinstance(saved, Saved) or saved.op != forward:
        raise TypeError(f"[{op}] saved is {saved!r}, expected what {forward} returned")
    need = flags(op, "need", need)
    given = next((d for d in (dy, *d_states) if d is not None), saved.w_hh)
    with arrays.caller_stream(given, op, "dy"):
        states = list(zip(("dhn", "dcn"), d_states))
        operands = [("dy", dy, True), *((name, d, True) for name, d in states)]
        restore, like = saved.restore, saved.w_hh[:0]
        if isinstance(restore, arguments.Rounded):
            like = like.astype(restore.dtype)
        adopted, _ = arguments.adopt(op, [*operands, ("saved", like, False)])
        dy, *rest = map(widen, adopted) if isinstance(restore, arguments.Rounded) else adopted
        t_count, n, _ = saved.x_shape
        outputs, units = saved.w_hh.shape[1], saved.units
        if dy is not None:
            expect_shape(op, "dy", dy, (t_count, n, outputs))
        for ((name, _), d), width in zip(zip(states, rest), (outputs, units)):
            if d is not None:
                expect_shape(op, name, d, (n, width))
        dhn, *dcn = rest[:-1]
        grads, more = recurrence.backward(op, dy, dhn, dcn[0] if dcn else None, saved, need)
        plain = tuple(None if grad is None else saved.restore(grad) for grad in grads)
        return plain, {name: saved.restore(grad) for name, grad in more.items()}
