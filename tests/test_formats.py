"""Reading data sets: the values, labels, classes and parts of every format."""

from __future__ import annotations

import gzip
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastarch as fa
from data_files import IMAGES_NAME, LABELS, LABELS_NAME, PICTURES, batch, csv, idx, idx_pair, npz, put
from fastarch.data import DataError


def mnist(folder: Path, packed: bool = False) -> Path:
    """A folder with MNIST's four files; the test part lacks the last class."""
    for name, data in {
        IMAGES_NAME: idx(PICTURES),
        LABELS_NAME: idx(LABELS),
        IMAGES_NAME.replace("train", "t10k"): idx(PICTURES[:2] + 100),
        LABELS_NAME.replace("train", "t10k"): idx(np.array([1, 0], np.uint8)),
    }.items():
        put(folder / (name + ".gz" * packed), gzip.compress(data) if packed else data)
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_of_mnist_has_two_parts(packed: bool, tmp_path: Path) -> None:
    folder = mnist(tmp_path / "mnist", packed)
    train, test = fa.data.train_test(folder)
    np.testing.assert_array_equal(train.x, PICTURES[:, None])
    np.testing.assert_array_equal(test.x, PICTURES[:2, None] + 100)
    assert (train.y.tolist(), test.y.tolist()) == ([2, 0, 1], [1, 0])
    assert train.classes == test.classes == fa.data.load(folder, "test").classes == ["0", "1", "2"]
    assert (train.name, train.x.dtype) == ("mnist", np.uint8)
    whole = fa.data.load(str(folder))
    np.testing.assert_array_equal(whole.x, np.concatenate([train.x, test.x]))
    assert whole.y.tolist() == [2, 0, 1, 1, 0]
    # either file of a pair names the pair; the plain file goes before the gzipped one
    for name in (IMAGES_NAME, LABELS_NAME):
        assert fa.data.load(folder / (name + ".gz" * packed)).x.tobytes() == train.x.tobytes()
    put(
        folder / f"{IMAGES_NAME}.gz",
        b"not read" if not packed else (folder / f"{IMAGES_NAME}.gz").read_bytes(),
    )
    assert fa.data.load(folder, "train").x.tobytes() == train.x.tobytes()


def test_idx_in_other_types_and_names(tmp_path: Path) -> None:
    values = np.linspace(-1, 1, 24).reshape(2, 3, 2, 2)
    put(tmp_path / "b-labels.idx1", idx(np.array([5, 0], ">i4"), 0x0C))
    for code, dtype in ((0x0D, ">f4"), (0x0E, ">f8")):
        path = put(tmp_path / "b-images.idx3", idx(values.astype(dtype), code))
        data = fa.data.load(path)
        assert data.x.dtype == np.float32
        np.testing.assert_array_equal(data.x, values.astype(np.float32))
        assert data.y.tolist() == [5, 0]
    put(tmp_path / "b-images.idx3", idx(np.arange(-4, 4, dtype=">i2").reshape(2, 2, 2), 0x0B))
    assert fa.data.load(tmp_path, "all").x.ravel().tolist() == list(range(-4, 4))


def cifar_arrays(n: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(n)
    return random.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8), random.integers(0, 10, n)


def cifar_pickle(path: Path, x: np.ndarray, labels: list[int], protocol: int = 2, **entries: Any) -> None:
    content = {b"data": x.reshape(len(x), -1), b"labels": labels, b"filenames": ["a.png"] * len(x), **entries}
    put(path, pickle.dumps(content, protocol))


@pytest.mark.parametrize("protocol", [None, 0, 2, 3, 4, 5])
def test_cifar_10_binary_and_pickled(protocol: int | None, tmp_path: Path) -> None:
    parts = {"data_batch_1": cifar_arrays(3), "data_batch_2": cifar_arrays(3), "test_batch": cifar_arrays(5)}
    for name, (x, y) in parts.items():
        if protocol is None:
            records = np.concatenate([y.astype(np.uint8)[:, None], x.reshape(len(x), -1)], axis=1)
            put(tmp_path / "cifar-10-batches-bin" / f"{name}.bin", records.tobytes())
        elif protocol == 0:  # text, in which arrays take another way
            content = {"data": x.reshape(len(x), -1), "labels": y.tolist()}
            put(tmp_path / "cifar-10-batches-py" / name, pickle.dumps(content, 0))
        else:
            cifar_pickle(tmp_path / "cifar-10-batches-py" / name, x, y.tolist(), protocol)
    train, test = fa.data.train_test(tmp_path)  # the folder around the usual one
    joined = [np.concatenate([parts["data_batch_1"][i], parts["data_batch_2"][i]]) for i in (0, 1)]
    np.testing.assert_array_equal(train.x, joined[0])
    np.testing.assert_array_equal(train.y, joined[1])
    np.testing.assert_array_equal(test.x, parts["test_batch"][0])
    np.testing.assert_array_equal(test.y, parts["test_batch"][1])
    assert train.classes[0] == "airplane"
    assert len(train.classes) == 10
    inner = next(tmp_path.iterdir())
    assert fa.data.load(inner, "train").x.tobytes() == train.x.tobytes()
    one = fa.data.load(sorted(inner.iterdir())[0])
    np.testing.assert_array_equal(one.x, parts["data_batch_1"][0])
    (inner / f"test_batch{'.bin' if protocol is None else ''}").unlink()
    assert len(fa.data.load(inner)) == 6
    with pytest.raises(DataError, match="no part 'test' in it, expected one of 'train'"):
        fa.data.load(inner, "test")


def test_cifar_as_python_2_wrote_it(tmp_path: Path) -> None:
    """The published batches: protocol 2 from Python 2, whose text is bytes, arrays by way of _reconstruct."""
    pixels = bytes(range(256)) * 12
    dtype = b"cnumpy\ndtype\nq\x05(U\x02u1K\x00K\x01tRq\x06"
    dtype += b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b\x87Rq\x03"
    array += (
        b"(K\x01K\x01M\x00\x0c\x86" + dtype + b"\x89T" + len(pixels).to_bytes(4, "little") + pixels + b"tb"
    )
    labels = b"U\x06labels(lp0\nK\x03aU\x0bbatch_labelU\x14testing batch 1 of 1"
    put(tmp_path / "test_batch", b"\x80\x02}(U\x04data" + array + labels + b"u.")
    data = fa.data.load(tmp_path / "test_batch")
    assert data.x.tobytes() == pixels
    assert data.y.tolist() == [3]


def test_cifar_100(tmp_path: Path) -> None:
    x, _ = cifar_arrays(2)
    names = [f"class {k}" for k in range(100)]
    for part in ("train", "test"):
        content = {"data": x.reshape(2, -1), "fine_labels": [99, 3], "coarse_labels": [1, 2]}
        put(tmp_path / "py" / part, pickle.dumps(content, 2))
        records = np.concatenate([np.array([[1, 99], [2, 3]], np.uint8), x.reshape(2, -1)], axis=1)
        put(tmp_path / "bin" / f"{part}.bin", records.tobytes())
    put(tmp_path / "py" / "meta", pickle.dumps({b"fine_label_names": [name.encode() for name in names]}, 2))
    put(
        tmp_path / "bin" / "fine_label_names.txt",
        "\n".join(name.replace(" ", "_") for name in names).encode(),
    )
    for kind, wanted in (("py", "class 99"), ("bin", "class_99")):
        train, test = fa.data.train_test(tmp_path / kind)
        np.testing.assert_array_equal(train.x, x)
        assert train.y.tolist() == test.y.tolist() == [99, 3]
        assert train.classes[99] == wanted
    put(tmp_path / "py" / "meta", pickle.dumps({b"fine_label_names": 7}, 2))
    assert fa.data.load(tmp_path / "py", "test").classes == [str(k) for k in range(100)]


RANDOM = np.random.default_rng(3)
BYTES = RANDOM.integers(0, 256, (4, 6, 5), dtype=np.uint8)
COLOURS = RANDOM.integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("x", "wanted", "dtype"),
    [
        (BYTES, BYTES[:, None], np.uint8),
        (BYTES[:, None], BYTES[:, None], np.uint8),
        (BYTES[..., None], BYTES[:, None], np.uint8),
        (COLOURS, COLOURS.transpose(0, 3, 1, 2), np.uint8),
        (BYTES.reshape(4, 3, 2, 5), BYTES.reshape(4, 3, 2, 5), np.uint8),
        (BYTES.reshape(4, 30), BYTES.reshape(4, 30), np.uint8),
        (BYTES.reshape(4, 30).astype(np.int64), BYTES.reshape(4, 30), np.float32),
        (BYTES / 255.0, BYTES[:, None] / 255.0, np.float32),
        (np.asfortranarray(BYTES / 255.0), BYTES[:, None] / 255.0, np.float32),
        ((BYTES > 99).reshape(4, 30), (BYTES > 99).reshape(4, 30), np.float32),
        (BYTES.reshape(4, 30).astype(">f8"), BYTES.reshape(4, 30), np.float32),
    ],
)  # fmt: skip
def test_npz_shapes_and_types(x: np.ndarray, wanted: np.ndarray, dtype: type, tmp_path: Path) -> None:
    data = fa.data.load(npz(x=x, y=np.array([3, 0, 1, 1], np.uint8))(tmp_path))
    assert (data.x.dtype, data.x.flags.c_contiguous) == (dtype, True)
    np.testing.assert_array_equal(data.x, wanted.astype(dtype))
    assert data.y.tolist() == [3, 0, 1, 1]
    assert (data.classes, data.name) == (["0", "1", "2", "3"], "a")


def test_npz_labels_of_every_kind(tmp_path: Path) -> None:
    x = BYTES.reshape(4, 30)
    column = fa.data.load(npz(x=x, y=np.array([[1.0], [0], [1], [0]]))(tmp_path))
    assert column.y.tolist() == [1, 0, 1, 0]
    named = fa.data.load(
        npz(x=x, y=np.array([1, 0, 1, 0]), classes=np.array(["no", "yes", "may be"]))(tmp_path)
    )
    assert named.classes == ["no", "yes", "may be"]
    words = fa.data.load(npz(x=x, y=np.array(["dog", "cat", "dog", "ant"]))(tmp_path))
    assert (words.y.tolist(), words.classes) == ([2, 1, 2, 0], ["ant", "cat", "dog"])
    numbers = fa.data.load(npz(x=x, y=np.array(["10", "9", "10", "100"]))(tmp_path))
    assert numbers.classes == ["9", "10", "100"]
    assert not fa.data.load(npz(x=x)(tmp_path)).labelled
    shaped = fa.data.load(
        npz(x=x, y=np.array([1, 0, 1, 0]))(tmp_path), shape=(1, 6, 5), size=(12, 10), channels=3
    )
    assert (shaped.x.shape, shaped.x.dtype) == ((4, 3, 12, 10), np.uint8)
    with pytest.raises(DataError, match=r"x has 30 values a sample, expected \(1, 5, 5\)"):
        fa.data.load(tmp_path / "a.npz", shape=(1, 5, 5))
    with pytest.raises(DataError, match="expected pictures where a size is given"):
        fa.data.load(tmp_path / "a.npz", size=8)


def test_npz_with_its_own_parts_numbers_classes_alike(tmp_path: Path) -> None:
    build = npz(
        x_train=BYTES, y_train=np.array(["b", "c", "b", "c"]), x_test=BYTES[:2], y_test=np.array(["c", "a"])
    )
    train, test = fa.data.train_test(build(tmp_path))
    assert (train.y.tolist(), test.y.tolist()) == ([1, 2, 1, 2], [2, 0])
    assert train.classes == test.classes == ["a", "b", "c"]
    build = npz(x_train=BYTES, y_train=np.array([0, 1, 0, 1]), x_test=BYTES[:2], y_test=np.array([0, 2]))
    train, test = fa.data.train_test(build(tmp_path))
    assert train.classes == test.classes == ["0", "1", "2"]
    assert len(fa.data.load(tmp_path / "a.npz")) == 6
    npz(x_train=BYTES, y_train=np.zeros(4), x_test=BYTES[:, :3], y_test=np.zeros(4))(tmp_path)
    with pytest.raises(DataError, match=r"\(1, 6, 5\) to train, \(1, 3, 5\) to test, expected one shape"):
        fa.data.load(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("text", "label", "x", "names"),
    [
        ("1,2,cat\n3,4,dog\n", None, [[1, 2], [3, 4]], ["cat", "dog"]),
        ("a,b,c\n1,2,cat\n3,4,dog\n", None, [[1, 2], [3, 4]], ["cat", "dog"]),
        ("label,p,q\n7,1,2\n10,3,4\n", None, [[1, 2], [3, 4]], ["7", "10"]),
        ("p,Class,q\n1,u,2\n3,v,4\n", None, [[1, 2], [3, 4]], ["u", "v"]),
        ("p,q,r\n1,u,2\n3,v,4\n", "q", [[1, 2], [3, 4]], ["u", "v"]),
        ("u,1,2\nv,3,4\n", 0, [[1, 2], [3, 4]], ["u", "v"]),
        ("1,u,2\n3,v,4\n", -2, [[1, 2], [3, 4]], ["u", "v"]),
        ("1;2;cat\n3;4;dog\n", None, [[1, 2], [3, 4]], ["cat", "dog"]),
        ("1\t2\tcat\n3\t4\tdog", None, [[1, 2], [3, 4]], ["cat", "dog"]),
        ("\ufeff\n 1 , 2 , cat\r\n\r\n3,4e0,dog\r\n", None, [[1, 2], [3, 4]], ["cat", "dog"]),
        ('1,-2.5,"a, b"\n3,.5,"c ""d"""\n', None, [[1, -2.5], [3, 0.5]], ["a, b", 'c "d"']),
        ('1,2,"two\nlines"\n3,4,b\n', None, [[1, 2], [3, 4]], ["two\nlines", "b"]),
        ("1,2,Ärger\n3,4,zwei\u2028drei\n", None, [[1, 2], [3, 4]], ["Ärger", "zwei\u2028drei"]),
    ],
)
def test_csv(text: str, label: str | int | None, x: list, names: list[str], tmp_path: Path) -> None:
    data = fa.data.load(csv(text)(tmp_path), label=label)
    assert data.x.dtype == np.float32
    assert data.x.tolist() == x
    assert [data.classes[k] for k in data.y] == names


def test_csv_options(tmp_path: Path) -> None:
    path = csv("label," + ",".join(f"pixel{k}" for k in range(6)) + "\n3,0,1,2,3,4,255\n")(tmp_path)
    data = fa.data.load(path, shape=(1, 2, 3), size=4)
    assert data.x.shape == (1, 1, 4, 4)
    with pytest.raises(DataError, match="no column 'species', expected one of 'label', 'pixel0'"):
        fa.data.load(path, label="species")
    with pytest.raises(DataError, match="no column 7, expected -7 to 6"):
        fa.data.load(path, label=7)
    with pytest.raises(DataError, match=r"a row has 6 values a sample, expected \(1, 3, 3\)"):
        fa.data.load(path, shape=(1, 3, 3))
    with pytest.raises(DataError, match="1 sample, expected at least 2 to split"):
        fa.data.train_test(path)


def save(path: Path, array: np.ndarray, mode: str | None = None, **options: Any) -> Path:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path


GREY = RANDOM.integers(0, 256, (6, 5), dtype=np.uint8)
RGB = RANDOM.integers(0, 256, (6, 5, 3), dtype=np.uint8)


def test_pictures_in_every_mode(tmp_path: Path) -> None:
    load = fa.data.load_picture
    np.testing.assert_array_equal(load(save(tmp_path / "g.png", GREY))[0, 0], GREY)
    np.testing.assert_array_equal(load(save(tmp_path / "c.bmp", RGB))[0], RGB.transpose(2, 0, 1))
    assert load(tmp_path / "g.png", channels=3).shape == (1, 3, 6, 5)
    assert load(tmp_path / "c.bmp", channels=1).shape == (1, 1, 6, 5)
    np.testing.assert_array_equal(load(save(tmp_path / "d.png", GREY.astype(np.uint16) * 257))[0, 0], GREY)
    black = np.where(GREY > 127, 255, 0).astype(np.uint8)
    np.testing.assert_array_equal(load(save(tmp_path / "b.png", black, "1"))[0, 0], black)
    np.testing.assert_array_equal(load(save(tmp_path / "p.gif", black, "P"))[0, 0], black)
    clear = np.concatenate([RGB, np.zeros((6, 5, 1), np.uint8)], axis=2)
    clear[0, 0, 3] = 255
    seen = load(save(tmp_path / "a.png", clear))[0]
    np.testing.assert_array_equal(seen[:, 0, 0], RGB[0, 0])
    assert (seen[:, 1:] == 255).all()  # transparent is white, as it is seen
    turn = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06" + bytes(
        6
    )  # turned, as phones write
    turned = save(tmp_path / "t.jpg", np.full((8, 16), 99, np.uint8), exif=turn)
    assert load(turned).shape == (1, 1, 16, 8)
    assert load(turned, size=(4, 4)).shape == (1, 1, 4, 4)
    for options in ({"channels": 2}, {"size": 0}, {"size": (1, 2, 3)}):
        with pytest.raises(ValueError, match=r"\[data\] (channels|size) is"):
            load(turned, **options)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no such file, expected a picture"):
        load(tmp_path / "absent.png")


def test_fitting_a_picture_crops_the_longer_side(tmp_path: Path) -> None:
    wide = np.zeros((4, 12), np.uint8)
    wide[:, 4:8] = 200
    path = save(tmp_path / "w.png", wide)
    np.testing.assert_array_equal(fa.data.load_picture(path, size=4)[0, 0], 200)


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    for name, array in (("10/b.png", GREY), ("10/a.PNG", GREY + 1), ("9/deep/x.png", GREY + 2)):
        save(tmp_path / "set" / name, array)
    put(tmp_path / "set" / "10" / "notes.txt", b"not a picture")
    put(tmp_path / "set" / ".hidden" / "x", b"")
    put(tmp_path / "set" / "9" / "._x.png", b"what another system leaves behind")
    data = fa.data.load(tmp_path / "set")
    np.testing.assert_array_equal(data.x[:, 0], np.stack([GREY + 2, GREY + 1, GREY]))
    assert (data.y.tolist(), data.classes, data.name) == ([0, 1, 1], ["9", "10"], "set")
    save(tmp_path / "set" / "9" / "colour.png", RGB)
    mixed = fa.data.load(tmp_path / "set")
    assert mixed.x.shape == (4, 3, 6, 5)
    assert (mixed.x[2, 0] == mixed.x[2, 2]).all()
    save(tmp_path / "set" / "9" / "large.png", np.zeros((20, 30), np.uint8))
    assert fa.data.load(tmp_path / "set", size=(8, 7), channels=1).x.shape == (5, 1, 8, 7)
    plain = fa.data.load(tmp_path / "set" / "10")
    assert (len(plain), plain.labelled, plain.classes) == (2, False, [])
    one = fa.data.load(tmp_path / "set" / "10" / "b.png")
    assert (one.x.shape, one.labelled) == ((1, 1, 6, 5), False)


def test_a_folder_of_pictures_with_parts(tmp_path: Path) -> None:
    for name in ("train/a/1.png", "train/b/1.png", "val/b/1.png"):
        save(tmp_path / name, GREY)
    train, test = fa.data.train_test(tmp_path)
    assert (train.y.tolist(), test.y.tolist(), test.classes) == ([0, 1], [1], ["a", "b"])
    assert len(fa.data.load(tmp_path)) == 3


def test_the_embedded_set_and_its_fixed_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = fa.data.train_test("digits")
    wanted = fa.data.split(fa.data.digits(), 0.2, 0)
    assert (train.x.tobytes(), test.x.tobytes()) == (wanted[0].x.tobytes(), wanted[1].x.tobytes())
    assert fa.data.load("digits", size=32).x.shape == (1797, 1, 32, 32)
    monkeypatch.chdir(tmp_path)
    idx_pair()(tmp_path / "digits")
    assert len(fa.data.load("digits")) == 1797
    assert len(fa.data.load("./digits")) == 3
    assert len(fa.data.load(os.path.join(tmp_path, "digits"))) == 3
    with pytest.raises(ValueError, match="part is 'half', expected 'all', 'train' or 'test'"):
        fa.data.load("digits", part="half")
    with pytest.raises(DataError, match="no part 'train' in it, expected one of 'all'"):
        fa.data.load("digits", part="train")


def test_only_a_test_part_cannot_be_trained_on(tmp_path: Path) -> None:
    put(tmp_path / "test_batch", pickle.dumps(batch(), 2))
    with pytest.raises(DataError, match="only a test part in it, expected a training part too"):
        fa.data.train_test(tmp_path)
