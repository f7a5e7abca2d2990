"""Data sets, splits, batches and augmentation: right values, and the same ones for the same seed."""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fastarch as fa
from fastarch.data import DataError, Dataset, Loader, Normalize, augment, fit_images, one_hot


def numbered(n: int, classes: int = 3) -> Dataset:
    """Sample i is the picture [[i]], of class i % classes."""
    x = np.arange(n, dtype=np.float32).reshape(n, 1, 1, 1)
    return Dataset(x, np.arange(n) % classes, [str(k) for k in range(classes)], "numbered")


def order_of(batches: Iterator[tuple[np.ndarray, np.ndarray]]) -> list[int]:
    return [int(value) for x, _ in batches for value in x.ravel()]


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("fastarch-loader")]


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array)).hexdigest()[:16]


def test_digits_equal_scikit_learns() -> None:
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    ours, theirs = fa.data.digits(), datasets.load_digits()
    assert ours.x.dtype == np.float32
    assert ours.y.dtype == np.int64
    np.testing.assert_array_equal(ours.x[:, 0] * 16, theirs.images)
    np.testing.assert_array_equal(ours.y, theirs.target)
    assert ours.classes == list("0123456789")


def test_dataset_checks_itself_and_gives_subsets() -> None:
    data = numbered(7)
    part = data.subset([5, 0])
    assert (part.x.ravel().tolist(), part.y.tolist(), len(part)) == ([5, 0], [2, 0], 2)
    x, y = data[2:4]
    assert (x.ravel().tolist(), y.tolist()) == ([2, 3], [2, 0])
    assert data.labelled
    assert not Dataset(data.x, np.full(7, -1), [], "plain").labelled
    for x, y, message in (
        (data.x.astype(np.float64), data.y, "x is float64 of shape .*, expected uint8 or float32"),
        (data.x[:, 0, 0, 0], data.y, r"x is float32 of shape \(7,\)"),
        (data.x, data.y[:6], r"y is int64 of shape \(6,\), expected int64 of shape \(7,\)"),
        (data.x, data.y.astype(np.int32), "y is int32"),
        (data.x, data.y + 1, "labels 1 to 3, expected 0 to 2"),
    ):
        with pytest.raises(DataError, match=message):
            Dataset(x, y, data.classes, "broken")


def test_split_is_fixed_stratified_and_complete() -> None:
    digits = fa.data.digits()
    train, test = fa.data.split(digits, test=0.2, seed=0)
    assert (len(train), len(test)) == (1438, 359)
    joined = np.concatenate([train.x, test.x])
    assert sorted(map(bytes, joined)) == sorted(map(bytes, digits.x))
    shares = np.bincount(test.y) / np.bincount(digits.y)
    assert (np.abs(shares - 0.2) < 0.005).all()
    # fixed for ever: a figure reported for this split can be checked by anyone
    assert digest(test.y) == "f4389c15b4ca6299"
    assert digest(test.x) == "dbd91cf116d6cef4"
    assert digest(fa.data.split(digits, test=0.2, seed=1)[1].x) != digest(test.x)


@pytest.mark.parametrize("stratify", [True, False])
@pytest.mark.parametrize(
    ("n", "test", "wanted"), [(10, 0.25, 2), (10, 3, 3), (7, 0.5, 4), (2, 1, 1), (101, 0.1, 10)]
)
def test_split_counts(n: int, test: float | int, wanted: int, stratify: bool) -> None:
    train, part = fa.data.split(numbered(n), test=test, seed=5, stratify=stratify)
    assert len(part) == wanted
    assert sorted([*train.x.ravel(), *part.x.ravel()]) == list(range(n))
    assert part.x.ravel().tolist() == sorted(part.x.ravel())
    if stratify:
        counts = np.bincount(part.y, minlength=3)
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("test", [0, 0.0, 1.0, 10, -1, 11, 0.01])
def test_split_refuses_an_empty_part(test: float | int) -> None:
    with pytest.raises(ValueError, match=r"\[split\] test=.* of 10 samples, expected 1 to 9"):
        fa.data.split(numbered(10), test=test)


@pytest.mark.parametrize("prefetch", [0, 1, 2, 50])
@pytest.mark.parametrize("drop_last", [False, True])
def test_an_epoch_is_every_sample_once(prefetch: int, drop_last: bool) -> None:
    loader = Loader(numbered(23), 5, shuffle=True, seed=3, drop_last=drop_last, prefetch=prefetch)
    batches = list(loader.epoch(0))
    assert len(batches) == len(loader) == (4 if drop_last else 5)
    assert loader.samples == sum(len(y) for _, y in batches)
    assert [len(y) for _, y in batches] == [5, 5, 5, 5] + ([] if drop_last else [3])
    assert all((y == x.ravel() % 3).all() and y.dtype == np.int64 for x, y in batches)
    order = order_of(iter(batches))
    assert len(set(order)) == len(order)
    assert order != sorted(order)


def test_order_depends_on_seed_and_epoch_only() -> None:
    def order(seed: int, epoch: int, prefetch: int = 2) -> list[int]:
        return order_of(Loader(numbered(50), 7, shuffle=True, seed=seed, prefetch=prefetch).epoch(epoch))

    assert order(1, 4) == order(1, 4) == order(1, 4, prefetch=0)
    distinct = {tuple(order(seed, epoch)) for seed in (0, 1, 2**64 - 1) for epoch in range(5)}
    assert len(distinct) == 15
    assert order_of(Loader(numbered(50), 7).epoch(3)) == list(range(50))
    fixed = order_of(Loader(numbered(8), 8, shuffle=True, seed=1).epoch(2))
    assert fixed == [2, 1, 4, 5, 6, 0, 7, 3]


def test_every_place_is_as_likely() -> None:
    first = np.array(
        [order_of(Loader(numbered(5), 5, True, seed, prefetch=0).epoch(0)) for seed in range(4000)]
    )
    counts = np.stack([np.bincount(column, minlength=5) for column in first.T])
    assert (np.abs(counts - 800) < 5 * np.sqrt(800)).all()


@pytest.mark.parametrize("prefetch", [0, 2])
def test_resuming_in_the_middle_gives_the_same_batches(prefetch: int) -> None:
    step = augment.compose(augment.Shift(2), augment.Noise(0.1))
    data = Dataset(np.ones((23, 1, 6, 6), np.float32), np.zeros(23, np.int64), ["a"], "ones")
    loader = Loader(data, 4, shuffle=True, seed=9, augment=step, prefetch=prefetch)
    whole = list(loader.epoch(2))
    for start in range(len(loader) + 1):
        rest = list(loader.epoch(2, start_batch=start))
        assert len(rest) == len(whole) - start
        for (x, y), (wanted_x, wanted_y) in zip(rest, whole[start:]):
            assert x.tobytes() == wanted_x.tobytes()
            assert y.tobytes() == wanted_y.tobytes()


def test_batches_are_scaled_augmented_then_transformed() -> None:
    data = Dataset(np.full((3, 1, 2, 2), 255, np.uint8), np.zeros(3, np.int64), ["a"], "white")
    loader = Loader(data, 3, augment=lambda x, draw: x * 3, transform=Normalize([1.0], [2.0]))
    ((x, _),) = loader.epoch(0)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, 1.0)
    x[:] = 7  # a batch is the consumer's own
    ((again, _),) = loader.epoch(0)
    np.testing.assert_allclose(again, 1.0)


def test_an_error_in_the_thread_reaches_the_consumer_and_ends_the_thread() -> None:
    def third_fails(x: np.ndarray) -> np.ndarray:
        if x[0] == 6:
            raise ArithmeticError("third batch")
        return x

    batches = Loader(numbered(30), 3, transform=third_fails).epoch(0)
    assert order_of(itertools.islice(batches, 2)) == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ArithmeticError, match="third batch"):
        next(batches)
    assert loader_threads() == []


def test_leaving_early_ends_the_thread_and_prefetch_is_bounded() -> None:
    made = 0

    def count(x: np.ndarray) -> np.ndarray:
        nonlocal made
        made += 1
        return x

    loader = Loader(numbered(1000), 1, transform=count, prefetch=3)
    for _ in loader.epoch(0):
        time.sleep(0.05)
        break
    assert loader_threads() == []
    assert 1 <= made <= 4
    for _ in range(50):
        next(iter(loader.epoch(0)))
    assert loader_threads() == []
    loader.epoch(0)  # never begun: no thread at all
    assert loader_threads() == []


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Loader(numbered(3), 0), "batch_size is 0, expected 1 or more"),
        (lambda: Loader(numbered(3), 1, prefetch=-1), "prefetch is -1"),
        (lambda: Loader(numbered(3), 1).epoch(-1), "epoch -1"),
        (lambda: Loader(numbered(3), 1).epoch(0, start_batch=4), "batch 4, expected 0 or more and 0 to 3"),
        (lambda: Loader(numbered(3), 1, shuffle=True, seed=-1).epoch(0), "seed is -1"),
    ],
)
def test_impossible_loaders_are_refused(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_an_empty_set_and_a_set_smaller_than_a_batch() -> None:
    empty = numbered(3).subset([])
    assert list(Loader(empty, 4).epoch(0)) == []
    assert list(Loader(numbered(3), 4, drop_last=True).epoch(0)) == []
    assert len(list(Loader(numbered(3), 4).epoch(0))) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
@pytest.mark.parametrize("shape", [(5, 3), (9, 2, 4), (3000, 3, 2, 5)])
def test_normalize_gives_mean_0_and_deviation_1(shape: tuple[int, ...], dtype: type) -> None:
    random = np.random.default_rng(0)
    x = random.uniform(0, 255, shape).astype(dtype)
    norm = Normalize.fit(x)
    y = norm(x)
    axes = (0, *range(2, len(shape)))
    assert y.dtype == np.float32
    np.testing.assert_allclose(y.mean(axis=axes, dtype=np.float64), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(axis=axes, dtype=np.float64), 1, rtol=1e-5)
    scaled = x / 255.0 if dtype is np.uint8 else x.astype(np.float64)
    np.testing.assert_allclose(norm.mean, scaled.mean(axis=axes), rtol=1e-5)
    np.testing.assert_allclose(norm.std, scaled.std(axis=axes), rtol=1e-5)


def test_normalize_keeps_a_far_mean_exact_and_a_constant_channel_finite() -> None:
    x = np.stack([np.full(4, 3.0), 1e4 + np.array([-1e-2, 0, 0, 1e-2])], axis=1).astype(np.float32)
    norm = Normalize.fit(x)
    assert norm.std[0] == 0
    np.testing.assert_allclose(norm.std[1], x[:, 1].astype(np.float64).std(), rtol=1e-6)
    assert (norm(x)[:, 0] == 0).all()
    other = Normalize(0, 1)
    other.load_state_dict(norm.state_dict())
    assert norm(x).tobytes() == other(x).tobytes()
    for wrong in (np.zeros((3, 5), np.float32), np.zeros(2, np.float32)):
        with pytest.raises(ValueError, match=r"x has shape .*, expected \[N, 2, ...\]"):
            norm(wrong)
    for mean, std in (([0, 0], [1]), ([np.nan], [1]), ([0], [-1])):
        with pytest.raises(ValueError, match=r"\[Normalize\]"):
            Normalize(mean, std)
    with pytest.raises(ValueError, match="with samples"):
        Normalize.fit(np.zeros((0, 3), np.float32))


@pytest.mark.parametrize("wanted", [(1, 1), (8, 8), (32, 32), (13, 40), (5, 3), (7, 8), (64, 2)])
@pytest.mark.parametrize("size", [(8, 8), (1, 1), (7, 13), (30, 9)])
def test_fit_images_equals_torch(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = np.random.default_rng(0).random((3, 2, *size))
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(x), wanted, mode="bilinear", align_corners=False, antialias=True
    )
    np.testing.assert_allclose(fit_images(x, wanted), theirs.numpy(), rtol=1e-10, atol=1e-12)
    if wanted[0] >= size[0] and wanted[1] >= size[1]:  # growing needs no filter against aliasing
        plain = torch.nn.functional.interpolate(
            torch.from_numpy(x), wanted, mode="bilinear", align_corners=False
        )
        np.testing.assert_allclose(fit_images(x, wanted), plain.numpy(), rtol=1e-10, atol=1e-12)


def test_fit_images_keeps_types_and_changes_channels() -> None:
    random = np.random.default_rng(1)
    grey = random.integers(0, 256, (1500, 1, 4, 4), dtype=np.uint8)
    colour = fit_images(grey, 8, channels=3)
    assert (colour.dtype, colour.shape) == (np.uint8, (1500, 3, 8, 8))
    assert (colour == fit_images(grey, 8)).all()
    exact = fit_images(grey.astype(np.float64), 8)
    assert (np.abs(colour - exact) <= 0.5 + 1e-4).all()
    rgb = random.random((2, 3, 4, 4)).astype(np.float32)
    weights = np.array([0.299, 0.587, 0.114])[:, None, None]
    np.testing.assert_allclose(fit_images(rgb, 4, 1), (rgb * weights).sum(1, keepdims=True), rtol=1e-6)
    assert fit_images(rgb, 4) is rgb
    np.testing.assert_allclose(fit_images(np.full((1, 3, 5, 5), 255, np.uint8), 3, 1), 255)
    for x, size, channels, message in (
        (rgb, 4, 2, "3 channels, cannot make 2"),
        (rgb, (0, 4), None, r"size is \(0, 4\)"),
        (rgb[0], 4, None, r"expected pictures \[N, C, H, W\]"),
    ):
        with pytest.raises(ValueError, match=message):
            fit_images(x, size, channels)


def test_one_hot() -> None:
    np.testing.assert_array_equal(one_hot(np.array([2, 0]), 3), [[0, 0, 1], [1, 0, 0]])
    assert one_hot(np.zeros(0, np.int64), 4).shape == (0, 4)
    for wrong in (np.array([3]), np.array([-1]), np.array([0.5]), np.array([[1]])):
        with pytest.raises(ValueError, match=r"\[one_hot\]"):
            one_hot(wrong, 3)


STEPS = {
    "shift": augment.Shift(3),
    "flip": augment.Flip(),
    "affine": augment.Affine(degrees=20, scale=0.2, shear=0.2, shift=0.1),
    "cutout": augment.Cutout(3),
    "noise": augment.Noise(0.2),
    "compose": augment.compose(augment.Flip(), augment.Shift(2), augment.Noise(0.1)),
}


def draw(index: Any, seed: int = 0, epoch: int = 0) -> augment.Draw:
    return augment.Draw(seed, epoch, np.asarray(index))


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_sample_changes_in_the_same_way_in_any_batch(name: str, dtype: type) -> None:
    step = STEPS[name]
    x = np.random.default_rng(0).random((200, 3, 9, 7)).astype(dtype)
    before = x.copy()
    whole = step(x, draw(np.arange(200)))
    assert x.tobytes() == before.tobytes()
    assert (whole.shape, whole.dtype) == (x.shape, x.dtype)
    assert whole.flags.c_contiguous
    chosen = np.array([150, 3, 77])
    assert step(x[chosen], draw(chosen)).tobytes() == whole[chosen].tobytes()
    assert step(x, draw(np.arange(200), epoch=1)).tobytes() != whole.tobytes()
    assert step(x, draw(np.arange(200), seed=1)).tobytes() != whole.tobytes()
    assert step(x[:0], draw([])).shape == (0, 3, 9, 7)


def test_shift_moves_by_every_amount_and_fills_with_zeros() -> None:
    x = np.arange(1, 26, dtype=np.uint8).reshape(1, 1, 5, 5).repeat(500, axis=0)
    y = augment.Shift(2)(x, draw(np.arange(500)))
    frame = np.zeros((9, 9), np.uint8)
    frame[2:7, 2:7] = x[0, 0]
    possible = {frame[i : i + 5, j : j + 5].tobytes() for i in range(5) for j in range(5)}
    assert {picture.tobytes() for picture in y} == possible
    far = augment.Shift(50)(x, draw(np.arange(500)))
    assert (far.reshape(500, -1).max(axis=1) == 0).any()


def test_flip_mirrors_about_half() -> None:
    x = np.random.default_rng(0).random((1000, 1, 2, 3)).astype(np.float32)
    y = augment.Flip()(x, draw(np.arange(1000)))
    flipped = (y == x[..., ::-1]).all(axis=(1, 2, 3))
    assert ((y == x).all(axis=(1, 2, 3)) ^ flipped).all()
    assert 400 < flipped.sum() < 600
    assert (augment.Flip(1.0)(x, draw(np.arange(1000))) == x[..., ::-1]).all()
    assert (augment.Flip(0.0)(x, draw(np.arange(1000))) == x).all()


def test_affine_equals_torch_grid_sample() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    n, height, width = 40, 9, 12
    x = np.random.default_rng(0).random((n, 2, height, width))
    degrees, scale, shear, shift = 35.0, 0.3, 0.4, 0.2
    ours = augment.Affine(degrees, scale, shear, shift)(x, draw(np.arange(n)))
    angle, size, slope, down, right = draw(np.arange(n)).uniform(5, -1, 1).T.astype(np.float64)
    # the forward map, in the order that the function documents: slant, turn, scale, all about the centre
    theta = np.radians(angle * degrees)
    turn = np.array([[np.cos(theta), np.sin(theta)], [-np.sin(theta), np.cos(theta)]]).transpose(2, 0, 1)
    slant = np.array([[[1.0, -s], [0.0, 1.0]] for s in slope * shear])
    forward = (1 + size * scale)[:, None, None] * (slant @ turn)
    inverse = np.linalg.inv(forward)  # rows, columns
    i, j = np.meshgrid(
        np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2, indexing="ij"
    )
    at = np.einsum("nab,bhw->nahw", inverse, np.stack([i, j]))
    at += np.stack([down * shift * height, right * shift * width], axis=1)[:, :, None, None]
    grid = np.stack([at[:, 1] * 2 / width, at[:, 0] * 2 / height], axis=-1)
    theirs = torch.nn.functional.grid_sample(torch.from_numpy(x), torch.from_numpy(grid), align_corners=False)
    np.testing.assert_allclose(ours, theirs.numpy(), atol=2e-5)


def test_affine_without_amounts_changes_nothing() -> None:
    x = np.random.default_rng(0).random((3, 1, 8, 6)).astype(np.float32)
    np.testing.assert_array_equal(augment.Affine()(x, draw([0, 1, 2])), x)


def test_fill_is_what_comes_in_from_outside() -> None:
    x = np.ones((50, 1, 8, 8), np.float32)
    for step in (
        augment.Shift(3, fill=-2),
        augment.Cutout(3, fill=-2),
        augment.Affine(0, 0, 0, 2.0, fill=-2),
    ):
        y = step(x, draw(np.arange(50)))
        assert y.min() == -2
        assert y.max() == 1
    assert (augment.Affine(30, 0.3, 0.3, 0.3, fill=1)(x, draw(np.arange(50))) == 1).all()


def test_cutout_blanks_one_square() -> None:
    x = np.ones((300, 2, 8, 8), np.float32)
    y = augment.Cutout(4)(x, draw(np.arange(300)))
    assert set(np.unique(y)) == {0.0, 1.0}
    assert (y[:, 0] == y[:, 1]).all()
    holes = (y[:, 0] == 0).sum(axis=(1, 2))
    assert set(holes) <= {a * b for a in (2, 3, 4) for b in (2, 3, 4)}
    assert holes.max() == 16


def test_random_numbers_have_the_right_moments_and_do_not_repeat() -> None:
    source = draw(np.arange(2000))
    uniform, more, normal = source.uniform(50), source.uniform(50), source.normal(51)
    assert 0 <= uniform.min() < uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 0.005
    assert abs(uniform.std() - np.sqrt(1 / 12)) < 0.005
    assert abs(normal.mean()) < 0.02
    assert abs(normal.std() - 1) < 0.02
    assert abs((normal**4).mean() - 3) < 0.15
    both = np.concatenate([uniform, more], axis=1)
    correlation = np.corrcoef(both[:, :30].T)
    assert np.abs(correlation - np.eye(30)).max() < 0.12
    assert np.unique(source.words(40)).size == 2000 * 40
    integers = source.integers(30, 7)
    assert np.abs(np.bincount(integers.ravel()) - 60000 / 7).max() < 500
    assert integers.shape == (2000, 30)


def test_presets_and_wrong_amounts() -> None:
    assert augment.preset("none") is None
    x = np.random.default_rng(0).random((4, 3, 32, 32)).astype(np.float32)
    for name in ("digits", "flip-crop"):
        step = augment.preset(name, fill=-1)
        assert step is not None
        assert not (step(x, draw([0, 1, 2, 3])) == x).all()
    assert repr(step) == "Compose(steps=(Flip(probability=0.5), Shift(pixels=4, fill=-1)))"
    with pytest.raises(ValueError, match="name is 'cifar', expected one of none, digits, flip-crop"):
        augment.preset("cifar")
    for build in (
        lambda: augment.Shift(-1),
        lambda: augment.Flip(1.5),
        lambda: augment.Affine(scale=1),
        lambda: augment.Cutout(-1),
        lambda: augment.Noise(-0.1),
        lambda: augment.Affine()(x.astype(np.uint8), draw([0, 1, 2, 3])),
        lambda: augment.Noise(1)(x.astype(np.uint8), draw([0, 1, 2, 3])),
    ):
        with pytest.raises(ValueError, match=", expected "):
            build()
