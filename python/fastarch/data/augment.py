"""Random changes to a batch of pictures [N, C, H, W] that keep what they show.

Each function here returns a step: ``step(x, draw)`` gives new pictures and leaves `x` as it was. All that is
random comes from `Draw` and depends on (seed, epoch, index of the sample) alone, so a sample is changed in
the same way in whichever batch it lies, and a resumed run sees what an uninterrupted one would. Pixels from
beyond the border are 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

__all__ = ["PRESETS", "Draw", "Step", "affine", "compose", "cutout", "flip", "noise", "preset", "shift"]

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


def compose(*steps: Step) -> Step:
    """One step after the other."""

    def run(x: np.ndarray, draw: Draw) -> np.ndarray:
        for step in steps:
            x = step(x, draw)
        return x

    return run


def shift(pixels: int) -> Step:
    """Moves by up to `pixels` along each side: the same as padding by them and cropping at a random place."""
    _check(pixels >= 0, "shift", "pixels", pixels, "0 or more")

    def run(x: np.ndarray, draw: Draw) -> np.ndarray:
        height, width = x.shape[2:]
        y = np.zeros_like(x)
        moves = np.clip(draw.integers(2, 2 * pixels + 1) - pixels, [-height, -width], [height, width])
        for picture, source, (down, right) in zip(y, x, moves.tolist()):
            into = picture[:, max(down, 0) : height + down, max(right, 0) : width + right]
            into[:] = source[:, max(-down, 0) : height - down, max(-right, 0) : width - right]
        return y

    return run


def flip(probability: float = 0.5) -> Step:
    """Mirrors left and right."""
    _check(0 <= probability <= 1, "flip", "probability", probability, "0 to 1")

    def run(x: np.ndarray, draw: Draw) -> np.ndarray:
        chosen = draw.uniform(1)[:, 0] < probability
        y = x.copy()
        y[chosen] = x[chosen, :, :, ::-1]
        return y

    return run


def affine(degrees: float = 0.0, scale: float = 0.0, shear: float = 0.0, shift: float = 0.0) -> Step:
    """Turns, scales, slants and moves about the centre, in one bilinear pass; pictures are floats.

    By up to: `degrees` either way; 1 - scale to 1 + scale; the slope `shear`; `shift` as a share of the side.
    """
    _check(0 <= scale < 1, "affine", "scale", scale, "0 to below 1")

    def run(x: np.ndarray, draw: Draw) -> np.ndarray:
        _check(x.dtype.kind == "f", "affine", "x", x.dtype, "floats")
        height, width = x.shape[2:]
        angle, size, slope, down, right = draw.uniform(5, -1, 1).T
        cos, sin = np.cos(angle * math.radians(degrees)), np.sin(angle * math.radians(degrees))
        zoom, slant = 1 / (1 + size * scale), slope * shear
        # the inverse map: where in `x` a pixel of the result comes from
        rows = zoom * cos, zoom * (cos * slant - sin), down * shift * height
        columns = zoom * sin, zoom * (sin * slant + cos), right * shift * width
        y = np.empty_like(x, order="C")
        group = max(1, _GROUP // (height * width))
        for i in range(0, len(x), group):
            few = slice(i, i + group)
            y[few] = _sample(x[few], [part[few] for part in rows], [part[few] for part in columns])
        return y

    return run


def _sample(x: np.ndarray, rows: list[np.ndarray], columns: list[np.ndarray]) -> np.ndarray:
    """Bilinear values of x [N, C, H, W] at (a i + b j + c) about the centre, with a, b, c [N] per axis."""
    n, channels, height, width = x.shape
    # a frame of zeros makes every neighbour exist, and channels last make a neighbour one contiguous row
    framed = np.zeros((n, height + 3, width + 3, channels), x.dtype)
    framed[:, 1 : height + 1, 1 : width + 1] = x.transpose(0, 2, 3, 1)
    pixels = framed.reshape(-1, channels)
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
    down, right = (part.reshape(-1, 1).astype(x.dtype, copy=False) for part in (down, right))

    def along(first: np.ndarray) -> np.ndarray:
        left = pixels.take(first, axis=0, mode="clip")
        step = pixels.take(first + 1, axis=0, mode="clip")
        step -= left
        step *= right
        step += left
        return step

    top, bottom = along(corner), along(corner + (width + 3))
    bottom -= top
    bottom *= down
    bottom += top
    return bottom.reshape(n, height, width, channels).transpose(0, 3, 1, 2)


def cutout(size: int) -> Step:
    """Blanks a square of size x size pixels around a random centre (DeVries and Taylor, 2017)."""
    _check(size >= 0, "cutout", "size", size, "0 or more")

    def run(x: np.ndarray, draw: Draw) -> np.ndarray:
        y = x.copy()
        tops = draw.integers(1, x.shape[2])[:, 0] - size // 2
        lefts = draw.integers(1, x.shape[3])[:, 0] - size // 2
        for picture, top, left in zip(y, tops.tolist(), lefts.tolist()):
            picture[:, max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)] = 0
        return y

    return run


def noise(deviation: float) -> Step:
    """Adds Gaussian noise to every pixel. Pictures are floats."""
    _check(deviation >= 0, "noise", "deviation", deviation, "0 or more")

    def run(x: np.ndarray, draw: Draw) -> np.ndarray:
        _check(x.dtype.kind == "f", "noise", "x", x.dtype, "floats")
        values = draw.normal(math.prod(x.shape[1:])).reshape(x.shape).astype(x.dtype, copy=False)
        return x + values * x.dtype.type(deviation)

    return run


def _check(fine: bool, who: str, name: str, came: object, expected: str) -> None:
    if not fine:
        raise ValueError(f"[{who}] {name} is {came}, expected {expected}")


PRESETS: dict[str, Step | None] = {
    "none": None,
    "digits": affine(
        degrees=10, scale=0.1, shear=0.15, shift=0.06
    ),  # small turns and moves, as hands make them
    "flip-crop": compose(flip(), shift(4)),  # the usual one for CIFAR (He et al., 2016)
}


def preset(name: str) -> Step | None:
    """The step of that name, None for "none"; raises ValueError for an unknown name."""
    _check(name in PRESETS, "augment", "name", repr(name), "one of " + ", ".join(PRESETS))
    return PRESETS[name]
