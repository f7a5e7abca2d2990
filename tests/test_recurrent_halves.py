"""Recurrent sequences of float16 and bfloat16 beyond their cases: the tensor cores' kernels, long sequences,
devices without such kernels, training.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

import fastarch as fa
from cases import recurrent as cases
from conftest import FLOATS, Backend, seeded
from fastarch import nn
from test_recurrent import RESIDENT, SCALE, forward_and_gradients, has_clusters

HALVES = ("float16", "bfloat16")
UNIT = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
on_kernels = pytest.mark.backends("emulator", "cuda")


def sequence(kind: str, sizes: tuple[int, int, int, int], dtype: str, seed: int = 5) -> dict[str, Any]:
    cases._SIZES["fixed"] = sizes
    return cases._make(kind, "fixed", {}, np.random.default_rng(seed), FLOATS[dtype])


def wide(call: dict[str, Any]) -> dict[str, Any]:
    """The same rounded values in float64."""
    return {k: v.astype(np.float64) if hasattr(v, "dtype") and v.ndim else v for k, v in call.items()}


def put(call: dict[str, Any], backend: Backend) -> dict[str, Any]:
    return {k: v if k == "lengths" else backend.put(v) for k, v in call.items()}


def outputs(kind: str, call: dict[str, Any], algorithm: str, backend: Backend) -> list[np.ndarray]:
    return forward_and_gradients(kind, put(call, backend), algorithm, backend)


def reference(kind: str, call: dict[str, Any]) -> list[np.ndarray]:
    lengths = {k: v for k, v in call.items() if k == "lengths"}
    return forward_and_gradients(kind, wide(call) | lengths, "auto", Backend("numpy", np))


def check(got: list[np.ndarray], want: list[np.ndarray], tolerance: float, what: str) -> None:
    for index, (one, other) in enumerate(zip(got, want, strict=True)):
        assert (one.dtype == object) == (other.dtype == object)
        if other.dtype == object:  # None: no bias, no gradient
            continue
        atol = tolerance * max(1.0, float(np.abs(other).max(initial=0)))
        np.testing.assert_allclose(
            one.astype(np.float64), other, rtol=0, atol=atol, err_msg=f"output {index} of {what}"
        )


def random_call(kind: str, dtype: str, index: int) -> tuple[dict[str, Any], str]:
    """Arguments of random sizes, which batches of 8 and 32 rows do not divide, and an algorithm."""
    rng = np.random.default_rng([index, len(kind), len(dtype)])
    t, d = int(rng.integers(1, 6)), int(rng.integers(1, 9))
    n = int(rng.choice([1, 2, 7, 8, 9, 16, 31, 40]))
    h = int(rng.choice([1, 3, 8, 16, 21, 32, 40, 65]))
    call = sequence(kind, (t, n, d, h), dtype, index)
    if rng.random() < 0.5:
        call |= {"lengths": rng.integers(1, t + 1, n), "reverse": bool(rng.random() < 0.5)}
    if rng.random() < 0.3:
        call |= {"b_ih": None, "b_hh": None}
    if kind == "rnn" and rng.random() < 0.5:  # away from the kink
        call["nonlinearity"] = "relu"
        call["w_hh"], call["w_ih"] = call["w_hh"] / 16, call["w_ih"] / 4
        call["b_ih"], call["b_hh"] = rng.choice([4, -4], h).astype(FLOATS[dtype]), None
    if kind == "gru" and rng.random() < 0.3:
        return call | {"reset_before": True}, "step"
    return call, str(rng.choice(["auto", "step", *RESIDENT]))


@on_kernels
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kind", cases.KINDS)
def test_random_configurations(kind: str, dtype: str, backend: Backend, count_configurations) -> None:
    """Against the array-generic code in float64 on the same rounded inputs."""
    number = max(1, round((30 if backend.name == "emulator" else 150) * SCALE))
    for index in range(number):
        call, algorithm = random_call(kind, dtype, index)
        if algorithm == "cluster" and not has_clusters(backend):
            algorithm = "persistent"
        sizes = {k: getattr(v, "shape", v) for k, v in call.items()}
        what = f"configuration {index}: {kind} {algorithm} {sizes}"
        check(outputs(kind, call, algorithm, backend), reference(kind, call), 16 * UNIT[dtype], what)
    count_configurations(f"{kind} in {dtype} on {backend} against float64", number)


@on_kernels
@pytest.mark.parametrize("kind", cases.KINDS)
def test_h_is_y(kind: str, backend: Backend) -> None:
    """The state between steps is the rounded output: the second half from there is the whole's."""
    call = put(sequence(kind, (6, 9, 3, 17), "float16"), backend)
    y, state, _ = backend.call(kind, call)
    hn = state[0] if kind == "lstm" else state
    assert backend.host(y[-1]).tobytes() == backend.host(hn).tobytes()
    if kind != "lstm":  # whose c would be rounded on the way
        again, *_ = backend.call(kind, call | {"x": call["x"][3:], "h0": y[2]})
        assert backend.host(again).tobytes() == backend.host(y[3:]).tobytes()


@pytest.mark.backends("emulator")
@pytest.mark.parametrize("algorithm", RESIDENT)
@pytest.mark.parametrize("kind", cases.KINDS)
def test_resident_kernels_under_random_schedules(
    kind: str, algorithm: str, backend: Backend, count_configurations
) -> None:
    """The same bits for every order of the threads, and here for every number of blocks: H is so small that
    their sums are cut alike.
    """
    from fastarch import _emulator

    seeds = max(1, round((60 if algorithm == "persistent" else 8) * SCALE))
    call = sequence(kind, (4, 10, 2, 36), "bfloat16")
    call |= {"lengths": [2, 4, 3, 1, 1, 4, 2, 3, 3, 1], "reverse": True}
    want = [a.tobytes() for a in outputs(kind, call, algorithm, backend)]
    try:
        for seed in range(seeds):
            _emulator.set_seed(seed)
            _emulator.set_multiprocessors((1, 2, 3, 7)[seed % 4])
            got = outputs(kind, call, algorithm, backend)
            assert [a.tobytes() for a in got] == want, f"seed {seed}"
    finally:
        _emulator.set_multiprocessors(2)
    count_configurations(f"schedules of the {algorithm} {kind} kernel in bfloat16", seeds)


@pytest.mark.backends("emulator")
@pytest.mark.parametrize("kind", cases.KINDS)
def test_clusters_of_16_blocks_where_the_device_runs_them(kind: str, backend: Backend) -> None:
    """The same bits for any number of clusters at once; of 8 blocks, whose sums are cut otherwise, close."""
    from fastarch import _emulator

    call = sequence(kind, (3, 21, 2, 70), "float16")
    exact = reference(kind, call)
    try:
        for blocks in (16, 8):
            _emulator.set_blocks_per_cluster(blocks)
            found = []
            for count in (2, 40, 132):
                _emulator.set_multiprocessors(count)
                found.append(outputs(kind, call, "cluster", backend))
                assert [a.tobytes() for a in found[-1]] == [a.tobytes() for a in found[0]], count
            check(found[0], exact, 16 * UNIT["float16"], f"clusters of {blocks}")
    finally:
        _emulator.set_blocks_per_cluster(16)
        _emulator.set_multiprocessors(2)


@pytest.mark.backends("emulator")
def test_units_that_need_clusters_of_16_blocks(backend: Backend) -> None:
    from fastarch import _emulator

    call = put(sequence("lstm", (2, 2, 2, 500), "bfloat16"), backend) | {"algorithm": "cluster"}
    backend.call("lstm", call)
    try:
        _emulator.set_blocks_per_cluster(8)
        with pytest.raises(ValueError, match=r"algorithm 'cluster': .* do not fit the shared memory of one"):
            backend.call("lstm", call)
    finally:
        _emulator.set_blocks_per_cluster(16)


@on_kernels
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kind", cases.KINDS)
def test_2000_steps_do_not_drift(kind: str, dtype: str, backend: Backend) -> None:
    """The last of 2000 steps are no further from float64 than the first; neither are the gradients."""
    call = sequence(kind, (2000, 2, 3, 8), dtype)
    got, want = outputs(kind, call, "persistent", backend), reference(kind, call)
    error = np.abs(got[0].astype(np.float64) - want[0]).max(axis=(1, 2))
    assert error[-500:].max() <= 2 * error[:500].max()
    assert error.max() < 16 * UNIT[dtype]
    check(got[-4:], want[-4:], 16 * UNIT[dtype], "weight gradients")


@pytest.mark.backends("emulator")
@pytest.mark.parametrize("kind", cases.KINDS)
def test_a_device_without_16_bit_tensor_cores(
    kind: str, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came in 16 bits is computed in float32, as on the host: not an error."""
    call = sequence(kind, (4, 3, 2, 7), "bfloat16")
    monkeypatch.setattr("fastarch._emulator.recurrent_takes_halves", lambda: False)
    got, host = outputs(kind, call, "step", backend), outputs(kind, call, "auto", Backend("numpy", np))
    narrow = [a.astype(FLOATS["bfloat16"]) for a in reference(kind, call)]
    for one, other, exact in zip(got, host, narrow, strict=True):
        assert one.dtype == FLOATS["bfloat16"]
        for other_one in (other, exact):  # rounded once, so at most one unit apart
            scale = np.abs(other_one.astype(np.float64)).max()
            np.testing.assert_allclose(
                one.astype(np.float64), other_one.astype(np.float64), rtol=2.0**-7, atol=1e-4 * scale
            )


def test_which_backends_have_kernels() -> None:
    assert importlib.import_module("fastarch._emulator").recurrent_takes_halves()
    assert not importlib.import_module("fastarch._cpu").recurrent_takes_halves()


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kind", cases.KINDS)
def test_a_layer_of_16_bit_floats_learns(kind: str, dtype: str, backend: Backend) -> None:
    """Whether the sum of a sequence's steps is positive: the loss falls, gradients stay finite."""
    fa.manual_seed(4)
    layer, head = getattr(nn, kind.upper())(2, 12).to(dtype), nn.Linear(12, 2).to(dtype)
    if backend.name == "cuda":
        layer.cuda()
        head.cuda()
    x = seeded("recurrent halves").standard_normal((6, 16, 2)).astype(FLOATS[dtype])
    labels = (x[..., 0].astype(np.float32).sum(axis=0) > 0).astype(np.int64)
    parameters = [*layer.parameters(), *head.parameters()]
    optimizer = fa.optim.SGD(parameters, lr=0.2, momentum=0.9)
    losses = []
    with fa.backend(backend.name):
        for _ in range(25):
            y, _ = layer(fa.tensor(backend.put(x)))
            loss = nn.functional.cross_entropy(head(y[-1]), backend.put(labels))
            optimizer.zero_grad()
            loss.backward()
            assert all(np.isfinite(backend.host(p.grad).astype(np.float64)).all() for p in parameters)
            optimizer.step()
            losses.append(float(loss.item()))
    assert layer.weight_hh_l0.data.dtype == FLOATS[dtype]
    assert losses[-1] < losses[0] / 4, losses
