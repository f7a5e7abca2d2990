"""The checks that layers share, made once when a layer is built."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any


def check_positive(layer: str, **sizes: Any) -> None:
    """Raises TypeError for a size that is not an int and ValueError for one below 1."""
    for name, value in sizes.items():
        if not isinstance(value, Integral) or isinstance(value, bool):
            raise TypeError(f"[{layer}] {name} must be an int, got {value!r}")
        if value < 1:
            raise ValueError(f"[{layer}] {name} must be positive, got {value}")


def pair(layer: str, name: str, value: Any, least: int) -> tuple[int, int]:
    """An int or two of them as (height, width); raises TypeError or ValueError, also when one is below
    `least`.
    """
    parts = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value, value)
    if len(parts) != 2:
        raise ValueError(f"[{layer}] {name} must be an int or a pair (height, width), got {value!r}")
    for part in parts:
        if not isinstance(part, Integral) or isinstance(part, bool):
            raise TypeError(f"[{layer}] {name} must be an int or a pair (height, width), got {value!r}")
        if part < least:
            raise ValueError(f"[{layer}] {name} must be at least {least}, got {value!r}")
    return int(parts[0]), int(parts[1])


def check_activation(layer: str, activation: str | None) -> str | None:
    """Raises ValueError for an activation that cannot be fused."""
    if activation not in (None, "relu", "tanh", "sigmoid"):
        raise ValueError(
            f"[{layer}] activation must be None, 'relu', 'tanh' or 'sigmoid', got {activation!r}"
        )
    return activation
