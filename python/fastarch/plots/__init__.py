"""The pictures that runs leave behind. Matplotlib is imported when one is drawn, not before."""

from fastarch.plots.energy import panels
from fastarch.plots.maps import (
    codebook_map,
    colour_map,
    component_planes,
    hit_map,
    label_colours,
    label_map,
    map_colours,
    u_matrix,
)
from fastarch.plots.sheet import TEST, TRAIN, VALIDATION, MissingMatplotlib
from fastarch.plots.tiles import filters, tiles
from fastarch.plots.training import confusion, curves, mistakes

__all__ = [
    "TEST",
    "TRAIN",
    "VALIDATION",
    "MissingMatplotlib",
    "codebook_map",
    "colour_map",
    "component_planes",
    "confusion",
    "curves",
    "filters",
    "hit_map",
    "label_colours",
    "label_map",
    "map_colours",
    "mistakes",
    "panels",
    "tiles",
    "u_matrix",
]
