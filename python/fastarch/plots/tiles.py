"""Many small pictures side by side: filters of a convolution, weights, samples, reconstructions."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import numpy as np

from fastarch.plots.sheet import FAINT, Sheet, bare, write_title

_MOST_FILTERS = 64


def filters(weight: np.ndarray, path: str | os.PathLike[str], title: str = "First layer") -> None:
    """Draws the filters [K, C, R, S] of a convolution to a PNG file, at most 64 of them.

    Three channels are shown as colours; one, or any other number, as weights from blue (negative) to red.
    """
    weight = np.asarray(weight, dtype=np.float64)
    if weight.ndim != 4 or weight.size == 0:
        raise ValueError(f"[filters] weight has shape {weight.shape}, expected [K, C, R, S]")
    k, c = weight.shape[:2]
    colour = c == 3
    tiles = weight.transpose(0, 2, 3, 1) if colour else weight.reshape(k * c, *weight.shape[2:])
    shown = tiles[:_MOST_FILTERS]
    columns = min(len(shown), 6 if len(shown) <= 24 else 8)
    rows = math.ceil(len(shown) / columns)
    size = f"{weight.shape[2]} x {weight.shape[3]}"
    of = f"the first {len(shown)} of {len(tiles)}" if len(shown) < len(tiles) else f"{len(shown)}"
    with Sheet(path, max(1.15 * columns + (0 if colour else 0.9), 4.2), 1.15 * rows + 0.75) as figure:
        write_title(figure, title, f"{of} filters, {size}" + (" x 3 colours" if colour else ""))
        axes = figure.subplots(rows, columns, squeeze=False)
        limit = float(np.abs(shown).max()) or 1.0
        image = None
        for index, axis in enumerate(axes.flat):
            if index >= len(shown):
                axis.axis("off")
                continue
            tile = 0.5 + 0.5 * shown[index] / limit if colour else shown[index]
            image = axis.imshow(tile, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
            bare(axis)
        if not colour:
            bar = figure.colorbar(image, ax=list(axes.flat), fraction=0.03, aspect=14, shrink=0.95)
            bar.outline.set_visible(False)
            bar.ax.tick_params(length=0)


def tiles(
    images: np.ndarray,
    path: str | os.PathLike[str],
    title: str,
    note: str = "",
    *,
    columns: int = 10,
    signed: bool = False,
    captions: Sequence[str] | None = None,
    row_labels: Sequence[str] | None = None,
) -> None:
    """Draws pictures [N, H, W] (grey) or [N, H, W, 3] (colour, 0 to 1) in rows of `columns` to a PNG file.

    Grey from the least to the greatest value of all of them; with `signed`, from blue (negative) to red,
    white at zero, with a scale beside them. captions: text below each picture; row_labels: text before each
    row.
    """
    images = np.asarray(images)
    if images.ndim not in (3, 4) or images.size == 0 or (images.ndim == 4 and images.shape[3] != 3):
        raise ValueError(f"[tiles] images have shape {images.shape}, expected [N, H, W] or [N, H, W, 3]")
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    low, high = float(images.min()), float(images.max())
    if signed:
        high = float(np.abs(images).max()) or 1.0
        low = -high
    ratio = images.shape[1] / images.shape[2]
    width = max(0.85 * columns + (0.9 if signed else 0) + (1.1 if row_labels else 0), 4.6)
    height = (0.85 * ratio + (0.24 if captions else 0)) * rows + 0.8
    with Sheet(path, width, height) as figure:
        write_title(figure, title, note)
        axes = figure.subplots(rows, columns, squeeze=False)
        drawn = None
        for index, axis in enumerate(axes.flat):
            bare(axis)
            if index >= len(images):
                axis.axis("off")
                continue
            cmap = "RdBu_r" if signed else "gray"
            drawn = axis.imshow(images[index], cmap=cmap, vmin=low, vmax=high, interpolation="nearest")
            if captions is not None:
                axis.set_xlabel(captions[index], fontsize=8, color=FAINT, labelpad=2)
            if row_labels is not None and index % columns == 0:
                axis.set_ylabel(row_labels[index // columns], rotation=0, ha="right", va="center", labelpad=8)
        if signed:
            bar = figure.colorbar(drawn, ax=list(axes.flat), fraction=0.03, aspect=14, shrink=0.95)
            bar.outline.set_visible(False)
            bar.ax.tick_params(length=0)
