"""What a map measures of data, dense or sparse: nearest units, totals by unit, all distances."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastarch import ops
from fastarch.arrays import Array
from fastarch.estimators.base import array_module
from fastarch.estimators.validation import is_sparse

_ELEMENTS = 1 << 20  # of a block held dense at a time
_ROUNDED = 1e-7  # squared distances below this share of the lengths are measured again, by differences


def blocks(n: int, width: int) -> Iterator[slice]:
    """Slices of [0, n) of about as many rows as make a block with `width` columns."""
    step = max(1, _ELEMENTS // max(1, width))
    for start in range(0, n, step):
        yield slice(start, min(n, start + step))


def best_units(x: Array, codebook: Array) -> tuple[Array, Array]:
    """The nearest unit of every row and its distance: [N] int64, [N]. x may be CSR."""
    if not is_sparse(x):
        return ops.som_bmu(x, codebook)
    n, d = x.shape
    index, distance = np.empty(n, np.int64), np.empty(n, codebook.dtype)
    half = np.einsum("md,md->m", codebook, codebook) / 2
    largest = float(np.sqrt(2 * np.float64(half.max())))
    for rows in blocks(n, max(d, len(codebook))):
        part = x[rows]
        dense = part.toarray()
        if d < 32 or part.nnz * 8 > dense.size:
            index[rows], distance[rows] = ops.som_bmu(dense, codebook)
            continue
        with np.errstate(all="ignore"):
            score = half - part @ codebook.T
            every = np.arange(len(dense))
            nearest = score.argmin(axis=1)
            best = score[every, nearest].astype(np.float64)
            score[every, nearest] = np.inf
            far = np.sqrt(((dense - codebook[nearest].astype(np.float64)) ** 2).sum(axis=1))
            # As in the dense search: a score is only believed beyond what rounding explains.
            bound = (d + 6) * float(np.finfo(score.dtype).eps) * largest * (far + 1.5 * largest)
            doubtful = np.flatnonzero(~(score.min(axis=1) - best > bound))
        if len(doubtful):
            nearest[doubtful], far[doubtful] = ops.som_bmu(dense[doubtful], codebook)
        index[rows], distance[rows] = nearest, far
    return index, distance


def totals(x: Array, index: Array, units: int) -> Array:
    """Sums and counts by unit, [M, D + 1]. x may be CSR."""
    if not is_sparse(x):
        return ops.som_totals(x, index, units)
    from scipy import sparse

    n, d = x.shape
    known = np.flatnonzero(index >= 0)
    members = sparse.csr_matrix((np.ones(len(known)), (index[known], known)), shape=(units, n))
    found = np.empty((units, d + 1), x.dtype)
    found[:, :d] = (members @ x).toarray()
    found[:, d] = np.bincount(index[known], minlength=units)
    return found


def distances(x: Array, codebook: Array) -> Array:
    """Euclidean distances of every row to every unit, [N, M] of x's dtype. x may be CSR."""
    xp = array_module(x)
    n, m = x.shape[0], len(codebook)
    out = xp.empty((n, m), x.dtype)
    center = codebook.mean(axis=0, dtype=np.float64)
    w = codebook - center
    lengths = xp.einsum("md,md->m", w, w)
    for rows in blocks(n, max(x.shape)):
        dense = x[rows].toarray() if is_sparse(x) else x[rows]
        z = dense - center
        own = xp.einsum("nd,nd->n", z, z)
        square = z @ w.T
        square *= -2
        square += own[:, None]
        square += lengths
        at, unit = xp.nonzero(square <= _ROUNDED * (own[:, None] + lengths))
        for part in blocks(len(at), x.shape[1]):
            difference = dense[at[part]] - codebook[unit[part]].astype(np.float64)
            square[at[part], unit[part]] = xp.einsum("nd,nd->n", difference, difference)
        out[rows] = xp.sqrt(square)
    return out


def two_best(x: Array, codebook: Array) -> tuple[Array, Array]:
    """The nearest and the second nearest unit of every row, [N] int64 each; M >= 2."""
    xp = array_module(x)
    first, _ = best_units(x, codebook)
    second = xp.empty_like(first)
    for rows in blocks(x.shape[0], len(codebook)):
        far = distances(x[rows], codebook)
        far[xp.arange(len(far)), first[rows]] = xp.inf
        second[rows] = far.argmin(axis=1)
    return first, second
