"""The recurrent operators as functions of tensors: one direction of one layer, and single steps."""

from __future__ import annotations

from typing import Any

from fastarch import ops
from fastarch.autograd import Array, Function


class LSTM(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Array,
        h0: Array | None,
        c0: Array | None,
        w_ih: Array,
        w_hh: Array,
        b_ih: Array | None,
        b_hh: Array | None,
        **options: Any,
    ) -> tuple[Array, Array, Array]:
        y, (hn, cn), ctx.recurrence = ops.lstm(x, h0, c0, w_ih, w_hh, b_ih, b_hh, **options)
        return y, hn, cn

    @staticmethod
    def backward(ctx: Any, dy: Array, dhn: Array, dcn: Array) -> Any:
        need = (ctx.needs[0], any(ctx.needs[3:]))
        return ops.lstm_backward(dy, dhn, dcn, ctx.recurrence, need)


class RNN(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Array,
        h0: Array | None,
        w_ih: Array,
        w_hh: Array,
        b_ih: Array | None,
        b_hh: Array | None,
        **options: Any,
    ) -> tuple[Array, Array]:
        y, hn, ctx.recurrence = ops.rnn(x, h0, w_ih, w_hh, b_ih, b_hh, **options)
        return y, hn

    @staticmethod
    def backward(ctx: Any, dy: Array, dhn: Array) -> Any:
        return ops.rnn_backward(dy, dhn, ctx.recurrence, (ctx.needs[0], any(ctx.needs[2:])))


class GRU(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Array,
        h0: Array | None,
        w_ih: Array,
        w_hh: Array,
        b_ih: Array | None,
        b_hh: Array | None,
        **options: Any,
    ) -> tuple[Array, Array]:
        y, hn, ctx.recurrence = ops.gru(x, h0, w_ih, w_hh, b_ih, b_hh, **options)
        return y, hn

    @staticmethod
    def backward(ctx: Any, dy: Array, dhn: Array) -> Any:
        return ops.gru_backward(dy, dhn, ctx.recurrence, (ctx.needs[0], any(ctx.needs[2:])))


class LSTMCell(Function):
    @staticmethod
    def forward(ctx: Any, *arrays: Any) -> tuple[Array, Array]:
        ctx.save(*arrays)
        return ops.lstm_cell(*arrays)

    @staticmethod
    def backward(ctx: Any, dh: Array, dc: Array) -> Any:
        x, h, c, w_ih, w_hh, b_ih, b_hh = ctx.saved
        need = (ctx.needs[0], any(ctx.needs[3:]))
        return ops.lstm_cell_backward(dh, dc, x, h, c, w_ih, w_hh, b_ih, b_hh, need)


class RNNCell(Function):
    @staticmethod
    def forward(ctx: Any, *arrays: Any, **options: Any) -> Array:
        ctx.save(*arrays)
        ctx.options = options
        return ops.rnn_cell(*arrays, **options)

    @staticmethod
    def backward(ctx: Any, dh: Array) -> Any:
        x, h, w_ih, w_hh, b_ih, b_hh = ctx.saved
        need = (ctx.needs[0], any(ctx.needs[2:]))
        return ops.rnn_cell_backward(dh, x, h, w_ih, w_hh, b_ih, b_hh, need=need, **ctx.options)


class GRUCell(Function):
    @staticmethod
    def forward(ctx: Any, *arrays: Any, **options: Any) -> Array:
        ctx.save(*arrays)
        ctx.options = options
        return ops.gru_cell(*arrays, **options)

    @staticmethod
    def backward(ctx: Any, dh: Array) -> Any:
        x, h, w_ih, w_hh, b_ih, b_hh = ctx.saved
        need = (ctx.needs[0], any(ctx.needs[2:]))
        return ops.gru_cell_backward(dh, x, h, w_ih, w_hh, b_ih, b_hh, need=need, **ctx.options)
