"""Restricted Boltzmann machines: the same samples everywhere, independence of the launch, conditional
distributions, updates in place.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastarch as fa
from cases import VALID
from cases.rbm_oracle import logistic
from conftest import Backend


def machine(rows: int, v: int, h: int, dtype: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights that are multiples of 1/16, so that sums are exact in whatever order."""
    rng = np.random.default_rng(seed)
    made = {"v": rng.integers(0, 2, (rows, v)), "w": rng.integers(-16, 17, (v, h)) / 16}
    made |= {"b_visible": rng.integers(-8, 9, v) / 8, "b_hidden": rng.integers(-8, 9, h) / 8}
    return {name: array.astype(dtype) for name, array in made.items()}


def put(backend: Backend, arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: backend.put(value) for name, value in arguments.items()}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("visible", "group_size"), [("bernoulli", None), ("softmax", 5)])
@pytest.mark.parametrize(("rows", "v", "h"), [(64, 100, 60), (10, 65, 257)])
def test_samples_are_the_same_on_every_backend(
    dtype: str, visible: str, group_size: int | None, rows: int, v: int, h: int, backend: Backend
) -> None:
    """Bit for bit, after two steps of a chain; and the generic code is one of the backends."""
    arguments = {**machine(rows, v, h, dtype), "k": 2, "seed": 11, "offset": 13}
    arguments |= {"visible": visible, "group_size": group_size}
    with fa.backend("numpy"):
        want = fa.ops.rbm_phases(**arguments)[1]
    got = backend.host(backend.call("rbm_phases", put(backend, arguments))[1])
    assert 0.02 < want.mean() < 0.98
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("unit", ["gaussian", "relu"])
def test_noise_is_the_same_on_every_backend(dtype: str, unit: str, backend: Backend) -> None:
    """Normal numbers too, bit for bit, to which an exact mean is added."""
    arguments = machine(33, 20, 130, dtype)
    del arguments["b_visible"]
    arguments |= {"unit": unit, "seed": 5, "offset": 6}
    with fa.backend("numpy"):
        want = fa.ops.rbm_hidden(**arguments)[1]
    got = backend.host(backend.call("rbm_hidden", put(backend, arguments))[1])
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_probabilities_are_the_same_on_every_backend(dtype: str, backend: Backend) -> None:
    """Bit for bit over all of the sigmoid's range, and right."""
    x = np.linspace(-110, 110, 4001)
    x = np.concatenate([x, np.linspace(-3, 3, 1001), [0.0, -0.0, np.inf, -np.inf]]).astype(dtype)
    arguments = {
        "v": np.ones((1, 1), dtype),
        "w": np.zeros((1, len(x)), dtype),
        "b_hidden": x,
    }
    with fa.backend("numpy"):
        want = fa.ops.rbm_hidden(**arguments)
    got = backend.call("rbm_hidden", put(backend, arguments))
    for a, b in zip(got, want):
        np.testing.assert_array_equal(backend.host(a), b)
    exact = np.array([logistic(float(each)) if abs(each) < 700 else float(each > 0) for each in x])
    np.testing.assert_allclose(want[0][0], exact, rtol=0, atol=1.5e-7 if dtype == "float32" else 3e-16)


def test_not_a_number_is_not_hidden(backend: Backend) -> None:
    """A mean of NaN stays one, whatever its bits; its sample is 0."""
    quiet = np.array([0x7FC00000, 0x7FC00001, 0x7FFFFFFF, 0xFFC00123], np.uint32).view(np.float32)
    arguments = {"v": np.ones((1, 1), np.float32), "w": np.zeros((1, 4), np.float32), "b_hidden": quiet}
    for unit in ("bernoulli", "gaussian", "relu"):
        mean, sample = backend.call("rbm_hidden", put(backend, {**arguments, "unit": unit}))
        assert np.isnan(backend.host(mean)).all(), unit
        if unit == "bernoulli":
            assert not backend.host(sample).any()
    _, energy = (
        None,
        backend.call("rbm_free_energy", put(backend, {**arguments, "b_visible": np.zeros(1, np.float32)})),
    )
    assert np.isnan(backend.host(energy)).all()


def test_a_row_does_not_depend_on_the_others(backend: Backend) -> None:
    """Short last batches draw what full ones would have drawn; other offsets, seeds and steps do not."""
    arguments = machine(20, 30, 50, "float32")
    del arguments["b_visible"]
    call = {**arguments, "seed": 3, "offset": 4, "step": 5}
    whole = backend.host(backend.call("rbm_hidden", put(backend, call))[1])
    part = backend.host(backend.call("rbm_hidden", put(backend, {**call, "v": call["v"][:7]}))[1])
    np.testing.assert_array_equal(part, whole[:7])
    for change in ({"seed": 4}, {"offset": 5}, {"step": 6}):
        other = backend.host(backend.call("rbm_hidden", put(backend, {**call, **change}))[1])
        assert 0.2 < (other != whole).mean() < 0.8, change


def test_a_short_batch_is_divided_by_its_own_size(backend: Backend) -> None:
    """The gradient of a batch is that of the same rows twice over."""
    arguments = machine(6, 9, 5, "float64")
    names = ("v", "h0", "vk", "hk")
    statistics = dict(zip(names, (arguments["v"], *backend_phases(backend, arguments))))
    gradients = []
    for repeats in (1, 2):
        parameters = [arguments[name].copy() for name in ("w", "b_visible", "b_hidden")]
        changed = [backend.put(x) for x in (*parameters, *(np.zeros_like(x) for x in parameters))]
        rows = [backend.put(np.tile(x, (repeats, 1))) for x in statistics.values()]
        with fa.backend(backend.name):
            fa.ops.rbm_update(*rows, *changed, 1.0)
        gradients.append([backend.host(x) for x in changed[3:]])
    for once, twice in zip(*gradients):
        np.testing.assert_allclose(once, twice, rtol=1e-13, atol=1e-15)


def backend_phases(backend: Backend, arguments: dict[str, Any]) -> list[np.ndarray]:
    return [backend.host(x) for x in backend.call("rbm_phases", put(backend, arguments))]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_update_learns_by_what_cd_returns(dtype: str, backend: Backend) -> None:
    """rbm_phases and rbm_update are rbm_cd and three lines of momentum."""
    arguments = machine(12, 21, 35, dtype)
    call = put(backend, {**arguments, "k": 2, "seed": 1, "offset": 9})
    dw, dbv, dbh, chain = (backend.host(x) for x in backend.call("rbm_cd", call))
    statistics = backend.call("rbm_phases", call)
    np.testing.assert_array_equal(backend.host(statistics[1]), chain)
    changed = [backend.put(arguments[name].copy()) for name in ("w", "b_visible", "b_hidden")]
    velocities = [backend.xp.ones_like(x) for x in changed]
    with fa.backend(backend.name):
        fa.ops.rbm_update(call["v"], *statistics, *changed, *velocities, 0.1, 0.5, 0.2)
    tolerance = 1e-5 if dtype == "float32" else 1e-13
    for name, gradient, decay, x, velocity in zip(
        ("w", "b_visible", "b_hidden"), (dw, dbv, dbh), (0.2, 0, 0), changed, velocities
    ):
        want = 0.5 + 0.1 * (gradient - decay * arguments[name])
        np.testing.assert_allclose(backend.host(velocity), want, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(
            backend.host(x), arguments[name] + want, rtol=tolerance, atol=tolerance, err_msg=name
        )


@pytest.mark.parametrize("unit", ["gaussian", "relu"])
def test_conditional_moments_of_hidden_units(unit: str, backend: Backend) -> None:
    """Means and variances over many rows within 4.5 standard errors."""
    rows = 2000 if backend.name == "emulator" else 200_000
    bias = np.array([-1.0, -0.5, 0.0, 0.7, 3.0])
    arguments = {"v": np.ones((rows, 1)), "w": np.zeros((1, 5)), "b_hidden": bias, "unit": unit, "seed": 2}
    _, sample = (backend.host(x) for x in backend.call("rbm_hidden", put(backend, arguments)))
    for j, b in enumerate(bias):
        if unit == "gaussian":
            mean, variance = b, 1.0
        else:  # max(0, x) with x ~ N(b, s^2)
            s = np.sqrt(logistic(b))
            t = np.linspace(-9, 9, 20001)
            density = np.exp(-t * t / 2) / np.sqrt(2 * np.pi) * (t[1] - t[0])
            y = np.maximum(0, b + s * t)
            mean = float((y * density).sum())
            variance = float((y * y * density).sum()) - mean**2
        got = sample[:, j]
        assert abs(got.mean() - mean) < 4.5 * np.sqrt(variance / rows)
        spread = got.var()
        error = np.sqrt((((got - got.mean()) ** 2).var()) / rows)
        assert abs(spread - variance) < 4.5 * error


def test_conditional_moments_of_gaussian_visibles(backend: Backend) -> None:
    """Mean W h + b and standard deviation sigma, uncorrelated, and the tails of a normal distribution."""
    rows = 2000 if backend.name == "emulator" else 100_000
    w, b, sigma = np.array([[1.0], [-2.0], [0.5]]), np.array([0.0, 1.0, -1.0]), np.array([0.5, 1.0, 3.0])
    arguments = {"h": np.ones((rows, 1)), "w": w, "b_visible": b, "sigma": sigma, "unit": "gaussian"}
    mean, sample = (backend.host(x) for x in backend.call("rbm_visible", put(backend, arguments)))
    np.testing.assert_allclose(mean, np.tile(w[:, 0] + b, (rows, 1)))
    z = (sample - mean) / sigma
    assert np.all(np.abs(z.mean(axis=0)) < 4.5 / np.sqrt(rows))
    assert np.all(np.abs(z.var(axis=0) - 1) < 4.5 * np.sqrt(2 / rows))
    correlation = np.corrcoef(z.T)
    assert np.all(np.abs(correlation[~np.eye(3, dtype=bool)]) < 4.5 / np.sqrt(rows))
    for limit, tail in ((1.0, 0.3173105), (2.0, 0.0455003), (3.0, 0.0026998)):
        share = (np.abs(z) > limit).mean()
        assert abs(share - tail) < 4.5 * np.sqrt(tail / (3 * rows))


def test_softmax_groups_are_one_hot_with_their_probabilities(backend: Backend) -> None:
    rows = 2000 if backend.name == "emulator" else 100_000
    b = np.array([0.0, 1.0, -1.0, 2.0, -30.0, 30.0], np.float32)
    arguments = {"h": np.ones((rows, 1), np.float32), "w": np.zeros((6, 1), np.float32), "b_visible": b}
    arguments |= {"unit": "softmax", "group_size": 3, "seed": 9}
    mean, sample = (backend.host(x) for x in backend.call("rbm_visible", put(backend, arguments)))
    groups = sample.reshape(rows, 2, 3)
    assert set(np.unique(sample)) == {0.0, 1.0}
    assert (groups.sum(axis=2) == 1).all()
    exact = np.exp(b.astype(np.float64)).reshape(2, 3)
    exact = (exact / exact.sum(axis=1, keepdims=True)).ravel()
    np.testing.assert_allclose(mean, np.tile(exact, (rows, 1)), rtol=1e-5, atol=1e-7)
    assert np.all(np.abs(sample.mean(axis=0) - exact) <= 4.5 * np.sqrt(exact * (1 - exact) / rows) + 1e-6)


def test_certain_units_are_certain(backend: Backend) -> None:
    """A probability that rounds to 1 always gives 1, one of 0 never does more than 2^-24 would."""
    b = np.array([40.0, -40.0], np.float32)
    arguments = {"v": np.ones((500, 1), np.float32), "w": np.zeros((1, 2), np.float32), "b_hidden": b}
    _, sample = backend.call("rbm_hidden", put(backend, arguments))
    np.testing.assert_array_equal(backend.host(sample), np.tile([1.0, 0.0], (500, 1)))


def test_clamped_units_keep_their_values(backend: Backend) -> None:
    """In chains from the data and in persistent ones; an absent unit, 0 and clamped, has no gradient."""
    arguments = {**machine(8, 12, 6, "float32"), "k": 3}
    clamp = np.zeros((8, 12), bool)
    clamp[:, ::3] = True
    arguments["v"][:, 0] = 0
    dw, dbv, _, chain = (
        backend.host(x) for x in backend.call("rbm_cd", put(backend, {**arguments, "clamp": clamp}))
    )
    np.testing.assert_array_equal(chain[:, ::3], arguments["v"][:, ::3])
    assert not dw[0].any()
    assert not dbv[::3].any()
    assert dw[1].any()
    start = np.full((8, 12), 0.5, np.float32)
    again = backend.call("rbm_cd", put(backend, {**arguments, "clamp": clamp, "chain": start}))[3]
    assert (backend.host(again)[:, ::3] == 0.5).all()
    assert set(np.unique(np.delete(backend.host(again), np.s_[::3], axis=1))) <= {0.0, 1.0}


@pytest.mark.parametrize("part", ["chains", "data"])
def test_chains_may_share_memory_with_the_data(part: str, backend: Backend) -> None:
    """Chains that begin where the data does, but are fewer or more rows."""
    whole = machine(9, 12, 6, "float32")
    v = backend.put(whole.pop("v"))
    rest = put(backend, {**whole, "k": 2, "seed": 3})
    few = v[:4]
    shared, own = ((v, few), (v, few.copy())) if part == "chains" else ((few, v), (few.copy(), v))
    want = backend.call("rbm_phases", {"v": own[0], "chain": own[1], **rest})
    got = backend.call("rbm_phases", {"v": shared[0], "chain": shared[1], **rest})
    for a, b in zip(got, want):
        np.testing.assert_array_equal(backend.host(a), backend.host(b))


def test_nothing_to_sample(backend: Backend) -> None:
    """Half steps of no rows are empty, a machine without hidden units is its biases."""
    empty = {"v": np.ones((0, 4), np.float32), "w": np.ones((4, 3), np.float32)}
    mean, sample = backend.call("rbm_hidden", put(backend, {**empty, "b_hidden": np.ones(3, np.float32)}))
    assert mean.shape == sample.shape == (0, 3)
    bare = {"w": np.ones((4, 0), np.float32), "b_visible": np.ones(4, np.float32)}
    bare |= {"v": np.ones((2, 4), np.float32), "b_hidden": np.ones(0, np.float32)}
    dw, dbv, dbh, chain = (backend.host(x) for x in backend.call("rbm_cd", put(backend, bare)))
    assert dw.shape == (4, 0)
    assert dbh.shape == (0,)
    assert chain.shape == (2, 4)
    np.testing.assert_array_equal(dbv, 1 - chain.mean(axis=0))
    changed = [backend.put(np.zeros(shape, np.float32)) for shape in 2 * ((4, 0), (4,), (0,))]
    statistics = backend.call("rbm_phases", put(backend, bare))
    with fa.backend(backend.name):
        fa.ops.rbm_update(backend.put(bare["v"]), *statistics, *changed, 1.0)
    np.testing.assert_allclose(backend.host(changed[1]), dbv)
    energy = backend.host(backend.call("rbm_free_energy", put(backend, bare)))
    np.testing.assert_array_equal(energy, [-4.0, -4.0])


@pytest.mark.parametrize("name", ["w", "b_hidden", "velocity_w"])
def test_an_update_needs_arrays_it_can_write_in_place(name: str, backend: Backend) -> None:
    """A copy would be updated instead, and nobody would notice."""
    arguments = put(backend, VALID["rbm_update"])
    shape = VALID["rbm_update"][name].shape
    strided = backend.xp.ones((*shape[:-1], 2 * shape[-1]), "float32")[..., ::2]
    with pytest.raises(ValueError, match=rf"^\[rbm_update\] {name} is not contiguous"):
        backend.call("rbm_update", {**arguments, name: strided})
    if backend.xp is np:
        arguments[name].flags.writeable = False
        with pytest.raises(ValueError, match=rf"^\[rbm_update\] {name} is read-only"):
            backend.call("rbm_update", arguments)


def test_torch_tensors_are_learned_in_place() -> None:
    torch = pytest.importorskip("torch")
    arrays = {name: x for name, x in VALID["rbm_update"].items() if isinstance(x, np.ndarray)}
    tensors = {name: torch.tensor(x) for name, x in arrays.items()}
    fa.ops.rbm_update(**tensors, learning_rate=0.5)
    numpy = {name: x.copy() for name, x in arrays.items()}
    fa.ops.rbm_update(**numpy, learning_rate=0.5)
    for name in ("w", "b_visible", "velocity_bh"):
        np.testing.assert_array_equal(tensors[name].numpy(), numpy[name])
    mean, sample = fa.ops.rbm_hidden(tensors["v"], tensors["w"], tensors["b_hidden"])
    assert type(mean) is type(sample) is torch.Tensor
