"""The deep belief network as a generative model: pretrained greedily, tuned by the up-down algorithm."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from fastarch import ops, random
from fastarch.arrays import Array
from fastarch.estimators import partition
from fastarch.estimators._draws import log_sum_exp, sigmoid, softplus
from fastarch.estimators.base import array_module
from fastarch.estimators.mixins import Transformer
from fastarch.estimators.questions import host, on_host
from fastarch.estimators.rbm import RBM
from fastarch.estimators.rows import Rows
from fastarch.estimators.stack import Layer, Stack, sequential
from fastarch.estimators.validation import check_count, check_number

__all__ = ["DBN"]

Self = TypeVar("Self", bound="DBN")

_MOST_BITS = 12  # of a hidden layer that is enumerated: its table with the next one has 2^24 entries
_BOUND_STREAM = (1 << 63) + 2


class DBN(Transformer, Stack):
    """A deep belief network: restricted Boltzmann machines, each trained on the features of the one below.

    hidden_layer_sizes: hidden units from the bottom up. visible: "bernoulli" for X in [0, 1] (values outside
    are clipped), "gaussian" for other numbers, standardised; "auto" looks at X. start: "transpose" starts a
    machine as the one below turned over where the sizes allow, which leaves the likelihood as it was.
    n_epochs: passes over the data for each machine (0: none, random weights of variance
    1 / inputs); learning_rate, momentum,
    weight_decay, k, persistent and batch_size are those of `RBM`, gaussian_rate the rate of a Gaussian first
    machine. up_down_epochs: passes of the contrastive wake-sleep algorithm over all layers afterwards, at
    up_down_rate; it gives the layers below the top one weights up and others down.

    X is [N, D], dense or sparse. transform gives the top layer's probabilities, sample draws from the model.
    Hinton, Osindero and Teh, "A fast learning algorithm for deep belief nets" (2006).
    """

    def __init__(
        self,
        hidden_layer_sizes: tuple[int, ...] = (256, 256),
        *,
        visible: str = "auto",
        start: str = "random",
        n_epochs: int = 10,
        learning_rate: float = 0.2,
        gaussian_rate: float = 0.05,
        momentum: float = 0.5,
        weight_decay: float = 0.0,
        k: int = 1,
        persistent: bool = False,
        batch_size: int = 50,
        up_down_epochs: int = 0,
        up_down_rate: float = 0.05,
        dtype: Any = None,
        verbose: int = 0,
        random_state: Any = None,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.visible = visible
        self.start = start
        self.n_epochs = n_epochs
        self.learning_rate = learning_rate
        self.gaussian_rate = gaussian_rate
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.k = k
        self.persistent = persistent
        self.batch_size = batch_size
        self.up_down_epochs = up_down_epochs
        self.up_down_rate = up_down_rate
        self.dtype = dtype
        self.verbose = verbose
        self.random_state = random_state

    def _check_parameters(self, method: str) -> None:
        super()._check_parameters(method)
        check_count(f"{self._name}.{method}", "up_down_epochs", self.up_down_epochs, 0)
        check_number(f"{self._name}.{method}", "up_down_rate", self.up_down_rate, 0, open_low=True)
        if self.up_down_epochs and len(self.hidden_layer_sizes) < 2:
            raise ValueError(
                f"[{self._name}.{method}] up_down_epochs is {self.up_down_epochs}, expected 0: one layer "
                "alone has no way up and down"
            )

    # Training

    def fit(self: Self, X: Any, y: Any = None) -> Self:
        """Learns from X [N, D], layer by layer, then up and down where so asked; y is ignored."""
        self._check_parameters("fit")
        rows = self._rows(X, "fit", reset=True)
        self._seed_, self._offset_ = self._seed(), 0
        self._pretrain(rows, self._seed_)
        # Below the top machine the way up and the way down have weights of their own: [V, H], biases of the
        # units they lead to.
        machines = [m._machine() for m in self.rbms_[:-1]]
        self.up_ = [[m.w.copy(), m.b_hidden.copy()] for m in machines]
        self.down_ = [[m.w.copy(), m.b_visible.copy()] for m in machines]
        self._epochs(0)  # begins history_
        for machine in self.rbms_:
            self.history_ += machine.history_
        if self.up_down_epochs:
            self._go_up_and_down(rows)
        return self

    def _next_offset(self) -> int:
        self._offset_ += 1
        return self._offset_ - 1

    def _go_up_and_down(self, rows: Rows) -> None:
        batch = min(self.batch_size, len(rows))
        steps = -(-len(rows) // batch)
        with self._epochs(self.up_down_epochs, title="up-down", go_on=True) as rounds:
            for _ in rounds:
                order = random.permutation(len(rows), self._seed_, self._next_offset())
                error = 0.0
                for step in range(steps):
                    x = rows.take(order[step * batch : (step + 1) * batch])
                    error += self._up_down_step(self.rbms_[0]._encode(x)[0]) / steps
                    rounds.step(step + 1, steps)
                rounds.record(reconstruction_error=error)

    def _up_down_step(self, v: Array) -> float:
        """One step of contrastive wake-sleep; the mean squared error of the visible units' prediction."""
        rate, top = self.up_down_rate, self.rbms_[-1]
        # Wake: samples on the way up teach the way down to predict each layer from the one above.
        states = [v]
        for i in range(len(self.up_)):
            states.append(self._sample_up(i, states[-1]))
        error = 0.0
        for i in reversed(range(len(self.down_))):
            w, bias = self.down_[i]
            wrong = states[i] - self._mean_down(i, states[i + 1])
            w += rate / len(v) * (wrong.T @ states[i + 1])
            bias += rate * wrong.mean(0)
            error = float((wrong**2).mean())
        # The top machine learns by contrastive divergence, and its chain starts the dream.
        dw, dbv, dbh, dream = ops.rbm_cd(
            states[-1],
            top.w_,
            top.b_visible_,
            top.b_hidden_,
            k=self.k,
            seed=self._seed_,
            offset=self._next_offset(),
            visible=self._visible_of(len(self.rbms_) - 1),
        )
        for parameter, gradient in zip(top._learnt(), (dw, dbv, dbh)):
            parameter += rate * gradient
        # Sleep: samples on the way down teach the way up to find what they came from.
        above = dream
        for i in reversed(range(len(self.down_))):
            below = self._sample_down(i, above)
            w, bias = self.up_[i]
            wrong = above - sigmoid(below @ w + bias)
            w += rate / len(v) * (below.T @ wrong)
            bias += rate * wrong.mean(0)
            above = below
        return error

    # The way up and the way down, in visible units

    def _visible_of(self, i: int) -> str:
        return "gaussian" if i == 0 and not isinstance(self.rbms_[0], RBM) else "bernoulli"

    def _mean_down(self, i: int, h: Array) -> Array:
        w, bias = self.down_[i]
        field = h @ w.T
        field += bias
        return field if self._visible_of(i) == "gaussian" else sigmoid(field)

    def _sample_up(self, i: int, below: Array) -> Array:
        w, bias = self.up_[i]
        return ops.rbm_hidden(below, w, bias, self._seed_, self._next_offset())[1]

    def _sample_down(self, i: int, above: Array) -> Array:
        w, bias = self.down_[i]
        kind = self._visible_of(i)
        return ops.rbm_visible(above, w, bias, self._seed_, self._next_offset(), unit=kind)[1]

    # Features

    @property
    def _n_features_out(self) -> int:  # type: ignore[override]
        return len(self.rbms_[-1].b_hidden_)

    def _recognition(self) -> list[Layer]:
        top = self.rbms_[-1]._machine()
        return self._layers([*self.up_, (top.w, top.b_hidden)])

    def transform(self, X: Any) -> Any:
        """The top layer's probabilities given X [N, D], each layer's taken for the next: [N, H]."""
        rows = self._rows(X, "transform")
        return self._framed(rows.back(self._propagated(rows, self._recognition())), X)

    def to_sequential(self) -> Any:
        """An nn.Sequential of sigmoid layers that computes what transform does, bit for bit; with copies.

        It clips nothing: for Bernoulli visible units its input lies in [0, 1].
        """
        self._check_fitted("to_sequential")
        return sequential(self._recognition())

    def reconstruct(self, X: Any) -> Any:
        """The means on the way down from the features of X [N, D]: [N, D]."""
        rows = self._rows(X, "reconstruct")
        top = self.rbms_[-1]
        h = top._visible_mean(top._machine(), self._propagated(rows, self._recognition()))
        for i in reversed(range(len(self.down_))):
            h = self._mean_down(i, h)
        return rows.back(self.rbms_[0]._decode(h))

    # Samples

    def sample(self, n_samples: int = 1, steps: int = 1000, mean: bool = False) -> Any:
        """Samples of the model [n_samples, D]: `steps` Gibbs steps in the top machine, then down the layers.

        mean: the last step gives the visible units' means, which make clearer pictures. Each call draws on
        from the estimator's own random numbers.
        """
        self._check_fitted("sample")
        check_count(f"{self._name}.sample", "n_samples", n_samples)
        check_count(f"{self._name}.sample", "steps", steps)
        if not self.down_:
            return self.rbms_[0].sample(n_samples, steps, mean)
        h = self.rbms_[-1].sample(n_samples, steps)
        for i in reversed(range(1, len(self.down_))):
            h = self._sample_down(i, h)
        return self.rbms_[0]._decode(self._mean_down(0, h) if mean else self._sample_down(0, h))

    # Likelihood

    def log_likelihood(self, X: Any) -> Any:
        """The exact log-probability of each sample of X [N, D], by sums over all hidden states: [N], in nats.

        Raises ValueError for Gaussian visible units and when a layer below the top machine has more than 12.
        """
        rows = self._rows(X, "log_likelihood")
        widest = max((len(m.b_hidden_) for m in self.rbms_[:-1]), default=0)
        if self._visible_of(0) == "gaussian" or widest > _MOST_BITS:
            raise ValueError(
                f"[{self._name}.log_likelihood] expected Bernoulli visible units and at most {_MOST_BITS} "
                "units a layer below the top: lower_bound() estimates a bound"
            )
        top = on_host(self.rbms_[-1]._machine()).double()
        log_z = self.rbms_[-1].log_partition()
        above = None
        log_p = np.zeros(0)
        for i in reversed(range(len(self.down_) + 1)):
            if i == 0:
                below = np.concatenate([host(self._inputs(block)) for _, block in rows.blocks()])
                below = below.astype(np.float64)
            else:
                below = np.concatenate(list(partition.states(len(self.rbms_[i].b_visible_))))
            if above is None:
                log_p = -partition.free_energy(top, below) - log_z
            else:
                log_p = log_sum_exp(self._log_down(i, below, above) + log_p, axis=1)
            above = below
        return rows.back(array_module(rows.x).asarray(log_p.astype(rows.dtype)))

    def _log_down(self, i: int, below: np.ndarray, above: np.ndarray) -> np.ndarray:
        """ln P(below | above) for all pairs: [B, A]."""
        w, bias = (host(array).astype(np.float64) for array in self.down_[i])
        field = above @ w.T + bias
        return below @ field.T - softplus(field).sum(1)

    def lower_bound(self, X: Any, n_samples: int = 10, log_z: float | None = None) -> Any:
        """An estimate of the variational lower bound on each sample's log-probability [N], in nats.

        The mean over n_samples ascents from X [N, D] of ln P(v, h) - ln Q(h | v). log_z: ln Z of the top
        machine where it is known; None takes it exactly when that is cheap and by its `ais()` otherwise. Of
        Gaussian units, densities in X's units.
        """
        rows = self._rows(X, "lower_bound")
        count = check_count(f"{self._name}.lower_bound", "n_samples", n_samples)
        top = self.rbms_[-1]
        log_z = top._log_z() if log_z is None else log_z
        xp, parts, offset = array_module(rows.x), [], _BOUND_STREAM
        for _, block in rows.blocks():
            v = self.rbms_[0]._encode(block)[0]
            total = xp.zeros(len(v), rows.dtype)
            for _ in range(count):
                below = v
                for i, (w, bias) in enumerate(self.up_):
                    _, above = ops.rbm_hidden(below, w, bias, self._seed_, offset)
                    offset += 1
                    down, down_bias = self.down_[i]
                    total += self._log_given(i, below, above @ down.T + down_bias)
                    total -= _log_bernoulli(above, below @ w + bias)
                    below = above
                total -= partition.free_energy(top._machine(), below)
            parts.append(total / count - log_z)
        bound = xp.concatenate(parts)
        if self._visible_of(0) == "gaussian":
            first = self.rbms_[0]
            bound -= float(xp.log(first.scale_ * first._deviation()).sum())
        return rows.back(bound)

    def _log_given(self, i: int, below: Array, field: Array) -> Array:
        if self._visible_of(i) == "bernoulli":
            return _log_bernoulli(below, field)
        return -(0.5 * (below - field) ** 2 + 0.5 * np.log(2 * np.pi)).sum(1)


def _log_bernoulli(states: Array, field: Array) -> Array:
    """The log-probability of each row of states [B, U] under sigmoid(field) [B, U]."""
    return (states * field).sum(1) - softplus(field).sum(1)
