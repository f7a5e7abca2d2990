"""Float32 products on the tensor cores, in the emulator: tf32, and float32's accuracy by three of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import fastarch as fa
from cases import conv2d as conv2d_cases
from cases import linear as linear_cases
from cases.case import Case
from conftest import FLOATS
from fastarch import precisions
from test_properties import random_convolution

pytest.importorskip("fastarch._emulator", reason="what these tests vary, only the emulator lets them")

TF32, TF32X3 = precisions.NAMES.index("tf32"), precisions.NAMES.index("3xtf32")

# [m, in, out]: between them they take every tile, with k whole and split, aligned to 16 bytes and not.
SHAPES = [
    (1, 1, 1),
    (6, 300, 25),
    (16, 900, 64),
    (33, 101, 31),
    (64, 800, 64),
    (65, 70, 257),
    (130, 140, 150),
]


@pytest.fixture
def module() -> Iterator[Any]:
    from fastarch import _emulator

    yield _emulator
    _emulator.set_multiprocessors(2)
    _emulator.set_seed(0)


def linear(
    module: Any, x: np.ndarray, weight: np.ndarray, dy: np.ndarray, precision: int
) -> list[np.ndarray]:
    """y, dx, dw and db, from outputs that were full of NaN."""
    results = [np.full_like(like, np.nan) for like in (dy, x, weight, weight[:, 0])]
    y, dx, dw, db = results
    module.linear_forward(x, weight, None, y, 0, precision)
    module.linear_backward_input(dy, weight, dx, precision)
    module.linear_backward_weight(dy, x, dw, db, precision)
    return results


@pytest.mark.parametrize("precision", [TF32, TF32X3])
@pytest.mark.parametrize("multiprocessors", [2, 132])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products(module: Any, shape: tuple[int, int, int], multiprocessors: int, precision: int) -> None:
    module.set_multiprocessors(multiprocessors)
    m, inputs, outputs = shape
    random = np.random.default_rng(sum(shape))
    x, weight, dy = (random.normal(size=s) for s in ((m, inputs), (outputs, inputs), (m, outputs)))
    found = linear(module, *(a.astype(np.float32) for a in (x, weight, dy)), precision)
    expected = [x @ weight.T, dy @ weight, dy.T @ x, dy.sum(axis=0)]
    lost = (2**-10, 2e-6)[precision == TF32X3]
    for ours, theirs, tolerance in zip(found, expected, (lost, lost, lost, 2e-6)):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=np.abs(theirs).max() * tolerance)


def test_tf32_rounds_its_operands(module: Any) -> None:
    """1 + 2^-11 and a little is 1 + 2^-10 in tf32, and the sum of the products is exact in float32."""
    x = np.full((4, 8), 1 + 2**-11 + 2**-20, np.float32)
    y = np.empty((4, 3), np.float32)
    module.linear_forward(x, np.ones((3, 8), np.float32), None, y, 0, TF32)
    np.testing.assert_array_equal(y, np.float32(8 * (1 + 2**-10)))
    module.linear_forward(x, np.ones((3, 8), np.float32), None, y, 0, 0)
    np.testing.assert_array_equal(y, 8 * x[:, :3])


@pytest.mark.parametrize("name", ["tf32", "3xtf32"])
@pytest.mark.parametrize("case", conv2d_cases.CASES + linear_cases.CASES, ids=str)
def test_cases(case: Case, name: str) -> None:
    """Every case of the families that have such kernels, by the loops of its definition."""
    arguments = case.make(np.random.default_rng(0), np.dtype(np.float32))
    with fa.backend("emulator"), fa.precision(name):
        found = getattr(fa.ops, case.op)(**arguments)
    expected = case.oracle(**arguments)
    found, expected = (r if isinstance(r, tuple) else (r,) for r in (found, expected))
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None and ours.size:
            assert np.isfinite(ours).all()
            tolerance = (2e-3, 1e-5)[name == "3xtf32"] * max(np.abs(theirs).max(), 1)
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ["tf32", "3xtf32", "float16", "bfloat16"])
def test_random_convolutions(name: str, count_configurations: Callable[[str, int], None]) -> None:
    """Forward and backward against the array-generic code in float64, on the same (rounded) inputs."""
    dtype = FLOATS[name] if name in FLOATS else np.dtype(np.float32)
    unit = {"tf32": 2e-3, "3xtf32": 1e-5, "float16": 1e-3, "bfloat16": 8e-3}[name]
    number = 150
    for index in range(number):
        random = np.random.default_rng([index, len(name)])
        x_shape, w_shape, call = random_convolution(random)
        if index % 3:
            call["layout"], (n, c, *pixels) = "NHWC", x_shape
            x_shape = (n, *pixels, c)
        x, weight, bias = (random.normal(size=s).astype(dtype) for s in (x_shape, w_shape, w_shape[:1]))
        wide = [a.astype(np.float64) for a in (x, weight, bias)]
        with fa.backend("numpy"):
            y = fa.ops.conv2d(*wide, **call)
            dy = random.normal(size=y.shape).astype(dtype)
            want = y, *fa.ops.conv2d_backward(dy.astype(np.float64), *wide[:2], **call)
        with fa.backend("emulator"), fa.precision(name if "tf32" in name else "float32"):
            got = (
                fa.ops.conv2d(x, weight, bias, **call),
                *fa.ops.conv2d_backward(dy, x, weight, **call),
            )
        for ours, theirs in zip(got, want, strict=True):
            atol = unit * max(1, np.abs(theirs).max())
            what = f"configuration {index}: x {x_shape} weight {w_shape} {call}"
            np.testing.assert_allclose(ours.astype(np.float64), theirs, rtol=0, atol=atol, err_msg=what)
    count_configurations(f"conv2d in {name} on emulator against float64", number)


def errors(module: Any, a: np.ndarray, b: np.ndarray) -> list[float]:
    """The largest error of a b^T in float32 and in 3xTF32, relative to the sum of |a b|."""
    exact = a.astype(np.float64) @ b.astype(np.float64).T
    scale = np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64).T
    found = []
    for precision in (0, TF32X3):
        y = np.full((len(a), len(b)), np.nan, np.float32)
        module.linear_forward(a, b, None, y, 0, precision)
        assert np.isfinite(y).all()
        found.append(float((np.abs(y - exact) / np.maximum(scale, 1e-300)).max()))
    return found


def adversaries() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(7)
    m, n = 32, 40

    def pair(k: int) -> tuple[np.ndarray, np.ndarray]:
        return random.normal(size=(m, k)), random.normal(size=(n, k))

    made = {}
    for k in (1, 8, 63, 64, 100, 500, 3000):
        made[f"normal_{k}"] = pair(k)
    a, b = pair(512)
    made["cancelling"] = np.concatenate([a, -a], 1), np.concatenate([b, b * (1 + 1e-6)], 1)
    made["cancelling_in_turn"] = (
        np.stack([a, -a], 2).reshape(m, -1),
        np.stack([b, b], 2).reshape(n, -1),
    )
    made["one_large_pair"] = a.copy(), b.copy()
    for part, sign in ((0, 1), (300, -1)):
        made["one_large_pair"][0][:, part] = sign * 3e4
        made["one_large_pair"][1][:, part] = 1
    made["positive"] = np.abs(a), np.abs(b)
    made["just_between_tf32_numbers"] = (
        np.full((m, 512), 1 + 2.0**-11),
        np.full((n, 512), 1 + 2.0**-11 + 2.0**-23),
    )
    for name, scale_a, scale_b in (
        ("tiny", 1e-20, 1),
        ("tiny_squared", 1e-20, 1e-20),
        ("large", 1e18, 1e18),
        ("tiny_times_large", 1e-20, 1e20),
        ("denormal", 1e-40, 1e3),
        ("largest", 1e37, 1e-3),
    ):
        made[name] = a * scale_a, b * scale_b
    rows = np.geomspace(1e-20, 1e17, m)[:, None]
    made["every_scale_by_rows"] = a * rows, b
    made["every_scale_by_terms"] = (
        a * np.geomspace(1e-20, 1e20, a.shape[1]),
        b * np.geomspace(1e20, 1e-20, a.shape[1]),
    )
    made["every_scale_by_columns"] = a, b * np.geomspace(1e-38, 1e17, n)[:, None]
    made["one_tiny_row"] = a * np.where(np.arange(m) == 5, 2.0**-120, 1)[:, None], b
    made["rows_and_columns"] = (
        a * np.resize([1e-38, 1e-30, 1, 1e17], m)[:, None],
        b * np.resize([1e-8, 1, 1e10], n)[:, None],
    )
    made["tiny_where_the_other_is_large"] = (
        np.where(np.arange(512) < 256, a, a * 2.0**-125),
        np.where(np.arange(512) < 256, b * 2.0**-100, b * 2.0**58),
    )
    made["denormal_products"] = a * 2.0**-68, b * 2.0**-70
    return {name: (a.astype(np.float32), b.astype(np.float32)) for name, (a, b) in made.items()}


@pytest.mark.parametrize("name", adversaries())
def test_three_products_are_float32(module: Any, name: str) -> None:
    """The error stays within twice that of the ordinary units' float32, element by element."""
    plain, tensor = errors(module, *adversaries()[name])
    assert tensor <= 2 * plain


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 3.4028235e38])
@pytest.mark.parametrize("other", [1.0, 1 / 3, 0.0])
def test_three_products_of_special_values(module: Any, value: float, other: float) -> None:
    """Infinities, NaN and the largest float come out as from the ordinary units."""
    a, b = np.ones((20, 70), np.float32), np.full((30, 70), other, np.float32)
    a[3, 5] = value
    plain, tensor = np.empty((2, 20, 30), np.float32)
    module.linear_forward(a, b, None, plain, 0, 0)
    module.linear_forward(a, b, None, tensor, 0, TF32X3)
    np.testing.assert_array_equal(tensor[3], plain[3])
    np.testing.assert_allclose(tensor, plain, rtol=1e-6)


@pytest.mark.parametrize("precision", [TF32, TF32X3])
@pytest.mark.parametrize("multiprocessors", [2, 132])
def test_same_bits_in_every_order_of_threads(module: Any, multiprocessors: int, precision: int) -> None:
    module.set_multiprocessors(multiprocessors)
    random = np.random.default_rng(1)
    x, dy = (random.normal(size=s).astype(np.float32) for s in ((3, 4, 11, 9), (3, 6, 11, 9)))
    results = []
    for seed in range(4):
        module.set_seed(seed)
        dw, db = np.empty((6, 4, 3, 3), np.float32), np.empty(6, np.float32)
        module.conv2d_backward_weight(dy, x, dw, db, (1, 1), (1, 1), (1, 1), 1, precision=precision)
        results.append((dw, db))
    for dw, db in results[1:]:
        np.testing.assert_array_equal(dw, results[0][0])
        np.testing.assert_array_equal(db, results[0][1])


class TestChoice:
    """fa.precision, FASTARCH_PRECISION and what they leave alone."""

    def test_nests_and_ends(self) -> None:
        assert precisions.current() == 0
        with fa.precision("tf32"):
            assert precisions.current() == TF32
            with fa.precision("3xtf32"):
                assert precisions.current() == TF32X3
            assert precisions.current() == TF32
        assert precisions.current() == 0

    def test_unknown_name(self) -> None:
        with pytest.raises(
            ValueError, match=r"\[precision\] got 'half', expected one of float32, tf32, 3xtf32"
        ):
            fa.precision("half")

    def test_number_out_of_range(self, module: Any) -> None:
        x = np.ones((2, 2), np.float32)
        with pytest.raises(ValueError, match="precision 3, expected 0"):
            module.linear_forward(x, x, None, x.copy(), 0, 3)

    @pytest.mark.parametrize("place", ["numpy", "cpu", "emulator"])
    def test_what_it_leaves_alone(self, place: str) -> None:
        random = np.random.default_rng(0)
        x, weight = random.normal(size=(5, 70)), random.normal(size=(3, 70))
        if place != "emulator":
            x, weight = x.astype(np.float32), weight.astype(np.float32)
        with fa.backend(place):
            plain = fa.ops.linear(x, weight)
            with fa.precision("tf32"):
                np.testing.assert_array_equal(fa.ops.linear(x, weight), plain)
