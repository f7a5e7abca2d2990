"""A deep stacking network as one network on the tape: fine-tuned by back-propagation, or taken away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastarch import ops, optim, random
from fastarch.arrays import Array, namespace
from fastarch.estimators import minimize
from fastarch.estimators.dsn.module import Parameters
from fastarch.estimators.epochs import Epochs
from fastarch.nn import Module, ModuleList, Parameter
from fastarch.nn import functional as F
from fastarch.tensors import Tensor, concatenate, tensor


class StackedModule(Module):
    """One module: inputs [N, D] to predictions [N, T] through one or two groups of sigmoid units."""

    def __init__(self, parameters: Parameters, output: Array) -> None:
        self.groups = len(parameters) // 2
        for i in range(self.groups):
            setattr(self, f"weight{i}", Parameter(parameters[2 * i].copy()))
            setattr(self, f"bias{i}", Parameter(parameters[2 * i + 1].copy()))
        self.output = Parameter(output.T.copy())  # [T, width]

    def forward(self, x: Tensor) -> Tensor:
        xp = namespace(x.data)
        one = tensor(xp.ones((x.shape[0], 1), x.data.dtype))
        h = []
        for i in range(self.groups):
            units = F.linear(x, getattr(self, f"weight{i}"), getattr(self, f"bias{i}"), "sigmoid")
            h.append(concatenate([units, one], dim=1))
        if self.groups == 1:
            return F.linear(h[0], self.output)
        n, first, second = x.shape[0], h[0].shape[1], h[1].shape[1]
        product = h[0].reshape(n, first, 1) * h[1].reshape(n, 1, second)
        return F.linear(product.reshape(n, first * second), self.output)

    def arrays(self) -> tuple[Parameters, Array]:
        """The weights as the estimator keeps them."""
        parts = [getattr(self, f"{kind}{i}").data for i in range(self.groups) for kind in ("weight", "bias")]
        return parts, namespace(parts[0]).ascontiguousarray(self.output.data.T)


class StackedNetwork(Module):
    """All modules of a stack: inputs [N, D] to scores [N, T], each module seeing x and what is below it.

    With a softmax layer on top the scores are its logits, otherwise the last module's predictions; for a
    regressor they are scaled back to the targets' units.
    """

    mean: Array
    scale: Array

    def __init__(
        self,
        weights: Sequence[Parameters],
        outputs: Sequence[Array],
        top: tuple[Array, Array] | None = None,
        units: tuple[Array, Array] | None = None,
    ) -> None:
        self.stack = ModuleList(StackedModule(p, u) for p, u in zip(weights, outputs))
        if top is not None:
            self.top_weight, self.top_bias = Parameter(top[0].copy()), Parameter(top[1].copy())
        self.has_top = top is not None
        self.has_units = units is not None
        if units is not None:
            self.register_buffer("mean", units[0].copy())
            self.register_buffer("scale", units[1].copy())

    def forward(self, x: Any) -> Tensor:
        scores = self.scores(x)
        return scores * tensor(self.scale) + tensor(self.mean) if self.has_units else scores

    def scores(self, x: Any) -> Tensor:
        """The scores before they are scaled back."""
        x = x if isinstance(x, Tensor) else tensor(x)
        below = [x]
        for stage in self.stack:
            below.append(stage(concatenate(below, dim=1) if len(below) > 1 else x))
        if not self.has_top:
            return below[-1]
        return F.linear(concatenate(below[1:], dim=1), self.top_weight, self.top_bias)


def fine_tune(
    network: StackedNetwork, x: Array, t: Array, rounds: Epochs, rate: float, batch: int, seed: int
) -> None:
    """Back-propagation through the whole stack with Adam.

    t: class indices [N] where there is a softmax layer, targets [N, T] otherwise.
    """
    xp, n = namespace(x), len(x)
    optimizer = optim.Adam(network.parameters(), lr=rate)
    for epoch in rounds:
        order = xp.asarray(random.permutation(n, seed, epoch))
        total = 0.0
        for begin in range(0, n, batch):
            rows = order[begin : begin + batch]
            scores = network.scores(x[rows])
            if network.has_top:
                loss = F.cross_entropy(scores, t[rows])
            else:
                difference = scores - tensor(t[rows])
                loss = (difference * difference).sum() * (1 / len(rows))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
            rounds.step(begin + len(rows), n)
        rounds.record(loss=total / n)


def softmax_layer(
    z: Array, target: Array, classes: int, ridge: float, rounds: int = 200
) -> tuple[Array, Array]:
    """Weight [K, Z] and bias [K] of the softmax regression of classes [N] on z [N, Z], with a ridge."""
    xp, n = namespace(z), len(z)
    onehot = xp.zeros((n, classes), z.dtype)
    onehot[xp.arange(n), target] = 1
    like = [xp.zeros((classes, z.shape[1]), z.dtype), xp.zeros(classes, z.dtype)]

    def objective(vector: Array) -> tuple[float, Array]:
        weight, bias = minimize.unflatten(vector, like)
        loss, probability = ops.cross_entropy(ops.linear(z, weight, bias), target)
        difference = probability - onehot
        gradients = [difference.T @ z + ridge * weight, difference.sum(axis=0)]
        value = float(loss.sum(dtype=np.float64)) + 0.5 * ridge * float((weight**2).sum(dtype=np.float64))
        return value / n, minimize.flatten(gradients, xp) / n

    best, before = minimize.flatten(like, xp), np.inf
    for _, (vector, value, _) in zip(range(rounds), minimize.descend(objective, best)):
        best = vector
        if value > before * (1 - 1e-6):
            break
        before = value
    weight, bias = minimize.unflatten(best, like)
    return weight, bias
