"""A line that shows how far something has come: redrawn on a terminal, printed once a round elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TextIO

REDRAW_SECONDS = 0.1  # more often than this only costs time
BAR_WIDTH, NARROWEST_BAR = 24, 8


def clock(seconds: float) -> str:
    """Seconds as a person reads them: 0:07, 12:45, 3:02:10."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes}:{secs:02d}"


def columns() -> int:
    """Characters that fit on a line of the terminal; the last one stays free, lest the line wraps."""
    return shutil.get_terminal_size().columns - 1


class Line:
    """One line on `stream` (standard error when None) that `draw` rewrites where the stream is a terminal."""

    def __init__(self, enabled: bool = True, stream: TextIO | None = None) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.enabled = enabled
        self.redraws = enabled and self.stream.isatty() and os.environ.get("TERM") != "dumb"
        encoding = (getattr(self.stream, "encoding", None) or "ascii").lower()
        self._full, self._empty = ("━", "─") if encoding.startswith("utf") else ("#", "-")
        self._shown = False

    def bar(self, share: float, width: int) -> str:
        """A bar of `width` characters of which `share` (0 to 1) is filled."""
        filled = round(width * share)
        return f"{self._full * filled}{self._empty * (width - filled)}"

    def draw(self, text: str) -> None:
        """Replaces the line; for terminals only (`redraws`)."""
        # Erase to the end of the line, so that nothing of a longer line before remains.
        self.stream.write(f"\r{text[: columns()]}\x1b[K")
        self.stream.flush()
        self._shown = True

    def finished(self, text: str) -> None:
        """The text of a finished round: redrawn on a terminal, a line of its own elsewhere."""
        if self.redraws:
            self.draw(text)
        elif self.enabled:
            print(text, file=self.stream, flush=True)

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
