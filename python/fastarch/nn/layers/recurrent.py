"""Recurrent layers: RNN, LSTM and GRU over sequences, in layers and both directions."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from fastarch import random
from fastarch.nn import functional as F
from fastarch.nn import init, recurrent_functions
from fastarch.nn.layers.checks import check_positive
from fastarch.nn.module import Module, Parameter
from fastarch.tensors import Tensor, as_tensor, concatenate, stack

# Parameter: the operator's argument.
_WEIGHTS = {"weight_ih": "w_ih", "weight_hh": "w_hh", "bias_ih": "b_ih", "bias_hh": "b_hh"}
_MORE = {"weight_hr": "w_hr"} | {name: name for name in ("norm_ih", "norm_hh", "norm_c", "norm_c_bias")}


class _Recurrent(Module):
    """What the three kinds share: parameters under PyTorch's names, layers, directions, dropout between
    layers.
    """

    _function: ClassVar[type[recurrent_functions._Sequence]]
    _gates: ClassVar[int]
    _state_names: ClassVar[tuple[str, ...]] = ("hx",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        dropconnect: float = 0.0,
        zoneout: float = 0.0,
        zoneout_cell: float = 0.0,
        layer_norm: bool = False,
        dtype: Any = np.float32,
    ) -> None:
        name = type(self).__name__
        check_positive(name, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        rates = {"dropout": dropout, "dropconnect": dropconnect}
        rates |= {"zoneout": zoneout, "zoneout_cell": zoneout_cell}
        for label, p in rates.items():
            if not 0 <= p <= 1:
                raise ValueError(f"[{name}] {label} must be in [0, 1], got {p}")
        if not 0 <= proj_size < hidden_size:
            raise ValueError(f"[{name}] proj_size must be 0 (none) to hidden_size - 1, got {proj_size}")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.bidirectional = bias, batch_first, bidirectional
        self.dropout, self.dropconnect, self.proj_size = dropout, dropconnect, proj_size
        self.zoneout, self.zoneout_cell, self.layer_norm = zoneout, zoneout_cell, layer_norm
        self._options: dict[str, Any] = {}
        for layer in range(num_layers):
            features = input_size if layer == 0 else self.output_size * self.directions
            for suffix in self._suffixes(layer):
                for key, shape in self._shapes(features).items():
                    setattr(self, key + suffix, Parameter(np.empty(shape, dtype)))
        self.reset_parameters()

    @property
    def directions(self) -> int:
        """1, or 2 when bidirectional."""
        return 2 if self.bidirectional else 1

    @property
    def output_size(self) -> int:
        """The features of h: proj_size, or hidden_size without a projection."""
        return self.proj_size or self.hidden_size

    def _shapes(self, features: int) -> dict[str, tuple[int, ...]]:
        """The parameters of one direction of one layer."""
        rows, units = self._gates * self.hidden_size, self.hidden_size
        shapes: dict[str, tuple[int, ...]]
        shapes = {"weight_ih": (rows, features), "weight_hh": (rows, self.output_size)}
        if self.bias:
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        if self.proj_size:
            shapes["weight_hr"] = (self.proj_size, units)
        if self.layer_norm:
            shapes |= {"norm_ih": (rows,), "norm_hh": (rows,)}
            if len(self._state_names) > 1:
                shapes |= {"norm_c": (units,), "norm_c_bias": (units,)}
        return shapes

    def _suffixes(self, layer: int) -> list[str]:
        return [f"_l{layer}{direction}" for direction in ("", "_reverse")[: self.directions]]

    def reset_parameters(self) -> None:
        """Draws every weight and bias anew, uniform in +-1/sqrt(hidden_size); normalisations begin with gain
        1 and bias 0.
        """
        bound = 1 / math.sqrt(self.hidden_size)
        for name, parameter in self.named_parameters():
            if name.startswith("norm_"):
                init.constant_(parameter, 0.0 if name.startswith("norm_c_bias") else 1.0)
            else:
                init.uniform_(parameter, -bound, bound)

    def _weights(self, suffix: str) -> tuple[list[Tensor | None], tuple[str, ...]]:
        """The four of every cell, then those that only some have, and the names of these."""
        weights = [getattr(self, key + suffix, None) for key in _WEIGHTS]
        weights[1] = F.dropout(weights[1], self.dropconnect, self.training)
        more = {name: getattr(self, key + suffix, None) for key, name in _MORE.items()}
        more = {name: weight for name, weight in more.items() if weight is not None}
        return [*weights, *more.values()], tuple(more)

    def _zoneout(self) -> dict[str, Any]:
        """Masks of a stream of their own while training, and their expectation after."""
        rates = {"zoneout": self.zoneout, "zoneout_cell": self.zoneout_cell}
        options: dict[str, Any] = {name: rate for name, rate in rates.items() if rate}
        if options and self.training:
            options["stream"] = random.next_offset()
        return options

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
                weights, names = self._weights(suffix)
                output, *ends = self._function.apply(
                    y,
                    *(None if state is None else state[index] for state in first),
                    *weights,
                    names=names,
                    lengths=lengths,
                    reverse=direction == 1,
                    algorithm=algorithm,
                    **self._options,
                    **self._zoneout(),
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
        for name, tensor, width in zip(self._state_names, tensors, (self.output_size, self.hidden_size)):
            batch = () if single else (count,)
            shape = (self.num_layers * self.directions, *batch, width)
            if tensor.shape != shape:
                raise ValueError(f"[{type(self).__name__}] {name} has shape {tensor.shape}, expected {shape}")
        return tuple(tensor.unsqueeze(1) for tensor in tensors) if single else tensors

    def forward(
        self, x: Any, hx: Any = None, *, lengths: Any = None, algorithm: str = "auto"
    ) -> tuple[Tensor, Any]:
        """y and the last h. x [T, N, input_size] ([N, T, ...] when batch_first, or [T, ...] of one
        sequence), hx [layers * directions, N, hidden_size] or None -> y [T, N, directions *
        hidden_size], h like hx.

        lengths: N ints, the steps of each sequence (then y is 0 past its end), in any order. algorithm: of
        the CUDA kernels, as fastarch.ops says.
        """
        y, hn = self._run(x, None if hx is None else (hx,), lengths, algorithm)
        return y, hn

    def multiply_adds(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> int:
        features = [self.input_size] + [self.output_size * self.directions] * (self.num_layers - 1)
        row = sum(self._gates * self.hidden_size * (d + self.output_size) for d in features)
        row += self.num_layers * self.proj_size * self.hidden_size
        return math.prod(inputs[:-1]) * self.directions * row

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        defaults = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0}
        defaults |= {"bidirectional": False, "proj_size": 0, "dropconnect": 0.0, "zoneout": 0.0}
        defaults |= {"zoneout_cell": 0.0, "layer_norm": False}
        for name, default in defaults.items():
            if getattr(self, name) != default:
                text += f", {name}={getattr(self, name)}"
        return text + "".join(f", {name}={value!r}" for name, value in self._options.items())


class RNN(_Recurrent):
    """Elman's recurrent network (1990): h = f(w_ih x + b_ih + w_hh h + b_hh), `num_layers` of them, one on
    the other.

    Arguments, parameters and their names are PyTorch's; weights start uniform in +-1/sqrt(hidden_size).
    nonlinearity: "tanh" or "relu". dropout: between layers, while training. More, by keyword:

    - dropconnect: dropout of the recurrent weights, drawn once a call, while training (Wan et al. 2013);
    - zoneout: the probability that an element of h stays as it was, in a step of training; the expectation
      after it (Krueger et al. 2017);
    - layer_norm: the gates' two shares are normalised as fastarch.ops.rnn says (Ba et al. 2016), with the
      gains norm_ih_l0, norm_hh_l0, ...;
    - dtype, of the parameters.

    Raises ValueError for sizes that are not positive and probabilities out of range.
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
        **more: Any,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"[RNN] nonlinearity must be 'tanh' or 'relu', got {nonlinearity!r}")
        _refuse(self, more, "proj_size", "zoneout_cell")
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, **more
        )
        self.nonlinearity = nonlinearity
        if nonlinearity != "tanh":
            self._options = {"nonlinearity": nonlinearity}


class LSTM(_Recurrent):
    """Long short-term memory, Hochreiter and Schmidhuber (1997), `num_layers` of them, one on the other.

    Arguments, parameters and their names are PyTorch's; weights start uniform in +-1/sqrt(hidden_size).
    proj_size: the features of h after a projection, 0 for none (Sak et al. 2014). More, by keyword:

    - forget_bias: what the forget gates' two biases add up to at first (1: remember; Jozefowicz et al.
      2015), None for PyTorch's draw;
    - zoneout_cell: zoneout of c;
    - layer_norm: here with norm_c_l0 and norm_c_bias_l0, gain and bias on the way from c to h;
    - dropconnect (Merity et al. 2018), zoneout, dtype: as for RNN.

    Raises ValueError for sizes that are not positive and probabilities out of range.
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
        proj_size: int = 0,
        *,
        forget_bias: float | None = None,
        **more: Any,
    ) -> None:
        if forget_bias is not None and not bias:
            raise ValueError("[LSTM] forget_bias needs bias=True")
        self.forget_bias = forget_bias
        sizes = (input_size, hidden_size, num_layers)
        super().__init__(*sizes, bias, batch_first, dropout, bidirectional, proj_size, **more)

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
        sequence), hx (h, c) or None: h [layers * directions, N, proj_size or hidden_size], c [layers *
        directions, N, hidden_size] -> y [T, N, directions * (proj_size or hidden_size)], (h, c) like hx.

        lengths: N ints, the steps of each sequence (then y is 0 past its end), in any order. algorithm: of
        the CUDA kernels, as fastarch.ops says.
        """
        if hx is not None and (not isinstance(hx, (tuple, list)) or len(hx) != 2):
            raise TypeError(f"[LSTM] hx must be a pair (h0, c0) or None, got {type(hx).__name__}")
        y, hn, cn = self._run(x, None if hx is None else tuple(hx), lengths, algorithm)
        return y, (hn, cn)


class GRU(_Recurrent):
    """Gated recurrent units, Cho et al. (2014), `num_layers` of them, one on the other.

    Arguments, parameters and their names are PyTorch's; weights start uniform in +-1/sqrt(hidden_size).
    By keyword: reset_before, the reset gate acts before the product, as in the paper, and not after it, as in
    PyTorch (not with layer_norm); dropconnect, zoneout, layer_norm, dtype: as for RNN. Raises ValueError for
    sizes that are not positive and probabilities out of range.
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
        reset_before: bool = False,
        **more: Any,
    ) -> None:
        _refuse(self, more, "proj_size", "zoneout_cell")
        if reset_before and more.get("layer_norm"):
            raise ValueError("[GRU] layer_norm is defined for reset_before=False, got True")
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, **more
        )
        self.reset_before = reset_before
        if reset_before:
            self._options = {"reset_before": reset_before}


def _refuse(module: Module, given: dict[str, Any], *names: str) -> None:
    """What an LSTM has alone."""
    for name in names:
        if name in given:
            raise TypeError(f"[{type(module).__name__}] {name} is for an LSTM alone")
