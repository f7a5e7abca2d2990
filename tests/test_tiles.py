"""Every tile of the multiply, with the sum whole and in slices: results are the same within rounding.

The model would never take most of these plans for so small a product; a trial on other hardware may.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import fastarch as fa
from cases import conv2d as conv2d_cases
from cases import linear as linear_cases
from cases.case import Case
from conftest import FLOATS
from fastarch import autotuning, backends

if backends.reason_unusable("emulator"):
    pytest.skip("what these tests vary, only the emulator lets them", allow_module_level=True)


@dataclass(frozen=True)
class Arithmetic:
    """A way to multiply: the tiles that cuda/gemm has for it, and what a result may be off by."""

    name: str
    dtype: str
    tiles: tuple[str, ...]
    tolerance: float
    precision: str = "float32"
    capability: tuple[int, int] = (9, 0)

    def __str__(self) -> str:
        return self.name


FLOAT_TILES = ("128x128x8", "64x128x8", "64x64x8", "32x32x16", "16x64x16", "8x32x16")
TENSOR_TILES, HALF_TILES = ("128x128", "64x64", "16x64"), ("64x64x16", "32x32x16")
ARITHMETICS = [
    Arithmetic("float32", "float32", FLOAT_TILES, 2e-6),
    Arithmetic("float64", "float64", ("64x64x8", "32x32x16", "16x64x16", "8x32x16"), 1e-14),
    Arithmetic("tf32", "float32", tuple(f"{t}x16" for t in TENSOR_TILES), 1e-3, "tf32"),
    Arithmetic("3xtf32", "float32", ("128x64x16", "64x64x16", "16x64x16"), 2e-6, "3xtf32"),
    *(
        Arithmetic(dtype, dtype, tuple(f"{t}x32" for t in TENSOR_TILES), unit)
        for dtype, unit in (("float16", 2**-10), ("bfloat16", 2**-7))
    ),
    *(
        Arithmetic(f"{dtype} without tensor cores", dtype, HALF_TILES, unit, capability=(7, 5))
        for dtype, unit in (("float16", 2**-10), ("bfloat16", 2**-7))
    ),
]

# Awkward sizes, with 64 terms or more in every sum: with fewer, 3xTF32 takes the ordinary units' tiles.
LINEAR, UNITS = (69, 83, 131), 37  # rows, inputs, outputs; of recurrent cells
IMAGES, FILTERS = (2, 8, 9, 11), (11, 8, 3, 3)
GEOMETRY: dict[str, Any] = {"stride": (1, 2), "padding": (1, 2)}


@pytest.fixture
def module() -> Iterator[Any]:
    made: Any = backends._loaded["emulator"]
    yield made
    made.set_compute_capability(9, 0)
    made.set_multiprocessors(2)
    made.set_seed(0)


def operands(dtype: str) -> dict[str, np.ndarray]:
    random = np.random.default_rng(11)
    rows, inputs, outputs = LINEAR
    shapes = {"x": (rows, inputs), "weight": (outputs, inputs), "dy": (rows, outputs), "bias": (outputs,)}
    shapes |= {"image": IMAGES, "filters": FILTERS, "dimage": (2, 11, 9, 7)}
    shapes |= {"h": (rows, UNITS), "c": (rows, UNITS), "bias_image": (11,)}
    for gates in (1, 3, 4):
        wide = gates * UNITS
        shapes |= {f"w_ih{gates}": (wide, inputs), f"w_hh{gates}": (wide, UNITS), f"b{gates}": (wide,)}
    scale = {name: 0.1 if name.startswith("w_") else 1.0 for name in shapes}
    return {
        name: (scale[name] * random.normal(size=shape)).astype(FLOATS[dtype])
        for name, shape in shapes.items()
    }


def products(given: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The six products and both bias gradients, of a linear layer and of a convolution."""
    return [
        fa.ops.linear(given["x"], given["weight"], given["bias"], activation="relu"),
        *fa.ops.linear_backward(given["dy"], given["x"], given["weight"]),
        fa.ops.conv2d(given["image"], given["filters"], **GEOMETRY),
        *fa.ops.conv2d_backward(given["dimage"], given["image"], given["filters"], **GEOMETRY),
    ]


def fused(given: dict[str, np.ndarray], way: Arithmetic) -> list[np.ndarray]:
    """What goes on from its sums: pooled convolutions, recurrent cells, steps of sequences."""
    filters, bias = given["filters"], given["bias_image"]
    results = [fa.ops.conv2d_max_pool(given["image"], filters, bias, padding=1, activation="relu")[0]]
    # The recurrent operators are float32 to the caller's word, and widen what no tensor core takes.
    if way.precision == "float32" and way.capability >= (8, 0):
        x, h, c = given["x"], given["h"], given["c"]
        rnn, gru, lstm = (
            (given[f"w_ih{g}"], given[f"w_hh{g}"], given[f"b{g}"], given[f"b{g}"]) for g in (1, 3, 4)
        )
        results += [
            fa.ops.rnn_cell(x, h, *rnn),
            fa.ops.gru_cell(x, h, *gru),
            *fa.ops.lstm_cell(x, h, c, *lstm),
        ]
        for gradients in (
            fa.ops.rnn_cell_backward(h, x, h, *rnn),
            fa.ops.gru_cell_backward(h, x, h, *gru),
            fa.ops.lstm_cell_backward(h, c, x, h, c, *lstm),
        ):
            results += [gradient for gradient in gradients if gradient is not None]
        steps = np.stack([x, x[::-1]])
        lengths = [1 + row % 2 for row in range(len(x))]
        for kind, states, weights in (("rnn", (h,), rnn), ("gru", (h,), gru), ("lstm", (h, c), lstm)):
            run, back = getattr(fa.ops, kind), getattr(fa.ops, f"{kind}_backward")
            y, last, saved = run(steps, *states, *weights, lengths=lengths, algorithm="step")
            last = last if kind == "lstm" else (last,)
            results += [y, *last, *(g for g in back(y, *last, saved) if g is not None)]
    return results


PLANS = [pytest.param(way, tile, id=f"{way}-{tile}") for way in ARITHMETICS for tile in way.tiles]


@pytest.mark.parametrize(("way", "tile"), PLANS)
def test_results_do_not_depend_on_the_plan(module: Any, way: Arithmetic, tile: str) -> None:
    check_plans(module, way, tile, products)


@pytest.mark.parametrize(("way", "tile"), PLANS)
def test_fused_results_do_not_depend_on_the_plan(module: Any, way: Arithmetic, tile: str) -> None:
    # h, gates and their gradients are rounded on the way.
    check_plans(module, way, tile, lambda given: fused(given, way), 4 if "16" in way.dtype else 1)


def check_plans(
    module: Any,
    way: Arithmetic,
    tile: str,
    run: Callable[[dict[str, np.ndarray]], list[np.ndarray]],
    roundings: int = 1,
) -> None:
    """The tile's results, with the sum whole and in slices, against float64."""
    given = operands(way.dtype)
    with fa.backend("numpy"):
        expected = run({name: value.astype(np.float64) for name, value in given.items()})
    module.set_compute_capability(*way.capability)
    for slices in (1, 3):
        runs = []
        for seed, multiprocessors in ((0, 2), (1, 132)):
            module.set_seed(seed)
            module.set_multiprocessors(multiprocessors)
            with (
                fa.backend("emulator"),
                fa.precision(way.precision),
                autotuning.forced_plan(tile, slices),
            ):
                runs.append(run(given))
        for ours, again, theirs in zip(*runs, expected, strict=True):
            np.testing.assert_array_equal(again, ours)  # a plan's bits are its own, whatever the device
            atol = roundings * way.tolerance * max(1, np.abs(theirs).max())
            np.testing.assert_allclose(ours.astype(np.float64), theirs, rtol=0, atol=atol)


@pytest.mark.parametrize("way", ARITHMETICS, ids=str)
def test_no_tile_is_left_out(module: Any, way: Arithmetic) -> None:
    given = operands(way.dtype)
    module.set_compute_capability(*way.capability)
    with (
        fa.backend("emulator"),
        fa.precision(way.precision),
        autotuning.forced_plan("1x2x3"),
        pytest.raises(ValueError, match=r"^\[linear_forward\] has no tile 1x2x3 here") as error,
    ):
        products(given)
    assert str(error.value).split("expected one of ")[1].split(", ") == list(way.tiles)


def test_a_forced_plan_ends_with_its_block_and_stays_in_its_thread(module: Any) -> None:
    x = np.ones((3, 5), np.float32)
    with fa.backend("emulator"):
        with autotuning.forced_plan("1x2x3"):
            with autotuning.forced_plan("64x64x8", 2):
                assert fa.ops.linear(x, x).shape == (3, 3)
            with pytest.raises(ValueError, match="no tile 1x2x3"):
                fa.ops.linear(x, x)
        assert fa.ops.linear(x, x).shape == (3, 3)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_model_chooses_without_tensor_cores_too(module: Any, dtype: str) -> None:
    """And float32 sums round less often than a product of 16-bit numbers would."""
    module.set_compute_capability(7, 5)
    x = np.full((1, 4096), 1 + 2.0**-7, FLOATS[dtype])
    with fa.backend("emulator"):
        y = fa.ops.linear(x, x)
    assert float(y[0, 0]) == float(FLOATS[dtype].type(4096 * (1 + 2.0**-7) ** 2))


HALF_CASES = [
    case
    for case in conv2d_cases.CASES + linear_cases.CASES
    if case.halves and case.layout == "contiguous" and case.op in fa.ops.OPERATORS["conv2d"] + ("linear",)
]


@pytest.mark.parametrize("case", HALF_CASES, ids=str)
def test_cases_without_tensor_cores(module: Any, case: Case) -> None:
    """Every shape, stride, group and activation, in float16 widened to float32."""
    arguments = case.make(np.random.default_rng(0), FLOATS["float16"])
    module.set_compute_capability(7, 5)
    with fa.backend("emulator"):
        run = case.call(fa.ops, **arguments) if case.call else getattr(fa.ops, case.op)(**arguments)
    expected = case.oracle(**arguments)
    found, expected = (r if isinstance(r, tuple) else (r,) for r in (run, expected))
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None and ours.size:
            assert ours.dtype == FLOATS["float16"]
            tolerance = case.tolerance_in("float16")
            np.testing.assert_allclose(ours.astype(np.float64), theirs, rtol=tolerance, atol=tolerance)


def test_tf32_is_float32_without_tensor_cores(module: Any) -> None:
    given = operands("float32")
    with fa.backend("emulator"):
        plain = products(given)
        module.set_compute_capability(7, 5)
        with fa.precision("tf32"):
            found = products(given)
    for ours, theirs in zip(found, plain, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_an_unknown_compute_capability(module: Any) -> None:
    with pytest.raises(ValueError, match=r"compute capability 6.1, expected 7.5, 8.0 or 9.0"):
        module.set_compute_capability(6, 1)
