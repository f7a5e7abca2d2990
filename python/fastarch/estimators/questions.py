"""The questions that every restricted Boltzmann machine answers once it is trained."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastarch import ops
from fastarch.arrays import Array, on_device
from fastarch.estimators import partition
from fastarch.estimators._draws import Stream
from fastarch.estimators.base import array_module
from fastarch.estimators.partition import Machine, PartitionEstimate
from fastarch.estimators.restricted import ContrastiveDivergence
from fastarch.estimators.rows import Rows
from fastarch.estimators.validation import check_count

_SMALL_BITS = 16  # of a layer that is enumerated without being asked for
_AIS_STREAM = 1 << 63  # far from the streams of training and sampling


class Restricted(ContrastiveDivergence):
    """A restricted Boltzmann machine: its training, and the questions that it answers."""

    # Features

    def transform(self, X: Any) -> Any:
        """The hidden units' probabilities (of "relu" ones the rectified inputs) given X [N, D]: [N, H]."""
        rows = self._rows(X, "transform")
        return self._framed(rows.back(self._features(rows)), X)

    def _features(self, rows: Rows) -> Array:
        xp = array_module(rows.x)
        machine = self._machine()
        features = xp.empty((len(rows), self._n_features_out), self.w_.dtype)
        for part, block in rows.blocks():
            features[part] = self._hidden_mean(machine, self._encode(block)[0])
        return features

    def inverse_transform(self, H: Any) -> Any:
        """The mean of the samples given hidden values H [N, n_components]: [N, D]."""
        self._check_fitted("inverse_transform")
        h = array_module(self.w_).asarray(H, self.w_.dtype)
        if h.ndim != 2 or h.shape[1] != self._n_features_out:
            raise ValueError(
                f"[{self._name}.inverse_transform] H has shape {h.shape}, "
                f"expected [N, {self._n_features_out}]"
            )
        return self._decode(self._visible_mean(self._machine(), h))

    def reconstruct(self, X: Any) -> Any:
        """X [N, D] as the machine sees it: the mean of the samples given the features of X; [N, D].

        Missing values are filled in.
        """
        rows = self._rows(X, "reconstruct")
        return rows.back(self._reconstruction(rows))

    def _reconstruction(self, rows: Rows) -> Array:
        machine = self._machine()
        parts = [
            self._decode(self._visible_mean(machine, self._hidden_mean(machine, self._encode(block)[0])))
            for _, block in rows.blocks()
        ]
        return array_module(rows.x).concatenate(parts)

    # Samples

    def gibbs(self, X: Any, steps: int = 1) -> Any:
        """Samples after `steps` of Gibbs sampling that start at X [N, D]: [N, D].

        Each call draws on from the estimator's own random numbers. Missing values start absent.
        """
        rows = self._rows(X, "gibbs")
        check_count(f"{self._name}.gibbs", "steps", steps)
        v = self._encode(rows.take(slice(None)))[0][:, : len(self._complete_machine().b_visible)]
        return rows.back(self._decode(self._walk(v, steps)[0]))

    def sample(self, n_samples: int = 1, steps: int = 1000, mean: bool = False) -> Any:
        """Samples of the model [n_samples, D], `steps` Gibbs steps from units drawn with the data's means.

        mean: the last step gives the units' means, which make clearer pictures, and not samples. Each call
        draws on from the estimator's own random numbers.
        """
        who = f"{self._name}.sample"
        self._check_fitted("sample")
        check_count(who, "n_samples", n_samples)
        check_count(who, "steps", steps)
        xp = array_module(self.w_)
        stream = Stream(self._seed_, self._next_offset())
        machine = self._complete_machine()
        base = host(self._base_biases())[: len(machine.b_visible)].astype(np.float64)
        field = np.broadcast_to(base, (n_samples, len(base)))
        v = xp.asarray(partition.sample_visible(machine, field, stream).astype(self.w_.dtype))
        v, expected = self._walk(v, steps)
        return self._decode(expected if mean else v)

    def _walk(self, v: Array, steps: int) -> tuple[Array, Array]:
        """(sample, mean) of the visible units after Gibbs steps from v."""
        machine = self._complete_machine()
        expected = v
        for _ in range(steps):
            _, h = ops.rbm_hidden(
                v, machine.w, machine.b_hidden, self._seed_, self._next_offset(), unit=machine.hidden
            )
            expected, v = ops.rbm_visible(
                h,
                machine.w,
                machine.b_visible,
                self._seed_,
                self._next_offset(),
                unit=machine.visible,
                group_size=self._group_size(),
            )
        return v, expected

    # Densities

    def free_energy(self, X: Any) -> Any:
        """-ln of the unnormalised probability of each sample of X [N, D]: [N]. Absent units take no part."""
        rows = self._rows(X, "free_energy")
        return rows.back(self._free_energies(rows))

    def _free_energies(self, rows: Rows) -> Array:
        machine = self._machine()
        parts = [partition.free_energy(machine, self._encode(block)[0]) for _, block in rows.blocks()]
        return array_module(rows.x).concatenate(parts)

    def log_partition(self) -> float:
        """ln Z, summed over all states of the smaller layer. Raises ValueError when they are above 2^24."""
        self._check_fitted("log_partition")
        return partition.log_partition(on_host(self._complete_machine()))

    def ais(
        self, n_chains: int = 100, betas: Any = 1000, confidence: float = 0.99, seed: int | None = None
    ) -> PartitionEstimate:
        """ln Z by annealed importance sampling, with a confidence interval. Salakhutdinov and Murray (2008).

        betas: the number of inverse temperatures, or the values themselves, rising from 0 to 1. seed: another
        one gives an independent estimate; None is the fit's. Raises ValueError for hidden units that are not
        Bernoulli.
        """
        self._check_fitted("ais")
        return partition.annealed_importance_sampling(
            on_host(self._complete_machine()),
            host(self._base_biases())[: len(self._complete_machine().b_visible)],
            n_chains,
            betas,
            confidence,
            self._seed_ if seed is None else seed,
            _AIS_STREAM,
        )

    def log_likelihood(self, X: Any, log_z: float | None = None) -> Any:
        """The log-probability of each sample of X [N, D] in nats: [N].

        log_z: ln Z where it is known; None takes it exactly when a layer has at most 2^16 states, and from
        `ais()` otherwise. Raises ValueError for missing values.
        """
        return self._log_likelihoods(X, log_z, "log_likelihood")

    def _log_likelihoods(self, X: Any, log_z: float | None, method: str) -> Any:
        rows = self._rows(X, method)
        if any(bool(array_module(block).isnan(block).any()) for _, block in rows.blocks()):
            raise ValueError(
                f"[{self._name}.{method}] X has missing values, expected complete samples: an absent "
                "unit changes ln Z"
            )
        if log_z is None:
            log_z = self._log_z()
        return rows.back(-self._free_energies(rows) - log_z)

    def _log_z(self) -> float:
        machine = self._complete_machine()
        bits = min(machine.visible_bits(), machine.hidden_bits())
        return self.log_partition() if bits <= _SMALL_BITS else self.ais().value


def host(array: Array) -> np.ndarray:
    """The array in host memory."""
    return array.get() if on_device(array) else array


def on_host(machine: Machine) -> Machine:
    """The machine with its arrays in host memory."""
    w, b, c = (host(array) for array in (machine.w, machine.b_visible, machine.b_hidden))
    return Machine(w, b, c, machine.visible, machine.hidden, machine.levels)
