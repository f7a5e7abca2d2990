"""The sheet that a picture is drawn on, in the house style, and what its parts share.

Matplotlib is imported at first use and drawn on without pyplot: no window, no global state, any thread.
"""

from __future__ import annotations

import os
from typing import Any

from fastarch import io

TRAIN, VALIDATION, TEST = "#2563eb", "#ea580c", "#15803d"
WRONG, INK, FAINT, RULE = "#c2410c", "#1f2937", "#6b7280", "#d1d5db"
STYLE: Any = {
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": RULE,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eef0f3",
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}


class MissingMatplotlib(ImportError):
    """Matplotlib is not installed; the message says how to get it."""

    def __init__(self) -> None:
        super().__init__("pictures need matplotlib: pip install 'fastarch[demo]'")


class Sheet:
    """A figure in the house style that becomes `path`, atomically, at the end of the with block.

    width, height: inches. Raises MissingMatplotlib.
    """

    def __init__(self, path: str | os.PathLike[str], width: float, height: float) -> None:
        try:
            import matplotlib
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError:
            raise MissingMatplotlib from None
        self.path = path
        self._style = matplotlib.rc_context(STYLE)
        self._style.__enter__()
        self.figure = Figure(figsize=(width, height), dpi=144, layout="constrained", facecolor="white")
        FigureCanvasAgg(self.figure)

    def __enter__(self) -> Any:
        return self.figure

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if kind is None:
                with io.atomic_write(self.path) as file:
                    # No software version or date in the file: the same run gives the same bytes.
                    self.figure.savefig(file, format="png", metadata={"Software": None})
        finally:
            self._style.__exit__(None, None, None)


def write_title(figure: Any, title: str, note: str = "") -> None:
    """Writes the title, and below it, smaller, a note."""
    text = title if not note else f"{title}\n"
    figure.suptitle(text, x=0.012, ha="left", fontsize=13, fontweight="bold", linespacing=1.25)
    if note:
        # The second line of the title is blank space that this smaller text fills.
        top = 1 - 0.36 / figure.get_figheight()
        figure.text(0.012, top, note, ha="left", va="center", fontsize=10, color=FAINT)


def bare(axis: Any) -> None:
    """Leaves nothing of an axis but what is drawn in it."""
    axis.grid(False)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
