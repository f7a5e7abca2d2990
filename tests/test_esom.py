"""Files of the ESOM Tools: round trips bit for bit, forms seen in the wild, errors that say what is wrong."""

from __future__ import annotations

import numpy as np
import pytest

import fastarch as fa
from fastarch.estimators import SOM
from fastarch.estimators.som import esom


def odd_numbers(rng, shape, dtype):
    """Numbers of all sizes, with the awkward ones among them."""
    x = (rng.standard_normal(shape) * 10.0 ** rng.integers(-30, 30, shape)).astype(dtype)
    x.flat[:4] = [0.0, -0.0, np.finfo(dtype).tiny / 8, np.finfo(dtype).max]
    return x


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(7, 3), (4, 1), (1, 9)])
def test_numbers_come_back_bit_for_bit(dtype, shape, rng, tmp_path):
    x = odd_numbers(rng, shape, dtype)
    esom.write_lrn(tmp_path / "a.lrn", x)
    esom.write_wts(tmp_path / "a.wts", x, (shape[0], 1))
    esom.write_umx(tmp_path / "a.umx", x)
    for back in (
        esom.read_lrn(tmp_path / "a.lrn").x,
        esom.read_wts(tmp_path / "a.wts")[0],
        esom.read_umx(tmp_path / "a.umx"),
    ):
        assert back.astype(dtype).tobytes() == x.tobytes()


def test_a_learn_file_keeps_keys_classes_names_and_gaps(rng, tmp_path):
    x = rng.standard_normal((5, 3))
    x[1, 2] = np.nan
    keys, classes = np.array([7, -2, 2**40, 0, 5]), np.array([1, 2, 2, 1, 0])
    esom.write_lrn(tmp_path / "a.lrn", x, keys, classes, ["length in cm", "größe", "C"])
    back = esom.read_lrn(tmp_path / "a.lrn")
    np.testing.assert_array_equal(back.x, x)
    np.testing.assert_array_equal(back.keys, keys)
    np.testing.assert_array_equal(back.classes, classes)
    assert back.names == ("length in cm", "größe", "C")
    esom.write_lrn(tmp_path / "b.lrn", x)
    back = esom.read_lrn(tmp_path / "b.lrn")
    assert back.keys.tolist() == [1, 2, 3, 4, 5]
    assert back.classes is None
    assert back.names == ("x0", "x1", "x2")


def test_rows_of_best_matches_are_key_row_column(tmp_path):
    esom.write_bm(tmp_path / "a.bm", [0, 11, 4], (3, 4), keys=[5, 6, 9])
    assert (tmp_path / "a.bm").read_text() == "% 3\t4\n% 3\n5\t0\t0\n6\t2\t3\n9\t1\t0\n"
    back = esom.read_bm(tmp_path / "a.bm")
    assert back.grid == (3, 4)
    assert back.index.tolist() == [0, 11, 4]
    assert back.keys.tolist() == [5, 6, 9]


def test_a_map_survives_its_files(rng, tmp_path):
    x = rng.standard_normal((50, 4)).astype(np.float32)
    som = SOM((4, 6), topology="hexagonal", n_epochs=3).fit(x)
    names = som.save_esom(tmp_path, x, keys=np.arange(100, 150), name="run")
    assert sorted(path.name for path in names) == ["run.bm", "run.lrn", "run.umx", "run.wts"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.bm", "run.lrn", "run.umx", "run.wts"]
    same = SOM.from_wts(tmp_path / "run.wts", topology="hexagonal")
    assert tuple(same.grid) == (4, 6)
    np.testing.assert_array_equal(same.codebook_.astype(np.float32), som.codebook_)
    again = esom.read_lrn(tmp_path / "run.lrn").x.astype(np.float32)
    np.testing.assert_array_equal(again, x)
    best = esom.read_bm(tmp_path / "run.bm")
    np.testing.assert_array_equal(same.predict(again), best.index)
    np.testing.assert_array_equal(best.index, som.labels_)
    assert best.keys.tolist() == list(range(100, 150))
    np.testing.assert_allclose(esom.read_umx(tmp_path / "run.umx"), same.u_matrix(), rtol=1e-6)
    assert same.topographic_error(again) == som.topographic_error(x)


def test_forms_seen_in_the_wild(tmp_path):
    path = tmp_path / "a.lrn"
    path.write_bytes(
        b"\xef\xbb\xbf# made by hand\r\n% 3\r\n%4\r\n% 9\t1 \t0\t1\r\n%  Key\tC 1\tskip\tC2\r\n\r\n"
        b"1\t0.5\tx\t-1e3\r\n# between\r\n2 \t NaN 7 +2\r\n3\t?\tNA\t.5"
    )
    back = esom.read_lrn(path)
    np.testing.assert_array_equal(back.x, [[0.5, -1000], [np.nan, 2], [np.nan, 0.5]])
    assert back.names == ("C 1", "C2")
    (tmp_path / "a.bm").write_text("% 2 2\n1 0 1\n2 1 1\n")  # without the number of samples
    assert esom.read_bm(tmp_path / "a.bm").index.tolist() == [1, 3]
    (tmp_path / "a.wts").write_text("#\n% 1 2\n% 2\n1 2\n3 4\n")
    codebook, grid = esom.read_wts(tmp_path / "a.wts")
    assert (codebook.tolist(), grid) == ([[1, 2], [3, 4]], (1, 2))
    (tmp_path / "empty.lrn").write_text("% 0\n% 2\n% 9 1\n")
    assert esom.read_lrn(tmp_path / "empty.lrn").x.shape == (0, 1)
    (tmp_path / "latin.lrn").write_bytes(b"% 1\n% 1\n% 1\n% gr\xf6\xdfe\n4\n")
    assert esom.read_lrn(tmp_path / "latin.lrn").names == ("größe",)


BROKEN = [
    ("read_lrn", "", "0 header lines, expected % rows"),
    ("read_lrn", "% 2\n", "1 header lines, expected % columns"),
    ("read_lrn", "% 2\n% 1\n1\n2\n", "2 header lines, expected a third, the types"),
    ("read_lrn", "% two\n% 1\n% 1\n", "line 1: 'two', expected a whole number"),
    ("read_lrn", "% -1\n% 1\n% 1\n", "line 1: -1, expected 0 to"),
    ("read_lrn", "% 99999999999999\n% 1\n% 1\n", "line 1: 99999999999999, expected 0 to"),
    ("read_lrn", "% 1 2\n% 1\n% 1\n5\n", "line 1: 2 words in the header, expected % rows"),
    ("read_lrn", "% 1\n% 2\n% 1\n5 6\n", "line 3: 1 column types, expected 2"),
    ("read_lrn", "% 1\n% 2\n% 9 9\n5 6\n", "line 3: several columns of keys"),
    ("read_lrn", "% 1\n% 1\n% 1\n% a\tb\n5\n", "line 4: 2 column names, expected 1"),
    ("read_lrn", "% 2\n% 1\n% 1\n5\n", "1 rows, expected 2 as the header says"),
    ("read_lrn", "% 1\n% 1\n% 1\n5\n6\n", "2 rows, expected 1"),
    ("read_lrn", "% 1\n% 2\n% 1 1\n5\n", "line 4: 1 columns, expected 2"),
    ("read_lrn", "% 1\n% 1\n% 1\nfive\n", "line 4: 'five', expected a number"),
    ("read_lrn", "% 1\n% 2\n% 9 1\n1.5 2\n", "line 4: '1.5', expected a whole number"),
    ("read_lrn", "% 1\n% 1\n% 1\n5\n% 1\n", "line 5: a header line behind rows"),
    ("read_lrn", "% 1\n% 1\n% 1\n\0\n", "holds zero bytes, expected text"),
    ("read_wts", "% 2\n% 1\n1\n2\n", "line 1: 1 words in the header, expected % rows columns"),
    ("read_wts", "% 2 2\n% 1\n1\n2\n3\n", "3 rows, expected 4"),
    ("read_wts", "% 1 2\n% 1\n1\nx\n", "line 4: 'x', expected a number"),
    ("read_wts", "% 1 2\n% 2\n1 2\n3\n", "line 4: 1 columns, expected 2"),
    ("read_bm", "% 2 2\n% 1\n1 2 0\n", "line 3: 2, expected 0 to 1"),
    ("read_bm", "% 2 2\n% 1\n1 0 -1\n", "line 3: -1, expected 0 to 1"),
    ("read_bm", "% 2 2\n% 1\n1 0\n", "line 3: 2 columns, expected 3"),
    ("read_bm", "% 2 2\n% 2\n1 0 0\n", "1 rows, expected 2"),
    ("read_umx", "% 2 2\n1 2\n", "1 rows, expected 2"),
    ("read_umx", "% 1 2\n1 2 3\n", "line 2: 3 columns, expected 2"),
]


@pytest.mark.parametrize(("reader", "text", "match"), BROKEN)
def test_broken_files(reader, text, match, tmp_path):
    path = tmp_path / "broken"
    path.write_text(text)
    with pytest.raises(esom.EsomError) as raised:
        getattr(esom, reader)(path)
    assert str(raised.value).startswith(f"[{reader}] {path}: ")
    assert match in str(raised.value)
    assert "\n" not in str(raised.value)


def test_every_cut_of_a_file_is_an_error_or_loses_digits_of_the_last_number_alone(rng, tmp_path):
    """Where a text is cut within its last number nothing can tell; anywhere else it is found out."""
    x = np.round(rng.standard_normal((3, 2)), 3)
    esom.write_wts(tmp_path / "a.wts", x, (3, 1))
    data = (tmp_path / "a.wts").read_bytes()
    last = data.rindex(b"\t") + 1
    for length in range(len(data)):
        (tmp_path / "b.wts").write_bytes(data[:length])
        if length <= last:
            with pytest.raises(esom.EsomError):
                esom.read_wts(tmp_path / "b.wts")
            continue
        try:
            back, _ = esom.read_wts(tmp_path / "b.wts")
        except esom.EsomError:
            continue
        np.testing.assert_array_equal(back.reshape(-1)[:-1], x.reshape(-1)[:-1])


def test_missing_files_and_bad_arguments(tmp_path):
    with pytest.raises(FileNotFoundError):
        esom.read_wts(tmp_path / "none.wts")
    bad = [
        (esom.write_lrn, (np.zeros(3),), r"\[write_lrn\] x has shape \(3,\)"),
        (esom.write_lrn, (np.zeros((2, 1)), [1, 2, 3]), "keys has shape"),
        (esom.write_lrn, (np.zeros((2, 1)), [1.5, 2.0]), "keys has shape .* float64"),
        (esom.write_lrn, (np.zeros((2, 1)), None, [1]), "classes has shape"),
        (esom.write_lrn, (np.zeros((2, 1)), None, None, ["a", "b"]), "2 names, expected 1"),
        (esom.write_lrn, (np.zeros((2, 1)), None, None, ["a\tb"]), "without tabs"),
        (esom.write_wts, (np.zeros((4, 1)), (2, 3)), "codebook has 4 units"),
        (esom.write_wts, (np.zeros((4, 1)), (-2, -2)), "grid"),
        (esom.write_bm, ([0, 6], (2, 3)), "index holds 0 to 6, expected 0 to 5"),
        (esom.write_bm, ([-1], (2, 3)), "index holds -1"),
        (esom.write_umx, (np.array([["a"]]),), "heights"),
    ]
    for write, arguments, match in bad:
        with pytest.raises(ValueError, match=match):
            write(tmp_path / "out", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.umx"
    esom.write_umx(path, np.ones((2, 2)))
    before = path.read_bytes()

    def rows():
        yield "1\t2"
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        esom._write(path, ["2\t2"], rows())
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.umx"]


def test_random_state_orders_the_training_of_a_map_from_a_file(rng, tmp_path):
    esom.write_wts(tmp_path / "a.wts", rng.standard_normal((6, 2)), (3, 2))
    x = rng.standard_normal((30, 2))
    one, same, other = (
        SOM.from_wts(tmp_path / "a.wts", algorithm="online", random_state=seed).partial_fit(x).codebook_
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0


def test_from_wts_refuses_what_does_not_fit(tmp_path):
    esom.write_wts(tmp_path / "a.wts", np.zeros((6, 2)), (3, 2))
    with pytest.raises(ValueError, match="grid has 3 rows, expected an even number"):
        SOM.from_wts(tmp_path / "a.wts", topology="hexagonal", toroidal=True)
    esom.write_wts(tmp_path / "nan.wts", np.full((6, 2), np.nan), (3, 2))
    with pytest.raises(ValueError, match="NaN"):
        SOM.from_wts(tmp_path / "nan.wts")
    with fa.backend("numpy"):
        assert SOM.from_wts(tmp_path / "a.wts").u_matrix().tolist() == [[0, 0]] * 3
