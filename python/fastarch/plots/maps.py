"""Pictures of self-organizing maps, on rectangular and hexagonal grids: heights, planes, hits, colours."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastarch.plots.sheet import FAINT, INK, Sheet, bare, write_title

_ROOT3 = math.sqrt(3)
_CELL = 0.24  # inches
_MOST_PLANES = 64
_MOST_NAMES = 600  # cells of a map with their labels' names in them
_LEAST_SPAN = 0.05
_EMPTY = "#f1f3f5"
# Ten colours that differ in lightness too, for labels; more labels take a wheel of hues.
_LABELS = (
    "#4e79a7",
    "#f28e2b",
    "#59a14f",
    "#e15759",
    "#b07aa1",
    "#edc948",
    "#76b7b2",
    "#9c755f",
    "#ff9da7",
    "#8d99ae",
)


def u_matrix(
    heights: np.ndarray,
    path: str | os.PathLike[str],
    topology: str = "rectangular",
    title: str = "U-matrix",
    note: str = "",
) -> None:
    """Draws a U-matrix [rows, columns] to a PNG file: clusters are dark valleys, borders light ridges."""
    heights = _plane("u_matrix", "heights", heights)
    size = _size(heights.shape, topology)
    with Sheet(path, max(4.2, size[0] + 1.2), size[1] + 0.9) as figure:
        write_title(figure, title, note or "how far each unit lies from its neighbours in the data's space")
        axis = figure.subplots()
        cells = _cells(axis, heights.shape, topology)
        cells.set(array=heights.reshape(-1), cmap="magma", clim=_limits(heights))
        _bar(figure, cells, axis)


def component_planes(
    planes: np.ndarray,
    path: str | os.PathLike[str],
    topology: str = "rectangular",
    names: Sequence[str] | None = None,
    title: str = "Component planes",
    note: str = "",
    *,
    common: bool = False,
) -> None:
    """Draws a codebook [D, rows, columns] feature by feature to a PNG file, at most 64 of them.

    names: of the features. common: one scale of colours for all, for features of one kind such as pixels;
    else each has its own from its smallest to its largest value.
    """
    planes = np.asarray(planes, dtype=np.float64)
    if planes.ndim != 3 or planes.size == 0:
        raise ValueError(f"[component_planes] planes have shape {planes.shape}, expected [D, rows, columns]")
    names = [str(k) for k in range(len(planes))] if names is None else list(names)
    if len(names) != len(planes):
        raise ValueError(f"[component_planes] {len(names)} names, expected {len(planes)}")
    shown = planes[:_MOST_PLANES]
    across = min(len(shown), math.ceil(math.sqrt(len(shown))))
    down = math.ceil(len(shown) / across)
    width, height = _size(planes.shape[1:], topology)
    shrink = min(1.0, (1.25 if across > 4 else 2.2) / max(width, height))
    width, height = width * shrink, height * shrink
    note = note or (f"the first {len(shown)} of {len(planes)} features" if len(shown) < len(planes) else "")
    bar = 0.8 if common else 0.0
    with Sheet(path, max(4.2, across * (width + 0.12) + bar), down * (height + 0.26) + 0.75) as figure:
        write_title(figure, title, note)
        axes = figure.subplots(down, across, squeeze=False)
        limits = _limits(shown)
        for k, axis in enumerate(axes.flat):
            if k >= len(shown):
                axis.axis("off")
                continue
            cells = _cells(axis, planes.shape[1:], topology, 0.0)
            cells.set(array=shown[k].reshape(-1), cmap="viridis")
            cells.set_clim(*(limits if common else _limits(shown[k])))
            axis.set_title(names[k], fontsize=9, fontweight="normal", color=FAINT, pad=2, loc="center")
        if common:
            _bar(figure, cells, list(axes.flat))


def hit_map(
    counts: np.ndarray,
    path: str | os.PathLike[str],
    topology: str = "rectangular",
    title: str = "Hits",
    note: str = "",
    *,
    labels: np.ndarray | None = None,
    classes: Sequence[str] = (),
) -> None:
    """Draws how many samples each unit has [rows, columns] to a PNG file, as areas of fillings.

    labels: [rows, columns], the units' labels as indices into `classes`, -1 for none: each cell then has its
    label's colour and, where names are short, its name.
    """
    counts = _plane("hit_map", "counts", counts)
    most = max(1.0, float(counts.max()))
    with _labelled("hit_map", counts.shape, labels, classes, path, topology) as (figure, axis, picture):
        total, empty = int(counts.sum()), int((counts == 0).sum())
        write_title(
            figure, title, note or f"{total:,} samples, at most {most:,.0f} a unit, {empty} units empty"
        )
        picture(_cells(axis, counts.shape, topology), _EMPTY, pale=True)
        filled = _cells(axis, counts.shape, topology, scale=np.sqrt(counts / most).reshape(-1))
        picture(filled, "#2563eb")


def label_map(
    labels: np.ndarray,
    classes: Sequence[str],
    path: str | os.PathLike[str],
    topology: str = "rectangular",
    title: str = "Labels",
    note: str = "",
) -> None:
    """Draws the units' labels [rows, columns], indices into `classes` or -1, to a PNG file, coloured."""
    labels = np.asarray(labels)
    with _labelled("label_map", labels.shape, labels, classes, path, topology) as (figure, axis, picture):
        write_title(figure, title, note or "each unit's most frequent label; pale where no sample came")
        picture(_cells(axis, labels.shape, topology), _EMPTY)


def colour_map(
    colours: np.ndarray,
    path: str | os.PathLike[str],
    topology: str = "rectangular",
    title: str = "Map",
    note: str = "",
) -> None:
    """Draws units in colours [rows, columns, 3], red, green and blue from 0 to 1, to a PNG file.

    For what is no colour, `map_colours` makes some.
    """
    colours = np.asarray(colours, dtype=np.float64)
    if colours.ndim != 3 or colours.shape[2] != 3 or colours.size == 0:
        raise ValueError(f"[colour_map] colours have shape {colours.shape}, expected [rows, columns, 3]")
    size = _size(colours.shape[:2], topology)
    with Sheet(path, max(4.2, size[0] + 0.3), size[1] + 0.9) as figure:
        write_title(figure, title, note or "similar colours, similar units")
        axis = figure.subplots()
        _cells(axis, colours.shape[:2], topology, 0.0).set(facecolor=np.clip(colours.reshape(-1, 3), 0, 1))


def codebook_map(
    images: np.ndarray,
    path: str | os.PathLike[str],
    topology: str = "rectangular",
    title: str = "Codebook",
    note: str = "",
) -> None:
    """Draws units that are grey pictures [rows, columns, H, W] to a PNG file, side by side as on the grid."""
    images = np.asarray(images, dtype=np.float64)
    if images.ndim != 4 or images.size == 0:
        raise ValueError(f"[codebook_map] images have shape {images.shape}, expected [rows, columns, H, W]")
    rows, columns, h, w = images.shape
    gap = max(1, w // 8)
    shift = (w + gap) // 2 if topology == "hexagonal" and rows > 1 else 0
    sheet = np.full((rows * (h + gap) - gap, columns * (w + gap) - gap + shift), np.nan)
    for r in range(rows):
        for c in range(columns):
            down, across = r * (h + gap), c * (w + gap) + r % 2 * shift
            sheet[down : down + h, across : across + w] = images[r, c]
    scale = min(0.45 * max(rows, columns), 12.0) / max(sheet.shape)
    width, height = sheet.shape[1] * scale, sheet.shape[0] * scale
    with Sheet(path, max(4.2, width + 0.3), height + 0.9) as figure:
        write_title(figure, title, note or "each unit's place in the data's space, as a picture")
        axis = figure.subplots()
        low, high = _limits(images)
        axis.imshow(sheet, cmap="gray_r", vmin=low, vmax=high, interpolation="nearest")
        bare(axis)


def map_colours(codebook: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Colours of units, the closer in the data's space the more alike: codebook [M, D] -> [rows, columns, 3].

    Along their largest principal component from green to red, along the second from blue to yellow, along
    the third from dark to light (CIE L*a*b*).
    """
    codebook = np.asarray(codebook, dtype=np.float64)
    centered = codebook - codebook.mean(axis=0)
    left, lengths, _ = np.linalg.svd(centered, full_matrices=False)
    parts = np.zeros((len(codebook), 3))
    k = min(3, len(lengths))
    parts[:, :k] = (left * lengths)[:, :k]
    span = np.ptp(parts, axis=0)
    span = np.maximum(span, _LEAST_SPAN * span[0])  # what hardly varies is not blown up to every colour
    middle = (parts.max(axis=0) + parts.min(axis=0)) / 2
    parts = 2 * (parts - middle) / np.where(span > 0, span, 1)
    return _from_lab(59 + 21 * parts[:, 2], 90 * parts[:, 0], 80 * parts[:, 1]).reshape(*grid, 3)


def _from_lab(lightness: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """sRGB of CIE L*a*b* colours (D65), clipped to what a screen shows: [M, 3]."""
    fy = (lightness + 16) / 116
    f = np.stack([fy + a / 500, fy, fy - b / 200], axis=1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * [0.95047, 1.0, 1.08883]
    to_rgb = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])
    linear = np.clip(xyz @ to_rgb.T, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


class _labelled:
    """A sheet for units coloured by label: gives (figure, axis, picture), where picture(cells, plain) colours
    cells, by `plain` where there are no labels, and puts names or a legend beside them unless `pale`."""

    def __init__(
        self,
        who: str,
        grid: tuple[int, ...],
        labels: np.ndarray | None,
        classes: Sequence[str],
        path: str | os.PathLike[str],
        topology: str,
    ) -> None:
        if len(grid) != 2 or 0 in grid:
            raise ValueError(f"[{who}] the grid has shape {grid}, expected [rows, columns]")
        if labels is not None:
            labels = np.asarray(labels)
            if labels.shape != grid or labels.dtype.kind not in "iu" or labels.max() >= len(classes):
                raise ValueError(
                    f"[{who}] labels have shape {labels.shape}, "
                    f"expected {grid} indices into {len(classes)} classes"
                )
        self.labels, self.classes, self.topology, self.grid = labels, list(classes), topology, grid
        width, height = _size(grid, topology)
        used = [] if labels is None else np.unique(labels[labels >= 0]).tolist()
        self.used: list[int] = used
        # A cell that its label's name fits in needs no legend.
        short = bool(used) and max(len(self.classes[k]) for k in used) <= 2
        self.named = short and labels is not None and labels.size <= _MOST_NAMES
        longest = max((len(self.classes[k]) for k in used), default=0)
        self.legend = 0.0 if self.named or not used else 0.5 + 0.085 * min(longest, 24)
        self.sheet = Sheet(path, max(4.2, width + 0.3 + self.legend), height + 0.9)

    def __enter__(self) -> tuple[Any, Any, Any]:
        figure = self.sheet.__enter__()
        axis = figure.subplots()

        def picture(cells: Any, plain: str, pale: bool = False) -> None:
            if self.labels is None:
                cells.set(facecolor=plain)
                return
            from matplotlib.colors import to_rgb

            palette = [np.array(to_rgb(colour)) for colour in label_colours(len(self.classes))]
            if pale:
                palette = [0.25 * colour + 0.75 for colour in palette]
            flat = self.labels.reshape(-1)
            cells.set(facecolor=[palette[k] if k >= 0 else to_rgb(_EMPTY) for k in flat])
            if pale:
                return
            centers = _centers(self.grid, self.topology)
            for (x, y), k in zip(centers, flat):
                if self.named and k >= 0:
                    axis.text(x, y, self.classes[k], ha="center", va="center", fontsize=8, color=INK)
            if self.legend:
                from matplotlib.patches import Patch

                shown = [Patch(facecolor=tuple(palette[k]), label=self.classes[k][:24]) for k in self.used]
                axis.legend(handles=shown, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9)

        return figure, axis, picture

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.sheet.__exit__(kind, error, trace)


def label_colours(n: int) -> list[Any]:
    """A colour for each of n labels."""
    if n <= len(_LABELS):
        return list(_LABELS[:n])
    hues = np.arange(n) / n * 2 * np.pi
    lightness = np.where(np.arange(n) % 2, 78.0, 60.0)
    return list(_from_lab(lightness, 55 * np.cos(hues), 55 * np.sin(hues)))


def _plane(who: str, name: str, value: np.ndarray) -> np.ndarray:
    plane = np.asarray(value, dtype=np.float64)
    if plane.ndim != 2 or plane.size == 0:
        raise ValueError(f"[{who}] {name} has shape {plane.shape}, expected [rows, columns]")
    return plane


def _size(grid: Sequence[int], topology: str) -> tuple[float, float]:
    """Width and height in inches of a map whose cells are _CELL wide, larger where it would be tiny."""
    rows, columns = grid
    width = columns + (0.5 if topology == "hexagonal" and rows > 1 else 0.0)
    height = rows * _ROOT3 / 2 + 0.3 if topology == "hexagonal" else float(rows)
    scale = _CELL * min(max(1.0, 16 / max(rows, columns)), 12 / (_CELL * max(width, height)))
    return width * scale, height * scale


def _centers(grid: Sequence[int], topology: str) -> np.ndarray:
    """(across, down) of each cell's middle: [M, 2]."""
    if topology not in ("rectangular", "hexagonal"):
        raise ValueError(f"[plots] topology is {topology!r}, expected 'rectangular' or 'hexagonal'")
    row, column = (part.reshape(-1).astype(float) for part in np.indices(tuple(grid)))
    if topology == "hexagonal":
        return np.stack([column + row % 2 / 2, row * _ROOT3 / 2], axis=1)
    return np.stack([column, row], axis=1)


def _cells(
    axis: Any, grid: Sequence[int], topology: str, edge: float = 0.4, scale: np.ndarray | None = None
) -> Any:
    """Adds a square or hexagon for each unit, without colours yet; row 0 is at the top."""
    from matplotlib.collections import PolyCollection

    centers = _centers(grid, topology)
    if topology == "hexagonal":
        angles = np.deg2rad(30 + 60 * np.arange(6))
        corners = np.stack([np.cos(angles), np.sin(angles)], axis=1) / _ROOT3
    else:
        corners = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
    shapes = centers[:, None] + corners * (1.0 if scale is None else np.asarray(scale)[:, None, None])
    # Without lines between them, cells cover the seams that smoothing would leave.
    cells = PolyCollection(list(shapes), linewidths=edge or 0.4, edgecolors="white" if edge else "face")
    axis.add_collection(cells)
    if scale is None:
        low, high = shapes.reshape(-1, 2).min(axis=0), shapes.reshape(-1, 2).max(axis=0)
        axis.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]), aspect="equal")
        bare(axis)
    return cells


def _limits(values: np.ndarray) -> tuple[float, float]:
    """The smallest and largest finite value, apart even where all are equal."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _bar(figure: Any, cells: Any, axes: Any) -> None:
    bar = figure.colorbar(cells, ax=axes, fraction=0.04, aspect=22, shrink=0.95, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
