"""Pooling of NCHW images by blocks of windows has the bits of pooling one output a thread: those of the same
images with their channels last.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastarch as fa
from cases.pool2d_oracle import last
from conftest import FLOATS, Backend, seeded

pytestmark = pytest.mark.backends("emulator", "cuda")

WINDOWS = {"3x3/2": (3, 2), "3x3/1": (3, 1), "2x2/2": (2, 2)}
# Of 16 and 32 bits: whole packs of 128, of 64, neither; one block, several, and a last one in part.
WIDTHS = (1, 2, 3, 4, 6, 7, 8, 12, 13, 16, 24, 31)


def like_nhwc(backend: Backend, images: np.ndarray, skipped: int, call: dict[str, Any], inputs: Any) -> None:
    """Checks every pooling of `images`, both ways; they begin `skipped` elements into their memory."""

    def put(array: np.ndarray) -> Any:
        memory = backend.put(np.zeros(array.size + skipped, array.dtype))
        memory[skipped:] = backend.put(array).reshape(-1)
        return memory[skipped:].reshape(array.shape)

    def expect_equal(ours: Any, theirs: Any, what: str) -> None:
        ours, theirs = last(backend.host(ours)), backend.host(theirs)
        assert ours.tobytes() == theirs.tobytes(), f"{what} of {images.shape} by {call}"

    x, x_last, shape = put(images), backend.put(last(images)), images.shape
    back = {name: value for name, value in call.items() if name != "ceil_mode"}
    with fa.backend(backend.name):
        y, argmax = fa.ops.max_pool2d(x, **call)
        y_last, argmax_last = fa.ops.max_pool2d(x_last, **call, layout="NHWC")
        expect_equal(y, y_last, "maxima")
        expect_equal(argmax, argmax_last, "places")
        dy = inputs.standard_normal(y.shape).astype(images.dtype)
        slopes, slopes_last = put(dy), backend.put(last(dy))
        dx = fa.ops.max_pool2d_backward(slopes, put(backend.host(argmax)), shape, **back)
        dx_last = fa.ops.max_pool2d_backward(slopes_last, argmax_last, x_last.shape, **back, layout="NHWC")
        expect_equal(dx, dx_last, "gradient of the maxima")
        if not np.isfinite(images.astype(np.float32)).all():
            return  # a host's sums of several NaNs have a sign that follows from the compiler's order
        for counted in (True, False):
            y = fa.ops.avg_pool2d(x, **call, count_include_pad=counted)
            y_last = fa.ops.avg_pool2d(x_last, **call, count_include_pad=counted, layout="NHWC")
            expect_equal(y, y_last, "means")
            dx = fa.ops.avg_pool2d_backward(slopes, shape, **back, count_include_pad=counted)
            dx_last = fa.ops.avg_pool2d_backward(
                slopes_last, x_last.shape, **back, count_include_pad=counted, layout="NHWC"
            )
            expect_equal(dx, dx_last, "gradient of the means")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("window", WINDOWS)
def test_bits(window: str, dtype: str, backend: Backend) -> None:
    rng = seeded(f"{window} {dtype}")
    kernel, stride = WINDOWS[window]
    call: dict[str, Any]
    for width in WIDTHS:
        for padding in ((0, 0), (1, 1), (0, 1)):
            height = int(rng.integers(kernel, 14))
            if width + 2 * padding[1] < kernel:
                continue
            call = {
                "kernel_size": kernel,
                "stride": stride,
                "padding": padding,
                "ceil_mode": rng.random() < 0.5,
            }
            images = rng.integers(-4, 5, (2, 2, height, width)) / 2
            if rng.random() < 0.3:
                images[rng.random(images.shape) < 0.1] = np.nan
                images[rng.random(images.shape) < 0.4] = -np.inf
            like_nhwc(backend, images.astype(FLOATS[dtype]), int(rng.integers(0, 3)) // 2, call, rng)


def test_more_blocks_than_threads(backend: Backend) -> None:
    """So that a thread takes several."""
    rng = seeded("more blocks")
    images = rng.integers(-4, 5, (64, 40, 5, 13)).astype(np.float32)
    like_nhwc(backend, images, 0, {"kernel_size": 3, "stride": 2, "padding": 1}, rng)
