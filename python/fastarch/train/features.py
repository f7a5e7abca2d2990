"""What a sample goes through before an estimator sees it, kept with the estimator for its predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastarch import data
from fastarch.train.preprocessing import Preprocessing

SCALINGS = ("unit", "standard")


@dataclass(frozen=True)
class Features:
    """From samples of a data set to rows of numbers: (x - offset) / scale.

    shape: of one sample, (C, H, W) or (D,). offset, scale: one number, or one for each feature. pictures: how
    a picture of another size is made one of these; None for features of a table.
    """

    shape: tuple[int, ...]
    offset: tuple[float, ...]
    scale: tuple[float, ...]
    pictures: Preprocessing | None

    @classmethod
    def fit(cls, dataset: Any, scaling: str) -> Features:
        """Measures the training samples x [N, C, H, W] or [N, D].

        scaling: "unit" brings the values to [0, 1], those of pictures together and those of a table column by
        column, and leaves what lies there already; "standard" gives every feature mean 0 and variance 1. A
        constant feature becomes 0.
        """
        if scaling not in SCALINGS:
            raise ValueError(f"[train] scaling is {scaling!r}, expected {', '.join(SCALINGS)}")
        x = data.to_unit(dataset.x).reshape(len(dataset.x), -1)
        shape = tuple(dataset.x.shape[1:])
        is_picture = len(shape) == 3 and shape[0] in (1, 3)
        if scaling == "standard":
            offset, scale = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
        elif x.min() >= 0 and x.max() <= 1:
            offset, scale = np.zeros(1), np.ones(1)
        elif is_picture:
            offset, scale = np.array([float(x.min())]), np.array([float(x.max()) - float(x.min())])
        else:
            offset = x.min(axis=0).astype(np.float64)
            scale = x.max(axis=0) - offset
        constant = scale <= 1e-12 * np.maximum(np.abs(offset), 1e-300)
        scale = np.where(constant, 1.0, scale)
        return cls(
            shape,
            tuple(map(float, offset)),
            tuple(map(float, scale)),
            Preprocessing.fit(dataset, (shape[0], shape[1], shape[2])) if is_picture else None,
        )

    def rows(self, x: np.ndarray, dtype: Any = np.float32) -> np.ndarray:
        """Samples of the data set's kind, [N, *shape], as [N, D]."""
        flat = data.to_unit(x).reshape(len(x), -1)
        if set(self.offset) == {0.0} and set(self.scale) == {1.0}:
            return flat.astype(dtype)
        return ((flat - np.array(self.offset)) / np.array(self.scale)).astype(dtype)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Features:
        """What `to_dict` returned. Raises ValueError when it is not that."""
        try:
            pictures = saved["pictures"]
            return cls(
                tuple(int(side) for side in saved["shape"]),
                tuple(float(value) for value in saved["offset"]),
                tuple(float(value) for value in saved["scale"]),
                None if pictures is None else Preprocessing.from_dict(pictures),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"[predict] the estimator's preprocessing cannot be read ({error!r})") from None

    def to_dict(self) -> dict[str, Any]:
        return {
            "shape": list(self.shape),
            "offset": list(self.offset),
            "scale": list(self.scale),
            "pictures": None if self.pictures is None else self.pictures.to_dict(),
        }
