"""Whether a step is being captured for replay (fastarch.cuda.graph), and what may not happen meanwhile.

A replay repeats what the device was told, not what the host decided on the way. So code that lets the host
decide something anew at each step says so here: `feed` keeps numbers where the device reads them when it
runs, and asks for them again before each replay; `note` remembers a value that the step was built with, so
that a change of it is noticed; `refuse` ends a capture with a sentence.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

_BLOCK = 500  # words of memory that are taken at a time, and sent at once

Numbers = Callable[[], Sequence[float]]


class _Feed(NamedTuple):
    numbers: Numbers
    undo: Callable[[], None] | None
    words: np.ndarray  # where the numbers go, in a block on the host


class Capture:
    """One capture of a step, as a context manager; inside it `refuse` raises, `note` and `feed` remember.

    memory: makes an array of so many int64 words where the step's arrays lie; without it nothing is replayed,
    and nothing is fed.
    """

    def __init__(self, memory: Callable[[int], Any] | None = None) -> None:
        self._notes: list[tuple[Callable[[], Any], Any]] = []
        self._memory = memory
        self._feeds: list[_Feed] = []
        self._blocks: list[tuple[Any, np.ndarray]] = []  # in the step's memory, and on the host
        self._used = _BLOCK

    def __enter__(self) -> Capture:
        if _local.capture is not None:
            raise RuntimeError("[graph] a step that is being captured captures another one")
        _local.capture = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _local.capture = None

    def note(self, values: Callable[[], Any]) -> None:
        self._notes.append((values, values()))

    def is_stale(self) -> bool:
        """Whether a value that the host gave the step has changed since."""
        return any(values() != before for values, before in self._notes)

    def feed(self, count: int, numbers: Numbers, dtype: Any, undo: Callable[[], None] | None) -> Any:
        if self._memory is None:
            return None
        if self._used + count > _BLOCK:
            self._blocks.append((self._memory(_BLOCK), np.zeros(_BLOCK, np.int64)))
            self._used = 0
        words = slice(self._used, self._used + count)
        self._used += count
        here, there = (
            block[words].view(dtype)[:: 8 // np.dtype(dtype).itemsize] for block in self._blocks[-1]
        )
        self._feeds.append(_Feed(numbers, undo, there))
        return here

    def fed(self) -> list[tuple[Any, np.ndarray]]:
        """Asks for all numbers, or counts nothing where one raises; (memory, words on the host that belong
        there).
        """
        asked: list[Callable[[], None]] = []
        try:
            for entry in sorted(self._feeds, key=lambda entry: entry.undo is None):
                numbers = entry.numbers()
                if entry.undo is not None:
                    asked.append(entry.undo)
                entry.words[:] = numbers
        except BaseException:
            for undo in reversed(asked):
                undo()
            raise
        last = len(self._blocks) - 1
        return [
            (memory[: self._used], words[: self._used]) if index == last else (memory, words)
            for index, (memory, words) in enumerate(self._blocks)
        ]


class _Local(threading.local):
    capture: Capture | None = None


_local = _Local()


def refuse(what: str) -> None:
    """Raises RuntimeError while a step is captured: `what` happens on the host at each step."""
    if _local.capture is not None:
        raise RuntimeError(f"[graph] {what}, which a replay of the step would not repeat")


def note(values: Callable[[], Any]) -> None:
    """Remembers what `values` returns now, while a step is captured: it goes into the step as it is."""
    if _local.capture is not None:
        _local.capture.note(values)


def feed(count: int, numbers: Numbers, dtype: Any, undo: Callable[[], None] | None = None) -> Any:
    """While a step is captured, an array [count] of `dtype` that holds what `numbers` returns, called before
    each replay in the order of these calls; else None, and the caller gives the step its numbers as they are.

    Each number has 8 bytes, of which `dtype` may take less. `numbers` is not called during the capture: what
    it counts, it counts once a replay. undo: takes the last count back, because other numbers could not be
    had; numbers without it cannot fail, and are asked for after all others.
    """
    capture = _local.capture
    return None if capture is None else capture.feed(count, numbers, dtype, undo)
