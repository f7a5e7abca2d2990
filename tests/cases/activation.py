"""Elementwise activations: cases and definitions. Any shape; the backward takes the forward's output y."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from cases.case import Arguments, Case, Gradient, away_from_zero, in_every_layout

# name: (f of one number, its derivative from the output)
_FUNCTIONS = {
    "relu": (lambda v: v if v > 0.0 or math.isnan(v) else 0.0, lambda y: 0.0 if y <= 0.0 else 1.0),
    "tanh": (math.tanh, lambda y: 1.0 - y * y),
    # e^-v overflows a float for v < -709, where the limit is 0.
    "sigmoid": (lambda v: 0.0 if v < -700.0 else 1.0 / (1.0 + math.exp(-v)), lambda y: y * (1.0 - y)),
}


def _forward(name, x):
    function = _FUNCTIONS[name][0]
    return np.array([function(float(v)) for v in x.ravel()], np.float64).reshape(x.shape)


def _backward(name, dy, y):
    slope = _FUNCTIONS[name][1]
    terms = [float(d) * slope(float(v)) for d, v in zip(dy.ravel(), y.ravel(), strict=True)]
    return np.array(terms, np.float64).reshape(y.shape)


_SHAPES = {
    "scalar": (),
    "one": (1,),
    "primes": (7, 13),
    "four_axes": (2, 3, 5, 7),
    "over_a_block": (1, 1031),
    "empty": (0, 3),
}


def _forward_make(shape, rng, dtype) -> Arguments:
    return {"x": np.asarray(rng.normal(0.0, 2.0, shape), dtype)}


def _backward_make(name, shape, rng, dtype) -> Arguments:
    x = rng.normal(0.0, 2.0, shape)
    return {"dy": np.asarray(rng.standard_normal(shape), dtype), "y": np.asarray(_forward(name, x), dtype)}


def _extreme_make(rng, dtype) -> Arguments:
    # Where a careless sigmoid or tanh overflows; the results are finite.
    top = 709.0 if dtype == np.float64 else 88.0
    return {"x": np.array([0.0, -0.0, 1e-30, -1e-30, 20.0, -20.0, top, -top, 6e4, -6e4], dtype)}


def _nonfinite_make(rng, dtype) -> Arguments:
    return {"x": np.array([np.nan, np.inf, -np.inf, 1.0], dtype)}


def _dead_make(rng, dtype) -> Arguments:
    # Nothing passes where relu was 0, not even an infinity times that 0.
    return {"dy": np.array([np.inf, np.nan, 1.0, -2.0], dtype), "y": np.array([0.0, 0.0, 0.0, 3.0], dtype)}


def _cases(name: str) -> list[Case]:
    forward, backward = partial(_forward, name), partial(_backward, name)
    plain = Case(name, "layout", partial(_forward_make, (3, 4, 5)), forward)
    plain_backward = Case(f"{name}_backward", "layout", partial(_backward_make, name, (3, 4, 5)), backward)
    return [
        *(Case(name, i, partial(_forward_make, s), forward) for i, s in _SHAPES.items()),
        *in_every_layout(plain)[1:],
        Case(name, "extreme", _extreme_make, forward),
        Case(name, "nan_and_inf", _nonfinite_make, forward, nonfinite=True),
        *(
            Case(f"{name}_backward", i, partial(_backward_make, name, s), backward)
            for i, s in _SHAPES.items()
        ),
        *in_every_layout(plain_backward)[1:],
    ]


CASES = [
    *(case for name in _FUNCTIONS for case in _cases(name)),
    Case("relu_backward", "dead", _dead_make, lambda dy, y: np.where(y > 0, dy, 0).astype(np.float64)),
]


def _gradient(name: str) -> Gradient:
    return Gradient(
        f"{name}_backward",
        "away_from_zero",
        lambda rng: (away_from_zero(rng, (3, 7)),),
        lambda ops, x: getattr(ops, name)(x),
        lambda ops, dy, x: (getattr(ops, f"{name}_backward")(dy, getattr(ops, name)(x)),),
    )


GRADIENTS = [_gradient(name) for name in _FUNCTIONS]
