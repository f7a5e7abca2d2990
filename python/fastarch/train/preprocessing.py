"""What a picture goes through before a model sees it, kept with the model for its predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fastarch import data


@dataclass(frozen=True)
class Preprocessing:
    """From pictures of any size to a model's input.

    size: what the model takes (h, w); channels: 1 or 3; native: the size of the training pictures; mean, std
    [C]: theirs, from 0 to 1; background: the usual value of their border pixels, from 0 to 1.
    """

    channels: int
    size: tuple[int, int]
    native: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    background: float

    @classmethod
    def fit(cls, dataset: Any, input_shape: tuple[int, int, int]) -> Preprocessing:
        """Measures the training pictures x [N, C, H, W] for a model that takes `input_shape` (C, H, W)."""
        x = dataset.x
        if x.ndim != 4:
            raise ValueError(
                f"[train] {dataset.name!r} has samples of shape {x.shape[1:]}, this model takes pictures"
            )
        channels, size = input_shape[0], (input_shape[1], input_shape[2])
        normalize = data.Normalize.fit(data.fit_images(x, size, channels))
        return cls(
            channels,
            size,
            (x.shape[2], x.shape[3]),
            tuple(float(value) for value in normalize.mean),
            tuple(float(value) for value in normalize.std),
            round(float(np.median(border(data.to_unit(x[:2000])))), 4),
        )

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Preprocessing:
        """What `to_dict` returned. Raises ValueError when it is not that."""
        try:
            size, native = (tuple(int(side) for side in saved[name]) for name in ("size", "native"))
            mean, std = (tuple(float(value) for value in saved[name]) for name in ("mean", "std"))
            return cls(
                int(saved["channels"]),
                (size[0], size[1]),
                (native[0], native[1]),
                mean,
                std,
                float(saved["background"]),
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ValueError(f"[predict] the model's preprocessing cannot be read ({error!r})") from None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def normalize(self) -> data.Normalize:
        """The step after resizing (and augmentation)."""
        return data.Normalize(self.mean, self.std)

    def resize(self, x: np.ndarray) -> np.ndarray:
        """Pictures [N, C, H, W] of the training data's kind as the model takes them, not yet normalised."""
        return data.fit_images(x, self.size, self.channels)

    def adapt(self, picture: np.ndarray, invert: bool = False, crop: bool = False) -> np.ndarray:
        """One picture [C, H, W] of any size, bytes or 0 to 1, as the model knows them: [1, channels, *size].

        It goes through the training pictures' own size, so that it is as sharp or blurred as they are; its
        border's colour fills up a different shape. invert: light becomes dark; crop: cut to what differs from
        the border.
        """
        x = data.to_unit(np.asarray(picture))[None].astype(np.float32, copy=False)
        if self.channels == 1 and x.shape[1] == 3:
            x = data.fit_images(x, (x.shape[2], x.shape[3]), 1)
        if invert:
            x = 1 - x
        if crop:
            x = _crop(x)
        if x.shape[2:] not in (self.native, self.size):
            x = data.fit_images(_pad(x, self.native[0] / self.native[1]), self.native)
        return self.resize(x)

    def looks_inverted(self, picture: np.ndarray) -> bool:
        """Whether the border of `picture` [C, H, W] is light where the training pictures' is dark, or so."""
        seen = float(np.median(border(data.to_unit(np.asarray(picture))[None])))
        return abs(seen - self.background) > 0.5


def border(x: np.ndarray) -> np.ndarray:
    """The outermost pixels of pictures [N, C, H, W], in one row per channel: [N, C, pixels]."""
    sides = [x[:, :, 0], x[:, :, -1], x[:, :, :, 0], x[:, :, :, -1]]
    return np.concatenate(sides, axis=2)


def _crop(x: np.ndarray, margin: float = 0.05) -> np.ndarray:
    """Cuts [1, C, H, W] to the pixels that differ clearly from the border's colour, and a little around."""
    level = np.median(border(x), axis=2)[:, :, None, None]
    difference = np.abs(x - level).max(axis=(0, 1))
    if difference.max() < 0.1:
        return x  # a blank picture
    rows, columns = (np.flatnonzero((difference > 0.5 * difference.max()).any(axis=axis)) for axis in (1, 0))
    extra = max(1, round(margin * max(np.ptp(rows), np.ptp(columns))))
    top, left = max(rows[0] - extra, 0), max(columns[0] - extra, 0)
    return x[:, :, top : rows[-1] + 1 + extra, left : columns[-1] + 1 + extra]


def _pad(x: np.ndarray, ratio: float) -> np.ndarray:
    """Gives [1, C, H, W] the shape H / W = `ratio` by adding its border's colour on two sides."""
    height, width = x.shape[2:]
    full = (max(height, round(width * ratio)), max(width, round(height / ratio)))
    if full == (height, width):
        return x
    level = np.median(border(x), axis=2)[:, :, None, None]
    y = np.empty((*x.shape[:2], *full), x.dtype)
    y[...] = level
    top, left = (full[0] - height) // 2, (full[1] - width) // 2
    y[:, :, top : top + height, left : left + width] = x
    return y
