"""Pooling by blocks of windows has the bits of pooling one output a thread, which images get that have few
channels, and those last, or that begin off a multiple of 16 bytes with theirs last.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastarch as fa
from cases.pool2d_oracle import last, pooled_shape
from conftest import FLOATS, Backend, seeded

pytestmark = pytest.mark.backends("emulator", "cuda")

WINDOWS = {"3x3/2": (3, 2), "3x3/1": (3, 1), "2x2/2": (2, 2)}
# Of 16 and 32 bits: whole packs of 128, of 64, neither; one block, several, and a last one in part.
WIDTHS = (1, 2, 3, 4, 6, 7, 8, 12, 13, 16, 24, 31)


def pooled(
    backend: Backend, images: np.ndarray, dy: np.ndarray, call: dict[str, Any], layout: str, skipped: int
) -> dict[str, np.ndarray]:
    """Every pooling of `images` [N, C, H, W], both ways, by arrays in `layout` that begin `skipped` elements
    into their memory; results are [N, H, W, C].
    """
    nhwc = layout == "NHWC"

    def put(array: np.ndarray) -> Any:
        memory = backend.put(np.zeros(array.size + skipped, array.dtype))
        memory[skipped:] = backend.put(array).reshape(-1)
        return memory[skipped:].reshape(array.shape)

    def host(array: Any) -> np.ndarray:
        return backend.host(array) if nhwc else last(backend.host(array))

    x, slopes = (put(last(a) if nhwc else a) for a in (images, dy))
    back = {name: value for name, value in call.items() if name != "ceil_mode"}
    results = {}
    with fa.backend(backend.name):
        y, argmax = fa.ops.max_pool2d(x, **call, layout=layout)
        places = put(backend.host(argmax))
        dx = fa.ops.max_pool2d_backward(slopes, places, x.shape, **back, layout=layout)
        results |= {"maxima": y, "places": argmax, "gradient of maxima": dx}
        for counted in (True, False):
            y = fa.ops.avg_pool2d(x, **call, count_include_pad=counted, layout=layout)
            dx = fa.ops.avg_pool2d_backward(slopes, x.shape, **back, count_include_pad=counted, layout=layout)
            results |= {f"means, padding {counted}": y, f"gradient of means, padding {counted}": dx}
    # The sign of a sum of several NaNs follows from the order that a host's compiler chose for two operands.
    return {
        name: np.where(np.isnan(a), np.nan, a) if "means" in name else a
        for name, a in ((name, host(a)) for name, a in results.items())
    }


def expect_equal(backend: Backend, images: np.ndarray, rng: Any, call: dict[str, Any], ours: str) -> None:
    sizes = call["kernel_size"], call["stride"], call["padding"], 1, call["ceil_mode"]
    dy = rng.standard_normal(pooled_shape(images.shape, *sizes)).astype(images.dtype)
    skipped = int(rng.integers(0, 3)) // 2 if ours == "NCHW" else 0
    blocks = pooled(backend, images, dy, call, ours, skipped)
    for name, one_by_one in pooled(backend, images, dy, call, "NHWC", 1).items():
        assert blocks[name].tobytes() == one_by_one.tobytes(), f"{name} of {images.shape} by {call}"


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", [name for name in FLOATS if name != "float64"])  # which has no blocks
@pytest.mark.parametrize("window", WINDOWS)
def test_bits(window: str, dtype: str, layout: str, backend: Backend) -> None:
    rng = seeded(f"{window} {dtype} {layout}")
    kernel, stride = WINDOWS[window]
    for width in WIDTHS if layout == "NCHW" else WIDTHS[:8]:
        for padding in ((0, 0), (1, 1), (0, 1)):
            if width + 2 * padding[1] < kernel:
                continue
            call: dict[str, Any] = {"kernel_size": kernel, "stride": stride, "padding": padding}
            call["ceil_mode"] = bool(rng.integers(2))
            height, channels = int(rng.integers(kernel, 14)), 2 if layout == "NCHW" else 16
            images = rng.integers(-4, 5, (2, channels, height, width)) / 2
            if rng.random() < 0.3:
                images[rng.random(images.shape) < 0.1] = np.nan
                images[rng.random(images.shape) < 0.4] = -np.inf
            expect_equal(backend, images.astype(FLOATS[dtype]), rng, call, layout)


def test_more_blocks_than_threads(backend: Backend) -> None:
    """So that a thread takes several."""
    rng = seeded("more blocks")
    images = rng.integers(-4, 5, (64, 40, 5, 13)).astype(np.float32)
    call = {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": False}
    expect_equal(backend, images, rng, call, "NCHW")
