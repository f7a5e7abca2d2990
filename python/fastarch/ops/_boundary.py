"""What every operator shares: the boundary that arrays cross, the choice of implementation, argument checks.

An operator is written for plain NumPy (or CuPy) arrays. `@operator` lets callers pass any array: it checks
the operands, views foreign ones without copying, and hands results back as the type that came in. The path
for NumPy arrays is short, because a small network makes thousands of calls a second.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from math import prod
from operator import index as as_index
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy import ndarray

from fastarch import arrays
from fastarch.arrays import Array
from fastarch.backends import implementation

P = ParamSpec("P")
R = TypeVar("R")

Pair = int | tuple[int, int]  # one number for both, or (height, width)

_FLOAT32 = np.dtype(np.float32)
_FLOAT64 = np.dtype(np.float64)
_DIRECT = 1  # the kernels' number of a convolution without transforms (csrc/ops/conv2d.h)
_LARGEST = 2**31 - 1  # of a size, stride, padding or dilation: kernels take 32-bit ones

# The float dtypes that every operator takes, and those that some take.
FULL = ("float32", "float64")
HALVES = ("float16", "bfloat16")

# The numbers by which kernels know the activations (csrc/core/types.h).
ACTIVATIONS = {None: 0, "relu": 1, "tanh": 2, "sigmoid": 3}

# And the layouts of images.
LAYOUTS = {"NCHW": 0, "NHWC": 1}


def operator(
    *floats: str, index: str | None = None, optional: str | None = None, halves: bool = False
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Makes a function of plain arrays an operator on any arrays.

    floats: the leading parameters, arrays of one float dtype; then either `index`, an array of integers, or
    `optional`, a float array that may be None. halves: float16 and bfloat16 are taken as well. The names of
    the float dtypes are the operator's attribute `dtypes`.
    """
    names = (*floats, *([index] if index else []), *([optional] if optional else []))
    required, count = len(floats), len(names)
    dtypes = HALVES + FULL if halves else FULL

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            operands: tuple = args if len(args) <= count else args[:count]
            if kwargs:
                for name in names[len(operands) :]:
                    if name in kwargs:
                        operands += (kwargs[name],)
            # The short way, for host arrays of one of the two float dtypes; the long way explains errors.
            if len(operands) >= required and type(operands[0]) is ndarray:
                dtype = operands[0].dtype
                plain = dtype is _FLOAT32 or dtype is _FLOAT64 or (halves and arrays.is_half(dtype))
                for x in operands[1:required]:
                    if type(x) is not ndarray or x.dtype is not dtype:
                        plain = False
                if len(operands) > required:
                    x = operands[required]
                    if type(x) is not ndarray:
                        plain = plain and x is None and index is None
                    elif x.dtype is not dtype:
                        plain = plain and index is not None
                if plain:
                    return function(*args, **kwargs)
            return _call_adopted(function, names, required, optional, dtypes, args, kwargs)

        call.dtypes = dtypes  # type: ignore[attr-defined]
        return call

    return decorate


def _call_adopted(
    function: Callable[..., R],
    names: tuple[str, ...],
    required: int,
    optional: str | None,
    dtypes: tuple[str, ...],
    args: tuple,
    kwargs: dict,
) -> R:
    """Calls `function` on native views of its arrays and hands its results back as the first one's type."""
    op = function.__name__
    arguments = list(args)
    slots: list[tuple[Any, Any, str]] = [(arguments, i, name) for i, name in enumerate(names[: len(args)])]
    slots += [(kwargs, name, name) for name in names[len(args) :] if name in kwargs]
    if not slots:
        return function(*args, **kwargs)  # raises Python's own error about the missing argument
    (where, key, name) = slots[0]
    with arrays.caller_stream(where[key], op, name):
        adopted: list[tuple[str, Array]] = []
        restore: arrays.Restore | None = None
        for where, key, name in slots:
            if where[key] is None and name == optional:
                continue
            where[key], back = arrays.adopt(where[key], op, name)
            restore = restore or back
            adopted.append((name, where[key]))
        _check_together(op, adopted, names[:required] + ((optional,) if optional else ()), dtypes)
        results: Any = function(*arguments, **kwargs)
        assert restore is not None
        if type(results) is tuple:
            return tuple(None if result is None else restore(result) for result in results)  # type: ignore[return-value]
        return restore(results)


def _check_together(
    op: str, adopted: list[tuple[str, Array]], floats: tuple[str | None, ...], dtypes: tuple[str, ...]
) -> None:
    """All operands in one memory, the float ones of one dtype."""
    first_name, first = adopted[0]
    if str(first.dtype) not in dtypes:  # a dtype of the other byte order has another name
        expected = f"{', '.join(dtypes[:-1])} or {dtypes[-1]}"
        raise TypeError(f"[{op}] {first_name} has dtype {first.dtype}, expected {expected}")
    for name, x in adopted[1:]:
        if name in floats and x.dtype != first.dtype:
            raise TypeError(f"[{op}] {name} has dtype {x.dtype}, expected {first.dtype} as {first_name} has")
        if _place(x) != _place(first):
            raise TypeError(
                f"[{op}] {name} is in {_place(x)} memory, expected {_place(first)} memory as {first_name} is"
            )


def _place(x: Array) -> str:
    return f"CUDA device {x.device.id}" if arrays.on_device(x) else "host"


def companion(
    op: str, name: str, value: Any, like: Array, dtype: Any, shape: tuple[int, ...], optional: bool = False
) -> Any:
    """A further operand as a native array beside `like`, of this dtype and shape; None if it is optional."""
    if value is None and optional:
        return None
    if type(value) is not ndarray or type(like) is not ndarray:
        value = arrays.adopt(value, op, name)[0]
        if _place(value) != _place(like):
            raise TypeError(f"[{op}] {name} is in {_place(value)} memory, expected {_place(like)} memory")
    if value.dtype != dtype:
        raise TypeError(f"[{op}] {name} has dtype {value.dtype}, expected {dtype}")
    if value.shape != shape:
        raise ValueError(f"[{op}] {name} has shape {value.shape}, expected {shape}")
    return value


def run(kernel: str, generic: Callable, inputs: tuple, *rest: Any, **options: Any) -> None:
    """Runs compiled `kernel` on (*inputs, *rest) where the chosen backend has one, else `generic`.

    options: keywords that only the compiled kernel takes.
    16-bit floats go to the kernel only when it takes them; else it, or `generic`, works on float32 copies.
    """
    dtype = inputs[0].dtype
    if dtype is not _FLOAT32 and dtype.itemsize == 2 and not _takes_halves(kernel, inputs[0]):
        _run_widened(kernel, generic, inputs, rest, options)
    elif type(inputs[0]) is ndarray:
        module = implementation(kernel, False)
        if module is None:
            try:
                generic(*inputs, *rest, xp=np)
            except MemoryError as error:
                raise _out_of_memory(kernel, error) from error
        else:
            # carray: contiguous, aligned and writable, the usual case; kernels do not mind read-only inputs.
            ready = [x if x is None or x.flags.carray else _ready(x) for x in inputs]
            getattr(module, kernel)(*ready, *rest, **options)
    else:
        module = implementation(kernel, True)
        if module is None:
            generic(*inputs, *rest, xp=sys.modules["cupy"])
        else:
            ready = [x if x is None or x.flags.c_contiguous else x.copy(order="C") for x in inputs]
            getattr(module, kernel)(*ready, *rest, **options, stream=arrays.stream_pointer())


def _out_of_memory(kernel: str, error: MemoryError) -> MemoryError:
    text = str(error) or "no memory is left"
    return error if text.startswith("[") else MemoryError(f"[{kernel.removesuffix('_forward')}] {text}")


def _takes_halves(kernel: str, x: Array) -> bool:
    return kernel in getattr(implementation(kernel, arrays.on_device(x)), "_half_kernels", ())


def _run_widened(kernel: str, generic: Callable, inputs: tuple, rest: tuple, options: dict) -> None:
    """The same in float32, rounded once at the end; what is both read and written is copied too."""
    if "algorithm" in options:  # transforms are for arrays that are float32 (fastarch.algorithms)
        options = {**options, "algorithm": _DIRECT}
    wide_rest = [widen(x) for x in rest]
    run(kernel, generic, tuple(widen(x) for x in inputs), *wide_rest, **options)
    for x, wide in zip(rest, wide_rest):
        if wide is not x:
            narrow(wide, x)


def widen(x: Any) -> Any:
    """A 16-bit float array as float32; anything else as it is."""
    return x.astype(np.float32) if hasattr(x, "dtype") and arrays.is_half(x.dtype) else x


def narrow(wide: Array, out: Array) -> None:
    """Rounds `wide` into the 16-bit float array `out`; what is too large becomes infinite."""
    with np.errstate(over="ignore"):
        out[...] = wide


def as_type(x: Array, dtype: Any) -> Array:
    """`x` itself where it has the dtype, else a copy, rounded as by narrow()."""
    with np.errstate(over="ignore"):
        return x.astype(dtype, copy=False)


def _ready(x: np.ndarray) -> np.ndarray:
    """`x` as kernels take it: contiguous and aligned."""
    return x if x.flags.c_contiguous and x.flags.aligned else x.copy(order="C")


def namespace(x: Array) -> Any:
    """numpy or cupy for a native array."""
    return np if type(x) is ndarray else sys.modules["cupy"]


def empty(op: str, shape: tuple[int, ...], like: Array, dtype: Any = None) -> Array:
    """A new array where `like` lies; a size that cannot be had is an error that names the operator."""
    try:
        return namespace(like).empty(shape, like.dtype if dtype is None else dtype)
    except (MemoryError, ValueError) as error:
        raise _too_large(op, shape, like.dtype if dtype is None else dtype) from error


def zeros(op: str, shape: tuple[int, ...], like: Array, dtype: Any = None) -> Array:
    """The same, filled with zeros."""
    try:
        return namespace(like).zeros(shape, like.dtype if dtype is None else dtype)
    except (MemoryError, ValueError) as error:
        raise _too_large(op, shape, like.dtype if dtype is None else dtype) from error


def _too_large(op: str, shape: tuple[int, ...], dtype: Any) -> MemoryError:
    size = prod(shape) * np.dtype(dtype).itemsize / 2**30
    return MemoryError(f"[{op}] an array of shape {shape} ({size:.3g} GiB) cannot be allocated")


def pair(op: str, name: str, value: Any, least: int) -> tuple[int, int]:
    """(height, width) from one int or two, each at least `least`."""
    if type(value) is int and least <= value <= _LARGEST:
        return value, value
    if type(value) is tuple and len(value) == 2:
        h, w = value
        if type(h) is int and type(w) is int and least <= h <= _LARGEST and least <= w <= _LARGEST:
            return value
    return _pair_checked(op, name, value, least)


def _pair_checked(op: str, name: str, value: Any, least: int) -> tuple[int, int]:
    parts = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(parts) != 2:
        raise ValueError(f"[{op}] {name} has {len(parts)} numbers, expected one or two (height, width)")
    h, w = integer(op, name, parts[0]), integer(op, name, parts[1])
    if min(h, w) < least or max(h, w) > _LARGEST:
        raise ValueError(f"[{op}] {name} is {value}, expected at least {least} and at most {_LARGEST}")
    return h, w


def as_int64(numbers: Array) -> Array:
    """Whole numbers as int64; what is larger becomes the largest, not a negative number."""
    if numbers.dtype == np.uint64:
        numbers = namespace(numbers).minimum(numbers, np.uint64(2**63 - 1))
    return numbers if numbers.dtype == np.int64 else numbers.astype(np.int64)


def integer(op: str, name: str, value: Any) -> int:
    """An int from anything that is one (NumPy's too); bool and float are not."""
    if type(value) is int:
        return value
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        raise TypeError(f"[{op}] {name} is {value!r}, expected an int")
    return as_index(value)


def random_seed(op: str, value: Any, name: str = "seed") -> int:
    """A word that names a random stream."""
    value = integer(op, name, value)
    if not 0 <= value < 2**64:
        raise ValueError(f"[{op}] {name} is {value}, expected 0 to 2**64 - 1")
    return value


def random_offset(op: str, value: Any, like: Array, name: str = "offset") -> tuple[int, Array | None]:
    """The other word, or an array [1] of int64 beside `like` with its bits: (offset, None) or (0, array)."""
    if hasattr(value, "dtype") and getattr(value, "ndim", 0) > 0:
        return 0, companion(op, name, value, like, np.dtype(np.int64), (1,))
    return random_seed(op, value, name), None


def number(op: str, name: str, value: Any, least: float) -> float:
    """A finite float of at least `least`."""
    try:
        result = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"[{op}] {name} is {value!r}, expected a number") from None
    if not least <= result < float("inf"):
        raise ValueError(f"[{op}] {name} is {value}, expected a number of at least {least}")
    return result


def flag(op: str, name: str, value: Any) -> bool:
    """A bool, and nothing that merely has a truth value: arguments in the wrong place are found out here."""
    if value is True or value is False:
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    raise TypeError(f"[{op}] {name} is {value!r}, expected True or False")


def flags(op: str, name: str, value: Any) -> tuple[bool, bool]:
    """Two bools."""
    if (type(value) is not tuple and type(value) is not list) or len(value) != 2:
        raise TypeError(f"[{op}] {name} is {value!r}, expected two bools")
    return flag(op, name, value[0]), flag(op, name, value[1])


def activation_kind(op: str, activation: str | None) -> int:
    """The number of an activation's name."""
    try:
        return ACTIVATIONS[activation]
    except (KeyError, TypeError):
        raise ValueError(
            f"[{op}] activation is {activation!r}, expected None, 'relu', 'tanh' or 'sigmoid'"
        ) from None


def channels_last(op: str, layout: str) -> bool:
    """Whether images come as [N, H, W, C]."""
    try:
        return LAYOUTS[layout] == 1
    except (KeyError, TypeError):
        raise ValueError(f"[{op}] layout is {layout!r}, expected 'NCHW' or 'NHWC'") from None


def expect_dims(op: str, name: str, x: Array, dims: int, letters: str) -> None:
    if x.ndim != dims:
        raise ValueError(f"[{op}] {name} has shape {x.shape}, expected {dims} dimensions {letters}")


def expect_shape(op: str, name: str, x: Array, shape: tuple[int, ...]) -> None:
    if x.shape != shape:
        raise ValueError(f"[{op}] {name} has shape {x.shape}, expected {shape}")


def shape_of(op: str, name: str, shape: Any, dims: int, letters: str) -> tuple[int, ...]:
    """A shape argument as a tuple of ints."""
    if type(shape) is tuple and len(shape) == dims == 4:
        a, b, c, d = shape
        if type(a) is type(b) is type(c) is type(d) is int and a >= 0 and b >= 0 and c >= 0 and d >= 0:
            return shape
    if not isinstance(shape, (tuple, list)):
        raise TypeError(f"[{op}] {name} is {shape!r}, expected a shape {letters}")
    sizes = tuple(integer(op, name, size) for size in shape)
    if len(sizes) != dims or min(sizes, default=0) < 0:
        raise ValueError(f"[{op}] {name} is {sizes}, expected {dims} sizes {letters}, none negative")
    return sizes


__all__ = [
    "ACTIVATIONS",
    "FULL",
    "HALVES",
    "Array",
    "Pair",
    "activation_kind",
    "as_type",
    "companion",
    "empty",
    "expect_dims",
    "expect_shape",
    "flag",
    "flags",
    "integer",
    "namespace",
    "narrow",
    "number",
    "operator",
    "pair",
    "random_offset",
    "random_seed",
    "run",
    "shape_of",
    "widen",
    "zeros",
]
