"""Writers of small data files, valid and broken, for the tests of their readers."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Build = Callable[[Path], Path]  # writes files into an empty folder and says which path to load


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def idx(array: np.ndarray, code: int = 0x08) -> bytes:
    header = bytes([0, 0, code, array.ndim]) + b"".join(struct.pack(">I", extent) for extent in array.shape)
    return header + array.tobytes()


PICTURES = np.arange(1, 13, dtype=np.uint8).reshape(3, 2, 2)
LABELS = np.array([2, 0, 1], np.uint8)
IMAGES_NAME, LABELS_NAME = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def idx_pair(images: bytes | None = None, labels: bytes | None = None) -> Build:
    def build(folder: Path) -> Path:
        put(folder / LABELS_NAME, idx(LABELS) if labels is None else labels)
        return put(folder / IMAGES_NAME, idx(PICTURES) if images is None else images)

    return build


def idx_gzip(change: Callable[[bytes], bytes] = lambda data: data, images: bytes | None = None) -> Build:
    def build(folder: Path) -> Path:
        put(folder / LABELS_NAME, idx(LABELS))
        packed = gzip.compress(idx(PICTURES) if images is None else images, mtime=0)
        return put(folder / f"{IMAGES_NAME}.gz", change(packed))

    return build


RECORD = bytes([7]) + bytes(range(256)) * 12


def cifar_binary(folder: Path) -> Path:
    put(folder / "data_batch_2.bin", RECORD * 2)
    return put(folder / "data_batch_1.bin", RECORD * 2).parent


def batch(**changes: Any) -> dict[bytes, Any]:
    entries = {"data": np.frombuffer(RECORD[1:], np.uint8).reshape(1, -1), "labels": [7], **changes}
    return {key.encode(): value for key, value in entries.items() if value is not None}


def pickled(content: Any, protocol: int = 2) -> Build:
    return raw(pickle.dumps(content, protocol))


def raw(data: bytes, name: str = "test_batch") -> Build:
    return lambda folder: put(folder / name, data)


def npz(compressed: bool = True, **arrays: np.ndarray) -> Build:
    def build(folder: Path) -> Path:
        (np.savez_compressed if compressed else np.savez)(folder / "a.npz", **arrays)  # type: ignore[arg-type]
        return folder / "a.npz"

    return build


X, Y = np.arange(12, dtype=np.float32).reshape(3, 4), np.array([1, 0, 1])


def zipped(members: dict[str, bytes], **options: Any) -> Build:
    def build(folder: Path) -> Path:
        with zipfile.ZipFile(folder / "a.npz", "w", **options) as file:
            for name, data in members.items():
                file.writestr(name, data)
        return folder / "a.npz"

    return build


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def npy_header(shape: str, descr: str = "'<f4'") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n"


def csv(text: str | bytes) -> Build:
    return raw(text.encode() if isinstance(text, str) else text, "t.csv")


def picture(format: str, size: tuple[int, int] = (5, 4), **options: Any) -> bytes:
    image_module = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    image_module.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


def png_of(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def tree(*names: str) -> Build:
    def build(folder: Path) -> Path:
        for name in names:
            if name.endswith("/"):
                (folder / name).mkdir(parents=True)
            else:
                put(folder / name, picture("PNG"))
        return folder

    return build


def both(*builds: Build) -> Build:
    return lambda folder: [build(folder) for build in builds][-1]


def hostile(code: bytes) -> Build:
    return raw(b"\x80\x02" + code + b".")


class Calls:
    """Pickles as a call of os.system, which would leave a file behind."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch hacked",)


def array_pickle(changes: bytes) -> Build:
    """A batch whose array has the given pickled state."""
    start = b"\x80\x02}(U\x06labels](K\x07eU\x04data"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\x01b\x87R"
    return raw(start + array + changes + b"bu.")


UINT8 = b"cnumpy\ndtype\nU\x02u1K\0K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
