"""The restricted Boltzmann machine for ratings of which most are missing."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from fastarch.arrays import Array
from fastarch.estimators.base import array_module
from fastarch.estimators.conditionals import Discrete
from fastarch.estimators.partition import CLAMPED, FREE, Machine
from fastarch.estimators.rows import Rows
from fastarch.estimators.validation import check_choice, check_count, warn

__all__ = ["RatingRBM"]

Self = TypeVar("Self", bound="RatingRBM")


class RatingRBM(Discrete):
    """Collaborative filtering by a machine whose visible units are ratings; a missing one is absent.

    X is [N users, M items]: NaN is a missing rating in a dense array, an entry that is not stored in a sparse
    one. The levels are the distinct values of the first fit where there are at most max_levels, otherwise
    max_levels evenly spaced ones from the lowest to the highest; a rating counts as the nearest level.
    conditional: the hidden units also see which items were rated at all, which `rated` tells where ratings
    are withheld. The other parameters are those of `RBM`. predict_ratings gives the expected rating of every
    item. Salakhutdinov, Mnih and Hinton, "Restricted Boltzmann machines for collaborative filtering" (2007).
    """

    _visible = "softmax"
    _fill = np.nan
    _allow_nan = True

    def __init__(
        self,
        n_components: int = 100,
        *,
        max_levels: int = 10,
        conditional: bool = False,
        hidden: str = "bernoulli",
        k: int = 1,
        learning_rate: float = 0.05,
        final_learning_rate: float | None = None,
        momentum: float = 0.5,
        final_momentum: float | None = None,
        weight_decay: float = 0.001,
        sparsity_target: float | None = None,
        sparsity_cost: float = 0.1,
        centring: bool = True,
        batch_size: int = 10,
        n_epochs: int = 20,
        dtype: Any = None,
        verbose: int = 0,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.max_levels = max_levels
        self.conditional = conditional
        self.hidden = hidden
        self.k = k
        self.learning_rate = learning_rate
        self.final_learning_rate = final_learning_rate
        self.momentum = momentum
        self.final_momentum = final_momentum
        self.weight_decay = weight_decay
        self.sparsity_target = sparsity_target
        self.sparsity_cost = sparsity_cost
        self.centring = centring
        self.batch_size = batch_size
        self.n_epochs = n_epochs
        self.dtype = dtype
        self.verbose = verbose
        self.random_state = random_state

    # Chains that belong to no user would not know what that user rated.
    persistent = False
    n_chains = None

    @property
    def _levels(self) -> int:  # type: ignore[override]
        return len(self.levels_)

    def _check_parameters(self, method: str) -> None:
        super()._check_parameters(method)
        check_count(f"{self._name}.{method}", "max_levels", self.max_levels, 2)
        check_choice(f"{self._name}.{method}", "conditional", self.conditional, (True, False))

    # Which items were rated travels beside the ratings.

    def fit(self: Self, X: Any, y: Any = None, rated: Any = None) -> Self:
        """Learns from the ratings X [N, M]; y is ignored.

        rated: [N, M] of ones and zeros, for `conditional`: what was rated, the rating known or not; None is
        what X holds. Raises ValueError when X holds no rating at all.
        """
        self._check_parameters("fit")
        return self._fit(self._with_rated(self._rows(X, "fit", reset=True), rated, "fit"))

    def partial_fit(self: Self, X: Any, y: Any = None, rated: Any = None) -> Self:
        """Learns from the ratings X [N, M] once, in their order, batch_size at a time; y is ignored."""
        self._check_parameters("partial_fit")
        first = not self.__sklearn_is_fitted__()
        rows = self._rows(X, "partial_fit", reset=first)
        return self._go_on(self._with_rated(rows, rated, "partial_fit"), first)

    def transform(self, X: Any, rated: Any = None) -> Any:
        """The hidden units' probabilities given the ratings X [N, M]: [N, n_components]."""
        rows = self._with_rated(self._rows(X, "transform"), rated, "transform")
        return self._framed(rows.back(self._features(rows)), X)

    def predict_ratings(self, X: Any, rated: Any = None) -> Any:
        """The expected rating of every item given the known ratings X [N, M]: [N, M], none missing.

        The expectation is that of one pass through the hidden units' probabilities, which the paper found as
        good as the exact one.
        """
        rows = self._with_rated(self._rows(X, "predict_ratings"), rated, "predict_ratings")
        return rows.back(self._reconstruction(rows))

    def rating_probabilities(self, X: Any, rated: Any = None) -> Any:
        """The probability of every level of every item given the known ratings X [N, M]: [N, M, levels]."""
        rows = self._with_rated(self._rows(X, "rating_probabilities"), rated, "rating_probabilities")
        machine = self._machine()
        parts = [
            self._visible_mean(machine, self._hidden_mean(machine, self._encode(block)[0]))
            for _, block in rows.blocks()
        ]
        p = array_module(rows.x).concatenate(parts)[:, : self.n_features_in_ * self._levels]
        return rows.back(p.reshape(len(p), self.n_features_in_, self._levels))

    def _with_rated(self, rows: Rows, rated: Any, method: str) -> Rows:
        if rated is None:
            return rows
        who = f"{self._name}.{method}"
        if not self.conditional:
            raise ValueError(f"[{who}] rated is for conditional=True, expected None")
        given = np.asarray(rated.toarray() if hasattr(rated, "toarray") else rated) != 0
        if given.shape != rows.shape:
            raise ValueError(f"[{who}] rated has shape {given.shape}, expected {rows.shape} as X has")
        rows.beside = array_module(rows.x).asarray(given)
        return rows

    # Ratings as units: M groups of one unit a level, then, when conditional, M clamped units for what was
    # rated, filled up to whole groups.

    def _observe(self, rows: Rows) -> None:
        found: np.ndarray = np.empty(0)
        low, high = np.inf, -np.inf
        for _, block in rows.blocks():
            ratings = block[:, : rows.shape[1]]
            known = ratings[~array_module(block).isnan(ratings)]
            known = known.get() if hasattr(known, "get") else known
            if len(known):
                low, high = min(low, known.min()), max(high, known.max())
            if len(found) <= self.max_levels:
                found = np.union1d(found, known)
        if not len(found):
            raise ValueError(f"[{self._name}.fit] X holds no rating, expected at least one")
        if len(found) > self.max_levels:
            found = np.linspace(low, high, self.max_levels)
            warn(
                f"[{self._name}.fit] X has more than max_levels={self.max_levels} different ratings: each "
                f"counts as the nearest of {self.max_levels} levels from {low:.4g} to {high:.4g}"
            )
        self.levels_ = array_module(rows.x).asarray(found.astype(rows.dtype))

    def _encode(self, x: Array) -> tuple[Array, Array | None]:
        xp, M, K = array_module(x), self.n_features_in_, self._levels
        ratings = x[:, :M]
        missing = xp.isnan(ratings)
        middles = (self.levels_[1:] + self.levels_[:-1]) / 2
        nearest = xp.searchsorted(middles, xp.where(missing, self.levels_[0], ratings).ravel(), side="right")
        on = nearest.reshape(ratings.shape)[:, :, None] == xp.arange(K)
        on &= ~missing[:, :, None]
        v = on.reshape(len(x), M * K).astype(x.dtype)
        if not self.conditional:
            if not bool(missing.any()):
                return v, None
            return v, FREE - xp.repeat(missing, K, axis=1).astype(np.uint8)
        rated = x[:, M:] if x.shape[1] > M else ~missing
        extra = xp.zeros((len(x), -(-M // K) * K), x.dtype)
        extra[:, :M] = rated
        mask = xp.full((len(x), v.shape[1] + extra.shape[1]), CLAMPED, np.uint8)
        mask[:, : M * K] = FREE - xp.repeat(missing, K, axis=1).astype(np.uint8)
        return xp.concatenate([v, extra], 1), mask

    def _decode(self, v: Array) -> Array:
        M, K = self.n_features_in_, self._levels
        return v[:, : M * K].reshape(len(v), M, K) @ self.levels_

    def _base_biases(self) -> Array:
        biases = super()._base_biases()
        biases[self.n_features_in_ * self._levels :] = 0
        return biases

    def _shift_biases(self, step: Array) -> None:
        super()._shift_biases(step)
        self.b_visible_[self.n_features_in_ * self._levels :] = 0  # a clamped unit has no use for a bias

    def _complete_machine(self) -> Machine:
        machine = self._machine()
        if not self.conditional:
            return machine
        n = self.n_features_in_ * self._levels
        seen = machine.w[n : n + self.n_features_in_].sum(0)  # all items rated
        return Machine(
            machine.w[:n],
            machine.b_visible[:n],
            machine.b_hidden + seen,
            machine.visible,
            machine.hidden,
            machine.levels,
        )
