"""Recurrent layers: RNN, LSTM and GRU over sequences, in layers and both directions."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from fastarch.nn import functional as F
from fastarch.nn import recurrent_functions
from fastarch.nn.layers.checks import check_positive, check_probability
from fastarch.nn.layers.recurrent_module import RecurrentModule
from fastarch.tensors import Tensor, as_tensor, concatenate, stack


class _Recurrent(RecurrentModule):
    """What the three kinds share: layers, directions, dropout between layers."""

    _function: ClassVar[type[recurrent_functions._Sequence]]

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
        dtype: Any = np.float32,
        **more: Any,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, **more)
        check_positive(type(self).__name__, num_layers=num_layers)
        check_probability(type(self).__name__, "dropout", dropout)
        self.num_layers, self.dropout = num_layers, dropout
        self.batch_first, self.bidirectional = batch_first, bidirectional
        for layer in range(num_layers):
            features = input_size if layer == 0 else self.output_size * self.directions
            for suffix in self._suffixes(layer):
                self._make(features, suffix, dtype)
        self.reset_parameters()

    @property
    def directions(self) -> int:
        """1, or 2 when bidirectional."""
        return 2 if self.bidirectional else 1

    def _suffixes(self, layer: int) -> list[str]:
        return [f"_l{layer}{direction}" for direction in ("", "_reverse")[: self.directions]]

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
        rows = sum(self._row_multiply_adds(d) for d in features)
        return math.prod(inputs[:-1]) * self.directions * rows

    def extra_repr(self) -> str:
        defaults = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0}
        return self._describe(defaults | {"bidirectional": False})


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

    Raises ValueError for sizes that are not positive and probabilities out of range, TypeError for arguments
    of other types.
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
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, **more
        )
        self._choose_nonlinearity(nonlinearity)


class LSTM(_Recurrent):
    """Long short-term memory, Hochreiter and Schmidhuber (1997), `num_layers` of them, one on the other.

    Arguments, parameters and their names are PyTorch's; weights start uniform in +-1/sqrt(hidden_size).
    proj_size: the features of h after a projection, 0 for none (Sak et al. 2014). More, by keyword:

    - forget_bias: what the forget gates' two biases add up to at first (1: remember; Jozefowicz et al.
      2015), None for PyTorch's draw;
    - zoneout_cell: zoneout of c;
    - layer_norm: here with norm_c_l0 and norm_c_bias_l0, gain and bias on the way from c to h;
    - dropconnect (Merity et al. 2018), zoneout, dtype: as for RNN.

    Raises ValueError for sizes that are not positive and probabilities out of range, TypeError for arguments
    of other types.
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
        more |= {"proj_size": proj_size, "forget_bias": forget_bias}
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, **more
        )

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
    sizes that are not positive and probabilities out of range, TypeError for arguments of other types.
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
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, **more
        )
        self._choose_form(reset_before)
