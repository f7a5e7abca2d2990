"""What the recurrent operators ask of their arguments, for all kinds alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from fastarch import arrays
from fastarch.backends import implementation
from fastarch.ops import _recurrent_steps as cells
from fastarch.ops._boundary import (
    Array,
    empty,
    expect_dims,
    expect_shape,
    flag,
    integer,
    narrow,
    random_offset,
    random_seed,
    widen,
)
from fastarch.ops._recurrent_composite import Options, Stream

Named = list[tuple[str, Any, bool]]  # name, array, whether it may be None
LETTERS = ("H", "H", "4H", "3H", "3H")


DTYPES = ("float16", "bfloat16", "float32", "float64")
Operator = TypeVar("Operator", bound=Callable[..., Any])


def every_float(function: Operator) -> Operator:
    """Says that a public operator takes 16-bit floats too."""
    function.dtypes = DTYPES  # type: ignore[attr-defined]
    return function


class Rounded:
    """Hands float32 results back in the 16-bit type that came in, rounded once."""

    def __init__(self, restore: arrays.Restore, dtype: Any) -> None:
        self.dtype, self._restore = dtype, restore

    def __call__(self, wide: Array) -> Array:
        result = empty("recurrent", wide.shape, wide, self.dtype)
        narrow(wide, result)
        return self._restore(result)


def adopt(op: str, named: Named) -> tuple[list[Any], arrays.Restore]:
    """The arrays as NumPy or CuPy arrays of one float dtype in one memory, None where one may be and is.

    Also the function that turns a result into the type of the first one that is not None.
    """
    natives: list[Any] = []
    restore: arrays.Restore | None = None
    first: tuple[str, Array] | None = None
    for name, value, optional in named:
        if value is None and optional:
            natives.append(None)
            continue
        native, back = arrays.adopt(value, op, name)
        natives.append(native)
        restore = restore or back
        expected = " or ".join(DTYPES) if first is None else f"{first[1].dtype} as {first[0]} has"
        known = native.dtype in (np.float32, np.float64) or arrays.is_half(native.dtype)
        if not known if first is None else native.dtype != first[1].dtype:
            raise TypeError(f"[{op}] {name} has dtype {native.dtype}, expected {expected}")
        first = first or (name, native)
        if _place(native) != _place(first[1]):
            raise TypeError(
                f"[{op}] {name} is in {_place(native)} memory, expected {_place(first[1])} memory "
                f"as {first[0]} is"
            )
    assert restore is not None
    return natives, restore


def widen_unless_kernels(
    natives: list[Any], restore: arrays.Restore, plain: bool = True
) -> tuple[list[Any], arrays.Restore]:
    """16-bit arrays as they are where the chosen backend's kernels take them, for what a plain recurrence
    does. Else as float32, in which the states, sums and gates of a whole sequence stay, with a `restore` that
    rounds.
    """
    first = next(native for native in natives if native is not None)
    if not arrays.is_half(first.dtype):
        return natives, restore
    module = implementation("recurrent_takes_halves", arrays.on_device(first)) if plain else None
    if module is not None and module.recurrent_takes_halves():
        return natives, restore
    return [widen(native) for native in natives], Rounded(restore, first.dtype)


def _place(x: Array) -> str:
    return f"CUDA device {x.device.id}" if arrays.on_device(x) else "host"


def rnn_kind(op: str, nonlinearity: str) -> int:
    """The cell of a nonlinearity's name."""
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"[{op}] nonlinearity is {nonlinearity!r}, expected 'tanh' or 'relu'")
    return cells.RNN_TANH if nonlinearity == "tanh" else cells.RNN_RELU


def gru_kind(op: str, reset_before: bool) -> int:
    """The cell of the place of the reset gate."""
    return cells.GRU_RESET_BEFORE if flag(op, "reset_before", reset_before) else cells.GRU


def algorithm_number(op: str, algorithm: str) -> int:
    """How the kernels know an algorithm's name."""
    if not isinstance(algorithm, str) or algorithm not in cells.ALGORITHMS:
        raise ValueError(
            f"[{op}] algorithm is {algorithm!r}, expected 'auto', 'step', 'persistent' or 'cluster'"
        )
    return cells.ALGORITHMS[algorithm]


def named(x: Array, names: str, states: tuple, weights: tuple) -> Named:
    """The operands with their names, and which of them may be None."""
    operands: Named = [("x", x, False)]
    operands += [(name, state, True) for name, state in zip(names.split(), states)]
    for name, weight in zip(("w_ih", "w_hh", "b_ih", "b_hh"), weights):
        operands.append((name, weight, name.startswith("b_")))
    return operands


def lengths_of(op: str, lengths: Any, t_count: int, count: int) -> np.ndarray | None:
    """The lengths [N] as int64, or None where every sequence has all of the T steps."""
    if lengths is None:
        return None
    if isinstance(lengths, (list, tuple)):
        values = np.array([integer(op, "lengths", length) for length in lengths], np.int64)
    else:
        values, _ = arrays.adopt(lengths, op, "lengths")
        if arrays.on_device(values):
            raise TypeError(f"[{op}] lengths is in CUDA memory, expected host integers")
        if values.dtype.kind not in "iu":
            raise TypeError(f"[{op}] lengths has dtype {values.dtype}, expected integers")
        values = values.astype(np.int64)
    expect_shape(op, "lengths", values, (count,))
    if count and (values.min() < 1 or values.max() > t_count):
        wrong = values[(values < 1) | (values > t_count)][0]
        raise ValueError(f"[{op}] lengths holds {wrong}, expected 1 to {t_count}, the steps of x")
    return None if (values == t_count).all() else values


def check_sizes(
    op: str, cell: int, d: int, n: int, w_ih: Array, w_hh: Array, more: Named, w_hr: Array | None = None
) -> int:
    """P, after every shape has been compared with the others; `more`: biases and states that are there."""
    letters = LETTERS[cell]
    expect_dims(op, "w_ih", w_ih, 2, f"[{letters}, D]")
    expect_dims(op, "w_hh", w_hh, 2, f"[{letters}, {'H' if w_hr is None else 'P'}]")
    if w_hr is not None:
        expect_dims(op, "w_hr", w_hr, 2, "[P, H]")
    outputs = w_hh.shape[1]
    units = outputs if w_hr is None else w_hr.shape[1]
    if units == 0 or outputs == 0 or d == 0:
        raise ValueError(f"[{op}] zero units (H={units}) or zero features (D={d}) leave nothing to compute")
    width = cells.GATES[cell] * units
    expect_shape(op, "w_hh", w_hh, (width, outputs))
    expect_shape(op, "w_ih", w_ih, (width, d))
    if w_hr is not None:
        expect_shape(op, "w_hr", w_hr, (outputs, units))
    shapes: dict[str, tuple[int, ...]] = {
        "h0": (n, outputs),
        "h": (n, outputs),
        "c0": (n, units),
        "c": (n, units),
    }
    shapes |= {"norm_c": (units,), "norm_c_bias": (units,)}
    for name, value, _ in more:
        if value is not None:
            expect_shape(op, name, value, shapes.get(name, (width,)))
    return outputs


def probability(op: str, name: str, value: Any) -> float:
    """A number in [0, 1]."""
    try:
        p = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"[{op}] {name} is {value!r}, expected a number in [0, 1]") from None
    if not 0 <= p <= 1:
        raise ValueError(f"[{op}] {name} is {p}, expected a probability in [0, 1]")
    return p


def random_stream(op: str, stream: Any, like: Array) -> Stream | None:
    """(seed, offset, None) of a Philox stream; (seed, 0, array) when the offset is an array beside `like`."""
    if stream is None:
        return None
    if not isinstance(stream, (tuple, list)) or len(stream) != 2:
        raise TypeError(f"[{op}] stream is {stream!r}, expected (seed, offset) or None")
    seed, offset = stream
    return random_seed(op, seed, "seed of stream"), *random_offset(op, offset, like, "offset of stream")


def check_together(op: str, cell: int, algorithm: int, options: Options) -> None:
    """What of the options goes with what."""
    norms = {"norm_ih": options.norm_ih, "norm_hh": options.norm_hh}
    if cell == cells.LSTM:
        norms |= {"norm_c": options.norm_c, "norm_c_bias": options.norm_c_bias}
    missing = [name for name, array in norms.items() if array is None]
    if missing and len(missing) < len(norms):
        raise ValueError(f"[{op}] {missing[0]} is None, expected all of {', '.join(norms)} or none")
    if not missing and cell == cells.GRU_RESET_BEFORE:
        raise ValueError(f"[{op}] layer normalisation is defined for reset_before=False, got True")
    forced = next(name for name, number in cells.ALGORITHMS.items() if number == algorithm)
    if options.any() and forced in ("persistent", "cluster"):
        raise ValueError(
            f"[{op}] algorithm {forced!r} has no projection, zoneout or normalisation, "
            "expected 'auto' or 'step'"
        )


def all_of(
    op: str,
    cell: int,
    x: tuple[Array, str],
    states: dict[str, Array | None],
    weights: tuple,
    more: dict[str, Array | None],
    chances: dict[str, float],
    stream: Any,
    algorithm: int = 0,
    gradients: Named | None = None,
) -> tuple[dict[str, Any], Options, arrays.Restore]:
    """Every array by its name, as `adopt` gives them, of shapes that fit; the options; how results go back.

    x: with the letters of its axes, of which the last two are N and D. more: the options' arrays; chances:
    their probabilities. gradients: what is adopted besides, whose shapes are not looked at.
    """
    given, letters = x
    operands = named(given, " ".join(states), tuple(states.values()), weights)
    operands += [(name, array, True) for name, array in more.items()]
    names = [name for name, *_ in operands if name not in ("x", "w_ih", "w_hh", "w_hr")]
    operands += gradients or []
    rates = {name: probability(op, name, rate) for name, rate in chances.items()}
    plain = not any(rates.values()) and all(array is None for array in more.values())
    natives, restore = widen_unless_kernels(*adopt(op, operands), plain)
    of = {name: native for (name, *_), native in zip(operands, natives)}
    expect_dims(op, "x", of["x"], len(letters.split(",")), letters)
    *_, n, d = of["x"].shape
    checked = [(name, of[name], True) for name in names]
    check_sizes(op, cell, d, n, of["w_ih"], of["w_hh"], checked, of.get("w_hr"))
    words = random_stream(op, stream, of["x"])
    options = Options(**{name: of[name] for name in more}, **rates, stream=words)
    check_together(op, cell, algorithm, options)
    return of, options, restore
