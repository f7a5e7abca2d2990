"""What the operators of restricted Boltzmann machines take: native arrays, checked sizes and units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastarch import arrays
from fastarch.ops import _rbm
from fastarch.ops._boundary import Array, expect_dims, expect_shape, integer, namespace

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))

Named = list[tuple[str, Any, bool]]  # name, array, whether it may be None


def natives_of(op: str, named: Named) -> tuple[list[Any], arrays.Restore]:
    """The arrays as NumPy or CuPy arrays of one float dtype in one memory, None where one may be and is.

    Also the function that turns a result into the type of the first one.
    """
    dtype = getattr(named[0][1], "dtype", None)
    if dtype is _FLOATS[0] or dtype is _FLOATS[1]:  # host arrays as a rule; the long way explains errors
        for _, x, optional in named:
            if (x is not None or not optional) and (type(x) is not np.ndarray or x.dtype is not dtype):
                break
        else:
            return [x for _, x, _ in named], arrays.as_is
    natives: list[Any] = []
    restore: arrays.Restore = arrays.as_is
    first_name, first, _ = named[0]
    for i, (name, value, optional) in enumerate(named):
        if value is None and optional:
            natives.append(None)
            continue
        native, back = arrays.adopt(value, op, name)
        if i == 0:
            first, restore = native, back
            if native.dtype not in _FLOATS:
                raise TypeError(f"[{op}] {name} has dtype {native.dtype}, expected float32 or float64")
        elif native.dtype != first.dtype:
            raise TypeError(
                f"[{op}] {name} has dtype {native.dtype}, expected {first.dtype} as {first_name} has"
            )
        expect_place(op, name, native, first_name, first)
        natives.append(native)
    return natives, restore


def expect_place(op: str, name: str, x: Array, first_name: str, first: Array) -> None:
    """Raises TypeError where x is in other memory than first."""
    if _place(x) != _place(first):
        raise TypeError(
            f"[{op}] {name} is in {_place(x)} memory, expected {_place(first)} memory as {first_name} is"
        )


def _place(x: Array) -> str:
    return f"CUDA device {x.device.id}" if arrays.on_device(x) else "host"


def precision_of(sigma: Array) -> Array:
    """1 / sigma^2."""
    return 1 / (sigma * sigma)


def upward(w: Array, sigma: Array | None) -> Array:
    """The weights that lead from visible to hidden units."""
    return w if sigma is None else w * precision_of(sigma)[:, None]


def check_sizes(
    op: str,
    v: Array | None,
    w: Array,
    b_visible: Array | None,
    b_hidden: Array | None,
    sigma: Array | None,
) -> None:
    """Raises ValueError where the arrays, those that are given, do not fit together."""
    expect_dims(op, "w", w, 2, "[V, H]")
    if v is not None:
        expect_dims(op, "v", v, 2, "[B, V]")
        if v.shape[1] != len(w):
            raise ValueError(f"[{op}] v has shape {v.shape}, w {w.shape} expects {len(w)} visible units")
    if b_visible is not None:
        expect_shape(op, "b_visible", b_visible, w.shape[:1])
    if b_hidden is not None:
        expect_shape(op, "b_hidden", b_hidden, w.shape[1:])
    if sigma is not None:
        expect_shape(op, "sigma", sigma, w.shape[:1])


def kind_of(op: str, name: str, unit: Any, known: Mapping[str, int]) -> int:
    """The number of a unit's name."""
    try:
        return known[unit]
    except (KeyError, TypeError):
        raise ValueError(f"[{op}] {name} is {unit!r}, expected one of {', '.join(known)}") from None


def group_of(op: str, kind: int, group_size: int | None, visible: int) -> int:
    """The units of a softmax group, 1 for other units."""
    if kind != _rbm.SOFTMAX:
        if group_size is not None:
            raise ValueError(f"[{op}] group_size is {group_size!r}, expected None: no softmax units")
        return 1
    group = integer(op, "group_size", group_size)
    if group < 1 or visible % group:
        raise ValueError(f"[{op}] group_size is {group}, expected a divisor of the {visible} visible units")
    return group


def expect_gaussian(op: str, name: str, unit: str, kind: int, sigma: Array | None) -> None:
    """sigma is for Gaussian visible units alone."""
    if sigma is not None and kind != _rbm.GAUSSIAN:
        raise ValueError(f"[{op}] sigma is given, expected None: {name} is {unit!r}")


def expect_rows(op: str, name: str, x: Array) -> None:
    """At least one: means over none are not defined."""
    if len(x) == 0:
        raise ValueError(f"[{op}] {name} has shape {x.shape}, expected at least one row")


def expect_writable(op: str, name: str, x: Array) -> None:
    """What an update in place needs."""
    if not x.flags.c_contiguous:
        raise ValueError(f"[{op}] {name} is not contiguous (C order), which an update in place needs")
    if type(x) is np.ndarray and not x.flags.writeable:
        raise ValueError(f"[{op}] {name} is read-only, expected a writable array")


def clamp_of(op: str, clamp: Array | None, v: Array, shape: tuple[int, int]) -> Array | None:
    """clamp as uint8 where v is."""
    if clamp is None:
        return None
    native, _ = arrays.adopt(clamp, op, "clamp")
    if native.dtype not in (np.bool_, np.uint8):
        raise TypeError(f"[{op}] clamp has dtype {native.dtype}, expected bool or uint8")
    expect_place(op, "clamp", native, "v", v)
    expect_shape(op, "clamp", native, shape)
    return namespace(v).ascontiguousarray(native).view(np.uint8)


def number(op: str, name: str, value: Any) -> float:
    """A float from anything that is one."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"[{op}] {name} is {value!r}, expected a number") from None


def word64(op: str, name: str, value: Any) -> int:
    """An int of 64 bits."""
    value = integer(op, name, value)
    if not 0 <= value < 2**64:
        raise ValueError(f"[{op}] {name} is {value}, expected 0 to 2**64 - 1")
    return value
