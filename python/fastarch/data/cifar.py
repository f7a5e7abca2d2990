"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009), in their binary and in their Python (pickle) form."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from fastarch.data.dataset import MAX_BYTES, DataError, Dataset, listed
from fastarch.data.pickles import Array, unpickle

__all__ = ["find", "is_cifar", "read"]

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
_PIXELS = 3 * 32 * 32
_BATCH = re.compile(r"data_batch_(\d{1,3})(\.bin)?")
_FOLDERS = ("cifar-10-batches-bin", "cifar-10-batches-py", "cifar-100-binary", "cifar-100-python")


def is_cifar(path: Path) -> bool:
    """Whether the name or the first byte of a file say CIFAR."""
    if path.suffix == ".bin" or _BATCH.fullmatch(path.name) or path.name == "test_batch":
        return True
    with open(path, "rb") as file:
        return not path.suffix and file.read(1) == b"\x80"  # a pickle without a suffix, as train of CIFAR-100


def find(folder: Path) -> dict[str, list[Path]]:
    """The files of each part ("train", "test") in a folder, or in one of the usual folders inside it."""
    inner = [folder / name for name in _FOLDERS if (folder / name).is_dir()]
    if len(inner) > 1:
        raise DataError(
            f"[data] {folder}: has {' and '.join(p.name for p in inner)}, expected one; name the folder"
        )
    if inner:
        folder = inner[0]
    for suffix in (".bin", ""):
        batches = {}
        for path in folder.iterdir():
            match = _BATCH.fullmatch(path.name)
            if match and path.suffix == suffix:
                batches[int(match[1])] = path
        single = folder / f"train{suffix}"
        if not batches and single.is_file() and (folder / f"test{suffix}").is_file() and is_cifar(single):
            return {"train": [single], "test": [folder / f"test{suffix}"]}
        missing = sorted(set(range(1, max(batches, default=0) + 1)) - set(batches))
        if missing:
            raise DataError(
                f"[data] {folder}: data_batch_{missing[0]}{suffix} is missing, expected every batch"
            )
        parts = {"train": [batches[k] for k in sorted(batches)]} if batches else {}
        test = folder / f"test_batch{suffix}"
        if test.is_file():
            parts["test"] = [test]
        if parts:
            return parts
    return {}


def read(paths: list[Path]) -> Dataset:
    """Batches of one kind as a data set, x [N, 3, 32, 32] uint8; of CIFAR-100 the fine labels."""
    parts = [_read_binary(path) if path.suffix == ".bin" else _read_pickle(path) for path in paths]
    first, _, hundred = parts[0]
    kinds = 100 if hundred else 10
    for path, (x, y, other) in zip(paths, parts):
        if y.max() >= kinds:
            raise DataError(f"[data] {path}: a label {y.max()}, expected 0 to {kinds - 1}")
        if other != hundred:
            raise DataError(f"[data] {path}: labels of another kind, expected those of {paths[0].name}")
        # a batch that was cut between two pictures shows in no other way
        if len(x) != len(first):
            raise DataError(f"[data] {path}: {len(x)} pictures, expected {len(first)} as in {paths[0].name}")
    x, y = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    classes = _hundred_names(paths[0].parent) if hundred else list(CIFAR10)
    return Dataset(x.reshape(-1, 3, 32, 32), y.astype(np.int64), classes, f"cifar-{kinds}")


Batch = tuple[np.ndarray, np.ndarray, bool]  # pixels [N, 3072], labels [N], whether it is CIFAR-100


def _read_binary(path: Path) -> Batch:
    hundred = path.name in ("train.bin", "test.bin")
    record = _PIXELS + (2 if hundred else 1)  # CIFAR-100 has a coarse label before the fine one
    size = path.stat().st_size
    if size == 0 or size % record or size > MAX_BYTES:
        raise DataError(
            f"[data] {path}: {size} bytes, expected a multiple of {record}, the size of a picture"
        )
    records = np.fromfile(path, np.uint8).reshape(-1, record)
    return records[:, -_PIXELS:], records[:, -_PIXELS - 1], hundred


def _read_pickle(path: Path) -> Batch:
    batch = unpickle(path)
    if not isinstance(batch, dict):
        raise DataError(
            f"[data] {path}: a pickled {type(batch).__name__}, expected a dict with data and labels"
        )
    batch = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in batch.items()}
    hundred = "fine_labels" in batch
    pixels, labels = batch.get("data"), batch.get("fine_labels" if hundred else "labels")
    if not isinstance(pixels, Array) or not isinstance(labels, list):
        keys = listed(key for key in batch if isinstance(key, str))
        raise DataError(f"[data] {path}: keys {keys}, expected data (an array) and labels (a list)")
    x = pixels.rows(_PIXELS)
    if x is None:
        raise DataError(
            f"[data] {path}: data is not an array of bytes [N, {_PIXELS}] in C order, expected that"
        )
    if not labels or not all(type(label) is int and 0 <= label < 1 << 31 for label in labels):
        raise DataError(f"[data] {path}: labels that are not small whole numbers, expected a list of them")
    if len(x) != len(labels):
        raise DataError(f"[data] {path}: {len(x)} pictures, expected as many as labels, {len(labels)}")
    return x, np.array(labels, np.int64), hundred


def _hundred_names(folder: Path) -> list[str]:
    """The names of the hundred classes, from the file that comes with the data, or else their numbers."""
    text, meta = folder / "fine_label_names.txt", folder / "meta"
    names: Any = []
    if text.is_file():
        names = text.read_text("utf-8", "replace").split()
    elif meta.is_file():
        found = unpickle(meta)
        names = found.get(b"fine_label_names") if isinstance(found, dict) else None
        names = names if isinstance(names, list) else []
        names = [name.decode("latin1") for name in names if isinstance(name, bytes)]
    return names if len(names) == 100 else [str(k) for k in range(100)]
