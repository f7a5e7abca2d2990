"""The partition function of a restricted Boltzmann machine: exact for small ones, estimated for others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from fastarch import ops
from fastarch.estimators._draws import Stream, log_sum_exp, sigmoid, softplus

__all__ = ["Machine", "PartitionEstimate", "annealed_importance_sampling", "log_partition", "states"]

ABSENT, FREE, CLAMPED = range(3)  # what a mask says of a visible unit

_MOST_BITS = 24  # of an enumerated layer: 16 million states
_BLOCK = 1 << 14  # states held at a time
_HALF_LOG_2PI = 0.9189385332046727


@dataclass(frozen=True, eq=False)
class Machine:
    """The parameters of a restricted Boltzmann machine and the kinds of its units.

    w: [V, H]; b_visible: [V]; b_hidden: [H]; visible: "bernoulli", "gaussian" (variance 1) or "softmax"
    (groups of `levels` units of which one is on); hidden: "bernoulli" or "relu". The energy is
    -b_visible v - b_hidden h - v w h; Gaussian units have (v - b_visible)^2 / 2 in the place of the first.
    """

    w: np.ndarray
    b_visible: np.ndarray
    b_hidden: np.ndarray
    visible: str = "bernoulli"
    hidden: str = "bernoulli"
    levels: int = 1

    def double(self) -> Machine:
        """The same machine in float64."""
        w, b, c = (np.ascontiguousarray(a, np.float64) for a in (self.w, self.b_visible, self.b_hidden))
        return Machine(w, b, c, self.visible, self.hidden, self.levels)

    def visible_bits(self) -> float:
        """log2 of the number of visible states; infinite when they are a continuum."""
        if self.visible == "gaussian":
            return float("inf")
        n = len(self.b_visible)
        return n if self.visible == "bernoulli" else n / self.levels * np.log2(self.levels)

    def hidden_bits(self) -> float:
        """log2 of the number of hidden states; infinite when they are a continuum."""
        return len(self.b_hidden) if self.hidden == "bernoulli" else float("inf")


class PartitionEstimate(NamedTuple):
    """ln Z by annealed importance sampling."""

    value: float
    low: float  # the confidence interval
    high: float
    standard_error: float  # of Z, relative to Z
    effective_chains: float  # (sum w)^2 / sum w^2: a few of many says that the estimate is poor


def states(bits: int, dtype: Any = np.float64, block: int = _BLOCK) -> Iterator[np.ndarray]:
    """All 2^bits rows of zeros and ones, in blocks [<= block, bits], counting up, unit 0 the lowest bit."""
    for start in range(0, 1 << bits, block):
        index = np.arange(start, min(start + block, 1 << bits), dtype=np.int64)
        yield (index[:, None] >> np.arange(bits) & 1).astype(dtype)


def group_states(groups: int, levels: int) -> Iterator[np.ndarray]:
    """All levels^groups rows in which each group of `levels` units has one unit on, in blocks."""
    total = levels**groups
    for start in range(0, total, _BLOCK):
        index = np.arange(start, min(start + _BLOCK, total), dtype=np.int64)
        digits = index[:, None] // levels ** np.arange(groups, dtype=np.int64) % levels
        yield (digits[:, :, None] == np.arange(levels)).astype(np.float64).reshape(len(index), -1)


def log_partition(machine: Machine) -> float:
    """ln Z, summed over the states of the smaller layer in float64.

    Raises ValueError when both layers have more than 2^24 states.
    """
    machine = machine.double()
    visible, hidden = machine.visible_bits(), machine.hidden_bits()
    if min(visible, hidden) > _MOST_BITS:
        raise ValueError(
            f"[log_partition] the smaller layer has 2^{min(visible, hidden):.4g} states, expected at most "
            f"2^{_MOST_BITS}: estimate it with ais()"
        )
    if hidden <= visible:
        terms = [
            h @ machine.b_hidden + _log_visible_sum(machine, h @ machine.w.T) for h in states(int(hidden))
        ]
    else:
        n = len(machine.b_visible)
        binary = machine.visible == "bernoulli"
        rows = states(n) if binary else group_states(n // machine.levels, machine.levels)
        terms = [-free_energy(machine, v) for v in rows]
    return float(log_sum_exp(np.array([log_sum_exp(t) for t in terms])))


def _log_visible_sum(machine: Machine, push: np.ndarray) -> np.ndarray:
    """ln of the sum (or integral) over all v of exp(-E), less the hidden units' term; push = w h [n, V]."""
    field = machine.b_visible + push
    if machine.visible == "bernoulli":
        return softplus(field).sum(1)
    if machine.visible == "softmax":
        return log_sum_exp(field.reshape(len(field), -1, machine.levels), axis=2).sum(1)
    return (_HALF_LOG_2PI + 0.5 * push * (field + machine.b_visible)).sum(1)


def free_energy(machine: Machine, v: np.ndarray) -> np.ndarray:
    """-ln of the sum over h of exp(-E(v, h)): [B]."""
    visible = "gaussian" if machine.visible == "gaussian" else "bernoulli"  # a softmax group is linear too
    return ops.rbm_free_energy(
        v, machine.w, machine.b_visible, machine.b_hidden, visible=visible, hidden=machine.hidden
    )


def annealed_importance_sampling(
    machine: Machine,
    base: np.ndarray | None = None,
    n_chains: int = 100,
    betas: int | np.ndarray = 1000,
    confidence: float = 0.99,
    seed: int = 0,
    offset: int = 0,
) -> PartitionEstimate:
    """ln Z with a confidence interval. Neal (2001); Salakhutdinov and Murray (2008).

    base: [V] visible biases of the machine without weights from which the chains are annealed (the log odds
    of the data are best; b_visible when None). betas: their number, or the inverse temperatures themselves,
    rising from 0 to 1. The chains hold samples, never probabilities. Bernoulli hidden units only.
    """
    temperatures = _temperatures(betas)
    if machine.hidden != "bernoulli":
        raise ValueError(f"[ais] hidden units are {machine.hidden}, expected bernoulli")
    if n_chains < 2:
        raise ValueError(f"[ais] n_chains is {n_chains}, expected at least 2")
    if not 0 < confidence < 1:
        raise ValueError(f"[ais] confidence is {confidence}, expected a share between 0 and 1")
    machine = machine.double()
    w, c, b = machine.w, machine.b_hidden, machine.b_visible
    gaussian = machine.visible == "gaussian"
    a = b if base is None or gaussian else np.asarray(base, np.float64)
    v_shape, h_shape = (n_chains, len(b)), (n_chains, len(c))
    stream = Stream(seed, offset)

    v = sample_visible(machine, np.broadcast_to(a, v_shape), stream)
    start = _log_visible_sum(Machine(w, a, c, machine.visible, levels=machine.levels), np.zeros((1, len(b))))
    log_weights = np.full(n_chains, start[0] + len(c) * np.log(2.0))
    for before, beta in pairwise(temperatures):
        x = v @ w
        x += c
        log_weights += softplus(beta * x).sum(1) - softplus(before * x).sum(1)
        if not gaussian:
            log_weights += (beta - before) * (v @ (b - a))
        if beta == 1:
            break
        h = (stream.uniform(h_shape) < sigmoid(beta * x)).astype(np.float64)
        v = sample_visible(machine, (1 - beta) * a + beta * (b + h @ w.T), stream)
    return _summary(log_weights, confidence)


def _temperatures(betas: int | np.ndarray) -> np.ndarray:
    if isinstance(betas, (int, np.integer)):
        if betas < 2:
            raise ValueError(f"[ais] betas is {betas}, expected at least 2")
        return np.linspace(0.0, 1.0, int(betas))
    values = np.asarray(betas, np.float64)
    if (
        values.ndim != 1
        or len(values) < 2
        or values[0] != 0
        or values[-1] != 1
        or (np.diff(values) <= 0).any()
    ):
        raise ValueError("[ais] betas are inverse temperatures that rise from 0 to 1")
    return values


def sample_visible(machine: Machine, field: np.ndarray, stream: Stream) -> np.ndarray:
    """Samples of the visible layer for the field (bias and push) [n, V] on its units."""
    if machine.visible == "gaussian":
        return field + stream.normal(field.shape)
    if machine.visible == "bernoulli":
        return (stream.uniform(field.shape) < sigmoid(field)).astype(np.float64)
    n, levels = len(field), machine.levels
    grouped = field.reshape(n, -1, levels)
    weights = np.exp(grouped - grouped.max(2, keepdims=True)).cumsum(2)
    draw = stream.uniform((n, grouped.shape[1], 1)) * weights[:, :, -1:]
    chosen = (draw >= weights).sum(2)
    return (chosen[:, :, None] == np.arange(levels)).astype(np.float64).reshape(n, -1)


def _summary(log_weights: np.ndarray, confidence: float) -> PartitionEstimate:
    n = len(log_weights)
    value = log_sum_exp(log_weights) - np.log(n)
    weights = np.exp(log_weights - value)  # of mean 1
    error = float(np.std(weights, ddof=1) / np.sqrt(n))
    reach = NormalDist().inv_cdf(0.5 + confidence / 2) * error
    low = value + np.log1p(-reach) if reach < 1 else -np.inf
    effective = float(weights.sum() ** 2 / (weights**2).sum())
    return PartitionEstimate(float(value), float(low), float(value + np.log1p(reach)), error, effective)
