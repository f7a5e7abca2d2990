"""Until when a program measures: from its start, imports and all, to a budget's end or to SIGTERM."""

from __future__ import annotations

import signal
import time

START = time.monotonic()  # imported first: PyTorch and CuPy take seconds


class Deadline:
    """Until when problems are begun, in seconds from the start (None: all are), and those that were not."""

    def __init__(self, seconds: float | None) -> None:
        self.end = None if seconds is None else START + seconds
        self.left_out: list[str] = []

    def passed(self, problem: str) -> bool:
        """Whether this problem is left out."""
        late = self.end is not None and time.monotonic() > self.end
        if late:
            self.left_out.append(problem)
        return late


def end_in_order() -> None:
    """Lets SIGTERM, which `timeout` sends, end the program by way of every `finally`, with 124 like it."""

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # one is enough
        raise SystemExit(124)

    signal.signal(signal.SIGTERM, end)
