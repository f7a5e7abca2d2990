"""The rounds of an estimator's training: counted, recorded, shown, and ended early when someone asks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from fastarch.progress import BAR_WIDTH, NARROWEST_BAR, REDRAW_SECONDS, Line, clock, columns

Watcher = Callable[[dict[str, Any]], bool]

_watcher: ContextVar[Watcher | None] = ContextVar("fastarch_watcher", default=None)


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Within the with block `watcher` sees every finished record; where it returns True, training ends there,
    as if that had been the last round."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def _text(figures: Mapping[str, Any]) -> str:
    parts = []
    for name, value in figures.items():
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        parts.append(f"{name.replace('_', ' ')} {shown}")
    return "  ".join(parts)


class Epochs:
    """`total` rounds called `unit`: ``with Epochs(...) as rounds: for i in rounds: ...; rounds.record(...)``.

    records: a list to which {unit: n, **figures} is appended for each round, n from 1 on; without
    times, so that the same seed leaves the same records.
    """

    def __init__(
        self,
        total: int,
        records: list[dict[str, Any]],
        *,
        title: str = "",
        unit: str = "epoch",
        verbose: Any = 0,
    ) -> None:
        self.total, self.records, self.unit = total, records, unit
        self.stopped = False
        self._title = f"{title}  " if title else ""
        self._before = len(records)
        self._line = Line(bool(verbose))
        self._began = self._round_began = time.perf_counter()
        self._drawn = 0.0
        self._current = 0
        self._figures: dict[str, Any] = {}

    def __enter__(self) -> Epochs:
        return self

    def __exit__(self, *_: object) -> None:
        if self._line.redraws and self._figures and self._current + 1 < self.total:  # it ended early
            self._line.draw(
                f"{self._head()}  {_text(self._figures)}  {clock(time.perf_counter() - self._began)}"
            )
        self._line.close()

    def __iter__(self) -> Iterator[int]:
        for i in range(self.total):
            if self.stopped:
                return
            self._current, self._round_began = i, time.perf_counter()
            yield i

    def stop(self) -> None:
        """Makes this round the last one."""
        self.stopped = True

    def step(self, done: int, steps: int) -> None:
        """Shows that `done` of the round's `steps` are finished."""
        now = time.perf_counter()
        if not self._line.redraws or now - self._drawn < REDRAW_SECONDS:
            return
        self._drawn = now
        self._draw(self._current + done / max(steps, 1), now)

    def _draw(self, done: float, now: float) -> None:
        """The line on a terminal after `done` rounds, the last of which may be under way."""
        left = (now - self._began) / max(done, 1e-9) * (self.total - done)
        head, tail = self._head(), f"{_text(self._figures)}  {clock(left)} left"
        room = columns() - len(head) - len(tail) - 4
        width = min(room, BAR_WIDTH) if room >= NARROWEST_BAR else 0
        bar = f"{self._line.bar(done / self.total, width)}  " if width else ""
        self._line.draw(f"{head}  {bar}{tail}")

    def record(self, **figures: Any) -> None:
        """The finished round's figures (plain numbers): kept in `records`, shown, passed to the watcher."""
        now = time.perf_counter()
        self._figures = figures
        number = self._before + self._current + 1
        record = {self.unit: number, **figures}
        self.records.append(record)
        if not self._line.redraws or number == self._before + self.total:
            self._line.finished(f"{self._head()}  {_text(figures)}  {clock(now - self._began)}")
        elif now - self._drawn >= REDRAW_SECONDS:
            self._drawn = now
            self._draw(self._current + 1, now)
        watcher = _watcher.get()
        seen = {"title": self._title.strip(), **record, "seconds": round(now - self._round_began, 6)}
        if watcher is not None and watcher(seen):
            self.stopped = True

    def note(self, text: str) -> None:
        """A line of its own that stays."""
        self._line.note(text)

    def _head(self) -> str:
        return f"{self._title}{self.unit} {self._current + 1:>{len(str(self.total))}}/{self.total}"
