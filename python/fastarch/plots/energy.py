"""Curves of training that goes through several machines or figures: one panel each."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from fastarch.plots.sheet import TEST, TRAIN, VALIDATION, WRONG, Sheet, write_title

_COLOURS = (TRAIN, VALIDATION, TEST, WRONG, "#7c3aed", "#0891b2")

Panels = Mapping[str, Mapping[str, Sequence[float]]]


def panels(lines: Panels, path: str | os.PathLike[str], title: str, note: str = "") -> None:
    """Draws figures by epoch to a PNG file, a panel for each entry of `lines`: {panel: {line: values}}.

    A line without a name has no legend. Raises MissingMatplotlib, and ValueError where there is nothing.
    """
    if not lines or not all(values for line in lines.values() for values in line.values()):
        raise ValueError("[panels] there is no epoch to draw")
    with Sheet(path, 5.2 * len(lines) if len(lines) > 1 else 6, 3.9) as figure:
        from matplotlib.ticker import MaxNLocator

        write_title(figure, title, note)
        for axis, (name, drawn) in zip(figure.subplots(1, len(lines), squeeze=False)[0], lines.items()):
            for colour, (label, values) in zip(_COLOURS * len(drawn), drawn.items()):
                marker = "o" if len(values) < 12 else None
                epochs = range(1, len(values) + 1)
                axis.plot(epochs, values, color=colour, label=label or None, marker=marker, ms=4)
            axis.set_title(name)
            axis.set_xlabel("epoch")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            if min(min(values) for values in drawn.values()) >= 0:
                axis.set_ylim(bottom=0)
            if any(drawn):
                axis.legend()
