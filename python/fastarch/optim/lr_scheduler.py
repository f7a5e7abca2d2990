"""Learning-rate schedules: each a function of the epoch, so that a resumed run has the rates of an
uninterrupted one.

Names, arguments and rates are PyTorch's. Make the schedule after the optimizer, and call `step` once after
each epoch (or after each training step, if that is what its arguments count).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from math import cos, pi
from typing import Any

from fastarch.optim.optimizer import Optimizer


class LRScheduler:
    """The base class: a subclass gives the rate for an epoch in `rate`.

    Setting a schedule up sets the rates of epoch 0. The rate without schedule stays in each group as
    "initial_lr".
    """

    def __init__(self, optimizer: Optimizer) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"[{type(self).__name__}] expected an optimizer, got {type(optimizer).__name__}")
        self.optimizer = optimizer
        self.base_lrs = [group.setdefault("initial_lr", group["lr"]) for group in optimizer.param_groups]
        self.last_epoch = 0
        self._apply()

    def rate(self, base: float, epoch: int, group: int) -> float:
        """The learning rate of a group in an epoch, for its rate without schedule."""
        raise TypeError(f"[{type(self).__name__}] a schedule needs a method rate")

    def step(self) -> None:
        """Goes on to the next epoch and sets its rates."""
        self.last_epoch += 1
        self._apply()

    def _apply(self) -> None:
        for group, lr in zip(self.optimizer.param_groups, self.get_last_lr()):
            group["lr"] = lr

    def get_last_lr(self) -> list[float]:
        """The rate of each group in the current epoch."""
        return [self.rate(base, self.last_epoch, index) for index, base in enumerate(self.base_lrs)]

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers and lists: the epoch and the rates without schedule. The arguments are not part of
        it.
        """
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes back what `state_dict` gave and sets the rates. Raises ValueError for another number of
        groups.
        """
        base_lrs = list(state_dict["base_lrs"])
        if len(base_lrs) != len(self.base_lrs):
            raise ValueError(
                f"[{type(self).__name__}] the state is for {len(base_lrs)} groups, "
                f"the optimizer has {len(self.base_lrs)}"
            )
        self.last_epoch = int(state_dict["last_epoch"])
        self.base_lrs = base_lrs
        self._apply()


class StepLR(LRScheduler):
    """Multiplies the rate by gamma every step_size epochs."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        if step_size < 1:
            raise ValueError(f"[StepLR] step_size must be positive, got {step_size}")
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int, group: int) -> float:
        return base * self.gamma ** (epoch // self.step_size)


class MultiStepLR(LRScheduler):
    """Multiplies the rate by gamma at each of the milestones (epochs)."""

    def __init__(self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1) -> None:
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int, group: int) -> float:
        return base * self.gamma ** bisect_right(self.milestones, epoch)


class ExponentialLR(LRScheduler):
    """Multiplies the rate by gamma every epoch."""

    def __init__(self, optimizer: Optimizer, gamma: float) -> None:
        self.gamma = gamma
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int, group: int) -> float:
        return base * self.gamma**epoch


class CosineAnnealingLR(LRScheduler):
    """Half a cosine from the full rate to eta_min in T_max epochs, and back again in as many (Loshchilov and
    Hutter 2017).
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        if T_max < 1:
            raise ValueError(f"[CosineAnnealingLR] T_max must be positive, got {T_max}")
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int, group: int) -> float:
        return self.eta_min + (base - self.eta_min) * (1 + cos(pi * epoch / self.T_max)) / 2


class LinearLR(LRScheduler):
    """Multiplies the rate by a factor that goes from start_factor to end_factor in total_iters epochs, in
    equal steps.
    """

    def __init__(
        self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5
    ) -> None:
        if not 0 < start_factor <= 1 or not 0 <= end_factor <= 1:
            raise ValueError(
                f"[{type(self).__name__}] start_factor must be in (0, 1] and end_factor in [0, 1], "
                f"got {start_factor} and {end_factor}"
            )
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int, group: int) -> float:
        if epoch >= self.total_iters:
            return base * self.end_factor
        return base * (self.start_factor + (self.end_factor - self.start_factor) * epoch / self.total_iters)


class LinearWarmup(LRScheduler):
    """Raises the rate in equal steps over `warmup` epochs, from base/warmup to the full rate, then follows
    `after`.

    after: None for a constant rate, or a function of the optimizer that makes a schedule, whose epoch 0 comes
    when the warm-up ends: LinearWarmup(optimizer, 5, lambda o: CosineAnnealingLR(o, T_max=95)).
    """

    def __init__(
        self, optimizer: Optimizer, warmup: int, after: Callable[[Optimizer], LRScheduler] | None = None
    ) -> None:
        if warmup < 0:
            raise ValueError(f"[LinearWarmup] warmup must be at least 0, got {warmup}")
        self.warmup = warmup
        self.after = None if after is None else after(optimizer)
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int, group: int) -> float:
        if epoch < self.warmup:
            return base * (epoch + 1) / self.warmup
        return base if self.after is None else self.after.rate(base, epoch - self.warmup, group)


class LambdaLR(LRScheduler):
    """Multiplies the rate by lr_lambda(epoch): one function, or one for each group. Functions are not in
    `state_dict`.
    """

    def __init__(
        self, optimizer: Optimizer, lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]]
    ) -> None:
        groups = len(optimizer.param_groups)
        self.lr_lambdas = [lr_lambda] * groups if callable(lr_lambda) else list(lr_lambda)
        if len(self.lr_lambdas) != groups:
            raise ValueError(f"[LambdaLR] got {len(self.lr_lambdas)} functions for {groups} groups")
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int, group: int) -> float:
        return base * self.lr_lambdas[group](epoch)
