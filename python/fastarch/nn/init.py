"""Initial values for parameters, drawn from fastarch.random: one seed gives one set of weights on every
backend.

Names, arguments and distributions are PyTorch's; the numbers are not, because the generator is Philox.
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np

from fastarch import random
from fastarch.arrays import is_half
from fastarch.tensors import Tensor

T = TypeVar("T", bound=Tensor)

_GAINS = {
    "linear": 1.0,
    "conv2d": 1.0,
    "sigmoid": 1.0,
    "tanh": 5 / 3,
    "relu": math.sqrt(2),
}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor that keeps the variance through a nonlinearity: linear, conv2d, sigmoid, tanh, relu or
    leaky_relu.

    param: the slope of leaky_relu (default 0.01). Raises ValueError for another name.
    """
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + (0.01 if param is None else param) ** 2))
    if nonlinearity not in _GAINS:
        names = ", ".join([*_GAINS, "leaky_relu"])
        raise ValueError(f"[calculate_gain] got {nonlinearity!r}, expected one of {names}")
    return _GAINS[nonlinearity]


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """How many inputs an output of a weight [out, in, ...] reads, and how many outputs an input feeds."""
    if len(shape) < 2:
        raise ValueError(f"[init] a weight of shape {shape} has no fan; expected at least two dimensions")
    window = math.prod(shape[2:])
    return shape[1] * window, shape[0] * window


def _fill(tensor: T, values: np.ndarray) -> T:
    if isinstance(tensor.data, np.ndarray):
        tensor.data[...] = values
    else:
        tensor.data.set(values.astype(tensor.dtype, copy=False))
    tensor.mark_changed()
    return tensor


def _drawn_in(tensor: Tensor) -> np.dtype:
    """The type of the draws: float32 for 16 bits, which they are rounded to."""
    return np.dtype(np.float32) if is_half(tensor.dtype) else tensor.dtype


def uniform_(tensor: T, a: float = 0.0, b: float = 1.0) -> T:
    """Fills with draws from the uniform distribution on [a, b); rounded to 16 bits they may reach b."""
    return _fill(tensor, random.uniform(tensor.shape, a, b, _drawn_in(tensor)))


def normal_(tensor: T, mean: float = 0.0, std: float = 1.0) -> T:
    """Fills with draws from the normal distribution."""
    return _fill(tensor, random.normal(tensor.shape, mean, std, _drawn_in(tensor)))


def constant_(tensor: T, val: float) -> T:
    """Fills with one value."""
    tensor.data[...] = val
    tensor.mark_changed()
    return tensor


def zeros_(tensor: T) -> T:
    """Fills with zeros."""
    return constant_(tensor, 0.0)


def ones_(tensor: T) -> T:
    """Fills with ones."""
    return constant_(tensor, 1.0)


def xavier_uniform_(tensor: T, gain: float = 1.0) -> T:
    """Uniform with variance gain^2 * 2 / (fan_in + fan_out) (Glorot and Bengio 2010)."""
    bound = gain * math.sqrt(6 / sum(fans(tensor.shape)))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: T, gain: float = 1.0) -> T:
    """Normal with variance gain^2 * 2 / (fan_in + fan_out) (Glorot and Bengio 2010)."""
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(fans(tensor.shape))))


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"[init] mode must be 'fan_in' or 'fan_out', got {mode!r}")
    fan = fans(tensor.shape)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(fan) if fan else 0.0


def kaiming_uniform_(tensor: T, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> T:
    """Uniform with variance gain^2 / fan, gain for the nonlinearity with slope a (He et al. 2015)."""
    bound = math.sqrt(3) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(tensor: T, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> T:
    """Normal with variance gain^2 / fan, gain for the nonlinearity with slope a (He et al. 2015)."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity))
