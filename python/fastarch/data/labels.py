"""Labels as they lie in files, numbers or names, turned into class indices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastarch.data.dataset import MAX_CLASSES, DataError

__all__ = ["class_order", "from_names", "from_numbers"]


def from_numbers(labels: np.ndarray, path: Path, what: str = "labels") -> tuple[np.ndarray, list[str]]:
    """Whole numbers as they are, [N] int64, and the names "0" to the largest."""
    if labels.dtype.kind == "f" and (labels == np.floor(labels)).all():
        labels = labels.astype(np.int64)
    if labels.dtype.kind not in "iu":
        raise DataError(f"[data] {path}: {what} of type {labels.dtype}, expected whole numbers or names")
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, -1)
    if low < 0 or high >= MAX_CLASSES:
        raise DataError(
            f"[data] {path}: {what} from {low} to {high}, expected 0 to at most {MAX_CLASSES - 1}"
        )
    return labels.astype(np.int64), [str(k) for k in range(high + 1)]


def from_names(names: Sequence[str], path: Path) -> tuple[np.ndarray, list[str]]:
    """The index of each name among the different ones in order, [N] int64, and those."""
    classes = class_order(set(names))
    if len(classes) > MAX_CLASSES:
        raise DataError(f"[data] {path}: {len(classes)} different labels, expected at most {MAX_CLASSES}")
    index = {name: k for k, name in enumerate(classes)}
    return np.array([index[name] for name in names], np.int64), classes


def class_order(names: set[str]) -> list[str]:
    """Names in order: whole numbers by value, anything else as text."""
    if all(name.isdecimal() and len(name) < 19 for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)
