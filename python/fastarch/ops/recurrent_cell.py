"""One step of an RNN, LSTM or GRU, for loops of one's own, and its gradients.

A step is one kernel each way on a GPU, and then the products that give the gradients. With options
(normalisation, zoneout, projection: those of fastarch.ops.rnn, lstm and gru) it is a sequence of one step:
the masks of zoneout are those of step 0 of `stream`, so give each step of a loop another offset. With
save=True a step also returns, last, what its backward takes as `saved` beside the same arguments: the
activated gates, or of an RNN h itself, which must stay unchanged until then. In 16 bits they are rounded like
h. Without it a backward computes the step again from its inputs, on the same masks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fastarch import arrays
from fastarch.ops import _recurrent as recurrence
from fastarch.ops import _recurrent_arguments as arguments
from fastarch.ops import _recurrent_cell as one_step
from fastarch.ops._boundary import Array, expect_shape, flag, flags
from fastarch.ops._recurrent_cell import CellSaved
from fastarch.ops._recurrent_steps import GATES, GRU_RESET_BEFORE, LSTM

More = dict[str, Array | None]
Chances = dict[str, float]


class CellGradients(NamedTuple):
    """Gradients of rnn_cell or gru_cell; None for what was not given or is not needed."""

    x: Array | None
    h: Array | None
    w_ih: Array | None
    w_hh: Array | None
    b_ih: Array | None
    b_hh: Array | None
    norm_ih: Array | None = None
    norm_hh: Array | None = None


class LSTMCellGradients(NamedTuple):
    """Gradients of lstm_cell; None for what was not given or is not needed."""

    x: Array | None
    h: Array | None
    c: Array | None
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
def rnn_cell(
    x: Array,
    h: Array | None,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    nonlinearity: str = "tanh",
    *,
    norm_ih: Array | None = None,
    norm_hh: Array | None = None,
    zoneout: float = 0.0,
    stream: tuple[int, Any] | None = None,
    save: bool = False,
) -> Any:
    """The next h = f(w_ih x + b_ih + w_hh h + b_hh); Elman (1990).

    x [N, D], h [N, H] or None (zeros), w_ih [H, D], w_hh [H, H], b_ih and b_hh [H] or None -> h [N, H].
    nonlinearity: "tanh" or "relu". save: returns (h, saved). Raises ValueError for shapes or values that do
    not fit.
    """
    kind = arguments.rnn_kind("rnn_cell", nonlinearity)
    more, chances = {"norm_ih": norm_ih, "norm_hh": norm_hh}, {"zoneout": zoneout}
    return _step("rnn_cell", kind, x, {"h": h}, (w_ih, w_hh, b_ih, b_hh), more, chances, stream, save)


@arguments.every_float
def rnn_cell_backward(
    dh: Array,
    x: Array,
    h: Array | None,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    nonlinearity: str = "tanh",
    need: tuple[bool, bool] = (True, True),
    *,
    norm_ih: Array | None = None,
    norm_hh: Array | None = None,
    zoneout: float = 0.0,
    stream: tuple[int, Any] | None = None,
    saved: CellSaved | None = None,
) -> CellGradients:
    """Gradients of rnn_cell from dh [N, H], the gradient of what it returned; the other arguments are its
    own.

    need: whether x's gradient and the weights' are wanted. saved: what the step returned with save=True.
    Raises ValueError for shapes that do not fit, TypeError for another operator's saved.
    """
    op = "rnn_cell_backward"
    inputs = (x, {"h": h}, (w_ih, w_hh, b_ih, b_hh), {"norm_ih": norm_ih, "norm_hh": norm_hh})
    chances = {"zoneout": zoneout}
    kind, gradients = arguments.rnn_kind(op, nonlinearity), [("dh", dh, False)]
    (dx, dh, _, *weights), more = _step_backward(op, kind, gradients, *inputs, chances, stream, need, saved)
    return CellGradients(dx, dh, *weights, **more)


@arguments.every_float
def lstm_cell(
    x: Array,
    h: Array | None,
    c: Array | None,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    *,
    w_hr: Array | None = None,
    norm_ih: Array | None = None,
    norm_hh: Array | None = None,
    norm_c: Array | None = None,
    norm_c_bias: Array | None = None,
    zoneout: float = 0.0,
    zoneout_cell: float = 0.0,
    stream: tuple[int, Any] | None = None,
    save: bool = False,
) -> Any:
    """The next h and c = f c + i g, h = o tanh(c), of a long short-term memory; Gers et al. (2000).

    x [N, D], h and c [N, H] or None (zeros), w_ih [4H, D], w_hh [4H, H], b_ih and b_hh [4H] or None, gates
    in the order i, f, g, o -> h, c [N, H]; with w_hr [P, H], of a projection, h [N, P] and w_hh [4H, P].
    save: returns h, c, saved. Raises ValueError for shapes that do not fit.
    """
    norms = {"norm_ih": norm_ih, "norm_hh": norm_hh, "norm_c": norm_c, "norm_c_bias": norm_c_bias}
    chances = {"zoneout": zoneout, "zoneout_cell": zoneout_cell}
    inputs = (x, {"h": h, "c": c}, (w_ih, w_hh, b_ih, b_hh), {"w_hr": w_hr, **norms})
    return _step("lstm_cell", LSTM, *inputs, chances, stream, save)


@arguments.every_float
def lstm_cell_backward(
    dh: Array | None,
    dc: Array | None,
    x: Array,
    h: Array | None,
    c: Array | None,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    need: tuple[bool, bool] = (True, True),
    *,
    w_hr: Array | None = None,
    norm_ih: Array | None = None,
    norm_hh: Array | None = None,
    norm_c: Array | None = None,
    norm_c_bias: Array | None = None,
    zoneout: float = 0.0,
    zoneout_cell: float = 0.0,
    stream: tuple[int, Any] | None = None,
    saved: CellSaved | None = None,
) -> LSTMCellGradients:
    """Gradients of lstm_cell from dh [N, H] ([N, P] of a projection) and dc [N, H], those of what it
    returned; None where no gradient came.

    The other arguments are lstm_cell's own. need: whether x's gradient and the weights' are wanted. saved:
    what the step returned with save=True. Raises ValueError for shapes that do not fit, TypeError for
    another operator's saved.
    """
    norms = {"norm_ih": norm_ih, "norm_hh": norm_hh, "norm_c": norm_c, "norm_c_bias": norm_c_bias}
    chances = {"zoneout": zoneout, "zoneout_cell": zoneout_cell}
    inputs = (x, {"h": h, "c": c}, (w_ih, w_hh, b_ih, b_hh), {"w_hr": w_hr, **norms})
    op, gradients = "lstm_cell_backward", [("dh", dh, True), ("dc", dc, True)]
    plain, more = _step_backward(op, LSTM, gradients, *inputs, chances, stream, need, saved)
    return LSTMCellGradients(*plain, **more)


@arguments.every_float
def gru_cell(
    x: Array,
    h: Array | None,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    reset_before: bool = False,
    *,
    norm_ih: Array | None = None,
    norm_hh: Array | None = None,
    zoneout: float = 0.0,
    stream: tuple[int, Any] | None = None,
    save: bool = False,
) -> Any:
    """The next h = (1 - z) n + z h of a gated recurrent unit; Cho et al. (2014).

    x [N, D], h [N, H] or None (zeros), w_ih [3H, D], w_hh [3H, H], b_ih and b_hh [3H] or None, gates in the
    order r, z, n -> h [N, H]. reset_before: as for gru. save: returns (h, saved).
    Raises ValueError for shapes that do not fit.
    """
    kind = arguments.gru_kind("gru_cell", reset_before)
    more, chances = {"norm_ih": norm_ih, "norm_hh": norm_hh}, {"zoneout": zoneout}
    return _step("gru_cell", kind, x, {"h": h}, (w_ih, w_hh, b_ih, b_hh), more, chances, stream, save)


@arguments.every_float
def gru_cell_backward(
    dh: Array,
    x: Array,
    h: Array | None,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    reset_before: bool = False,
    need: tuple[bool, bool] = (True, True),
    *,
    norm_ih: Array | None = None,
    norm_hh: Array | None = None,
    zoneout: float = 0.0,
    stream: tuple[int, Any] | None = None,
    saved: CellSaved | None = None,
) -> CellGradients:
    """Gradients of gru_cell from dh [N, H], the gradient of what it returned; the other arguments are its
    own.

    need: whether x's gradient and the weights' are wanted. saved: what the step returned with save=True.
    Raises ValueError for shapes that do not fit, TypeError for another operator's saved.
    """
    op = "gru_cell_backward"
    inputs = (x, {"h": h}, (w_ih, w_hh, b_ih, b_hh), {"norm_ih": norm_ih, "norm_hh": norm_hh})
    chances = {"zoneout": zoneout}
    kind, gradients = arguments.gru_kind(op, reset_before), [("dh", dh, False)]
    (dx, dh, _, *weights), more = _step_backward(op, kind, gradients, *inputs, chances, stream, need, saved)
    return CellGradients(dx, dh, *weights, **more)


def _step(
    op: str,
    cell: int,
    x: Array,
    states: dict[str, Array | None],
    weights: tuple,
    more: More,
    chances: Chances,
    stream: Any,
    save: bool,
) -> Any:
    """The states, alone or as a tuple with what the backward needs."""
    save = flag(op, "save", save)
    with arrays.caller_stream(x, op, "x"):
        inputs = ((x, "[N, D]"), states, weights, more, chances, stream)
        of, options, restore = arguments.all_of(op, cell, *inputs)
        if _in_one(cell, options):
            h, c, saved = one_step.forward(op, cell, _inputs(of), save)
        else:
            _, h, c, sequence = _run(op, cell, of, options, restore)
            saved = CellSaved(op, cell, of["x"].shape, None, None, sequence)
        results = (restore(h), *(() if c is None else (restore(c),)), *((saved,) if save else ()))
        return results if len(results) > 1 else results[0]


def _step_backward(
    op: str,
    cell: int,
    gradients: arguments.Named,
    x: Array,
    states: dict[str, Array | None],
    weights: tuple,
    more: More,
    chances: Chances,
    stream: Any,
    need: tuple[bool, bool],
    saved: CellSaved | None,
) -> tuple[tuple[Array | None, ...], dict[str, Array]]:
    """Gradients of x, h, c, the weights and biases; then those of the options' arrays, by name."""
    need = flags(op, "need", need)
    with arrays.caller_stream(x, op, "x"):
        # Weights and inputs first: a gradient is what may be left out.
        inputs = ((x, "[N, D]"), states, weights, more, chances, stream)
        of, options, restore = arguments.all_of(op, cell, *inputs, gradients=gradients)
        (n, _), outputs = of["x"].shape, of["w_hh"].shape[1]
        units = of["w_hh"].shape[0] // GATES[cell]
        for name, width in (("dh", outputs), ("dc", units)):
            if of.get(name) is not None:
                expect_shape(op, name, of[name], (n, width))
        saved = _usable(op, cell, saved, of, options)
        plain: tuple[Array | None, ...]
        found: dict[str, Array] = {}
        if _in_one(cell, options):
            plain = one_step.backward(op, cell, _inputs(of), saved, of["dh"], of.get("dc"), need)
        else:
            sequence = saved.sequence if saved else None
            sequence = sequence or _run(op, cell, of, options, restore)[-1]
            grads, found = recurrence.backward(op, None, of["dh"], of.get("dc"), sequence, need)
            dx, *rest = grads
            plain = (None if dx is None else dx.reshape(dx.shape[1:]), *rest)
        return tuple(None if grad is None else restore(grad) for grad in plain), {
            name: restore(grad) for name, grad in found.items()
        }


def _usable(
    op: str, cell: int, saved: CellSaved | None, of: dict[str, Any], options: arguments.Options
) -> CellSaved | None:
    """`saved`, of such a step: of this kind, size and options; or None where a backend with another dtype for
    its work kept it, so that the step has to be computed again.
    """
    if saved is None:
        return None
    forward = op.removesuffix("_backward")
    if not isinstance(saved, CellSaved) or saved.op != forward:
        raise TypeError(f"[{op}] saved is {saved!r}, expected what {forward} returned with save=True")
    sequence, one = saved.sequence, _in_one(cell, options)
    fits = saved.cell == cell and saved.x_shape == of["x"].shape and (sequence is None) == one
    gates: Any = saved.gates if sequence is None else sequence.gates
    if fits and sequence is not None:
        given = (of["b_ih"] is not None, of["b_hh"] is not None)
        states = (of["h"] is not None, of.get("c") is not None)
        fits = given == sequence.biases and states == sequence.first_states
        fits = fits and list(options.arrays()) == list(sequence.options.arrays())
    if not fits or gates.shape != (len(of["x"]), of["w_hh"].shape[0]):
        raise ValueError(f"[{op}] saved is {saved!r} of another step, expected one of the same arguments")
    if type(gates) is not type(of["x"]):
        raise TypeError(
            f"[{op}] saved is in the memory of {type(gates)}, expected {type(of['x'])} as x is in"
        )
    return saved if gates.dtype == of["x"].dtype else None


def _in_one(cell: int, options: arguments.Options) -> bool:
    """Whether the step is one product and what follows from it."""
    return cell != GRU_RESET_BEFORE and not options.any()


def _inputs(of: dict[str, Any]) -> one_step.Inputs:
    return of["x"], of["h"], of.get("c"), of["w_ih"], of["w_hh"], of["b_ih"], of["b_hh"]


def _run(
    op: str, cell: int, of: dict[str, Any], options: arguments.Options, restore: arrays.Restore
) -> tuple[Array, Array, Any, recurrence.Saved]:
    """The step as a sequence of one."""
    weights = (of["w_ih"], of["w_hh"], of["b_ih"], of["b_hh"])
    first = (of["h"], of.get("c"), weights, None, False, restore)
    return recurrence.forward(op, cell, of["x"][None], *first, options=options)
