"""Optimizers: against their definitions written out, against PyTorch, in place, saved and loaded, and their
errors.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import pytest

import fastarch as fa
from differences import array_modules, host
from fastarch import nn, optim
from fastarch.optim import optimizer as machinery

STEPS = 25
SHAPES = [(7, 5), (1,), (3, 2, 2), ()]

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "SGD": [
        {"lr": 0.1},
        {"lr": 0.1, "weight_decay": 0.05},
        {"lr": 0.1, "momentum": 0.9},
        {"lr": 0.05, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01},
        {"lr": 0.05, "momentum": 0.8, "nesterov": True},
        {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.1},
    ],
    "Adam": [
        {},
        {"lr": 0.05, "betas": (0.7, 0.95), "eps": 1e-3},
        {"lr": 0.05, "weight_decay": 0.1},
        {"lr": 0.05, "weight_decay": 0.1, "amsgrad": True},
    ],
    "AdamW": [{}, {"lr": 0.05, "weight_decay": 0.3}, {"lr": 0.05, "amsgrad": True}],
    "RMSprop": [
        {},
        {"lr": 0.02, "alpha": 0.9, "weight_decay": 0.1},
        {"lr": 0.02, "momentum": 0.8},
        {"lr": 0.02, "centered": True, "momentum": 0.5, "eps": 1e-4},
    ],
}
ALL = [(name, options) for name, several in OPTIONS.items() for options in several]


def starts() -> list[np.ndarray]:
    return [np.random.default_rng(i).standard_normal(shape) for i, shape in enumerate(SHAPES)]


def gradient(step: int, number: int, p: np.ndarray) -> np.ndarray:
    """A noisy quadratic's; now and then it is exactly zero."""
    noise = np.random.default_rng((step, number)).standard_normal(p.shape)
    return np.where(noise > 1.5, 0.0, p + noise)


def follow(make: Callable[[list[Any]], Any], xp: Any = np, steps: int = STEPS) -> tuple[list[Any], Any]:
    """The parameters and the optimizer after some steps; parameter 2 has no gradient in every third."""
    params = [nn.Parameter(xp.asarray(p)) for p in starts()]
    optimizer = make(params)
    for step in range(steps):
        advance(params, optimizer, step, xp)
    return params, optimizer


def advance(params: list[Any], optimizer: Any, step: int, xp: Any = np) -> None:
    optimizer.zero_grad()
    for number, p in enumerate(params):
        if number != 2 or step % 3:
            p.grad = xp.asarray(gradient(step, number, host(p.data)))
    optimizer.step()


# ---- the definitions, one parameter at a time


def naive_sgd(p: Any, g: Any, s: dict[str, Any], o: dict[str, Any]) -> Any:
    g = g + o.get("weight_decay", 0) * p
    mu = o.get("momentum", 0)
    if mu:
        s["b"] = g if "b" not in s else mu * s["b"] + (1 - o.get("dampening", 0)) * g
        g = g + mu * s["b"] if o.get("nesterov") else s["b"]
    return p - o["lr"] * g


def naive_adam(p: Any, g: Any, s: dict[str, Any], o: dict[str, Any], decoupled: bool = False) -> Any:
    lr, (b1, b2), eps = o.get("lr", 1e-3), o.get("betas", (0.9, 0.999)), o.get("eps", 1e-8)
    decay = o.get("weight_decay", 1e-2 if decoupled else 0.0)
    if decoupled:
        p = p - lr * decay * p
    else:
        g = g + decay * p
    t = s["t"] = s.get("t", 0) + 1
    m = s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
    v = s["v"] = b2 * s.get("v", 0) + (1 - b2) * g**2
    if o.get("amsgrad"):
        v = s["u"] = np.maximum(s.get("u", 0), v)
    return p - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)


def naive_rmsprop(p: Any, g: Any, s: dict[str, Any], o: dict[str, Any]) -> Any:
    lr, alpha, eps = o.get("lr", 1e-2), o.get("alpha", 0.99), o.get("eps", 1e-8)
    g = g + o.get("weight_decay", 0) * p
    v = s["v"] = alpha * s.get("v", 0) + (1 - alpha) * g**2
    if o.get("centered"):
        a = s["a"] = alpha * s.get("a", 0) + (1 - alpha) * g
        v = v - a**2
    q = g / (np.sqrt(v) + eps)
    if o.get("momentum"):
        q = s["b"] = o["momentum"] * s.get("b", 0) + q
    return p - lr * q


NAIVE: dict[str, Callable[..., Any]] = {
    "SGD": naive_sgd,
    "Adam": naive_adam,
    "AdamW": lambda p, g, s, o: naive_adam(p, g, s, o, decoupled=True),
    "RMSprop": naive_rmsprop,
}


@pytest.mark.parametrize("xp", array_modules(), ids=lambda xp: xp.__name__)
@pytest.mark.parametrize(("name", "options"), ALL)
def test_updates_are_the_definition(name: str, options: dict[str, Any], xp: Any) -> None:
    params, _ = follow(lambda ps: getattr(optim, name)(ps, **options), xp)
    for number, p in enumerate(starts()):
        state: dict[str, Any] = {}
        for step in range(STEPS):
            if number != 2 or step % 3:
                p = NAIVE[name](p, gradient(step, number, p), state, options)
        np.testing.assert_allclose(host(params[number].data), p, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(("name", "options"), ALL)
def test_updates_are_pytorch_s(name: str, options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the second oracle here")
    params, mine = follow(lambda ps: getattr(optim, name)(ps, **options))
    peers = [torch.nn.Parameter(torch.tensor(p)) for p in starts()]
    theirs = getattr(torch.optim, name)(peers, **options)
    for step in range(STEPS):
        theirs.zero_grad()
        for number, p in enumerate(peers):
            if number != 2 or step % 3:
                p.grad = torch.tensor(gradient(step, number, p.detach().numpy()))
        theirs.step()
    for p, peer in zip(params, peers):
        np.testing.assert_allclose(p.data, peer.detach().numpy(), rtol=1e-11, atol=1e-13)
    groups, want = mine.state_dict()["param_groups"], theirs.state_dict()["param_groups"]
    for group, other in zip(groups, want):
        assert {k: other[k] for k in group} == group
    state, other_state = mine.state_dict()["state"], theirs.state_dict()["state"]
    for number, values in state.items():
        for key, value in values.items():
            peer_value = other_state[number].get(key)
            if value is None:
                assert peer_value is None
            else:
                np.testing.assert_allclose(value, np.asarray(peer_value), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(("name", "options"), ALL)
def test_blocks_make_no_difference(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = follow(lambda ps: getattr(optim, name)(ps, **options))
    monkeypatch.setattr(machinery, "BLOCK", 4)
    parts, _ = follow(lambda ps: getattr(optim, name)(ps, **options))
    for p, q in zip(whole, parts):
        np.testing.assert_array_equal(p.data, q.data)


@pytest.mark.parametrize(("name", "options"), ALL)
def test_a_saved_state_continues_bit_for_bit(name: str, options: dict[str, Any]) -> None:
    def make(ps: list[Any]) -> Any:
        return getattr(optim, name)([{"params": ps[:2]}, {"params": ps[2:], "lr": 0.03}], **options)

    want, _ = follow(make)
    params, first = follow(make, steps=10)
    saved = first.state_dict()
    json.dumps(saved["param_groups"])
    frozen = copy.deepcopy(saved)
    again = [nn.Parameter(p.data.copy()) for p in params]
    second = make(again)
    second.load_state_dict(saved)
    for step in range(10, STEPS):
        advance(again, second, step)
    for p, q in zip(want, again):
        np.testing.assert_array_equal(p.data, q.data)
    for number, state in frozen["state"].items():  # a state is a copy: going on has not changed it
        for key, value in state.items():
            np.testing.assert_array_equal(saved["state"][number][key], value)


@pytest.mark.parametrize(("name", "options"), ALL)
def test_updates_are_in_place(name: str, options: dict[str, Any]) -> None:
    params = [nn.Parameter(p.astype(np.float32)) for p in starts()]
    arrays = [p.data for p in params]
    optimizer = getattr(optim, name)(params, **options)
    for _ in range(3):
        for p in params:
            p.grad = np.ones(p.shape, np.float32)
        grads = [p.grad.copy() for p in params]
        optimizer.step()
        for p, array, grad in zip(params, arrays, grads):
            assert p.data is array
            assert array.dtype == np.float32
            np.testing.assert_array_equal(p.grad, grad)
    for state in optimizer.state.values():
        assert all(v.dtype == np.float32 for v in state.values() if isinstance(v, np.ndarray))


def test_groups_have_their_own_arguments() -> None:
    a, b = (nn.Parameter(np.ones(2)) for _ in range(2))
    optimizer = optim.SGD([{"params": [a], "lr": 0.5}, {"params": b, "weight_decay": 1.0}], lr=0.1)
    a.grad, b.grad = np.ones(2), np.zeros(2)
    optimizer.step()
    np.testing.assert_allclose(a.data, 0.5)
    np.testing.assert_allclose(b.data, 0.9)
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step()
    np.testing.assert_allclose(a.data, 0.5)
    optimizer.add_param_group({"params": [nn.Parameter(np.ones(1))]})
    assert optimizer.param_groups[2]["lr"] == 0.1
    assert repr(optimizer).startswith("SGD (\nParameter Group 0\n    dampening: 0.0\n    lr: 0.0\n")


def test_a_step_between_forward_and_backward_is_noticed() -> None:
    layer = nn.Linear(2, 1)
    optimizer = optim.SGD(layer.parameters(), lr=0.1)
    x = fa.tensor(np.ones((1, 2), np.float32), requires_grad=True)
    layer(x).sum().backward()
    late = layer(x).sum()
    optimizer.step()
    with pytest.raises(RuntimeError, match="changed in place"):
        late.backward()


def test_zero_grad() -> None:
    layer = nn.Linear(2, 1)
    optimizer = optim.Adam(layer.parameters())
    layer(np.ones((1, 2), np.float32)).sum().backward()
    optimizer.zero_grad()
    assert layer.weight.grad is None
    optimizer.step()  # nothing to do, and no state for it
    assert optimizer.state == {}


P = nn.Parameter(np.ones(3))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: optim.SGD([], lr=0.1), ValueError, r"\[SGD\] got no parameters"),
        (lambda: optim.SGD(P, lr=0.1), TypeError, r"\[SGD\] params must be a list .* got a Parameter"),
        (lambda: optim.SGD([np.ones(3)], lr=0.1), TypeError, r"\[SGD\] expected parameters, got ndarray"),
        (
            lambda: optim.SGD([P, P], lr=0.1),
            ValueError,
            r"\[SGD\] a parameter of shape \(3,\) was given twice",
        ),
        (lambda: optim.SGD([P * 2], lr=0.1), ValueError, r"\[SGD\] .* was computed from others"),
        (lambda: optim.SGD([P], lr=-1), ValueError, r"\[SGD\] lr must be at least 0, got -1"),
        (lambda: optim.SGD([P], lr=float("nan")), ValueError, r"\[SGD\] lr must be at least 0"),
        (lambda: optim.SGD([P], lr=1, nesterov=True), ValueError, r"\[SGD\] nesterov needs a momentum"),
        (lambda: optim.Adam([P], betas=(0.9, 1.0)), ValueError, r"\[Adam\] betas must be two numbers in"),
        (lambda: optim.AdamW([P], eps=-1e-8), ValueError, r"\[AdamW\] eps must be at least 0"),
        (lambda: optim.RMSprop([P], alpha=1.5), ValueError, r"\[RMSprop\] alpha must be in \[0, 1\]"),
        (
            lambda: optim.Adam([{"params": [P], "wd": 1}]),
            ValueError,
            r"\[Adam\] unknown wd in a group; known",
        ),
        (lambda: optim.Adam([{"lr": 1}]), TypeError, r"\[Adam\] a group must be a dict with 'params'"),
    ],
)
def test_errors(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    _, optimizer = follow(lambda ps: optim.Adam(ps), steps=3)
    before = optimizer.state_dict()

    def changed(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        state = copy.deepcopy(before)
        state["param_groups"][0]["lr"] = 77.0
        state["state"][0]["step"] = 77
        change(state)
        return state

    for change, message in [
        (
            lambda s: s["param_groups"][0]["params"].pop(),
            r"\[Adam\] the state is for groups of \[3\] parameters",
        ),
        (lambda s: s["param_groups"].append(s["param_groups"][0]), r"groups of \[4, 4\] parameters"),
        (lambda s: s["param_groups"][0].pop("betas"), r"another optimizer's: betas missing or unknown"),
        (lambda s: s["param_groups"][0].update(momentum=1), r"momentum missing or unknown"),
        (lambda s: s["param_groups"][0].update(lr=-1), r"lr must be at least 0"),
        (lambda s: s["state"].update({9: s["state"][0]}), r"has parameter 9, this optimizer has 4"),
        (lambda s: s["state"][3].update(exp_avg=np.ones(2)), r"exp_avg of parameter 3 has shape \(2,\)"),
        (lambda s: s["state"][3].pop("exp_avg"), r"state of parameter 3 lacks or should not have exp_avg"),
    ]:
        with pytest.raises(ValueError, match=message):
            optimizer.load_state_dict(changed(change))
        now = optimizer.state_dict()
        assert now["param_groups"] == before["param_groups"]
        for number, state in before["state"].items():
            for key, value in state.items():
                np.testing.assert_array_equal(now["state"][number][key], value)


# ---- clipping


@pytest.mark.parametrize("xp", array_modules(), ids=lambda xp: xp.__name__)
@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.0, float("inf")])
@pytest.mark.parametrize("max_norm", [0.5, 1e6, 0.0])
def test_clip_grad_norm(norm_type: float, max_norm: float, xp: Any) -> None:
    values = [np.random.default_rng(i).standard_normal(shape) for i, shape in enumerate(SHAPES)]
    params = [nn.Parameter(xp.zeros(shape)) for shape in [*SHAPES, (2,)]]
    for p, value in zip(params, values):
        p.grad = xp.array(value)
    arrays = [p.grad for p in params]
    flat = np.concatenate([v.ravel() for v in values])
    want = abs(flat).max() if norm_type == float("inf") else (abs(flat) ** norm_type).sum() ** (1 / norm_type)
    norm = optim.clip_grad_norm_(params, max_norm, norm_type)
    np.testing.assert_allclose(host(norm), want, rtol=1e-12)
    scale = min(1.0, max_norm / (want + 1e-6))
    for p, value, array in zip(params, values, arrays):
        assert p.grad is array
        np.testing.assert_allclose(host(p.grad), value * scale, rtol=1e-12)
    assert params[-1].grad is None


def test_clip_grad_norm_is_pytorch_s() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the second oracle here")
    mine = [nn.Parameter(np.zeros(4, np.float32)) for _ in range(2)]
    theirs = [torch.nn.Parameter(torch.zeros(4)) for _ in range(2)]
    for i, (p, q) in enumerate(zip(mine, theirs)):
        p.grad = np.arange(i, i + 4, dtype=np.float32)
        q.grad = torch.tensor(p.grad.copy())
    norm = optim.clip_grad_norm_(mine, 2.0)
    assert norm.dtype == np.float32
    np.testing.assert_allclose(norm, torch.nn.utils.clip_grad_norm_(theirs, 2.0), rtol=1e-6)
    for p, q in zip(mine, theirs):
        np.testing.assert_allclose(p.grad, q.grad, rtol=1e-6)


def test_clip_grad_value_and_errors() -> None:
    p = nn.Parameter(np.zeros(3))
    p.grad = np.array([-3.0, 0.5, 2.0])
    array = p.grad
    optim.clip_grad_value_(p, 1.0)
    assert p.grad is array
    np.testing.assert_array_equal(p.grad, [-1, 0.5, 1])
    assert optim.clip_grad_norm_([nn.Parameter(np.zeros(2))], 1.0) == 0
    assert optim.clip_grad_norm_(p, 10.0) == pytest.approx(sqrt(2.25))
    with pytest.raises(ValueError, match=r"\[clip_grad_value_\] clip_value must be at least 0"):
        optim.clip_grad_value_([p], -1.0)
    with pytest.raises(ValueError, match=r"\[clip_grad_norm_\] max_norm must be at least 0"):
        optim.clip_grad_norm_([p], -1.0)
    with pytest.raises(ValueError, match=r"\[clip_grad_norm_\] norm_type must be above 0"):
        optim.clip_grad_norm_([p], 1.0, norm_type=0)
    p.grad[0] = np.nan
    with pytest.raises(RuntimeError, match=r"\[clip_grad_norm_\] the norm of the gradients is nan"):
        optim.clip_grad_norm_([p], 1.0, error_if_nonfinite=True)


def test_a_parameter_that_cannot_be_updated_in_place_is_refused() -> None:
    p = fa.tensor(np.ones((3, 2), np.float32).T, requires_grad=True)
    (p * p).sum().backward()
    with pytest.raises(ValueError, match=r"\[SGD\] a parameter of shape \(2, 3\) is not contiguous"):
        optim.SGD([p], lr=0.1).step()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("norm_type", [2.0, 3.0])
def test_the_norm_of_16_bit_gradients_is_float32_s(dtype: str, norm_type: float) -> None:
    """100 elements of 100: their squares alone are beyond float16, and bfloat16 sums stop growing early."""
    kind = pytest.importorskip("ml_dtypes").bfloat16 if dtype == "bfloat16" else np.float16
    parameter = nn.Parameter(np.zeros(100, kind))
    parameter.grad = np.full(100, 100, kind)
    norm = optim.clip_grad_norm_(parameter, 1e-6, norm_type)
    expected = 100 * 100 ** (1 / norm_type)
    assert norm.dtype == np.float32
    np.testing.assert_allclose(norm, expected, rtol=1e-5)
    tolerance = 6e-8 if dtype == "float16" else 0  # float16 has no smaller step
    clipped = 1e-6 * 100 / expected
    np.testing.assert_allclose(parameter.grad.astype(np.float32), clipped, rtol=1e-2, atol=tolerance)
    assert parameter.grad.all()
    assert parameter.grad.dtype == kind


CHANGES: list[tuple[Any, dict[str, Any], dict[str, Any]]] = [
    (optim.SGD, {"momentum": 0.0}, {"momentum": 0.9}),
    (optim.SGD, {"momentum": 0.9}, {"momentum": 0.0}),
    (optim.RMSprop, {"momentum": 0.0}, {"momentum": 0.9, "centered": True}),
    (optim.RMSprop, {"momentum": 0.9, "centered": True}, {"momentum": 0.0, "centered": False}),
    (optim.Adam, {"amsgrad": False}, {"amsgrad": True}),
    (optim.Adam, {"amsgrad": True}, {"amsgrad": False}),
]


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize(("kind", "before", "after"), CHANGES)
def test_an_option_changed_between_steps(
    kind: Any, before: dict[str, Any], after: dict[str, Any], steps: int
) -> None:
    """The steps go on, and the state that is saved is the one that the options of now load."""

    def learn(parameter: Any, optimizer: Any, count: int) -> None:
        for _ in range(count):
            parameter.grad = np.array([1.0, -2.0])
            optimizer.step()

    p = nn.Parameter(np.array([3.0, 4.0]))
    optimizer = kind([p], lr=0.1, **before)
    learn(p, optimizer, 2)
    optimizer.param_groups[0].update(after)
    learn(p, optimizer, steps)
    q = nn.Parameter(p.data.copy())
    other = kind([q], lr=0.1, **after)
    other.load_state_dict(optimizer.state_dict())
    learn(p, optimizer, 2)
    learn(q, other, 2)
    np.testing.assert_array_equal(p.data, q.data)
