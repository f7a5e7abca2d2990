"""Single steps of recurrent layers, for loops of one's own."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from fastarch.nn import recurrent_functions
from fastarch.nn.layers.recurrent_module import RecurrentModule
from fastarch.tensors import Tensor


class _Cell(RecurrentModule):
    """Parameters under PyTorch's names, those of the options under the layers' without a suffix."""

    _function: ClassVar[type[recurrent_functions._Cell]]
    weight_hh: Tensor

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, *, dtype: Any = np.float32, **more: Any
    ) -> None:
        super().__init__(input_size, hidden_size, bias, **more)
        self._make(input_size, "", dtype)
        self.reset_parameters()

    def recurrent_weight(self) -> Tensor:
        """weight_hh as a step takes it: in training with some elements dropped, by `dropconnect`. Drawn once
        and given to every step of a loop as `weight_hh`, it is what a layer draws once a call.
        """
        return self._dropped(self.weight_hh)

    def _step(self, x: Any, states: tuple[Any, ...], weight_hh: Any) -> Any:
        weights, names = self._weights("", weight_hh)
        options = {**self._options, **self._zoneout()}
        return self._function.apply(x, *states, *weights, names=names, **options)

    def multiply_adds(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> int:
        return inputs[0] * self._row_multiply_adds(self.input_size)

    def extra_repr(self) -> str:
        return self._describe({"bias": True})


class RNNCell(_Cell):
    """The next h of an RNN, from x [N, input_size] and hx [N, hidden_size] or None (zeros); Elman (1990).

    nonlinearity: "tanh" or "relu". By keyword as for fastarch.nn.RNN: zoneout, anew at each call in training;
    layer_norm; dropconnect, drawn at each call unless the call is given a weight_hh (see recurrent_weight);
    dtype. Raises ValueError for sizes that are not positive and probabilities out of range, TypeError for
    arguments of other types.
    """

    _function = recurrent_functions.RNNCell
    _gates = 1

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh", **more: Any
    ) -> None:
        super().__init__(input_size, hidden_size, bias, **more)
        self._choose_nonlinearity(nonlinearity)

    def forward(self, x: Any, hx: Any = None, *, weight_hh: Any = None) -> Tensor:
        return self._step(x, (hx,), weight_hh)


class LSTMCell(_Cell):
    """The next (h, c) of a long short-term memory, from x [N, input_size] and hx: (h, c), each [N,
    hidden_size] (h [N, proj_size] where that is above 0), or None (zeros).

    By keyword as for fastarch.nn.LSTM: proj_size, forget_bias, zoneout_cell; and what RNNCell takes. Raises
    ValueError for sizes that are not positive and probabilities out of range, TypeError for arguments of
    other types. Hochreiter and Schmidhuber (1997).
    """

    _function = recurrent_functions.LSTMCell
    _gates = 4
    _state_names = ("h", "c")

    def forward(
        self, x: Any, hx: tuple[Any, Any] | None = None, *, weight_hh: Any = None
    ) -> tuple[Tensor, Tensor]:
        if hx is not None and (not isinstance(hx, (tuple, list)) or len(hx) != 2):
            raise TypeError(f"[LSTMCell] hx must be a pair (h, c) or None, got {type(hx).__name__}")
        return self._step(x, (None, None) if hx is None else tuple(hx), weight_hh)


class GRUCell(_Cell):
    """The next h of a gated recurrent unit, from x [N, input_size] and hx [N, hidden_size] or None (zeros);
    Cho et al. (2014).

    By keyword: reset_before, the reset gate acts before the product, as in the paper, and not after it, as in
    PyTorch (not with layer_norm); and what RNNCell takes. Raises ValueError for sizes that are not positive
    and probabilities out of range, TypeError for arguments of other types.
    """

    _function = recurrent_functions.GRUCell
    _gates = 3

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        reset_before: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, **more)
        self._choose_form(reset_before)

    def forward(self, x: Any, hx: Any = None, *, weight_hh: Any = None) -> Tensor:
        return self._step(x, (hx,), weight_hh)
