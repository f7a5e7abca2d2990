"""MNIST's file format, IDX (LeCun et al., 1998): a magic number, extents, values; plain or gzipped."""

from __future__ import annotations

import gzip
import math
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from fastarch.data.dataset import DEFLATE_LIMIT, MAX_BYTES, DataError, Dataset
from fastarch.data.labels import from_numbers

__all__ = ["find", "find_pair", "is_idx", "read_array", "read_pair"]

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP = b"\x1f\x8b"
_NAME = re.compile(r"(.*)(images|labels)(.*ubyte|.*idx\d?|)(\.gz)?")


def is_idx(path: Path) -> bool:
    """Whether the name or the first bytes of a file say IDX."""
    if _NAME.fullmatch(path.name):
        return True
    with open(path, "rb") as file:
        start = file.read(4)
    return len(start) == 4 and start[:2] == b"\0\0" and start[2] in _TYPES


def find(folder: Path) -> dict[str, Path]:
    """The picture files of MNIST in a folder, by part: "train" and "test", or "all" for another name."""
    parts: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        match = _NAME.fullmatch(path.name)
        if not match or match[2] != "images" or not path.is_file():
            continue
        before = match[1].lower()
        part = "train" if "train" in before else "test" if "t10k" in before or "test" in before else "all"
        other = parts.setdefault(part, path)  # the plain file sorts, and so is taken, before the gzipped one
        if other.name not in (path.name, path.name.removesuffix(".gz")):
            both = f"{other.name} and {path.name}"
            raise DataError(f"[data] {folder}: {both} both hold {part} pictures, expected one; name the file")
    if "all" in parts and len(parts) > 1:
        raise DataError(f"[data] {folder}: {parts['all'].name} beside train and test, expected only those")
    return parts


def find_pair(path: Path) -> tuple[Path, Path]:
    """The files with the pictures and with their labels, given one of the two."""
    for given, wanted in (("images", "labels"), ("labels", "images")):
        if given in path.name:
            name = path.name.replace(given, wanted)
            name = name.replace("idx3", "idx1") if wanted == "labels" else name.replace("idx1", "idx3")
            plain = path.with_name(name.removesuffix(".gz"))
            for other in (path.with_name(name), plain, plain.with_name(plain.name + ".gz")):
                if other.is_file():
                    return (path, other) if wanted == "labels" else (other, path)
            raise DataError(f"[data] {path}: its {wanted} are missing, expected {plain.name} beside it")
    raise DataError(f"[data] {path}: a file of a pair, expected 'images' or 'labels' in its name")


def read_pair(images: Path, labels: Path) -> Dataset:
    """The data set of a file of pictures [N, H, W] or [N, C, H, W] and a file of labels [N]."""
    x, y = read_array(images), read_array(labels)
    if x.ndim not in (3, 4):
        raise DataError(f"[data] {images}: {x.ndim} extents, expected 3 (pictures, rows, columns)")
    if y.ndim != 1:
        raise DataError(f"[data] {labels}: {y.ndim} extents, expected 1 (labels)")
    if len(x) != len(y):
        raise DataError(
            f"[data] {images}: {len(x)} pictures, expected as many as {labels.name} has labels, {len(y)}"
        )
    if not x.size:
        raise DataError(f"[data] {images}: no pictures in it (shape {x.shape}), expected at least one")
    index, classes = from_numbers(y, labels)
    if x.dtype != np.uint8:
        x = x.astype(np.float32)
        if not np.isfinite(x).all():
            raise DataError(f"[data] {images}: values that are not finite, expected finite numbers")
    return Dataset(
        x[:, None] if x.ndim == 3 else x, index, classes, images.parent.resolve().name or images.name
    )


def read_array(path: Path) -> np.ndarray:
    """The array in one IDX file, in the machine's byte order."""
    with open(path, "rb") as raw:
        zipped = raw.read(2) == _GZIP
    size = path.stat().st_size
    try:
        with gzip.open(path) if zipped else open(path, "rb") as file:
            return _read(file, path, size * DEFLATE_LIMIT if zipped else size, exact=not zipped)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"[data] {path}: damaged or cut gzip data ({error}), expected a whole file") from None


def _read(file: Any, path: Path, size: int, exact: bool) -> np.ndarray:
    """Reads from a file that holds `size` bytes, or at most those where not `exact`."""
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES or not 1 <= magic[3] <= 4:
        raise DataError(
            f"[data] {path}: begins with {magic.hex(' ') or 'nothing'}, expected IDX, as in 00 00 08 03"
        )
    dtype, ndim = np.dtype(_TYPES[magic[2]]), magic[3]
    header = file.read(4 * ndim)
    if len(header) < 4 * ndim:
        raise DataError(f"[data] {path}: ends within its header, expected {ndim} extents")
    shape = tuple(int(extent) for extent in np.frombuffer(header, ">u4"))
    wanted = math.prod(shape) * dtype.itemsize
    room = size - 4 - 4 * ndim
    expected = f"expected {wanted} for the {'x'.join(map(str, shape))} values that it declares"
    # checked before anything is allocated, so that a false header costs nothing
    if wanted > room or (exact and wanted != room):
        raise DataError(f"[data] {path}: {'' if exact else 'at most '}{room} bytes of values, {expected}")
    if wanted > MAX_BYTES:
        raise DataError(f"[data] {path}: declares {wanted} bytes, expected at most {MAX_BYTES}")
    data = file.read(wanted + 1)
    if len(data) != wanted:
        came = "more bytes" if len(data) > wanted else f"{len(data)} bytes of values"
        raise DataError(f"[data] {path}: {came}, {expected}")
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))
