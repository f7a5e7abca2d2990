"""The pictures that runs leave behind. Matplotlib is imported when one is drawn, not before."""

from fastarch.plots.sheet import TEST, TRAIN, VALIDATION, MissingMatplotlib
from fastarch.plots.tiles import filters, tiles
from fastarch.plots.training import confusion, curves, mistakes

__all__ = [
    "TEST",
    "TRAIN",
    "VALIDATION",
    "MissingMatplotlib",
    "confusion",
    "curves",
    "filters",
    "mistakes",
    "tiles",
]
