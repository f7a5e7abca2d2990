"""Reads plain data and NumPy arrays of bytes out of a pickle without running it.

A pickle is a program that may call anything, so Python's own unpickler is not for a file from a stranger.
This one follows the few instructions that lists, dicts, numbers, text and arrays are written with. It calls
nothing: the names with which NumPy pickles an array are only noted, every other name and every other
instruction is refused.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fastarch.data.dataset import MAX_BYTES, DataError, one_line

__all__ = ["Array", "unpickle"]


class _Damaged(Exception):
    """What is wrong, as the middle of a sentence."""


class _Name:
    """A name that the pickle wants to call."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Type:
    """A NumPy dtype, by the code that it was pickled with."""

    def __init__(self, code: Any) -> None:
        self.code = code.decode("latin1") if isinstance(code, bytes) else code


class Array:
    """A NumPy array as it lies in a pickle, unchecked: (version, shape, dtype, in Fortran order?, bytes)."""

    def __init__(self, state: Any = None) -> None:
        self.state = state

    def rows(self, width: int) -> np.ndarray | None:
        """[N, width] uint8, or None when the array is of another kind or its bytes do not fit its shape."""
        if not (isinstance(self.state, tuple) and len(self.state) == 5):
            return None
        _, shape, dtype, fortran, raw = self.state
        if not (
            isinstance(dtype, _Type) and dtype.code == "u1" and isinstance(raw, bytes) and fortran is False
        ):
            return None
        if not (
            isinstance(shape, tuple) and len(shape) == 2 and all(type(extent) is int for extent in shape)
        ):
            return None
        rows, columns = shape
        if columns != width or rows < 0 or len(raw) != rows * columns:
            return None
        return np.frombuffer(raw, np.uint8).reshape(rows, columns)


def unpickle(path: Path) -> Any:
    """The data in a pickle file, text of Python 2 as bytes, arrays as `Array`.

    Raises DataError when it is damaged, or names anything but what NumPy's arrays are pickled with.
    """
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"[data] {path}: {path.stat().st_size} bytes, expected at most {MAX_BYTES}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd escapes in text; what matters raises
            return _Machine().run(path.read_bytes())
    except _Damaged as error:
        raise DataError(f"[data] {path}: {error}, expected a pickle of plain data and NumPy arrays") from None


_SKIPPED = frozenset(("PROTO", "FRAME"))
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_VALUES = frozenset(
    ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8")
    + ("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
)
# Python 2's str, which holds the bytes of its arrays
_OLD_TEXT = frozenset(("STRING", "BINSTRING", "SHORT_BINSTRING"))
_STORE = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))
_FETCH = frozenset(("GET", "BINGET", "LONG_BINGET"))
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        instructions = pickletools.genops(data)
        while True:
            try:
                opcode, argument, _ = next(instructions)
            except (ValueError, StopIteration) as error:  # UnicodeDecodeError is a ValueError
                raise _Damaged(f"damaged or cut ({one_line(error)})") from None
            if opcode.name == "STOP":
                return self.pop(Any)
            self.step(opcode.name, argument)

    def step(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _OLD_TEXT:
            self.stack.append(argument.encode("latin1"))
        elif name in _STORE:
            self.memo[int(argument)] = self.top(object)
        elif name in _FETCH:
            if int(argument) not in self.memo:
                raise _Damaged("damaged (it fetches what it never stored)")
            self.stack.append(self.memo[int(argument)])
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            self.stack.append(tuple(self.take(len(self.stack) - _TUPLES[name])))
        elif name in _METHODS:
            _METHODS[name](self)
        elif name in ("GLOBAL", "BYTEARRAY8"):
            self.stack.append(_name(*argument.split(" ", 1)) if name == "GLOBAL" else bytes(argument))
        elif name not in _SKIPPED:
            raise _Damaged(f"has the instruction {name}")

    def top(self, kind: type) -> Any:
        if not self.stack or not isinstance(self.stack[-1], kind):
            raise _Damaged("damaged (a value is missing or of the wrong kind)")
        return self.stack[-1]

    def pop(self, kind: Any) -> Any:
        value = self.top(object if kind is Any else kind)
        self.stack.pop()
        return value

    def take(self, start: int | None = None) -> list[Any]:
        """The values from `start`, or from the last mark, to the top."""
        if start is None:
            start = self.marks.pop() if self.marks else -1
        if not 0 <= start <= len(self.stack):
            raise _Damaged("damaged (a value is missing)")
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def memoize(self) -> None:
        self.memo[len(self.memo)] = self.top(object)

    def append(self) -> None:
        value = self.pop(Any)
        self.top(list).append(value)

    def extend(self) -> None:
        values = self.take()
        self.top(list).extend(values)

    def update(self, start: int | None = None) -> None:
        values = self.take(start)
        keys = values[::2]
        # other keys could be nested so that hashing them takes for ever
        if len(values) % 2 or not all(isinstance(key, (str, bytes, int)) for key in keys):
            raise _Damaged("damaged (a key is missing or is not text)")
        self.top(dict).update(zip(keys, values[1::2]))

    def new_dict(self) -> None:
        mark = self.marks[-1] if self.marks else -1
        if not 0 <= mark <= len(self.stack):
            raise _Damaged("damaged (a value is missing)")
        self.marks.pop()
        self.stack.insert(mark, {})
        self.update(mark + 1)

    def stack_global(self) -> None:
        name, module = self.pop(str), self.pop(str)
        self.stack.append(_name(module, name))

    def reduce(self) -> None:
        arguments, called = self.pop(tuple), self.pop(_Name)
        self.stack.append(_made(called.name, arguments))

    def build(self) -> None:
        state = self.pop(Any)
        made = self.top(object)
        if isinstance(made, Array):
            made.state = state
        elif not isinstance(made, _Type):  # a dtype's state is its byte order, of no account for bytes
            raise _Damaged("gives a state to what has none")


_METHODS: dict[str, Callable[[_Machine], None]] = {
    "MARK": lambda machine: machine.marks.append(len(machine.stack)),
    "EMPTY_LIST": lambda machine: machine.stack.append([]),
    "EMPTY_DICT": lambda machine: machine.stack.append({}),
    "LIST": lambda machine: machine.stack.append(machine.take()),
    "TUPLE": lambda machine: machine.stack.append(tuple(machine.take())),
    "DICT": _Machine.new_dict,
    "MEMOIZE": _Machine.memoize,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.extend,
    "SETITEM": lambda machine: machine.update(len(machine.stack) - 2),
    "SETITEMS": _Machine.update,
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
}

_KNOWN = frozenset(
    (
        "numpy ndarray",
        "numpy dtype",
        "numpy.core.multiarray _reconstruct",
        "numpy.core.numeric _frombuffer",
        "_codecs encode",
    )
)


def _name(module: str, name: str = "") -> _Name:
    if module.startswith("numpy._core."):
        module = module.replace("_core", "core", 1)  # the name since NumPy 2
    if f"{module} {name}" not in _KNOWN:
        raise _Damaged(f"wants to call {f'{module}.{name}'[:100]!r}")
    return _Name(f"{module} {name}")


def _made(called: str, arguments: tuple[Any, ...]) -> Any:
    """What a call of one of the known names would have made, as plain data."""
    if called == "numpy.core.multiarray _reconstruct":
        return Array()
    if called == "numpy dtype" and arguments:
        return _Type(arguments[0])
    if called == "numpy.core.numeric _frombuffer" and len(arguments) == 4:
        raw, dtype, shape, order = arguments
        return Array((1, shape, dtype, order != "C", raw))
    if called == "_codecs encode" and arguments and isinstance(arguments[0], str):
        try:
            return arguments[0].encode("latin1")  # how Python 3 writes bytes in the older protocols
        except UnicodeEncodeError:
            pass
    raise _Damaged(f"calls {called.replace(' ', '.')} with the wrong values")
