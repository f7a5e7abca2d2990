"""Whatever is in a data file, reading it gives the data or one clear sentence: no crash, no wrong data."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastarch as fa
from data_files import (
    IMAGES_NAME,
    LABELS,
    LABELS_NAME,
    PICTURES,
    RECORD,
    UINT8,
    Build,
    Calls,
    X,
    Y,
    array_pickle,
    batch,
    both,
    cifar_binary,
    csv,
    hostile,
    idx,
    idx_gzip,
    idx_pair,
    npy,
    npy_header,
    npz,
    pickled,
    picture,
    png_of,
    put,
    raw,
    tree,
    zipped,
)
from fastarch.data import DataError, Dataset


def message(path: Path, **options: Any) -> str:
    """The error that loading gives: one sentence that names the file, with nothing behind it."""
    with pytest.raises(DataError) as caught:
        fa.data.load(path, **options)
    text = str(caught.value)
    assert text.startswith("[data] ")
    assert "\n" not in text
    assert ", expected " in text
    assert len(text) < 450
    assert not text.endswith(".")
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return text


BROKEN: dict[str, tuple[Build, str]] = {
    # nothing, or nothing known
    "missing": (lambda folder: folder / "absent.csv", "absent.csv: no such file or folder"),
    "empty file": (raw(b"", "a.npz"), "a.npz: empty"),
    "empty folder": (lambda folder: folder, ": no data in it"),
    "unknown format": (raw(b"\x7fELF\x02", "a.out"), r"a.out: unknown format \(begins with 7f 45 4c 46\)"),
    "only hidden files": (raw(b"x", ".DS_Store"), "unknown format"),
    "a pipe": (
        lambda folder: (os.mkfifo(folder / "p.csv"), folder / "p.csv")[1],
        "neither a file nor a folder",
    ),
    # IDX
    "idx cut in the header": (idx_pair(idx(PICTURES)[:9]), "ends within its header, expected 3 extents"),
    "idx cut": (idx_pair(idx(PICTURES)[:-5]), "ubyte: 7 bytes of values, expected 12 for the 3x2x2 values"),
    "idx too long": (idx_pair(idx(PICTURES) + b"\0"), "13 bytes of values, expected 12"),
    "idx wrong magic": (
        idx_pair(b"\x01\0\x08\x03" + idx(PICTURES)[4:]),
        "begins with 01 00 08 03, expected IDX",
    ),
    "idx unknown type": (idx_pair(idx(PICTURES, 0x0A)), "begins with 00 00 0a 03, expected IDX"),
    "idx labels as pictures": (idx_pair(images=idx(LABELS)), "images-idx3-ubyte: 1 extents, expected 3"),
    "idx pictures as labels": (idx_pair(labels=idx(PICTURES)), "labels-idx1-ubyte: 3 extents, expected 1"),
    "idx counts differ": (idx_pair(labels=idx(LABELS[:2])), "3 pictures, expected as many .* has labels, 2"),
    "idx no pictures": (
        idx_pair(idx(PICTURES[:0]), idx(LABELS[:0])),
        r"no pictures in it \(shape \(0, 2, 2\)",
    ),
    "idx negative label": (
        idx_pair(labels=idx(np.array([0, -1, 2], ">i4"), 0x0C)),
        "labels-idx1-ubyte: labels from -1 to 2, expected 0 to at most 65535",
    ),
    "idx huge label": (
        idx_pair(labels=idx(np.array([0, 1, 2**30], ">i4"), 0x0C)),
        "expected 0 to at most 65535",
    ),
    "idx not finite": (idx_pair(idx(np.full((3, 1, 1), np.nan, ">f4"), 0x0D)), "expected finite numbers"),
    "idx without labels": (
        raw(idx(PICTURES), IMAGES_NAME),
        f"its labels are missing, expected {LABELS_NAME}",
    ),
    "idx without a role": (raw(idx(PICTURES), "digits.idx3"), "expected 'images' or 'labels' in its name"),
    "idx hostile counts": (
        idx_pair(b"\0\0\x08\x03" + b"\xff" * 12),
        "0 bytes of values, expected 79228162458924105385300197375 for",
    ),
    "gzip cut": (idx_gzip(lambda data: data[:-10]), "ubyte.gz: damaged or cut gzip data"),
    "gzip changed": (idx_gzip(lambda data: data[:-6] + b"\0" + data[-5:]), "damaged or cut gzip data"),
    "gzip too short": (idx_gzip(images=idx(PICTURES)[:-1]), "11 bytes of values, expected 12"),
    "gzip too long": (idx_gzip(images=idx(PICTURES) + b"\0"), "more bytes, expected 12"),
    "gzip hostile counts": (
        idx_gzip(images=b"\0\0\x08\x03" + b"\x7f\xff\xff\xff" * 3),
        "at most [0-9]+ bytes of values, expected",
    ),
    "two trainings": (
        both(raw(idx(PICTURES), "train-a-images-idx3-ubyte"), idx_pair(), lambda folder: folder),
        "both hold train pictures, expected one",
    ),
    # CIFAR
    "cifar size": (raw(RECORD[:-1], "data_batch_1.bin"), "3072 bytes, expected a multiple of 3073"),
    "cifar label": (
        raw(b"\x0a" + RECORD[1:], "test_batch.bin"),
        "test_batch.bin: a label 10, expected 0 to 9",
    ),
    "cifar batch missing": (
        both(raw(RECORD, "data_batch_2.bin"), lambda folder: folder),
        "data_batch_1.bin is missing, expected every batch",
    ),
    "cifar of two kinds": (
        both(
            raw(pickle.dumps(batch(), 2), "data_batch_1"),
            raw(pickle.dumps(batch(labels=None, fine_labels=[7]), 2), "data_batch_2"),
            lambda folder: folder,
        ),
        "data_batch_2: labels of another kind, expected those of data_batch_1",
    ),
    "two cifars": (
        both(raw(b"", "cifar-10-batches-py/a"), raw(b"", "cifar-10-batches-bin/a"), lambda folder: folder),
        "expected one; name the folder",
    ),
    "cifar counts differ": (
        both(cifar_binary, raw(RECORD, "data_batch_2.bin"), lambda folder: folder),
        "data_batch_2.bin: 1 pictures, expected 2 as in data_batch_1.bin",
    ),
    "pickle cut": (raw(pickle.dumps(batch(), 2)[:-40]), r"test_batch: damaged or cut \("),
    "pickle of a list": (pickled([1, 2]), "a pickled list, expected a dict"),
    "pickle without labels": (pickled(batch(labels=None)), "keys 'data', expected data"),
    "pickle counts differ": (pickled(batch(labels=[7, 7])), "1 pictures, expected as many as labels, 2"),
    "pickle label": (pickled(batch(labels=[10])), "a label 10, expected 0 to 9"),
    "pickle label of text": (pickled(batch(labels=["7"])), "labels that are not small whole numbers"),
    "pickle label too large": (pickled(batch(labels=[2**70])), "labels that are not small whole numbers"),
    "pickle of floats": (pickled(batch(data=np.zeros((1, 3072)))), "data is not an array of bytes"),
    "pickle of other pictures": (pickled(batch(data=np.zeros((1, 784), np.uint8))), "not an array of bytes"),
    "pickle of objects": (pickled(batch(data=np.array([[None] * 3072]))), "not an array of bytes"),
    "pickle in Fortran order": (
        pickled(batch(data=np.asfortranarray(np.zeros((2, 3072), np.uint8)), labels=[1, 2])),
        "in C order",
    ),
    "pickle of fewer bytes": (
        array_pickle(b"(K\x01K\x01M\0\x0c\x86" + UINT8 + b"\x89U\x03abct"),
        "not an array",
    ),
    "pickle of hostile shape": (
        array_pickle(b"(K\x01U\x03abcM\0\x0c\x86" + UINT8 + b"\x89U\x03abct"),
        "not an array",
    ),
    "pickle calls os.system": (pickled(batch(extra=Calls())), "wants to call 'posix.system'"),
    "pickle calls os.system, protocol 4": (pickled(batch(extra=Calls()), 4), "wants to call 'posix.system'"),
    "pickle calls eval": (hostile(b"c__builtin__\neval\nU\x02ab\x85R"), "wants to call '__builtin__.eval'"),
    "pickle calls numpy.load": (hostile(b"cnumpy\nload\nU\x02ab\x85R"), "wants to call 'numpy.load'"),
    "pickle walks attributes": (
        hostile(b"\x8c\x05numpy\x8c\x0endarray.tofile\x93."),
        "wants to call 'numpy.ndarray.tofile'",
    ),
    "pickle instance": (hostile(b"(U\x02abios\nsystem\n"), "has the instruction INST"),
    "pickle object": (hostile(b"(cnumpy\nndarray\no"), "has the instruction OBJ"),
    "pickle new object": (hostile(b"cnumpy\nndarray\n)\x81"), "has the instruction NEWOBJ"),
    "pickle persistent": (hostile(b"Pabc\n"), "has the instruction PERSID"),
    "pickle extension": (hostile(b"\x82\x01"), "has the instruction EXT1"),
    "pickle state of a dict": (hostile(b"}}b"), "gives a state to what has none"),
    "pickle call of a value": (hostile(b"K\x01)R"), "of the wrong kind"),
    "pickle huge cell": (hostile(b"K\x01r\xff\xff\xff\x7f"), "a pickled int, expected a dict"),
    "pickle wrong cell": (hostile(b"h\x05"), "fetches what it never stored"),
    "pickle huge bytes": (hostile(b"\x8e" + b"\xff" * 7 + b"\x7f"), "damaged or cut"),
    "pickle deep list": (hostile(b"]" * 200_000 + b"a" * 199_999), "a pickled list, expected a dict"),
    "pickle list key": (hostile(b"}]K\x01s"), "a key is missing or is not text"),
    "pickle tuple key": (hostile(b"})" + b"\x86".join([b"2"] * 2) + b"K\x01s"), "has the instruction DUP"),
    "pickle nested keys": (
        hostile(b"})" + b"q\x01h\x01\x86" * 90 + b"K\x01s"),
        "a key is missing or is not text",
    ),
    "pickle ends early": (raw(b"\x80\x02."), "a value is missing"),
    "pickle without a mark": (hostile(b"t"), "a value is missing"),
    # npz
    "npz cut": (raw(b"PK\x03\x04" + bytes(30), "a.npz"), "a.npz: damaged or cut"),
    "npz not a zip": (raw(b"hello", "a.npz"), r"a.npz: damaged or cut \(File is not a zip file\)"),
    "npz without x": (npz(data=X, y=Y), "a.npz: has 'data', 'y' and no x, expected x and y"),
    "npz without x_test": (npz(x_train=X, y_train=Y), "no x_test, expected"),
    "npz odd names": (zipped({"x\n\x1b[31m": b""}), "has 'x.n.x1b.31m' and no x"),
    "npz of nothing": (zipped({}), "has nothing and no x"),
    "npz counts differ": (npz(x=X, y=Y[:2]), r"y has shape \(2,\), expected \(3,\)"),
    "npz objects": (
        zipped({"x.npy": npy(np.array([[Calls()]], object)), "y.npy": npy(Y)}),
        "x has type object",
    ),
    "npz object labels": (
        zipped({"x.npy": npy(X), "y.npy": npy(np.array([Calls()] * 3))}),
        "y has type object",
    ),
    "npz complex": (npz(x=X * 1j, y=Y), "x has type complex64, expected numbers or text"),
    "npz text": (npz(x=np.array([["a"]]), y=Y[:1]), "x holds text, expected numbers"),
    "npz scalar": (npz(x=np.array(3.0)), r"x has shape \(\), expected"),
    "npz of no samples": (npz(x=X[:0], y=Y[:0]), r"x has shape \(0, 4\), expected .* not empty"),
    "npz not finite": (npz(x=np.array([[1.0, np.inf]])), r"x\[0, 1\] is inf, expected finite"),
    "npz too large for float32": (npz(x=np.array([[1e300]])), r"x\[0, 0\] is inf, expected finite"),
    "npz half labels": (
        npz(x=X, y=np.array([0, 0.5, 1])),
        "y of type float64, expected whole numbers or names",
    ),
    "npz nan labels": (npz(x=X, y=np.array([0, np.nan, 1])), "y of type float64, expected whole numbers"),
    "npz negative labels": (npz(x=X, y=-Y), "y from -1 to 0, expected 0"),
    "npz mixed labels": (
        npz(x_train=X, y_train=Y, x_test=X, y_test=np.array(["a", "b", "c"])),
        "names here and numbers there",
    ),
    "npz too few classes": (
        npz(x=X, y=Y, classes=np.array(["a"])),
        r"classes has shape \(1,\), expected at least 2",
    ),
    "npz hostile shape": (zipped({"x.npy": npy_header("(1 << 40, 4)")}), "x is damaged or cut"),
    "npz hostile extents": (
        zipped({"x.npy": npy_header("(1099511627776, 4)")}),
        r"x has 0 bytes and the shape \(1099511627776, 4\), expected what fits it, 17592186044416 bytes",
    ),
    "npz negative extents": (
        zipped({"x.npy": npy_header("(-1, -4)") + bytes(16)}),
        r"x has 16 bytes and the shape \(-1, -4\)",
    ),
    "npz header calls": (zipped({"x.npy": npy_header("(__import__('os'),)")}), "x is damaged or cut"),
    "npz header nested": (zipped({"x.npy": npy_header("(" * 5000)}), "x is damaged or cut"),
    "npz header wrong": (zipped({"x.npy": npy_header("(1,)", "'hello'")}), "x is damaged or cut"),
    "npz fields": (zipped({"x.npy": npy_header("(1,)", "[('a', '<f4')]") + bytes(4)}), "x has type"),
    "npz no array": (zipped({"x.npy": b"text"}), "x is damaged or cut"),
    "npz bzip2": (
        zipped({"x.npy": npy(X)}, compression=zipfile.ZIP_BZIP2),
        "packed in a way that NumPy never uses",
    ),
    # CSV
    "csv ragged": (csv("a,b,label\n1,2,x\n3,y\n"), "t.csv: row 3 has 2 columns, expected 3"),
    "csv too wide": (csv("1,2,x\n3,4,y,5\n"), "row 2 has 4 columns, expected 3"),
    "csv not a number": (
        csv("a,b,label\n1,2,x\n3,four,y\n"),
        r"row 3, column 2 \('b'\): 'four', expected a finite",
    ),
    "csv empty cell": (csv("1,2,x\n3,,y\n"), "row 2, column 2: '', expected a finite number"),
    "csv nan": (csv("1,2,x\n3,nan,y\n"), "row 2, column 2: 'nan', expected a finite number"),
    "csv too large": (csv("1,2,x\n3,1e39,y\n"), "row 2, column 2: '1e39', expected a finite number"),
    "csv no label": (csv("1,2,x\n3,4,\n"), "row 2, column 3: empty, expected a label"),
    "csv one column": (csv("1\n2\n"), "1 columns, expected numbers and a label"),
    "csv blank": (csv("\n \n"), "0 columns, expected"),
    "csv only a header": (csv("a,b,label\n"), "a header and no rows"),
    "csv not text": (csv(b"1,2,x\n\xff\xfe,3,y\n"), "byte 6 is not UTF-8"),
    "csv open quote": (csv('1,2,"x\n3,4,y\n'), "row 2: unexpected end of data"),
    "csv stray quote": (csv('1,2,"x"z\n'), "row 1: ',' expected after '\"'"),
    "csv control": (csv("1,2,x\n\0,3,y\n"), "row 2"),
    # pictures
    "no picture": (raw(b"hello", "a.png"), "a.png: not a picture, expected a whole"),
    "picture of another program": (raw(b"%!PS-Adobe-3.0 EPSF-3.0\n", "a.png"), "a.png: not a picture"),
    "picture bomb": (raw(png_of(60_000, 60_000), "a.png"), "a.png: .*pixels, expected at most 67108864"),
    "picture large": (raw(png_of(9_000, 9_000), "a.png"), "a.png: 9000x9000 pixels, expected at most"),
    "class without pictures": (tree("a/1.png", "b/"), "b: no pictures in it"),
    "pictures and folders": (tree("a/1.png", "2.png"), r"both pictures \(2.png\) and folders"),
    "broken picture in a class": (
        both(tree("a/1.png"), raw(b"hello", "a/2.png"), lambda folder: folder),
        "a/2.png: not a picture",
    ),
    "sizes differ": (
        both(tree("a/1.png"), lambda folder: (put(folder / "a/2.png", picture("PNG", (5, 5))), folder)[1]),
        "a/2.png: 5x5 pixels, expected 5x4 as 1.png has; give a size",
    ),
    "class only in the test part": (
        tree("train/a/1.png", "test/b/1.png"),
        "test/b: a class that the training part",
    ),
    "two test parts": (
        tree("train/a/1.png", "test/a/1.png", "val/a/1.png"),
        "expected train and one other part",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_gives_one_clear_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, wanted = BROKEN[name]
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    path = build(folder)
    tracemalloc.start()
    started = time.monotonic()
    try:
        text = message(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert re.search(wanted, text), text
    assert str(folder) in text
    assert peak < 64 << 20
    assert time.monotonic() - started < 20
    assert os.listdir(tmp_path) == ["data"]


def same(one: Dataset, other: Dataset) -> bool:
    equal = (
        one.x.dtype == other.x.dtype and one.x.shape == other.x.shape and one.x.tobytes() == other.x.tobytes()
    )
    return equal and one.y.tolist() == other.y.tolist() and one.classes == other.classes


def first_rows(one: Dataset, whole: Dataset) -> bool:
    """Whether all is right but for rows missing at the end, or the end of the last cell."""
    rows = len(one) - 1
    names, right = ([data.classes[k] for k in data.y] for data in (one, whole))
    last = (one.x[rows] == whole.x[rows]).all() and right[rows].startswith(names[rows])
    return bool((one.x[:rows] == whole.x[:rows]).all() and names[:rows] == right[:rows] and last)


class Valid:
    """A valid file: how to write it, which file of it to damage, and what may come of a cut one."""

    def __init__(
        self, build: Build, file: str, cut_may_give: Callable[[Dataset, Dataset], bool] | None = None
    ) -> None:
        self.build = build
        self.file = file
        self.cut_may_give = cut_may_give


TABLE = 'a,b,label\n1.5,-2,"cat"\n0.25,3e2,dog\n10,12,horse\n'
VALID = {
    "idx pictures": Valid(idx_pair(), IMAGES_NAME),
    "idx labels": Valid(idx_pair(), LABELS_NAME),
    "idx gzip": Valid(idx_gzip(), f"{IMAGES_NAME}.gz"),
    "cifar binary": Valid(cifar_binary, "data_batch_2.bin"),
    "cifar pickle 2": Valid(pickled(batch(), 2), "test_batch"),
    "cifar pickle 5": Valid(pickled(batch(), 5), "test_batch"),
    "npz": Valid(npz(x=X, y=Y), "a.npz"),
    "npz stored": Valid(npz(False, x=X, y=np.array(["a", "b", "a"])), "a.npz"),
    "csv": Valid(csv(TABLE), "t.csv", first_rows),
    # what a decoder needs may end before the file does
    **{
        name: Valid(lambda folder, kind=kind: put(folder / f"a.{kind}", picture(kind)), f"a.{kind}", same)  # type: ignore[misc]
        for name, kind in (("png", "PNG"), ("jpeg", "JPEG"), ("bmp", "BMP"), ("gif", "GIF"), ("ppm", "PPM"))
    },
}


def outcome(path: Path, folder: Path) -> Dataset | str:
    """The data or the error; any other error is let through."""
    try:
        return fa.data.load(path)
    except DataError as error:
        text = str(error)
    assert str(folder) in text
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", VALID)
def test_a_file_cut_at_any_byte_is_noticed(name: str, tmp_path: Path) -> None:
    valid = VALID[name]
    path, file = valid.build(tmp_path), tmp_path / valid.file
    whole, content = fa.data.load(path), file.read_bytes()
    noticed = 0
    for size in range(len(content)):
        if 300 < size < len(content) - 300 and size % 41:  # all alike within the pixels of a larger file
            continue
        file.write_bytes(content[:size])
        came = outcome(path, tmp_path)
        if isinstance(came, str):
            noticed += 1
        else:
            assert valid.cut_may_give is not None, f"cut after {size} of {len(content)} bytes"
            assert valid.cut_may_give(came, whole), f"cut after {size} of {len(content)} bytes"
    assert noticed > 0
    file.write_bytes(content)
    assert same(fa.data.load(path), whole)


@pytest.mark.parametrize("name", VALID)
def test_changed_bytes_give_data_or_an_error_of_ours(name: str, tmp_path: Path) -> None:
    valid = VALID[name]
    path, file = valid.build(tmp_path), tmp_path / valid.file
    content = file.read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        changed = bytearray(content)
        # half of the changes at the beginning, where headers are
        for place in random.integers(
            0, random.choice([len(content), min(len(content), 150)]), random.integers(1, 4)
        ):
            changed[place] = random.integers(0, 256)
        file.write_bytes(changed)
        came = outcome(path, tmp_path)
        if isinstance(came, str):
            refused += 1
        else:
            assert np.isfinite(came.x).all()
            assert came.y.min() >= -1
    assert refused > 0


def test_no_permission_and_a_missing_pillow_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "a.png", b"x")
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert "pictures need Pillow, expected it installed (pip install pillow)" in message(path)

    def denied(self: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", denied)
    assert f"{tmp_path}: Permission denied, expected a readable file" in message(tmp_path)


def test_a_folder_of_broken_files_as_a_user_sees_it(tmp_path: Path) -> None:
    """Every case above at once, through the interpreter: one line each, and no traceback."""
    paths = []
    for k, (build, _) in enumerate(BROKEN.values()):
        folder = tmp_path / str(k)
        folder.mkdir()
        paths.append(str(build(folder)))
    code = (
        "import sys, fastarch as fa\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        "        fa.data.load(path)\n"
        "    except fa.data.DataError as error:\n"
        "        print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", code, *paths], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.stderr == ""
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert len(lines) == len(paths)
    assert all(line.startswith("[data] ") for line in lines)
    assert not (tmp_path / "hacked").exists()
