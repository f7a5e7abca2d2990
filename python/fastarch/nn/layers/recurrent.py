"""Recurrent layers: RNN, LSTM and GRU over sequences, in layers and both directions."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from fastarch.autograd import Function
from fastarch.nn import functional as F
from fastarch.nn import init, recurrent_functions
from fastarch.nn.layers.checks import check_positive
from fastarch.nn.module import Module, Parameter
from fastarch.tensors import Tensor, as_tensor, concatenate, stack

_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class _Recurrent(Module):
    """What the three kinds share: parameters under PyTorch's names, layers, directions, dropout between
    layers.
    """

    _function: ClassVar[type[Function]]
    _gates: ClassVar[int]
    _state_names: ClassVar[tuple[str, ...]] = ("hx",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        dropconnect: float,
        dtype: Any,
    ) -> None:
        name = type(self).__name__
        check_positive(name, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        for label, p in (("dropout", dropout), ("dropconnect", dropconnect)):
            if not 0 <= p <= 1:
                raise ValueError(f"[{name}] {label} must be in [0, 1], got {p}")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.bidirectional = bias, batch_first, bidirectional
        self.dropout, self.dropconnect = dropout, dropconnect
        self._options: dict[str, Any] = {}
        rows = self._gates * hidden_size
        for layer in range(num_layers):
            features = input_size if layer == 0 else hidden_size * self.directions
            for suffix in self._suffixes(layer):
                shapes = ((rows, features), (rows, hidden_size), (rows,), (rows,))
                for key, shape in zip(_WEIGHTS, shapes if bias else shapes[:2]):
                    setattr(self, key + suffix, Parameter(np.empty(shape, dtype)))
        self.reset_parameters()

    @property
    def directions(self) -> int:
        """1, or 2 when bidirectional."""
        return 2 if self.bidirectional else 1

    def _suffixes(self, layer: int) -> list[str]:
        return [f"_l{layer}{direction}" for direction in ("", "_reverse")[: self.directions]]

    def reset_parameters(self) -> None:
        """Draws every weight and bias anew, uniform in +-1/sqrt(hidden_size)."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def _weights(self, suffix: str) -> list[Tensor | None]:
        weights = [getattr(self, key + suffix, None) for key in _WEIGHTS]
        weights[1] = F.dropout(weights[1], self.dropconnect, self.training)
        return weights

    def _run(
        self, x: Any, states: tuple[Any, ...] | None, lengths: Any, algorithm: str
    ) -> tuple[Tensor, ...]:
        """y, and the last states of all layers and directions, in the layout that the caller gave x in."""
        x = as_tensor(x)
        single = x.ndim == 2
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            letters = "[N, T" if self.batch_first else "[T, N"
            raise ValueError(
                f"[{type(self).__name__}] x has shape {x.shape}, expected {letters}, {self.input_size}] "
                f"or [T, {self.input_size}]"
            )
        if single:
            x = x.unsqueeze(1)
        elif self.batch_first:
            x = x.transpose(0, 1)
        first = self._first_states(states, x.shape[1], single)
        last: list[list[Tensor]] = [[] for _ in self._state_names]
        y = x
        for layer in range(self.num_layers):
            outputs = []
            for direction, suffix in enumerate(self._suffixes(layer)):
                index = layer * self.directions + direction
                output, *ends = self._function.apply(
                    y,
                    *(None if state is None else state[index] for state in first),
                    *self._weights(suffix),
                    lengths=lengths,
                    reverse=direction == 1,
                    algorithm=algorithm,
                    **self._options,
                )
                outputs.append(output)
                for collected, end in zip(last, ends):
                    collected.append(end)
            y = outputs[0] if len(outputs) == 1 else concatenate(outputs, 2)
            if layer + 1 < self.num_layers:
                y = F.dropout(y, self.dropout, self.training)
        ends = [stack(collected, 0) for collected in last]
        if single:
            return y[:, 0], *(end[:, 0] for end in ends)
        return (y.transpose(0, 1) if self.batch_first else y), *ends

    def _first_states(
        self, states: tuple[Any, ...] | None, count: int, single: bool
    ) -> tuple[Tensor | None, ...]:
        if states is None:
            return (None,) * len(self._state_names)
        tensors = tuple(as_tensor(state) for state in states)
        shape: tuple[int, ...] = (self.num_layers * self.directions, self.hidden_size)
        shape = shape if single else (shape[0], count, shape[1])
        for name, tensor in zip(self._state_names, tensors):
            if tensor.shape != shape:
                raise ValueError(f"[{type(self).__name__}] {name} has shape {tensor.shape}, expected {shape}")
        return tuple(tensor.unsqueeze(1) for tensor in tensors) if single else tensors

    def multiply_adds(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> int:
        features = [self.input_size] + [self.hidden_size * self.directions] * (self.num_layers - 1)
        row = sum(self._gates * self.hidden_size * (d + self.hidden_size) for d in features)
        return math.prod(inputs[:-1]) * self.directions * row

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        defaults = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0}
        defaults |= {"bidirectional": False, "dropconnect": 0.0}
        for name, default in defaults.items():
            if getattr(self, name) != default:
                text += f", {name}={getattr(self, name)}"
        return text + "".join(f", {name}={value!r}" for name, value in self._options.items())


class RNN(_Recurrent):
    """Elman's recurrent network (1990): h = f(w_ih x + b_ih + w_hh h + b_hh), `num_layers` of them, one on
    the other.

    Arguments, parameters and their names are PyTorch's; weights start uniform in +-1/sqrt(hidden_size).
    nonlinearity: "tanh" or "relu". dropout: between layers, while training. dropconnect: dropout of the
    recurrent weights, drawn once a call, while training (Wan et al. 2013). Raises ValueError for sizes that
    are not positive and probabilities out of range.
    """

    _function = recurrent_functions.RNN
    _gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        dropconnect: float = 0.0,
        dtype: Any = np.float32,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"[RNN] nonlinearity must be 'tanh' or 'relu', got {nonlinearity!r}")
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dropconnect, dtype
        )
        self.nonlinearity = nonlinearity
        if nonlinearity != "tanh":
            self._options = {"nonlinearity": nonlinearity}

    def forward(
        self, x: Any, hx: Any = None, *, lengths: Any = None, algorithm: str = "auto"
    ) -> tuple[Tensor, Tensor]:
        """y and the last h. x [T, N, input_size] ([N, T, ...] when batch_first, or [T, ...] of one
        sequence), hx [layers * directions, N, hidden_size] or None -> y [T, N, directions *
        hidden_size], h like hx.

        lengths: N ints, the steps of each sequence (then y is 0 past its end), in any order.
        """
        y, hn = self._run(x, None if hx is None else (hx,), lengths, algorithm)
        return y, hn


class LSTM(_Recurrent):
    """Long short-term memory, Hochreiter and Schmidhuber (1997), `num_layers` of them, one on the other.

    Arguments, parameters and their names are PyTorch's; weights start uniform in +-1/sqrt(hidden_size).
    forget_bias: what the forget gates' two biases add up to at first (1: remember; Jozefowicz et al. 2015),
    None for PyTorch's draw. dropout: between layers, while training. dropconnect: dropout of the recurrent
    weights, drawn once a call, while training (Merity et al. 2018). Raises ValueError for sizes that are
    not positive and probabilities out of range.
    """

    _function = recurrent_functions.LSTM
    _gates = 4
    _state_names = ("h0", "c0")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        dropconnect: float = 0.0,
        forget_bias: float | None = None,
        dtype: Any = np.float32,
    ) -> None:
        if forget_bias is not None and not bias:
            raise ValueError("[LSTM] forget_bias needs bias=True")
        self.forget_bias = forget_bias
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dropconnect, dtype
        )

    def reset_parameters(self) -> None:
        """Draws every weight and bias anew, uniform in +-1/sqrt(hidden_size); then sets the forget gates'
        biases.
        """
        super().reset_parameters()
        if self.forget_bias is None:
            return
        for name, parameter in self.named_parameters():
            if name.startswith("bias_"):
                value = self.forget_bias if name.startswith("bias_ih") else 0.0
                parameter.data[self.hidden_size : 2 * self.hidden_size] = value
                parameter.mark_changed()

    def forward(
        self, x: Any, hx: tuple[Any, Any] | None = None, *, lengths: Any = None, algorithm: str = "auto"
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """y and the last (h, c). x [T, N, input_size] ([N, T, ...] when batch_first, or [T, ...] of one
        sequence), hx (h, c), each [layers * directions, N, hidden_size], or None -> y [T, N, directions
        * hidden_size], (h, c) like hx.

        lengths: N ints, the steps of each sequence (then y is 0 past its end), in any order.
        """
        if hx is not None and (not isinstance(hx, (tuple, list)) or len(hx) != 2):
            raise TypeError(f"[LSTM] hx must be a pair (h0, c0) or None, got {type(hx).__name__}")
        y, hn, cn = self._run(x, None if hx is None else tuple(hx), lengths, algorithm)
        return y, (hn, cn)


class GRU(_Recurrent):
    """Gated recurrent units, Cho et al. (2014), `num_layers` of them, one on the other.

    Arguments, parameters and their names are PyTorch's; weights start uniform in +-1/sqrt(hidden_size).
    reset_before: the reset gate acts before the product, as in the paper, and not after it, as in PyTorch.
    dropout: between layers, while training. dropconnect: dropout of the recurrent weights, drawn once a
    call, while training. Raises ValueError for sizes that are not positive and probabilities out of range.
    """

    _function = recurrent_functions.GRU
    _gates = 3

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        dropconnect: float = 0.0,
        reset_before: bool = False,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dropconnect, dtype
        )
        self.reset_before = reset_before
        if reset_before:
            self._options = {"reset_before": reset_before}

    def forward(
        self, x: Any, hx: Any = None, *, lengths: Any = None, algorithm: str = "auto"
    ) -> tuple[Tensor, Tensor]:
        """y and the last h. x [T, N, input_size] ([N, T, ...] when batch_first, or [T, ...] of one
        sequence), hx [layers * directions, N, hidden_size] or None -> y [T, N, directions *
        hidden_size], h like hx.

        lengths: N ints, the steps of each sequence (then y is 0 past its end), in any order.
        """
        y, hn = self._run(x, None if hx is None else (hx,), lengths, algorithm)
        return y, hn
