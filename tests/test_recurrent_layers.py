"""Recurrent layers: equality with PyTorch in every option, weights both ways, truncated gradients, long
memory.
"""

from __future__ import annotations

import importlib.util
import tracemalloc
from typing import Any

import numpy as np
import pytest

import fastarch as fa
from conftest import Backend
from fastarch import nn

HAS_TORCH = importlib.util.find_spec("torch") is not None
KINDS = ("RNN", "LSTM", "GRU")
with_torch = pytest.mark.skipif(not HAS_TORCH, reason="compares with PyTorch, which is not installed")
on_kernels = pytest.mark.backends("numpy", "cpu", "emulator", "cuda")


def as_states(states: Any) -> tuple:
    return tuple(states) if isinstance(states, (tuple, list)) else (states,)


def random_options(rng: np.random.Generator, kind: str) -> dict[str, Any]:
    options: dict[str, Any] = {
        "num_layers": int(rng.integers(1, 4)),
        "bias": bool(rng.random() < 0.7),
        "batch_first": bool(rng.random() < 0.5),
        "bidirectional": bool(rng.random() < 0.5),
    }
    if kind == "RNN" and rng.random() < 0.5:
        options["nonlinearity"] = "relu"
    if kind == "LSTM" and rng.random() < 0.5:
        options["proj_size"] = int(rng.integers(1, 3))
    return options


def compare_with_torch(kind: str, rng: np.random.Generator, backend: Backend) -> None:
    """Outputs, last states and every gradient, for the weights of one given to the other."""
    import torch

    torch.set_num_threads(1)
    options = random_options(rng, kind)
    t, n, d, h = (int(v) for v in rng.integers((1, 1, 1, 3), (7, 5, 6, 9)))
    dtype = np.dtype(str(rng.choice(["float32", "float64"])))
    peer = getattr(torch.nn, kind)(d, h, **options).to(getattr(torch, dtype.name))
    layer = getattr(nn, kind)(d, h, **options, dtype=dtype)
    if rng.random() < 0.5:
        layer.load_state_dict(peer.state_dict())
    else:
        peer.load_state_dict({name: torch.tensor(value) for name, value in layer.state_dict().items()})
    assert list(layer.state_dict()) == list(peer.state_dict())
    if backend.name == "cuda":
        layer.cuda()
    lengths = [int(v) for v in rng.integers(1, t + 1, n)] if rng.random() < 0.5 else None
    x = rng.standard_normal((n, t, d) if options["batch_first"] else (t, n, d)).astype(dtype)
    layers, count = options["num_layers"] * (1 + options["bidirectional"]), 2 if kind == "LSTM" else 1
    widths = (options.get("proj_size", h), h)[:count]
    states = [rng.standard_normal((layers, n, width)).astype(dtype) for width in widths]
    states = states if rng.random() < 0.7 else None

    tx = torch.tensor(x, requires_grad=True)
    t_states = None if states is None else [torch.tensor(s, requires_grad=True) for s in states]
    packed: Any = tx
    if lengths is not None:
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            tx, torch.tensor(lengths), options["batch_first"], enforce_sorted=False
        )
    t_hx = None if t_states is None else tuple(t_states) if count == 2 else t_states[0]
    ty, t_last = peer(packed, t_hx)
    if lengths is not None:
        ty, _ = torch.nn.utils.rnn.pad_packed_sequence(ty, options["batch_first"], total_length=t)

    fx = fa.tensor(backend.put(x), requires_grad=True)
    f_states = None if states is None else [fa.tensor(backend.put(s), requires_grad=True) for s in states]
    f_hx = None if f_states is None else tuple(f_states) if count == 2 else f_states[0]
    with fa.backend(backend.name):
        y, last = layer(fx, f_hx, lengths=lengths)
        outputs = [y, *as_states(last)]
        peers = [ty, *as_states(t_last)]
        weights = [rng.standard_normal(output.shape).astype(dtype) for output in outputs]
        sum(
            ((o * fa.tensor(backend.put(w))).sum() for o, w in zip(outputs, weights)), fa.tensor(0.0)
        ).backward()
    sum((o * torch.tensor(w)).sum() for o, w in zip(peers, weights)).backward()

    pairs = [(f"output {i}", o.data, p.detach()) for i, (o, p) in enumerate(zip(outputs, peers, strict=True))]
    pairs.append(("x", fx.grad, tx.grad))
    if f_states is not None and t_states is not None:
        pairs += [(f"state {i}", f.grad, s.grad) for i, (f, s) in enumerate(zip(f_states, t_states))]
    gradients = dict(peer.named_parameters())
    pairs += [(name, p.grad, gradients[name].grad) for name, p in layer.named_parameters()]
    tolerance = 5e-4 if dtype == np.float32 else 1e-10
    for name, got, want in pairs:
        message = f"{name} of {kind} {options} x {x.shape} hidden {h} lengths {lengths} {dtype}"
        np.testing.assert_allclose(
            backend.host(got), want.numpy(), rtol=tolerance, atol=tolerance, err_msg=message
        )


@with_torch
@on_kernels
@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_pytorch(kind: str, backend: Backend, count_configurations) -> None:
    number = 25 if backend.name == "emulator" else 100
    for index in range(number):
        compare_with_torch(kind, np.random.default_rng([index, len(kind), ord(kind[0])]), backend)
    count_configurations(f"nn.{kind} on {backend} against PyTorch", number)


@pytest.mark.parametrize("kind", KINDS)
def test_one_sequence_without_a_batch(kind: str) -> None:
    layer = getattr(nn, kind)(3, 4, 2, bidirectional=True)
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    y, last = layer(x)
    y_batch, last_batch = layer(x[:, None])
    assert y.shape == (5, 8)
    assert np.array_equal(y.data, y_batch.data[:, 0])
    for one, batch in zip(as_states(last), as_states(last_batch), strict=True):
        assert np.array_equal(one.data, batch.data[:, 0])
    assert np.array_equal(layer(x, last)[0].data, layer(x[:, None], last_batch)[0].data[:, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_truncated_backpropagation_carries_states_and_cuts_gradients(kind: str) -> None:
    """Pieces of a sequence give the outputs of the whole; the gradient of a piece is that of the piece
    alone.
    """
    rng = np.random.default_rng(4)
    layer = getattr(nn, kind)(3, 5, 2, dtype=np.float64)
    x = rng.standard_normal((12, 2, 3))
    whole, _ = layer(x)
    states: Any = None
    for start in range(0, 12, 4):
        carried = states
        layer.zero_grad()
        y, states = layer(x[start : start + 4], carried)
        np.testing.assert_allclose(y.data, whole.data[start : start + 4], rtol=1e-12, atol=1e-12)
        y.sum().backward()
        got = [p.grad.copy() for p in layer.parameters()]
        # The same from plain arrays, which no gradient leads past.
        arrays = None if carried is None else tuple(s.data.copy() for s in as_states(carried))
        layer.zero_grad()
        layer(x[start : start + 4], arrays if kind == "LSTM" or arrays is None else arrays[0])[
            0
        ].sum().backward()
        assert all(np.array_equal(a, p.grad) for a, p in zip(got, layer.parameters(), strict=True))
        states = tuple(s.detach() for s in states) if kind == "LSTM" else states.detach()


def test_dropout_acts_between_layers_and_in_training_alone() -> None:
    layer = nn.LSTM(3, 4, 2, dropout=1.0)
    x = np.ones((5, 2, 3), np.float32)
    trained, _ = layer(x)
    second = nn.LSTM(4, 4)
    second.load_state_dict({k.replace("l1", "l0"): v for k, v in layer.state_dict().items() if "l1" in k})
    assert np.array_equal(trained.data, second(np.zeros((5, 2, 4), np.float32))[0].data)
    plain = nn.LSTM(3, 4, 2)
    plain.load_state_dict(layer.state_dict())
    assert np.array_equal(layer.eval()(x)[0].data, plain(x)[0].data)


@pytest.mark.parametrize("kind", KINDS)
def test_dropconnect_drops_recurrent_weights(kind: str) -> None:
    layer = getattr(nn, kind)(3, 4, dropconnect=1.0)
    x = np.ones((5, 2, 3), np.float32)
    dropped, _ = layer(x)
    evaluated, _ = layer.eval()(x)
    layer.weight_hh_l0.data[...] = 0
    assert np.array_equal(dropped.data, layer(x)[0].data)
    assert not np.array_equal(dropped.data, evaluated.data)
    half = getattr(nn, kind)(3, 4, dropconnect=0.5)
    results = []
    for seed in (1, 1, 2):
        fa.random.manual_seed(seed)
        results.append(half(x)[0].data)
    assert np.array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


@pytest.mark.parametrize("kind", KINDS)
def test_zoneout_keeps_states_in_training_and_mixes_them_after(kind: str) -> None:
    """Probability 1 keeps the first state for ever; else masks are drawn anew, and evaluation draws none."""
    x = np.random.default_rng(0).standard_normal((5, 2, 3)).astype(np.float32)
    frozen = getattr(nn, kind)(3, 4, zoneout=1.0)
    assert not frozen(x)[0].data.any()
    layer = getattr(nn, kind)(3, 4, zoneout=0.5, dtype=np.float64)
    x = x.astype(np.float64)
    results = []
    for seed in (1, 1, 2):
        fa.random.manual_seed(seed)
        results.append(layer(x)[0].data)
    assert np.array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])
    kept = [np.mean(y[1:] == y[:-1]) for y in (layer(np.repeat(x, 40, 1))[0].data for _ in range(5))]
    assert 0.4 < np.mean(kept) < 0.6
    before = fa.random.get_state()
    first, second = (layer.eval()(x)[0].data for _ in range(2))
    assert np.array_equal(first, second)
    assert fa.random.get_state() == before
    plain = getattr(nn, kind)(3, 4, dtype=np.float64)
    plain.load_state_dict(layer.state_dict())
    np.testing.assert_allclose(first[0], 0.5 * plain(x)[0].data[0], rtol=1e-12)


def test_zoneout_of_the_cell_alone() -> None:
    x = np.ones((5, 2, 3), np.float32)
    layer = nn.LSTM(3, 4, zoneout_cell=1.0)
    c0 = np.full((1, 2, 4), 0.25, np.float32)
    y, (h, c) = layer(x, (np.zeros_like(c0), c0))
    assert np.array_equal(c.data, c0)
    assert y.data.any()
    assert np.array_equal(h.data[0], y.data[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_layer_norm_makes_the_scale_of_weights_irrelevant(kind: str) -> None:
    """And its gains and biases are learned, under names of their own in the state dict."""
    x = np.random.default_rng(1).standard_normal((4, 2, 3))
    layer = getattr(nn, kind)(3, 16, 2, bidirectional=True, layer_norm=True, dtype=np.float64)
    names = ["norm_ih", "norm_hh"] + (["norm_c", "norm_c_bias"] if kind == "LSTM" else [])
    ends = ("l0", "l0_reverse", "l1", "l1_reverse")
    expected = {f"{name}_{end}" for name in names for end in ends}
    assert {name for name in layer.state_dict() if name.startswith("norm")} == expected
    y, _ = layer(x)
    y.sum().backward()
    assert all(np.abs(p.grad).max() > 0 for p in layer.parameters())
    for name, parameter in layer.named_parameters():
        if name.startswith("weight_ih_l0"):
            parameter.data *= 100
        if name.startswith("weight_hh"):
            parameter.data *= 3
            parameter.data += 0.5  # the same for all gates: a mean that is taken away
    np.testing.assert_allclose(layer(x)[0].data, y.data, atol=1e-2)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_16_bit_layers_begin_as_float32_s(name: str) -> None:
    kind = np.dtype(np.float16) if name == "float16" else fa.arrays.bfloat16_dtype("test", "dtype")
    for make in (
        lambda dtype: nn.LSTM(3, 4, proj_size=2, layer_norm=True, dtype=dtype),
        lambda dtype: nn.GRUCell(3, 4, dtype=dtype),
        lambda dtype: nn.Linear(3, 4, dtype=dtype),
        lambda dtype: nn.Conv2d(3, 4, 3, dtype=dtype),
    ):
        fa.manual_seed(3)
        wide = make(np.float32)
        fa.manual_seed(3)
        narrow = make(kind)
        for a, b in zip(wide.parameters(), narrow.parameters(), strict=True):
            assert b.dtype == kind
            assert np.array_equal(a.data.astype(kind), b.data)


def test_forget_bias() -> None:
    layer = nn.LSTM(3, 4, 2, bidirectional=True, forget_bias=1.0)
    for suffix in ("l0", "l0_reverse", "l1", "l1_reverse"):
        total = sum(getattr(layer, f"bias_{part}_{suffix}").data for part in ("ih", "hh"))
        assert np.array_equal(total[4:8], np.ones(4))
        assert len(set(total.tolist())) == 13


def test_gru_forms_differ_and_both_learn() -> None:
    x = np.random.default_rng(1).standard_normal((6, 4, 3)).astype(np.float32)
    after, before = nn.GRU(3, 5), nn.GRU(3, 5, reset_before=True)
    before.load_state_dict(after.state_dict())
    y, _ = before(x)
    assert not np.allclose(y.data, after(x)[0].data)
    y.sum().backward()
    assert all(np.abs(p.grad).max() > 0 for p in before.parameters())
    cell = nn.GRUCell(3, 5, reset_before=True)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in before.state_dict().items()})
    h = None
    for t in range(6):
        h = cell(x[t], h)
        np.testing.assert_allclose(h.data, y.data[t], rtol=1e-6, atol=1e-6)


def test_how_it_looks_and_counts() -> None:
    assert repr(nn.LSTM(3, 4)) == "LSTM(3, 4)"
    assert repr(nn.GRU(3, 4, 2, bidirectional=True)) == "GRU(3, 4, num_layers=2, bidirectional=True)"
    assert repr(nn.RNN(3, 4, nonlinearity="relu")) == "RNN(3, 4, nonlinearity='relu')"
    assert repr(nn.LSTMCell(3, 4, bias=False)) == "LSTMCell(3, 4, bias=False)"
    step = nn.LSTMCell(3, 4, proj_size=2, layer_norm=True)
    assert repr(step) == "LSTMCell(3, 4, proj_size=2, layer_norm=True)"
    assert step.multiply_adds((5, 3), (5, 2)) == 5 * (16 * (3 + 2) + 2 * 4)
    assert repr(nn.LSTM(3, 4, forget_bias=1.0)) == "LSTM(3, 4, forget_bias=1.0)"
    assert repr(nn.GRUCell(3, 4, reset_before=True)) == "GRUCell(3, 4, reset_before=True)"
    layer = nn.LSTM(3, 4, 2, bidirectional=True)
    assert layer.multiply_adds((5, 2, 3), (5, 2, 8)) == 5 * 2 * 2 * 16 * ((3 + 4) + (8 + 4))
    small = nn.LSTM(3, 4, 2, proj_size=2, zoneout=0.1, layer_norm=True)
    assert repr(small) == "LSTM(3, 4, num_layers=2, proj_size=2, zoneout=0.1, layer_norm=True)"
    assert small.multiply_adds((5, 2, 3), (5, 2, 2)) == 5 * 2 * (16 * ((3 + 2) + (2 + 2)) + 2 * 2 * 4)


BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda: nn.LSTM(0, 4), ValueError, "input_size must be positive"),
    (lambda: nn.GRU(3, 2.0), TypeError, "hidden_size must be an int"),
    (lambda: nn.RNN(3, 4, dropout=1.5), ValueError, "dropout must be in"),
    (lambda: nn.RNN(3, 4, nonlinearity="gelu"), ValueError, "nonlinearity must be"),
    (lambda: nn.LSTM(3, 4, bias=False, forget_bias=1.0), ValueError, "forget_bias needs bias"),
    (lambda: nn.LSTM(3, 4, proj_size=4), ValueError, "proj_size must be 0"),
    (lambda: nn.LSTM(3, 4, zoneout_cell=-0.1), ValueError, "zoneout_cell must be in"),
    (lambda: nn.GRU(3, 4, proj_size=2), TypeError, "proj_size is for an LSTM alone"),
    (lambda: nn.RNN(3, 4, zoneout_cell=0.1), TypeError, "zoneout_cell is for an LSTM alone"),
    (lambda: nn.GRU(3, 4, layer_norm=True, reset_before=True), ValueError, "reset_before=False"),
    (lambda: nn.GRU(3, 4, forget_bias=1.0), TypeError, "forget_bias is for an LSTM alone"),
    (lambda: nn.RNNCell(3, 4, proj_size=2), TypeError, "proj_size is for an LSTM alone"),
    (lambda: nn.RNNCell(3, 4, nonlinearity="gelu"), ValueError, "nonlinearity must be"),
    (lambda: nn.GRUCell(3, 4, zoneout=2), ValueError, "zoneout must be in"),
    (lambda: nn.GRUCell(3, 4, layer_norm=True, reset_before=True), ValueError, "reset_before=False"),
    (lambda: nn.LSTMCell(3, 4, proj_size=4), ValueError, "proj_size must be 0"),
    (lambda: nn.LSTMCell(3, 4)(np.zeros((2, 3)), np.zeros((2, 4))), TypeError, "must be a pair"),
    (lambda: nn.GRU(3, 4, drop_out=0.5), TypeError, r"\[GRU\] got an unexpected keyword argument 'drop_out'"),
    (lambda: nn.LSTM(3, 4, foo=1), TypeError, r"\[LSTM\] got an unexpected keyword argument 'foo'"),
    (lambda: nn.LSTMCell(3, 4, proj=1), TypeError, r"\[LSTMCell\] got an unexpected keyword argument 'proj'"),
    (lambda: nn.RNN(3, 4, zoneout="a"), TypeError, r"\[RNN\] zoneout must be a number, got 'a'"),
    (lambda: nn.RNN(3, 4, zoneout=None), TypeError, r"\[RNN\] zoneout must be a number, got None"),
    (lambda: nn.GRU(3, 4, dropout="a"), TypeError, r"\[GRU\] dropout must be a number, got 'a'"),
    (lambda: nn.LSTM(3, 4, proj_size=1.5), TypeError, r"\[LSTM\] proj_size must be an int, got 1.5"),
    (lambda: nn.LSTM(3, 4, proj_size="a"), TypeError, r"\[LSTM\] proj_size must be an int, got 'a'"),
    (lambda: nn.LSTM(3, 4, forget_bias="x"), TypeError, r"\[LSTM\] forget_bias must be a number, got 'x'"),
    (lambda: nn.GRU(3, 4)(np.zeros((5, 2, 4), np.float32)), ValueError, r"expected \[T, N, 3\] or \[T, 3\]"),
    (lambda: nn.GRU(3, 4, batch_first=True)(np.zeros(3, np.float32)), ValueError, r"expected \[N, T, 3\]"),
    (lambda: nn.GRU(3, 4)(np.zeros((5, 2, 3)), np.zeros((2, 2, 4))), ValueError, "hx has shape"),
    (lambda: nn.LSTM(3, 4)(np.zeros((5, 2, 3)), np.zeros((1, 2, 4))), TypeError, "must be a pair"),
    (
        lambda: nn.LSTM(3, 4)(np.zeros((5, 2, 3))),
        TypeError,
        r"\[lstm\] w_ih has dtype float32, expected float64",
    ),
]


@pytest.mark.parametrize(("make", "error", "match"), BAD, ids=[match for *_, match in BAD])
def test_bad_arguments(make: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        make()


FULL: list[tuple[str, dict[str, Any]]] = [
    ("RNN", {"num_layers": 2, "bidirectional": True}),
    ("GRU", {"num_layers": 2, "bidirectional": True, "layer_norm": True}),
    ("GRU", {"num_layers": 2, "reset_before": True}),
    ("LSTM", {"num_layers": 2, "bidirectional": True}),
    (
        "LSTM",
        {"num_layers": 2, "bidirectional": True, "proj_size": 3, "layer_norm": True, "batch_first": True},
    ),
    ("LSTM", {"num_layers": 2, "zoneout": 0.3, "zoneout_cell": 0.3, "dropout": 0.4, "dropconnect": 0.3}),
]


@pytest.mark.parametrize(("kind", "options"), FULL, ids=str)
def test_full_backpropagation_through_time_against_differences(kind: str, options: dict[str, Any]) -> None:
    """Every parameter, the input and the first states of a deep layer with a head and a loss on it."""
    rng = np.random.default_rng(7)
    layer = getattr(nn, kind)(3, 5, **options, dtype=np.float64)
    head = nn.Linear(layer.output_size * layer.directions, 4, dtype=np.float64)
    x = fa.tensor(rng.standard_normal((6, 6, 3)), requires_grad=True)
    h = fa.tensor(rng.standard_normal((2 * layer.directions, 6, layer.output_size)), requires_grad=True)
    c = fa.tensor(rng.standard_normal((2 * layer.directions, 6, 5)), requires_grad=True)
    leaves = [x, h, *([c] if kind == "LSTM" else []), *layer.parameters(), *head.parameters()]
    target = rng.integers(0, 4, 36)

    def loss() -> Any:
        fa.manual_seed(3)  # the same masks each time
        y, _ = layer(x, (h, c) if kind == "LSTM" else h, lengths=[6, 2, 4, 1, 6, 3])
        return nn.functional.cross_entropy(head(y).reshape(36, 4), target)

    loss().backward()
    for index, leaf in enumerate(leaves):
        direction = rng.standard_normal(leaf.shape)
        ends = []
        for step in (3e-6, -6e-6):
            leaf.data += step * direction
            ends.append(loss().item())
        leaf.data += 3e-6 * direction
        slope = float((leaf.grad * direction).sum())
        assert abs(slope - (ends[0] - ends[1]) / 6e-6) < 1e-7, f"leaf {index} of {kind} {options}"


def test_nothing_is_kept_after_a_step() -> None:
    """Memory after many training steps of a long sequence is what it was after the first ones."""
    layer = nn.LSTM(8, 16, 2)
    x = np.random.default_rng(0).standard_normal((2000, 2, 8)).astype(np.float32)

    def step() -> None:
        layer.zero_grad()
        layer(x)[0].sum().backward()

    tracemalloc.start()
    try:
        for _ in range(3):
            step()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(10):
            step()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak > before + 100_000  # the measurement sees the arrays
    assert after < before + 20_000


def adding_error(kind: str, steps: int) -> float:
    """The mean squared error of the last 20 of `steps` batches of the adding problem at T = 200.

    Two numbers of 200 are marked, and their sum is wanted: Hochreiter and Schmidhuber (1997). Always to
    answer 1 has an error of 1/6. The gates start such that little is forgotten and little added (Tallec and
    Ollivier 2018).
    """
    t_count, n, units = 200, 32, 16
    fa.random.manual_seed(1)
    rng = np.random.default_rng(0)
    layer, head = getattr(nn, kind)(2, units), nn.Linear(units, 1)
    if kind != "RNN":
        layer.bias_ih_l0.data[units : 2 * units] = 0
        layer.bias_hh_l0.data[units : 2 * units] = 5
    if kind == "LSTM":
        layer.bias_ih_l0.data[:units] = 0
        layer.bias_hh_l0.data[:units] = -4
    parameters = [*layer.parameters(), *head.parameters()]
    optimizer = fa.optim.Adam(parameters, lr=0.02)
    errors = []
    for _ in range(steps):
        values, marks = rng.random((t_count, n)), np.zeros((t_count, n))
        for half in (0, 1):
            marks[rng.integers(half * t_count // 2, (half + 1) * t_count // 2, n), np.arange(n)] = 1
        x = np.stack([values, marks], 2).astype(np.float32)
        y, _ = layer(x)
        loss = nn.functional.mse_loss(head(y[-1]).reshape(n), (values * marks).sum(0).astype(np.float32))
        optimizer.zero_grad()
        loss.backward()
        fa.optim.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        errors.append(loss.item())
    return float(np.mean(errors[-20:]))


@pytest.mark.parametrize(
    ("kind", "steps", "solved"), [("LSTM", 450, True), ("GRU", 300, True), ("RNN", 450, False)]
)
def test_adding_problem(kind: str, steps: int, solved: bool) -> None:
    error = adding_error(kind, steps)
    assert (error < 0.02) if solved else (error > 0.12), error
