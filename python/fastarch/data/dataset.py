"""A data set in memory, its split into a training and a test part, and the error of every reader."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["DataError", "Dataset", "split"]

MAX_BYTES = (
    16 << 30
)  # a file that declares more than this for one array is refused before anything is allocated
DEFLATE_LIMIT = 1032  # no byte of gzip or zip data can stand for more bytes than this
MAX_CLASSES = 1 << 16  # likewise a label, because every class up to it gets a name

_SPLIT, _SHUFFLE = 0, 1  # the streams of random numbers, so that the two never share one


class DataError(ValueError):
    """What is wrong with a data file, in one sentence: the file, what came, what was expected."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples and their classes.

    x: [N, C, H, W] pictures, uint8 (0 to 255) or float32, or [N, F] float32 features; y: [N] int64 indices
    into `classes`, all -1 when nothing is labelled. Raises DataError when lengths, types or labels do not
    fit.
    """

    x: np.ndarray
    y: np.ndarray
    classes: list[str]
    name: str

    def __post_init__(self) -> None:
        if self.x.ndim < 2 or self.x.dtype not in (np.uint8, np.float32):
            came = f"{self.x.dtype} of shape {self.x.shape}"
            raise DataError(f"[dataset] {self.name}: x is {came}, expected uint8 or float32 [N, ...]")
        if self.y.dtype != np.int64 or self.y.shape != self.x.shape[:1]:
            came = f"{self.y.dtype} of shape {self.y.shape}"
            raise DataError(f"[dataset] {self.name}: y is {came}, expected int64 of shape {self.x.shape[:1]}")
        if len(self) and self.labelled and not 0 <= self.y.min() <= self.y.max() < len(self.classes):
            came = f"{self.y.min()} to {self.y.max()}"
            raise DataError(f"[dataset] {self.name}: labels {came}, expected 0 to {len(self.classes) - 1}")

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int | slice | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.x[index], self.y[index]

    @property
    def labelled(self) -> bool:
        """Whether the samples have classes."""
        return not (self.y == -1).all()

    def subset(self, indices: Sequence[int] | np.ndarray) -> Dataset:
        """The samples at `indices`, in that order."""
        chosen = np.asarray(indices, dtype=np.int64)
        return Dataset(self.x[chosen], self.y[chosen], self.classes, self.name)


def split(
    dataset: Dataset, test: float | int = 0.2, seed: int = 0, stratify: bool = True
) -> tuple[Dataset, Dataset]:
    """Parts a data set into (train, test), each in the original order.

    test: the share (float, 0 to 1) or number (int) of test samples; stratify: every class gives its share,
    rounded by largest remainder. The same data, `test` and `seed` give the same parts on every machine and
    NumPy version. Raises ValueError when a part would be empty.
    """
    n = len(dataset)
    count = test if isinstance(test, int) else round(n * test)
    if not 0 < count < n:
        raise ValueError(f"[split] test={test} takes {count} of {n} samples, expected 1 to {max(n - 1, 0)}")
    order = random_order(n, seed, _SPLIT)
    if stratify:
        labels, groups = np.unique(dataset.y, return_inverse=True)
        quota = np.bincount(groups, minlength=len(labels)) * count
        take = quota // n
        remainder_order = np.argsort(-(quota % n), kind="stable")
        take[remainder_order[: count - take.sum()]] += 1
        by_class = [order[groups[order] == k][: take[k]] for k in range(len(labels))]
        chosen = np.concatenate(by_class)
    else:
        chosen = order[:count]
    is_test = np.zeros(n, bool)
    is_test[chosen] = True
    return dataset.subset(np.flatnonzero(~is_test)), dataset.subset(np.flatnonzero(is_test))


def random_order(n: int, seed: int, stream: int, epoch: int = 0) -> np.ndarray:
    """A permutation of 0 to n - 1 (int64) that only depends on the arguments.

    It sorts raw Philox words (Salmon et al., 2011): those NumPy fixes for all versions, unlike `permutation`.
    """
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"[data] seed is {seed}, expected 0 to 2**64 - 1")
    key, counter = np.array([seed, stream], np.uint64), np.array([0, 0, 0, epoch], np.uint64)
    return np.argsort(np.random.Philox(key=key, counter=counter).random_raw(n), kind="stable")


def one_line(error: object) -> str:
    """The text of an error as part of a sentence."""
    return " ".join(str(error).split())[:150].rstrip(".") or type(error).__name__


def listed(names: Iterable[object], most: int = 6) -> str:
    """A few names of a file's parts, safe to print."""
    return ", ".join(repr(name)[:40] for name in itertools.islice(names, most)) or "nothing"
