"""SGD and Adam on many parameters in one call of a kernel: the same bits as NumPy gives, on every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastarch as fa
from conftest import Backend, seeded
from fastarch import nn, optim

OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.1}),
    ("Adam", {}),
    ("Adam", {"lr": 0.05, "weight_decay": 0.1, "amsgrad": True}),
    ("AdamW", {"lr": 0.05, "weight_decay": 0.3, "amsgrad": True}),
]
# More parameters than one table of the kernel holds, of sizes below and above what one block takes.
SHAPES = [(5, 3), (), (0, 4), (4097,), (2, 4096)] + [(n,) for n in range(1, 61)]


def trained(
    name: str, options: dict[str, Any], dtype: str, backend: Backend, steps: int = 4
) -> list[np.ndarray]:
    """All parameters and states after some steps, in which now and then a parameter has no gradient."""
    rng = seeded(f"{name} {options} {dtype}")
    params = [nn.Parameter(backend.put(np.asarray(rng.standard_normal(s), dtype))) for s in SHAPES]
    optimizer = getattr(optim, name)(params, **options)
    with fa.backend(backend.name):
        for step in range(steps):
            for number, p in enumerate(params):
                gradient = np.asarray(rng.standard_normal(p.shape), dtype)
                p.grad = None if (step + number) % 7 == 0 else backend.put(gradient)
            optimizer.step()
    arrays = [backend.host(p.data) for p in params]
    for p in params:
        arrays += [np.asarray(backend.host(v)) for v in optimizer.state.get(p, {}).values() if v is not None]
    return arrays


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=lambda o: o if isinstance(o, str) else "-".join(o))
def test_kernels_round_as_numpy_does(
    name: str, options: dict[str, Any], dtype: str, backend: Backend
) -> None:
    want = trained(name, options, dtype, Backend("numpy", np))
    got = trained(name, options, dtype, backend)
    assert len(got) == len(want)
    for index, (array, expected) in enumerate(zip(got, want, strict=True)):
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected, err_msg=f"array {index}")


def test_nan_and_infinities_go_where_numpy_puts_them(backend: Backend) -> None:
    gradient = np.array([np.nan, np.inf, -np.inf, 0.0, 1e30], np.float32)
    results = []
    for where in (Backend("numpy", np), backend):
        p = nn.Parameter(where.put(np.ones(5, np.float32)))
        optimizer = optim.Adam([p], lr=0.1, amsgrad=True)
        with fa.backend(where.name), np.errstate(all="ignore"):
            for _ in range(2):
                p.grad = where.put(gradient)
                optimizer.step()
        results.append(where.host(p.data))
    np.testing.assert_array_equal(results[1], results[0])


def test_one_call_for_all_parameters_of_a_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one for each: the kernel is called once for each dtype and step count of a group."""
    calls: list[int] = []

    class Counting:
        @staticmethod
        def adam_update(params: list[Any], *_: Any) -> None:
            calls.append(len(params))

    monkeypatch.setattr("fastarch.optim.optimizer.implementation", lambda kernel, device: Counting)
    params = [nn.Parameter(np.ones(3, dtype)) for dtype in (np.float32, np.float64) for _ in range(5)]
    optimizer = optim.Adam(params)
    for used in (params, params[1:], params):
        optimizer.zero_grad()
        for p in used:
            p.grad = np.ones_like(p.data)
        optimizer.step()
    # The first parameter missed a step, so that it is on its own afterwards.
    assert sorted(calls) == [1, 4, 4, 5, 5, 5, 5]


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"grads": []}, ValueError, r"grads has 0 arrays, expected 1"),
    ({"grads": [np.ones(4, np.float32)]}, ValueError, r"grads\[0\] has 4 elements, expected 3"),
    ({"grads": [np.ones(3)]}, TypeError, "grads has dtype float64, expected float32"),
    ({"grads": [None]}, TypeError, "grads is NoneType"),
    ({"params": [np.ones(6, np.float32)[::2]]}, ValueError, "params is not contiguous"),
    ({"params": (1, 2)}, TypeError, "incompatible function arguments"),
    ({"lr": "fast"}, TypeError, "incompatible function arguments"),
]


@pytest.mark.parametrize(
    ("changes", "error", "match"), BAD, ids=[str(list(b[0])) + str(i) for i, b in enumerate(BAD)]
)
@pytest.mark.backends("cpu", "emulator")
def test_kernels_refuse_what_does_not_fit(
    changes: dict[str, Any], error: type[Exception], match: str, backend: Backend
) -> None:
    valid: dict[str, Any] = {
        "params": [np.ones(3, np.float32)],
        "grads": [np.ones(3, np.float32)],
        "buffers": [],
        "lr": 0.1,
        "momentum": 0.0,
        "keep": 1.0,
        "decay": 0.0,
        "nesterov": False,
        "first": False,
    }
    kernel = fa.backends.implementation("sgd_update", False)
    with fa.backend(backend.name):
        kernel = fa.backends.implementation("sgd_update", False)
    kernel.sgd_update(**valid)
    assert valid["params"][0].tolist() == pytest.approx([0.9] * 3)
    with pytest.raises(error, match=match):
        kernel.sgd_update(**{**valid, **changes})


@pytest.mark.backends("cpu", "emulator")
def test_a_read_only_parameter_is_refused(backend: Backend) -> None:
    frozen = np.ones(3, np.float32)
    frozen.flags.writeable = False
    p = fa.tensor(frozen, requires_grad=True)
    p.grad = np.ones(3, np.float32)
    with fa.backend(backend.name), pytest.raises(ValueError, match="read-only"):
        optim.SGD([p], lr=0.1).step()
