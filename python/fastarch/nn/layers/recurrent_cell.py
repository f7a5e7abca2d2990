"""Single steps of recurrent layers, for loops of one's own."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from fastarch.nn import init, recurrent_functions
from fastarch.nn.layers.checks import check_positive
from fastarch.nn.module import Module, Parameter
from fastarch.tensors import Tensor


class _Cell(Module):
    """Parameters under PyTorch's names."""

    _gates: ClassVar[int]

    def __init__(self, input_size: int, hidden_size: int, bias: bool, dtype: Any) -> None:
        check_positive(type(self).__name__, input_size=input_size, hidden_size=hidden_size)
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        rows = self._gates * hidden_size
        self.weight_ih = Parameter(np.empty((rows, input_size), dtype))
        self.weight_hh = Parameter(np.empty((rows, hidden_size), dtype))
        self.bias_ih = Parameter(np.empty(rows, dtype)) if bias else None
        self.bias_hh = Parameter(np.empty(rows, dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws every weight and bias anew, uniform in +-1/sqrt(hidden_size)."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def _weights(self) -> tuple[Any, ...]:
        return self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh

    def multiply_adds(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> int:
        return inputs[0] * self._gates * self.hidden_size * (self.input_size + self.hidden_size)

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")


class RNNCell(_Cell):
    """The next h of an RNN, from x [N, input_size] and hx [N, hidden_size] or None (zeros); Elman (1990).

    nonlinearity: "tanh" or "relu". Raises ValueError for sizes that are not positive.
    """

    _gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        *,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, x: Any, hx: Any = None) -> Tensor:
        return recurrent_functions.RNNCell.apply(x, hx, *self._weights(), nonlinearity=self.nonlinearity)


class LSTMCell(_Cell):
    """The next (h, c) of a long short-term memory, from x [N, input_size] and hx: (h, c), each [N,
    hidden_size], or None (zeros).

    Raises ValueError for sizes that are not positive. Hochreiter and Schmidhuber (1997).
    """

    _gates = 4

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, *, dtype: Any = np.float32
    ) -> None:
        super().__init__(input_size, hidden_size, bias, dtype)

    def forward(self, x: Any, hx: tuple[Any, Any] | None = None) -> tuple[Tensor, Tensor]:
        h, c = (None, None) if hx is None else hx
        return recurrent_functions.LSTMCell.apply(x, h, c, *self._weights())


class GRUCell(_Cell):
    """The next h of a gated recurrent unit, from x [N, input_size] and hx [N, hidden_size] or None (zeros);
    Cho et al. (2014).

    reset_before: the reset gate acts before the product, as in the paper, and not after it, as in PyTorch.
    Raises ValueError for sizes that are not positive.
    """

    _gates = 3

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        reset_before: bool = False,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, dtype)
        self.reset_before = reset_before

    def forward(self, x: Any, hx: Any = None) -> Tensor:
        return recurrent_functions.GRUCell.apply(x, hx, *self._weights(), reset_before=self.reset_before)
