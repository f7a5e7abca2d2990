"""What recurrent layers and single steps share: parameters, and what a step does beyond its cell."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from fastarch import random
from fastarch.nn import functional as F
from fastarch.nn import init
from fastarch.nn.layers.checks import check_int, check_number, check_positive, check_probability
from fastarch.nn.module import Module, Parameter
from fastarch.tensors import Tensor

# Parameter: the operator's argument.
_WEIGHTS = {"weight_ih": "w_ih", "weight_hh": "w_hh", "bias_ih": "b_ih", "bias_hh": "b_hh"}
_MORE = {"weight_hr": "w_hr"} | {name: name for name in ("norm_ih", "norm_hh", "norm_c", "norm_c_bias")}
_LSTM_ALONE = ("proj_size", "zoneout_cell", "forget_bias")
_DEFAULTS = {
    "proj_size": 0,
    "forget_bias": None,
    "dropconnect": 0.0,
    "zoneout": 0.0,
    "zoneout_cell": 0.0,
    "layer_norm": False,
}


class RecurrentModule(Module):
    """Sizes and options, checked; `_make` makes the parameters of one recurrence under PyTorch's names."""

    _gates: ClassVar[int]
    _state_names: ClassVar[tuple[str, ...]] = ("hx",)

    def __init__(self, input_size: int, hidden_size: int, bias: bool, **more: Any) -> None:
        name = type(self).__name__
        check_positive(name, input_size=input_size, hidden_size=hidden_size)
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        for option in more:
            if option not in _DEFAULTS:
                raise TypeError(f"[{name}] got an unexpected keyword argument {option!r}")
            if option in _LSTM_ALONE and not self._has_cell:
                raise TypeError(f"[{name}] {option} is for an LSTM alone")
        self._options: dict[str, Any] = {}  # of the operator
        self._set(name, **more)

    def _set(
        self,
        name: str,
        *,
        proj_size: int = 0,
        forget_bias: float | None = None,
        dropconnect: float = 0.0,
        zoneout: float = 0.0,
        zoneout_cell: float = 0.0,
        layer_norm: bool = False,
    ) -> None:
        rates = {"dropconnect": dropconnect, "zoneout": zoneout, "zoneout_cell": zoneout_cell}
        for label, p in rates.items():
            check_probability(name, label, p)
        check_int(name, "proj_size", proj_size)
        if not 0 <= proj_size < self.hidden_size:
            raise ValueError(f"[{name}] proj_size must be 0 (none) to hidden_size - 1, got {proj_size}")
        if forget_bias is not None:
            check_number(name, "forget_bias", forget_bias)
            if not self.bias:
                raise ValueError(f"[{name}] forget_bias needs bias=True")
        self.proj_size, self.forget_bias, self.layer_norm = proj_size, forget_bias, layer_norm
        self.dropconnect, self.zoneout, self.zoneout_cell = dropconnect, zoneout, zoneout_cell

    def _choose_nonlinearity(self, nonlinearity: str) -> None:
        """Of an RNN."""
        if nonlinearity not in ("tanh", "relu"):
            name = type(self).__name__
            raise ValueError(f"[{name}] nonlinearity must be 'tanh' or 'relu', got {nonlinearity!r}")
        self.nonlinearity = nonlinearity
        if nonlinearity != "tanh":
            self._options = {"nonlinearity": nonlinearity}

    def _choose_form(self, reset_before: bool) -> None:
        """Of a GRU."""
        if reset_before and self.layer_norm:
            name = type(self).__name__
            raise ValueError(f"[{name}] layer_norm is defined for reset_before=False, got True")
        self.reset_before = reset_before
        if reset_before:
            self._options = {"reset_before": reset_before}

    @property
    def _has_cell(self) -> bool:
        return len(self._state_names) > 1

    @property
    def output_size(self) -> int:
        """The features of h: proj_size, or hidden_size without a projection."""
        return self.proj_size or self.hidden_size

    def _make(self, features: int, suffix: str, dtype: Any) -> None:
        """The parameters of one recurrence over so many features, not yet drawn."""
        rows, units = self._gates * self.hidden_size, self.hidden_size
        shapes: dict[str, tuple[int, ...]]
        shapes = {"weight_ih": (rows, features), "weight_hh": (rows, self.output_size)}
        if self.bias:
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        if self.proj_size:
            shapes["weight_hr"] = (self.proj_size, units)
        if self.layer_norm:
            shapes |= {"norm_ih": (rows,), "norm_hh": (rows,)}
            if self._has_cell:
                shapes |= {"norm_c": (units,), "norm_c_bias": (units,)}
        for key, shape in shapes.items():
            setattr(self, key + suffix, Parameter(np.empty(shape, dtype)))

    def reset_parameters(self) -> None:
        """Draws every weight and bias anew, uniform in +-1/sqrt(hidden_size), but for forget gates' biases
        where forget_bias is given; normalisations begin with gain 1 and bias 0.
        """
        bound = 1 / math.sqrt(self.hidden_size)
        for name, parameter in self.named_parameters():
            if name.startswith("norm_"):
                init.constant_(parameter, 0.0 if name.startswith("norm_c_bias") else 1.0)
                continue
            init.uniform_(parameter, -bound, bound)
            if name.startswith("bias_") and self.forget_bias is not None:
                value = self.forget_bias if name.startswith("bias_ih") else 0.0
                parameter.data[self.hidden_size : 2 * self.hidden_size] = value
                parameter.mark_changed()

    def _weights(self, suffix: str, w_hh: Any = None) -> tuple[list[Any], tuple[str, ...]]:
        """The four of every cell, w_hh in place of its own where given; then those that only some have, and
        the names of these.
        """
        weights: list[Any] = [getattr(self, key + suffix, None) for key in _WEIGHTS]
        weights[1] = self._dropped(weights[1]) if w_hh is None else w_hh
        more = {name: getattr(self, key + suffix, None) for key, name in _MORE.items()}
        more = {name: weight for name, weight in more.items() if weight is not None}
        return [*weights, *more.values()], tuple(more)

    def _dropped(self, w_hh: Tensor) -> Tensor:
        return F.dropout(w_hh, self.dropconnect, self.training)

    def _zoneout(self) -> dict[str, Any]:
        """Masks of a stream of their own while training, and their expectation after."""
        rates = {"zoneout": self.zoneout, "zoneout_cell": self.zoneout_cell}
        options: dict[str, Any] = {name: rate for name, rate in rates.items() if rate}
        if options and self.training:
            options["stream"] = random.next_stream()
        return options

    def _row_multiply_adds(self, features: int) -> int:
        """Of one step of one sequence."""
        gates = self._gates * self.hidden_size * (features + self.output_size)
        return gates + self.proj_size * self.hidden_size

    def _describe(self, defaults: dict[str, Any]) -> str:
        """Sizes, and what differs from the defaults."""
        text = f"{self.input_size}, {self.hidden_size}"
        for name, default in (defaults | _DEFAULTS).items():
            if getattr(self, name) != default:
                text += f", {name}={getattr(self, name)}"
        return text + "".join(f", {name}={value!r}" for name, value in self._options.items())
