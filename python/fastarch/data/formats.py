"""From a path to a data set: which format it is, and which parts it has."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fastarch.data import cifar, folder, idx, npz, tables
from fastarch.data.dataset import DataError, Dataset, listed, one_line, split
from fastarch.data.digits import digits
from fastarch.data.transforms import fit_images

__all__ = ["load", "train_test"]

_FORMATS = "IDX (MNIST), CIFAR, pictures, .npz or .csv"
Size = int | tuple[int, int] | None
Parts = dict[str, Callable[[], Dataset]]  # "all", or "train" and perhaps "test"


def load(
    spec: str | os.PathLike[str],
    part: str = "all",
    *,
    label: str | int | None = None,
    shape: tuple[int, ...] | None = None,
    size: Size = None,
    channels: int | None = None,
) -> Dataset:
    """Reads a data set: "digits" for the embedded one, or a path, whose format is found in this order.

    A folder: MNIST's files (train-images-idx3-ubyte ..., plain or .gz); CIFAR-10 or -100 (binary or Python,
    or the folder around it); else pictures, a folder for each class, perhaps under train and test. A file,
    by its suffix: .npz; .csv, .tsv or .txt; a picture. Else by its name or first bytes: a CIFAR batch; IDX,
    the file of pictures or that of labels.

    part: "train" or "test", where the data come in two parts, or "all"; label: the label's column in a
    table; shape: of one sample of a table or .npz; size: (H, W) or the side, and channels: what pictures are
    fitted to. Raises DataError, in one sentence, for a missing, damaged, hostile or unknown file.
    """
    if part not in ("all", "train", "test"):
        raise ValueError(f"[data] part is {part!r}, expected 'all', 'train' or 'test'")
    parts = _read(spec, label, shape, size, channels)
    if part != "all":
        if part not in parts:
            raise DataError(f"[data] {spec}: no part {part!r} in it, expected one of {listed(sorted(parts))}")
        return parts[part]
    if len(parts) == 1:
        return next(iter(parts.values()))
    return _joined(spec, parts["train"], parts["test"])


def train_test(
    spec: str | os.PathLike[str], test: float | int = 0.2, seed: int = 0, **options: Any
) -> tuple[Dataset, Dataset]:
    """(train, test): the two parts that the data come in, or else `split(load(spec), test, seed)`.

    options: as for `load`.
    """

    parts = _read(spec, **options)
    if "test" in parts and "train" in parts:
        return parts["train"], parts["test"]
    if "test" in parts:
        raise DataError(f"[data] {spec}: only a test part in it, expected a training part too")
    data = next(iter(parts.values()))
    if len(data) < 2:
        raise DataError(f"[data] {spec}: {len(data)} sample, expected at least 2 to split")
    return split(data, test, seed)


def _read(
    spec: str | os.PathLike[str],
    label: str | int | None = None,
    shape: tuple[int, ...] | None = None,
    size: Size = None,
    channels: int | None = None,
) -> dict[str, Dataset]:
    """All parts, "all", or "train" and perhaps "test", with one list of classes."""
    try:
        parts = {part: read() for part, read in _find(spec, label, shape, size, channels).items()}
    except OSError as error:
        where, why = error.filename or spec, error.strerror or one_line(error)
        raise DataError(f"[data] {where}: {why}, expected a readable file") from None
    classes = max(
        (data.classes for data in parts.values()), key=len
    )  # numbered classes: a part may lack the last
    return {
        part: Dataset(_fitted(spec, data.x, size, channels), data.y, classes, data.name)
        for part, data in parts.items()
    }


def _find(
    spec: str | os.PathLike[str],
    label: str | int | None,
    shape: tuple[int, ...] | None,
    size: Size,
    channels: int | None,
) -> Parts:
    if spec == "digits":
        return {"all": digits}
    path = Path(spec).expanduser()
    if path.is_dir():
        return _find_in_folder(path, size, channels)
    if not path.exists():
        raise DataError(f"[data] {path}: no such file or folder, expected {_FORMATS}, or 'digits'")
    if not path.is_file():
        raise DataError(f"[data] {path}: neither a file nor a folder, expected {_FORMATS}")
    if not path.stat().st_size:
        raise DataError(f"[data] {path}: empty, expected {_FORMATS}")
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return npz.find_npz(path, shape)
    if suffix in (".csv", ".tsv", ".txt"):
        return {"all": partial(tables.read_csv, path, label, shape)}
    if suffix in folder.SUFFIXES:
        return {"all": partial(folder.read_one, path, size, channels)}
    if cifar.is_cifar(path):
        return {"all": partial(cifar.read, [path])}
    if idx.is_idx(path):
        return {"all": partial(_read_idx, path)}
    with open(path, "rb") as file:
        start = file.read(4).hex(" ")
    raise DataError(f"[data] {path}: unknown format (begins with {start}), expected {_FORMATS}")


def _find_in_folder(path: Path, size: Size, channels: int | None) -> Parts:
    pairs = idx.find(path)
    if pairs:
        return {part: partial(_read_idx, file) for part, file in pairs.items()}
    batches = cifar.find(path)
    if batches:
        return {part: partial(cifar.read, files) for part, files in batches.items()}
    folders = folder.find(path)
    # the training part numbers the classes for all
    classes = folder.class_names(folders["train"]) if "train" in folders else None
    return {part: partial(folder.read, where, size, channels, classes) for part, where in folders.items()}


def _read_idx(path: Path) -> Dataset:
    return idx.read_pair(*idx.find_pair(path))


def _joined(spec: str | os.PathLike[str], train: Dataset, test: Dataset) -> Dataset:
    if train.x.shape[1:] != test.x.shape[1:] or train.x.dtype != test.x.dtype:
        came = f"{train.x.shape[1:]} to train, {test.x.shape[1:]} to test"
        raise DataError(f"[data] {spec}: samples of shape {came}, expected one shape and type")
    x, y = np.concatenate([train.x, test.x]), np.concatenate([train.y, test.y])
    return Dataset(x, y, train.classes, train.name)


def _fitted(spec: str | os.PathLike[str], x: np.ndarray, size: Size, channels: int | None) -> np.ndarray:
    if size is None and channels is None:
        return x
    if x.ndim != 4:
        raise DataError(
            f"[data] {spec}: samples of shape {x.shape[1:]}, expected pictures where a size is given"
        )
    return fit_images(x, x.shape[2:] if size is None else size, channels)
