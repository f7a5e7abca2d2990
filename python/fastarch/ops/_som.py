"""The array-generic code of ops/som.py: search, totals, smoothing over the grid, the U-matrix.

The search multiplies: |x - w|^2 = |x|^2 - 2 x.w + |w|^2, of which |x|^2 is the same for all units. Taken
literally the difference cancels where data lie far from the origin or units close together. So both are
moved by the codebook's centre first, and what a product finds is only believed where the second best score is
further away than rounding explains; other rows, as a rule one in thousands, compare the units in question by
their differences, in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastarch.ops._boundary import Array

_SCORES = 1 << 18  # held at a time: a block of rows times all units
_DIFFERENCES = 1 << 21
_GAUSSIAN, _BUBBLE, _TRIANGLE = 0, 1, 2


def som_bmu_forward(x: Array, codebook: Array, index: Array, distance: Array, xp: Any) -> None:
    """x [N, D], codebook [M, D]; index [N] int64 (-1: none), distance [N] (NaN: none), overwritten."""
    n, d = x.shape
    m = len(codebook)
    with np.errstate(all="ignore"):  # what overflows here is decided by differences
        center = codebook.mean(axis=0)
        center[~xp.isfinite(center)] = 0
        weights = xp.empty((m, d + 1), x.dtype)  # -w and |w|^2 / 2, beside which x has a one
        xp.subtract(center, codebook, out=weights[:, :d])
        weights[:, d] = xp.einsum("md,md->m", weights[:, :d], weights[:, :d]) / 2
        largest = xp.sqrt(2 * xp.fmax.reduce(weights[:, d]).astype(np.float64))
        rows = max(1, min(n, _SCORES // m))
        moved, scores = xp.empty((rows, d + 1), x.dtype), xp.empty((rows, m), x.dtype)
        moved[:, d] = 1
        for start in range(0, n, rows):
            part = x[start : start + rows]
            count = len(part)
            xp.subtract(part, center, out=moved[:count, :d])
            score = xp.matmul(moved[:count], weights.T, out=scores[:count])
            nearest, squares = _decide(score, part, codebook, largest, xp)
            index[start : start + rows] = nearest
            distance[start : start + rows] = xp.sqrt(squares)


def _decide(score: Array, x: Array, codebook: Array, largest: Any, xp: Any) -> tuple[Array, Array]:
    """The nearest unit of each row and its squared distance, from scores [N, M] that it overwrites.

    largest: the greatest length of a unit, from the centre. A score is wrong by at most (D + 6) / 2 roundings
    of |x||w| + |w|^2 / 2, and |x| is at most the distance to the winner plus its length.
    """
    limits = np.finfo(x.dtype)
    every = xp.arange(len(x))
    nearest = score.argmin(axis=1)
    best = score[every, nearest]
    score[every, nearest] = xp.inf
    second = score.min(axis=1)
    score[every, nearest] = best
    squares = _squares(x, codebook[nearest], xp)
    bound = (x.shape[1] + 6) * (
        float(limits.eps) * largest * (xp.sqrt(squares) + 1.5 * largest) + float(limits.tiny)
    )
    doubtful = xp.flatnonzero(~(second.astype(np.float64) - best > bound))
    step = max(1, _DIFFERENCES // codebook.size)
    for start in range(0, len(doubtful), step):
        rows = doubtful[start : start + step]
        # Beside NaN and infinities nothing is known, and all units are in question.
        near = ~(score[rows].astype(np.float64) > (best[rows] + bound[rows])[:, None])
        at, unit = xp.nonzero(near)
        exact = xp.full(near.shape, xp.nan)
        exact[at, unit] = _squares(x[rows[at]], codebook[unit], xp)
        known = ~xp.isnan(exact)
        chosen = xp.where(known, exact, xp.inf).argmin(axis=1)
        which = xp.arange(len(rows))
        # Where all are infinite the first that is known; where none is known, none.
        chosen = xp.where(known[which, chosen], chosen, known.argmax(axis=1))
        nearest[rows] = xp.where(known[which, chosen], chosen, -1)
        squares[rows] = exact[which, chosen]
    return nearest, squares


def _squares(x: Array, w: Array, xp: Any) -> Array:
    """|x - w|^2 of each row, in float64."""
    difference = x.astype(np.float64)
    difference -= w
    return xp.einsum("nd,nd->n", difference, difference)


def som_totals_forward(x: Array, index: Array, totals: Array, xp: Any) -> None:
    """x [N, D], index [N] int64 (others than units: ignored); totals [M, D + 1], overwritten."""
    m, d = totals.shape[0], totals.shape[1] - 1
    order = xp.argsort(index, kind="stable")
    ends = xp.searchsorted(index[order], xp.arange(m + 1))
    counts = xp.diff(ends)
    totals[:, :d] = 0
    totals[:, d] = counts
    filled = xp.flatnonzero(counts)
    if len(filled):
        first, last = int(ends[0]), int(ends[m])
        with np.errstate(over="ignore"):
            sums = xp.add.reduceat(x[order[first:last]], ends[filled] - first, axis=0, dtype=np.float64)
            totals[filled, :d] = sums


def som_batch_forward(
    codebook: Array,
    totals: Array,
    y: Array,
    rows: int,
    columns: int,
    hexagonal: bool,
    toroidal: bool,
    kind: int,
    radius: float,
    xp: Any,
) -> None:
    """codebook [M, D], totals [M, D + 1]; y [M, D], overwritten."""
    d = codebook.shape[1]
    place = (rows, columns, hexagonal, toroidal)
    if kind == _GAUSSIAN:
        smooth, reach = _smooth_gaussian(totals, place, radius, xp), None
    else:
        h = _weights(_square_distances(place, xp), kind, radius, xp)
        smooth = h.astype(totals.dtype) @ totals
        reach = None if kind in (_BUBBLE, _TRIANGLE) else xp.abs(h) @ totals[:, d]
    weight = smooth[:, d] if reach is None else reach
    reached = weight > 0
    weight = xp.where(reached, weight, 1)[:, None]
    if reach is None:
        xp.divide(smooth[:, :d], weight, out=y)
    else:
        xp.divide(smooth[:, :d] - smooth[:, d:] * codebook, weight, out=y)
        y += codebook
    y[~reached] = codebook[~reached]


def _smooth_gaussian(totals: Array, place: tuple, radius: float, xp: Any) -> Array:
    """The Gaussian neighbourhood [M, M] times totals [M, K], as products over rows and over columns.

    exp(-(dx^2 + dy^2)) = exp(-dx^2) exp(-dy^2), and dx depends on the columns and on whether the two rows of
    a hexagonal grid are shifted alike. So rows of each parity are added up apart.
    """
    rows, columns, hexagonal, toroidal = place
    k, parities = totals.shape[1], 2 if hexagonal else 1
    along = _weights(
        _square_offsets(rows, rows, 0.0, 0.75 if hexagonal else 1.0, toroidal, xp), 0, radius, xp
    )
    along = along.astype(totals.dtype)
    grid = totals.reshape(rows, columns * k)
    parts = [(along[:, p::parities] @ grid[p::parities]).reshape(rows, columns, k) for p in range(parities)]
    out = xp.empty((rows, columns, k), totals.dtype)
    for parity in range(parities):
        sums = 0
        for other in range(parities):
            offsets = _square_offsets(columns, columns, (parity - other) / 2, 1.0, toroidal, xp)
            across = _weights(offsets, 0, radius, xp).astype(totals.dtype)
            sums = sums + xp.matmul(across, parts[other][parity::parities])
        out[parity::parities] = sums
    return out.reshape(rows * columns, k)


def _square_offsets(n: int, period: int, shift: float, scale: float, toroidal: bool, xp: Any) -> Array:
    """scale * (i + shift - j)^2 for i, j < n, the short way round where toroidal: [n, n] float64."""
    offset = xp.abs(xp.arange(n, dtype=np.float64)[:, None] + shift - xp.arange(n))
    if toroidal:
        offset = xp.minimum(offset, period - offset)
    return scale * offset * offset


def _square_distances(place: tuple, xp: Any) -> Array:
    """Squared distances on the grid, [M, M] float64, exact: quarters of integers."""
    rows, columns, hexagonal, toroidal = place
    down = _square_offsets(rows, rows, 0.0, 0.75 if hexagonal else 1.0, toroidal, xp)
    square = xp.empty((rows, columns, rows, columns))
    for parity in range(2 if hexagonal else 1):
        for other in range(2 if hexagonal else 1):
            step = 2 if hexagonal else 1
            across = _square_offsets(columns, columns, (parity - other) / 2, 1.0, toroidal, xp)
            square[parity::step, :, other::step] = (
                down[parity::step, None, other::step, None] + across[None, :, None, :]
            )
    return square.reshape(rows * columns, rows * columns)


def _weights(square: Array, kind: int, radius: float, xp: Any) -> Array:
    """The neighbourhood's weight at squared distances on the grid."""
    if kind == _BUBBLE:
        return (xp.sqrt(square) <= radius).astype(np.float64)
    if kind == _TRIANGLE:
        return xp.maximum(1 - xp.sqrt(square) / radius, 0)
    # Divided twice, as the square of a small radius is no number.
    with np.errstate(over="ignore"):
        exponent = square / radius / (2 * radius)
    weight = xp.exp(-exponent)
    return weight if kind == _GAUSSIAN else xp.where(weight > 0, 1 - exponent, 0) * weight


def som_online_forward(
    x: Array,
    rate: Array,
    radius: Array,
    y: Array,
    index: Array,
    rows: int,
    columns: int,
    hexagonal: bool,
    toroidal: bool,
    kind: int,
    xp: Any,
) -> None:
    """x [N, D], rate and radius [N]; y [M, D], updated in place; index [N] int64, overwritten."""
    column = xp.arange(columns, dtype=np.float64)
    row = xp.arange(rows, dtype=np.float64)
    scale = 0.75 if hexagonal else 1.0
    difference = xp.empty_like(y)
    with np.errstate(invalid="ignore", over="ignore"):
        for i in range(len(x)):
            xp.subtract(x[i], y, out=difference)
            square = xp.einsum("md,md->m", difference, difference)
            b = int(square.argmin())
            if square[b] != square[b]:  # some are NaN: look among the others
                known = xp.flatnonzero(~xp.isnan(square))
                if not len(known):
                    index[i] = -1
                    continue
                b = int(known[square[known].argmin()])
            index[i] = b
            if not radius[i] > 0:
                y[b] += rate[i] * difference[b]
                continue
            r, c = divmod(b, columns)
            down = xp.abs(row - r)
            across = xp.abs(column + (row[:, None] % 2 - r % 2) / 2 - c) if hexagonal else xp.abs(column - c)
            if toroidal:
                down, across = xp.minimum(down, rows - down), xp.minimum(across, columns - across)
            grid = (scale * down * down)[:, None] + across * across
            h = _weights(grid.reshape(-1), kind, float(radius[i]), xp) * float(rate[i])
            difference *= h.astype(y.dtype)[:, None]
            y += difference


def som_u_matrix_forward(
    codebook: Array,
    y: Array,
    rows: int,
    columns: int,
    hexagonal: bool,
    toroidal: bool,
    xp: Any,
) -> None:
    """codebook [M, D]; y [R, C], overwritten."""
    unit = xp.arange(rows * columns)
    row, column = unit // columns, unit % columns
    total, count = xp.zeros(rows * columns), xp.zeros(rows * columns)
    for down in (-1, 0, 1):
        for across in (-1, 0, 1):
            if down == across == 0:
                continue
            to_row, to_column = row + down, column + across
            exists = xp.ones(rows * columns, bool)
            if hexagonal and down:
                exists &= (row % 2 == 1) | (across <= 0)
                exists &= (row % 2 == 0) | (across >= 0)
            if toroidal:
                to_row, to_column = to_row % rows, to_column % columns
                exists &= (to_row != row) | (to_column != column)
            else:
                exists &= (to_row >= 0) & (to_row < rows) & (to_column >= 0) & (to_column < columns)
            to = xp.where(exists, to_row * columns + to_column, unit)
            total += xp.sqrt(_squares(codebook, codebook[to], xp))
            count += exists
    y[...] = (total / xp.maximum(count, 1)).reshape(rows, columns)
