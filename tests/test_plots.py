"""The pictures of a run: they are drawn, the same each time, and say clearly what they cannot draw."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from fastarch import plots

pytest.importorskip("matplotlib", reason="pictures need matplotlib")
Image = pytest.importorskip("PIL.Image", reason="the pictures are looked at with Pillow")


def records(n, validation=True):
    """What a run of n epochs records."""
    rows = []
    for i in range(n):
        row = {"epoch": i + 1, "loss": 2.0 * 0.8**i, "accuracy": 1 - 0.6 * 0.8**i}
        if validation:
            row |= {"validation_loss": 2.1 * 0.8**i, "validation_accuracy": 1 - 0.65 * 0.8**i}
        rows.append(row)
    return rows


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def has_colour(picture, colour, tolerance=12):
    """Whether some pixel has the colour "#rrggbb"."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return bool((np.abs(picture - wanted).max(axis=2) <= tolerance).any())


@pytest.mark.parametrize("n", [1, 2, 30, 200])
def test_curves(tmp_path, n):
    plots.curves(records(n), tmp_path / "c.png", "A title", "a note", test_accuracy=0.97, best_epoch=n)
    picture = pixels(tmp_path / "c.png")
    assert picture.shape[0] > 400
    assert picture.shape[1] > picture.shape[0]
    for colour in (plots.TRAIN, plots.VALIDATION, plots.TEST):
        assert has_colour(picture, colour)


def test_curves_without_validation_or_accuracy(tmp_path):
    plots.curves(records(5, validation=False), tmp_path / "a.png")
    assert not has_colour(pixels(tmp_path / "a.png"), plots.VALIDATION)
    plots.curves([{"epoch": 1, "loss": 1.0}, {"epoch": 2, "loss": 0.0}], tmp_path / "b.png")
    assert pixels(tmp_path / "b.png").shape[1] < pixels(tmp_path / "a.png").shape[1]


@pytest.mark.parametrize("n", [2, 10, 40])
def test_confusion(tmp_path, n):
    matrix = 20 * np.eye(n, dtype=int)
    plots.confusion(matrix, [f"class {i}" for i in range(n)], tmp_path / "right.png")
    assert has_colour(pixels(tmp_path / "right.png"), plots.TRAIN)
    assert not has_colour(pixels(tmp_path / "right.png"), plots.VALIDATION)
    matrix[0, 1] = 1  # a single mistake is seen
    plots.confusion(matrix, [f"class {i}" for i in range(n)], tmp_path / "wrong.png")
    assert has_colour(pixels(tmp_path / "wrong.png"), plots.VALIDATION)


def test_confusion_of_an_empty_test_set_and_an_absent_class(tmp_path):
    plots.confusion(np.zeros((3, 3), int), list("abc"), tmp_path / "c.png")
    assert pixels(tmp_path / "c.png").size


@pytest.mark.parametrize("shape", [(6, 1, 5, 5), (96, 3, 11, 11), (4, 2, 3, 3), (1, 1, 1, 1)])
def test_filters(tmp_path, shape):
    weight = np.random.default_rng(0).normal(size=shape)
    plots.filters(weight, tmp_path / "f.png")
    assert pixels(tmp_path / "f.png").std() > 5
    plots.filters(np.zeros(shape), tmp_path / "zero.png")  # nothing to scale by


@pytest.mark.parametrize("shape", [(40, 8, 8), (40, 1, 8, 8), (40, 3, 16, 12)])
@pytest.mark.parametrize("wrong", [0, 3, 40])
def test_mistakes(tmp_path, shape, wrong):
    random = np.random.default_rng(0)
    true = random.integers(0, 3, 40)
    probabilities = np.full((40, 3), 0.1)
    probabilities[np.arange(40), true] = 0.8
    probabilities[:wrong] = np.roll(probabilities[:wrong], 1, axis=1)
    images = np.broadcast_to(random.random((40, *[1] * (len(shape) - 1))), shape)  # greys
    names = ["a", "b", "a very long name"]
    plots.mistakes(images, true, probabilities, names, tmp_path / "m.png")
    assert has_colour(pixels(tmp_path / "m.png"), "#c2410c") == (wrong > 0)


def test_the_same_run_gives_the_same_bytes(tmp_path):
    for name in ("1.png", "2.png"):
        plots.curves(records(7), tmp_path / name)
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()


def test_no_style_is_left_behind(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    plots.curves(records(3), tmp_path / "c.png")
    with pytest.raises(ValueError, match="expected"):
        plots.filters(np.zeros((2, 2)), tmp_path / "f.png")
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or matplotlib.get_backend()


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match=r"\[curves\] there is no epoch"):
        plots.curves([], tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"\[confusion\] matrix has shape \(2, 2\), expected \(3, 3\)"):
        plots.confusion(np.zeros((2, 2)), list("abc"), tmp_path / "x.png")
    images = np.zeros((4, 2, 8, 8))
    with pytest.raises(ValueError, match=r"\[mistakes\] images have shape \(4, 2, 8, 8\)"):
        plots.mistakes(images, np.zeros(4, int), np.ones((4, 2)), ["a", "b"], tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()


def test_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(plots.MissingMatplotlib, match=r"pip install 'fastarch\[demo\]'"):
        plots.curves(records(3), tmp_path / "c.png")
    assert list(tmp_path.iterdir()) == []


def test_tiles(tmp_path):
    images = np.random.default_rng(0).random((13, 8, 6)) - 0.5
    plots.tiles(images, tmp_path / "grey.png", "Samples", columns=5, captions=[str(i) for i in range(13)])
    plots.tiles(images, tmp_path / "signed.png", "Weights", "13 units", signed=True, row_labels=["a", "b"])
    plots.tiles(np.zeros((2, 4, 4)), tmp_path / "zero.png", "Nothing", signed=True)
    colours = np.zeros((3, 8, 8, 3))
    colours[..., 0] = 1
    plots.tiles(colours, tmp_path / "colour.png", "Red")
    assert has_colour(pixels(tmp_path / "colour.png"), "#ff0000")
    grey = pixels(tmp_path / "grey.png")
    assert has_colour(grey, "#000000", 2)  # the darkest pixel of all is black
    with pytest.raises(ValueError, match=r"\[tiles\] images have shape \(2, 2\)"):
        plots.tiles(np.zeros((2, 2)), tmp_path / "x.png", "x")
