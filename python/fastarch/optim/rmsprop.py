"""RMSprop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from fastarch.optim.optimizer import Optimizer
from fastarch.tensors import Tensor


class RMSprop(Optimizer):
    """p -= lr * g / (sqrt(v) + eps) with v the running mean of the squared gradient (Tieleman and Hinton
    2012).

    centered subtracts the squared running mean of the gradient from v (Graves 2013); momentum sums the
    quotients. Raises ValueError for a negative argument and for alpha outside [0, 1].
    float16 parameters need an eps of at least 1e-7 (1e-8 is 0 there), or to be kept in float32.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "alpha": alpha,
                "eps": eps,
                "weight_decay": weight_decay,
                "momentum": momentum,
                "centered": centered,
            },
        )

    def _check(self, group: dict[str, Any]) -> None:
        super()._check(group)
        if not 0 <= group["alpha"] <= 1:
            raise ValueError(f"[RMSprop] alpha must be in [0, 1], got {group['alpha']}")

    def _state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        names = ["step", "square_avg"]
        if group["momentum"] > 0:
            names.append("momentum_buffer")
        if group["centered"]:
            names.append("grad_avg")
        return tuple(names)

    def _update(self, p: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        alpha, eps = group["alpha"], group["eps"]
        decay, momentum = group["weight_decay"], group["momentum"]
        buffer = state["momentum_buffer"] if momentum > 0 else None
        mean = state["grad_avg"] if group["centered"] else None

        def count(steps: int) -> None:
            state["step"] += steps

        def numbers() -> tuple[float]:
            lr = group["lr"]
            count(1)  # last: what may raise has done so
            return (lr,)

        (lr,) = self._fed(p, 1, numbers, lambda: count(-1))
        for w, g, v, b, a, s, t in self._blocks(p, 2, state["square_avg"], buffer, mean):
            if decay != 0:
                np.multiply(w, decay, out=s)
                s += g
                g = s
            v *= alpha
            np.multiply(g, g, out=t)
            t *= 1 - alpha
            v += t
            if a is None:
                np.sqrt(v, out=t)
            else:
                np.subtract(g, a, out=t)
                t *= 1 - alpha
                a += t
                np.multiply(a, a, out=t)
                np.subtract(v, t, out=t)
                np.sqrt(t, out=t)
            t += eps
            np.divide(g, t, out=t)
            if b is not None:
                b *= momentum
                b += t
                np.multiply(b, lr, out=t)
            else:
                t *= lr
            w -= t
