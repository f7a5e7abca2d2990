"""Restricted Boltzmann machines by definition: loops in float64, with random words of plain integers.

v [B, V], w [V, H], biases [V] and [H].
"""

from __future__ import annotations

import math

import numpy as np

from cases.dropout import philox

STEP = 2**40  # Philox positions of a step


def logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


class Words:
    """The random words of a layer of `columns` units at a step."""

    def __init__(self, columns: int, dtype: np.dtype, seed: int, offset: int, step: int) -> None:
        self.width, self.single = (columns + 3) // 4, dtype == np.float32
        self.seed, self.offset, self.step = seed, offset, step

    def word(self, row: int, column: int) -> int:
        position = self.step * STEP + row * self.width + column // 4
        return philox(self.seed, self.offset, position)[column % 4]

    def uniform(self, row: int, column: int) -> float:
        """In [0, 1), of as many bits as the type has room for."""
        word = self.word(row, column)
        return (word >> 8) / 2**24 if self.single else word / 2**32

    def normal(self, row: int, column: int) -> float:
        """Box and Muller: even columns the cosine, odd ones the sine, of one pair of words."""
        even = column - column % 2
        radius = math.sqrt(-2 * math.log((self.word(row, even) + 0.5) / 2**32))
        turn = self.word(row, even + 1)
        quarter, within = turn >> 30, turn & (2**30 - 1)
        angle = (within if within < 2**29 else within - 2**30) / 2**30 * math.pi / 2
        pair = [math.cos(angle), math.sin(angle)]
        if quarter & 1:
            pair.reverse()
        return (-radius if quarter & 2 else radius) * pair[column % 2]


def layer(a: np.ndarray, unit: str, words: Words, sigma=None, group_size=None) -> tuple[np.ndarray, ...]:
    """Means and samples of units with the pre-activations a, float64."""
    mean, sample = np.zeros(a.shape), np.zeros(a.shape)
    for m, n in np.ndindex(*a.shape):
        x = float(a[m, n])
        if unit == "bernoulli":
            mean[m, n] = logistic(x)
            sample[m, n] = words.uniform(m, n) < mean[m, n]
        elif unit == "gaussian":
            mean[m, n] = x
            sample[m, n] = x + (1 if sigma is None else float(sigma[n])) * words.normal(m, n)
        elif unit == "relu":
            mean[m, n] = softplus(x)
            sample[m, n] = max(0.0, x + math.sqrt(logistic(x)) * words.normal(m, n))
        elif n % group_size == 0:
            group = [math.exp(y - max(a[m, n : n + group_size])) for y in a[m, n : n + group_size]]
            mean[m, n : n + group_size] = np.array(group) / sum(group)
            bar, chosen = words.uniform(m, n // group_size) * sum(group), 0
            while chosen < group_size - 1 and sum(group[: chosen + 1]) <= bar:
                chosen += 1
            sample[m, n + chosen] = 1
    return mean, sample


def rbm_hidden(v, w, b_hidden, seed=0, offset=0, unit="bernoulli", step=0, sigma=None):
    """a = (v / sigma^2) W + b_hidden."""
    x = v.astype(np.float64) / (1.0 if sigma is None else sigma.astype(np.float64) ** 2)
    return layer(x @ w.astype(np.float64) + b_hidden, unit, Words(w.shape[1], v.dtype, seed, offset, step))


def rbm_visible(
    h, w, b_visible, seed=0, offset=0, unit="bernoulli", step=0, sigma=None, group_size=None
):  # fmt: skip
    """a = W h + b_visible."""
    a = h.astype(np.float64) @ w.T.astype(np.float64) + b_visible
    return layer(a, unit, Words(len(w), h.dtype, seed, offset, step), sigma, group_size)


def rbm_phases(
    v, w, b_visible, b_hidden, k=1, seed=0, offset=0, chain=None, visible="bernoulli", hidden="bernoulli",
    sigma=None, group_size=None, clamp=None,
):  # fmt: skip
    """Half steps one after the other."""
    h0 = rbm_hidden(v, w, b_hidden, unit=hidden, sigma=sigma)[0]
    start = vk = v if chain is None else chain
    for i in range(k):
        h = rbm_hidden(vk, w, b_hidden, seed, offset, hidden, 2 * i, sigma)[1].astype(v.dtype)
        vk = rbm_visible(h, w, b_visible, seed, offset, visible, 2 * i + 1, sigma, group_size)[1]
        if clamp is not None:
            vk = np.where(clamp, start, vk)
        vk = vk.astype(v.dtype)
    return h0, vk.astype(np.float64), rbm_hidden(vk, w, b_hidden, unit=hidden, sigma=sigma)[0]


def differences(v, h0, vk, hk, sigma=None):
    """dw, dbv, dbh: sums over the rows, one by one."""
    v, h0, vk, hk = (x.astype(np.float64) for x in (v, h0, vk, hk))
    dw, dbv, dbh = np.zeros((v.shape[1], h0.shape[1])), np.zeros(v.shape[1]), np.zeros(h0.shape[1])
    for sign, seen, unseen in ((1, v, h0), (-1, vk, hk)):
        for m in range(len(seen)):
            dw += sign / len(seen) * np.outer(seen[m], unseen[m])
            dbv += sign / len(seen) * seen[m]
            dbh += sign / len(seen) * unseen[m]
    if sigma is not None:
        dw, dbv = dw / sigma.astype(np.float64)[:, None] ** 2, dbv / sigma.astype(np.float64) ** 2
    return dw, dbv, dbh


def rbm_cd(v, *parameters, sigma=None, **more):
    """What the data shows minus what the chains do."""
    h0, vk, hk = rbm_phases(v, *parameters, sigma=sigma, **more)
    return *differences(v, h0, vk, hk, sigma), vk


def rbm_update(
    v, h0, vk, hk, w, b_visible, b_hidden, velocity_w, velocity_bv, velocity_bh, learning_rate,
    momentum=0.0, weight_decay=0.0, sigma=None,
):  # fmt: skip
    """The parameters and then the velocities afterwards."""
    dw, dbv, dbh = differences(v, h0, vk, hk, sigma)
    velocities = [
        momentum * velocity.astype(np.float64) + learning_rate * gradient
        for velocity, gradient in (
            (velocity_w, dw - weight_decay * w.astype(np.float64)),
            (velocity_bv, dbv),
            (velocity_bh, dbh),
        )
    ]
    parameters = [x.astype(np.float64) + dx for x, dx in zip((w, b_visible, b_hidden), velocities)]
    return *parameters, *velocities


def integral_of_softplus(x: float) -> float:
    """From -infinity, by Simpson's rule."""
    n = 4000
    t = np.linspace(-40.0, x, 2 * n + 1)
    y = np.array([softplus(float(each)) for each in t])
    return float((t[1] - t[0]) / 3 * (y[0] + y[-1] + 4 * y[1::2].sum() + 2 * y[2:-1:2].sum()))


def rbm_free_energy(v, w, b_visible, b_hidden, visible="bernoulli", hidden="bernoulli", sigma=None):
    """Minus the sum of what visible units and, summed out, hidden units contribute."""
    of_hidden = {"bernoulli": softplus, "gaussian": lambda x: x * x / 2, "relu": integral_of_softplus}[hidden]
    scale = np.ones(len(w)) if sigma is None else sigma.astype(np.float64)
    energy = np.zeros(len(v))
    for m, row in enumerate(v.astype(np.float64)):
        energy[m] -= sum(of_hidden(float(x)) for x in (row / scale**2) @ w.astype(np.float64) + b_hidden)
        for i, x in enumerate(row):
            bias = float(b_visible[i])
            energy[m] += (x - bias) ** 2 / (2 * scale[i] ** 2) if visible == "gaussian" else -x * bias
    return energy
