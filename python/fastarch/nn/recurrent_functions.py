"""The recurrent operators as functions of tensors: one direction of one layer, and single steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from fastarch import ops
from fastarch.autograd import Array, Function


class _Sequence(Function):
    """x, the states, w_ih, w_hh, b_ih, b_hh, then the options' arrays, whose names are given beside them."""

    run: ClassVar[Callable[..., Any]]
    run_backward: ClassVar[Callable[..., Any]]
    states: ClassVar[int] = 1

    @staticmethod
    def forward(ctx: Any, *arrays: Array | None, names: tuple[str, ...] = (), **options: Any) -> Any:
        kind = type(ctx)
        ctx.names = names
        plain = kind.states + 5
        more = dict(zip(names, arrays[plain:]))
        y, last, ctx.recurrence = kind.run(*arrays[:plain], **more, **options)
        return y, *(last if kind.states > 1 else (last,))

    @staticmethod
    def backward(ctx: Any, dy: Array, *d_last: Array) -> Any:
        kind = type(ctx)
        need = (ctx.needs[0], any(ctx.needs[1 + kind.states :]))
        gradients = kind.run_backward(dy, *d_last, ctx.recurrence, need)
        return *gradients[: kind.states + 5], *(getattr(gradients, name) for name in ctx.names)


class RNN(_Sequence):
    """fastarch.ops.rnn."""

    run, run_backward = staticmethod(ops.rnn), staticmethod(ops.rnn_backward)


class LSTM(_Sequence):
    """fastarch.ops.lstm."""

    run, run_backward = staticmethod(ops.lstm), staticmethod(ops.lstm_backward)
    states = 2


class GRU(_Sequence):
    """fastarch.ops.gru."""

    run, run_backward = staticmethod(ops.gru), staticmethod(ops.gru_backward)


class _Cell(Function):
    """As of a sequence."""

    run: ClassVar[Callable[..., Any]]
    run_backward: ClassVar[Callable[..., Any]]
    states: ClassVar[int] = 1

    @staticmethod
    def forward(ctx: Any, *arrays: Any, names: tuple[str, ...] = (), **options: Any) -> Any:
        kind = type(ctx)
        ctx.save(*arrays)
        ctx.names, ctx.options = names, options
        plain = kind.states + 5
        keep = any(ctx.needs)
        outputs = kind.run(*arrays[:plain], **dict(zip(names, arrays[plain:])), **options, save=keep)
        if not keep:
            return outputs
        *states, ctx.step = outputs
        return tuple(states) if kind.states > 1 else states[0]

    @staticmethod
    def backward(ctx: Any, *d_states: Array) -> Any:
        kind = type(ctx)
        need = (ctx.needs[0], any(ctx.needs[1 + kind.states :]))
        plain = kind.states + 5
        more = dict(zip(ctx.names, ctx.saved[plain:]))
        arguments = (*d_states, *ctx.saved[:plain])
        gradients = kind.run_backward(*arguments, need=need, saved=ctx.step, **more, **ctx.options)
        return *gradients[:plain], *(getattr(gradients, name) for name in ctx.names)


class RNNCell(_Cell):
    """fastarch.ops.rnn_cell."""

    run, run_backward = staticmethod(ops.rnn_cell), staticmethod(ops.rnn_cell_backward)


class LSTMCell(_Cell):
    """fastarch.ops.lstm_cell."""

    run, run_backward = staticmethod(ops.lstm_cell), staticmethod(ops.lstm_cell_backward)
    states = 2


class GRUCell(_Cell):
    """fastarch.ops.gru_cell."""

    run, run_backward = staticmethod(ops.gru_cell), staticmethod(ops.gru_cell_backward)
