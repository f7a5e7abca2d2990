"""Samples from named Philox streams and stable functions, for the samplers that are written in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastarch import random
from fastarch.ops._rbm import integral_of_softplus


class Stream:
    """Samples from the streams (seed, offset), (seed, offset + 1), ...: one stream a call."""

    def __init__(self, seed: int, offset: int) -> None:
        self.seed, self.offset = seed, offset

    def _next(self) -> tuple[int, int]:
        self.offset += 1
        return self.seed, self.offset - 1

    def uniform(self, shape: tuple[int, ...]) -> np.ndarray:
        """Samples in [0, 1), float32."""
        return random.uniform(shape, stream=self._next())

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """Standard normal samples, float64."""
        return random.normal(shape, dtype=np.float64, stream=self._next())

    def below(self, n: int, size: int) -> np.ndarray:
        """Integers from 0 to n - 1: [size] int64."""
        words = random.philox(size, *self._next()).astype(np.uint64)
        return (words * np.uint64(n) >> np.uint64(32)).astype(np.int64)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), without overflow."""
    y = np.multiply(x, x.dtype.type(0.5))
    np.tanh(y, out=y)
    y *= x.dtype.type(0.5)
    y += x.dtype.type(0.5)
    return y


def softplus(x: np.ndarray) -> np.ndarray:
    """log(1 + exp(x)), without overflow."""
    y = np.abs(x)
    np.negative(y, out=y)
    np.exp(y, out=y)
    np.log1p(y, out=y)
    y += np.maximum(x, 0)
    return y


def log_sum_exp(x: np.ndarray, axis: int | None = None) -> Any:
    """log(sum(exp(x))) along `axis`, without overflow."""
    top = np.max(x, axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        total = np.log(np.sum(np.exp(x - top), axis=axis, keepdims=True)) + top
    return total.reshape(()).item() if axis is None else np.squeeze(total, axis=axis)


def hidden_term(x: np.ndarray, kind: str) -> np.ndarray:
    """What hidden units of total input x add to minus the free energy."""
    return integral_of_softplus(x, np) if kind == "relu" else softplus(x)
