"""The restricted Boltzmann machine with binary and with Gaussian visible units."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastarch.arrays import Array
from fastarch.estimators.base import array_module
from fastarch.estimators.conditionals import Discrete
from fastarch.estimators.partition import FREE, Machine
from fastarch.estimators.questions import Restricted
from fastarch.estimators.rows import Rows
from fastarch.estimators.validation import check_choice, check_number, warn

__all__ = ["RBM", "GaussianRBM"]

_OUTSIDE = 1e-6  # beyond [0, 1] by more than rounding


class RBM(Discrete):
    """A restricted Boltzmann machine with binary visible units, trained by contrastive divergence.

    n_components: hidden units, "bernoulli" or "relu" (noisy rectified units, Nair and Hinton 2010, which
    want a tenth of the learning_rate) as `hidden` says. k: Gibbs steps of each update, from the batch, or
    with `persistent` from n_chains chains (batch_size when None) that go on from update to update (Tieleman
    2008). learning_rate and momentum run straight to final_learning_rate and final_momentum over the epochs
    where those are given. weight_decay: the weights, never the biases, shrink by its product with the rate.
    sparsity_target: the mean activity that sparsity_cost pushes each hidden unit to; None for none. centring:
    the gradient of the centred machine (Melchior et al. 2016). batch_size: samples an update; n_epochs:
    passes over the data. allow_missing: NaN is a missing value, whose unit is absent for that sample. dtype:
    of the weights; None is X's. verbose: 1 shows progress. random_state: None (fa.manual_seed decides), an
    int, or a NumPy generator.

    X is [N, D] dense or sparse with values in [0, 1], grey levels standing for probabilities; `fit` warns of
    values outside, and all methods clip them. Smolensky (1986), Hinton (2002).
    """

    def __init__(
        self,
        n_components: int = 256,
        *,
        hidden: str = "bernoulli",
        k: int = 1,
        persistent: bool = False,
        n_chains: int | None = None,
        learning_rate: float = 0.2,
        final_learning_rate: float | None = None,
        momentum: float = 0.5,
        final_momentum: float | None = None,
        weight_decay: float = 0.0,
        sparsity_target: float | None = None,
        sparsity_cost: float = 0.1,
        centring: bool = False,
        batch_size: int = 50,
        n_epochs: int = 10,
        allow_missing: bool = False,
        dtype: Any = None,
        verbose: int = 0,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.hidden = hidden
        self.k = k
        self.persistent = persistent
        self.n_chains = n_chains
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
        self.allow_missing = allow_missing
        self.dtype = dtype
        self.verbose = verbose
        self.random_state = random_state

    @property
    def _allow_nan(self) -> bool:  # type: ignore[override]
        return self.allow_missing

    def _check_parameters(self, method: str) -> None:
        super()._check_parameters(method)
        who = f"{self._name}.{method}"
        _check_missing(who, self)

    def _observe(self, rows: Rows) -> None:
        low = high = 0.5
        for _, block in rows.blocks():
            xp = array_module(block)
            known = xp.nan_to_num(block, nan=0.5) if self.allow_missing else block
            low, high = min(low, float(known.min())), max(high, float(known.max()))
        if low < -_OUTSIDE or high > 1 + _OUTSIDE:
            warn(
                f"[{self._name}.fit] X ranges from {low:.4g} to {high:.4g}, a binary unit from 0 to 1: "
                "values outside are clipped. Scale X, or take GaussianRBM."
            )

    def _encode(self, x: Array) -> tuple[Array, Array | None]:
        xp = array_module(x)
        v = xp.minimum(xp.maximum(x, 0), 1)  # a batch is small, and clip slow to start
        return absent(v, xp) if self.allow_missing else (v, None)


def _check_missing(who: str, machine: Any) -> None:
    """allow_missing is a bool, and goes with chains that start at the samples."""
    check_choice(who, "allow_missing", machine.allow_missing, (True, False))
    if machine.allow_missing and machine.persistent:
        raise ValueError(
            f"[{who}] persistent is True, expected False with allow_missing: "
            "persistent chains belong to no sample"
        )


def absent(v: Array, xp: Any) -> tuple[Array, Array | None]:
    """v with 0 for NaN, and where that was, as the mask [B, V]; None when nothing was missing."""
    missing = xp.isnan(v)
    if not bool(missing.any()):
        return v, None
    return xp.where(missing, v.dtype.type(0), v), FREE - missing.astype(np.uint8)


class GaussianRBM(Restricted):
    """A restricted Boltzmann machine with Gaussian visible units, whose variances are learnt.

    X is [N, D] dense or sparse, any finite numbers: `fit` standardises each feature by its mean and deviation
    (a constant one by its mean alone), the first partial_fit by those of what it is given, and the weights
    belong to the standardised features. learn_variance: whether the units' variances are learnt, from 1
    downwards; variance_rate: their share of learning_rate; the deviation never falls below
    smallest_deviation. The other parameters are those of `RBM`; a smaller learning_rate is needed.
    score_samples is the log-likelihood in X's units. Welling et al. (2004); Cho, Ilin and Raiko, "Improved
    learning of Gaussian-Bernoulli restricted Boltzmann machines" (2011).
    """

    _visible = "gaussian"

    def __init__(
        self,
        n_components: int = 256,
        *,
        learn_variance: bool = True,
        variance_rate: float = 0.1,
        smallest_deviation: float = 0.1,
        hidden: str = "bernoulli",
        k: int = 1,
        persistent: bool = False,
        n_chains: int | None = None,
        learning_rate: float = 0.05,
        final_learning_rate: float | None = None,
        momentum: float = 0.5,
        final_momentum: float | None = None,
        weight_decay: float = 0.0,
        sparsity_target: float | None = None,
        sparsity_cost: float = 0.1,
        centring: bool = False,
        batch_size: int = 50,
        n_epochs: int = 10,
        allow_missing: bool = False,
        dtype: Any = None,
        verbose: int = 0,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.learn_variance = learn_variance
        self.variance_rate = variance_rate
        self.smallest_deviation = smallest_deviation
        self.hidden = hidden
        self.k = k
        self.persistent = persistent
        self.n_chains = n_chains
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
        self.allow_missing = allow_missing
        self.dtype = dtype
        self.verbose = verbose
        self.random_state = random_state

    @property
    def _allow_nan(self) -> bool:  # type: ignore[override]
        return self.allow_missing

    def _check_parameters(self, method: str) -> None:
        super()._check_parameters(method)
        who = f"{self._name}.{method}"
        check_choice(who, "learn_variance", self.learn_variance, (True, False))
        check_number(who, "variance_rate", self.variance_rate, 0)
        check_number(who, "smallest_deviation", self.smallest_deviation, 0, 1, open_low=True)
        _check_missing(who, self)

    def _observe(self, rows: Rows) -> None:
        xp = array_module(rows.x)
        total, count = 0.0, 0.0
        for _, block in rows.blocks():
            total, count = total + xp.nansum(block, 0, dtype=np.float64), count + (~xp.isnan(block)).sum(0)
        mean = total / xp.maximum(count, 1)
        squares = 0.0
        for _, block in rows.blocks():
            squares = squares + xp.nansum((block - mean) ** 2, 0, dtype=np.float64)
        deviation = xp.sqrt(squares / xp.maximum(count, 1))
        # What rounding leaves of a constant feature is no deviation.
        flat = deviation <= 10 * np.finfo(rows.dtype).eps * xp.abs(mean)
        deviation[flat] = 1
        self.mean_, self.scale_ = mean.astype(rows.dtype), deviation.astype(rows.dtype)
        self.log_variance_ = xp.zeros_like(self.mean_)

    def _encode(self, x: Array) -> tuple[Array, Array | None]:
        v = x - self.mean_
        v /= self.scale_ * self._deviation()
        return absent(v, array_module(x)) if self.allow_missing else (v, None)

    def _decode(self, v: Array) -> Array:
        return v * (self.scale_ * self._deviation()) + self.mean_

    def _deviation(self) -> Array:
        """The units' standard deviations, in those of the features: [D]."""
        return array_module(self.mean_).exp(0.5 * self.log_variance_)

    def _machine(self) -> Machine:
        # In units of each visible unit's own deviation the variances are 1, as the operators have them.
        deviation = self._deviation()
        w, b = self.w_ / deviation[:, None], self.b_visible_ / deviation
        return Machine(w, b, self.b_hidden_, self._visible, self.hidden)

    def _learnt(self) -> list[Array]:
        return [*super()._learnt(), self.log_variance_]

    def _slide(self, *now: Array) -> list[Array]:
        centres = super()._slide(*now)
        centres[0][...] = 0  # standardised features need no centre
        return centres

    def _ascend_from(self, v: Array, h0: Array, vk: Array, hk: Array, rate: float, momentum: float) -> None:
        """Weights and biases step times the units' variances, which keeps the steps of narrow units small."""
        xp, machine, deviation = array_module(v), self._machine(), self._deviation()
        dw = v.T @ h0 / len(v) - vk.T @ hk / len(vk)
        dbv, dbh = v.mean(0) - vk.mean(0), h0.mean(0) - hk.mean(0)
        change = xp.zeros_like(self.log_variance_)
        if self.learn_variance:
            # The derivative of minus the energy, v / s^2 W h - (v - b)^2 / (2 s^2), by ln s^2.
            lam = 0 if self._centres_ is None else self._centres_[1]
            spread = ((v - machine.b_visible) ** 2).mean(0) - ((vk - machine.b_visible) ** 2).mean(0)
            change = self.variance_rate * (0.5 * spread - (machine.w * (dw + dbv[:, None] * lam)).sum(1))
        if self.weight_decay:
            dw -= self.weight_decay * self.w_ / deviation[:, None]
        gradients = [dw * deviation[:, None], dbv * deviation, dbh, change]
        self._shift_biases(self._ascend(gradients, rate, momentum)[0])
        # The variance of a standardised feature is 1 in all: a unit's own is no larger.
        xp.clip(self.log_variance_, 2 * np.log(self.smallest_deviation), 0, out=self.log_variance_)

    def log_likelihood(self, X: Any, log_z: float | None = None) -> Any:
        """The log-density of each sample of X [N, D] in X's units, in nats: [N].

        log_z: ln Z where it is known; None takes it exactly for at most 16 hidden units, and from `ais()`
        otherwise. Raises ValueError for missing values.
        """
        return self._log_likelihoods(X, log_z, "log_likelihood")

    def _log_likelihoods(self, X: Any, log_z: float | None, method: str) -> Any:
        standardised = super()._log_likelihoods(X, log_z, method)
        volume = array_module(self.mean_).log(self.scale_ * self._deviation()).sum()
        return standardised - float(volume)

    def score_samples(self, X: Any) -> Any:
        """The log-density of each sample of X [N, D]: what `log_likelihood` returns."""
        return self._log_likelihoods(X, None, "score_samples")
