"""Calls every kernel of a compiled module directly with wrong arguments: `python hostile_calls.py emulator`.

Each call is printed before it is made, so that the last line names the one that crashed. A call that must be
refused has to raise TypeError, ValueError or OverflowError and leave its outputs as they were; the others may
do anything but crash. Exits with 1 and a list on standard error when some call did not.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

import cases

REFUSALS = (TypeError, ValueError, OverflowError)

Arguments = dict[str, Any]


def floats(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


_CONVOLUTION = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
_POOLING = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0)}
_X, _Y, _FILTERS, _POOLED = (2, 3, 6, 6), (2, 4, 4, 4), (4, 3, 3, 3), (2, 3, 3, 3)


def valid_calls() -> dict[str, Arguments]:
    """A small valid call of every kernel, with fresh arrays."""
    argmax = np.zeros(_POOLED, np.uint8)
    target = np.array([0, 4, 1], np.int64)
    return {
        **cases.kernel_calls(),
        "activation_forward": {"x": floats(3, 5), "y": floats(3, 5), "kind": 1},
        "activation_backward": {"dy": floats(3, 5), "y": floats(3, 5), "dx": floats(3, 5), "kind": 2},
        "linear_forward": {
            "x": floats(3, 4),
            "weight": floats(5, 4),
            "bias": floats(5),
            "y": floats(3, 5),
            "kind": 0,
        },
        "linear_backward_input": {"dy": floats(3, 5), "weight": floats(5, 4), "dx": floats(3, 4)},
        "linear_backward_weight": {
            "dy": floats(3, 5),
            "x": floats(3, 4),
            "dw": floats(5, 4),
            "db": floats(5),
        },
        "conv2d_forward": {
            "x": floats(*_X),
            "weight": floats(*_FILTERS),
            "bias": floats(4),
            "residual": floats(*_Y),
            "y": floats(*_Y),
            **_CONVOLUTION,
            "kind": 0,
        },
        "conv2d_backward_input": {
            "dy": floats(*_Y),
            "weight": floats(*_FILTERS),
            "dx": floats(*_X),
            **_CONVOLUTION,
        },
        "conv2d_backward_weight": {
            "dy": floats(*_Y),
            "x": floats(*_X),
            "dw": floats(*_FILTERS),
            "db": floats(4),
            **_CONVOLUTION,
        },
        "max_pool2d_forward": {
            "x": floats(*_X),
            "y": floats(*_POOLED),
            "argmax": argmax,
            **_POOLING,
            "dilation": (1, 1),
            "channels_last": False,
        },
        "max_pool2d_backward": {
            "dy": floats(*_POOLED),
            "argmax": argmax,
            "dx": floats(*_X),
            **_POOLING,
            "dilation": (1, 1),
            "channels_last": False,
        },
        "avg_pool2d_forward": {
            "x": floats(*_X),
            "y": floats(*_POOLED),
            **_POOLING,
            "count_include_pad": True,
            "channels_last": False,
        },
        "avg_pool2d_backward": {
            "dy": floats(*_POOLED),
            "dx": floats(*_X),
            **_POOLING,
            "count_include_pad": True,
            "channels_last": False,
        },
        "adaptive_avg_pool2d_forward": {"x": floats(*_X), "y": floats(*_POOLED), "channels_last": False},
        "adaptive_avg_pool2d_backward": {"dy": floats(*_POOLED), "dx": floats(*_X), "channels_last": False},
        "softmax_forward": {"x": floats(3, 5), "y": floats(3, 5)},
        "softmax_backward": {"dy": floats(3, 5), "y": floats(3, 5), "dx": floats(3, 5)},
        "cross_entropy_forward": {
            "x": floats(3, 5),
            "target": target,
            "loss": floats(3),
            "probs": floats(3, 5),
            "ignore_index": -100,
        },
        "cross_entropy_backward": {
            "dloss": floats(3),
            "probs": floats(3, 5),
            "target": target,
            "dx": floats(3, 5),
            "ignore_index": -100,
        },
        "dropout_forward": {
            "x": floats(3, 5),
            "y": floats(3, 5),
            "p": 0.5,
            "seed": 1,
            "offset": 2,
            "word": np.ones(1, np.int64),
        },
    }


# None is their absence.
OPTIONAL = {"bias", "db", "argmax", "residual", "word"}
OPTIONAL_IN = {
    ("recurrent_backward", "dy"),
    ("batch_norm_forward", "weight"),
    ("batch_norm_inference", "weight"),
    ("batch_norm_backward", "weight"),
    ("batch_norm_backward", "y"),
    ("batch_norm_backward", "dresidual"),
}
OUTPUTS = {
    "forward": {"y", "loss", "probs", "argmax", "gates", "h", "c", "extra", "mean", "var"},
    "inference": {"y"},
    "backward": {"dx", "dh", "dc", "da", "dresidual", "dweight", "dbias"},
    "backward_input": {"dx"},
    "backward_weight": {"dw", "db"},
}


def outputs_of(kernel: str) -> set[str]:
    by_ending = (names for end, names in OUTPUTS.items() if kernel.endswith("_" + end))
    return cases.KERNEL_OUTPUTS[kernel] if kernel in cases.KERNEL_OUTPUTS else next(by_ending)


def hostile_arrays(value: np.ndarray, is_output: bool) -> Iterator[tuple[str, Any]]:
    """What must be refused in place of the array `value`."""
    yield "text", "text"
    yield "number", 3.0
    yield "list", value.tolist()
    yield "float16", value.astype(np.float16)
    yield "complex64", value.astype(np.complex64)
    yield "big-endian", value.astype(value.dtype.newbyteorder(">")) if value.itemsize > 1 else "text"
    yield "objects", value.astype(object)
    yield "another dtype", value.astype(np.float64 if value.dtype == np.float32 else np.float32)
    yield "an axis more", value[None]
    yield "an axis less", value[0].copy()
    yield "one row less", value[1:].copy()
    yield "one row more", np.concatenate([value, value[:1]])
    yield "no rows", value[:0].copy()
    strided = np.zeros((*value.shape[:-1], 2 * value.shape[-1]), value.dtype)[..., ::2]
    yield "strided", strided
    yield "reversed", value[::-1]
    yield "nine axes", value.reshape((1,) * (9 - value.ndim) + value.shape)
    if value.ndim > 1:
        yield "transposed", np.array(value.T, order="C").T
        yield "broadcast", np.broadcast_to(value[:1] * 0, value.shape)
    if is_output:
        frozen = value.copy()
        frozen.flags.writeable = False
        yield "read-only", frozen


def hostile_values(name: str, value: Any) -> Iterator[tuple[Any, bool]]:
    """(value, must it be refused) in place of a number, a pair or a flag."""
    yield None, not isinstance(value, bool)  # which None passes for
    yield from ((wrong, True) for wrong in ("2", [[]], object()))
    if isinstance(value, tuple):
        for wrong in ((0, 1), (1, 0), (-1, 1), (1, -1), (-(2**31), 1)):
            yield wrong, name != "padding" or min(wrong) < 0
        for wrong in ((2**31, 1), (1, 2**62), (2**63, 1), (2**200, 1), (1,), (1, 2, 3), (1.5, 1), ("1", 1)):
            yield wrong, True
        for large in (2**15, 2**20, 2**29, 2**30, 2**31 - 1):
            yield (large, large), False
            yield (1, large), False
    elif name in ("groups", "kind"):
        yield from ((wrong, True) for wrong in (-1, 4, 2**31, 2**63, 1.5))
        if name == "groups":
            yield from ((wrong, True) for wrong in (0, 2, 3, 2**31 - 1))
    elif name == "p":
        yield from ((wrong, True) for wrong in (-0.5, 1.5, float("nan"), float("inf")))
    elif name == "eps":
        yield from ((wrong, True) for wrong in (-1.0, float("nan"), float("inf")))
    elif name == "cell":
        yield from ((wrong, True) for wrong in (-1, 0, 1, 3, 4, 5, 2**31, 2**63, 1.5))
    elif name == "algorithm":
        yield from ((wrong, True) for wrong in (-1, 4, 2**31, 2**63, 1.5))
        yield from ((other, False) for other in (2, 3))
    elif name == "sizes":
        for wrong in ([2, 3], [3, 3], [4, 1], [6, -1], [5], [], [2**62, 2**62], [2**63], [1.5], [None]):
            yield wrong, True
    elif name == "radius":
        yield from ((wrong, True) for wrong in (0.0, -1.0, float("nan"), float("inf")))
    elif name in ("rows", "columns"):
        yield from ((wrong, True) for wrong in (-1, 0, 1, 7, 2**31, 2**62, 2**63, 1.5))
    elif isinstance(value, list):  # of arrays
        good, *rest = value
        for wrong in ([], rest, [good], [*rest, good], [good.astype(float), *rest], [good[None, ::2], *rest]):
            yield wrong, True
    elif name in ("seed", "offset"):
        yield from ((wrong, True) for wrong in (-1, 2**64, 1.5))
    elif name == "ignore_index":
        yield from ((wrong, True) for wrong in (2**63, -(2**63) - 1, 1.5))
        yield from ((odd, False) for odd in (-(2**63), 2**63 - 1, 0))


def hostile_calls(kernel: str) -> Iterator[tuple[str, Arguments, bool]]:
    """(description, arguments, must it be refused) for every way to spoil one argument of a call."""

    def spoilt(name: str, wrong: Any) -> Arguments:
        return {**valid_calls()[kernel], name: wrong}  # fresh arrays: what one call wrote is no other's input

    for name, value in valid_calls()[kernel].items():
        if isinstance(value, np.ndarray):
            elementwise = kernel.startswith(("activation", "dropout"))
            for what, wrong in hostile_arrays(value, name in outputs_of(kernel)):
                # These kernels count elements, whatever the axes.
                free = elementwise and what == "an axis more"
                free = free or (kernel, name, what) in cases.FREE
                yield f"{name}: {what}", spoilt(name, wrong), not free
            optional = name in OPTIONAL or (kernel, name) in OPTIONAL_IN | cases.KERNEL_OPTIONAL
            yield f"{name}: None", spoilt(name, None), not optional
        elif value is None:  # what another cell has must not be given for this one
            yield f"{name}: given", spoilt(name, floats(5, 20)), True
        else:
            wrong_here = ((wrong, True) for wrong in cases.KERNEL_WRONG.get((kernel, name), ()))
            for wrong, refuse in (*hostile_values(name, value), *wrong_here):
                yield f"{name}={wrong!r}", spoilt(name, wrong), refuse


def hostile_contents(module: Any) -> Iterator[tuple[str, str, Arguments]]:
    """Valid calls whose index arrays hold nonsense: no memory outside the operands may be touched."""
    for classes in ([5, -1, 2**62], [-(2**63), 2**63 - 1, 0], [2**31, 2**32, 2**32 + 1]):
        for kernel in ("cross_entropy_forward", "cross_entropy_backward"):
            arguments = valid_calls()[kernel] | {"target": np.array(classes, np.int64)}
            yield kernel, f"target={classes}", arguments
    for units in ([6, -2, 2**62, -(2**63), 2**63 - 1], [2**31, 2**32, 2**32 + 1, -1, 6]):
        yield (
            "som_totals_forward",
            f"index={units}",
            valid_calls()["som_totals_forward"] | {"index": np.array(units, np.int64)},
        )
    for index in (4, 17, 255):
        for last in (False, True):
            arguments = valid_calls()["max_pool2d_backward"] | {"channels_last": last}
            if last:
                arguments |= {
                    name: floats(2, 8, 6, 4) if name == "dx" else floats(2, 4, 3, 4) for name in ("dx", "dy")
                }
                arguments["argmax"] = np.zeros((2, 4, 3, 4), np.uint8)
            arguments["argmax"][...] = index
            yield "max_pool2d_backward", f"argmax={index} last={last}", arguments
    for index in (-1, -(2**31), 2**31 - 1, 289):
        argmax = np.full((1, 1, 1, 1), index, np.int32)
        arguments = {"dy": floats(1, 1, 1, 1), "argmax": argmax, "dx": floats(1, 1, 17, 17)}
        arguments |= {"kernel": (17, 17), "stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
        arguments |= {"channels_last": False}
        yield "max_pool2d_backward", f"argmax={index} of 17x17", arguments


def main(name: str) -> int:
    module = importlib.import_module(f"fastarch._{name}")
    kernels = valid_calls()
    endings = ("_forward", "_inference", "_backward", "_input", "_weight", "_update")
    public = {k for k in dir(module) if k.endswith(endings) or k in kernels}
    problems = [f"{k} is a kernel that hostile_calls.py does not know" for k in public - kernels.keys()]
    count = 0
    for kernel in sorted(public & kernels.keys()):
        getattr(module, kernel)(**valid_calls()[kernel])
        for what, arguments, refuse in hostile_calls(kernel):
            problems += attempt(module, kernel, what, arguments, refuse)
            count += 1
    for kernel, what, arguments in hostile_contents(module):
        if kernel in public:
            problems += attempt(module, kernel, what, arguments, False)
            count += 1
    print(f"{count} hostile calls of {len(public)} kernels of _{name}: {len(problems)} problems", flush=True)
    print("\n".join(problems), file=sys.stderr)
    return 1 if problems else 0


def attempt(module: Any, kernel: str, what: str, arguments: Arguments, refuse: bool) -> list[str]:
    """Makes one call; the list of what was wrong about its answer."""
    where = f"{kernel}({what})"
    print(where, flush=True)
    arrays = {n: a for n, a in arguments.items() if isinstance(a, np.ndarray) and a.dtype != object}
    before = {n: a.tobytes() for n, a in arrays.items()}
    try:
        getattr(module, kernel)(**arguments)
    except REFUSALS as error:
        changed = [n for n, a in arrays.items() if a.tobytes() != before[n]]
        return [f"{where} was refused after writing {changed}: {error}"] if changed else []
    except MemoryError as error:
        # An honest answer to a huge number that is not wrong in itself.
        return [f"{where} raised {error!r}, expected a refusal"] if refuse else []
    except Exception as error:
        return [f"{where} raised {error!r}, expected one of {[e.__name__ for e in REFUSALS]}"]
    return [f"{where} was taken"] if refuse else []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
