"""The blocked multiply under convolution and linear layers: every tile, split sums and equal bits.

The emulated device's number of multiprocessors decides how k is split, so both ways to sum are reached.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastarch._emulator", reason="what these tests vary, only the emulator lets them")

# [m, in, out]: between them they take every tile, with k whole and split.
SHAPES = [
    (1, 1, 1),
    (6, 300, 25),
    (16, 900, 64),
    (33, 100, 31),
    (64, 800, 64),
    (64, 801, 128),
    (65, 7, 257),
    (130, 140, 150),
    (128, 2000, 128),
    (256, 33, 256),
]


@pytest.fixture
def module() -> Iterator[Any]:
    from fastarch import _emulator

    yield _emulator
    _emulator.set_multiprocessors(2)
    _emulator.set_seed(0)


def linear(module: Any, x: np.ndarray, weight: np.ndarray, dy: np.ndarray) -> list[np.ndarray]:
    """y, dx, dw and db, from outputs that were full of NaN."""
    results = [np.full_like(like, np.nan) for like in (dy, x, weight, weight[:, 0])]
    y, dx, dw, db = results
    module.linear_forward(x, weight, None, y, 0)
    module.linear_backward_input(dy, weight, dx)
    module.linear_backward_weight(dy, x, dw, db)
    return results


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("multiprocessors", [2, 132])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products(module: Any, shape: tuple[int, int, int], multiprocessors: int, dtype: type) -> None:
    module.set_multiprocessors(multiprocessors)
    m, inputs, outputs = shape
    random = np.random.default_rng(sum(shape))
    x, weight, dy = (random.normal(size=s) for s in ((m, inputs), (outputs, inputs), (m, outputs)))
    found = linear(module, *(a.astype(dtype) for a in (x, weight, dy)))
    expected = [x @ weight.T, dy @ weight, dy.T @ x, dy.sum(axis=0)]
    for ours, theirs in zip(found, expected):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(
            ours, theirs, rtol=0, atol=scale * (2e-6 if dtype == np.float32 else 1e-14)
        )


@pytest.mark.parametrize("offset", [0, 1])
def test_unaligned_operands(module: Any, offset: int) -> None:
    """Rows that start off a 16-byte boundary are read one element at a time, with the same result."""
    random = np.random.default_rng(0)
    arrays = [random.normal(size=a * b + 1).astype(np.float32) for a, b in ((40, 32), (24, 32), (40, 24))]
    aligned = [a[:-1].reshape(s).copy() for a, s in zip(arrays, ((40, 32), (24, 32), (40, 24)))]
    moved = []
    for a in aligned:
        room = np.zeros(a.size + offset, np.float32)
        room[offset:] = a.ravel()
        moved.append(room[offset:].reshape(a.shape))
    for ours, theirs in zip(linear(module, *moved), linear(module, *aligned)):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("multiprocessors", [2, 132])
def test_same_bits_in_every_order_of_threads(module: Any, multiprocessors: int) -> None:
    module.set_multiprocessors(multiprocessors)
    random = np.random.default_rng(1)
    x, dy = random.normal(size=(3, 4, 11, 9)), random.normal(size=(3, 6, 11, 9))
    results = []
    for seed in range(4):
        module.set_seed(seed)
        dw, db = np.empty((6, 4, 3, 3)), np.empty(6)
        module.conv2d_backward_weight(dy, x, dw, db, (1, 1), (1, 1), (1, 1), 1)
        results.append((dw, db))
    for dw, db in results[1:]:
        np.testing.assert_array_equal(dw, results[0][0])
        np.testing.assert_array_equal(db, results[0][1])


def test_weight_gradient_without_images_or_channels(module: Any) -> None:
    """Nothing to sum is zero, not what was there before."""
    geometry = ((1, 1), (0, 0), (1, 1), 1)
    dw, db = np.full((4, 3, 2, 2), np.nan), np.full(4, np.nan)
    module.conv2d_backward_weight(np.empty((0, 4, 5, 5)), np.empty((0, 3, 6, 6)), dw, db, *geometry)
    assert not dw.any()
    assert not db.any()
    dy = np.ones((2, 4, 5, 5))
    module.conv2d_backward_weight(dy, np.empty((2, 0, 6, 6)), np.empty((4, 0, 2, 2)), db, *geometry)
    np.testing.assert_array_equal(db, 50)
    y = np.full((2, 4, 5, 5), np.nan)
    module.conv2d_forward(
        np.empty((2, 0, 6, 6)), np.empty((4, 0, 2, 2)), np.arange(4.0), None, y, *geometry, 0
    )
    np.testing.assert_array_equal(y, np.broadcast_to(np.arange(4.0)[:, None, None], y.shape))


@pytest.mark.parametrize(
    ("stride", "dilation", "window"), [((7, 3), (1, 1), 2), ((4, 6), (2, 3), 3), ((5, 40), (1, 1), 3)]
)
def test_pixels_that_no_window_covers_get_zero(
    module: Any, stride: tuple[int, int], dilation: tuple[int, int], window: int
) -> None:
    weight, dx = np.ones((2, 1, window, window)), np.full((1, 1, 23, 29), np.nan)
    p, q = ((n - (window - 1) * d - 1) // s + 1 for n, s, d in zip((23, 29), stride, dilation))
    module.conv2d_backward_input(np.ones((1, 2, p, q)), weight, dx, stride, (0, 0), dilation, 1)
    covered = np.zeros((23, 29))
    for r in range(window):
        for s in range(window):
            rows = slice(r * dilation[0], r * dilation[0] + (p - 1) * stride[0] + 1, stride[0])
            columns = slice(s * dilation[1], s * dilation[1] + (q - 1) * stride[1] + 1, stride[1])
            covered[rows, columns] += 2
    np.testing.assert_array_equal(dx[0, 0], covered)
