"""Convolution with 2x2 max pooling: cases and the definition.

x [N, C, H, W], weight [K, C/groups, R, S], bias [K]; y, arg-max [N, K, P//2, Q//2], where the convolution has
P x Q pixels. arg-max counts a window's places row by row, before the activation; the first of equal numbers.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from cases.case import Arguments, Case, Gradient, all_different, away_from_zero, in_every_layout
from cases.conv2d import ACTIVATIONS, conv2d, conv2d_backward

SLOPES = {  # from y
    None: lambda y: np.ones(y.shape),
    "relu": lambda y: np.where(y <= 0, 0.0, 1.0),
    "tanh": lambda y: 1 - y * y,
    "sigmoid": lambda y: y * (1 - y),
}


def conv2d_max_pool(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, activation=None):
    """The four pixels of every window one after the other."""
    full = conv2d(x, weight, bias, stride, padding, dilation, groups)
    n, k, p, q = full.shape
    y = np.zeros((n, k, p // 2, q // 2))
    argmax = np.zeros(y.shape, np.uint8)
    for at in np.ndindex(y.shape):
        best = -np.inf
        for place in range(4):
            value = full[at[0], at[1], 2 * at[2] + place // 2, 2 * at[3] + place % 2]
            if value > best or np.isnan(value):
                best, argmax[at] = value, place
        y[at] = best
    return ACTIVATIONS[activation](y), argmax


def conv2d_max_pool_backward(
    dy,
    x,
    weight,
    y,
    argmax,
    bias=True,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    activation=None,
    need=(True, True),
):
    """The gradient of each window goes to its place; the rest is the convolution's."""
    rest = (stride, padding, dilation, groups)
    full = np.zeros(conv2d(x, weight, None, *rest).shape)
    slope = dy.astype(np.float64) * SLOPES[activation](y.astype(np.float64))
    for at in np.ndindex(dy.shape):
        place = int(argmax[at])
        full[at[0], at[1], 2 * at[2] + place // 2, 2 * at[3] + place % 2] = slope[at]
    return conv2d_backward(full, x, weight, bias, *rest, need)


# id: (x shape, (K, R, S), call arguments); the convolution's output is said where it is not plain
_SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, int, int], Arguments]] = {
    "one_window": ((1, 1, 2, 2), (1, 1, 1), {}),
    "three_by_three_drops": ((2, 2, 5, 5), (3, 3, 3), {}),
    "primes": ((3, 5, 7, 11), (7, 3, 2), {}),  # 5 x 10
    "plain_3x3": ((2, 3, 8, 9), (4, 3, 3), {"padding": 1}),
    "lenet_first": ((2, 1, 16, 16), (6, 5, 5), {}),
    "pointwise": ((2, 7, 6, 4), (9, 1, 1), {}),
    "wide": ((1, 2, 2, 131), (2, 1, 3), {}),
    "tall": ((1, 1, 131, 3), (3, 5, 1), {"padding": (2, 0)}),
    "channels_33": ((1, 33, 5, 3), (35, 2, 2), {}),
    "filters_129": ((1, 2, 3, 3), (129, 2, 2), {}),
    "many_pixels": ((3, 2, 19, 20), (5, 3, 3), {"padding": 1}),
    "strided": ((2, 3, 11, 13), (4, 3, 2), {"stride": 2}),
    "stride_over_kernel": ((2, 3, 11, 17), (4, 2, 2), {"stride": (3, 5)}),
    "one_sided": ((1, 2, 6, 7), (3, 2, 3), {"padding": ((0, 1), 2), "stride": (1, 2)}),
    "same_even": ((2, 3, 5, 6), (2, 4, 2), {"padding": "same", "dilation": (1, 3)}),
    "dilated": ((1, 3, 9, 8), (2, 3, 2), {"dilation": (2, 3)}),
    "all_arguments": (
        (2, 4, 10, 11),
        (6, 3, 2),
        {"stride": (2, 3), "padding": (2, 1), "dilation": (2, 1), "groups": 2},
    ),
    "groups": ((2, 6, 5, 5), (9, 2, 2), {"groups": 3}),
    "depthwise": ((2, 7, 6, 5), (7, 3, 3), {"groups": 7, "padding": 1}),
    "empty_batch": ((0, 3, 5, 5), (4, 3, 3), {}),
}


def _arguments(rng, dtype, shape, filters, call, bias=True, activation=None, ties=False) -> Arguments:
    k_count, r_count, s_count = filters
    c_count = shape[1] // call.get("groups", 1)
    scale = (c_count * r_count * s_count) ** -0.5
    weight_shape = (k_count, c_count, r_count, s_count)
    if ties:  # small whole numbers, of which every type holds the sums
        x, weight = rng.integers(-1, 2, shape), rng.integers(-1, 2, weight_shape)
    else:
        x, weight = rng.standard_normal(shape), scale * rng.standard_normal(weight_shape)
    arguments: Arguments = {"x": x.astype(dtype), "weight": weight.astype(dtype), **call}
    if bias:
        arguments["bias"] = rng.integers(-1, 2, k_count).astype(dtype)
    if activation:
        arguments["activation"] = activation
    return arguments


def _forward_make(shape, more, rng, dtype):
    return _arguments(rng, dtype, *_SHAPES[shape], **more)


def _backward_make(shape, need, more, rng, dtype):
    arguments = _arguments(rng, dtype, *_SHAPES[shape], **more)
    y, argmax = conv2d_max_pool(**arguments)
    bias = arguments.pop("bias", None) is not None
    dy = rng.standard_normal(y.shape).astype(dtype)
    return {"dy": dy, "y": y.astype(dtype), "argmax": argmax, **arguments, "bias": bias, "need": need}


def _spoilt_make(value, rng, dtype):
    arguments = _arguments(rng, dtype, *_SHAPES["many_pixels"], activation="relu")
    arguments["x"][1, 0, 7:9, 5] = value
    return arguments


def _forward_case(name: str, shape: str, **more) -> Case:
    return Case("conv2d_max_pool", name, partial(_forward_make, shape, more), conv2d_max_pool)


def _backward_case(name: str, shape: str, need=(True, True), halves=True, **more) -> Case:
    tolerance = {"float32": 5e-5, "float64": 1e-12}
    make = partial(_backward_make, shape, need, more)
    return Case("conv2d_max_pool_backward", name, make, conv2d_max_pool_backward, tolerance, halves=halves)


CASES = [
    *(_forward_case(name, name) for name in _SHAPES),
    *in_every_layout(_forward_case("layout", "all_arguments", activation="relu"))[1:],
    *(_forward_case(name, "plain_3x3", activation=name) for name in ("relu", "tanh", "sigmoid")),
    _forward_case("relu_without_bias", "channels_33", bias=False, activation="relu"),
    _forward_case("ties", "many_pixels", ties=True),
    _forward_case("relu_ties", "primes", ties=True, activation="relu"),
    Case("conv2d_max_pool", "nan", partial(_spoilt_make, np.nan), conv2d_max_pool, nonfinite=True),
    *(_backward_case(name, name) for name in _SHAPES),
    *(_backward_case(f"relu_{name}", name, activation="relu") for name in _SHAPES),
    *in_every_layout(_backward_case("layout", "all_arguments", activation="relu"))[1:],
    # Their slopes times dy are rounded to 16 bits, as in a pass of their own.
    *(_backward_case(name, "plain_3x3", halves=False, activation=name) for name in ("tanh", "sigmoid")),
    _backward_case("relu_ties", "many_pixels", ties=True, activation="relu"),
    _backward_case("no_bias", "plain_3x3", bias=False, activation="relu"),
    _backward_case("input_only", "plain_3x3", (True, False), bias=False, activation="relu"),
    _backward_case("weight_only", "all_arguments", (False, True), activation="relu"),
    _backward_case("bias_only", "plain_3x3", (False, False), activation="relu"),
    _backward_case("nothing", "plain_3x3", (False, False), bias=False),
]


def _gradient(name: str, activation: str | None) -> Gradient:
    shape, filters, call = _SHAPES[name]

    def inputs(rng):
        # Filters of one tap that matters keep sums of different x apart, and away from a ReLU's kink.
        x = all_different(rng, shape) + 0.003
        made = _arguments(rng, np.float64, shape, filters, call)
        weight = 1e-3 * made["weight"]
        weight[:, 0, 0, 0] = away_from_zero(rng, (filters[0],))
        return x, weight, 0.0007 * away_from_zero(rng, (filters[0],))

    def backward(ops, dy, x, weight, bias):
        y, argmax = ops.conv2d_max_pool(x, weight, bias, **call, activation=activation)
        return ops.conv2d_max_pool_backward(dy, x, weight, y, argmax, **call, activation=activation)

    return Gradient(
        "conv2d_max_pool_backward",
        f"{name}_{activation}",
        inputs,
        lambda ops, x, weight, bias: ops.conv2d_max_pool(x, weight, bias, **call, activation=activation)[0],
        backward,
    )


GRADIENTS = [
    _gradient("three_by_three_drops", None),
    _gradient("strided", "tanh"),
    _gradient("groups", "sigmoid"),
    _gradient("three_by_three_drops", "relu"),
]


def _floats(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


_POOLED = (2, 6, 2, 2)
_CALL = {"x": _floats(2, 4, 6, 5), "weight": _floats(6, 2, 3, 2), "groups": 2}
_BACKWARD = {"dy": _floats(*_POOLED), **_CALL, "y": _floats(*_POOLED), "argmax": np.zeros(_POOLED, np.uint8)}
VALID = {
    "conv2d_max_pool": {**_CALL, "bias": _floats(6)},
    "conv2d_max_pool_backward": {**_BACKWARD, "activation": "relu"},
}
OPTIONAL = {("conv2d_max_pool", "bias")}
BAD = [
    ("conv2d_max_pool", {"bias": _floats(5)}, ValueError, "bias"),
    ("conv2d_max_pool", {"activation": "gelu"}, ValueError, "activation is 'gelu'"),
    (
        "conv2d_max_pool",
        {"stride": (4, 1)},
        ValueError,
        r"output is \(1, 4\) pixels, expected at least \(2, 2\)",
    ),
    ("conv2d_max_pool", {"weight": _floats(6, 2, 3, 5)}, ValueError, r"output is \(4, 1\) pixels"),
    ("conv2d_max_pool", {"padding": 2**31 - 1}, MemoryError, "cannot be allocated"),
    ("conv2d_max_pool_backward", {"dy": _floats(2, 6, 2, 3)}, ValueError, "dy has shape"),
    ("conv2d_max_pool_backward", {"y": _floats(2, 6, 4, 4)}, ValueError, "y has shape"),
    (
        "conv2d_max_pool_backward",
        {"argmax": np.zeros((2, 6, 2, 1), np.uint8)},
        ValueError,
        "argmax has shape",
    ),
    (
        "conv2d_max_pool_backward",
        {"argmax": np.zeros(_POOLED, np.int32)},
        TypeError,
        "argmax has dtype int32",
    ),
    ("conv2d_max_pool_backward", {"activation": "softmax"}, ValueError, "activation"),
    ("conv2d_max_pool_backward", {"need": True}, TypeError, "two bools"),
    ("conv2d_max_pool_backward", {"bias": None}, TypeError, "bias"),
]

_GEOMETRY = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
KERNEL_OUTPUTS = {"conv2d_max_pool_backward": {"dx", "dw", "db"}}
KERNEL_OPTIONAL = {("conv2d_max_pool_backward", name) for name in ("y", "dx", "dw", "db")}


def kernel_calls():
    x, weight, pooled = _floats(2, 3, 6, 6), _floats(4, 3, 3, 3), (2, 4, 2, 2)
    return {
        "conv2d_max_pool_forward": {
            "x": x,
            "weight": weight,
            "bias": _floats(4),
            "y": _floats(*pooled),
            "argmax": np.zeros(pooled, np.uint8),
            **_GEOMETRY,
            "kind": 0,
        },
        "conv2d_max_pool_backward": {
            "dy": _floats(*pooled),
            "y": _floats(*pooled),
            "argmax": np.zeros(pooled, np.uint8),
            "x": x.copy(),
            "weight": weight.copy(),
            "dx": x.copy(),
            "dw": weight.copy(),
            "db": _floats(4),
            **_GEOMETRY,
        },
    }
