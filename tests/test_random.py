"""Random words: Philox's published answers, the same on every backend; states and distributions."""

from __future__ import annotations

import numpy as np
import pytest

import fastarch as fa
from cases.dropout import philox as philox_by_definition
from conftest import Backend, seeded
from fastarch import _core as core

# The known answers that the authors of Philox publish: (counter, key, words).
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def wide(low: int, high: int) -> int:
    return low | high << 32


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_philox_known_answers(counter: tuple, key: tuple, words: tuple) -> None:
    position, offset, seed = wide(*counter[:2]), wide(*counter[2:]), wide(*key)
    assert core.philox(seed, offset, position) == words
    assert philox_by_definition(seed, offset, position) == words
    if position < 2**61:  # a word's number, four a position, is itself 64 bits
        drawn = fa.random.philox(4, seed, offset, start=4 * position)
        assert tuple(int(word) for word in drawn) == words


@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 129, 20_001, 70_001])
def test_philox_streams_agree(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiled core and the generic code draw the same words; the tail is cut, not redrawn."""
    seed, offset = 2**63 + 12345, 2**40 + 7
    drawn = fa.random.philox(n, seed, offset)
    filled = np.zeros(n, np.int32)
    core.philox_fill(filled, seed, offset)
    monkeypatch.setattr(fa.random, "_core", None)
    monkeypatch.setattr(fa.random, "_core_looked_for", True)
    generic = fa.random.philox(n, seed, offset)
    assert drawn.dtype == generic.dtype == np.uint32
    np.testing.assert_array_equal(drawn, filled.view(np.uint32))
    np.testing.assert_array_equal(drawn, generic)
    for i in {0, 1, n // 2, n - 1} & set(range(n)):
        assert int(drawn[i]) == philox_by_definition(seed, offset, i // 4)[i % 4]
    np.testing.assert_array_equal(
        fa.random.philox(n, seed, offset, start=5), fa.random.philox(n + 5, seed, offset)[5:]
    )


def test_random_state_is_replayed() -> None:
    before = fa.random.get_state()
    try:
        fa.manual_seed(7)
        first = [fa.random.uniform((3, 5)), fa.random.normal((4,), dtype=np.float64)]
        state = fa.random.get_state()
        later = fa.random.normal((2, 2))
        fa.manual_seed(7)
        again = [fa.random.uniform((3, 5)), fa.random.normal((4,), dtype=np.float64)]
        for a, b in zip(first, again, strict=True):
            np.testing.assert_array_equal(a, b)
        fa.random.set_state(state)
        np.testing.assert_array_equal(fa.random.normal((2, 2)), later)
        assert not np.array_equal(first[0], fa.random.uniform((3, 5)))
    finally:
        fa.random.set_state(before)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_random_distributions(dtype: str) -> None:
    """Moments of 200,000 samples within five standard errors; bounds are kept."""
    before, n = fa.random.get_state(), 200_000
    try:
        fa.manual_seed(1)
        u, g = fa.random.uniform((n,), -2.0, 3.0, dtype), fa.random.normal((n,), 1.0, 2.0, dtype)
    finally:
        fa.random.set_state(before)
    assert u.dtype == g.dtype == dtype
    assert u.min() >= -2.0
    assert u.max() < 3.0
    assert abs(u.mean() - 0.5) < 5 * (25 / 12 / n) ** 0.5
    assert abs(g.mean() - 1.0) < 5 * 2.0 / n**0.5
    assert abs(g.std() - 2.0) < 5 * 2.0 / (2 * n) ** 0.5
    assert np.isfinite(g).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dropout_has_the_same_bits_everywhere(dtype: str, backend: Backend) -> None:
    x = seeded("dropout bits").standard_normal(4099).astype(dtype)
    arguments = {"p": 0.3, "seed": 2**40 + 1, "offset": 3}
    with fa.backend("numpy"):
        want = fa.ops.dropout(x, **arguments)
    got = backend.host(backend.call("dropout", {"x": backend.put(x), **arguments}))
    assert got.tobytes() == want.tobytes()
    assert 0.25 < (got == 0).mean() < 0.35
