"""Self-organizing maps: best-matching units, batch and online training, the U-matrix.

A map is a codebook [M, D] on a grid of R rows and C columns, M = R * C in row-major order. Neighbouring units
of a rectangular grid are 1 apart; in a hexagonal one every other row is shifted by half a column and rows
are sqrt(3)/2 apart, so that all six neighbours are at distance 1. A toroidal grid has no edges. Kohonen,
"Self-Organizing Maps" (3rd edition, 2001).
"""

from __future__ import annotations

from math import isfinite
from typing import Any

import numpy as np

from fastarch.ops._boundary import (
    Array,
    as_int64,
    empty,
    expect_dims,
    expect_shape,
    flag,
    integer,
    operator,
    run,
    zeros,
)
from fastarch.ops._som import (
    som_batch_forward,
    som_bmu_forward,
    som_online_forward,
    som_totals_forward,
    som_u_matrix_forward,
)

# The numbers by which kernels know them (csrc/ops/som.h).
NEIGHBORHOODS = {"gaussian": 0, "bubble": 1, "triangle": 2, "mexican_hat": 3}
TOPOLOGIES = {"rectangular": False, "hexagonal": True}

_MOST_UNITS = 2**31 - 1


@operator("x", "codebook")
def som_bmu(x: Array, codebook: Array) -> tuple[Array, Array]:
    """The nearest unit of every row by Euclidean distance. x [N, D], codebook [M, D] -> index, distance [N].

    index is int64, the lowest one on ties: distances are compared in float64, from differences, so neither a
    large offset of the data nor float32 products decide. A row with a NaN has no best unit (index -1,
    distance NaN), a unit with a NaN is never best. Raises ValueError for shapes that do not fit.
    """
    op = "som_bmu"
    _check_map(op, codebook)
    expect_dims(op, "x", x, 2, "[N, D]")
    _check_features(op, x, codebook)
    index, distance = empty(op, x.shape[:1], x, np.int64), empty(op, x.shape[:1], x)
    if index.size:
        run("som_bmu_forward", som_bmu_forward, (x, codebook), index, distance)
    return index, distance


@operator("x", index="index")
def som_totals(x: Array, index: Array, units: int) -> Array:
    """Sums and counts of the rows of each unit. x [N, D], index [N] integers -> totals [units, D + 1].

    Row m holds the sum of the rows of x with index m, in a fixed order, and last their number. Rows with
    index -1 count for nothing. Totals of parts of the data add up to those of the whole. Raises ValueError
    for shapes that do not fit and, on the host, for an index out of range.
    """
    op = "som_totals"
    expect_dims(op, "x", x, 2, "[N, D]")
    units = integer(op, "units", units)
    if not 1 <= units <= _MOST_UNITS:
        raise ValueError(f"[{op}] units is {units}, expected at least 1 and at most {_MOST_UNITS}")
    index = _units(op, index, x, units)
    shape = (units, x.shape[1] + 1)
    totals = (empty if index.size else zeros)(op, shape, x)
    if index.size:
        run("som_totals_forward", som_totals_forward, (x, index), totals)
    return totals


@operator("codebook", "totals")
def som_batch_update(
    codebook: Array,
    totals: Array,
    grid: tuple[int, int],
    radius: float,
    neighborhood: str = "gaussian",
    topology: str = "rectangular",
    toroidal: bool = False,
) -> Array:
    """The codebook after a batch step: each unit the mean of the data, weighted by the neighbourhood.

    codebook [M, D], totals [M, D + 1] of som_totals, grid (R, C) -> codebook [M, D]. With h the weight of
    two units by their distance d on the grid, s sums and n counts: w_i + (sum_j h s_j - w_i sum_j h n_j) /
    sum_j |h| n_j, which is sum_j h s_j / sum_j h n_j where no h is negative; a unit that nothing reaches
    stays. With r the radius > 0, h is "gaussian" exp(-d^2 / 2r^2), "bubble" 1 up to d = r, "triangle"
    max(0, 1 - d / r) or "mexican_hat" (1 - d^2 / 2r^2) exp(-d^2 / 2r^2), whose sum over the plane is 0.
    Raises ValueError for shapes that do not fit, a grid that is not M units and a radius that is not above 0.
    """
    op = "som_batch_update"
    units, features = _check_map(op, codebook)
    expect_shape(op, "totals", totals, (units, features + 1))
    place = _grid(op, units, grid, topology, toroidal)
    kind, radius = _neighborhood(op, neighborhood), _radius(op, radius)
    y = empty(op, codebook.shape, codebook)
    if y.size:
        run("som_batch_forward", som_batch_forward, (codebook, totals), y, *place, kind, radius)
    return y


@operator("x", "codebook", "rate", "radius")
def som_online_update(
    x: Array,
    codebook: Array,
    rate: Array,
    radius: Array,
    grid: tuple[int, int],
    neighborhood: str = "gaussian",
    topology: str = "rectangular",
    toroidal: bool = False,
) -> tuple[Array, Array]:
    """Kohonen's rule, one row after the other: w_i += rate h(d(b, i), radius) (x - w_i), b the nearest unit.

    x [N, D], codebook [M, D], rate and radius [N], one for each row -> codebook [M, D], index [N] int64, the
    units that were nearest when their rows came (lowest on ties). A row with a NaN changes nothing: its index
    is -1. Neighbourhoods as in som_batch_update; where a radius is not above 0 only the nearest unit learns.
    Raises ValueError for shapes that do not fit.
    """
    op = "som_online_update"
    units, _ = _check_map(op, codebook)
    expect_dims(op, "x", x, 2, "[N, D]")
    _check_features(op, x, codebook)
    expect_shape(op, "rate", rate, x.shape[:1])
    expect_shape(op, "radius", radius, x.shape[:1])
    place = _grid(op, units, grid, topology, toroidal)
    kind = _neighborhood(op, neighborhood)
    y = codebook.copy(order="C")
    index = empty(op, x.shape[:1], x, np.int64)
    if index.size:
        run("som_online_forward", som_online_forward, (x, rate, radius), y, index, *place, kind)
    return y, index


@operator("codebook")
def som_u_matrix(
    codebook: Array, grid: tuple[int, int], topology: str = "rectangular", toroidal: bool = False
) -> Array:
    """The U-matrix: each unit's mean Euclidean distance to its neighbours. codebook [M, D] -> [R, C].

    Neighbours are the 8 around a unit of a rectangular grid or the 6 of a hexagonal one, as far as they
    exist; a unit without any has 0. Ultsch and Siemon, "Kohonen's self organizing feature maps for
    exploratory data analysis" (1990). Raises ValueError for a grid that is not M units.
    """
    op = "som_u_matrix"
    units, _ = _check_map(op, codebook)
    place = _grid(op, units, grid, topology, toroidal)
    y = empty(op, place[:2], codebook)
    run("som_u_matrix_forward", som_u_matrix_forward, (codebook,), y, *place)
    return y


def _check_map(op: str, codebook: Array) -> tuple[int, int]:
    expect_dims(op, "codebook", codebook, 2, "[M, D]")
    units, features = codebook.shape
    if not 1 <= units <= _MOST_UNITS or not 1 <= features <= _MOST_UNITS:
        raise ValueError(
            f"[{op}] codebook has shape {codebook.shape}, expected at least one unit and feature"
        )
    return units, features


def _check_features(op: str, x: Array, codebook: Array) -> None:
    if x.shape[1] != codebook.shape[1]:
        raise ValueError(
            f"[{op}] x has shape {x.shape}, codebook {codebook.shape} expects {codebook.shape[1]} features"
        )


def _units(op: str, index: Array, x: Array, units: int) -> Array:
    """The indices as int64, checked where they can be read without waiting for a device."""
    if index.dtype.kind not in "iu":
        raise TypeError(f"[{op}] index has dtype {index.dtype}, expected unit numbers (int64)")
    expect_shape(op, "index", index, x.shape[:1])
    index = as_int64(index)
    if type(index) is np.ndarray and index.size:
        low, high = int(index.min()), int(index.max())
        if low < -1 or high >= units:
            wrong = low if low < -1 else high
            raise ValueError(f"[{op}] index holds {wrong}, expected -1 to {units - 1}")
    return index


def _grid(op: str, units: int, grid: Any, topology: Any, toroidal: Any) -> tuple[int, int, bool, bool]:
    """(rows, columns, hexagonal, toroidal), as kernels take them."""
    if not isinstance(grid, (tuple, list)) or len(grid) != 2:
        raise TypeError(f"[{op}] grid is {grid!r}, expected (rows, columns)")
    rows, columns = integer(op, "grid", grid[0]), integer(op, "grid", grid[1])
    if rows < 1 or columns < 1 or rows * columns != units:
        raise ValueError(f"[{op}] grid is {(rows, columns)}, expected rows * columns = {units} units")
    if not isinstance(topology, str) or topology not in TOPOLOGIES:
        raise ValueError(f"[{op}] topology is {topology!r}, expected 'rectangular' or 'hexagonal'")
    hexagonal, toroidal = TOPOLOGIES[topology], flag(op, "toroidal", toroidal)
    if hexagonal and toroidal and rows % 2:
        raise ValueError(
            f"[{op}] a toroidal hexagonal grid has an even number of rows, for the shift to close; got {rows}"
        )
    return rows, columns, hexagonal, toroidal


def _neighborhood(op: str, name: Any) -> int:
    if not isinstance(name, str) or name not in NEIGHBORHOODS:
        raise ValueError(f"[{op}] neighborhood is {name!r}, expected {', '.join(map(repr, NEIGHBORHOODS))}")
    return NEIGHBORHOODS[name]


def _radius(op: str, radius: Any) -> float:
    try:
        value = float(radius)
    except (TypeError, ValueError):
        raise TypeError(f"[{op}] radius is {radius!r}, expected a number above 0") from None
    if not (value > 0 and isfinite(value)):
        raise ValueError(f"[{op}] radius is {value}, expected a finite number above 0")
    return value
