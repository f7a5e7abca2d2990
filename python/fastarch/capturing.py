"""Whether a step is being captured for replay (fastarch.cuda.graph), and what may not happen meanwhile.

A replay repeats what the device was told, not what the host decided on the way. So code that lets the host
decide something anew at each step says so here: `refuse` ends a capture with a sentence, `note` remembers a
value that the step was built with, so that a change of it is noticed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any


class Capture:
    """One capture of a step, as a context manager; inside it `refuse` raises and `note` remembers."""

    def __init__(self) -> None:
        self._notes: list[tuple[Callable[[], Any], Any]] = []

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
