"""One step of an RNN, LSTM or GRU, for loops of one's own, and its gradients.

A backward computes the gates again from the step's inputs: nothing needs to be kept between the two.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fastarch import arrays
from fastarch.ops import _recurrent as recurrence
from fastarch.ops import _recurrent_arguments as arguments
from fastarch.ops._boundary import Array, expect_dims, expect_shape, flags
from fastarch.ops._recurrent_steps import LSTM


class CellGradients(NamedTuple):
    """Gradients of rnn_cell or gru_cell; None for what was not given or is not needed."""

    x: Array | None
    h: Array | None
    w_ih: Array | None
    w_hh: Array | None
    b_ih: Array | None
    b_hh: Array | None


class LSTMCellGradients(NamedTuple):
    """Gradients of lstm_cell; None for what was not given or is not needed."""

    x: Array | None
    h: Array | None
    c: Array | None
    w_ih: Array | None
    w_hh: Array | None
    b_ih: Array | None
    b_hh: Array | None


@arguments.every_float
def rnn_cell(
    x: Array,
    h: Array | None,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    nonlinearity: str = "tanh",
) -> Array:
    """The next h = f(w_ih x + b_ih + w_hh h + b_hh); Elman (1990).

    x [N, D], h [N, H] or None (zeros), w_ih [H, D], w_hh [H, H], b_ih and b_hh [H] or None -> h [N, H].
    nonlinearity: "tanh" or "relu". Raises ValueError for shapes or values that do not fit.
    """
    kind = arguments.rnn_kind("rnn_cell", nonlinearity)
    return _step("rnn_cell", kind, x, (h,), (w_ih, w_hh, b_ih, b_hh))[0]


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
) -> CellGradients:
    """Gradients of rnn_cell from dh [N, H], the gradient of what it returned; the other arguments are its
    own.

    need: whether x's gradient and the weights' are wanted. Raises ValueError for shapes that do not fit.
    """
    op = "rnn_cell_backward"
    kind = arguments.rnn_kind(op, nonlinearity)
    grads = _step_backward(op, kind, (("dh", dh, False),), x, (h,), (w_ih, w_hh, b_ih, b_hh), need)
    return CellGradients(*grads[:2], *grads[3:])


@arguments.every_float
def lstm_cell(
    x: Array,
    h: Array | None,
    c: Array | None,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
) -> tuple[Array, Array]:
    """The next h and c = f c + i g, h = o tanh(c), of a long short-term memory; Gers et al. (2000).

    x [N, D], h and c [N, H] or None (zeros), w_ih [4H, D], w_hh [4H, H], b_ih and b_hh [4H] or None, gates
    in the order i, f, g, o -> h, c [N, H]. Raises ValueError for shapes that do not fit.
    """
    return _step("lstm_cell", LSTM, x, (h, c), (w_ih, w_hh, b_ih, b_hh))


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
) -> LSTMCellGradients:
    """Gradients of lstm_cell from dh and dc [N, H], those of what it returned; None where no gradient came.

    The other arguments are lstm_cell's own. need: whether x's gradient and the weights' are wanted. Raises
    ValueError for shapes that do not fit.
    """
    gradients = (("dh", dh, True), ("dc", dc, True))
    weights = (w_ih, w_hh, b_ih, b_hh)
    return LSTMCellGradients(*_step_backward("lstm_cell_backward", LSTM, gradients, x, (h, c), weights, need))


@arguments.every_float
def gru_cell(
    x: Array,
    h: Array | None,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    reset_before: bool = False,
) -> Array:
    """The next h = (1 - z) n + z h of a gated recurrent unit; Cho et al. (2014).

    x [N, D], h [N, H] or None (zeros), w_ih [3H, D], w_hh [3H, H], b_ih and b_hh [3H] or None, gates in the
    order r, z, n -> h [N, H]. reset_before: as for gru. Raises ValueError for shapes that do not fit.
    """
    kind = arguments.gru_kind("gru_cell", reset_before)
    return _step("gru_cell", kind, x, (h,), (w_ih, w_hh, b_ih, b_hh))[0]


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
) -> CellGradients:
    """Gradients of gru_cell from dh [N, H], the gradient of what it returned; the other arguments are its
    own.

    need: whether x's gradient and the weights' are wanted. Raises ValueError for shapes that do not fit.
    """
    op = "gru_cell_backward"
    kind = arguments.gru_kind(op, reset_before)
    grads = _step_backward(op, kind, (("dh", dh, False),), x, (h,), (w_ih, w_hh, b_ih, b_hh), need)
    return CellGradients(*grads[:2], *grads[3:])


def _step(op: str, cell: int, x: Array, states: tuple, weights: tuple) -> tuple[Array, Any]:
    with arrays.caller_stream(x, op, "x"):
        adopted = arguments.adopt(op, arguments.named(x, "h c", states, weights))
        operands, restore = arguments.widen_unless_kernels(*adopted)
        _, h, c, _ = _run(op, cell, operands, len(states), restore)
        return restore(h), None if c is None else restore(c)


def _step_backward(
    op: str, cell: int, gradients: tuple, x: Array, states: tuple, weights: tuple, need: tuple[bool, bool]
) -> tuple[Array | None, ...]:
    need = flags(op, "need", need)
    with arrays.caller_stream(x, op, "x"):
        # Weights and inputs first: a gradient is what may be left out.
        adopted = arguments.adopt(op, [*arguments.named(x, "h c", states, weights), *gradients])
        operands, restore = arguments.widen_unless_kernels(*adopted)
        count = len(operands) - len(gradients)
        _, h, _, saved = _run(op, cell, operands[:count], len(states), restore)
        for (name, *_), gradient in zip(gradients, operands[count:]):
            if gradient is not None:
                expect_shape(op, name, gradient, h.shape)
        dh, *dc = operands[count:]
        grads, _ = recurrence.backward(op, None, dh, dc[0] if dc else None, saved, need)
        dx = grads[0]
        return tuple(
            None if grad is None else restore(grad)
            for grad in (None if dx is None else dx.reshape(dx.shape[1:]), *grads[1:])
        )


def _run(
    op: str, cell: int, operands: list, state_count: int, restore: arrays.Restore
) -> tuple[Array, Array, Array | None, recurrence.Saved]:
    """The step as a sequence of one; operands: x, states, weights, biases."""
    x, *rest = operands
    expect_dims(op, "x", x, 2, "[N, D]")
    (h, *c), (w_ih, w_hh, b_ih, b_hh) = rest[:state_count], rest[state_count:]
    last = c[0] if c else None
    more = [("h", h, True), ("c", last, True), ("b_ih", b_ih, False), ("b_hh", b_hh, False)]
    arguments.check_sizes(op, cell, x.shape[1], x.shape[0], w_ih, w_hh, more)
    return recurrence.forward(op, cell, x[None], h, last, (w_ih, w_hh, b_ih, b_hh), None, False, restore)
