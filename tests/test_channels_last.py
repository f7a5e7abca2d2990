"""Convolution of channels-last images against that of planar ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastarch as fa
from cases.conv2d import last
from conftest import FLOATS, Backend
from fastarch import nn

# (x, weight, call): all roads through the kernels, channels in whole vectors and not.
PROBLEMS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "3x3": ((2, 16, 6, 5), (24, 16, 3, 3), {"padding": 1}),
    "strided": ((2, 16, 7, 6), (8, 16, 3, 2), {"padding": 1, "stride": 2}),
    "groups": ((1, 16, 5, 6), (24, 8, 3, 3), {"groups": 2, "dilation": 2, "padding": 2}),
    "odd channels": ((2, 3, 6, 5), (5, 3, 3, 3), {"padding": ((1, 0), (0, 2))}),
    "1x1": ((2, 8, 4, 4), (16, 8, 1, 1), {}),
    "depthwise": ((2, 16, 6, 5), (16, 1, 3, 3), {"groups": 16, "padding": 1}),
    "depthwise strided": ((1, 8, 9, 7), (16, 1, 3, 3), {"groups": 8, "stride": 2}),
    "depthwise overlapping": ((2, 19, 5, 13), (19, 1, 3, 3), {"groups": 19, "padding": 1}),
    "depthwise 5x5": ((1, 35, 9, 12), (35, 1, 5, 5), {"groups": 35, "padding": ((1, 2), (2, 0))}),
    "depthwise 7x7": ((1, 16, 8, 11), (16, 1, 7, 7), {"groups": 16, "padding": 3}),
    "depthwise phases": ((1, 33, 9, 10), (33, 1, 3, 4), {"groups": 33, "stride": (2, 3), "dilation": (2, 1)}),
    "depthwise far": ((1, 16, 7, 4), (16, 1, 2, 1), {"groups": 16, "stride": 3, "padding": 4}),
    "deep": ((1, 72, 3, 3), (130, 72, 3, 3), {"padding": 1}),
}


def integers(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    return rng.integers(-1, 2, shape).astype(dtype)


def both_layouts(backend: Backend, arrays: tuple[np.ndarray, ...], call: dict[str, Any]) -> list[list[Any]]:
    """(y, dx, dw, db) from planar and from channels-last images, each in its own layout, on the host."""
    x, weight, bias, residual, dy = arrays
    results = []
    for layout in ("NCHW", "NHWC"):
        images = (x, residual, dy) if layout == "NCHW" else (last(a) for a in (x, residual, dy))
        px, pr, pdy = (backend.put(a) for a in images)
        pw, pb = backend.put(weight), backend.put(bias)
        more = {**call, "layout": layout}
        y = backend.call("conv2d", {"x": px, "weight": pw, "bias": pb, "residual": pr, **more})
        plain = backend.call("conv2d", {"x": px, "weight": pw, "bias": pb, **more})
        gradients = backend.call("conv2d_backward", {"dy": pdy, "x": px, "weight": pw, **more})
        results.append([backend.host(a) for a in (y, plain, *gradients)])
    return results


def problem(name: str, dtype: str, draw: Any) -> tuple[tuple[np.ndarray, ...], dict[str, Any]]:
    x_shape, w_shape, call = PROBLEMS[name]
    rng, kind = np.random.default_rng(len(name)), FLOATS[dtype]
    with fa.backend("numpy"):
        y_shape = fa.ops.conv2d(np.zeros(x_shape), np.zeros(w_shape), **call).shape
    shapes = (x_shape, w_shape, w_shape[:1], y_shape, y_shape)
    return tuple(draw(rng, shape, kind) for shape in shapes), call


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_layouts_agree(backend: Backend, name: str, dtype: str) -> None:
    """Sums of small whole numbers are exact in any order."""
    arrays, call = problem(name, dtype, integers)
    planar, channels_last = both_layouts(backend, arrays, call)
    for i, (one, other) in enumerate(zip(planar, channels_last, strict=True)):
        np.testing.assert_array_equal(last(one) if i < 3 else one, other)


@pytest.mark.parametrize("precision", ["tf32", "3xtf32"])
@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.backends("emulator", "cuda")
def test_layouts_agree_on_tensor_cores(backend: Backend, name: str, precision: str) -> None:
    arrays, call = problem(name, "float32", integers)
    with fa.precision(precision):
        planar, channels_last = both_layouts(backend, arrays, call)
    for i, (one, other) in enumerate(zip(planar, channels_last, strict=True)):
        np.testing.assert_array_equal(last(one) if i < 3 else one, other)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_equal_calls_give_equal_bits(backend: Backend, name: str, dtype: str) -> None:
    arrays, call = problem(name, dtype, lambda rng, shape, kind: rng.standard_normal(shape).astype(kind))
    first, second = (both_layouts(backend, arrays, call)[1] for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_layer(backend: Backend, mode: str) -> None:
    """The same state dict, and the same output in the other layout."""
    with fa.backend(backend.name):
        layer, other = (
            nn.Conv2d(4, 6, 3, padding=(1, 2), padding_mode=mode, activation="relu", layout=layout)
            for layout in ("NCHW", "NHWC")
        )
        other.load_state_dict(layer.state_dict())
        x = np.random.default_rng(0).standard_normal((2, 4, 5, 6)).astype(np.float32)
        y, z = layer(x).numpy(), other(last(x)).numpy()
    np.testing.assert_allclose(last(y), z, rtol=1e-5, atol=1e-6)
    assert "layout='NHWC'" in repr(other)


def test_refused() -> None:
    with pytest.raises(ValueError, match=r"\[Conv2d\] layout must be"):
        nn.Conv2d(1, 1, 1, layout="CHWN")
    with pytest.raises(ValueError, match=r"\[Conv1d\] layout must be"):
        nn.Conv1d(1, 1, 1, layout="NHWC")
