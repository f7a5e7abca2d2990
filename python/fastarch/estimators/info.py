"""The entry of an estimator in the table from which the command line trains, lists, reports and predicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Part:
    """Samples as an estimator sees them: one part of a data set.

    x: [N, D] float32. y: [N] int64, indices into `classes`, or None. shape: (C, H, W) of a picture whose
    pixels are a row of x (D = C H W), or None. name: the data set's.
    """

    x: np.ndarray
    y: np.ndarray | None
    classes: tuple[str, ...]
    shape: tuple[int, ...] | None
    name: str = "data"

    def __len__(self) -> int:
        return len(self.x)

    @property
    def labelled(self) -> bool:
        """Whether the samples have classes."""
        return self.y is not None

    def images(self, rows: Any = slice(None)) -> np.ndarray:
        """The samples as pictures for `plots.tiles`: [N, H, W], or [N, H, W, 3] in colour."""
        return as_images(self.x[rows], self.shape)


def as_images(x: np.ndarray, shape: tuple[int, ...] | None) -> np.ndarray:
    """Rows [N, D] as pictures for `plots.tiles`: [N, H, W], in colour [N, H, W, 3]; without a shape each row
    is a picture one pixel high."""
    channels, height, width = shape or (1, 1, x.shape[1])
    pictures = x.reshape(len(x), channels, height, width)
    return pictures.transpose(0, 2, 3, 1) if channels == 3 else pictures[:, 0]


@dataclass
class Report:
    """What a trained estimator has come to.

    sentence: the result in one line, as a person says it. figures: names and plain numbers for summary.json.
    pictures: names of the files drawn into the run folder.
    """

    sentence: str
    figures: dict[str, Any]
    pictures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class EstimatorInfo:
    """An estimator for the command line.

    builder: the class; called with `training`, the command line's --model arguments, and those of its options
    that `options` maps to an argument ({"epochs": "n_iter"}); an option that is not mapped is refused.
    scaling: how the data's features come in: "unit" for [0, 1], "standard" for mean 0 and variance 1.
    report: called with the fitted estimator, the parts ("training", and "test" unless there is none) and the
    folder for pictures (None: draw none). predict: called with the fitted estimator, samples [N, D] scaled as
    in training and the names of the classes: what to say of each, one dict of plain values a sample.
    supervised: whether fit wants labels.
    """

    name: str
    title: str
    builder: Callable[..., Any]
    description: str
    paper: str
    report: Callable[[Any, Mapping[str, Part], Path | None], Report]
    predict: Callable[[Any, np.ndarray, Sequence[str]], list[dict[str, Any]]]
    supervised: bool = False
    dataset: str = "digits"
    scaling: str = "unit"
    training: dict[str, Any] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
