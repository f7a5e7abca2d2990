"""Cells, one step at a time: equality with PyTorch in random configurations, with their layers in a loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastarch as fa
from conftest import FLOATS, Backend
from fastarch import nn
from test_recurrent_layers import KINDS, as_states, on_kernels, with_torch

GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}
# Units of the last place of what a step computes, relative to the largest element.
ROUNDING = {"float64": 1e-13, "float32": 2e-5, "float16": 8 * 2.0**-11, "bfloat16": 8 * 2.0**-8}


def compare_with_torch(kind: str, rng: np.random.Generator, backend: Backend) -> None:
    """The next states and every gradient by the operators, against PyTorch in float64."""
    import torch

    torch.set_num_threads(1)
    dtype = str(rng.choice(list(ROUNDING)))
    n, d, h = (int(v) for v in rng.integers((1, 1, 1), (20, 40, 40)))
    gates = GATES[kind] * h
    options = {"nonlinearity": "relu"} if kind == "RNN" and dtype.startswith("float32") else {}
    shapes = {
        "x": (n, d),
        "h": (n, h),
        "w_ih": (gates, d),
        "w_hh": (gates, h),
        "b_ih": (gates,),
        "b_hh": (gates,),
    }
    if kind == "LSTM":
        shapes["c"] = (n, h)
    scale = {"w_ih": d**-0.5, "w_hh": h**-0.5}
    arrays = {
        name: (scale.get(name, 1) * rng.standard_normal(shape)).astype(FLOATS[dtype])
        for name, shape in shapes.items()
    }
    states_of = ("h", "c") if kind == "LSTM" else ("h",)
    slopes = [rng.standard_normal((n, h)).astype(FLOATS[dtype]) for _ in states_of]
    absent = {name for name in ("h", "b_ih", "b_hh") if rng.random() < 0.2}
    if kind == "LSTM" and "h" in absent:
        absent.add("c")
    given: dict[str, Any] = {name: None if name in absent else array for name, array in arrays.items()}

    peer = getattr(torch.nn, f"{kind}Cell")(d, h, **options).double()
    wide = {
        name: torch.tensor(array.astype(np.float64) * (name not in absent)) for name, array in arrays.items()
    }
    for name, parameter in zip(("w_ih", "w_hh", "b_ih", "b_hh"), peer.parameters(), strict=True):
        parameter.data = wide[name]
    states = [wide[name].requires_grad_() for name in states_of]
    x = wide["x"].requires_grad_()
    expected = as_states(peer(x, tuple(states) if kind == "LSTM" else states[0]))
    torch.autograd.backward(expected, [torch.tensor(slope.astype(np.float64)) for slope in slopes])
    weights = dict(zip(("w_ih", "w_hh", "b_ih", "b_hh"), peer.parameters(), strict=True))

    put = {name: None if array is None else backend.put(array) for name, array in given.items()}
    name = f"{kind.lower()}_cell"
    keep = bool(rng.random() < 0.5)
    outputs = as_states(backend.call(name, put | options | {"save": keep}))
    *outputs, saved = outputs if keep else (*outputs, None)
    back = {f"d{state}": backend.put(slope) for state, slope in zip(states_of, slopes)}
    found = backend.call(f"{name}_backward", back | put | options | {"saved": saved})
    pairs = [(f"next {state}", output, value) for state, output, value in zip(states_of, outputs, expected)]
    sources = {"x": x, **dict(zip(states_of, states)), **weights}
    pairs += [(of, getattr(found, of), source.grad) for of, source in sources.items()]
    for what, ours, theirs in pairs:
        if ours is None:
            assert what in absent, what
            continue
        assert what not in absent, what
        reference = theirs.detach().numpy()
        atol = ROUNDING[dtype] * max(1, np.abs(reference).max())
        error = f"{kind} {dtype} {(n, d, h)} without {sorted(absent)}: {what}"
        result = backend.host(ours)
        assert str(result.dtype) == dtype
        np.testing.assert_allclose(result.astype(np.float64), reference, rtol=0, atol=atol, err_msg=error)


@with_torch
@on_kernels
@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_pytorch(kind: str, backend: Backend, count_configurations) -> None:
    number = 150
    for index in range(number):
        compare_with_torch(kind, np.random.default_rng([index, len(kind), ord(kind[0])]), backend)
    count_configurations(f"{kind.lower()}_cell on {backend} against PyTorch", number)


@on_kernels
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize("options", [{}, {"zoneout": 0.4, "stream": (3, 5)}], ids=["plain", "zoneout"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_step_saves_spares_it_alone(
    kind: str, options: dict[str, Any], dtype: str, backend: Backend
) -> None:
    """Gradients with and without it; in 16 bits the gates are rounded in between."""
    rng = np.random.default_rng(5)
    shapes = {"x": (9, 7), "h": (9, 11), "w_ih": (GATES[kind] * 11, 7), "w_hh": (GATES[kind] * 11, 11)}
    if kind == "LSTM":
        shapes["c"] = (9, 11)
    call = {name: rng.standard_normal(shape).astype(FLOATS[dtype]) for name, shape in shapes.items()}
    arrays = {name: backend.put(value) for name, value in call.items()} | options
    name = f"{kind.lower()}_cell"
    *states, saved = backend.call(name, {**arrays, "save": True})
    plain = as_states(backend.call(name, arrays))
    for with_it, without in zip(states, plain, strict=True):
        np.testing.assert_array_equal(backend.host(with_it), backend.host(without))
    slopes = {f"d{of}": state for of, state in zip(("h", "c"), states)}
    kept = backend.call(f"{name}_backward", {**slopes, **arrays, "saved": saved})
    again = backend.call(f"{name}_backward", {**slopes, **arrays})
    for with_it, without in zip(kept, again, strict=True):
        assert (with_it is None) == (without is None)
        if with_it is not None:
            ours, theirs = (backend.host(value).astype(np.float64) for value in (with_it, without))
            atol = ROUNDING[dtype] * max(1, np.abs(theirs).max())
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)


@on_kernels
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_bias_gradients_of_many_sequences(kind: str, dtype: str, backend: Backend) -> None:
    """They are sums over the batch, which 16 bits could not hold: in float32, also where there is no h."""
    n, units, wide = 3000, 3, FLOATS[dtype]
    rng = np.random.default_rng(2)
    gates = GATES[kind] * units
    call = {"x": np.zeros((n, 2)), "w_ih": np.ones((gates, 2)), "w_hh": rng.standard_normal((gates, units))}
    call |= {"b_ih": np.zeros(gates), "b_hh": 0.5 * np.ones(gates), "dh": np.ones((n, units))}
    for h in (None, np.zeros((n, units))):
        arrays = {name: backend.put(value.astype(wide)) for name, value in call.items()}
        states = {"h": h if h is None else backend.put(h.astype(wide))}
        states |= {"c": None, "dc": None} if kind == "LSTM" else {}
        found = backend.call(f"{kind.lower()}_cell_backward", arrays | states)
        with fa.backend("numpy"):
            exact = {name: value.astype(np.float64) for name, value in call.items()}
            expected = getattr(fa.ops, f"{kind.lower()}_cell_backward")(**exact, **(states | {"h": h}))
        for name in ("b_ih", "b_hh"):
            ours, theirs = backend.host(getattr(found, name)).astype(np.float64), getattr(expected, name)
            atol = 4 * ROUNDING[dtype] * np.abs(theirs).max()
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol, err_msg=name)


@on_kernels
@pytest.mark.parametrize("where", ["x", "h"])
@pytest.mark.parametrize("kind", KINDS)
def test_infinities_stay_where_they_belong(kind: str, where: str, backend: Backend) -> None:
    """One kernel reads zeros beside x and h, and zero times infinity is not zero."""
    rng = np.random.default_rng(4)
    shapes = {"x": (3, 5), "h": (3, 7), "w_ih": (GATES[kind] * 7, 5), "w_hh": (GATES[kind] * 7, 7)}
    shapes |= {"c": (3, 7)} if kind == "LSTM" else {}
    call = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    call[where][0, 0] = np.inf
    outputs = as_states(backend.call(f"{kind.lower()}_cell", {k: backend.put(v) for k, v in call.items()}))
    with fa.backend("numpy"), np.errstate(invalid="ignore"):
        expected = as_states(getattr(fa.ops, f"{kind.lower()}_cell")(**call))
    for ours, theirs in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(backend.host(ours), theirs, rtol=2e-5, atol=2e-5)


@pytest.mark.backends("emulator")
@pytest.mark.parametrize("kind", KINDS)
def test_the_way_back_may_go_by_another_backend(kind: str, backend: Backend) -> None:
    """Whose work is in float32 where the kernels of the way there kept 16 bits."""
    cell = getattr(nn, f"{kind}Cell")(3, 4, dtype=np.float16)
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float16)
    gradients = []
    for way_back in ("emulator", "numpy"):
        cell.zero_grad()
        with fa.backend("emulator"):
            total = as_states(cell(x))[0].sum()
        with fa.backend(way_back):
            total.backward()
        gradients.append([p.grad.astype(np.float32) for p in cell.parameters()])
    for one, other in zip(*gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=0.02)


@with_torch
@pytest.mark.parametrize("kind", KINDS)
def test_cells_are_pytorch(kind: str) -> None:
    import torch

    rng = np.random.default_rng(3)
    x, h, c = (rng.standard_normal(shape) for shape in ((4, 3), (4, 5), (4, 5)))
    cell, peer = (
        getattr(nn, f"{kind}Cell")(3, 5, dtype=np.float64),
        getattr(torch.nn, f"{kind}Cell")(3, 5).double(),
    )
    cell.load_state_dict(peer.state_dict())
    hx, t_hx = ((h, c), (torch.tensor(h), torch.tensor(c))) if kind == "LSTM" else (h, torch.tensor(h))
    for states, t_states in ((hx, t_hx), (None, None)):
        cell.zero_grad()
        peer.zero_grad()
        outputs, peers = as_states(cell(x, states)), as_states(peer(torch.tensor(x), t_states))
        sum(((o * o).sum() for o in outputs), fa.tensor(0.0)).backward()
        sum((o * o).sum() for o in peers).backward()
        for output, expected in zip(outputs, peers, strict=True):
            np.testing.assert_allclose(output.data, expected.detach().numpy(), rtol=1e-12, atol=1e-12)
        for (name, p), q in zip(cell.named_parameters(), peer.parameters(), strict=True):
            np.testing.assert_allclose(p.grad, q.grad.numpy(), rtol=1e-11, atol=1e-11, err_msg=name)


LOOPS: list[tuple[str, dict[str, Any]]] = [
    ("RNN", {"layer_norm": True, "nonlinearity": "relu"}),
    ("RNN", {"zoneout": 0.3, "bias": False}),
    ("LSTM", {"proj_size": 2, "forget_bias": 1.0}),
    ("LSTM", {"proj_size": 3, "layer_norm": True, "zoneout": 0.2, "zoneout_cell": 0.3}),
    ("GRU", {"layer_norm": True, "zoneout": 0.4}),
    ("GRU", {"reset_before": True, "zoneout": 0.4, "bias": False}),
    *((kind, {"dropconnect": 0.5}) for kind in KINDS),
]


@pytest.mark.parametrize(("kind", "options"), LOOPS, ids=str)
def test_a_loop_over_cells_is_the_layer(kind: str, options: dict[str, Any]) -> None:
    """Outputs and gradients; DropConnect in training, on one draw for the loop, the others in evaluation."""
    x = np.random.default_rng(1).standard_normal((6, 4, 3))
    layer = getattr(nn, kind)(3, 5, **options, dtype=np.float64)
    cell = getattr(nn, f"{kind}Cell")(3, 5, **options, dtype=np.float64)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in layer.state_dict().items()})
    if "dropconnect" not in options:
        layer.eval(), cell.eval()
    fa.manual_seed(3)
    y, last = layer(x)
    (y * y).sum().backward()
    fa.manual_seed(3)
    state, total, weight = None, fa.tensor(0.0), cell.recurrent_weight()
    for t in range(6):
        state = cell(x[t], state, weight_hh=weight)
        h = as_states(state)[0]
        total = total + (h * h).sum()
        np.testing.assert_allclose(h.data, y.data[t], rtol=1e-12, atol=1e-12)
    total.backward()
    for ours, end in zip(as_states(state), as_states(last), strict=True):
        np.testing.assert_allclose(ours.data, end.data[0], rtol=1e-12, atol=1e-12)
    for (name, p), q in zip(cell.named_parameters(), layer.parameters(), strict=True):
        np.testing.assert_allclose(p.grad, q.grad, rtol=1e-10, atol=1e-11, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_cells_draw_at_each_call_and_not_in_evaluation(kind: str) -> None:
    x, h = np.ones((8, 3), np.float32), np.ones((8, 16), np.float32)
    hx = (h, h) if kind == "LSTM" else h
    for options in ({"zoneout": 0.5}, {"dropconnect": 0.5}):
        cell = getattr(nn, f"{kind}Cell")(3, 16, **options)
        first, second = (as_states(cell(x, hx))[0].data for _ in range(2))
        assert not np.array_equal(first, second)
        if "zoneout" in options:
            assert 0.3 < np.mean(first == h) < 0.7
        before = fa.random.get_state()
        first, second = (as_states(cell.eval()(x, hx))[0].data for _ in range(2))
        assert np.array_equal(first, second)
        assert fa.random.get_state() == before
