"""Winograd convolution: every way to ask for it beside the definition, PyTorch, and the direct sum's bits."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fastarch as fa
from cases import conv2d as conv
from conftest import Backend, seeded
from fastarch import _cpu, algorithms

NAMES = ("winograd2", "winograd4")
# Of the root mean square error, in terms of the direct sum's; measured 0.7 to 1.8 and 4.4 to 11.1.
TIMES = {"winograd2": 3, "winograd4": 20}
HAS_TORCH = importlib.util.find_spec("torch") is not None


def operands(
    rng: np.random.Generator, x: tuple[int, ...], k: int, padding: tuple[int, int], dtype: Any = np.float32
) -> tuple[np.ndarray, ...]:
    """x, weight, bias and dy of a 3x3 convolution."""
    n, c, h, w = x
    weight = rng.standard_normal((k, c, 3, 3)) / (3 * c**0.5)
    dy = rng.standard_normal((n, k, h + 2 * padding[0] - 2, w + 2 * padding[1] - 2))
    made = (rng.standard_normal(x), weight, rng.standard_normal(k), dy)
    return tuple(a.astype(dtype) for a in made)


def forward_and_gradient(
    algorithm: str, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, dy: np.ndarray, **call: Any
) -> tuple[np.ndarray, np.ndarray]:
    with fa.conv_algorithm(algorithm):
        y = fa.ops.conv2d(x, weight, bias, **call)
        dx = fa.ops.conv2d_backward(dy, x, weight, False, need=(True, False), **call)[0]
    return y, dx


def in_float64(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, dy: np.ndarray, **call: Any
) -> tuple[np.ndarray, np.ndarray]:
    with fa.backend("numpy"):
        return forward_and_gradient("direct", *(a.astype(np.float64) for a in (x, weight, bias, dy)), **call)


def close(found: np.ndarray, want: np.ndarray, bound: float) -> None:
    assert np.isfinite(found).all()
    assert np.abs(found - want).max(initial=0) <= bound * (1 + np.abs(want).max(initial=0))


# (x, K, padding): one tile and less, odd outputs, primes, a vector of tiles and one more, many channels.
SHAPES: dict[str, tuple[tuple[int, ...], int, tuple[int, int]]] = {
    "one_pixel": ((1, 1, 1, 1), 1, (1, 1)),
    "one_window": ((1, 2, 3, 3), 3, (0, 0)),
    "one_row": ((2, 3, 3, 8), 5, (0, 1)),
    "odd": ((3, 5, 7, 11), 7, (1, 1)),
    "no_padding": ((2, 3, 8, 9), 4, (0, 0)),
    "wide_padding": ((1, 2, 3, 2), 2, (3, 4)),
    "wide_129": ((1, 2, 4, 129), 9, (1, 1)),
    "tall_129": ((1, 3, 129, 3), 2, (2, 0)),
    "images_of_one_tile": ((35, 3, 2, 2), 3, (1, 1)),
    "channels_61": ((1, 61, 6, 5), 13, (1, 1)),
    "channels_300": ((1, 300, 5, 6), 17, (1, 1)),
}
ON_EMULATOR = ("one_pixel", "one_row", "odd", "wide_padding", "channels_61")


@pytest.mark.backends("cpu", "emulator", "cuda")
@pytest.mark.parametrize("algorithm", NAMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", SHAPES)
def test_definition(backend: Backend, name: str, dtype: Any, algorithm: str) -> None:
    x_shape, k, padding = SHAPES[name]
    made = operands(seeded(f"winograd {name}"), x_shape, k, padding, dtype)
    want = in_float64(*made, padding=padding)
    bound = 1e-12 if dtype is np.float64 else 5e-6 * TIMES[algorithm]
    with fa.backend(backend.name):
        for found, exact in zip(forward_and_gradient(algorithm, *made, padding=padding), want):
            close(found, exact, bound)


@pytest.mark.backends("cpu")
@pytest.mark.parametrize("algorithm", NAMES)
def test_epilogue(backend: Backend, algorithm: str) -> None:
    """Bias, residual and every activation."""
    x, weight, bias, residual = operands(seeded("epilogue"), (2, 5, 9, 7), 6, (1, 1))
    for activation in (None, "relu", "tanh", "sigmoid"):
        for b in (None, bias):
            for r in (None, residual):
                call: dict[str, Any] = {"bias": b, "padding": 1, "activation": activation}
                want = conv.conv2d(x, weight, residual=r, **call)
                with fa.backend(backend.name), fa.conv_algorithm(algorithm):
                    close(fa.ops.conv2d(x, weight, residual=r, **call), want, 5e-6 * TIMES[algorithm])


@pytest.mark.skipif(not HAS_TORCH, reason="PyTorch is missing")
@pytest.mark.backends("cpu")
def test_random_configurations(backend: Backend) -> None:
    import torch

    for number in range(300):
        rng = seeded(f"winograd {number}")
        n, c, k = int(rng.integers(1, 4)), int(rng.integers(1, 40)), int(rng.integers(1, 40))
        padding = tuple(int(p) for p in rng.integers(0, 4, 2))
        h, w = (int(rng.integers(max(1, 3 - 2 * p), 20)) for p in padding)
        made = operands(rng, (n, c, h, w), k, padding)
        x, weight, bias, dy = (torch.from_numpy(a).double() for a in made)
        want = torch.nn.functional.conv2d(x, weight, bias, padding=padding)
        gradient = torch.nn.grad.conv2d_input(x.shape, weight, dy, padding=padding)
        for algorithm in NAMES:
            with fa.backend(backend.name):
                y, dx = forward_and_gradient(algorithm, *made, padding=padding)
            close(y, want.numpy(), 5e-6 * TIMES[algorithm])
            close(dx, gradient.numpy(), 5e-6 * TIMES[algorithm])


@pytest.mark.parametrize("algorithm", NAMES)
@pytest.mark.parametrize("c", [16, 64, 300])
def test_error_beside_that_of_direct_sums(c: int, algorithm: str) -> None:
    made = operands(seeded(f"error {c}"), (2, c, 14, 15), c + 1, (1, 1))
    want = in_float64(*made, padding=1)
    with fa.backend("cpu"):
        found, direct = (forward_and_gradient(name, *made, padding=1) for name in (algorithm, "direct"))
    for of_winograd, of_direct, exact in zip(found, direct, want):
        error, least = (np.sqrt(np.mean((a - exact) ** 2)) for a in (of_winograd, of_direct))
        assert 0 < error <= TIMES[algorithm] * least


@pytest.mark.backends("cpu")
def test_small_integers_are_exact(backend: Backend) -> None:
    rng = seeded("integers")
    x = rng.integers(-8, 9, (2, 6, 9, 9)).astype(np.float32)
    weight = rng.integers(-8, 9, (5, 6, 3, 3)).astype(np.float32)
    with fa.backend(backend.name):
        with fa.conv_algorithm("winograd2"):
            found = fa.ops.conv2d(x, weight, padding=1)
        with fa.conv_algorithm("direct"):
            np.testing.assert_array_equal(found, fa.ops.conv2d(x, weight, padding=1))


@pytest.mark.parametrize("algorithm", [*NAMES, "auto"])
def test_any_number_of_threads(algorithm: str) -> None:
    made = operands(seeded("threads"), (5, 67, 13, 15), 70, (1, 1))
    before = _cpu.thread_count()
    found = []
    try:
        for threads in (1, 2, 3, 7):
            _cpu.set_thread_count(threads)
            with fa.backend("cpu"):
                found.append(forward_and_gradient(algorithm, *made, padding=1))
    finally:
        _cpu.set_thread_count(before)
    for y, dx in found[1:]:
        np.testing.assert_array_equal(y, found[0][0])
        np.testing.assert_array_equal(dx, found[0][1])


GEOMETRIES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "pointwise": ((2, 70, 14, 14), (70, 70, 1, 1), {}),
    "window_3x2": ((2, 70, 14, 14), (70, 70, 3, 2), {}),
    "strided": ((2, 70, 29, 29), (70, 70, 3, 3), {"stride": 2}),
    "dilated": ((2, 70, 14, 14), (70, 70, 3, 3), {"dilation": 2, "padding": 2}),
    "groups": ((2, 70, 14, 14), (70, 35, 3, 3), {"groups": 2, "padding": 1}),
}


@pytest.mark.backends("cpu", "emulator")
@pytest.mark.parametrize("name", GEOMETRIES)
def test_other_geometries_are_direct(backend: Backend, name: str) -> None:
    x_shape, w_shape, call = GEOMETRIES[name]
    if backend.name == "emulator":
        x_shape, w_shape = (1, 4, 9, 9), (4, w_shape[1] // 17, *w_shape[2:])
    rng = seeded("geometry")
    x, weight = (rng.standard_normal(shape).astype(np.float32) for shape in (x_shape, w_shape))
    with fa.backend(backend.name):
        with fa.conv_algorithm("direct"):
            y = fa.ops.conv2d(x, weight, **call)
            dx = fa.ops.conv2d_backward(y, x, weight, **call)[0]
        for algorithm in ("auto", *NAMES):
            with fa.conv_algorithm(algorithm):
                np.testing.assert_array_equal(fa.ops.conv2d(x, weight, **call), y)
                np.testing.assert_array_equal(fa.ops.conv2d_backward(y, x, weight, **call)[0], dx)


@pytest.mark.backends("numpy", "cpu", "emulator")
def test_what_it_leaves_alone(backend: Backend) -> None:
    """16-bit arrays everywhere, all of NumPy, and gradients of weights."""
    x, weight, bias, dy = operands(seeded("alone"), (1, 5, 6, 7), 4, (1, 1))
    half = x.astype(np.float16), weight.astype(np.float16)
    found = []
    with fa.backend(backend.name):
        for algorithm in ("direct", *NAMES):
            with fa.conv_algorithm(algorithm):
                y = fa.ops.conv2d(x, weight, bias, padding=1) if backend.name == "numpy" else x
                _, dw, db = fa.ops.conv2d_backward(dy, x, weight, padding=1, need=(False, True))
                results = [y, dw, db]
                if backend.name != "cpu":  # which computes 16-bit arrays as float32 ones
                    results.append(fa.ops.conv2d(*half, padding=1))
                found.append(results)
    for results in found[1:]:
        for a, b in zip(results, found[0]):
            np.testing.assert_array_equal(a, b)


@pytest.mark.backends("cpu")
def test_pixels_next_to_tiny_ones(backend: Backend) -> None:
    """1e15 beside 1e-15: outputs of F(2x2, 3x3) that see none of the large pixels are what they are without
    them, bit for bit. Those of the larger tile are not.
    """
    x, weight, _, _ = operands(seeded("tiny"), (1, 7, 12, 19), 9, (1, 1))
    small = x * np.float32(1e-15)
    mixed = small.copy()
    mixed[:, 2, 5, 8] = mixed[:, 4, 10, 3] = 1e15
    seen = np.zeros((12, 19), bool)
    seen[4:7, 7:10] = seen[9:12, 2:5] = True
    with fa.backend(backend.name):
        for algorithm, alike in (("direct", True), ("winograd2", True), ("winograd4", False)):
            with fa.conv_algorithm(algorithm):
                a, b = (fa.ops.conv2d(image, weight, padding=1) for image in (small, mixed))
            assert (a[..., ~seen] == b[..., ~seen]).all() == alike
            assert (a[..., seen] != b[..., seen]).any()


class TestAuto:
    """Where the choice is left to the CPU: float32's errors, image by image."""

    X, K = (4, 64, 14, 14), 65

    def made(self) -> tuple[np.ndarray, ...]:
        return operands(seeded("auto"), self.X, self.K, (1, 1))

    @pytest.fixture(autouse=True)
    def on_cpu(self) -> Iterator[None]:
        with fa.backend("cpu"):
            yield

    def test_takes_the_transforms_of_ordinary_data(self) -> None:
        made = self.made()
        auto, winograd, direct = (
            forward_and_gradient(name, *made, padding=1) for name in ("auto", "winograd2", "direct")
        )
        for a, w, d in zip(auto, winograd, direct):
            np.testing.assert_array_equal(a, w)
            assert (a != d).any()

    def test_not_of_few_channels_or_float64(self) -> None:
        for made in (
            operands(seeded("few"), (8, 16, 14, 14), 64, (1, 1)),
            operands(seeded("few"), (8, 64, 7, 7), 64, (1, 1)),
            operands(seeded("few"), self.X, self.K, (1, 1), np.float64),
        ):
            auto, direct = (forward_and_gradient(name, *made, padding=1) for name in ("auto", "direct"))
            for a, d in zip(auto, direct):
                np.testing.assert_array_equal(a, d)

    @pytest.mark.parametrize("place", [(0, 0), (3, 4), (6, 13)])
    @pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e20, -3e38])
    def test_images_with_extreme_pixels_are_direct(self, value: float, place: tuple[int, int]) -> None:
        """The image alone: the others of the batch are not."""
        x, weight, bias, dy = self.made()
        x[1, 5, place[0], place[1]] = dy[2, 7, place[0], place[1]] = value
        with np.errstate(all="ignore"):
            auto, winograd, direct = (
                forward_and_gradient(name, x, weight, bias, dy, padding=1)
                for name in ("auto", "winograd2", "direct")
            )
        for bad, a, w, d in zip((1, 2), auto, winograd, direct):
            for n in range(len(x)):
                np.testing.assert_array_equal(a[n], d[n] if n == bad else w[n])
            assert not np.array_equal(w[bad], d[bad], equal_nan=True)

    @pytest.mark.parametrize("value", [np.inf, np.nan, 1e25, 1e-25])
    def test_extreme_filters_are_direct(self, value: float) -> None:
        x, weight, bias, dy = self.made()
        weight[3] *= np.float32(value)
        with np.errstate(all="ignore"):
            auto, direct = (
                forward_and_gradient(name, x, weight, bias, dy, padding=1) for name in ("auto", "direct")
            )
        # The filter of a gradient is a channel of all filters, which a small one does not change.
        for a, d in zip(auto[: 1 if value == 1e-25 else 2], direct):
            np.testing.assert_array_equal(a, d)

    def test_zero_images_and_filters_are_ordinary(self) -> None:
        x, weight, bias, dy = self.made()
        x[1], weight[3] = 0, 0
        y = forward_and_gradient("auto", x, weight, bias, dy, padding=1)[0]
        np.testing.assert_array_equal(y[1], np.broadcast_to(bias[:, None, None], y[1].shape))
        np.testing.assert_array_equal(y[:, 3], np.full_like(y[:, 3], bias[3]))
        winograd = forward_and_gradient("winograd2", x, weight, bias, dy, padding=1)[0]
        np.testing.assert_array_equal(y, winograd)

    def test_images_are_alone(self) -> None:
        """An image's result does not depend on its company."""
        x, weight, bias, dy = operands(seeded("alone"), (3, 64, 28, 28), 64, (1, 1))
        x[0, 0, 0, 0] = np.inf
        with np.errstate(all="ignore"):
            together = forward_and_gradient("auto", x, weight, bias, dy, padding=1)
            for n in range(3):
                one = np.s_[n : n + 1]
                for a, b in zip(
                    forward_and_gradient("auto", x[one], weight, bias, dy[one], padding=1), together
                ):
                    np.testing.assert_array_equal(a, b[one])


class TestChoice:
    """fa.conv_algorithm and FASTARCH_CONV_ALGORITHM."""

    def test_nests_and_ends(self) -> None:
        before = algorithms.current()
        with fa.conv_algorithm("winograd2"):
            with fa.conv_algorithm("direct"):
                assert algorithms.current() == 1
            assert algorithms.current() == 2
        assert algorithms.current() == before

    def test_unknown_name(self) -> None:
        with pytest.raises(
            ValueError,
            match=r"\[conv_algorithm\] got 'fft', expected one of auto, direct, winograd2, winograd4",
        ):
            fa.conv_algorithm("fft")

    def test_number_out_of_range(self) -> None:
        x, weight, _, y = operands(seeded("range"), (1, 2, 4, 4), 2, (1, 1))
        with pytest.raises(ValueError, match=r"\[conv2d\] algorithm 4, expected 0 to 3"):
            _cpu.conv2d_forward(x, weight, None, None, y, (1, 1), (1, 1), (1, 1), 1, 0, algorithm=4)

    def test_environment(self) -> None:
        script = "from fastarch import algorithms; print(algorithms.current())"
        for name, number in (("winograd4", "3"), ("", "0")):
            environment = {**os.environ, "FASTARCH_CONV_ALGORITHM": name}
            done = subprocess.run(
                [sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=60
            )
            assert done.stdout.strip() == number, done.stderr
