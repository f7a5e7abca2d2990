"""Stacks of restricted Boltzmann machines: what generative and discriminative deep belief networks share.

Hinton, Osindero and Teh, "A fast learning algorithm for deep belief nets" (2006); Bengio, Lamblin, Popovici
and Larochelle, "Greedy layer-wise training of deep networks" (2007).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from fastarch import ops
from fastarch.arrays import Array
from fastarch.estimators.base import Estimator, array_module
from fastarch.estimators.questions import Restricted
from fastarch.estimators.rbm import RBM, GaussianRBM
from fastarch.estimators.restricted import INITIAL_WEIGHT
from fastarch.estimators.rows import Rows
from fastarch.estimators.validation import check_choice, check_count, check_number

_OUTSIDE = 1e-6  # beyond [0, 1] by more than rounding


class Layer(NamedTuple):
    """One layer of a network, in the form of a linear layer's parameters."""

    weight: Array  # [O, I]
    bias: Array  # [O]


class Stack(Estimator):
    """Greedy pretraining, and the network that it gives.

    A subclass's constructor stores the arguments that `_check_parameters` looks at.
    """

    _sparse = True
    _parts = (RBM, GaussianRBM)

    hidden_layer_sizes: tuple[int, ...]
    visible: str
    start: str
    n_epochs: int
    learning_rate: float
    gaussian_rate: float
    momentum: float
    weight_decay: float
    k: int
    persistent: bool
    batch_size: int
    dtype: Any
    verbose: int
    random_state: Any
    rbms_: list[Any]

    def _check_parameters(self, method: str) -> None:
        """The sizes here, what the machines are given when each of them is made."""
        who = f"{self._name}.{method}"
        sizes = self.hidden_layer_sizes
        if not isinstance(sizes, (tuple, list)) or not sizes:
            raise ValueError(f"[{who}] hidden_layer_sizes is {sizes!r}, expected sizes such as (256, 256)")
        for size in sizes:
            check_count(who, "hidden_layer_sizes", size)
        check_choice(who, "visible", self.visible, ("auto", "bernoulli", "gaussian"))
        check_choice(who, "start", self.start, ("random", "transpose"))
        check_count(who, "n_epochs", self.n_epochs, 0)
        for name in ("learning_rate", "gaussian_rate"):
            check_number(who, name, getattr(self, name), 0, open_low=True)
        check_number(who, "momentum", self.momentum, 0, 1, open_high=True)
        check_number(who, "weight_decay", self.weight_decay, 0)
        check_count(who, "k", self.k)
        check_choice(who, "persistent", self.persistent, (True, False))
        check_count(who, "batch_size", self.batch_size)
        if self.dtype is not None and np.dtype(self.dtype) not in (np.float32, np.float64):
            raise TypeError(f"[{who}] dtype is {self.dtype!r}, expected None, float32 or float64")

    def _rows(self, X: Any, method: str, reset: bool = False) -> Rows:
        x, back = self._input(X, method, reset=reset)
        return Rows(x, self.dtype if reset else self.rbms_[0].w_.dtype, back=back)

    # Pretraining

    def _pretrain(self, rows: Rows, seed: int) -> None:
        """Trains one machine on the samples, the next on its features, and so on."""
        self.rbms_ = []
        kind = self._visible_kind(rows)
        for i, size in enumerate(self.hidden_layer_sizes):
            machine = self._machine_of(kind if i == 0 else "bernoulli", size, (seed + 1 + i) % 2**64)
            machine.n_features_in_ = rows.shape[1]
            machine._prepare(rows, "fit")
            transposed = self.start == "transpose" and i > 0 and self._transposes(size)
            if transposed:
                transpose(self.rbms_[-1], machine)
            if self.n_epochs:
                title = f"layer {i + 1} of {len(self.hidden_layer_sizes)}"
                machine._train(rows, title, layer=i + 1)
            else:
                machine.history_ = []
                if not transposed:  # as a network would start; the weights below already do
                    machine.w_ *= 1 / (INITIAL_WEIGHT * math.sqrt(rows.shape[1]))
            self.rbms_.append(machine)
            if i + 1 < len(self.hidden_layer_sizes):
                rows = Rows(machine._features(rows))

    def _visible_kind(self, rows: Rows) -> str:
        if self.visible != "auto":
            return self.visible
        for _, block in rows.blocks():
            if float(block.min()) < -_OUTSIDE or float(block.max()) > 1 + _OUTSIDE:
                return "gaussian"
        return "bernoulli"

    def _machine_of(self, kind: str, size: int, seed: int) -> Restricted:
        rate = self.learning_rate if kind == "bernoulli" else self.gaussian_rate
        return (RBM if kind == "bernoulli" else GaussianRBM)(
            size,
            k=self.k,
            persistent=self.persistent,
            learning_rate=rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            batch_size=self.batch_size,
            n_epochs=max(self.n_epochs, 1),
            verbose=self.verbose,
            random_state=seed,
        )

    def _transposes(self, size: int) -> bool:
        below = self.rbms_[-1]
        return isinstance(below, RBM) and len(below.b_visible_) == size

    # The network

    def _recognition(self) -> list[Layer]:
        """The layers that take samples to features."""
        machines = [m._machine() for m in self.rbms_]
        return self._layers([(m.w, m.b_hidden) for m in machines])

    def _layers(self, ups: list[Any]) -> list[Layer]:
        """Weights [V, H] and biases that lead up, the first from visible units, as layers from samples."""
        xp = array_module(ups[0][0])
        layers = [Layer(xp.ascontiguousarray(w.T), bias) for w, bias in ups]
        first = self.rbms_[0]
        if not isinstance(first, RBM):
            weight = layers[0].weight / (first.scale_ * first._deviation())
            layers[0] = Layer(weight, layers[0].bias - weight @ first.mean_)
        return layers

    def _inputs(self, x: Array) -> Array:
        """Samples as the network takes them."""
        return array_module(x).clip(x, 0, 1) if isinstance(self.rbms_[0], RBM) else x

    def _propagated(self, rows: Rows, layers: list[Layer], linear_last: bool = False) -> Array:
        """What comes out of the layers, dense samples all at once, sparse ones a block at a time."""
        xp = array_module(rows.x)
        blocks = (block for _, block in rows.blocks()) if rows.sparse else (rows.x,)
        parts = []
        for block in blocks:
            h = self._inputs(block)
            for i, layer in enumerate(layers):
                linear = linear_last and i + 1 == len(layers)
                h = ops.linear(h, layer.weight, layer.bias, None if linear else "sigmoid")
            parts.append(h)
        return parts[0] if len(parts) == 1 else xp.concatenate(parts)


def sequential(layers: list[Layer], linear_last: bool = False) -> Any:
    """An nn.Sequential of sigmoid layers with copies of these parameters; the last one linear if so said."""
    from fastarch import nn

    modules = []
    for i, layer in enumerate(layers):
        activation = None if linear_last and i + 1 == len(layers) else "sigmoid"
        outputs, inputs = layer.weight.shape
        module = nn.Linear(inputs, outputs, activation=activation, dtype=layer.weight.dtype)
        module.weight = nn.Parameter(layer.weight.copy())
        module.bias = nn.Parameter(layer.bias.copy())
        modules.append(module)
    return nn.Sequential(*modules)


def transpose(below: RBM, machine: Restricted) -> None:
    """Starts `machine` as `below` turned over, its visible units those that are hidden below.

    Under the two together the data are as likely as under `below` alone.
    """
    xp = array_module(below.w_)
    machine.w_ = xp.ascontiguousarray(below.w_.T)
    machine.b_visible_, machine.b_hidden_ = below.b_hidden_.copy(), below.b_visible_.copy()
