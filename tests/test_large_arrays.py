"""Arrays of more than 2^31 elements: every offset into them is 64-bit.

Untouched pages cost address space only, not memory, so the kernels that step over nearly all of an array can
be tried on ones that no test machine could fill.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

SIDE, STRIDE = 1 << 15, 8191  # the third image starts 2^31 elements in


@pytest.fixture(params=["cpu", "emulator"])
def module(request: pytest.FixtureRequest) -> Any:
    return pytest.importorskip(f"fastarch._{request.param}", reason=f"_{request.param} is not in this build")


@pytest.fixture
def images() -> tuple[np.ndarray, np.ndarray]:
    """Three images of 2^30 pixels, and the view of those that a stride touches, filled at random."""
    try:
        x = np.zeros((3, 1, SIDE, SIDE), np.float32)
    except MemoryError:
        pytest.skip("this machine does not lend out 12 GiB of address space")
    sampled = x[:, :, ::STRIDE, ::STRIDE]
    sampled[...] = np.random.default_rng(2).normal(size=sampled.shape)
    return x, sampled


def test_convolution(images: tuple[np.ndarray, np.ndarray]) -> None:
    """On the emulator alone: the CPU's kernel copies an image for a stride."""
    module = pytest.importorskip("fastarch._emulator", reason="_emulator is not in this build")
    x, sampled = images
    random = np.random.default_rng(3)
    weight, dy = random.normal(size=(2, 1, 1, 1)), random.normal(size=(3, 2, *sampled.shape[2:]))
    weight, dy = weight.astype(np.float32), dy.astype(np.float32)
    y, dw, db = np.full_like(dy, np.nan), np.full_like(weight, np.nan), np.full(2, np.nan, np.float32)
    geometry = ((STRIDE, STRIDE), (0, 0), (1, 1), 1)
    module.conv2d_forward(x, weight, None, None, y, *geometry, 0)
    module.conv2d_backward_weight(dy, x, dw, db, *geometry)
    np.testing.assert_array_equal(y, sampled * weight.reshape(1, 2, 1, 1))
    np.testing.assert_allclose(dw.ravel(), (dy * sampled).sum((0, 2, 3)), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(db, dy.sum((0, 2, 3)), rtol=1e-5, atol=1e-5)
    # With one channel the same pixels are channels-last images.
    last_x, last_y = x.reshape(3, SIDE, SIDE, 1), np.full((3, *sampled.shape[2:], 2), np.nan, np.float32)
    last_dy, last_dw, last_db = (
        dy.transpose(0, 2, 3, 1).copy(),
        np.full_like(dw, np.nan),
        np.full_like(db, np.nan),
    )
    module.conv2d_forward(last_x, weight, None, None, last_y, *geometry, 0, 1)
    module.conv2d_backward_weight(last_dy, last_x, last_dw, last_db, *geometry, 1)
    np.testing.assert_array_equal(last_y, y.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(last_dw, dw, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(last_db, db, rtol=1e-5, atol=1e-5)


def test_pooling(module: Any, images: tuple[np.ndarray, np.ndarray]) -> None:
    x, sampled = images
    y, argmax = np.full(sampled.shape, np.nan, np.float32), np.full(sampled.shape, 7, np.uint8)
    geometry = ((1, 1), (STRIDE, STRIDE), (0, 0))
    module.max_pool2d_forward(x, y, argmax, *geometry, (1, 1), False)
    np.testing.assert_array_equal(y, sampled)
    assert not argmax.any()
    y[...] = np.nan
    module.avg_pool2d_forward(x, y, *geometry, True, False)
    np.testing.assert_array_equal(y, sampled)
