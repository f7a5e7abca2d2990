"""What every sample goes through alike: scaling to [0, 1], normalising, resizing, one-hot labels."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

__all__ = ["Normalize", "fit_images", "one_hot", "to_unit"]

_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow and torchvision
_CHUNK = 1024  # samples at a time, so that a data set of bytes is never a data set of floats in memory


def to_unit(x: np.ndarray) -> np.ndarray:
    """Bytes 0 to 255 as float32 0 to 1; floats as they are."""
    return x * np.float32(1 / 255) if x.dtype == np.uint8 else x


class Normalize:
    """Shifts and scales every channel of [N, C, ...]: (x - mean) / std, mean and std [C] float32.

    Bytes are taken as 0 to 1. A channel with std 0 is only shifted.
    """

    def __init__(self, mean: Any, std: Any) -> None:
        self.mean = np.atleast_1d(np.asarray(mean, np.float32))
        self.std = np.atleast_1d(np.asarray(std, np.float32))
        if self.mean.shape != self.std.shape or self.mean.ndim != 1:
            raise ValueError(
                f"[Normalize] mean has shape {self.mean.shape}, std {self.std.shape}, expected [C] each"
            )
        if not (np.isfinite(self.mean).all() and np.isfinite(self.std).all() and (self.std >= 0).all()):
            raise ValueError("[Normalize] mean and std must be finite and std not negative")

    @classmethod
    def fit(cls, x: np.ndarray) -> Normalize:
        """The mean and standard deviation of each channel of the training data x [N, C, ...]."""
        if x.ndim < 2 or not x.size:
            raise ValueError(f"[Normalize] x has shape {x.shape}, expected [N, C, ...] with samples")
        axes = (0, *range(2, x.ndim))
        count = x.size // x.shape[1]

        def total(value: Any) -> np.ndarray:  # two passes, in float64: exact enough for any mean
            chunks = range(0, len(x), _CHUNK)
            return sum(value(to_unit(x[i : i + _CHUNK]).astype(np.float64)).sum(axis=axes) for i in chunks)

        mean = total(lambda part: part) / count
        centre = _per_channel(mean, x.ndim)
        return cls(mean, np.sqrt(total(lambda part: (part - centre) ** 2) / count))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if x.ndim < 2 or x.shape[1] != len(self.mean):
            raise ValueError(f"[Normalize] x has shape {x.shape}, expected [N, {len(self.mean)}, ...]")
        factor = 1 / np.where(self.std > 0, self.std, 1).astype(np.float32)
        y = to_unit(x) - _per_channel(self.mean, x.ndim).astype(to_float(x.dtype), copy=False)
        y *= _per_channel(factor, x.ndim).astype(y.dtype, copy=False)
        return y

    def state_dict(self) -> dict[str, np.ndarray]:
        return {"mean": self.mean, "std": self.std}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.__init__(state["mean"], state["std"])  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"Normalize(mean={self.mean.tolist()}, std={self.std.tolist()})"


def to_float(dtype: np.dtype) -> np.dtype:
    """The type in which samples of `dtype` are computed: float64 stays, all else is float32."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def _per_channel(values: np.ndarray, ndim: int) -> np.ndarray:
    return values.reshape(-1, *[1] * (ndim - 2))


def fit_images(x: np.ndarray, size: int | tuple[int, int], channels: int | None = None) -> np.ndarray:
    """Pictures [N, C, H, W] resized to [N, channels, *size], as a model expects them; bytes stay bytes.

    Bilinear, with the centres of pixels at half-integers (PyTorch's align_corners=False); where a side
    shrinks, the filter widens with it (antialias=True), so that no pixel is skipped. channels: 1 makes grey
    of RGB by luminance, 3 repeats grey. Raises ValueError for other shapes.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if x.ndim != 4 or 0 in x.shape[1:]:
        raise ValueError(f"[fit_images] x has shape {x.shape}, expected pictures [N, C, H, W]")
    if height < 1 or width < 1:
        raise ValueError(f"[fit_images] size is {(height, width)}, expected at least (1, 1)")
    wanted = x.shape[1] if channels is None else channels
    if wanted != x.shape[1] and {wanted, x.shape[1]} != {1, 3}:
        raise ValueError(f"[fit_images] x has {x.shape[1]} channels, cannot make {wanted} of them")
    if (height, width, wanted) == (*x.shape[2:], x.shape[1]):
        return x
    y = np.empty((len(x), wanted, height, width), x.dtype)
    for i in range(0, len(x), _CHUNK):
        part = x[i : i + _CHUNK].astype(to_float(x.dtype), copy=False)
        if wanted < part.shape[1]:
            part = np.tensordot(part, _LUMINANCE.astype(part.dtype), (1, 0))[:, None]
        if part.shape[3] != width:
            part = part @ _taps(part.shape[3], width).T.astype(part.dtype)
        if part.shape[2] != height:
            part = _taps(part.shape[2], height).astype(part.dtype) @ part
        if x.dtype == np.uint8:
            part = np.clip(np.rint(part), 0, 255)
        y[i : i + _CHUNK] = part  # repeats grey where three channels are wanted
    return y


@lru_cache(maxsize=32)
def _taps(size: int, wanted: int) -> np.ndarray:
    """The weights [wanted, size] of a triangle filter along one axis; every row sums to 1."""
    scale = size / wanted
    reach = max(scale, 1.0)
    centres = (np.arange(wanted) + 0.5) * scale
    if scale <= 1:  # beyond the outermost centres the border pixel goes on
        centres = np.clip(centres, 0.5, size - 0.5)
    distance = np.abs(np.arange(size) + 0.5 - centres[:, None]) / reach
    weights = np.maximum(1 - distance, 0)
    return weights / weights.sum(axis=1, keepdims=True)


def one_hot(y: np.ndarray, classes: int, dtype: Any = np.float32) -> np.ndarray:
    """Labels [N] as rows [N, classes] with a single 1; raises ValueError for a label beyond `classes`."""
    labels = np.asarray(y)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(f"[one_hot] y is {labels.dtype} of shape {labels.shape}, expected integers [N]")
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"[one_hot] labels {labels.min()} to {labels.max()}, expected 0 to {classes - 1}")
    rows = np.zeros((len(labels), classes), dtype)
    rows[np.arange(len(labels)), labels] = 1
    return rows
