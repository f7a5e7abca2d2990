"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any

import numpy as np

from fastarch.capturing import feed
from fastarch.optim.optimizer import Optimizer, nothing, stream_of
from fastarch.tensors import Tensor


class SGD(Optimizer):
    """p -= lr * b with b = momentum * b + (1 - dampening) * g, or with nesterov p -= lr * (g + momentum * b).

    g is the gradient plus weight_decay * p; the first b is g itself. Sutskever et al. 2013 for Nesterov's
    form. Raises ValueError for a negative argument, and for nesterov without momentum or with dampening.
    """

    _kernel = "sgd_update"

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
            },
        )

    def _check(self, group: dict[str, Any]) -> None:
        super()._check(group)
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError("[SGD] nesterov needs a momentum above 0 and a dampening of 0")

    def _state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("momentum_buffer",) if group["momentum"] != 0 else ()

    def _new_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return dict.fromkeys(self._state_names(group))  # not zeros: the first gradient goes in undampened

    def _together(self, p: Tensor, group: dict[str, Any], state: dict[str, Any]) -> bool:
        """Whether this is the first gradient, which goes into the buffer undampened."""
        first = group["momentum"] != 0 and state["momentum_buffer"] is None
        if first:
            self._refuse_first()  # a replay would take every gradient for the first
        return bool(first)

    def _update_together(
        self, module: ModuleType, batch: list[tuple[Tensor, dict[str, Any]]], group: dict[str, Any], key: bool
    ) -> None:
        momentum = group["momentum"]
        if key:
            for p, state in batch:
                state["momentum_buffer"] = np.empty_like(p.data)
        words = feed(1, lambda: (group["lr"],), np.float64, nothing)
        module.sgd_update(
            [p.data for p, _ in batch],
            [p.grad for p, _ in batch],
            [state["momentum_buffer"] for _, state in batch] if momentum != 0 else [],
            group["lr"],
            momentum,
            1 - group["dampening"],
            group["weight_decay"],
            group["nesterov"],
            key,
            words,
            **stream_of(batch[0][0].data),
        )

    def _update(self, p: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        momentum, decay = group["momentum"], group["weight_decay"]
        (lr,) = self._fed(p, 1, lambda: (group["lr"],), nothing)
        keep = 1 - group["dampening"]
        first = self._together(p, group, state)
        if first:
            state["momentum_buffer"] = np.empty_like(p.data)
        buffer = state.get("momentum_buffer")
        for w, g, b, s, t in self._blocks(p, 2, buffer):
            if decay != 0:
                np.multiply(w, decay, out=s)
                s += g
                g = s
            if momentum != 0:
                if first:
                    b[...] = g
                else:
                    b *= momentum
                    b += np.multiply(g, keep, out=t) if keep != 1 else g
                if group["nesterov"]:
                    np.multiply(b, momentum, out=t)
                    t += g
                    g = t
                else:
                    g = b
            w -= np.multiply(g, lr, out=s)
