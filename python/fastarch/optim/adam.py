"""Adam, and Adam with decoupled weight decay."""

from __future__ import annotations

from collections.abc import Iterable
from math import sqrt
from types import ModuleType
from typing import Any

import numpy as np

from fastarch.capturing import Numbers, feed, note
from fastarch.optim.optimizer import Optimizer, stream_of
from fastarch.tensors import Tensor


class Adam(Optimizer):
    """p -= lr * m / (sqrt(v) + eps), with m and v the bias-corrected running means of the gradient and of its
    square.

    Kingma and Ba 2015. weight_decay adds weight_decay * p to the gradient; amsgrad uses the largest v so far
    (Reddi et al. 2018). Raises ValueError for a negative argument and for betas outside [0, 1).
    float16 parameters need an eps of at least 1e-7 (1e-8 is 0 there), or to be kept in float32.
    """

    _decoupled = False
    _kernel = "adam_update"

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad}
        )

    def _check(self, group: dict[str, Any]) -> None:
        super()._check(group)
        if len(group["betas"]) != 2 or not all(0 <= beta < 1 for beta in group["betas"]):
            raise ValueError(f"[{self._name}] betas must be two numbers in [0, 1), got {group['betas']}")

    def _state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        names = ("step", "exp_avg", "exp_avg_sq")
        return (*names, "max_exp_avg_sq") if group["amsgrad"] else names

    def _together(self, p: Tensor, group: dict[str, Any], state: dict[str, Any]) -> int:
        return state["step"]

    def _numbers_of(self, group: dict[str, Any], states: list[dict[str, Any]]) -> Numbers:
        """A function that counts a step of these parameters, which have made equally many, and returns what
        m is multiplied by and the root of v divided by, and what a decoupled decay leaves of a parameter.
        """

        def numbers() -> tuple[float, float, float]:
            step = states[0]["step"] + 1
            lr, (beta1, beta2) = group["lr"], group["betas"]
            kept = 1 - lr * group["weight_decay"] if self._decoupled else 1.0
            result = lr / (1 - beta1**step), sqrt(1 - beta2**step), kept
            _count(states, 1)  # last: an impossible argument has raised before
            return result

        return numbers

    def _update_together(
        self, module: ModuleType, batch: list[tuple[Tensor, dict[str, Any]]], group: dict[str, Any], key: int
    ) -> None:
        states = [state for _, state in batch]
        numbers = self._numbers_of(group, states)
        words = feed(3, numbers, np.float64, lambda: _count(states, -1))
        note(lambda: len({state["step"] for state in states}))  # as many steps of all, or they part ways
        step_size, correction, kept = (0.0, 0.0, 1.0) if words is not None else numbers()
        module.adam_update(
            [p.data for p, _ in batch],
            [p.grad for p, _ in batch],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [state["max_exp_avg_sq"] for state in states] if group["amsgrad"] else [],
            step_size,
            correction,
            *group["betas"],
            group["eps"],
            0.0 if self._decoupled else group["weight_decay"],
            kept,
            group["amsgrad"],
            words,
            **stream_of(batch[0][0].data),
        )

    def _update(self, p: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        decay, eps, (beta1, beta2) = group["weight_decay"], group["eps"], group["betas"]
        step_size, correction, kept = self._fed(
            p, 3, self._numbers_of(group, [state]), lambda: _count([state], -1)
        )
        largest = state["max_exp_avg_sq"] if group["amsgrad"] else None
        for w, g, m, v, u, s, t in self._blocks(p, 2, state["exp_avg"], state["exp_avg_sq"], largest):
            if decay != 0:
                if self._decoupled:
                    w *= kept
                else:
                    np.multiply(w, decay, out=s)
                    s += g
                    g = s
            np.subtract(g, m, out=t)
            t *= 1 - beta1
            m += t
            v *= beta2
            np.multiply(g, g, out=t)
            t *= 1 - beta2
            v += t
            if u is not None:
                np.maximum(u, v, out=u)
                v = u
            np.sqrt(v, out=t)
            t /= correction
            t += eps
            np.divide(m, t, out=t)
            t *= step_size
            w -= t


class AdamW(Adam):
    """Adam with the decay applied to the parameter itself, p *= 1 - lr * weight_decay (Loshchilov and Hutter
    2019).
    """

    _decoupled = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad)


def _count(states: list[dict[str, Any]], steps: int) -> None:
    for state in states:
        state["step"] += steps
