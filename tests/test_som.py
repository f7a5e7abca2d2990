"""Self-organizing maps beyond single cases: geometry, precision, ties, whole trainings beside loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

import fastarch as fa
from cases import som as definition
from conftest import Backend, on_host
from fastarch.ops.som import NEIGHBORHOODS


@on_host
@pytest.mark.parametrize("wrong", [6, -2, 2**62])
def test_an_index_out_of_range_is_refused_on_the_host(wrong: int, backend: Backend) -> None:
    arguments = definition.VALID["som_totals"] | {"index": np.array([0, 1, wrong, 2, 3])}
    with pytest.raises(ValueError, match=rf"\[som_totals\] index holds {wrong}, expected -1 to 5"):
        backend.call("som_totals", arguments)


def pull(grid, unit: int, radius: float, topology: str, toroidal: bool, name: str = "bubble") -> np.ndarray:
    """The units that one sample at `unit` changes by a whole step: those within the radius."""
    m = grid[0] * grid[1]
    totals = np.zeros((m, 2))
    totals[unit] = 1
    moved = fa.ops.som_batch_update(np.zeros((m, 1)), totals, grid, radius, name, topology, toroidal)
    return np.flatnonzero(moved[:, 0])


@pytest.mark.backends("numpy", "cpu", "emulator")
@pytest.mark.parametrize("toroidal", [False, True])
@pytest.mark.parametrize("unit", range(0, 56, 5))
def test_six_units_lie_at_distance_one_in_a_hexagonal_map(unit: int, toroidal: bool, backend) -> None:
    """Counted from geometry, not truncated to whole numbers: none closer, the next at sqrt(3)."""
    grid = rows, columns = (8, 7)
    row, column = divmod(unit, columns)
    inside = toroidal or (0 < row < rows - 1 and 0 < column < columns - 1)
    with fa.backend(backend.name):
        near = pull(grid, unit, 1.0, "hexagonal", toroidal)
        assert set(pull(grid, unit, 0.999, "hexagonal", toroidal)) == {unit}
        assert set(pull(grid, unit, 1.73, "hexagonal", toroidal)) == set(near)
        beyond = pull(grid, unit, math.sqrt(3), "hexagonal", toroidal)
    if inside:
        assert len(near) == 7
    if toroidal:
        assert len(beyond) == 13
    for other in near:
        if other != unit:
            d = definition.grid_distance(unit, other, grid, "hexagonal", toroidal)
            assert d == pytest.approx(1, abs=1e-12)


@pytest.mark.backends("numpy", "cpu", "emulator")
@pytest.mark.parametrize("topology", ["rectangular", "hexagonal"])
def test_a_torus_looks_the_same_from_every_unit(topology: str, backend) -> None:
    grid, profiles = (6, 9), []
    for unit in (0, 8, 20, 31, 53):
        totals = np.zeros((54, 2))
        totals[unit] = (1, 0)  # counted nowhere, so that weights are not divided out
        totals[:, 1] += 1 / 54
        with fa.backend(backend.name):
            moved = fa.ops.som_batch_update(
                np.zeros((54, 1)), totals, grid, 1.7, "gaussian", topology, toroidal=True
            )
        profiles.append(np.sort(moved[:, 0]))
    for profile in profiles[1:]:
        np.testing.assert_allclose(profile, profiles[0], rtol=1e-12)


def test_the_mexican_hat_attracts_as_much_as_it_repels() -> None:
    d = np.array([definition.grid_distance(3280, j, (81, 81), "rectangular", False) for j in range(6561)])
    hat = [definition.weight("mexican_hat", x, 3.0) for x in d]
    assert abs(sum(hat)) < 1e-6
    assert min(hat) < -0.1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_search_is_right_where_a_product_cancels(dtype: str, backend: Backend, rng) -> None:
    """Data far from the origin, on units so close that their products are all alike."""
    offset = 1e4 if dtype == "float32" else 1e9
    w = (offset + rng.standard_normal((200, 24))).astype(dtype)
    w[100:] = w[:100] + rng.standard_normal((100, 24)).astype(dtype) * dtype_step(dtype, offset)
    x = (offset + rng.standard_normal((300, 24))).astype(dtype)
    square = np.zeros((300, 200))
    for k in range(24):
        square += (x[:, None, k].astype(np.float64) - w[None, :, k].astype(np.float64)) ** 2
    index, distance = backend.call("som_bmu", {"x": backend.put(x), "codebook": backend.put(w)})
    found = square[np.arange(300), backend.host(index)]
    np.testing.assert_allclose(found, square.min(axis=1), rtol=1e-14)
    np.testing.assert_allclose(backend.host(distance), np.sqrt(found), rtol=1e-6)


def dtype_step(dtype: str, offset: float) -> float:
    """A few units in the last place of numbers around `offset`."""
    return float(4 * np.spacing(np.array(offset, dtype)))


def test_ties_go_to_the_lowest_unit_wherever_it_lies(backend: Backend, rng) -> None:
    w = rng.standard_normal((260, 9)).astype(np.float32)
    copies = rng.permutation(260).reshape(130, 2)  # of each pair, the second is a copy of the first
    w[copies[:, 1]] = w[copies[:, 0]]
    index, distance = backend.call("som_bmu", {"x": backend.put(w), "codebook": backend.put(w)})
    lowest = np.arange(260)
    lowest[copies[:, 0]] = lowest[copies[:, 1]] = copies.min(axis=1)
    np.testing.assert_array_equal(backend.host(index), lowest)
    assert (backend.host(distance) == 0).all()


def test_no_row_depends_on_another(backend: Backend, rng) -> None:
    x = rng.standard_normal((97, 13)).astype(np.float32)
    w = rng.standard_normal((70, 13)).astype(np.float32)
    whole = backend.call("som_bmu", {"x": backend.put(x), "codebook": backend.put(w)})
    x[::3] = np.nan
    half = backend.call("som_bmu", {"x": backend.put(x), "codebook": backend.put(w)})
    for before, after in zip(whole, half):
        kept = np.arange(97) % 3 != 0
        np.testing.assert_array_equal(backend.host(before)[kept], backend.host(after)[kept])
    assert (backend.host(half[0])[::3] == -1).all()
    assert np.isnan(backend.host(half[1])[::3]).all()


def test_totals_of_parts_add_up(backend: Backend, rng) -> None:
    x = np.round(rng.standard_normal((9000, 3)) * 64) / 64  # sums of these are exact
    index = rng.integers(-1, 5, 9000)
    arguments = {"x": backend.put(x), "index": backend.put(index), "units": 5}
    whole = backend.host(backend.call("som_totals", arguments))
    parts = [
        backend.host(
            backend.call("som_totals", {"x": backend.put(x[p]), "index": backend.put(index[p]), "units": 5})
        )
        for p in (slice(0, 4097), slice(4097, 9000))
    ]
    np.testing.assert_array_equal(whole, parts[0] + parts[1])
    assert whole[:, -1].sum() == (index >= 0).sum()
    np.testing.assert_array_equal(whole[2, :3], x[index == 2].sum(axis=0))


@pytest.mark.parametrize("name", list(NEIGHBORHOODS))
def test_a_batch_training_is_the_loops_training(name: str, backend: Backend, rng) -> None:
    """Five epochs on every backend, each step against the definition in float64, to rounding.

    A bubble can make units equal, whose order in float64 is chance: there any of the nearest is right.
    """
    x, grid = rng.standard_normal((60, 5)), (4, 5)
    before = rng.standard_normal((20, 5))
    for radius in (2.5, 1.9, 1.4, 1.1, 0.8):
        more = {"grid": grid, "radius": radius, "neighborhood": name, "topology": "hexagonal"}
        units = {"x": backend.put(x), "codebook": backend.put(before)}
        index, distance = backend.call("som_bmu", units)
        np.testing.assert_allclose(backend.host(distance), definition.som_bmu(x, before)[1], rtol=1e-12)
        found = backend.host(index)
        np.testing.assert_allclose(np.linalg.norm(x - before[found], axis=1), backend.host(distance))
        totals = backend.call("som_totals", {"x": units["x"], "index": index, "units": 20})
        after = backend.call("som_batch_update", {"codebook": units["codebook"], "totals": totals, **more})
        naive = definition.som_batch_update(before, definition.som_totals(x, found, 20), **more)
        np.testing.assert_allclose(backend.host(after), naive, rtol=1e-12, atol=1e-12)
        before = backend.host(after)


def test_a_separable_gaussian_is_the_whole_matrix(backend: Backend, rng) -> None:
    """The two passes over rows and columns against all pairs of units, where maps are larger."""
    for topology, toroidal in (("rectangular", False), ("hexagonal", False), ("hexagonal", True)):
        grid = (14, 33)
        w = rng.standard_normal((462, 3))
        totals = np.column_stack([rng.standard_normal((462, 3)), rng.integers(0, 9, 462)]).astype(float)
        h = np.array(
            [
                [definition.grid_distance(a, b, grid, topology, toroidal) for b in range(462)]
                for a in (0, 32, 200, 461)
            ]
        )
        h = np.exp(-(h**2) / (2 * 2.3**2))
        want = (h @ totals[:, :3]) / (h @ totals[:, 3])[:, None]
        arguments = {"codebook": backend.put(w), "totals": backend.put(totals), "grid": grid}
        got = backend.call(
            "som_batch_update", arguments | {"radius": 2.3, "topology": topology, "toroidal": toroidal}
        )
        np.testing.assert_allclose(backend.host(got)[[0, 32, 200, 461]], want, rtol=1e-11)


@pytest.mark.backends("emulator")
def test_the_online_kernel_gives_the_same_bits_under_many_schedules(backend: Backend, rng) -> None:
    import importlib

    emulator = importlib.import_module("fastarch._emulator")
    x, w = rng.standard_normal((6, 5)).astype(np.float32), rng.standard_normal((40, 5)).astype(np.float32)
    arguments = {
        "x": x,
        "codebook": w,
        "rate": np.full(6, 0.4, np.float32),
        "radius": np.full(6, 1.5, np.float32),
        "grid": (5, 8),
    }
    seen = set()
    try:
        for seed in range(20):
            emulator.set_seed(seed)
            codebook, index = backend.call("som_online_update", arguments)
            seen.add((codebook.tobytes(), index.tobytes()))
    finally:
        emulator.set_seed(0)
    assert len(seen) == 1
