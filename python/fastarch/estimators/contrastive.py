"""The loop of contrastive training: shuffled batches, falling rates, momentum, records, going on later."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np

from fastarch import random
from fastarch.arrays import Array
from fastarch.estimators.base import Estimator
from fastarch.estimators.mixins import Transformer
from fastarch.estimators.rows import Rows
from fastarch.estimators.validation import check_choice, check_count, check_number

Self = TypeVar("Self", bound="Contrastive")

_MONITORED = 256  # samples on which each epoch's record is computed


class Contrastive(Transformer, Estimator):
    """The training of an energy model whose subclass says what one step learns.

    A subclass's constructor stores the arguments that `_check_parameters` looks at.
    """

    _sparse = True
    _fill = 0.0  # what a sparse matrix does not hold

    n_components: int
    k: int
    persistent: bool
    n_chains: int | None
    learning_rate: float
    final_learning_rate: float | None
    momentum: float
    final_momentum: float | None
    weight_decay: float
    sparsity_target: float | None
    sparsity_cost: float
    batch_size: int
    n_epochs: int
    dtype: Any
    verbose: int
    random_state: Any
    w_: Array

    # What a subclass says

    def _begin(self, rows: Rows) -> None:
        """Everything that training starts from, drawn anew."""
        raise TypeError(f"{self._name} does not say how its training begins")

    def _learn(self, x: Array, rate: float, momentum: float) -> None:
        """One step of stochastic gradient ascent on the samples x [B, D]."""
        raise TypeError(f"{self._name} does not say how it learns")

    def _learnt(self) -> list[Array]:
        """The arrays that training changes in place, weights first."""
        raise TypeError(f"{self._name} does not say what it learns")

    def _figures(self, x: Array) -> dict[str, float]:
        """What an epoch's record says, from a few of its samples."""
        raise TypeError(f"{self._name} does not say what to record")

    # The loop

    def fit(self: Self, X: Any, y: Any = None) -> Self:
        """Learns from X [N, D], n_epochs times over in a random order; y is ignored. Returns the estimator.

        Raises ValueError or TypeError for input that `fit` of this class does not take.
        """
        self._check_parameters("fit")
        return self._fit(self._rows(X, "fit", reset=True))

    def _fit(self: Self, rows: Rows) -> Self:
        self._prepare(rows, "fit")
        return self._train(rows)

    def _prepare(self, rows: Rows, method: str) -> None:
        """Seeds, and draws what training starts from."""
        self._seed_, self._offset_ = self._seed(method), 0
        self._velocity_: list[Array] | None = None
        self._begin(rows)

    def _train(self: Self, rows: Rows, title: str | None = None, **noted: int) -> Self:
        """The loop itself; `noted` goes into every record."""
        batch = min(self.batch_size, len(rows))
        steps = math.ceil(len(rows) / batch)
        with self._epochs(self.n_epochs, title=title) as rounds:
            for epoch in rounds:
                rate = _ramp(self.learning_rate, self.final_learning_rate, epoch, self.n_epochs)
                momentum = _ramp(self.momentum, self.final_momentum, epoch, self.n_epochs)
                order = random.permutation(len(rows), self._seed_, self._next_offset())
                for step in range(steps):
                    self._learn(rows.take(order[step * batch : (step + 1) * batch]), rate, momentum)
                    rounds.step(step + 1, steps)
                rounds.record(**noted, **self._figures(rows.take(order[:_MONITORED])))
        return self

    def partial_fit(self: Self, X: Any, y: Any = None) -> Self:
        """Learns from X [N, D] once, in its order and in batches of batch_size; y is ignored.

        The first call starts the machine; later ones go on. Rates stay at learning_rate and momentum.
        """
        self._check_parameters("partial_fit")
        first = not self.__sklearn_is_fitted__()
        return self._go_on(self._rows(X, "partial_fit", reset=first), first)

    def _go_on(self: Self, rows: Rows, first: bool) -> Self:
        if first:
            self._prepare(rows, "partial_fit")
        with self._epochs(1, go_on=not first) as rounds:
            for _ in rounds:
                for start in range(0, len(rows), self.batch_size):
                    batch = rows.take(slice(start, start + self.batch_size))
                    self._learn(batch, self.learning_rate, self.momentum)
                rounds.record(**self._figures(rows.take(slice(0, _MONITORED))))
        return self

    def score(self, X: Any, y: Any = None) -> float:
        """The mean of score_samples over X [N, D]; y is ignored."""
        return float(self.score_samples(X).mean())  # type: ignore[attr-defined]

    def _check_parameters(self, method: str) -> None:
        who = f"{self._name}.{method}"
        check_count(who, "n_components", self.n_components)
        check_count(who, "k", self.k)
        if self.n_chains is not None:
            check_count(who, "n_chains", self.n_chains)
        check_number(who, "learning_rate", self.learning_rate, 0, open_low=True)
        if self.final_learning_rate is not None:
            check_number(who, "final_learning_rate", self.final_learning_rate, 0)
        check_number(who, "momentum", self.momentum, 0, 1, open_high=True)
        if self.final_momentum is not None:
            check_number(who, "final_momentum", self.final_momentum, 0, 1, open_high=True)
        check_number(who, "weight_decay", self.weight_decay, 0)
        if self.sparsity_target is not None:
            check_number(who, "sparsity_target", self.sparsity_target, 0, 1, open_low=True, open_high=True)
        check_number(who, "sparsity_cost", self.sparsity_cost, 0)
        check_count(who, "batch_size", self.batch_size)
        check_count(who, "n_epochs", self.n_epochs)
        check_choice(who, "persistent", self.persistent, (True, False))
        if self.dtype is not None and np.dtype(self.dtype) not in (np.float32, np.float64):
            raise TypeError(f"[{who}] dtype is {self.dtype!r}, expected None, float32 or float64")

    def _rows(self, X: Any, method: str, reset: bool = False) -> Rows:
        x, back = self._input(X, method, reset=reset)
        return Rows(x, self.dtype if reset else self.w_.dtype, self._fill, back=back)

    def _next_offset(self) -> int:
        """A stream of the fit's seed that nothing has used yet."""
        self._offset_ += 1
        return self._offset_ - 1

    def _ascend(self, gradients: list[Array], rate: float, momentum: float) -> list[Array]:
        """Steps along `gradients` (changed) with momentum; what was added to each of `_learnt()`."""
        if momentum and self._velocity_ is None:
            self._velocity_ = [g * 0 for g in gradients]
        for i, (array, gradient) in enumerate(zip(self._learnt(), gradients)):
            gradient *= rate
            if self._velocity_ is not None:
                gradient += momentum * self._velocity_[i]
                self._velocity_[i] = gradient
            array += gradient
        return gradients


def _ramp(first: float, last: float | None, epoch: int, epochs: int) -> float:
    """`first` at the first epoch, `last` at the last, a straight line between; `first` when last is None."""
    if last is None or epochs == 1:
        return first
    return first + (last - first) * epoch / (epochs - 1)
