"""The training of every restricted Boltzmann machine here.

Hinton, "A practical guide to training restricted Boltzmann machines" (2012); Tieleman, "Training restricted
Boltzmann machines using approximations to the likelihood gradient" (2008); Melchior, Fischer and Wiskott,
"How to center deep Boltzmann machines" (2016).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastarch import ops, random
from fastarch.arrays import Array
from fastarch.estimators.base import array_module
from fastarch.estimators.contrastive import Contrastive
from fastarch.estimators.partition import ABSENT, FREE, Machine
from fastarch.estimators.rows import Rows
from fastarch.estimators.validation import check_choice

INITIAL_WEIGHT = 0.01
_MEAN_RATE = 0.01  # of the sliding means that centring subtracts
_ACTIVITY_RATE = 0.1  # of the sliding mean activity that a sparsity target looks at


class ContrastiveDivergence(Contrastive):
    """The training of a machine whose subclass says how samples become visible units.

    A subclass's constructor stores the arguments named in `_check_parameters`; it defines `_visible`,
    `_observe`, `_encode` and `_decode`.
    """

    _visible = "bernoulli"
    _levels = 1

    hidden: str
    centring: bool

    # What a subclass says

    def _observe(self, rows: Rows) -> None:
        """Looks at all samples of the first fit, before anything is learnt from them."""

    def _encode(self, x: Array) -> tuple[Array, Array | None]:
        """Samples [B, D] as visible units [B, V] and their mask [B, V] uint8, ABSENT, FREE or CLAMPED;
        None when all are free."""
        raise TypeError(f"{self._name} does not say how samples become visible units")

    def _decode(self, v: Array) -> Array:
        """Visible units or their means as samples."""
        return v

    # Training

    def _check_parameters(self, method: str) -> None:
        super()._check_parameters(method)
        who = f"{self._name}.{method}"
        check_choice(who, "hidden", self.hidden, ("bernoulli", "relu"))
        check_choice(who, "centring", self.centring, (True, False))

    def _begin(self, rows: Rows) -> None:
        """Everything that training starts from, drawn anew."""
        xp = array_module(rows.x)
        self._observe(rows)
        total: Any = None
        count: Any = None
        for _, block in rows.blocks():
            v, mask = self._encode(block)
            present = len(v) if mask is None else (mask != ABSENT).sum(0)
            total = v.sum(0, dtype=np.float64) + (0 if total is None else total)
            count = present + (0 if count is None else count)
        # One more sample, spread evenly, keeps the log odds of a constant unit finite.
        prior = {"bernoulli": 0.5, "softmax": 1 / self._levels, "gaussian": 0.0}[self._visible]
        mean = (xp.asarray(total) + prior) / xp.maximum(xp.asarray(count) + (prior > 0), 1)
        self.visible_mean_ = mean.astype(rows.dtype)
        self._row_mean_ = xp.asarray(total / len(rows)).astype(rows.dtype)  # absent units counted as 0
        self._start(xp, rows.dtype)

    def _start(self, xp: Any, dtype: Any) -> None:
        V, H = len(self.visible_mean_), self.n_components
        stream = self._seed_, self._next_offset()
        self.w_ = xp.asarray(random.normal((V, H), std=INITIAL_WEIGHT, dtype=dtype, stream=stream))
        self.b_visible_ = self._base_biases()
        self.b_hidden_ = xp.zeros(H, dtype)
        self._chain_: Array | None = None
        self._activity_: Array | None = None
        self._centres_: list[Array] | None = None

    def _base_biases(self) -> Array:
        """The visible biases with which a machine without weights has the data's means."""
        xp, mean = array_module(self.visible_mean_), self.visible_mean_
        if self._visible == "bernoulli":
            return xp.log(mean / (1 - mean))
        return xp.log(mean) if self._visible == "softmax" else mean.copy()

    def _learn(self, x: Array, rate: float, momentum: float) -> None:
        v, mask = self._encode(x)
        machine = self._machine()
        if self.persistent and self._chain_ is None:
            self._chain_ = self._first_chains(v)
        h0, vk, hk = ops.rbm_phases(
            v,
            machine.w,
            machine.b_visible,
            machine.b_hidden,
            k=self.k,
            seed=self._seed_,
            offset=self._next_offset(),
            chain=self._chain_ if self.persistent else None,
            visible=self._visible,
            hidden=self.hidden,
            group_size=self._group_size(),
            clamp=None if mask is None else mask != FREE,
        )
        if self.persistent:
            self._chain_ = vk
        push = None
        if self.sparsity_target is not None or self.centring:
            active = h0.mean(0)
            if self.sparsity_target is not None:
                push = self._push_to_target(active)
            if self.centring:
                # Deviations from sliding means: the statistics of the centred machine.
                mu, lam = self._slide(v.mean(0), active)
                v, h0, vk, hk = v - mu, h0 - lam, vk - mu, hk - lam
            if push is not None:
                h0 += push
        self._ascend_from(v, h0, vk, hk, rate, momentum)

    def _group_size(self) -> int | None:
        return self._levels if self._visible == "softmax" else None

    def _first_chains(self, v: Array) -> Array:
        """Persistent chains start at samples, repeated where there are too few."""
        xp = array_module(v)
        n = self.batch_size if self.n_chains is None else self.n_chains
        return v[xp.arange(n) % len(v)]

    def _push_to_target(self, active: Array) -> Array:
        """What drives the hidden units' mean activities to the target, [H]: their cross-entropy's slope."""
        if self._activity_ is None:
            self._activity_ = active.copy()
        self._activity_ += _ACTIVITY_RATE * (active - self._activity_)
        return self.sparsity_cost * (self.sparsity_target - self._activity_)

    def _slide(self, *now: Array) -> list[Array]:
        """The sliding means of visible and of hidden units, after a step towards `now`."""
        if self._centres_ is None:
            self._centres_ = [self._row_mean_.copy(), now[1].copy()]
        for centre, value in zip(self._centres_, now):
            centre += _MEAN_RATE * (value - centre)
        return self._centres_

    def _ascend_from(self, v: Array, h0: Array, vk: Array, hk: Array, rate: float, momentum: float) -> None:
        """Learns from the statistics, those of the centred machine where `centring`."""
        if self._velocity_ is None:
            xp = array_module(v)
            self._velocity_ = [xp.zeros_like(array) for array in self._learnt()]
        w, bv, bh = self._learnt()
        dw, dbv, dbh = self._velocity_
        ops.rbm_update(v, h0, vk, hk, w, bv, bh, dw, dbv, dbh, rate, momentum, self.weight_decay)
        self._shift_biases(dw)

    def _shift_biases(self, step: Array) -> None:
        """After a step [V, H] of the centred machine's weights: its biases as those of the machine itself."""
        if self._centres_ is not None:
            mu, lam = self._centres_
            self.b_visible_ -= step @ lam
            self.b_hidden_ -= mu @ step

    def _learnt(self) -> list[Array]:
        return [self.w_, self.b_visible_, self.b_hidden_]

    def _figures(self, x: Array) -> dict[str, float]:
        """What an epoch's record says, from a few of its samples."""
        v, mask = self._encode(x)
        machine = self._machine()
        hidden = self._hidden_mean(machine, v)
        error = (self._visible_mean(machine, hidden) - v) ** 2
        free = error if mask is None else error[mask == FREE]
        return {
            "reconstruction_error": float(free.mean()) if free.size else 0.0,
            "hidden_activity": float(hidden.mean()),
        }

    # What it has become

    def _machine(self) -> Machine:
        """The machine that the operators see."""
        return Machine(self.w_, self.b_visible_, self.b_hidden_, self._visible, self.hidden, self._levels)

    @property
    def components_(self) -> Array:
        """The weights as scikit-learn has them: [n_components, V]."""
        return self.w_.T

    @property
    def intercept_visible_(self) -> Array:
        """The biases of the visible units: [V]."""
        return self.b_visible_

    @property
    def intercept_hidden_(self) -> Array:
        """The biases of the hidden units: [n_components]."""
        return self.b_hidden_

    @property
    def _n_features_out(self) -> int:  # type: ignore[override]
        return len(self.b_hidden_)

    def _complete_machine(self) -> Machine:
        """The machine over the visible units that are free when no value is missing."""
        return self._machine()

    def _hidden_mean(self, machine: Machine, v: Array) -> Array:
        # The linear operator, so that a network made of the same weights gives the same bits.
        activation = "sigmoid" if machine.hidden == "bernoulli" else "relu"
        weight = array_module(v).ascontiguousarray(machine.w.T)
        return ops.linear(v, weight, machine.b_hidden, activation)

    def _visible_mean(self, machine: Machine, h: Array) -> Array:
        kind = machine.visible
        field = ops.linear(h, machine.w, machine.b_visible, "sigmoid" if kind == "bernoulli" else None)
        if kind != "softmax":
            return field
        return ops.softmax(field.reshape(-1, machine.levels), 1).reshape(field.shape)
