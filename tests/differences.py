"""Gradients by central differences: the oracle of everything on the tape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fastarch as fa
from fastarch import backends


def array_modules() -> list[Any]:
    """numpy, and cupy where a device can be used."""
    modules: list[Any] = [np]
    if "cuda" in backends.available():
        import cupy

        modules.append(cupy)
    return modules


def host(array: Any) -> np.ndarray:
    return np.asarray(array.get() if hasattr(array, "get") else array)


def check_gradients(
    function: Callable[..., Any],
    *inputs: np.ndarray,
    xp: Any = np,
    step: float = 1e-6,
    tolerance: float = 2e-8,
) -> None:
    """Compares the gradients of `function(*tensors)`, for a random cotangent, with central differences.

    All is float64. The difference may be `tolerance` times the largest gradient (at least 1).
    """
    generator = np.random.default_rng(7)
    tensors = [fa.tensor(xp.asarray(x, np.float64), requires_grad=True) for x in inputs]
    y = function(*tensors)
    assert np.isfinite(host(y.data)).all()
    cotangent = generator.standard_normal(y.shape)
    y.backward(xp.asarray(cotangent))

    def value() -> float:
        with fa.no_grad():
            return float((host(function(*tensors).data) * cotangent).sum())

    for x in tensors:
        assert x.grad is not None
        assert x.grad.shape == x.shape
        assert x.grad.dtype == np.float64
        numeric = np.zeros(x.shape)
        for index in np.ndindex(x.shape):
            original = float(x.data[index])
            x.data[index] = original + step
            above = value()
            x.data[index] = original - step
            below = value()
            x.data[index] = original
            numeric[index] = (above - below) / (2 * step)
        scale = max(1.0, float(abs(numeric).max(initial=0)))
        np.testing.assert_allclose(host(x.grad) / scale, numeric / scale, rtol=0, atol=tolerance)
