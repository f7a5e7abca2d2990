"""Random changes to a batch of pictures [N, C, H, W] that keep what they show.

A step is called as ``step(x, draw)``, gives new pictures and leaves `x` as it was. All that is random comes
from `Draw` and depends on (seed, epoch, index of the sample) alone, so a sample is changed in the same way in
whichever batch it lies, and a resumed run sees what an uninterrupted one would. What comes in from beyond the
border has the value `fill`. A step's repr says all that it does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = [
    "PRESETS",
    "Affine",
    "Compose",
    "Cutout",
    "Draw",
    "Flip",
    "Noise",
    "Shift",
    "Step",
    "compose",
    "preset",
]

_MASK = (1 << 64) - 1
_GROUP = 8192  # pixels that `affine` works on at a time: what it computes of them stays in the cache
_GOLDEN, _MIX1, _MIX2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


class Draw:
    """Random numbers for the samples `index` [N] of a data set in one epoch; every call gives fresh ones.

    SplitMix64 (Steele, Lea and Flood, 2014), one generator a sample: a few NumPy operations for a whole
    batch.
    """

    def __init__(self, seed: int, epoch: int, index: np.ndarray) -> None:
        start = _scramble_int(_scramble_int(seed & _MASK) + epoch * _GOLDEN & _MASK)
        self.states = _scramble(np.asarray(index).astype(np.uint64) * np.uint64(_GOLDEN) + np.uint64(start))
        self.used = 0

    def __len__(self) -> int:
        return len(self.states)

    def words(self, count: int) -> np.ndarray:
        """[N, count] uint64."""
        steps = np.arange(self.used + 1, self.used + 1 + count, dtype=np.uint64) * np.uint64(_GOLDEN)
        self.used += count
        return _scramble(self.states[:, None] + steps)

    def uniform(self, count: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """[N, count] float32 from low to high."""
        unit = (self.words(count) >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)
        return unit * np.float32(high - low) + np.float32(low)

    def integers(self, count: int, bound: int) -> np.ndarray:
        """[N, count] int64 from 0 to bound - 1; bound at most 2**31."""
        return ((self.words(count) >> np.uint64(33)) * np.uint64(bound) >> np.uint64(31)).astype(np.int64)

    def normal(self, count: int) -> np.ndarray:
        """[N, count] float32 with mean 0 and deviation 1 (Box and Muller, 1958)."""
        words = self.words((count + 1) // 2)
        unit = (words.view(np.uint32).reshape(*words.shape, 2) >> np.uint32(8)).astype(np.float32)
        radius = np.sqrt(-2 * np.log((unit[..., 0] + 0.5) * np.float32(2**-24)))
        angle = unit[..., 1] * np.float32(math.tau * 2**-24)
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :count]


def _scramble(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(_MIX1)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(_MIX2)
    return z ^ (z >> np.uint64(31))


def _scramble_int(z: int) -> int:
    z = (z ^ (z >> 30)) * _MIX1 & _MASK
    z = (z ^ (z >> 27)) * _MIX2 & _MASK
    return z ^ (z >> 31)


Step = Callable[[np.ndarray, Draw], np.ndarray]


@dataclass(frozen=True)
class Compose:
    """One step after the other."""

    steps: tuple[Step, ...]

    def __call__(self, x: np.ndarray, draw: Draw) -> np.ndarray:
        for step in self.steps:
            x = step(x, draw)
        return x


def compose(*steps: Step) -> Compose:
    """One step after the other."""
    return Compose(steps)


@dataclass(frozen=True)
class Shift:
    """Moves by up to `pixels` along each side: the same as padding by them and cropping at a random place."""

    pixels: int
    fill: float = 0.0

    def __post_init__(self) -> None:
        _check(self.pixels >= 0, "Shift", "pixels", self.pixels, "0 or more")

    def __call__(self, x: np.ndarray, draw: Draw) -> np.ndarray:
        height, width = x.shape[2:]
        y = np.full_like(x, self.fill, order="C")
        moves = draw.integers(2, 2 * self.pixels + 1) - self.pixels
        moves = np.clip(moves, [-height, -width], [height, width])
        for picture, source, (down, right) in zip(y, x, moves.tolist()):
            into = picture[:, max(down, 0) : height + down, max(right, 0) : width + right]
            into[:] = source[:, max(-down, 0) : height - down, max(-right, 0) : width - right]
        return y


@dataclass(frozen=True)
class Flip:
    """Mirrors left and right."""

    probability: float = 0.5

    def __post_init__(self) -> None:
        _check(0 <= self.probability <= 1, "Flip", "probability", self.probability, "0 to 1")

    def __call__(self, x: np.ndarray, draw: Draw) -> np.ndarray:
        chosen = draw.uniform(1)[:, 0] < self.probability
        y = x.copy()
        y[chosen] = x[chosen, :, :, ::-1]
        return y


@dataclass(frozen=True)
class Affine:
    """Turns, scales, slants and moves about the centre, in one bilinear pass; pictures are floats.

    By up to: `degrees` either way; 1 - scale to 1 + scale; the slope `shear`; `shift` as a share of the side.
    """

    degrees: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    shift: float = 0.0
    fill: float = 0.0

    def __post_init__(self) -> None:
        _check(0 <= self.scale < 1, "Affine", "scale", self.scale, "0 to below 1")

    def __call__(self, x: np.ndarray, draw: Draw) -> np.ndarray:
        _check(x.dtype.kind == "f", "Affine", "x", x.dtype, "floats")
        height, width = x.shape[2:]
        angle, size, slope, down, right = draw.uniform(5, -1, 1).T
        angle = angle * math.radians(self.degrees)
        cos, sin, slant, zoom = np.cos(angle), np.sin(angle), slope * self.shear, 1 / (1 + size * self.scale)
        # the inverse map: where in `x` a pixel of the result comes from
        rows = zoom * cos, zoom * (cos * slant - sin), down * self.shift * height
        columns = zoom * sin, zoom * (sin * slant + cos), right * self.shift * width
        y = np.empty_like(x, order="C")
        group = max(1, _GROUP // (height * width))
        for i in range(0, len(x), group):
            few = slice(i, i + group)
            y[few] = _sample(x[few], [part[few] for part in rows], [part[few] for part in columns], self.fill)
        return y


def _sample(x: np.ndarray, rows: list[np.ndarray], columns: list[np.ndarray], fill: float) -> np.ndarray:
    """Bilinear values of x [N, C, H, W] at (a i + b j + c) about the centre, with a, b, c [N] per axis."""
    n, channels, height, width = x.shape
    # a frame makes every neighbour exist, and channels first make a long inner loop
    framed = np.full((channels, n, height + 3, width + 3), fill, x.dtype)
    framed[:, :, 1 : height + 1, 1 : width + 1] = x.transpose(1, 0, 2, 3)
    pixels = framed.reshape(channels, -1)
    up = np.arange(height, dtype=np.float32)[None, :, None] - (height - 1) / 2
    across = np.arange(width, dtype=np.float32)[None, None, :] - (width - 1) / 2

    def place(axis: list[np.ndarray], side: int) -> tuple[np.ndarray, np.ndarray]:
        a, b, c = (np.float32(part)[:, None, None] for part in axis)
        at = a * up + b * across
        at += c + np.float32((side - 1) / 2 + 1)
        np.clip(at, 0, side + 1, out=at)
        low = np.floor(at)
        at -= low
        return low, at

    row, down = place(rows, height)
    column, right = place(columns, width)
    corner = row.astype(np.intp)
    corner *= width + 3
    corner += column.astype(np.intp)
    corner += (np.arange(n) * ((height + 3) * (width + 3)))[:, None, None]
    corner = corner.reshape(-1)
    down, right = (part.reshape(-1).astype(x.dtype, copy=False) for part in (down, right))

    def along(first: np.ndarray) -> np.ndarray:
        left = pixels.take(first, axis=1, mode="clip")
        step = pixels.take(first + 1, axis=1, mode="clip")
        step -= left
        step *= right
        step += left
        return step

    top, bottom = along(corner), along(corner + (width + 3))
    bottom -= top
    bottom *= down
    bottom += top
    return bottom.reshape(channels, n, height, width).transpose(1, 0, 2, 3)


@dataclass(frozen=True)
class Cutout:
    """Blanks a square of size x size pixels around a random centre (DeVries and Taylor, 2017)."""

    size: int
    fill: float = 0.0

    def __post_init__(self) -> None:
        _check(self.size >= 0, "Cutout", "size", self.size, "0 or more")

    def __call__(self, x: np.ndarray, draw: Draw) -> np.ndarray:
        y = x.copy()
        tops = draw.integers(1, x.shape[2])[:, 0] - self.size // 2
        lefts = draw.integers(1, x.shape[3])[:, 0] - self.size // 2
        for picture, top, left in zip(y, tops.tolist(), lefts.tolist()):
            rows = slice(max(top, 0), max(top + self.size, 0))
            picture[:, rows, max(left, 0) : max(left + self.size, 0)] = self.fill
        return y


@dataclass(frozen=True)
class Noise:
    """Adds Gaussian noise to every pixel; pictures are floats."""

    deviation: float

    def __post_init__(self) -> None:
        _check(self.deviation >= 0, "Noise", "deviation", self.deviation, "0 or more")

    def __call__(self, x: np.ndarray, draw: Draw) -> np.ndarray:
        _check(x.dtype.kind == "f", "Noise", "x", x.dtype, "floats")
        values = draw.normal(math.prod(x.shape[1:])).reshape(x.shape).astype(x.dtype, copy=False)
        return x + values * x.dtype.type(self.deviation)


def _check(fine: bool, who: str, name: str, came: object, expected: str) -> None:
    if not fine:
        raise ValueError(f"[{who}] {name} is {came}, expected {expected}")


PRESETS: dict[str, Callable[[float], Step | None]] = {
    "none": lambda fill: None,
    # small turns and moves, as hands make them
    "digits": lambda fill: Affine(degrees=10, scale=0.1, shear=0.15, shift=0.06, fill=fill),
    "flip-crop": lambda fill: compose(Flip(), Shift(4, fill)),  # the usual one for CIFAR (He et al., 2016)
}


def preset(name: str, fill: float = 0.0) -> Step | None:
    """The step of that name, None for "none"; fill: what comes in from beyond the border.

    Raises ValueError for an unknown name.
    """
    _check(name in PRESETS, "augment", "name", repr(name), "one of " + ", ".join(PRESETS))
    return PRESETS[name](fill)
