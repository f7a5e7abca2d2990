"""The samples that an estimator trains on, dense or sparse, handed out a batch at a time as dense rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastarch.arrays import Array, Restore, namespace
from fastarch.estimators.validation import is_sparse

_BLOCK_BYTES = 1 << 24  # of dense rows held while walking over everything


class Rows:
    """x: [N, D] dense, or a SciPy CSR matrix that is never made dense as a whole.

    fill: what a sparse matrix leaves out. beside: [N, E] dense or None, further columns, handed out to the
    right of x's. back: makes results the kind of array that came.
    """

    def __init__(
        self,
        x: Any,
        dtype: Any = None,
        fill: float = 0.0,
        beside: Array | None = None,
        back: Restore | None = None,
    ) -> None:
        dtype = np.dtype(x.dtype if dtype is None else dtype)
        self.sparse = is_sparse(x)
        self.x = x if x.dtype == dtype else x.astype(dtype)
        self.fill, self.beside = fill, beside
        self.back = back or _as_it_is
        if self.sparse and not x.has_canonical_format:
            self.x = self.x.copy()
            self.x.sum_duplicates()
        self.dtype = dtype
        self.shape: tuple[int, int] = x.shape

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, index: slice | np.ndarray) -> Array:
        """The rows at `index` (a slice, or numbers on the host), dense and contiguous."""
        if self.sparse:
            rows, xp = self._dense(self.x[index]), np
        else:
            xp = namespace(self.x)
            index = index if isinstance(index, slice) else xp.asarray(index)
            rows = self.x[index]
        if self.beside is None:
            return rows
        return xp.concatenate([rows, self.beside[index].astype(self.dtype)], 1)

    def _dense(self, matrix: Any) -> np.ndarray:
        if self.fill == 0:
            return matrix.toarray(order="C")
        dense = np.full(matrix.shape, self.fill, self.dtype)
        dense[np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr)), matrix.indices] = matrix.data
        return dense

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """All rows in order, a few megabytes at a time, each block with its place."""
        size = max(1, _BLOCK_BYTES // (self.dtype.itemsize * self.shape[1]))
        for start in range(0, len(self), size):
            part = slice(start, min(start + size, len(self)))
            yield part, self.take(part)


def _as_it_is(x: Array) -> Array:
    return x
