"""How far a training run stands: redrawn on a terminal, one line per epoch elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, TextIO

from fastarch.progress import BAR_WIDTH, NARROWEST_BAR, REDRAW_SECONDS, Line, clock, columns

__all__ = ["Progress", "clock"]


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


class Progress:
    """Shows a run of `epochs` x `steps` on `stream` (standard error when None), if `enabled`."""

    def __init__(
        self, epochs: int, steps: int, *, enabled: bool = True, stream: TextIO | None = None
    ) -> None:
        self.epochs, self.steps = epochs, steps
        self._line = Line(enabled, stream)
        self._drawn = 0.0
        self._began = time.perf_counter()
        self._done_here = 0
        self._last_validation: dict[str, Any] = {}

    def step(self, epoch: int, step: int, figures: Mapping[str, Any], rate: float) -> None:
        """After step `step` (counted from 1) of epoch `epoch` (from 1); `rate` in samples a second."""
        self._done_here += 1
        now = time.perf_counter()
        if not self._line.redraws or (now - self._drawn < REDRAW_SECONDS and step < self.steps):
            return
        self._drawn = now
        left = (self.epochs - epoch) * self.steps + self.steps - step
        seconds = (now - self._began) / self._done_here * left
        head = self._epoch(epoch)
        for shown in ({**figures, **self._last_validation}, figures):
            tail = f"{_figures(shown)}  {rate:,.0f}/s  {clock(seconds)} left"
            room = columns() - len(head) - len(tail) - 3
            if room >= NARROWEST_BAR:
                break  # else the last epoch's validation makes room
        width = min(room, BAR_WIDTH) if room >= NARROWEST_BAR else 0
        self._line.draw(f"{head} {self._line.bar(step / self.steps, width)}  {tail}")

    def epoch(self, epoch: int, record: Mapping[str, Any]) -> None:
        """After epoch `epoch` (from 1) with its finished `record`."""
        self._last_validation = {k: v for k, v in record.items() if k.startswith("validation_")}
        self._line.finished(
            f"{self._epoch(epoch)}  {_figures(record)}  lr {record['lr']:.2g}"
            f"  {record['samples_per_second']:,.0f}/s  {clock(record['elapsed'])}"
        )

    def note(self, text: str) -> None:
        """A line of its own that stays."""
        self._line.note(text)

    def close(self) -> None:
        """Leaves the line as it stands and moves below it."""
        self._line.close()

    def _epoch(self, epoch: int) -> str:
        return f"epoch {epoch:>{len(str(self.epochs))}}/{self.epochs}"
