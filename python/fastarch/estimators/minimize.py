"""Minimizing a smooth function of many numbers: gradient descent with a line search, and L-BFGS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from fastarch.arrays import Array

Objective = Callable[[Array], tuple[float, Array]]

_SUFFICIENT = 1e-4  # share of the decrease that the slope promises (Armijo 1966)
_HALVINGS = 40


def descend(objective: Objective, x: Array, memory: int = 10) -> Iterator[tuple[Array, float, Array]]:
    """Yields (x, value, gradient) after every step that lowers `objective`, and ends where none does.

    objective: x [n] float64 to (value, gradient [n]). memory: pairs of steps and gradients that shape the
    direction (Liu and Nocedal 1989); with 0 it is steepest descent. Steps are halved until the value falls as
    far as the slope promises, so the values never rise; a value that is not finite counts as too long a step.
    """
    value, gradient = objective(x)
    pairs: list[tuple[Array, Array, float]] = []
    step = 0.0
    while True:
        direction = _direction(gradient, pairs)
        slope = float(direction @ gradient)
        if not slope < 0:  # no descent, or not a number
            if not pairs:
                return
            pairs = []
            continue
        if not pairs:
            # The first step has length one at most; without memory the last accepted one is tried again,
            # doubled.
            step = 2 * step if step else min(1.0, float(gradient @ gradient) ** -0.5)
        else:
            step = 1.0
        found: tuple[Array, float, Array] | None = None
        for _ in range(_HALVINGS):
            candidate = x + step * direction
            new_value, new_gradient = objective(candidate)
            if new_value <= value + _SUFFICIENT * step * slope:
                found = candidate, new_value, new_gradient
                break
            step /= 2
        if found is None or not found[1] < value:
            if not pairs:
                return
            pairs, step = [], 0.0  # the curvature misled: once more along the gradient
            continue
        moved, turned = found[0] - x, found[2] - gradient
        curvature = float(moved @ turned)
        if memory and curvature > 1e-10 * float(turned @ turned):
            pairs = [*pairs, (moved, turned, curvature)][-memory:]
        x, value, gradient = found
        yield x, value, gradient


def _direction(gradient: Array, pairs: list[tuple[Array, Array, float]]) -> Array:
    """Minus the gradient times the inverse curvature that the pairs (step, gradient change, product) show."""
    q = -gradient
    shares: list[float] = []
    for moved, turned, curvature in reversed(pairs):
        share = float(moved @ q) / curvature
        shares.append(share)
        q = q - share * turned
    if pairs:
        _, turned, curvature = pairs[-1]
        q = q * (curvature / float(turned @ turned))
    for (moved, turned, curvature), share in zip(pairs, reversed(shares)):
        q = q + (share - float(turned @ q) / curvature) * moved
    return q


def flatten(arrays: list[Array], xp: Any) -> Array:
    """All arrays one after another as one vector of float64."""
    return xp.concatenate([a.reshape(-1).astype(xp.float64) for a in arrays])


def unflatten(vector: Array, like: list[Array]) -> list[Array]:
    """The parts of `vector` in the shapes and dtypes of `like`."""
    parts, begin = [], 0
    for a in like:
        parts.append(vector[begin : begin + a.size].reshape(a.shape).astype(a.dtype))
        begin += a.size
    return parts
