"""One module of a deep stacking network: hidden units whose output weights are always the best ones.

H = sigmoid(X W' + b), and U minimizes |H U - T|^2 + ridge |U|^2, which has a closed form. Seen through it the
error is a function of W and b alone, and by the envelope theorem its gradient is the one at fixed U (Deng,
Yu and Platt 2012). With two groups of hidden units, H is the outer product of both (Hutchinson, Deng and Yu
2013). All sums over samples are taken over chunks, in parallel, and added in a fixed order.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from fastarch import ops
from fastarch.arrays import Array, namespace

T = TypeVar("T")
Parameters = list  # weight [L, D], bias [L] of each group of hidden units, one group after another


@dataclass(frozen=True)
class Chunks:
    """How sums over samples are split: `size` rows at a time, on `workers` threads."""

    size: int = 4096
    workers: int = 1

    def of(self, samples: int) -> list[slice]:
        return [slice(i, min(i + self.size, samples)) for i in range(0, samples, self.size)]

    def map(self, function: Callable[[slice], T], samples: int) -> list[T]:
        """What `function` returns for each chunk, in order; NumPy's products leave the threads free."""
        parts = self.of(samples)
        if self.workers == 1 or len(parts) == 1:
            return [function(part) for part in parts]
        with ThreadPoolExecutor(min(self.workers, len(parts))) as pool:
            # Every task sees the caller's choice of backend.
            tasks = [pool.submit(contextvars.copy_context().run, function, part) for part in parts]
            return [task.result() for task in tasks]


def hidden(x: Array, parameters: Parameters) -> list[Array]:
    """The hidden units of each group: x [N, D] -> [N, L] each."""
    groups = range(0, len(parameters), 2)
    return [ops.linear(x, parameters[i], parameters[i + 1], activation="sigmoid") for i in groups]


def features(units: Sequence[Array]) -> Array:
    """What the output weights multiply: [N, L + 1], the last column 1; or of two groups the outer product of
    both, each with a 1 appended: [N, (L + 1) (M + 1)]."""
    first = _with_one(units[0])
    if len(units) == 1:
        return first
    second = _with_one(units[1])
    return (first[:, :, None] * second[:, None, :]).reshape(len(first), -1)


def _with_one(h: Array) -> Array:
    xp = namespace(h)
    wide = xp.empty((h.shape[0], h.shape[1] + 1), h.dtype)
    wide[:, :-1] = h
    wide[:, -1] = 1
    return wide


def width(parameters: Parameters) -> int:
    """The number of columns of `features`."""
    product = 1
    for bias in parameters[1::2]:
        product *= bias.shape[0] + 1
    return product


def sums(units: list[Array], t: Array, chunks: Chunks) -> tuple[Array, Array]:
    """(F'F, F'T) over all samples, float64, F being the features of the hidden units."""
    xp = namespace(t)

    def part(rows: slice) -> tuple[Array, Array]:
        f = features([h[rows] for h in units])
        return (f.T @ f).astype(xp.float64), (f.T @ t[rows]).astype(xp.float64)

    parts = chunks.map(part, t.shape[0])
    gram, cross = parts[0]
    for more_gram, more_cross in parts[1:]:
        gram += more_gram
        cross += more_cross
    return gram, cross


def solve(gram: Array, cross: Array, ridge: float, rounding: float = 2.3e-16) -> Array:
    """U of (F'F + ridge) U = F'T, the constant column going without ridge; float64 [width, T].

    rounding: the relative error of the sums, from F's type. Where the system is singular to that accuracy (no
    ridge, and columns that depend on one another) it is the U of least norm.
    """
    xp = namespace(gram)
    n = gram.shape[0]
    regular = gram.copy()
    diagonal = xp.arange(n - 1)
    regular[diagonal, diagonal] += ridge
    if ridge > 10 * rounding * float(xp.trace(gram)) / n:
        return xp.linalg.solve(regular, cross)
    values, vectors = xp.linalg.eigh(regular)
    kept = values > n * rounding * float(values[-1])
    inverse = xp.where(kept, 1 / xp.where(kept, values, 1), 0)
    return (vectors * inverse) @ (vectors.T @ cross)


def _rounding(x: Array) -> float:
    return float(namespace(x).finfo(x.dtype).eps)


def objective(
    x: Array, t: Array, parameters: Parameters, ridge: float, chunks: Chunks
) -> tuple[float, list[Array], Array]:
    """|F U - T|^2 + ridge |U|^2 with the best U, its gradient by each parameter, and U [width, T].

    x [N, D], t [N, T]. In the notation of the paper, dW = 2 X'[H (1 - H) (R U')], R = H U - T.
    """
    xp = namespace(x)
    # Hidden units are kept for the second pass; their products, which may be many, are formed chunk by chunk.
    units = _stacked(chunks.map(lambda rows: hidden(x[rows], parameters), x.shape[0]), xp)
    u = solve(*sums(units, t, chunks), ridge, _rounding(x))
    penalty = ridge * float((u[:-1] ** 2).sum())
    output = u.astype(x.dtype)

    def part(rows: slice) -> tuple[float, list[Array]]:
        h = [unit[rows] for unit in units]
        residual = features(h) @ output - t[rows]
        error = float((residual.astype(xp.float64) ** 2).sum())
        gradients: list[Array] = []
        for unit, slope in zip(h, _back(h, (2 * residual) @ output.T)):
            inner = slope * unit * (1 - unit)
            gradients += [inner.T @ x[rows], inner.sum(axis=0)]
        return error, gradients

    parts = chunks.map(part, x.shape[0])
    error, gradients = parts[0]
    for more_error, more in parts[1:]:
        error += more_error
        for total, g in zip(gradients, more):
            total += g
    return error + penalty, gradients, u


def _stacked(parts: list[list[Array]], xp: Any) -> list[Array]:
    if len(parts) == 1:
        return parts[0]
    return [xp.concatenate([part[i] for part in parts]) for i in range(len(parts[0]))]


def _back(units: list[Array], slope: Array) -> list[Array]:
    """The gradient by each group of hidden units, from the one by the features [n, width]."""
    if len(units) == 1:
        return [slope[:, :-1]]
    first, second = (_with_one(h) for h in units)
    grid = slope.reshape(len(slope), first.shape[1], second.shape[1])
    by_first = (grid @ second[:, :, None])[:, :-1, 0]
    by_second = (first[:, None, :] @ grid)[:, 0, :-1]
    return [by_first, by_second]


def best_output(x: Array, t: Array, parameters: Parameters, ridge: float, chunks: Chunks) -> Array:
    """The output weights U [width, T] for all of x and t."""
    units = _stacked(chunks.map(lambda rows: hidden(x[rows], parameters), x.shape[0]), namespace(x))
    return solve(*sums(units, t, chunks), ridge, _rounding(x))


def predict(x: Array, parameters: Parameters, output: Array, chunks: Chunks) -> Array:
    """The module's predictions F U: [N, T]."""

    def part(rows: slice) -> Array:
        return features(hidden(x[rows], parameters)) @ output

    parts = chunks.map(part, x.shape[0])
    return parts[0] if len(parts) == 1 else namespace(x).concatenate(parts)
