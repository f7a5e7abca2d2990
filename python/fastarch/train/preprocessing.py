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
    [C]: theirs, from 0 to 1; background: the usual value of their border pixels, from 0 to 1; extent: the
    share of the frame that what is drawn on them usually takes, None for pictures in colour.
    """

    channels: int
    size: tuple[int, int]
    native: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    background: float
    extent: float | None

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
            round(_extent(data.to_unit(x[:2000])), 3) if x.shape[1] == 1 else None,
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
                None if saved["extent"] is None else float(saved["extent"]),
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

    def adapt(self, picture: np.ndarray, invert: bool = False, whole: bool = False) -> np.ndarray:
        """One picture [C, H, W] of any size, bytes or 0 to 1, as the model knows them: [1, channels, *size].

        A photograph of another shape loses its ends. A drawing is framed as the training pictures are, unless
        `whole`, and goes through their size, so that it is as sharp or blurred. invert: light becomes dark.
        """
        x = data.to_unit(np.asarray(picture))[None].astype(np.float32, copy=False)
        if self.channels == 1 and x.shape[1] == 3:
            x = data.fit_images(x, (x.shape[2], x.shape[3]), 1)
        if invert:
            x = 1 - x
        if x.shape[2:] in (self.native, self.size):
            return self.resize(x)  # one of the data set, or like it
        ratio = self.native[0] / self.native[1]
        if self.extent is None:
            x = _middle(x, ratio)
        else:
            x = _pad(x, ratio) if whole else _framed(x, ratio, self.extent)
        return self.resize(data.fit_images(x, self.native))

    def looks_inverted(self, picture: np.ndarray) -> bool:
        """Whether the border of `picture` [C, H, W] is light where the training pictures' is dark, or so."""
        seen = float(np.median(border(data.to_unit(np.asarray(picture))[None])))
        return abs(seen - self.background) > 0.5


def border(x: np.ndarray) -> np.ndarray:
    """The outermost pixels of pictures [N, C, H, W], in one row per channel: [N, C, pixels]."""
    sides = [x[:, :, 0], x[:, :, -1], x[:, :, :, 0], x[:, :, :, -1]]
    return np.concatenate(sides, axis=2)


def _box(x: np.ndarray) -> tuple[slice, slice] | None:
    """Where pictures [1, C, H, W] differ clearly from their border's colour; None for a blank one."""
    difference = np.abs(x - _level(x)).max(axis=(0, 1))
    if difference.max() < 0.1:
        return None
    rows, columns = (np.flatnonzero((difference > 0.5 * difference.max()).any(axis=axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _level(x: np.ndarray) -> np.ndarray:
    """The border's colour, [1, C, 1, 1]."""
    return np.median(border(x), axis=2)[:, :, None, None]


def _extent(x: np.ndarray) -> float:
    """The usual share of the frame that is drawn on, in the direction that takes more of it."""
    boxes = [_box(picture[None]) for picture in x]
    height, width = x.shape[2:]
    shares = [
        max((box[0].stop - box[0].start) / height, (box[1].stop - box[1].start) / width)
        for box in boxes
        if box is not None
    ]
    return float(np.median(shares)) if shares else 1.0


def _framed(x: np.ndarray, ratio: float, extent: float) -> np.ndarray:
    """Cuts [1, C, H, W] to what is drawn on it, and frames that so that it takes `extent` of the frame."""
    box = _box(x)
    if box is None:
        return _pad(x, ratio)
    drawn = x[:, :, box[0], box[1]]
    height = max(drawn.shape[2], drawn.shape[3] * ratio) / extent
    return _placed(drawn, (round(height), round(height / ratio)), _level(x))


def _middle(x: np.ndarray, ratio: float) -> np.ndarray:
    """Gives [1, C, H, W] the shape H / W = `ratio` by cutting off two ends."""
    height, width = x.shape[2:]
    kept = (max(1, min(height, round(width * ratio))), max(1, min(width, round(height / ratio))))
    top, left = (height - kept[0]) // 2, (width - kept[1]) // 2
    return x[:, :, top : top + kept[0], left : left + kept[1]]


def _pad(x: np.ndarray, ratio: float) -> np.ndarray:
    """Gives [1, C, H, W] the shape H / W = `ratio` by adding its border's colour on two sides."""
    height, width = x.shape[2:]
    return _placed(x, (round(width * ratio), round(height / ratio)), _level(x))


def _placed(x: np.ndarray, size: tuple[int, int], level: np.ndarray) -> np.ndarray:
    """Puts [1, C, H, W] in the middle of a frame of at least `size` and colour `level`."""
    height, width = x.shape[2:]
    full = (max(height, size[0]), max(width, size[1]))
    y = np.empty((*x.shape[:2], *full), x.dtype)
    y[...] = level
    top, left = (full[0] - height) // 2, (full[1] - width) // 2
    y[:, :, top : top + height, left : left + width] = x
    return y
