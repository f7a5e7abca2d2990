"""NumPy's .npz files: x and y, or x_train, y_train, x_test and y_test."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from fastarch.data.dataset import DEFLATE_LIMIT, MAX_BYTES, DataError, Dataset, listed, one_line
from fastarch.data.labels import from_names, from_numbers

__all__ = ["find_npz", "reshaped"]

_KINDS = "biufU"  # what an array may hold: no objects, whose loading would run code


def find_npz(path: Path, shape: tuple[int, ...] | None = None) -> dict[str, Callable[[], Dataset]]:
    """The parts of an .npz file: "all" of x and y, or "train" and "test" of x_train, y_train, x_test, y_test.

    Labels are whole numbers or names, or, without them, the set has none; names of classes may lie under
    `classes`.
    """
    try:
        with zipfile.ZipFile(path) as file:
            names = [info.filename.removesuffix(".npy") for info in file.infolist()]
    except Exception as error:  # what a false directory makes the reader raise has no bounds
        raise DataError(f"[data] {path}: damaged or cut ({one_line(error)}), expected an .npz file") from None
    parts = {"train": "_train", "test": "_test"} if "x_train" in names else {"all": ""}
    missing = [f"x{ending}" for ending in parts.values() if f"x{ending}" not in names]
    if missing:
        came = f"has {listed(names)} and no {missing[0]}"
        raise DataError(f"[data] {path}: {came}, expected x and y, or x_train to y_test")
    labels = {ending: f"y{ending}" for ending in parts.values() if f"y{ending}" in names}
    return {
        part: partial(_read, path, ending, labels, "classes" in names, shape)
        for part, ending in parts.items()
    }


def _read(
    path: Path, ending: str, labels: dict[str, str], named: bool, shape: tuple[int, ...] | None
) -> Dataset:
    """The samples x and labels y with one ending; `labels` are the names of all label arrays, by ending."""
    x = _samples(_member(path, f"x{ending}"), path, f"x{ending}", shape)
    if ending not in labels:
        return Dataset(x, np.full(len(x), -1, np.int64), [], path.stem)
    y = {key: _member(path, name) for key, name in labels.items()}
    if len({array.dtype.kind == "U" for array in y.values()}) > 1:
        raise DataError(f"[data] {path}: labels that are names here and numbers there, expected one kind")
    mine = y[ending] = y[ending][:, 0] if y[ending].ndim == 2 and y[ending].shape[1] == 1 else y[ending]
    if mine.shape != (len(x),):
        came = f"{labels[ending]} has shape {mine.shape}"
        raise DataError(f"[data] {path}: {came}, expected ({len(x)},) as x{ending} has samples")
    if mine.dtype.kind != "U":
        index, classes = from_numbers(mine, path, labels[ending])
        if named:
            given = _member(path, "classes")
            if given.ndim != 1 or len(given) < len(classes):
                came = f"classes has shape {given.shape}"
                raise DataError(f"[data] {path}: {came}, expected at least {len(classes)} names")
            classes = [str(name) for name in given.tolist()]
        return Dataset(x, index, classes, path.stem)
    # names are numbered over all parts, so that a class has the same number in each
    others = [str(name) for array in y.values() if array is not mine for name in array.ravel().tolist()]
    index, classes = from_names([*mine.tolist(), *others], path)
    return Dataset(x, index[: len(x)], classes, path.stem)


def _member(path: Path, name: str) -> np.ndarray:
    """One array of an .npz file, its declared size checked before anything is allocated."""
    try:
        with zipfile.ZipFile(path) as file:
            info = file.getinfo(f"{name}.npy")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise DataError(
                    f"[data] {path}: {name} is packed in a way that NumPy never uses, expected deflate"
                )
            with file.open(info) as raw:
                version = np.lib.format.read_magic(raw)
                if version == (1, 0):
                    shape, fortran, dtype = np.lib.format.read_array_header_1_0(raw)
                else:
                    shape, fortran, dtype = np.lib.format.read_array_header_2_0(raw)
                if dtype.hasobject or dtype.kind not in _KINDS or dtype.itemsize == 0:
                    raise DataError(f"[data] {path}: {name} has type {dtype}, expected numbers or text")
                wanted, has = math.prod(shape) * dtype.itemsize, info.file_size - raw.tell()
                if any(extent < 0 for extent in shape) or wanted != has:
                    came = f"{name} has {has} bytes and the shape {shape}"
                    raise DataError(f"[data] {path}: {came}, expected what fits it, {max(wanted, 0)} bytes")
                limit = min(MAX_BYTES, info.compress_size * DEFLATE_LIMIT)
                if wanted > limit:
                    came = f"{name} declares {wanted} bytes"
                    raise DataError(f"[data] {path}: {came}, expected at most {limit}")
                data = raw.read(wanted + 1)  # one more than there is, so that the checksum is compared
    except DataError:
        raise
    except Exception as error:  # what a false header makes the reader raise has no bounds
        raise DataError(
            f"[data] {path}: {name} is damaged or cut ({one_line(error)}), expected an array"
        ) from None
    if len(data) != wanted:
        raise DataError(f"[data] {path}: {name} is cut after {len(data)} bytes, expected {wanted}")
    array = np.frombuffer(data, dtype)
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)


def _samples(x: np.ndarray, path: Path, name: str, shape: tuple[int, ...] | None) -> np.ndarray:
    """Pictures [N, H, W] and [N, H, W, C] become [N, C, H, W]; all types but bytes become float32."""
    if x.dtype.kind == "U":
        raise DataError(f"[data] {path}: {name} holds text, expected numbers")
    if x.ndim < 2 or x.ndim > 5 or 0 in x.shape:
        raise DataError(
            f"[data] {path}: {name} has shape {x.shape}, expected [N, features] or [N, C, H, W], not empty"
        )
    x = reshaped(x, path, name, shape)
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[1] not in (1, 3) and x.shape[3] in (1, 3):
        x = x.transpose(0, 3, 1, 2)
    if x.dtype != np.uint8:
        with np.errstate(over="ignore"):  # what does not fit is found below
            x = x.astype(np.float32)
        finite = np.isfinite(x)
        if not finite.all():
            index = np.unravel_index(int(np.argmin(finite)), x.shape)
            came = f"{name}[{', '.join(map(str, index))}] is {x[index]}"
            raise DataError(f"[data] {path}: {came}, expected finite numbers")
    return np.ascontiguousarray(x)


def reshaped(x: np.ndarray, path: Path, name: str, shape: tuple[int, ...] | None) -> np.ndarray:
    """Samples [N, ...] as [N, *shape]; as they are for None."""
    if shape is None:
        return x
    if math.prod(shape) != math.prod(x.shape[1:]):
        raise DataError(
            f"[data] {path}: {name} has {math.prod(x.shape[1:])} values a sample, expected {shape}"
        )
    return x.reshape(len(x), *shape)
