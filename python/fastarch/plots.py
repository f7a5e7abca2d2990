"""The pictures of a training run: curves, confusion matrix, first-layer filters, worst mistakes.

Matplotlib is imported at first use and drawn on without pyplot: no window, no global state, any thread.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastarch import io

TRAIN, VALIDATION, TEST = "#2563eb", "#ea580c", "#15803d"
_WRONG, _INK, _FAINT, _RULE = "#c2410c", "#1f2937", "#6b7280", "#d1d5db"
_STYLE: Any = {
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _RULE,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eef0f3",
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}
_MOST_FILTERS, _MOST_MISTAKES, _MOST_NUMBERS = 64, 24, 25


class MissingMatplotlib(ImportError):
    """Matplotlib is not installed; the message says how to get it."""

    def __init__(self) -> None:
        super().__init__("pictures need matplotlib: pip install 'fastarch[demo]'")


class _Sheet:
    """A figure in the house style that becomes `path`, atomically, at the end of the with block."""

    def __init__(self, path: str | os.PathLike[str], width: float, height: float) -> None:
        try:
            import matplotlib
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError:
            raise MissingMatplotlib from None
        self.path = path
        self._style = matplotlib.rc_context(_STYLE)
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


def _title(figure: Any, title: str, note: str = "") -> None:
    text = title if not note else f"{title}\n"
    figure.suptitle(text, x=0.012, ha="left", fontsize=13, fontweight="bold", linespacing=1.25)
    if note:
        # The second line of the title is blank space that this smaller text fills.
        top = 1 - 0.36 / figure.get_figheight()
        figure.text(0.012, top, note, ha="left", va="center", fontsize=10, color=_FAINT)


def curves(
    records: Sequence[Mapping[str, Any]],
    path: str | os.PathLike[str],
    title: str = "Training",
    note: str = "",
    test_accuracy: float | None = None,
    best_epoch: int | None = None,
) -> None:
    """Draws loss and accuracy by epoch to a PNG file.

    records: one mapping per epoch with `epoch` (from 1), `loss`, and where there are such `accuracy`,
    `validation_loss` and `validation_accuracy` (fractions). Raises MissingMatplotlib, and ValueError for no
    records.
    """
    if not records:
        raise ValueError("[curves] there is no epoch to draw")
    epochs = [record["epoch"] for record in records]
    has_accuracy = "accuracy" in records[0]
    with _Sheet(path, 10.5 if has_accuracy else 6, 4.2) as figure:
        from matplotlib.ticker import FuncFormatter, MaxNLocator

        _title(figure, title, note)
        panels = figure.subplots(1, 2 if has_accuracy else 1, squeeze=False)[0]
        kinds = [("loss", "Loss")] + ([("accuracy", "Accuracy")] if has_accuracy else [])
        for panel, (kind, name) in zip(panels, kinds):
            for prefix, colour, label in (("", TRAIN, "training"), ("validation_", VALIDATION, "validation")):
                key = f"{prefix}{kind}"
                if key in records[0]:
                    marker = "o" if len(records) < 12 else None
                    panel.plot(
                        epochs, [r[key] for r in records], color=colour, label=label, marker=marker, ms=4
                    )
            panel.set_title(name)
            panel.set_xlabel("epoch")
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            # A single epoch is a point in the middle of its axis.
            panel.set_xlim(*((epochs[0], epochs[-1]) if len(epochs) > 1 else (epochs[0] - 1, epochs[0] + 1)))
            if best_epoch is not None:
                panel.axvline(best_epoch, color=_FAINT, lw=1, ls=":", label=f"best, epoch {best_epoch}")
        _loss_axis(panels[0], records)
        if has_accuracy:
            # The first tenth of the run may lie below the picture: what matters happens near the top.
            late = records[len(records) // 10 :]
            shown = [r[key] for r in late for key in ("accuracy", "validation_accuracy") if key in r]
            shown += [test_accuracy] if test_accuracy is not None else []
            margin = max(0.02, 0.08 * (max(shown) - min(shown)))
            panels[1].set_ylim(max(0.0, min(shown) - margin), min(1.0 + margin / 2, max(shown) + margin))
            panels[1].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
            if test_accuracy is not None:
                label = f"test, at the end: {100 * test_accuracy:.2f} %"
                panels[1].axhline(test_accuracy, color=TEST, lw=1.4, ls="--", label=label)
        # One legend beside the title serves both panels, and no curve can run into it.
        handles, labels = panels[-1].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="upper right", ncols=len(labels), borderaxespad=0.6, columnspacing=1.4
        )


def _loss_axis(panel: Any, records: Sequence[Mapping[str, Any]]) -> None:
    """A logarithmic axis once the loss falls tenfold: below that a linear one reads better."""
    values = [record[key] for record in records for key in ("loss", "validation_loss") if key in record]
    if min(values) > 0 and max(values) > 10 * min(values):
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.yaxis.set_minor_formatter(NullFormatter())
    else:
        panel.set_ylim(bottom=0)


def confusion(
    matrix: np.ndarray, classes: Sequence[str], path: str | os.PathLike[str], title: str = "Confusion"
) -> None:
    """Draws counts [true class, predicted class] to a PNG file: right answers in blue, mistakes in orange."""
    counts = np.asarray(matrix)
    n = len(classes)
    if counts.shape != (n, n):
        raise ValueError(f"[confusion] matrix has shape {counts.shape}, expected ({n}, {n}) for {n} classes")
    right, total = int(np.trace(counts)), int(counts.sum())
    longest = max((len(name) for name in classes), default=1)
    side = min(max(4.6, 0.48 * n + 0.09 * longest + 1.0), 14)
    with _Sheet(path, side, side + 0.35) as figure:
        from matplotlib.colors import LinearSegmentedColormap

        share = 100 * right / total if total else 0.0
        _title(figure, title, f"{right:,} of {total:,} right ({share:.2f} %)")
        axes = figure.subplots()
        axes.grid(False)
        rows = np.maximum(counts.sum(axis=1, keepdims=True), 1)
        rates = counts / rows
        diagonal = np.eye(n, dtype=bool)
        blues = LinearSegmentedColormap.from_list("right", ["#eff4ff", TRAIN])
        oranges = LinearSegmentedColormap.from_list("wrong", ["#ffe8d9", VALIDATION])
        axes.imshow(np.where(diagonal, rates, np.nan), cmap=blues, vmin=0, vmax=1)
        # A single mistake should be seen: the orange scale ends at the worst cell, not at 100 %.
        wrong = np.where(~diagonal & (counts > 0), rates, np.nan)
        worst = float(np.nanmax(wrong)) if np.isfinite(wrong).any() else 1.0
        axes.imshow(wrong, cmap=oranges, vmin=0, vmax=worst)
        if n <= _MOST_NUMBERS:
            for i, j in np.argwhere(counts > 0):
                strong = rates[i, j] > (0.55 if i == j else 0.75 * worst)
                colour = "white" if strong else _INK
                axes.text(j, i, f"{counts[i, j]}", ha="center", va="center", color=colour, fontsize=10)
        every = max(1, math.ceil(n / 40))
        ticks = range(0, n, every)
        long = longest > 3
        axes.set_xticks(ticks, [classes[i] for i in ticks], rotation=90 if long else 0)
        axes.set_yticks(ticks, [classes[i] for i in ticks])
        axes.tick_params(length=0)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        if n <= _MOST_NUMBERS:  # thin white lines between the cells
            axes.set_xticks(np.arange(n + 1) - 0.5, minor=True)
            axes.set_yticks(np.arange(n + 1) - 0.5, minor=True)
            axes.grid(which="minor", color="white", lw=1.5)
            axes.tick_params(which="minor", length=0)
        for side_name in ("left", "bottom"):
            axes.spines[side_name].set_visible(False)


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
    with _Sheet(path, max(1.15 * columns + (0 if colour else 0.9), 4.2), 1.15 * rows + 0.75) as figure:
        _title(figure, title, f"{of} filters, {size}" + (" x 3 colours" if colour else ""))
        axes = figure.subplots(rows, columns, squeeze=False)
        limit = float(np.abs(shown).max()) or 1.0
        image = None
        for index, axis in enumerate(axes.flat):
            if index >= len(shown):
                axis.axis("off")
                continue
            tile = 0.5 + 0.5 * shown[index] / limit if colour else shown[index]
            image = axis.imshow(tile, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
            _bare(axis)
        if not colour:
            bar = figure.colorbar(image, ax=list(axes.flat), fraction=0.03, aspect=14, shrink=0.95)
            bar.outline.set_visible(False)
            bar.ax.tick_params(length=0)


def mistakes(
    images: np.ndarray,
    true: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    path: str | os.PathLike[str],
    title: str = "Worst mistakes",
) -> None:
    """Draws the surest wrong answers, then the least certain right ones where there are few, to a PNG file.

    images: [N, H, W], [N, 1, H, W] or [N, 3, H, W]; true: [N] class numbers; probabilities: [N, classes].
    """
    images, true = np.asarray(images), np.asarray(true)
    probabilities = np.asarray(probabilities)
    if len(images) == 0 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[1] not in (1, 3)):
        raise ValueError(
            f"[mistakes] images have shape {images.shape}, expected [N, 1, H, W] or [N, 3, H, W]"
        )
    if images.ndim == 4:
        images = images[:, 0] if images.shape[1] == 1 else images.transpose(0, 2, 3, 1)
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != true)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
    right = np.flatnonzero(predicted == true)
    right = right[np.argsort(confidence[right], kind="stable")]
    columns = 6
    shown = wrong[:_MOST_MISTAKES]
    filler = right[: max(0, 2 * columns - len(shown))]
    order = np.concatenate([shown, filler])
    note = f"{len(wrong):,} of {len(true):,} wrong"
    note += f", the surest {len(shown)} shown" if len(shown) < len(wrong) else ""
    note += "; in grey the least certain right ones" if len(filler) else ""
    note += ". Below each: the prediction, how sure it was, and the truth"
    rows = math.ceil(len(order) / columns)
    with _Sheet(path, 1.5 * columns, 1.95 * rows + 0.7) as figure:
        _title(figure, title, note)
        axes = figure.subplots(rows, columns, squeeze=False)
        low, high = float(images.min()), float(images.max())
        for position, axis in enumerate(axes.flat):
            if position >= len(order):
                axis.axis("off")
                continue
            i = order[position]
            picture = images[i] if images.ndim == 3 else (images[i] - low) / ((high - low) or 1.0)
            axis.imshow(picture, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            _bare(axis)
            mistaken = predicted[i] != true[i]
            axis.set_xlabel(
                f"{_short(classes[predicted[i]])}, {100 * confidence[i]:.0f} %\n"
                f"true: {_short(classes[true[i]])}",
                color=_WRONG if mistaken else _FAINT,
                fontweight="bold" if mistaken else "normal",
                fontsize=9,
                labelpad=4,
            )


def _bare(axis: Any) -> None:
    axis.grid(False)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)


def _short(name: str, most: int = 10) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
