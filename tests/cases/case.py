"""What a test case is: a call of a public operator, its answer by definition, and how close it must come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

Arguments = dict[str, Any]

# Absolute and relative at once: |got - want| <= tolerance * (1 + |want|). The inputs are of order 1.
TOLERANCE = {"float32": 2e-5, "float64": 1e-12}

# A 16-bit result is a float32 one rounded once: half a unit in its last place more than float32 may be off.
ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8}

# How the array arguments lie in memory; see conftest.lay_out.
LAYOUTS = ("contiguous", "sliced", "transposed", "reversed", "readonly")


@dataclass(frozen=True, eq=False)
class Case:
    """A call `fastarch.ops.<op>(**make(rng, dtype))` and its `oracle(**same)`: float64 loops, by definition.

    The oracle returns one array or a tuple, in which None stands for an output that must be None; integer
    outputs must agree exactly. Arrays of other dtypes (targets, arg-max) keep theirs under every float dtype.
    """

    op: str
    id: str
    make: Callable[[np.random.Generator, np.dtype], Arguments]
    oracle: Callable[..., Any]
    tolerance: dict[str, float] = field(default_factory=lambda: dict(TOLERANCE))
    layout: str = "contiguous"
    halves: bool = True  # whether it makes sense in float16 and bfloat16, where the operator takes them
    wide: tuple[int, ...] = ()  # the outputs that are float32 where the operands have 16 bits
    nonfinite: bool = False  # the definition itself gives NaN or an infinity
    # call(ops, **arguments), where it is not the operator alone: a backward that needs what its forward
    # saved.
    call: Callable[..., Any] | None = None

    def tolerance_in(self, dtype: str) -> float:
        """How far a result in `dtype` may be off: as given, else for 16 bits one rounding of a float32."""
        if dtype in self.tolerance:
            return self.tolerance[dtype]
        return self.tolerance["float32"] + ROUNDING[dtype]

    def __str__(self) -> str:
        return f"{self.op}-{self.id}" + ("" if self.layout == "contiguous" else f"-{self.layout}")


def in_every_layout(case: Case) -> list[Case]:
    """The same call with its arrays contiguous, sliced, transposed, reversed and read-only."""
    return [replace(case, layout=layout) for layout in LAYOUTS]


@dataclass(frozen=True, eq=False)
class Gradient:
    """A differentiable function of float64 arrays, written with the public operators, and its backward.

    inputs(rng) gives the arrays; forward(ops, *inputs) one output; backward(ops, dy, *inputs) a gradient for
    each input, None for one that is constant (a target). `ops` is the module of operators, handed in so that
    this package imports nothing but NumPy.
    """

    op: str  # the backward operator under test
    id: str
    inputs: Callable[[np.random.Generator], tuple[np.ndarray, ...]]
    forward: Callable[..., Any]
    backward: Callable[..., tuple]

    def __str__(self) -> str:
        return f"{self.op}-{self.id}"


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """(h, w) of an argument that may be one number for both."""
    return (value, value) if isinstance(value, int) else tuple(value)


def away_from_zero(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Float64 values of both signs, none closer to zero than 0.1: no kink within a difference step."""
    return rng.uniform(0.1, 2.0, shape) * rng.choice([-1.0, 1.0], shape)


def all_different(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Float64 values of which no two are closer than 0.01: the maximum stays where it is."""
    size = int(np.prod(shape))
    return (0.01 * (rng.permutation(size) - size / 2)).reshape(shape)
