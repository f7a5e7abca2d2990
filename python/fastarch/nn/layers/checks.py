"""The checks that layers share, made once when a layer is built."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any


def check_positive(layer: str, **sizes: Any) -> None:
    """Raises TypeError for a size that is not an int and ValueError for one below 1."""
    for name, value in sizes.items():
        check_int(layer, name, value)
        if value < 1:
            raise ValueError(f"[{layer}] {name} must be positive, got {value}")


def pair(layer: str, name: str, value: Any, least: int) -> tuple[int, int]:
    """An int or two of them as (height, width); raises TypeError or ValueError, also when one is below
    `least`.
    """
    height, width = sizes(layer, name, value, least, 2)
    return height, width


def check_activation(layer: str, activation: str | None) -> str | None:
    """Raises ValueError for an activation that cannot be fused."""
    if activation not in (None, "relu", "tanh", "sigmoid"):
        raise ValueError(
            f"[{layer}] activation must be None, 'relu', 'tanh' or 'sigmoid', got {activation!r}"
        )
    return activation


_EXPECTED = {
    1: "an int or a tuple of one",
    2: "an int or a pair (height, width)",
    3: "an int or a triple (depth, height, width)",
}


def sizes(layer: str, name: str, value: Any, least: int, axes: int) -> tuple[int, ...]:
    """An int or one for each axis; raises TypeError or ValueError, also when one is below `least`."""
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    parts = tuple(value) if listed else (value,) * axes
    if len(parts) != axes:
        raise ValueError(f"[{layer}] {name} must be {_EXPECTED[axes]}, got {value!r}")
    for part in parts:
        if not isinstance(part, Integral) or isinstance(part, bool):
            raise TypeError(f"[{layer}] {name} must be {_EXPECTED[axes]}, got {value!r}")
        if part < least:
            raise ValueError(f"[{layer}] {name} must be at least {least}, got {value!r}")
    return tuple(int(part) for part in parts)


def paddings(layer: str, value: Any, axes: int) -> tuple[int | tuple[int, int], ...]:
    """An int, or for each axis an int or a pair (before, after); errors as from `sizes`."""
    if not isinstance(value, (tuple, list)) or not any(isinstance(side, (tuple, list)) for side in value):
        return sizes(layer, "padding", value, 0, axes)
    if len(value) != axes:
        raise ValueError(f"[{layer}] padding must have {axes} entries (ints or pairs), got {value!r}")
    found: list[int | tuple[int, int]] = []
    for side in value:
        listed = isinstance(side, (tuple, list))
        numbers = sizes(layer, "padding", side if listed else (side,), 0, 2 if listed else 1)
        found.append((numbers[0], numbers[1]) if listed else numbers[0])
    return tuple(found)


def check_layout(layer: str, layout: Any) -> str:
    """How images lie in memory: "NCHW" or, with the channels last, "NHWC"."""
    if layout not in ("NCHW", "NHWC"):
        raise ValueError(f"[{layer}] layout must be 'NCHW' or 'NHWC', got {layout!r}")
    return layout


def check_probability(module: str, name: str, p: float) -> None:
    """Raises TypeError for a p that is not a number and ValueError for one outside [0, 1]."""
    check_number(module, name, p)
    if not 0 <= p <= 1:
        raise ValueError(f"[{module}] {name} must be in [0, 1], got {p}")


def check_int(module: str, name: str, value: Any) -> None:
    """Raises TypeError unless value is an int."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"[{module}] {name} must be an int, got {value!r}")


def check_number(module: str, name: str, value: Any) -> None:
    """Raises TypeError unless value is a real number."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"[{module}] {name} must be a number, got {value!r}")
