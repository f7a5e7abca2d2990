"""The pictures of a supervised run: curves, confusion matrix, worst mistakes."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastarch.plots.sheet import FAINT, INK, TEST, TRAIN, VALIDATION, WRONG, Sheet, bare, write_title

_MOST_MISTAKES, _MOST_NUMBERS = 24, 25


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
    with Sheet(path, 10.5 if has_accuracy else 6, 4.2) as figure:
        from matplotlib.ticker import FuncFormatter, MaxNLocator

        write_title(figure, title, note)
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
                panel.axvline(best_epoch, color=FAINT, lw=1, ls=":", label=f"best, epoch {best_epoch}")
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
    with Sheet(path, side, side + 0.35) as figure:
        from matplotlib.colors import LinearSegmentedColormap

        share = 100 * right / total if total else 0.0
        write_title(figure, title, f"{right:,} of {total:,} right ({share:.2f} %)")
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
                colour = "white" if strong else INK
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
    with Sheet(path, 1.5 * columns, 1.95 * rows + 0.7) as figure:
        write_title(figure, title, note)
        axes = figure.subplots(rows, columns, squeeze=False)
        low, high = float(images.min()), float(images.max())
        for position, axis in enumerate(axes.flat):
            if position >= len(order):
                axis.axis("off")
                continue
            i = order[position]
            picture = images[i] if images.ndim == 3 else (images[i] - low) / ((high - low) or 1.0)
            axis.imshow(picture, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            bare(axis)
            mistaken = predicted[i] != true[i]
            axis.set_xlabel(
                f"{_short(classes[predicted[i]])}, {100 * confidence[i]:.0f} %\n"
                f"true: {_short(classes[true[i]])}",
                color=WRONG if mistaken else FAINT,
                fontweight="bold" if mistaken else "normal",
                fontsize=9,
                labelpad=4,
            )


def _short(name: str, most: int = 10) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
