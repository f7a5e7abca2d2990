"""Pictures of maps: drawn on both grids, the same each time, with the colours that they should have."""

from __future__ import annotations

import numpy as np
import pytest

from fastarch import plots

pytest.importorskip("matplotlib", reason="pictures need matplotlib")
Image = pytest.importorskip("PIL.Image", reason="the pictures are looked at with Pillow")

TOPOLOGIES = ("rectangular", "hexagonal")


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def share(picture, colour, tolerance=10):
    """The share of pixels that have the colour "#rrggbb"."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return float((np.abs(picture - wanted).max(axis=2) <= tolerance).mean())


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("grid", [(1, 1), (3, 4), (22, 30), (2, 50)])
def test_every_picture_of_every_size(topology, grid, tmp_path, rng):
    heights, m = rng.random(grid), grid[0] * grid[1]
    labels = rng.integers(-1, 3, grid)
    draw = {
        "u": lambda path: plots.u_matrix(heights, path, topology),
        "flat": lambda path: plots.u_matrix(np.zeros(grid), path, topology),
        "planes": lambda path: plots.component_planes(rng.random((3, *grid)), path, topology),
        "hits": lambda path: plots.hit_map(np.floor(9 * heights), path, topology),
        "none": lambda path: plots.hit_map(np.zeros(grid), path, topology),
        "labels": lambda path: plots.label_map(labels, ["a", "b", "c"], path, topology),
        "codebook": lambda path: plots.codebook_map(rng.random((*grid, 4, 3)), path, topology),
        "colours": lambda path: plots.colour_map(plots.map_colours(rng.random((m, 5)), grid), path, topology),
    }
    for name, make in draw.items():
        make(tmp_path / f"{name}.png")
        picture = pixels(tmp_path / f"{name}.png")
        assert min(picture.shape[:2]) > 80, name
        assert max(picture.shape[:2]) < 2400, name


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_the_first_row_is_at_the_top_and_the_first_column_on_the_left(topology, tmp_path):
    colours = np.ones((6, 8, 3))
    colours[0, 0], colours[5, 7] = (1, 0, 0), (0, 0, 1)
    plots.colour_map(colours, tmp_path / "c.png", topology)
    picture = pixels(tmp_path / "c.png")
    red = np.argwhere((picture == [255, 0, 0]).all(axis=2)).mean(axis=0)
    blue = np.argwhere((picture == [0, 0, 255]).all(axis=2)).mean(axis=0)
    assert (red < blue).all()


def test_odd_rows_of_a_hexagonal_map_are_shifted(tmp_path):
    colours = np.ones((2, 4, 3))
    colours[0, 1], colours[1, 1] = (1, 0, 0), (0, 0, 1)
    places = {}
    for topology in TOPOLOGIES:
        plots.colour_map(colours, tmp_path / "c.png", topology)
        picture = pixels(tmp_path / "c.png")
        red = np.argwhere((picture == [255, 0, 0]).all(axis=2))
        blue = np.argwhere((picture == [0, 0, 255]).all(axis=2))
        width = np.ptp(red[:, 1]) + 1
        places[topology] = (blue[:, 1].mean() - red[:, 1].mean()) / width
    assert places["rectangular"] == pytest.approx(0, abs=0.05)
    assert places["hexagonal"] == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_areas_are_hits_and_colours_are_labels(topology, tmp_path):
    counts, labels = np.zeros((4, 5)), np.full((4, 5), -1)
    counts[1, 2], counts[2, 3] = 100, 25
    labels[1, 2], labels[2, 3] = 0, 1
    blue, orange = plots.label_colours(2)
    plots.hit_map(counts, tmp_path / "h.png", topology, labels=labels, classes=["long name", "another"])
    picture = pixels(tmp_path / "h.png")[:, : pixels(tmp_path / "h.png").shape[1] * 3 // 5]  # no legend
    assert share(picture, blue) / share(picture, orange) == pytest.approx(4, rel=0.25)


def test_similar_units_have_similar_colours(rng):
    codebook = np.linspace(0, 1, 50)[:, None] * rng.random(7)
    colours = plots.map_colours(codebook, (5, 10)).reshape(50, 3)
    steps = np.linalg.norm(np.diff(colours, axis=0), axis=1)
    assert steps.max() < 0.15
    assert np.linalg.norm(colours[0] - colours[-1]) > 0.5
    assert np.isfinite(plots.map_colours(np.ones((4, 3)), (2, 2))).all()
    assert len({str(colour) for colour in plots.label_colours(30)}) == 30


def test_the_same_map_gives_the_same_bytes(tmp_path, rng):
    heights = rng.random((5, 6))
    for name in ("1.png", "2.png"):
        plots.u_matrix(heights, tmp_path / name, "hexagonal")
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()


def test_bad_arguments(tmp_path):
    path = tmp_path / "x.png"
    bad = [
        (plots.u_matrix, (np.zeros(3), path), r"\[u_matrix\] heights has shape \(3,\)"),
        (plots.u_matrix, (np.zeros((0, 2)), path), "heights has shape"),
        (plots.u_matrix, (np.zeros((2, 2)), path, "round"), "topology is 'round'"),
        (plots.component_planes, (np.zeros((2, 2)), path), r"planes have shape \(2, 2\)"),
        (plots.component_planes, (np.zeros((2, 2, 2)), path, "hexagonal", ["a"]), "1 names, expected 2"),
        (plots.hit_map, (np.zeros((2, 2, 1)), path), "counts has shape"),
        (plots.label_map, (np.zeros((2, 2), int), [], path), "expected .* indices into 0 classes"),
        (plots.label_map, (np.zeros((2, 2)), ["a"], path), "labels have shape"),
        (plots.colour_map, (np.zeros((2, 2)), path), "colours have shape"),
        (plots.codebook_map, (np.zeros((2, 2, 3)), path), "images have shape"),
    ]
    for draw, arguments, match in bad:
        with pytest.raises(ValueError, match=match):
            draw(*arguments)
    assert not path.exists()
