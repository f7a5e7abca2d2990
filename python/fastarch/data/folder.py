"""Pictures: one file, or a folder with a folder for each class; decoded by Pillow, imported when needed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastarch.data.dataset import MAX_BYTES, DataError, Dataset
from fastarch.data.labels import class_order

__all__ = ["SUFFIXES", "class_names", "find", "is_picture", "load_picture", "read", "read_one"]

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
MAX_PIXELS = 1 << 26  # of one picture: a small file may unfold to a huge one
# by name, because Pillow would otherwise also try formats that call other programs
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_PARTS = {"train": "train", "test": "test", "val": "test", "valid": "test", "validation": "test"}


def is_picture(path: Path) -> bool:
    """Whether the name of a file says picture."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def find(folder: Path) -> dict[str, Path]:
    """The folders that hold a folder for each class, by part: "all", or "train" and "test"."""
    inner = {path.name.lower(): path for path in _folders(folder)}
    if "train" in inner and set(inner) <= set(_PARTS):
        parts = {_PARTS[name]: path for name, path in inner.items()}
        if len(parts) < len(inner):
            raise DataError(
                f"[data] {folder}: has {', '.join(sorted(inner))}, expected train and one other part"
            )
        return parts
    return {"all": folder}


def read(folder: Path, size: Any = None, channels: int | None = None, classes: Any = None) -> Dataset:
    """The pictures of a folder, x [N, C, H, W] uint8, with a folder for each class, or without classes.

    size: (H, W) to fit every picture to, needed where they differ; channels: 1 or 3, else 3 where any is in
    colour; classes: the list that labels count in, else the folders found.
    """
    folders = _folders(folder)
    names = class_names(folder)
    direct = [path for path in sorted(folder.iterdir()) if path.is_file() and is_picture(path)]
    if direct and folders:
        raise DataError(
            f"[data] {folder}: both pictures ({direct[0].name}) and folders, expected one or the other"
        )
    if not direct and not folders:
        raise DataError(
            f"[data] {folder}: no data in it, expected pictures, a folder for each class, IDX or CIFAR"
        )
    if classes is not None and not set(names) <= set(classes):
        strange = sorted(set(names) - set(classes))[0]
        raise DataError(
            f"[data] {folder / strange}: a class that the training part lacks, expected the same classes"
        )
    classes = names if classes is None else list(classes)
    files, labels = list(direct), [-1] * len(direct)
    for name in names:
        found = sorted(path for path in (folder / name).rglob("*") if path.is_file() and is_picture(path))
        if not found:
            raise DataError(f"[data] {folder / name}: no pictures in it, expected {', '.join(SUFFIXES)}")
        files += found
        labels += [classes.index(name)] * len(found)
    return Dataset(_stack(files, size, channels), np.array(labels, np.int64), classes, folder.resolve().name)


def read_one(path: Path, size: Any = None, channels: int | None = None) -> Dataset:
    """A single picture as a set without labels."""
    return Dataset(load_picture(path, size, channels), np.array([-1], np.int64), [], path.name)


def load_picture(
    path: str | Path, size: int | tuple[int, int] | None = None, channels: int | None = None
) -> np.ndarray:
    """One picture, [1, C, H, W] uint8.

    size: to fit it to, the longer side cropped in the middle; channels: 1 grey or 3 colours, else as in the
    file. Raises DataError for a missing, broken or huge picture, and without Pillow.
    """
    return _stack([Path(path)], size, channels)


def class_names(folder: Path) -> list[str]:
    """The names of the folders in a folder, in the order in which labels count them."""
    return class_order({path.name for path in _folders(folder)})


def _folders(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__"))
    )


def _stack(files: Sequence[Path], size: Any, channels: int | None) -> np.ndarray:
    if channels not in (None, 1, 3):
        raise ValueError(f"[data] channels is {channels}, expected 1 (grey) or 3 (colour)")
    shape = (size, size) if isinstance(size, int) else size
    if shape is not None and (len(shape) != 2 or min(shape) < 1):
        raise ValueError(f"[data] size is {size}, expected a height and a width of at least 1")
    pictures: list[np.ndarray] = []
    total = 0
    for path in files:
        picture = _decode(path, shape, channels)
        pictures.append(picture)
        first = pictures[0].shape[1:]
        if picture.shape[1:] != first:
            came, wanted = ("x".join(map(str, extents)) for extents in (picture.shape[1:], first))
            same = f"expected {wanted} as {files[0].name} has"
            raise DataError(f"[data] {path}: {came} pixels, {same}; give a size to fit all to")
        total += picture.size
        if total > MAX_BYTES:
            raise DataError(
                f"[data] {path}: {total} bytes of pictures up to here, expected at most {MAX_BYTES}"
            )
    most = max(len(picture) for picture in pictures)
    stacked = np.empty((len(pictures), most, *pictures[0].shape[1:]), np.uint8)
    for target, picture in zip(stacked, pictures):
        target[:] = picture  # repeats grey among colours
    return stacked


def _decode(path: Path, size: tuple[int, int] | None, channels: int | None) -> np.ndarray:
    """[C, H, W] uint8."""
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError:
        raise DataError(
            f"[data] {path}: pictures need Pillow, expected it installed (pip install pillow)"
        ) from None
    if not path.is_file():
        raise DataError(f"[data] {path}: no such file, expected a picture")
    if not path.stat().st_size:
        raise DataError(f"[data] {path}: empty, expected a picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about size and damaged side data; the errors below are ours
            with Image.open(path, formats=_FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise DataError(f"[data] {path}: {width}x{height} pixels, expected at most {MAX_PIXELS}")
                image.load()
                picture = _plain(ImageOps.exif_transpose(image), channels)
            if size is not None and picture.size != (size[1], size[0]):
                picture = ImageOps.fit(picture, (size[1], size[0]), Image.Resampling.BILINEAR)
            array = np.asarray(picture)
    except DataError:
        raise
    except Image.DecompressionBombError:
        raise DataError(f"[data] {path}: far too many pixels, expected at most {MAX_PIXELS}") from None
    except Exception as error:  # what damaged data makes a decoder raise has no bounds
        reason = (
            "not a picture" if isinstance(error, UnidentifiedImageError) else " ".join(str(error).split())
        )
        raise DataError(f"[data] {path}: {reason}, expected a whole {', '.join(_FORMATS)} picture") from None
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def _plain(image: Any, channels: int | None) -> Any:
    """The picture in bytes of grey or of RGB, on white where it is transparent."""
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits: Pillow would clip them rather than scale
        values = np.asarray(image).astype(np.int64)
        image = Image.fromarray(np.clip(values >> 8, 0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        grey = image.mode in ("LA", "La")
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("L" if grey else "RGB")
    grey = image.mode in ("1", "L") if channels is None else channels == 1
    return image.convert("L" if grey else "RGB")
