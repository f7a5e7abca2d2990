"""Where a map's codebook starts: along the principal components, on samples, or anywhere in their range."""

from __future__ import annotations

import numpy as np

from fastarch import random
from fastarch.arrays import Array
from fastarch.estimators.base import array_module
from fastarch.estimators.validation import is_sparse

_EXACT = 512  # up to this many features or samples the components come from a whole decomposition
_SWEEPS = 30


def positions(grid: tuple[int, int], topology: str) -> np.ndarray:
    """(across, down) of every unit in the plane: [M, 2] float64, neighbours 1 apart."""
    row, column = (part.reshape(-1).astype(np.float64) for part in np.indices(grid))
    if topology == "hexagonal":
        return np.stack([column + row % 2 / 2, row * (np.sqrt(3) / 2)], axis=1)
    return np.stack([column, row], axis=1)


def random_codebook(x: Array, units: int, seed: int) -> Array:
    """Uniform between each feature's smallest and largest value: [M, D] of x's dtype."""
    xp = array_module(x)
    low, high = feature_range(x)
    share = random.uniform((units, x.shape[1]), dtype=x.dtype, stream=(seed, 0))
    # Mixed rather than stretched, as high - low may overflow.
    return (1 - xp.asarray(share)) * low + xp.asarray(share) * high


def sample_codebook(x: Array, units: int, seed: int) -> Array:
    """Samples in random order, all of them before one comes again: [M, D]."""
    n = x.shape[0]
    order = random.permutation(n, seed, 0)
    chosen = x[array_module(x).asarray(order[np.arange(units) % n])]
    return chosen.toarray() if is_sparse(x) else chosen


def pca_codebook(x: Array, grid: tuple[int, int], topology: str, seed: int) -> Array:
    """A plane through the mean along the two largest principal components: [M, D].

    The longer side of the map follows the first; each reaches one standard deviation of the data to either
    side.
    """
    xp = array_module(x)
    low, high = feature_range(x)
    scale = max(abs(float(low.min())), abs(float(high.max()))) or 1.0
    mean, axes, deviations = _components(x, scale, seed)
    place = positions(grid, topology)
    extent = place.max(axis=0) - place.min(axis=0)
    centered = place - (place.max(axis=0) + place.min(axis=0)) / 2
    unit = 2 * centered / np.where(extent > 0, extent, 1)
    if extent[1] > extent[0]:
        unit = unit[:, ::-1]
    steps = xp.asarray(unit) * deviations
    return ((mean + steps @ axes) * scale).astype(x.dtype)


def feature_range(x: Array) -> tuple[Array, Array]:
    """The smallest and the largest value of every feature, [D] each. x may be CSR."""
    if is_sparse(x):
        return x.min(axis=0).toarray().reshape(-1), x.max(axis=0).toarray().reshape(-1)
    return x.min(axis=0), x.max(axis=0)


def _components(x: Array, scale: float, seed: int) -> tuple[Array, Array, Array]:
    """Of x / scale: the mean [D], two components [2, D] and the data's deviations along them [2], float64."""
    xp = array_module(x)
    n, d = x.shape
    z = x.astype(np.float64)
    z = z / scale
    mean = xp.asarray(z.mean(axis=0)).reshape(-1)
    k = min(2, n, d)
    if min(n, d) <= _EXACT:
        values, vectors = _decomposed(z, mean, k, xp)
    else:
        values, vectors = _iterated(z, mean, k, seed, xp)
    axes, deviations = xp.zeros((2, d)), xp.zeros(2)
    axes[:k], deviations[:k] = vectors, xp.sqrt(xp.maximum(values, 0) / n)
    # A component and its opposite are both right: the largest entry is made positive.
    largest = xp.take_along_axis(axes, xp.abs(axes).argmax(axis=1)[:, None], axis=1)
    return mean, xp.where(largest < 0, -axes, axes), deviations


def _decomposed(z: Array, mean: Array, k: int, xp: object) -> tuple[Array, Array]:
    """The k largest eigenvalues of the scatter of z about its mean [k], and its eigenvectors [k, D]."""
    n, d = z.shape
    if d <= n:
        gram = z.T @ z
        gram = (gram.toarray() if is_sparse(gram) else gram) - n * mean[:, None] * mean
        values, vectors = xp.linalg.eigh(gram)  # type: ignore[attr-defined]
        return values[::-1][:k], vectors[:, ::-1][:, :k].T
    rows = (z.toarray() if is_sparse(z) else z) - mean
    values, vectors = xp.linalg.eigh(rows @ rows.T)  # type: ignore[attr-defined]
    values, left = values[::-1][:k], vectors[:, ::-1][:, :k]
    lengths = xp.sqrt(xp.maximum(values, 0))  # type: ignore[attr-defined]
    return values, (left.T @ rows) / xp.where(lengths > 0, lengths, 1)[:, None]  # type: ignore[attr-defined]


def _iterated(z: Array, mean: Array, k: int, seed: int, xp: object) -> tuple[Array, Array]:
    """The same, nearly, for large matrices: a few directions multiplied again and again."""
    start = random.normal((z.shape[1], k + 6), dtype=np.float64, stream=(seed, 1))
    basis = xp.asarray(start)  # type: ignore[attr-defined]
    for _ in range(_SWEEPS):
        image = z @ basis - mean @ basis
        basis, _ = xp.linalg.qr(z.T @ image - mean[:, None] * image.sum(axis=0))  # type: ignore[attr-defined]
    image = z @ basis - mean @ basis
    values, vectors = xp.linalg.eigh(image.T @ image)  # type: ignore[attr-defined]
    return values[::-1][:k], (basis @ vectors[:, ::-1][:, :k]).T
