"""Random numbers from Philox4x32-10: a stream is named by (seed, offset), and its words depend on nothing
else.

The same samples come out on every backend and for every way of splitting the work. Salmon et al., "Parallel
random numbers: as easy as 1, 2, 3" (2011).
"""

from __future__ import annotations

import importlib
from math import prod
from threading import Lock
from types import ModuleType
from typing import Any

import numpy as np

from fastarch.capturing import feed, note, refuse

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF
_BLOCK = 1 << 14  # positions computed at a time: the temporaries stay in cache

_lock = Lock()
_state = {"seed": 0, "offset": 0}
_core: ModuleType | None = None
_core_looked_for = False


def manual_seed(seed: int) -> None:
    """Starts the global sequence of streams anew. seed: 0 to 2**64 - 1. A fresh process starts at seed 0."""
    set_state({"seed": seed, "offset": 0})


def get_state() -> dict[str, int]:
    """The global generator's whole state, as a dict that JSON can hold: {"seed", "offset"}."""
    with _lock:
        return dict(_state)


def set_state(state: dict[str, int]) -> None:
    """Restores what get_state returned. Raises ValueError for anything else."""
    if not isinstance(state, dict) or set(state) != {"seed", "offset"}:
        raise ValueError(f"[set_state] state is {state!r}, expected a dict with seed and offset")
    checked = {name: _word64("set_state", name, value) for name, value in state.items()}
    with _lock:
        _state.update(checked)


def next_offset() -> tuple[int, int]:
    """(seed, offset) of a Philox stream that nobody has used since manual_seed: 2**66 words."""
    refuse("the step draws random numbers on the host")
    return _next()


def next_stream() -> tuple[int, Any]:
    """The same for an operator of a step that may be captured (fastarch.cuda.graph): there the offset is an
    array [1] of int64 where the step's arrays lie, which gets the next offset before each replay.
    """
    word = feed(1, lambda: (_signed(_next()[1]),), np.int64)
    if word is None:
        return _next()
    note(_seed)
    return _seed(), word


def _seed() -> int:
    return _state["seed"]


def _signed(word: int) -> int:
    """The int64 of the same bits."""
    return word - 2**64 if word >= 2**63 else word


def _next() -> tuple[int, int]:
    with _lock:
        seed, offset = _state["seed"], _state["offset"]
        _state["offset"] = (offset + 1) % 2**64
        return seed, offset


def philox(n: int, seed: int, offset: Any, xp: Any = np, start: int = 0) -> Any:
    """Words start .. start + n - 1 of the stream (seed, offset): [n] uint32, in the array library `xp`.

    Word i is word i % 4 of counter position i // 4; the counter is (position, offset), the key the seed.
    offset: an int, or an array [1] of int64 with its bits in the memory of `xp`.
    """
    n, start = _size("philox", "n", n), _size("philox", "start", start)
    seed = _word64("philox", "seed", seed)
    if xp is np and isinstance(offset, np.ndarray):
        offset = int(offset[0]) % 2**64
    if isinstance(offset, int) or xp is np:
        offset = _word64("philox", "offset", offset)
    else:
        offset = offset.view(xp.uint64)
    words = xp.empty(n, xp.uint32)
    core = _compiled_core() if xp is np else None
    if core is not None:
        core.philox_fill(words.view(np.int32), seed, offset, start)
        return words
    first = start // 4
    positions = (start + n + 3) // 4 - first
    skipped = start % 4
    for begin in range(0, positions, _BLOCK):
        count = min(_BLOCK, positions - begin)
        block = _rounds(first + begin, count, seed, offset, xp)
        low = max(4 * begin - skipped, 0)
        high = min(4 * (begin + count) - skipped, n)
        words[low:high] = block[low + skipped - 4 * begin : high + skipped - 4 * begin]
    return words


def _rounds(first: int, count: int, seed: int, offset: Any, xp: Any) -> Any:
    """The words of positions first .. first + count - 1, [4 * count] uint32."""
    position = xp.arange(count, dtype=xp.uint64) + xp.uint64(first)
    shift, mask = xp.uint64(32), xp.uint64(_MASK)
    c0, c1 = position & mask, position >> shift
    if isinstance(offset, int):
        c2, c3 = (xp.full(count, half, xp.uint64) for half in (offset & _MASK, offset >> 32))
    else:
        c2, c3 = (xp.repeat(half, count) for half in (offset & mask, offset >> shift))
    k0, k1 = seed & _MASK, seed >> 32
    m0, m1 = (xp.uint64(m) for m in _MULTIPLIERS)
    for _ in range(10):
        p0, p1 = c0 * m0, c2 * m1
        c1 ^= p1 >> shift
        c1 ^= xp.uint64(k0)
        c3 ^= p0 >> shift
        c3 ^= xp.uint64(k1)
        c0, c1, c2, c3 = c1, p1 & mask, c3, p0 & mask
        k0, k1 = (k0 + _KEY_STEPS[0]) & _MASK, (k1 + _KEY_STEPS[1]) & _MASK
    words = xp.empty((count, 4), xp.uint32)
    for i, c in enumerate((c0, c1, c2, c3)):
        words[:, i] = c
    return words.reshape(-1)


def _compiled_core() -> ModuleType | None:
    global _core, _core_looked_for
    if not _core_looked_for:
        try:
            _core = importlib.import_module("fastarch._core")
        except ImportError:
            _core = None  # not compiled: the generic code draws the same words
        _core_looked_for = True
    return _core


def uniform(
    shape: Any,
    low: float = 0.0,
    high: float = 1.0,
    dtype: Any = np.float32,
    stream: tuple[int, int] | None = None,
) -> np.ndarray:
    """Samples of the uniform distribution on [low, high): a host array from the next global stream, or from
    the named one.

    stream: (seed, offset). float32 takes one word a sample (24 bits), float64 two (53 bits).
    """
    sizes, dtype = _shape("uniform", shape), _float("uniform", dtype)
    if not low <= high:
        raise ValueError(f"[uniform] low is {low}, high {high}, expected low <= high")
    n = prod(sizes)
    seed, offset = next_offset() if stream is None else stream
    if dtype == np.float32:
        x = (philox(n, seed, offset) >> np.uint32(8)).astype(np.float32)
        x *= np.float32(2.0**-24)
    else:
        x = _unit53(philox(2 * n, seed, offset).reshape(-1, 2))
    x *= dtype.type(high) - dtype.type(low)
    x += dtype.type(low)
    if high > low:
        np.minimum(
            x, np.nextafter(dtype.type(high), dtype.type(low)), out=x
        )  # rounding may have reached high
    return x.reshape(sizes)


def normal(
    shape: Any,
    mean: float = 0.0,
    std: float = 1.0,
    dtype: Any = np.float32,
    stream: tuple[int, int] | None = None,
) -> np.ndarray:
    """Samples of the normal distribution: a host array from the next global stream, or from the named one.

    stream: (seed, offset). Box-Muller in float64: position i of the stream gives samples 2i and 2i + 1 as the
    cosine and the sine, its first two words (53 bits) the radius, the other two the angle. Box and Muller
    (1958).
    """
    sizes, dtype = _shape("normal", shape), _float("normal", dtype)
    if not std >= 0:
        raise ValueError(f"[normal] std is {std}, expected at least 0")
    n = prod(sizes)
    words = philox(4 * ((n + 1) // 2), *(next_offset() if stream is None else stream)).reshape(-1, 4)
    radius = np.sqrt(-2.0 * np.log1p(-_unit53(words[:, :2])))
    angle = 2.0 * np.pi * _unit53(words[:, 2:])
    x = np.empty((len(words), 2))
    np.multiply(radius, np.cos(angle), out=x[:, 0])
    np.multiply(radius, np.sin(angle), out=x[:, 1])
    x *= std
    x += mean
    return x.reshape(-1)[:n].astype(dtype).reshape(sizes)


def permutation(n: int, seed: int, offset: int) -> np.ndarray:
    """A permutation of 0 .. n - 1 that depends on n, seed and offset alone: [n] int64.

    The order of 64-bit keys from the stream (seed, offset); equal keys, which are rare, keep their order.
    """
    keys = philox(2 * _size("permutation", "n", n), seed, offset).astype(np.uint64).reshape(-1, 2)
    return np.argsort(keys[:, 0] << np.uint64(32) | keys[:, 1], kind="stable").astype(np.int64, copy=False)


def _unit53(words: np.ndarray) -> np.ndarray:
    """[n, 2] words as float64 in [0, 1) with 53 random bits."""
    x = (words[:, 0] >> np.uint32(5)).astype(np.float64)
    x *= 2.0**26
    x += words[:, 1] >> np.uint32(6)
    x *= 2.0**-53
    return x


def _word64(op: str, name: str, value: Any) -> int:
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        raise TypeError(f"[{op}] {name} is {value!r}, expected an int")
    value = int(value)
    if not 0 <= value < 2**64:
        raise ValueError(f"[{op}] {name} is {value}, expected 0 to 2**64 - 1")
    return value


def _size(op: str, name: str, value: Any) -> int:
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        raise TypeError(f"[{op}] {name} is {value!r}, expected an int")
    if value < 0:
        raise ValueError(f"[{op}] {name} is {value}, expected at least 0")
    return int(value)


def _shape(op: str, shape: Any) -> tuple[int, ...]:
    sizes = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    return tuple(_size(op, "shape", size) for size in sizes)


def _float(op: str, dtype: Any) -> np.dtype:
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"[{op}] dtype is {dtype}, expected float32 or float64")
    return dtype
