"""One line that shows where a training run stands: redrawn on a terminal, one line per epoch elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

_REDRAW_SECONDS = 0.1  # more often than this only costs time
_BAR_WIDTH, _NARROWEST_BAR = 24, 8


def clock(seconds: float) -> str:
    """Seconds as a person reads them: 0:07, 12:45, 3:02:10."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes}:{secs:02d}"


def _figures(values: Mapping[str, Any]) -> str:
    """The losses and accuracies of a record, training first."""
    parts = []
    for prefix, label in (("", ""), ("validation_", "val ")):
        loss, accuracy = values.get(f"{prefix}loss"), values.get(f"{prefix}accuracy")
        if loss is not None:
            parts.append(f"{label}loss {loss:.4f}")
        if accuracy is not None:
            parts.append(f"{label}acc {100 * accuracy:.2f} %")
    return "  ".join(parts)


def _columns() -> int:
    """Characters that fit on a line of the terminal; the last one stays free, lest the line wraps."""
    return shutil.get_terminal_size().columns - 1


class Progress:
    """Shows a run of `epochs` x `steps` on `stream` (standard error when None), if `enabled`."""

    def __init__(
        self, epochs: int, steps: int, *, enabled: bool = True, stream: TextIO | None = None
    ) -> None:
        self.epochs, self.steps = epochs, steps
        self.stream = sys.stderr if stream is None else stream
        self.enabled = enabled
        self.redraws = enabled and self.stream.isatty() and os.environ.get("TERM") != "dumb"
        encoding = (getattr(self.stream, "encoding", None) or "ascii").lower()
        self._full, self._empty = ("━", "─") if encoding.startswith("utf") else ("#", "-")
        self._shown = False
        self._drawn = 0.0
        self._began = time.perf_counter()
        self._done_here = 0
        self._last_validation: dict[str, Any] = {}

    def step(self, epoch: int, step: int, figures: Mapping[str, Any], rate: float) -> None:
        """After step `step` (counted from 1) of epoch `epoch` (from 1); `rate` in samples a second."""
        self._done_here += 1
        now = time.perf_counter()
        if not self.redraws or (now - self._drawn < _REDRAW_SECONDS and step < self.steps):
            return
        self._drawn = now
        left = (self.epochs - epoch) * self.steps + self.steps - step
        seconds = (now - self._began) / self._done_here * left
        head = self._epoch(epoch)
        for shown in ({**figures, **self._last_validation}, figures):
            tail = f"{_figures(shown)}  {rate:,.0f}/s  {clock(seconds)} left"
            room = _columns() - len(head) - len(tail) - 3
            if room >= _NARROWEST_BAR:
                break  # else the last epoch's validation makes room
        width = min(room, _BAR_WIDTH) if room >= _NARROWEST_BAR else 0
        filled = round(width * step / self.steps)
        self._draw(f"{head} {self._full * filled}{self._empty * (width - filled)}  {tail}")

    def epoch(self, epoch: int, record: Mapping[str, Any]) -> None:
        """After epoch `epoch` (from 1) with its finished `record`."""
        if not self.enabled:
            return
        self._last_validation = {k: v for k, v in record.items() if k.startswith("validation_")}
        line = (
            f"{self._epoch(epoch)}  {_figures(record)}  lr {record['lr']:.2g}"
            f"  {record['samples_per_second']:,.0f}/s  {clock(record['elapsed'])}"
        )
        if self.redraws:
            self._draw(line)
        else:
            print(line, file=self.stream, flush=True)

    def note(self, text: str) -> None:
        """A line of its own that stays."""
        if self.enabled:
            self.close()
            print(text, file=self.stream, flush=True)

    def close(self) -> None:
        """Leaves the line as it stands and moves below it."""
        if self._shown:
            self.stream.write("\n")
            self.stream.flush()
            self._shown = False

    def _epoch(self, epoch: int) -> str:
        return f"epoch {epoch:>{len(str(self.epochs))}}/{self.epochs}"

    def _draw(self, line: str) -> None:
        # Erase to the end of the line, so that nothing of a longer line before remains.
        self.stream.write(f"\r{line[: _columns()]}\x1b[K")
        self.stream.flush()
        self._shown = True
