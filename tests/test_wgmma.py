"""The multiply that only sm_90a has, forced on under linear layers and convolution.

In the emulator, and on a GPU of compute capability 9.0 (elsewhere it would take nothing).

What it takes and what it leaves alone is in ``tests/emulator/wgmma.cpp``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fastarch as fa
from conftest import FLOATS, Backend, seeded
from fastarch import backends

pytestmark = pytest.mark.backends("emulator", "cuda")

# [m, in, out]: rests of every tile, and fewer columns than one.
SHAPES = [(64, 64, 64), (65, 72, 136), (130, 200, 264), (257, 96, 80), (100, 520, 64)]
HALF_ULP = {"float32": 0.0, "float16": 2.0**-11, "bfloat16": 2.0**-8}


@pytest.fixture
def forced(backend: Backend) -> Iterator[Any]:
    """The backend's module, with the multiply asked for."""
    module = backends._loaded[backend.name]
    before = module.set_wgmma(True)
    yield module
    module.set_wgmma(before)
    if backend.name == "emulator":
        module.set_multiprocessors(2)
        module.set_seed(0)


def rounded(x: np.ndarray, dtype: str) -> np.ndarray:
    """x as the product sees it, in float64: of float32, tf32 keeps 10 bits of the fraction."""
    if dtype != "float32":
        return x.astype(np.float64)
    bits = x.view(np.uint32)
    return ((bits + 0x1000) & 0xFFFFE000).astype(np.uint32).view(np.float32).astype(np.float64)


def made(shape: tuple[int, int, int], dtype: str) -> list[np.ndarray]:
    """x, weight, dy and the bias."""
    m, inputs, outputs = shape
    random = seeded(f"wgmma {shape} {dtype}")
    sizes = ((m, inputs), (outputs, inputs), (m, outputs), (outputs,))
    return [random.normal(size=size).astype(FLOATS[dtype]) for size in sizes]


def close(found: np.ndarray, expected: np.ndarray, dtype: str, scale: float | None = None) -> None:
    """Within a rounding to `dtype` and 1e-5 of the sums' scale: sums are chopped once in 8 or 16 terms."""
    assert np.isfinite(found.astype(np.float64)).all()
    scale = scale or np.abs(expected).max()
    np.testing.assert_allclose(
        found.astype(np.float64), expected, rtol=HALF_ULP[dtype], atol=scale * 1e-5, equal_nan=False
    )


@pytest.mark.parametrize("activation", [None, "tanh"])
@pytest.mark.parametrize("dtype", HALF_ULP)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward(backend: Backend, forced: Any, shape: Any, dtype: str, activation: str | None) -> None:
    x, weight, _, bias = made(shape, dtype)
    before = forced.wgmma_products()
    with fa.precision("tf32"):
        call = {"x": x, "weight": weight, "bias": bias, "activation": activation}
        y = backend.host(backend.call("linear", {k: backend.put(v) for k, v in call.items()}))
    assert forced.wgmma_products() == before + 1
    expected = rounded(x, dtype) @ rounded(weight, dtype).T + bias.astype(np.float64)
    close(y, np.tanh(expected) if activation else expected, dtype, np.abs(expected).max())


@pytest.mark.parametrize("multiprocessors", [2, 132])
@pytest.mark.parametrize("dtype", HALF_ULP)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients(backend: Backend, forced: Any, shape: Any, dtype: str, multiprocessors: int) -> None:
    if backend.name == "emulator":
        forced.set_multiprocessors(multiprocessors)
    x, weight, dy, _ = made(shape, dtype)
    before = forced.wgmma_products()
    with fa.precision("tf32"):
        call = {"dy": backend.put(dy), "x": backend.put(x), "weight": backend.put(weight)}
        dx, dw, db = (backend.host(a) for a in backend.call("linear_backward", call))
    assert forced.wgmma_products() == before + (0 if dtype == "float32" else 2)  # no turned operands of tf32
    wide_x, wide_weight, wide_dy = (rounded(a, dtype) for a in (x, weight, dy))
    close(dx, wide_dy @ wide_weight, dtype)
    close(dw, wide_dy.T @ wide_x, dtype)
    close(db, dy.astype(np.float64).sum(axis=0), dtype)


@pytest.mark.backends("emulator")
@pytest.mark.parametrize("multiprocessors", [2, 132])
@pytest.mark.parametrize("dtype", HALF_ULP)
def test_same_bits_in_every_order_of_threads(
    backend: Backend, forced: Any, dtype: str, multiprocessors: int
) -> None:
    forced.set_multiprocessors(multiprocessors)
    x, weight, dy, bias = made((130, 200, 136), dtype)
    results = []
    for seed in range(5):
        forced.set_seed(seed)
        y, dx, dw, db = (np.full_like(like, np.nan) for like in (dy, x, weight, bias))
        forced.linear_forward(x, weight, bias, y, 1, 1)
        forced.linear_backward_input(dy, weight, dx, 1)
        forced.linear_backward_weight(dy, x, dw, db, 1)
        results.append([a.view(np.uint8) for a in (y, dx, dw, db)])
    for result in results[1:]:
        for ours, first in zip(result, results[0]):
            np.testing.assert_array_equal(ours, first)


def test_operands_that_start_anywhere(backend: Backend, forced: Any) -> None:
    """Bulk copies cannot start there; the result is that of the operands moved."""
    x, weight, _, _ = made((70, 72, 80), "float16")
    room = backend.put(np.zeros(x.size + 1, x.dtype))
    room[1:] = backend.put(x).ravel()
    moved = room[1:].reshape(x.shape)
    before = forced.wgmma_products()
    with fa.backend(backend.name):
        y, expected = fa.ops.linear(moved, backend.put(weight)), x.astype(float) @ weight.astype(float).T
    assert forced.wgmma_products() == before
    close(backend.host(y), expected, "float16")


@pytest.mark.backends("emulator")
@pytest.mark.parametrize("value", ["", "0", "1", "2"])
def test_environment(backend: Backend, value: str) -> None:
    code = "from fastarch import _emulator; print(_emulator.set_wgmma(False))"
    environment = os.environ | {"FASTARCH_WGMMA": value}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    if value == "2":
        assert "[wgmma] FASTARCH_WGMMA is '2', expected 0 or 1" in done.stderr
    else:
        assert done.stdout.strip() == str(value == "1")


# [N, C, H, W], K, taps of either side, stride, padding, dilation; how many of two forward passes, the input's
# and the weight's gradient it takes, of 16-bit floats and in tf32.
CONVOLUTIONS = [
    ((2, 64, 9, 7), 72, 3, 1, 1, 1, 4, 3),
    ((1, 64, 12, 13), 64, 5, 1, 2, 1, 4, 3),
    ((2, 128, 9, 9), 80, 3, 1, 2, 2, 4, 3),
    ((3, 72, 13, 12), 64, 3, 2, 1, 1, 2, 2),
    ((3, 64, 11, 13), 64, 1, 2, 0, 1, 3, 2),
    ((2, 64, 8, 9), 136, 1, 1, 0, 1, 4, 2),
    ((2, 16, 9, 9), 64, 3, 1, 1, 1, 0, 2),
]


@pytest.mark.parametrize("dtype", HALF_ULP)
@pytest.mark.parametrize("problem", CONVOLUTIONS, ids=str)
def test_channels_last_convolution(backend: Backend, forced: Any, problem: Any, dtype: str) -> None:
    """The three passes and the options of the forward one, against NumPy's float64."""
    (n, c, h, w), k, taps, stride, padding, dilation, *taken = problem
    before = forced.wgmma_products()
    random = seeded(f"wgmma convolution {problem}")
    options = {"stride": stride, "padding": padding, "dilation": dilation, "layout": "NHWC"}
    x, weight = (
        (random.normal(size=size) * scale).astype(FLOATS[dtype])
        for size, scale in (((n, h, w, c), 1), ((k, c, taps, taps), (c * taps * taps) ** -0.5))
    )
    bias = random.normal(size=k).astype(FLOATS[dtype])
    with fa.backend("numpy"):
        wide = [rounded(a, dtype) for a in (x, weight)]
        expected = fa.ops.conv2d(*wide, bias.astype(np.float64), **options)
        dy, residual = (random.normal(size=expected.shape).astype(FLOATS[dtype]) for _ in range(2))
        gradients = fa.ops.conv2d_backward(rounded(dy, dtype), *wide, **options)
        relu = np.maximum(expected + residual.astype(np.float64), 0)
    put_x, put_weight, put_bias, put_dy, put_residual = map(backend.put, (x, weight, bias, dy, residual))
    with fa.precision("tf32"), fa.backend(backend.name):
        y = fa.ops.conv2d(put_x, put_weight, put_bias, **options)
        same = fa.ops.conv2d(put_x, put_weight, put_bias, activation="relu", residual=put_residual, **options)
        found = fa.ops.conv2d_backward(put_dy, put_x, put_weight, **options)
    assert forced.wgmma_products() - before == taken[dtype == "float32"]
    scale = np.abs(expected).max()
    close(backend.host(y), expected, dtype, scale)
    close(backend.host(same), relu, dtype, scale)
    close(backend.host(found[0]), gradients[0], dtype)
    close(backend.host(found[1]), gradients[1], dtype)
    db = dy.astype(np.float64).sum(axis=(0, 1, 2))  # not of rounded numbers
    close(backend.host(found[2]), db, dtype, np.abs(dy.astype(np.float64)).sum(axis=(0, 1, 2)).max())
