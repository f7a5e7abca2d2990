"""Adaptive pooling: cases. The definitions are in pool2d_oracle.py."""

from __future__ import annotations

from functools import partial

import numpy as np

from cases.case import Arguments, Case, Gradient, all_different, in_every_layout, pair
from cases.pool2d import image_make, last_cases, last_gradient, made_last, nan_make, values
from cases.pool2d_oracle import (
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_backward,
    adaptive_max_pool2d,
    adaptive_max_pool2d_backward,
    with_channels_last,
)

_ADAPTIVE = {
    "one": ((1, 1, 1, 1), 1),
    "mean": ((3, 5, 7, 11), 1),
    "even": ((2, 3, 8, 6), (4, 3)),
    "overlapping": ((1, 2, 7, 11), (3, 4)),
    "larger_than_input": ((1, 2, 3, 2), (5, 7)),
    "wide_129": ((1, 1, 2, 129), (2, 10)),
    "cells_over_256": ((1, 2, 35, 37), 2),
    "empty_batch": ((0, 2, 4, 4), 2),
}
_LAST = {
    "mean": ((3, 16, 7, 5), 1),
    "mean_of_odd": ((2, 5, 7, 11), 1),
    "many_channels": ((1, 264, 3, 2), 1),
    "overlapping": ((1, 8, 7, 11), (3, 4)),
    "odd_channels": ((2, 3, 7, 11), (3, 4)),
    "larger_than_input": ((1, 8, 3, 2), (5, 7)),
    "cells_over_256": ((1, 8, 17, 18), 1),
    "empty_batch": ((0, 8, 4, 4), 2),
}


def _adaptive_make(shape, output, rng, dtype) -> Arguments:
    return image_make(shape, {"output_size": output}, rng, dtype)


def _adaptive_backward_make(shape, output, rng, dtype) -> Arguments:
    dy = rng.standard_normal((*shape[:2], *pair(output))).astype(dtype)
    return {"dy": dy, "input_shape": shape}


def _adaptive_max_backward_make(shape, output, rng, dtype) -> Arguments:
    y, argmax = adaptive_max_pool2d(values(rng, shape, dtype), output)
    return {"dy": rng.standard_normal(y.shape).astype(dtype), "argmax": argmax, "input_shape": shape}


def _adaptive_nan_make(rng, dtype) -> Arguments:
    return {"x": nan_make(rng, dtype)["x"], "output_size": (4, 3)}


def _last_global_nan_make(rng, dtype) -> Arguments:
    """Planes of one NaN, of several, of nothing but -inf, and of equal maxima far apart."""
    x = values(rng, (1, 8, 9, 5), dtype)
    x[0, 0, 4, 2] = x[0, 1, 1, 1] = x[0, 1, 7, 3] = np.nan
    x[0, 2] = -np.inf
    x[0, 3, 2, 2] = x[0, 3, 8, 4] = 7
    x[0, 4] = np.nan
    return {"x": x, "output_size": 1}


CASES = [
    *(
        Case("adaptive_avg_pool2d", i, partial(image_make, s, {"output_size": o}), adaptive_avg_pool2d)
        for i, (s, o) in _ADAPTIVE.items()
    ),
    *(
        Case("adaptive_max_pool2d", i, partial(image_make, s, {"output_size": o}), adaptive_max_pool2d)
        for i, (s, o) in _ADAPTIVE.items()
    ),
    Case("adaptive_max_pool2d", "nan_and_inf", _adaptive_nan_make, adaptive_max_pool2d, nonfinite=True),
    *(
        Case(
            "adaptive_max_pool2d_backward",
            i,
            partial(_adaptive_max_backward_make, *s),
            adaptive_max_pool2d_backward,
        )
        for i, s in _ADAPTIVE.items()
    ),
    *in_every_layout(
        Case(
            "adaptive_max_pool2d_backward",
            "layout",
            partial(_adaptive_max_backward_make, (2, 3, 7, 5), (3, 2)),
            adaptive_max_pool2d_backward,
        )
    )[1:],
    *in_every_layout(
        Case(
            "adaptive_avg_pool2d",
            "layout",
            partial(image_make, (2, 3, 7, 5), {"output_size": (3, 2)}),
            adaptive_avg_pool2d,
        )
    )[1:],
    *(
        Case(
            "adaptive_avg_pool2d_backward",
            i,
            partial(_adaptive_backward_make, *s),
            adaptive_avg_pool2d_backward,
        )
        for i, s in _ADAPTIVE.items()
    ),
    *in_every_layout(
        Case(
            "adaptive_avg_pool2d_backward",
            "layout",
            partial(_adaptive_backward_make, (2, 3, 7, 5), (3, 2)),
            adaptive_avg_pool2d_backward,
        )
    )[1:],
    *last_cases("adaptive_avg_pool2d", _adaptive_make, adaptive_avg_pool2d, _LAST),
    *last_cases("adaptive_max_pool2d", _adaptive_make, adaptive_max_pool2d, _LAST),
    *last_cases("adaptive_avg_pool2d_backward", _adaptive_backward_make, adaptive_avg_pool2d_backward, _LAST),
    *last_cases(
        "adaptive_max_pool2d_backward",
        _adaptive_max_backward_make,
        adaptive_max_pool2d_backward,
        _LAST,
    ),
    Case(
        "adaptive_max_pool2d",
        "global_nan_and_inf",
        _last_global_nan_make,
        adaptive_max_pool2d,
        nonfinite=True,
    ),
    Case(
        "adaptive_max_pool2d",
        "last_global_nan_and_inf",
        partial(made_last, _last_global_nan_make),
        with_channels_last(adaptive_max_pool2d),
        nonfinite=True,
    ),
]


def _adaptive_gradient(name: str) -> Gradient:
    shape, output = _ADAPTIVE[name]
    return Gradient(
        "adaptive_avg_pool2d_backward",
        name,
        lambda rng: (rng.standard_normal(shape),),
        lambda ops, x: ops.adaptive_avg_pool2d(x, output),
        lambda ops, dy, x: (ops.adaptive_avg_pool2d_backward(dy, tuple(x.shape)),),
    )


def _adaptive_max_gradient(name: str) -> Gradient:
    shape, output = _ADAPTIVE[name]
    return Gradient(
        "adaptive_max_pool2d_backward",
        name,
        lambda rng: (all_different(rng, shape),),
        lambda ops, x: ops.adaptive_max_pool2d(x, output)[0],
        lambda ops, dy, x: (
            ops.adaptive_max_pool2d_backward(dy, ops.adaptive_max_pool2d(x, output)[1], tuple(x.shape)),
        ),
    )


GRADIENTS = [
    *(
        last_gradient(op, (1, 5, 4, 3), {"output_size": (3, 2)})
        for op in ("adaptive_max_pool2d", "adaptive_avg_pool2d")
    ),
    *(_adaptive_max_gradient(name) for name in ("overlapping", "even")),
    *(_adaptive_gradient(name) for name in ("overlapping", "larger_than_input")),
]

VALID: dict[str, Arguments] = {
    "adaptive_max_pool2d": {"x": np.ones((2, 4, 6, 5), np.float32), "output_size": (3, 2)},
    "adaptive_max_pool2d_backward": {
        "dy": np.ones((2, 4, 3, 2), np.float32),
        "argmax": np.zeros((2, 4, 3, 2), np.uint8),
        "input_shape": (2, 4, 6, 5),
    },
}


def kernel_calls() -> dict[str, Arguments]:
    """A small valid call of the compiled kernels, with fresh arrays."""
    image, small = np.ones((2, 3, 6, 6), np.float32), np.ones((2, 3, 3, 3), np.float32)
    argmax = np.zeros(small.shape, np.uint8)
    return {
        "adaptive_max_pool2d_forward": {"x": image, "y": small, "argmax": argmax, "channels_last": False},
        "adaptive_max_pool2d_backward": {"dy": small, "argmax": argmax, "dx": image, "channels_last": False},
    }
