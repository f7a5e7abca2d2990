"""Recurrent operators beyond their cases: random configurations against PyTorch, identities, long
sequences.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fastarch as fa
from cases import recurrent as cases
from conftest import Backend
from fastarch import nn

SCALE = float(os.environ.get("FASTARCH_CONFIGURATIONS", "1"))
HAS_TORCH = importlib.util.find_spec("torch") is not None
NUMBER = {"emulator": 60}  # of each kind; the emulator runs every thread of every block


def random_call(kind: str, rng: np.random.Generator) -> dict[str, Any]:
    """The arguments of a sequence of random sizes, lengths, direction, biases and dtype, with its
    gradients.
    """
    t, n, d, h = (int(v) for v in rng.integers(1, (9, 6, 12, 20)))
    dtype = np.dtype(str(rng.choice(["float32", "float64"])))
    cases._SIZES["random"] = (t, n, d, h)
    more: dict[str, Any] = {"reverse": bool(rng.random() < 0.5)}
    if rng.random() < 0.5:
        more["lengths"] = [int(v) for v in rng.integers(1, t + 1, n)]
    if rng.random() < 0.3:
        more |= {"b_ih": None, "b_hh": None}
    if kind == "rnn" and rng.random() < 0.5:
        more["nonlinearity"] = "relu"
    more["algorithm"] = str(rng.choice(["auto", "step", "persistent", "cluster"]))
    without = tuple(name for name in ("dy", "dhn", "dcn") if rng.random() < 0.2)
    return cases._make_backward(kind, "random", more, without, rng, dtype)


def torch_reference(kind: str, call: dict[str, Any]) -> tuple[tuple, tuple]:
    """Outputs and gradients by PyTorch's modules."""
    import torch

    torch.set_num_threads(1)
    names = ["x", "h0", *(["c0"] if kind == "lstm" else []), "w_ih", "w_hh", "b_ih", "b_hh"]
    leaves = {k: torch.tensor(call[k], requires_grad=True) for k in names if call[k] is not None}
    (t, _, d), h, reverse = call["x"].shape, call["w_hh"].shape[1], call.get("reverse", False)
    options = {"nonlinearity": call.get("nonlinearity", "tanh")} if kind == "rnn" else {}
    weights = [leaves[k] for k in names[-4:] if k in leaves]
    # PyTorch has no direction of its own for the reverse: both run with these weights, and the second one
    # counts.
    states = tuple(torch.stack([leaves[k]] * (2 if reverse else 1)) for k in names[1:-4])
    x: Any = leaves["x"]
    if call.get("lengths") is not None:
        lengths = torch.tensor(call["lengths"])
        x = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    module = getattr(torch.nn, kind.upper())(d, h, bias="b_ih" in leaves, bidirectional=reverse, **options)
    module = module.to(leaves["x"].dtype)
    keys = [key for key, _ in module.named_parameters()]
    parameters = dict(zip(keys, weights * (2 if reverse else 1), strict=True))
    y, last = torch.func.functional_call(module, parameters, (x, states if kind == "lstm" else states[0]))
    if call.get("lengths") is not None:
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, total_length=t)
    outputs = [y[..., -h:], *(state[-1] for state in (last if kind == "lstm" else (last,)))]
    loss = sum((o * 0).sum() for o in outputs)
    for output, name in zip(outputs, ("dy", "dhn", "dcn"), strict=False):
        if call[name] is not None:
            loss = loss + (output * torch.tensor(call[name])).sum()
    gradients = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
    found = tuple(gradients[k].numpy() if k in gradients else None for k in names)
    return tuple(output.detach().numpy() for output in outputs), found


def compare(kind: str, call: dict[str, Any], outputs: tuple, gradients: tuple, backend: Backend) -> None:
    put = {name: backend.put(value) for name, value in call.items()}
    with fa.backend(backend.name):
        got = cases.forward(fa.ops, kind, **cases._split(kind, put)[0])
        got += cases.backward(fa.ops, kind, **put)
    sizes = {name: getattr(value, "shape", value) for name, value in call.items()}
    for index, (array, want) in enumerate(zip(got, outputs + gradients, strict=True)):
        assert (array is None) == (want is None)
        if want is not None:
            tolerance = 2e-4 if want.dtype == np.float32 else 1e-11
            host = backend.host(array)
            np.testing.assert_allclose(
                host, want, rtol=tolerance, atol=tolerance, err_msg=f"{index} of {kind} {sizes}"
            )


@pytest.mark.skipif(not HAS_TORCH, reason="compares with PyTorch, which is not installed")
@pytest.mark.parametrize("kind", cases.KINDS)
def test_random_configurations(kind: str, backend: Backend, count_configurations) -> None:
    number = max(1, round(NUMBER.get(backend.name, 300) * SCALE))
    for index in range(number):
        call = random_call(kind, np.random.default_rng([index, len(kind), 7]))
        if call["algorithm"] == "cluster" and not has_clusters(backend):
            call["algorithm"] = "step"
        outputs, gradients = torch_reference(kind, call)
        try:
            compare(kind, call, outputs, gradients, backend)
        except Exception as error:
            raise AssertionError(f"configuration {index} of {kind} on {backend}: {error}") from error
    count_configurations(f"{kind} on {backend} against PyTorch", number)


def sequence(kind: str, sizes: tuple[int, int, int, int], backend: Backend) -> dict[str, Any]:
    cases._SIZES["fixed"] = sizes
    call = cases._make(kind, "fixed", {}, np.random.default_rng(5), np.dtype(np.float64))
    return {name: backend.put(value) for name, value in call.items()}


@pytest.mark.parametrize("reset_before", [False, True])
def test_gru_with_reset_1_and_update_0_is_the_plain_rnn(reset_before: bool, backend: Backend) -> None:
    call = sequence("gru", (6, 3, 4, 5), backend)
    call["w_ih"][:10] = 0
    call["w_hh"][:10] = 0
    call["b_ih"][:5], call["b_ih"][5:10] = 1000.0, -1000.0
    y, hn, _ = backend.call("gru", {**call, "reset_before": reset_before})
    weights = {name: call[name][10:] for name in ("w_ih", "w_hh", "b_ih", "b_hh")}
    plain_y, plain_hn, _ = backend.call("rnn", {**call, **weights})
    np.testing.assert_allclose(backend.host(y), backend.host(plain_y), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(backend.host(hn), backend.host(plain_hn), rtol=1e-12, atol=1e-12)


def test_lstm_with_open_gates_is_an_accumulator(backend: Backend) -> None:
    call = sequence("lstm", (9, 3, 5, 4), backend)
    call["w_hh"][...] = 0
    call["w_ih"][:8], call["w_ih"][12:] = 0, 0
    call["b_hh"][...] = 0
    call["b_ih"][...] = 1000.0
    call["b_ih"][8:12] = 0
    y, (_, cn), _ = backend.call("lstm", call)
    x, w_g, c0 = (backend.host(a) for a in (call["x"], call["w_ih"][8:12], call["c0"]))
    total = c0 + np.cumsum(np.tanh(x @ w_g.T), axis=0)
    np.testing.assert_allclose(backend.host(y), np.tanh(total), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(backend.host(cn), total[-1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", cases.KINDS)
def test_a_sequence_is_its_cell_repeated(kind: str, backend: Backend) -> None:
    call = sequence(kind, (5, 3, 4, 6), backend)
    y, *_ = backend.call(kind, call)
    x, state = call.pop("x"), [call.pop(name) for name in ("h0", "c0") if name in call]
    for t in range(len(x)):
        names = dict(zip(("h", "c"), state, strict=False))
        result = backend.call(f"{kind}_cell", {"x": x[t], **names, **call})
        state = list(result) if kind == "lstm" else [result]
        np.testing.assert_allclose(backend.host(state[0]), backend.host(y[t]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", cases.KINDS)
def test_padding_is_not_read(kind: str, backend: Backend) -> None:
    """Steps past the end may hold anything, and their gradients are zeros."""
    call = sequence(kind, (5, 3, 4, 6), backend)
    call["x"][2:, 0] = np.nan
    call["x"][4:, 2] = np.inf
    y, *_, saved = backend.call(kind, {**call, "lengths": np.array([2, 5, 4])})
    dy = backend.xp.ones_like(y)
    dy[2:, 0] = np.nan
    gradients = {"dy": dy, "dhn": None, "saved": saved} | ({"dcn": None} if kind == "lstm" else {})
    grads = backend.call(f"{kind}_backward", gradients)
    assert all(np.isfinite(backend.host(g)).all() for g in (y, *grads) if g is not None)
    assert not backend.host(grads.x)[2:, 0].any()
    assert not backend.host(y)[4:, 2].any()


def forward_and_gradients(
    kind: str, call: dict[str, Any], algorithm: str, backend: Backend
) -> list[np.ndarray]:
    call = {**call, "algorithm": algorithm}
    gradients = {"dy": call["x"][..., :1] + 0 * call["h0"], "dhn": call["h0"]}
    gradients |= {"dcn": call["c0"]} if kind == "lstm" else {}
    with fa.backend(backend.name):
        outputs = (*cases.forward(fa.ops, kind, **call), *cases.backward(fa.ops, kind, **gradients, **call))
    return [backend.host(output) for output in outputs]


RESIDENT = ("persistent", "cluster")  # the algorithms that keep the weights in shared memory


def has_clusters(backend: Backend) -> bool:
    """Where the algorithm 'cluster' can be named: on sm_90 and later, and where it is ignored."""
    return backend.name != "cuda" or int(backend.xp.cuda.Device().compute_capability) >= 90


def agree(kind: str, call: dict[str, Any], backend: Backend) -> None:
    step = forward_and_gradients(kind, call, "step", backend)
    one_product = has_clusters(backend) and not call.get("reset_before")
    for algorithm in RESIDENT if one_product else RESIDENT[:1]:
        resident = forward_and_gradients(kind, call, algorithm, backend)
        for one, other in zip(resident, step, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-11, err_msg=algorithm)


on_kernels = pytest.mark.backends("emulator", "cuda")


@on_kernels
@pytest.mark.parametrize("sizes", [(3, 41, 2, 7), (2, 1, 3, 33), (2, 13, 2, 100), (1, 5, 3, 4), (4, 4, 4, 1)])
@pytest.mark.parametrize("kind", cases.KINDS)
def test_algorithms_agree(kind: str, sizes: tuple[int, int, int, int], backend: Backend) -> None:
    """More sequences than are staged at a time; one; weights that leave room for few; one step; one unit."""
    agree(kind, sequence(kind, sizes, backend), backend)


@on_kernels
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", cases.KINDS)
def test_algorithms_agree_on_lengths(kind: str, reverse: bool, backend: Backend) -> None:
    """More sequences than are staged at a time, which end, or in reverse begin, at different steps."""
    lengths = np.random.default_rng(2).integers(1, 6, 37)
    lengths[0] = 5
    call = sequence(kind, (6, 37, 2, 5), backend) | {"lengths": lengths, "reverse": reverse}
    agree(kind, call, backend)


@pytest.mark.backends("emulator")
@pytest.mark.parametrize(
    ("kind", "algorithm", "reset_before"),
    [
        *((kind, algorithm, False) for kind in cases.KINDS for algorithm in RESIDENT),
        ("gru", "persistent", True),
    ],
)
def test_resident_kernels_under_random_schedules(
    kind: str, algorithm: str, reset_before: bool, backend: Backend, count_configurations
) -> None:
    """The same bits for every order of the threads and every number of blocks that share the work."""
    from fastarch import _emulator

    seeds = max(1, round(200 * SCALE))
    call = sequence(kind, (4, 3, 2, 7), backend) | {"lengths": [2, 4, 3], "reverse": True}
    call |= {"reset_before": True} if reset_before else {}
    agree(kind, call, backend)
    want = [a.tobytes() for a in forward_and_gradients(kind, call, algorithm, backend)]
    try:
        for seed in range(seeds):
            _emulator.set_seed(seed)
            _emulator.set_multiprocessors((1, 2, 3, 7)[seed % 4])
            got = forward_and_gradients(kind, call, algorithm, backend)
            assert [a.tobytes() for a in got] == want, f"seed {seed}"
    finally:
        _emulator.set_multiprocessors(2)
    form = ", reset before" if reset_before else ""
    count_configurations(f"schedules of the {algorithm} {kind} kernel{form}", seeds)


@pytest.mark.backends("emulator")
@pytest.mark.parametrize("kind", cases.KINDS)
def test_sequences_are_split_over_clusters(kind: str, backend: Backend) -> None:
    """16 and more multiprocessors run two clusters and more at once, each with a band of the sequences."""
    from fastarch import _emulator

    call = sequence(kind, (3, 13, 2, 9), backend) | {"lengths": [3, 1, 2, 3, 1, 1, 2, 3, 3, 2, 1, 1, 2]}
    try:
        for count in (16, 24, 132):
            _emulator.set_multiprocessors(count)
            agree(kind, call, backend)
    finally:
        _emulator.set_multiprocessors(2)


@pytest.mark.backends("emulator")
def test_weights_that_do_not_fit(backend: Backend) -> None:
    """Automatic goes step by step; the persistent kernel, asked for, says why it cannot."""
    call = sequence("lstm", (2, 2, 2, 200), backend)
    automatic, step = (forward_and_gradients("lstm", call, name, backend) for name in ("auto", "step"))
    assert all(np.array_equal(one, other) for one, other in zip(automatic, step, strict=True))
    with pytest.raises(ValueError, match="the weights do not fit the device's shared memory"):
        backend.call("lstm", {**call, "algorithm": "persistent"})
    with pytest.raises(ValueError, match=r"algorithm 'cluster': .* do not fit the shared memory of one"):
        backend.call("lstm", {**sequence("lstm", (2, 2, 2, 400), backend), "algorithm": "cluster"})


@on_kernels
@pytest.mark.parametrize(("algorithm", "dtype"), [("cluster", "float32"), ("persistent", "float16")])
def test_what_the_resident_kernels_do_not_take(algorithm: str, dtype: str, backend: Backend) -> None:
    call = sequence("gru", (3, 2, 2, 4), backend)
    call = {name: backend.put(backend.host(value).astype(dtype)) for name, value in call.items()}
    with pytest.raises(ValueError, match=rf"algorithm '{algorithm}': the reset gate before the product"):
        backend.call("gru", {**call, "algorithm": algorithm, "reset_before": True})


@on_kernels
@pytest.mark.parametrize("sequences", [1, 5, 37])
@pytest.mark.parametrize("reverse", [False, True])
def test_reset_before_the_product_in_one_launch(sequences: int, reverse: bool, backend: Backend) -> None:
    call = sequence("gru", (5, sequences, 3, 19), backend) | {"reset_before": True, "reverse": reverse}
    for lengths in (None, [1 + (row * 3) % 5 for row in range(sequences)]):
        agree("gru", {**call, "lengths": lengths}, backend)


@pytest.mark.backends("numpy", "cpu", "cuda")
@pytest.mark.parametrize("kind", cases.KINDS)
def test_2000_steps_neither_overflow_nor_leak(kind: str, backend: Backend) -> None:
    call = sequence(kind, (2000, 2, 3, 8), backend)
    call["x"] *= 30
    call["h0"][...] = 0
    y, *_, saved = backend.call(kind, call)
    gradients = {"dy": backend.xp.ones_like(y), "dhn": None, "saved": saved}
    grads = backend.call(f"{kind}_backward", gradients | ({"dcn": None} if kind == "lstm" else {}))
    assert all(np.isfinite(backend.host(g)).all() for g in (y, *grads) if g is not None)
    assert np.abs(backend.host(y)).max() <= 1


@pytest.mark.skipif(not HAS_TORCH, reason="hands over tensors of PyTorch, which is not installed")
def test_torch_tensors_come_back_as_torch_tensors() -> None:
    import torch

    x, w_ih, w_hh = torch.randn(3, 2, 4), torch.randn(20, 4), torch.randn(20, 5)
    y, (hn, cn), saved = fa.ops.lstm(x, None, None, w_ih, w_hh, lengths=torch.tensor([3, 1]))
    grads = fa.ops.lstm_backward(torch.ones_like(y), None, None, saved)
    assert all(isinstance(a, torch.Tensor) for a in (y, hn, cn, grads.x, grads.w_ih, grads.w_hh))
    assert grads.h0 is None
    assert grads.b_ih is None
    h = fa.ops.gru_cell(x[0], None, torch.randn(15, 4), torch.randn(15, 5))
    assert isinstance(h, torch.Tensor)


def test_arrays_in_two_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Host and device arrays do not mix, whichever comes first."""
    cupy = ModuleType("cupy")

    class ndarray:  # what the check looks at
        dtype, device = np.dtype(np.float32), SimpleNamespace(id=1)

    cupy.ndarray = ndarray  # type: ignore[attr-defined]
    cupy.cuda = SimpleNamespace(Device=lambda index: contextlib.nullcontext())  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    call = cases._make("lstm", "primes", {}, np.random.default_rng(0), np.dtype(np.float32))
    with pytest.raises(
        TypeError, match=r"\[lstm\] w_hh is in CUDA device 1 memory, expected host memory as x is"
    ):
        fa.ops.lstm(**{**call, "w_hh": ndarray()})
    with pytest.raises(
        TypeError, match=r"\[lstm\] h0 is in host memory, expected CUDA device 1 memory as x is"
    ):
        fa.ops.lstm(**{**call, "x": ndarray()})


def test_backward_can_be_called_twice() -> None:
    rng = np.random.default_rng(3)
    call = cases._make("gru", "primes", {"lengths": [2, 5, 1]}, rng, np.dtype(np.float64))
    y, _, saved = fa.ops.gru(**call)
    first, second = (fa.ops.gru_backward(y, None, saved) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_relu_lets_the_gradient_pass_at_nan() -> None:
    """As activation_backward and PyTorch do; a gradient of 0 would hide what went wrong."""
    with fa.backend("numpy"):
        layer = nn.RNN(1, 1, nonlinearity="relu")
        y, _ = layer(np.full((1, 1, 1), np.nan, np.float32))
        y.sum().backward()
    assert np.isnan(y.item())
    assert layer.bias_ih_l0.grad == 1
