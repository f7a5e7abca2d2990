"""Restricted Boltzmann machines against enumeration: 16 visible and 8 hidden units have few enough states to
sum over, so that expectations, gradients and partition functions are known exactly.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import fastarch as fa
from conftest import Backend

V, H = 16, 8


def states(n: int) -> np.ndarray:
    """All 2^n states of n binary units, float64 [2^n, n]."""
    return np.array(list(itertools.product((0.0, 1.0), repeat=n)))


def logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def log_sum_exp(x: np.ndarray) -> float:
    return float(np.max(x) + np.log(np.sum(np.exp(x - np.max(x)))))


class Machine:
    """A Bernoulli machine whose weights are N(0, 1), with its states summed over in float64."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.w = rng.standard_normal((V, H))
        self.b_visible, self.b_hidden = rng.standard_normal(V), rng.standard_normal(H)

    def parameters(self, backend: Backend, dtype: str) -> tuple[Any, ...]:
        return tuple(backend.put(x.astype(dtype)) for x in (self.w, self.b_visible, self.b_hidden))

    def hidden_means(self, v: np.ndarray) -> np.ndarray:
        return logistic(v @ self.w + self.b_hidden)

    def visible_means(self, h: np.ndarray) -> np.ndarray:
        return logistic(h @ self.w.T + self.b_visible)

    def log_weight(self, v: np.ndarray) -> np.ndarray:
        """ln of the unnormalized probability of each row of v, the hidden units summed out one by one."""
        total = v @ self.b_visible
        for j in range(H):
            total += np.logaddexp(0.0, v @ self.w[:, j] + self.b_hidden[j])
        return total

    def log_weight_of_hidden(self, h: np.ndarray) -> np.ndarray:
        total = h @ self.b_hidden
        for i in range(V):
            total += np.logaddexp(0.0, h @ self.w[i] + self.b_visible[i])
        return total

    def statistics(self, probability: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, ...]:
        """Expected (v h, v, h) where the rows of v have these probabilities."""
        h = self.hidden_means(v)
        return v.T @ (probability[:, None] * h), probability @ v, probability @ h

    def expected_gradient(self, data: np.ndarray, k: int | None) -> list[np.ndarray]:
        """The mean of CD-k over all chains from `data`; k None: the gradient of the likelihood.

        The hidden states make a Markov chain with a 256 x 256 matrix, which passes over the visible ones.
        """
        v, h = states(V), states(H)
        positive = self.statistics(np.full(len(data), 1 / len(data)), data)
        down = bernoulli_table(self.visible_means(h), v)  # [2^H, 2^V]
        if k is None:
            weights = self.log_weight(v)
            negative = self.statistics(np.exp(weights - log_sum_exp(weights)), v)
        else:
            transition = down @ bernoulli_table(self.hidden_means(v), h)
            start = bernoulli_table(self.hidden_means(data), h).mean(axis=0)
            negative = self.statistics(start @ np.linalg.matrix_power(transition, k - 1) @ down, v)
        return [p - n for p, n in zip(positive, negative)]


def bernoulli_table(means: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    """[i, j]: the probability of the binary outcome j of units that have the means i."""
    return np.exp(np.log(means) @ outcomes.T + np.log1p(-means) @ (1 - outcomes).T)


@pytest.fixture(scope="module")
def machine() -> Machine:
    return Machine(np.random.default_rng(7))


@pytest.fixture(scope="module")
def data() -> np.ndarray:
    return (np.random.default_rng(8).random((5, V)) < 0.5).astype(np.float64)


CHAINS = 40_000  # from each row of the data, in calls of one stream each
CALLS = 8


@pytest.mark.parametrize("k", [1, 5, 25])
@pytest.mark.parametrize("persistent", [False, True])
def test_mean_over_chains_is_the_expected_gradient(
    k: int, persistent: bool, machine: Machine, data: np.ndarray, backend: Backend
) -> None:
    """CD-k within 4 standard errors of its expectation, every entry of it; k = 25 is the exact gradient."""
    copies = (40 if k == 25 else 150) if backend.name == "emulator" else CHAINS // CALLS
    w, b_visible, b_hidden = machine.parameters(backend, "float32")
    rows = backend.put(np.repeat(data, copies, axis=0).astype("float32"))
    sums = [np.zeros((V, H)), np.zeros(V), np.zeros(H)]
    squares = [np.zeros((V, H)), np.zeros(V), np.zeros(H)]
    start = rows if persistent else None  # chains that start at the data are CD
    count = 0
    with fa.backend(backend.name):
        for offset in range(CALLS):
            h0, vk, hk = (
                backend.host(x).astype(np.float64)
                for x in fa.ops.rbm_phases(rows, w, b_visible, b_hidden, k, 3, offset, start)
            )
            v = backend.host(rows).astype(np.float64)
            count += len(v)
            for i, (of_data, of_model) in enumerate(((v, vk), (h0, hk))):
                difference = of_data - of_model
                sums[i + 1] += difference.sum(axis=0)
                squares[i + 1] += (difference**2).sum(axis=0)
            sums[0] += v.T @ h0 - vk.T @ hk
            # Of v h - v' h', the sum of squares by entry without an array of rows x V x H.
            squares[0] += (v**2).T @ h0**2 - 2 * (v * vk).T @ (h0 * hk) + (vk**2).T @ hk**2
    # For k = 25 the exact gradient, which CD-25 is within 1e-9 of for this machine.
    expected = machine.expected_gradient(data, None if k == 25 else k)
    for total, square, want in zip(sums, squares, expected):
        mean = total / count
        error = np.sqrt(np.maximum(square / count - mean**2, 1e-12) / count)
        np.testing.assert_array_less(np.abs(mean - want), 4 * error + 1e-6)


def test_cd_25_is_the_likelihood_gradient(machine: Machine, data: np.ndarray) -> None:
    """What the test above takes for granted, by enumeration alone; and CD-1 is not."""
    exact = machine.expected_gradient(data, None)
    for k, low, high in ((1, 0.02, 1.0), (25, 0.0, 1e-6)):
        gap = max(np.abs(a - b).max() for a, b in zip(machine.expected_gradient(data, k), exact))
        assert low <= gap <= high, (k, gap)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("float64", 1e-13)])
def test_partition_function_from_either_side(
    dtype: str, tolerance: float, machine: Machine, backend: Backend
) -> None:
    """ln Z of the operator's free energies over all visible states, and over all hidden ones of the
    transposed machine, is the sum over all pairs of states."""
    w, b_visible, b_hidden = machine.parameters(backend, dtype)
    v, h = states(V), states(H)
    # All 2^24 pairs of states, those of one hidden state at a time.
    pairs = np.array([log_sum_exp(v @ (machine.w @ row + machine.b_visible)) for row in h])
    want = log_sum_exp(pairs + h @ machine.b_hidden)
    with fa.backend(backend.name):
        of_visible = fa.ops.rbm_free_energy(backend.put(v.astype(dtype)), w, b_visible, b_hidden)
        turned = backend.put(np.ascontiguousarray(machine.w.T).astype(dtype))
        of_hidden = fa.ops.rbm_free_energy(backend.put(h.astype(dtype)), turned, b_hidden, b_visible)
    for energy, exact in (
        (of_visible, machine.log_weight(v)),
        (of_hidden, machine.log_weight_of_hidden(h)),
    ):
        minus = -backend.host(energy).astype(np.float64)
        np.testing.assert_allclose(minus, exact, rtol=10 * tolerance, atol=10 * tolerance)
        assert abs(log_sum_exp(minus) - want) <= tolerance * abs(want)


def bars_and_stripes(side: int) -> np.ndarray:
    """All patterns whose rows, or whose columns, are each all on or all off: [2^(side+1) - 2, side^2]."""
    found = set()
    for bits in states(side):
        image = np.tile(bits, (side, 1))
        found |= {tuple(image.ravel()), tuple(image.T.ravel())}
    return np.array(sorted(found))


# 18,000 updates of kernels that are emulated thread by thread take hours; the others cover those kernels.
@pytest.mark.backends("numpy", "cpu", "cuda")
@pytest.mark.parametrize(("side", "hidden", "chains", "updates"), [(3, 8, 100, 6000), (4, 16, 500, 12000)])
def test_persistent_chains_learn_bars_and_stripes(
    side: int, hidden: int, chains: int, updates: int, backend: Backend
) -> None:
    """To within 0.3 nat of the best mean log-likelihood, -ln of the number of patterns, by operators."""
    patterns = bars_and_stripes(side)
    assert len(patterns) == 2 ** (side + 1) - 2
    rng = np.random.default_rng(1)
    visible = side * side
    v, everything = (backend.put(x.astype("float32")) for x in (patterns, states(visible)))
    w = backend.put((0.1 * rng.standard_normal((visible, hidden))).astype("float32"))
    parameters = [w, *(backend.put(np.zeros(n, "float32")) for n in (visible, hidden))]
    velocities = [backend.xp.zeros_like(p) for p in parameters]
    chain = backend.put((rng.random((chains, visible)) < 0.5).astype("float32"))
    with fa.backend(backend.name):
        for i in range(updates):
            h0, chain, hk = fa.ops.rbm_phases(v, *parameters, 1, 5, i, chain)
            rate = 0.1 * (1 - i / updates)
            fa.ops.rbm_update(v, h0, chain, hk, *parameters, *velocities, rate)
        energies = [fa.ops.rbm_free_energy(x, *parameters) for x in (v, everything)]
    of_data, of_all = (-backend.host(e).astype(np.float64) for e in energies)
    likelihood = of_data.mean() - log_sum_exp(of_all)
    best = -np.log(len(patterns))
    assert best - 0.3 <= likelihood <= best + 1e-3, likelihood
