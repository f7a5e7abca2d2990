"""Words that kernels read when they run: of a random stream, and numbers that a replay is given anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastarch as fa
from conftest import Backend, seeded
from fastarch import backends
from fastarch.random import philox


def kernel(backend: Backend, name: str) -> Any:
    with fa.backend(backend.name):
        return getattr(backends.implementation(name, backend.name == "cuda"), name)


@pytest.mark.parametrize("n", [0, 1, 2, 5, 1031, 4099])
@pytest.mark.parametrize("start", [0, 1, 3, 4, 2**40 + 3])
@pytest.mark.backends("cpu", "emulator", "cuda")
def test_random_words_are_philox(n: int, start: int, backend: Backend) -> None:
    seed, offset = 2**64 - 3, 2**63 + 5
    want = philox(n, seed, offset, start=start)
    words = backend.put(np.zeros(n, np.int32))
    kernel(backend, "random_words")(words, start, seed, offset)
    np.testing.assert_array_equal(backend.host(words).view(np.uint32), want)
    words = backend.put(np.zeros(n, np.int32))
    kernel(backend, "random_words")(words, start, seed, 0, backend.put(np.array([offset - 2**64])))
    np.testing.assert_array_equal(backend.host(words).view(np.uint32), want)


@pytest.mark.parametrize("n", [0, 1, 499, 500, 501, 1234])
@pytest.mark.backends("cpu", "emulator", "cuda")
def test_stored_words(n: int, backend: Backend) -> None:
    """What the call has taken may change at once."""
    values = seeded(f"stored {n}").integers(-(2**63), 2**63 - 1, n)
    kept, words = values.copy(), backend.put(np.zeros(n, np.int64))
    kernel(backend, "store_words")(words, values)
    values[...] = 0
    np.testing.assert_array_equal(backend.host(words), kept)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_dropout_takes_its_offset_from_an_array(dtype: str, backend: Backend) -> None:
    x = backend.put(seeded("dropout").standard_normal((7, 13)).astype(dtype))
    for offset in (5, 2**64 - 1):
        word = backend.put(np.array([offset], np.uint64).view(np.int64))
        for op, name in (("dropout", "x"), ("dropout_backward", "dy")):
            want = backend.call(op, {name: x, "p": 0.4, "seed": 3, "offset": offset})
            got = backend.call(op, {name: x, "p": 0.4, "seed": 3, "offset": word})
            np.testing.assert_array_equal(backend.host(got), backend.host(want))


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_zoneout_takes_its_offset_from_an_array(kind: str, backend: Backend) -> None:
    gates, states = {"rnn": (1, 1), "lstm": (4, 2), "gru": (3, 1)}[kind]
    rng = seeded(f"zoneout {kind}")
    shapes = [(4, 3, 2), *[(3, 5)] * states, (gates * 5, 2), (gates * 5, 5)]
    arrays = [backend.put(rng.standard_normal(shape).astype(np.float32)) for shape in shapes]
    more = {"zoneout": 0.5} | ({"zoneout_cell": 0.3} if kind == "lstm" else {})
    with fa.backend(backend.name):
        run = getattr(fa.ops, kind)
        want = run(*arrays, **more, stream=(3, 7))[0]
        got = run(*arrays, **more, stream=(3, backend.put(np.array([7]))))[0]
        other = run(*arrays, **more, stream=(3, backend.put(np.array([8]))))[0]
    np.testing.assert_array_equal(backend.host(got), backend.host(want))
    assert not np.array_equal(backend.host(got), backend.host(other))


OFFSETS = [
    (np.zeros(2, np.int64), ValueError, r"offset has shape \(2,\), expected \(1,\)"),
    (np.zeros(1, np.uint64), TypeError, "offset has dtype uint64, expected int64"),
    (np.zeros(1), TypeError, "offset has dtype float64, expected int64"),
    (1.5, TypeError, "offset is 1.5, expected an int"),
    (-1, ValueError, "offset is -1, expected 0 to"),
]


@pytest.mark.parametrize(("offset", "error", "match"), OFFSETS, ids=[match for *_, match in OFFSETS])
def test_bad_offsets(offset: Any, error: type[Exception], match: str, backend: Backend) -> None:
    x = backend.put(np.ones((3, 2, 4), np.float32))
    with pytest.raises(error, match=rf"^\[dropout\] {match}"):
        backend.call("dropout", {"x": x, "p": 0.5, "seed": 1, "offset": backend.put(offset)})
    w = backend.put(np.ones((5, 4), np.float32)), backend.put(np.ones((5, 5), np.float32))
    with pytest.raises(error, match=r"^\[rnn\] " + match.replace("offset", "offset of stream")):
        backend.call(
            "rnn",
            {"x": x, "h0": None, "w_ih": w[0], "w_hh": w[1], "zoneout": 0.5}
            | {"stream": (1, backend.put(offset))},
        )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.backends("cpu", "emulator", "cuda")
def test_optimizers_take_numbers_from_words(dtype: str, backend: Backend) -> None:
    """In place of the arguments that they stand for."""
    rng = seeded(f"words {dtype}")
    host = [[rng.random(shape).astype(dtype) for shape in ((5, 7), (4099,))] for _ in range(5)]
    adam = (0.9, 0.99, 1e-8, 0.1)

    def run(name: str, lists: int, *rest: Any) -> list[np.ndarray]:
        arrays = [[backend.put(array) for array in row] for row in host[:lists]]
        kernel(backend, name)(*arrays, *rest)
        return [backend.host(array) for row in arrays for array in row]

    words = backend.put(np.array([0.3, 0.7, 0.9]))
    want = run("adam_update", 5, 0.3, 0.7, *adam, 0.9, True)
    for got, expected in zip(run("adam_update", 5, 0.0, 0.0, *adam, 1.0, True, words), want, strict=True):
        np.testing.assert_array_equal(got, expected)
    want = run("sgd_update", 3, 0.3, 0.9, 1.0, 0.1, True, False)
    got = run("sgd_update", 3, 7.0, 0.9, 1.0, 0.1, True, False, backend.put(np.array([0.3])))
    for array, expected in zip(got, want, strict=True):
        np.testing.assert_array_equal(array, expected)
