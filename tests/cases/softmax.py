"""Softmax and cross-entropy: cases and definitions. logits [N, C], target int64 [N], a loss for each row."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from cases.case import Arguments, Case, Gradient, in_every_layout


def _over_axis(function, axis, *arrays):
    """function on every 1-D row along `axis`, in float64."""
    moved = [np.moveaxis(a.astype(np.float64), axis, -1) for a in arrays]
    out = np.zeros(moved[0].shape)
    for index in np.ndindex(out.shape[:-1]):
        out[index] = function(*(a[index] for a in moved))
    return np.moveaxis(out, -1, axis)


def _softmax_row(row):
    top = max(row)
    powers = [math.exp(v - top) for v in row]
    return [p / math.fsum(powers) for p in powers]


def _log_softmax_row(row):
    top = max(row)
    log_sum = math.log(math.fsum(math.exp(v - top) for v in row))
    return [v - top - log_sum for v in row]


def softmax(x, axis=-1):
    """y_i = exp(x_i) / sum over j of exp(x_j)."""
    return _over_axis(_softmax_row, axis, x)


def log_softmax(x, axis=-1):
    """y_i = x_i - log(sum over j of exp(x_j))."""
    return _over_axis(_log_softmax_row, axis, x)


def softmax_backward(dy, y, axis=-1):
    """dx_i = y_i (dy_i - sum over j of dy_j y_j)."""
    return _over_axis(lambda d, v: v * (d - math.fsum(d * v)), axis, dy, y)


def log_softmax_backward(dy, y, axis=-1):
    """dx_i = dy_i - exp(y_i) * sum over j of dy_j."""
    return _over_axis(lambda d, v: d - np.exp(v) * math.fsum(d), axis, dy, y)


def cross_entropy(logits, target, ignore_index=-100):
    """loss[n] = -log softmax(logits[n])[target[n]], and the softmax.

    The loss is 0 where the target is ignored and NaN where it is no class.
    """
    n_count, c_count = logits.shape
    probs, logs = softmax(logits), log_softmax(logits)
    loss = np.zeros(n_count)
    for n in range(n_count):
        if target[n] != ignore_index:
            loss[n] = -logs[n, target[n]] if 0 <= target[n] < c_count else np.nan
    return loss, probs


def cross_entropy_backward(dloss, probs, target, ignore_index=-100):
    """dlogits[n] = (probs[n] - onehot(target[n])) dloss[n], 0 where ignored."""
    dlogits = np.zeros(probs.shape)
    for n in range(len(probs)):
        if target[n] != ignore_index:
            dlogits[n] = probs[n].astype(np.float64) * float(dloss[n])
            dlogits[n, target[n]] -= float(dloss[n])
    return dlogits


# id: (shape, axis)
_SHAPES = {
    "one": ((1, 1), -1),
    "primes": ((7, 13), -1),
    "one_row": ((1, 129), -1),
    "over_a_block": ((3, 1031), -1),
    "packed_lanes": ((5, 96), -1),
    "packed_registers": ((3, 1024), -1),
    "packed_block": ((2, 2056), -1),
    "one_axis": ((5,), -1),
    "first_axis": ((5, 3), 0),
    "middle_axis": ((2, 5, 3), 1),
    "four_axes": ((2, 3, 4, 5), -2),
    "empty_batch": ((0, 4), -1),
}


def _make(name, rng, dtype) -> Arguments:
    shape, axis = _SHAPES[name]
    return {"x": rng.normal(0.0, 3.0, shape).astype(dtype), "axis": axis}


def _backward_make(forward, name, rng, dtype) -> Arguments:
    arguments = _make(name, rng, dtype)
    y = forward(arguments["x"], arguments["axis"]).astype(dtype)
    dy = rng.standard_normal(y.shape).astype(dtype)
    return {"dy": dy, "y": np.ascontiguousarray(y), "axis": arguments["axis"]}


def _huge_make(rng, dtype) -> Arguments:
    # exp of any of these overflows or underflows; the result does neither.
    return {"x": np.array([[1e4, 0.0, -1e4], [-1e4, -1e4, -1e4], [1e4, 1e4, 1e4 - 1]], dtype)}


def _masked_make(rng, dtype) -> Arguments:
    return {"x": np.array([[-np.inf, 0.0, 1.0], [2.0, -np.inf, -np.inf]], dtype)}


# id: (N, C, every how many targets one is ignored)
_BATCHES = {"one": (1, 1, 0), "primes": (7, 13, 0), "ignored": (9, 5, 3), "all_ignored": (3, 4, 1)}
_BATCHES |= {"packed": (3, 104, 0), "packed_wide": (2, 2056, 2)}
_BATCHES |= {"wide": (2, 1031, 0), "tall": (129, 10, 5), "empty_batch": (0, 4, 0)}


def _entropy_make(name, ignore_index, rng, dtype) -> Arguments:
    n_count, c_count, every = _BATCHES[name]
    target = rng.integers(0, c_count, n_count)
    arguments: Arguments = {"logits": rng.normal(0.0, 3.0, (n_count, c_count)).astype(dtype)}
    if every:
        target[::every] = -100 if ignore_index is None else ignore_index
    arguments["target"] = target.astype(np.int64)
    if ignore_index is not None:
        arguments["ignore_index"] = ignore_index
    return arguments


def _entropy_backward_make(name, ignore_index, rng, dtype) -> Arguments:
    arguments = _entropy_make(name, ignore_index, rng, dtype)
    probs = softmax(arguments.pop("logits")).astype(dtype)
    return {"dloss": rng.standard_normal(len(probs)).astype(dtype), "probs": probs, **arguments}


def _entropy_huge_make(rng, dtype) -> Arguments:
    logits = np.array([[1e4, 0.0, -1e4], [-1e4, 1e4, 0.0]], dtype)
    return {"logits": logits, "target": np.array([0, 0], np.int64)}


def _entropy(name: str, ignore_index: int | None = None) -> Case:
    case = f"{name}_{ignore_index}" if ignore_index is not None else name
    return Case("cross_entropy", case, partial(_entropy_make, name, ignore_index), cross_entropy)


def _entropy_backward(name: str, ignore_index: int | None = None) -> Case:
    case = f"{name}_{ignore_index}" if ignore_index is not None else name
    make = partial(_entropy_backward_make, name, ignore_index)
    return Case("cross_entropy_backward", case, make, cross_entropy_backward)


_BACKWARDS = (("softmax", softmax, softmax_backward), ("log_softmax", log_softmax, log_softmax_backward))

CASES = [
    *(Case("softmax", name, partial(_make, name), softmax) for name in _SHAPES),
    *in_every_layout(Case("softmax", "layout", partial(_make, "middle_axis"), softmax))[1:],
    Case("softmax", "huge", _huge_make, softmax),
    Case("softmax", "masked", _masked_make, softmax),
    *(Case("log_softmax", name, partial(_make, name), log_softmax) for name in _SHAPES),
    *in_every_layout(Case("log_softmax", "layout", partial(_make, "middle_axis"), log_softmax))[1:],
    Case("log_softmax", "huge", _huge_make, log_softmax),
    Case("log_softmax", "masked", _masked_make, log_softmax, nonfinite=True),
    *(
        Case(f"{op}_backward", name, partial(_backward_make, forward, name), backward)
        for op, forward, backward in _BACKWARDS
        for name in _SHAPES
    ),
    *(
        case
        for op, forward, backward in _BACKWARDS
        for case in in_every_layout(
            Case(f"{op}_backward", "layout", partial(_backward_make, forward, "middle_axis"), backward)
        )[1:]
    ),
    *(_entropy(name) for name in _BATCHES),
    _entropy("ignored", 2),
    _entropy("ignored", -1),
    *in_every_layout(_entropy("primes"))[1:],
    Case("cross_entropy", "huge", _entropy_huge_make, cross_entropy),
    *(_entropy_backward(name) for name in _BATCHES),
    _entropy_backward("ignored", 2),
    *in_every_layout(_entropy_backward("primes"))[1:],
]


def _axis_gradient(op: str) -> Gradient:
    return Gradient(
        f"{op}_backward",
        "middle_axis",
        lambda rng: (rng.standard_normal((2, 5, 3)),),
        lambda ops, x: getattr(ops, op)(x, axis=1),
        lambda ops, dy, x: (getattr(ops, f"{op}_backward")(dy, getattr(ops, op)(x, axis=1), axis=1),),
    )


GRADIENTS = [
    _axis_gradient("softmax"),
    _axis_gradient("log_softmax"),
    Gradient(
        "cross_entropy_backward",
        "one_ignored",
        lambda rng: (rng.standard_normal((4, 5)), np.array([0, 4, -100, 2], np.int64)),
        lambda ops, x, target: ops.cross_entropy(x, target)[0],
        lambda ops, dy, x, target: (
            ops.cross_entropy_backward(dy, ops.cross_entropy(x, target)[1], target),
            None,
        ),
    ),
]
