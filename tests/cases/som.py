"""Self-organizing maps: cases and the definitions, written from geometry, one pair of units at a time."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from cases.case import Arguments, Case, in_every_layout

TOPOLOGIES = ("rectangular", "hexagonal")
NEIGHBORHOODS = ("gaussian", "bubble", "triangle", "mexican_hat")


def position(unit: int, columns: int, topology: str) -> tuple[float, float]:
    """(across, down) of a unit in the plane."""
    row, column = divmod(unit, columns)
    if topology == "hexagonal":
        return column + (0.5 if row % 2 else 0.0), row * math.sqrt(3) / 2
    return float(column), float(row)


def grid_distance(a: int, b: int, grid, topology: str, toroidal: bool) -> float:
    """The distance of two units; on a torus to the nearest of the nine copies of the map around."""
    rows, columns = grid
    (xa, ya), (xb, yb) = position(a, columns, topology), position(b, columns, topology)
    height = rows * (math.sqrt(3) / 2 if topology == "hexagonal" else 1.0)
    shifts = (-1, 0, 1) if toroidal else (0,)
    return min(math.hypot(xb + i * columns - xa, yb + j * height - ya) for i in shifts for j in shifts)


def weight(name: str, d: float, radius: float) -> float:
    """The neighbourhood's weight at a distance."""
    if name == "bubble":
        return 1.0 if d <= radius * (1 + 1e-9) else 0.0
    if name == "triangle":
        return max(0.0, 1.0 - d / radius)
    exponent = (d / radius) * (d / radius) / 2
    bell = math.exp(-exponent)
    return bell if name == "gaussian" else (1 - exponent) * bell if bell > 0 else 0.0


def nearest(row, codebook) -> tuple[int, float]:
    """(-1, NaN) where no distance is a number."""
    best, best_square = -1, math.nan
    for i, unit in enumerate(codebook):
        square = sum((float(a) - float(b)) ** 2 for a, b in zip(row, unit))
        if not math.isnan(square) and (best < 0 or square < best_square):
            best, best_square = i, square
    return best, math.sqrt(best_square) if best >= 0 else math.nan


def som_bmu(x, codebook):
    """The unit with the least distance, the first of equals."""
    found = [nearest(row, codebook) for row in x]
    return np.array([i for i, _ in found], np.int64), np.array([d for _, d in found], np.float64)


def som_totals(x, index, units):
    """Each row added to its unit, and one to its count."""
    totals = np.zeros((units, x.shape[1] + 1))
    for row, unit in zip(x, index):
        if unit >= 0:
            for k, value in enumerate(row):
                totals[unit, k] += float(value)
            totals[unit, -1] += 1
    return totals


def som_batch_update(
    codebook, totals, grid, radius, neighborhood="gaussian", topology="rectangular", toroidal=False
):
    """Weighted means over all pairs of units."""
    w, t = codebook.astype(np.float64), totals.astype(np.float64)
    y = w.copy()
    for i in range(len(w)):
        pull, reach = np.zeros(w.shape[1]), 0.0
        for j in range(len(w)):
            h = weight(neighborhood, grid_distance(i, j, grid, topology, toroidal), radius)
            pull += h * (t[j, :-1] - t[j, -1] * w[i])
            reach += abs(h) * t[j, -1]
        if reach > 0:
            y[i] = w[i] + pull / reach
    return y


def som_online_update(
    x, codebook, rate, radius, grid, neighborhood="gaussian", topology="rectangular", toroidal=False
):
    """Kohonen's rule, row by row."""
    w, index = codebook.astype(np.float64), []
    for row, a, r in zip(x.astype(np.float64), rate, radius):
        b, _ = nearest(row, w)
        index.append(b)
        for i in range(len(w)):
            if b < 0:
                continue
            d = grid_distance(b, i, grid, topology, toroidal)
            h = weight(neighborhood, d, float(r)) if r > 0 else float(i == b)
            w[i] += float(a) * h * (row - w[i])
    return w, np.array(index, np.int64)


def som_u_matrix(codebook, grid, topology="rectangular", toroidal=False):
    """The mean distance to the units that lie next to one: a step away, or around a corner of a square."""
    w, reach = codebook.astype(np.float64), math.sqrt(2) if topology == "rectangular" else 1.0
    rows, columns = grid
    height = rows * (math.sqrt(3) / 2 if topology == "hexagonal" else 1.0)
    heights = np.zeros(len(w))
    shifts = (-1, 0, 1) if toroidal else (0,)
    for a in range(len(w)):
        found = []
        xa, ya = position(a, columns, topology)
        for b in range(len(w)):
            xb, yb = position(b, columns, topology)
            for i in shifts:
                for j in shifts:
                    step = math.hypot(xb + i * columns - xa, yb + j * height - ya)
                    if a != b and step <= reach + 1e-9:
                        found.append(math.sqrt(float(((w[a] - w[b]) ** 2).sum())))
        heights[a] = sum(found) / len(found) if found else 0.0
    return heights.reshape(grid)


# Cases. Sizes are (N, (R, C), D).

_SIZES = {
    "one": (1, (1, 1), 1),
    "primes": (37, (5, 7), 11),
    "one_feature": (20, (3, 4), 1),
    "one_unit": (9, (1, 1), 5),
    "row": (23, (1, 17), 3),
    "column": (13, (16, 1), 4),
    "units_129": (19, (3, 43), 6),
    "features_129": (8, (4, 3), 129),
    "features_300": (6, (2, 3), 300),
    "rows_257": (257, (2, 5), 3),
    "empty": (0, (2, 3), 4),
}


def _map(rng, size, dtype) -> tuple[np.ndarray, np.ndarray]:
    n, (rows, columns), d = _SIZES[size]
    return (
        rng.standard_normal((n, d)).astype(dtype),
        rng.standard_normal((rows * columns, d)).astype(dtype),
    )


def _make_bmu(size: str, what: str, rng, dtype) -> Arguments:
    x, w = _map(rng, size, dtype)
    if what == "ties":  # units twice, and rows midway between two
        w[len(w) // 2 :] = w[: len(w) - len(w) // 2]
        x[: len(w)] = w[: len(x)]
        w[1] = w[0] + 2
        x[-1] = w[0] + 1
    elif what == "equal":  # every unit the same
        w[:] = w[0]
    elif what == "far":  # a product would leave nothing of the differences
        offset = dtype.type(3e4 if dtype == np.float32 else 3e12)
        x, w = x + offset, w + offset
    elif what == "nan":
        x[3, 2] = x[7, 0] = np.nan
        w[0, 1] = np.nan
    elif what == "nan_alone":
        w[:] = np.nan
    elif what == "infinite":
        x[3, 2], x[5, 1], w[1, 0], w[2, 0] = np.inf, -np.inf, np.inf, -np.inf
        x[6, 0] = np.inf
    elif what in ("huge", "tiny"):  # squares overflow or vanish in float32
        scale = dtype.type(1e30 if what == "huge" else 1e-30)
        x, w = x * scale, w * scale
    elif what == "mixed":  # units of very different lengths
        w *= (dtype.type(10) ** np.arange(len(w)) % 7)[:, None].astype(dtype)
    return {"x": x, "codebook": w}


def _make_totals(size: str, rng, dtype) -> Arguments:
    x, w = _map(rng, size, dtype)
    return {"x": x, "index": rng.integers(-1, len(w), len(x)), "units": len(w)}


def _make_batch(size: str, more: Arguments, rng, dtype) -> Arguments:
    _, w = _map(rng, size, dtype)
    counts = rng.integers(0, 5, len(w))
    totals = np.column_stack([rng.standard_normal(w.shape) * counts[:, None], counts]).astype(dtype)
    return {"codebook": w, "totals": totals, "grid": _SIZES[size][1], "radius": 1.3} | more


def _make_online(size: str, more: Arguments, rng, dtype) -> Arguments:
    x, w = _map(rng, size, dtype)
    rate, radius = np.linspace(0.5, 0.1, len(x)), np.linspace(2.2, 0.7, len(x))
    given = {"rate": rate.astype(dtype), "radius": radius.astype(dtype), "grid": _SIZES[size][1]}
    return {"x": x, "codebook": w} | given | more


def _make_u_matrix(size: str, more: Arguments, rng, dtype) -> Arguments:
    return {"codebook": _map(rng, size, dtype)[1], "grid": _SIZES[size][1]} | more


def _empty_map(size: str, rng, dtype) -> Arguments:
    arguments = _make_batch(size, {}, rng, dtype)
    arguments["totals"][:] = 0
    return arguments


def _with_nan_row(rng, dtype) -> Arguments:
    arguments = _make_online("primes", {}, rng, dtype)
    arguments["x"][4, 3] = np.nan
    return arguments


def _winners_alone(rng, dtype) -> Arguments:
    arguments = _make_online("primes", {}, rng, dtype)
    arguments["radius"][::2] = 0
    return arguments


def _shapes() -> list[tuple[str, Arguments]]:
    """Every neighbourhood on every kind of grid."""
    found = []
    for name in NEIGHBORHOODS:
        for topology in TOPOLOGIES:
            for toroidal in (False, True):
                more = {"neighborhood": name, "topology": topology, "toroidal": toroidal}
                found.append((f"{name}_{topology}" + ("_toroidal" if toroidal else ""), more))
    return found


_SIZES["even"] = (31, (6, 7), 5)  # a hexagonal torus has an even number of rows
_SIZES["wide"] = (12, (2, 9), 3)
_SIZES["narrow"] = (12, (8, 3), 4)
_WHATS = ("ties", "equal", "far", "mixed", "tiny")
_NOT_FINITE = ("nan", "nan_alone", "infinite")
_ONLINE_TOLERANCE = {"float32": 1e-4, "float64": 1e-11}


def _bmu(case: str, size: str, what: str = "", **more) -> Case:
    return Case("som_bmu", case, partial(_make_bmu, size, what), som_bmu, **more)


def _batch(case: str, make, **more) -> Case:
    return Case("som_batch_update", case, make, som_batch_update, **more)


def _online(case: str, make) -> Case:
    return Case("som_online_update", case, make, som_online_update, _ONLINE_TOLERANCE)


_BASIC = [name for name in _SIZES if name not in ("even", "wide", "narrow")]

CASES = [
    *(_bmu(size, size) for size in _BASIC),
    *(_bmu(what, "primes", what) for what in _WHATS),
    *(_bmu(what, "primes", what, nonfinite=True) for what in _NOT_FINITE),
    Case(
        "som_bmu", "huge", partial(_make_bmu, "primes", "huge"), som_bmu, {"float32": 2e-5, "float64": 1e-12}
    ),
    *in_every_layout(_bmu("layout", "primes"))[1:],
    *(Case("som_totals", size, partial(_make_totals, size), som_totals) for size in _BASIC),
    *in_every_layout(Case("som_totals", "layout", partial(_make_totals, "primes"), som_totals))[1:],
    *(_batch(size, partial(_make_batch, size, {})) for size in _BASIC if size not in ("rows_257", "empty")),
    *(_batch(name, partial(_make_batch, "even", more)) for name, more in _shapes()),
    *(_batch(f"wide_{name}", partial(_make_batch, "wide", more)) for name, more in _shapes()[:4]),
    *(_batch(f"narrow_{name}", partial(_make_batch, "narrow", more)) for name, more in _shapes()[2:5]),
    _batch("nothing", partial(_empty_map, "primes")),
    _batch("radius_small", partial(_make_batch, "primes", {"radius": 1e-200})),
    _batch("radius_large", partial(_make_batch, "primes", {"radius": 1e200})),
    _batch("hat_small", partial(_make_batch, "primes", {"radius": 1e-200, "neighborhood": "mexican_hat"})),
    _batch("bubble_edge", partial(_make_batch, "even", {**_shapes()[6][1], "radius": 1.0})),
    *in_every_layout(_batch("layout", partial(_make_batch, "primes", {})))[1:],
    *(_online(size, partial(_make_online, size, {})) for size in _BASIC if size != "rows_257"),
    *(_online(name, partial(_make_online, "even", more)) for name, more in _shapes()),
    _online("nan_row", _with_nan_row),
    _online("winners_alone", _winners_alone),
    *in_every_layout(_online("layout", partial(_make_online, "primes", {})))[1:],
    *(
        Case("som_u_matrix", f"{size}_{name}", partial(_make_u_matrix, size, more), som_u_matrix)
        for size in ("even", "wide", "narrow", "features_129", "row", "one")
        for name, more in (
            (f"{topology}_{toroidal}", {"topology": topology, "toroidal": toroidal})
            for topology in TOPOLOGIES
            for toroidal in (False, True)
        )
        if _SIZES[size][1][0] % 2 == 0 or not (more["toroidal"] and more["topology"] == "hexagonal")
        if _SIZES[size][1][0] > 2 or not more["toroidal"]
    ),
    *in_every_layout(Case("som_u_matrix", "layout", partial(_make_u_matrix, "primes", {}), som_u_matrix))[1:],
]

GRADIENTS: list[Any] = []  # learners without gradients: nothing here passes through the tape


def _floats(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


VALID = {
    "som_bmu": {"x": _floats(5, 4), "codebook": _floats(6, 4)},
    "som_totals": {"x": _floats(5, 4), "index": np.array([0, 5, -1, 2, 2]), "units": 6},
    "som_batch_update": {
        "codebook": _floats(6, 4),
        "totals": _floats(6, 5),
        "grid": (2, 3),
        "radius": 1.0,
    },
    "som_online_update": {
        "x": _floats(5, 4),
        "codebook": _floats(6, 4),
        "rate": _floats(5),
        "radius": _floats(5),
        "grid": (2, 3),
    },
    "som_u_matrix": {"codebook": _floats(6, 4), "grid": (2, 3)},
}

# Wrong arguments, and what is said of them.

_WRONG_MAPS = [
    ({"grid": 6}, TypeError, r"grid is 6, expected \(rows, columns\)"),
    ({"grid": (2, 3, 1)}, TypeError, "grid is"),
    ({"grid": (2.0, 3)}, TypeError, "grid is 2.0"),
    ({"grid": (True, 6)}, TypeError, "grid is True"),
    ({"grid": (2, 4)}, ValueError, r"grid is \(2, 4\), expected rows \* columns = 6 units"),
    ({"grid": (0, 3)}, ValueError, "grid"),
    ({"grid": (-2, -3)}, ValueError, "grid"),
    ({"grid": (2**62, 2**62)}, ValueError, "grid"),
    ({"topology": "octagonal"}, ValueError, "topology is 'octagonal'"),
    ({"topology": None}, ValueError, "topology is None"),
    ({"toroidal": 1}, TypeError, "toroidal is 1"),
    ({"topology": "hexagonal", "toroidal": True, "grid": (3, 2)}, ValueError, "even number of rows"),
    ({"codebook": _floats(0, 4)}, ValueError, "at least one unit"),
]
_WRONG_NEIGHBORHOODS = [
    ({"neighborhood": "cauchy"}, ValueError, "neighborhood is 'cauchy'"),
    ({"neighborhood": 0}, ValueError, "neighborhood is 0"),
]
BAD = [
    *(("som_batch_update", *row) for row in _WRONG_MAPS + _WRONG_NEIGHBORHOODS),
    *(("som_online_update", *row) for row in _WRONG_MAPS + _WRONG_NEIGHBORHOODS),
    *(("som_u_matrix", *row) for row in _WRONG_MAPS),
    ("som_batch_update", {"radius": 0}, ValueError, "radius is 0.0, expected a finite number above 0"),
    ("som_batch_update", {"radius": -1.0}, ValueError, "radius"),
    ("som_batch_update", {"radius": math.nan}, ValueError, "radius"),
    ("som_batch_update", {"radius": math.inf}, ValueError, "radius"),
    ("som_batch_update", {"radius": "wide"}, TypeError, "radius is 'wide'"),
    ("som_batch_update", {"totals": _floats(6, 4)}, ValueError, "totals has shape"),
    ("som_online_update", {"rate": _floats(4)}, ValueError, "rate has shape"),
    ("som_online_update", {"radius": _floats(6)}, ValueError, "radius has shape"),
    ("som_online_update", {"x": _floats(5, 3)}, ValueError, "expects 4 features"),
    ("som_bmu", {"x": _floats(5, 3)}, ValueError, "4 features"),
    (
        "som_bmu",
        {"codebook": _floats(0, 4)},
        ValueError,
        "one unit",
    ),
    ("som_totals", {"units": 0}, ValueError, "units is 0"),
    ("som_totals", {"units": 2**31}, ValueError, "units"),
    ("som_totals", {"units": 6.0}, TypeError, "units is 6.0"),
    (
        "som_totals",
        {"index": np.zeros(4, int)},
        ValueError,
        "index has shape",
    ),
    ("som_totals", {"index": _floats(5)}, TypeError, "dtype"),
]


# What may be in place of an array without a refusal: the number of units is anyone's.
FREE = {
    (kernel, name, what)
    for kernel, name in (("som_bmu_forward", "codebook"), ("som_totals_forward", "totals"))
    for what in ("one row less", "one row more")
}


def kernel_calls() -> dict[str, Arguments]:
    """A small valid call of every kernel, with fresh arrays."""
    grid = {"rows": 2, "columns": 3, "hexagonal": True, "toroidal": True}
    index = np.array([0, 5, -1, 2, 2], np.int64)
    return {
        "som_bmu_forward": {
            "x": _floats(5, 4),
            "codebook": _floats(6, 4),
            "index": index.copy(),
            "distance": _floats(5),
        },
        "som_totals_forward": {"x": _floats(5, 4), "index": index.copy(), "totals": _floats(6, 5)},
        "som_batch_forward": {
            "codebook": _floats(6, 4),
            "totals": _floats(6, 5),
            "y": _floats(6, 4),
            **grid,
            "kind": 0,
            "radius": 1.5,
        },
        "som_online_forward": {
            "x": _floats(5, 4),
            "rate": _floats(5),
            "radius": _floats(5),
            "y": _floats(6, 4),
            "index": index.copy(),
            **grid,
            "kind": 1,
        },
        "som_u_matrix_forward": {"codebook": _floats(6, 4), "y": _floats(2, 3), **grid},
    }
