"""Linear layer: cases and the definition. x [..., I], weight [O, I], bias [O], y [..., O]."""

from __future__ import annotations

from functools import partial

import numpy as np

from cases.case import Arguments, Case, Gradient, in_every_layout
from cases.conv2d import ACTIVATIONS


def linear(x, weight, bias=None, activation=None):
    """y[m, o] = f(bias[o] + sum over i of x[m, i] weight[o, i])."""
    (o_count, i_count), lead = weight.shape, x.shape[:-1]
    rows = x.reshape(int(np.prod(lead)), i_count).astype(np.float64)
    y = np.zeros((len(rows), o_count))
    for m in range(len(rows)):
        for o in range(o_count):
            total = 0.0 if bias is None else float(bias[o])
            for i in range(i_count):
                total += rows[m, i] * float(weight[o, i])
            y[m, o] = total
    return ACTIVATIONS[activation](y).reshape(*lead, o_count)


def linear_backward(dy, x, weight, bias=True, need=(True, True)):
    """The chain rule, one product of the definition at a time."""
    (o_count, i_count), lead = weight.shape, x.shape[:-1]
    rows = x.reshape(int(np.prod(lead)), i_count).astype(np.float64)
    dy_rows = dy.reshape(len(rows), o_count).astype(np.float64)
    dx, dw, db = np.zeros(rows.shape), np.zeros(weight.shape), np.zeros(o_count)
    for m in range(len(rows)):
        for o in range(o_count):
            db[o] += dy_rows[m, o]
            for i in range(i_count):
                dx[m, i] += dy_rows[m, o] * float(weight[o, i])
                dw[o, i] += dy_rows[m, o] * rows[m, i]
    return (dx.reshape(x.shape) if need[0] else None, dw if need[1] else None, db if bias else None)


# id: (shape of x, O)
_SHAPES = {
    "one": ((1, 1), 1),
    "primes": ((7, 13), 5),
    "one_row": ((1, 17), 33),
    "one_long_row": ((1, 133), 71),
    "one_column": ((5, 1), 3),
    "one_output": ((9, 31), 1),
    "rows_129": ((129, 3), 2),
    "inner_129": ((3, 129), 4),
    "outputs_129": ((2, 5), 129),
    "tile_edge": ((65, 17), 66),
    "three_axes": ((2, 3, 7), 4),
    "one_axis": ((6,), 4),
    "empty_batch": ((0, 5), 3),
}


def _forward_make(name, bias, activation, rng, dtype) -> Arguments:
    shape, o_count = _SHAPES[name]
    arguments: Arguments = {
        "x": rng.standard_normal(shape).astype(dtype),
        "weight": (shape[-1] ** -0.5 * rng.standard_normal((o_count, shape[-1]))).astype(dtype),
    }
    if bias:
        arguments["bias"] = rng.standard_normal(o_count).astype(dtype)
    if activation:
        arguments["activation"] = activation
    return arguments


def _backward_make(name, more, rng, dtype) -> Arguments:
    shape, o_count = _SHAPES[name]
    arguments = _forward_make(name, False, None, rng, dtype)
    return {"dy": rng.standard_normal((*shape[:-1], o_count)).astype(dtype), **arguments, **more}


def _forward_case(case: str, shape: str, bias=True, activation=None) -> Case:
    return Case("linear", case, partial(_forward_make, shape, bias, activation), linear)


def _backward_case(case: str, shape: str, **more) -> Case:
    tolerance = {"float32": 5e-5, "float64": 1e-12}
    return Case("linear_backward", case, partial(_backward_make, shape, more), linear_backward, tolerance)


CASES = [
    *(_forward_case(name, name) for name in _SHAPES),
    *in_every_layout(_forward_case("layout", "primes"))[1:],
    _forward_case("no_bias", "primes", bias=False),
    *(_forward_case(name, "primes", activation=name) for name in ("relu", "tanh", "sigmoid")),
    *(_backward_case(name, name) for name in _SHAPES),
    *in_every_layout(_backward_case("layout", "primes"))[1:],
    _backward_case("no_bias", "primes", bias=False),
    _backward_case("input_only", "primes", bias=False, need=(True, False)),
    _backward_case("weight_only", "primes", need=(False, True)),
    _backward_case("bias_only", "primes", need=(False, False)),
]


def _gradient(name: str) -> Gradient:
    def inputs(rng):
        made = _forward_make(name, True, None, rng, np.float64)
        return made["x"], made["weight"], made["bias"]

    return Gradient(
        "linear_backward",
        name,
        inputs,
        lambda ops, x, weight, bias: ops.linear(x, weight, bias),
        lambda ops, dy, x, weight, bias: ops.linear_backward(dy, x, weight, bias=True),
    )


GRADIENTS = [_gradient(name) for name in ("one", "primes", "three_axes")]
